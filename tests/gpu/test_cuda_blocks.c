/*
 * test_cuda_blocks.c - the product of e4m3 in blocks (rp_cuda_k_down) alone: made numbers, shapes
 * that no network has, every order of tiles. Skipped where there is no such kernel.
 */
#include "fp8_arrays.h"

#include <stdbool.h>

#define TOLERANCE                                                                                  \
    5e-3 /* relative L2: sums of 128 keep fewer bits than f32 has, the rest is bf16                \
          */
#define GUARD 768.0f

enum { MAX_K = 9216 };

typedef struct {
    int m, n, k, ldd;
} down_case;

static const down_case cases[] = {
    {1024, 192, 128, 192},   {1025, 2304, 384, 2304}, {1111, 200, 640, 208}, {1100, 8, 2304, 16},
    {4224, 2304, 256, 2304}, {1200, 392, MAX_K, 400}, {1088, 384, 512, 384},
};

/* Numbers on the host, and the job on the device. */
typedef struct {
    down_case c;
    float *a, *w; /* what they stand for */
    float *out;   /* [m, ldd] activations */
    void *blocks, *w_codes, *w_scale;
    rp_cuda_down job;
} down;

static uint8_t code_of(float x, float scale, float *value)
{
    const uint8_t code = rpt_e4m3_of((double)(x / scale));

    *value = (float)rpt_e4m3_value(code) * scale;
    return code;
}

/* Not the scales that rounding would take: one that is off by a place would be seen. */
static float made_scale(int i)
{
    return ldexpf(1.0f + (float)(i * 7 % 16) / 16.0f, i * 5 % 7 - 10);
}

/* In the stream where the new memory becomes zeros. */
static void *to_device(const void *host, size_t n_bytes)
{
    const rp_cuda *cuda = g_fp8;
    void *mem = NULL;

    assert_int_equal(g_ops->alloc(g_fp8, n_bytes, "test", &mem), RP_OK);
    assert_int_equal(cudaMemcpyAsync(mem, host, n_bytes, cudaMemcpyHostToDevice, cuda->stream),
                     cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(cuda->stream), cudaSuccess);
    return mem;
}

/* In memory that bf16 would need. Scales of no row are NaN. */
static void make_a(down *p)
{
    const int m = p->c.m, k = p->c.k;
    const size_t rows = rp_cuda_block_rows(m), n = (size_t)m * (size_t)k;
    uint8_t *host = calloc(n, 2);
    const rp_cuda_narrow at = rp_cuda_blocks_at(host, m, k);

    p->a = values(n, 21, 1.0f);
    for (size_t i = 0; i < rows * (size_t)(k / RP_CUDA_BLOCK); i++) {
        at.scale[i] = i % rows < (size_t)m ? made_scale((int)i) : NAN;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t row = i / (size_t)k, block = i % (size_t)k / RP_CUDA_BLOCK;
        at.data[i] = code_of(p->a[i], at.scale[block * rows + row], &p->a[i]);
    }
    p->blocks = to_device(host, 2 * n);
    free(host);
}

static void make_w(down *p)
{
    const size_t n = (size_t)p->c.n * (size_t)p->c.k;
    uint8_t *codes = malloc(n);
    float *scales = malloc((size_t)p->c.n * sizeof(*scales));

    assert_true(codes != NULL && scales != NULL);
    p->w = values(n, 22, 0.0625f);
    for (size_t i = 0; i < n; i++) {
        const size_t row = i / (size_t)p->c.k;
        scales[row] = made_scale((int)row + 3);
        codes[i] = code_of(p->w[i], scales[row], &p->w[i]);
    }
    p->w_codes = to_device(codes, n);
    p->w_scale = to_device(scales, (size_t)p->c.n * sizeof(*scales));
    free(codes);
    free(scales);
}

static down new_down(const down_case *c)
{
    down p = {.c = *c};

    make_a(&p);
    make_w(&p);
    p.out = on_device(g_fp8, NULL, (size_t)c->m * (size_t)c->ldd);
    p.job = (rp_cuda_down){.a = rp_cuda_blocks_at(p.blocks, c->m, c->k),
                           .w = p.w_codes,
                           .w_scale = p.w_scale,
                           .m = c->m,
                           .n = c->n,
                           .k = c->k,
                           .ldd = c->ldd,
                           .d = rp_cuda_at(g_fp8, p.out).data};
    return p;
}

static void drop_down(down *p)
{
    g_ops->release(g_fp8, p->blocks);
    g_ops->release(g_fp8, p->w_codes);
    g_ops->release(g_fp8, p->w_scale);
    g_ops->release(g_fp8, p->out);
    free(p->a);
    free(p->w);
}

static down down_or_skip(const down_case *c)
{
    down p = new_down(c);

    if (!rp_cuda_down_can(&p.job, ((rp_cuda *)g_fp8)->capability)) {
        drop_down(&p);
        print_message("not on this device\n");
        skip();
    }
    return p;
}

/* [m, ldd] after a run over guards. */
static float *run(const down *p, const rp_cuda_gated_way *way)
{
    const rp_cuda *cuda = g_fp8;
    const size_t n = (size_t)p->c.m * (size_t)p->c.ldd;
    float *guards = malloc(n * sizeof(*guards));

    assert_non_null(guards);
    for (size_t i = 0; i < n; i++) {
        guards[i] = GUARD;
    }
    g_ops->put(g_fp8, p->out, guards, n * sizeof(float));
    assert_int_equal(rp_cuda_k_down(cuda->stream, &p->job, way), cudaSuccess);
    free(guards);
    return from_device(g_fp8, p->out, n);
}

static float *on_cpu(const down *p)
{
    const rp_tensor w = matrix(p->c.n, p->c.k, p->w);
    const rp_tensor *const list[] = {&w};
    float *out = malloc((size_t)p->c.m * (size_t)p->c.n * sizeof(*out));

    assert_non_null(out);
    g_cpu_ops->linear(g_cpu, p->a, p->c.m, p->c.k, p->c.k, list, 1, NULL, out);
    assert_int_equal(g_cpu_ops->sync(g_cpu), RP_OK);
    return out;
}

/* Rows of n out of rows of ldd, of which the rest is as it was. */
static void pack(const down *p, float *x)
{
    for (int i = 0; i < p->c.m; i++) {
        float *const row = x + (size_t)i * (size_t)p->c.ldd;
        for (int j = p->c.n; j < p->c.ldd; j++) {
            assert_true(row[j] == GUARD);
        }
        memmove(x + (size_t)i * (size_t)p->c.n, row, (size_t)p->c.n * sizeof(*x));
    }
}

static void product_is_the_cpus(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        down p = down_or_skip(&cases[i]);
        const rp_cuda_gated_way way = rp_cuda_down_choose(&p.job);
        float *got = run(&p, &way), *want = on_cpu(&p);
        pack(&p, got);
        const size_t n = (size_t)p.c.m * (size_t)p.c.n;
        const double error = rpt_rel_l2(got, want, n);
        print_message("    m %d n %d k %d, rows of %d: error %.2g\n", p.c.m, p.c.n, p.c.k, p.c.ldd,
                      error);
        assert_true(error <= TOLERANCE);
        drop_down(&p);
        free(got);
        free(want);
    }
}

/* Each element by itself: no tile may be exchanged for another. */
static void every_row_is_right(void **state)
{
    (void)state;
    static const down_case c = {1111, 392, 640, 392};
    down p = down_or_skip(&c);
    const rp_cuda_gated_way way = rp_cuda_down_choose(&p.job);
    float *got = run(&p, &way), *want = on_cpu(&p);

    for (int i = 0; i < c.m; i++) {
        const size_t at = (size_t)i * (size_t)c.n;
        assert_true(rpt_rel_l2(got + at, want + at, (size_t)c.n) <= 2 * TOLERANCE);
    }
    drop_down(&p);
    free(got);
    free(want);
}

/* Order of tiles and who is ahead change the time, not the bits. */
static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    static const down_case ways[] = {
        {1024, 192, 128, 192}, {1100, 584, 640, 584}, {4000, 2304, 512, 2304}};
    static const int group_rows[] = {1, 5, 11, 1000};

    for (size_t i = 0; i < COUNT(ways); i++) {
        down p = down_or_skip(&ways[i]);
        const rp_cuda_gated_way chosen = rp_cuda_down_choose(&p.job);
        float *want = run(&p, &chosen);
        for (int j = 0; j < 4 * (int)COUNT(group_rows); j++) {
            const rp_cuda_gated_way way = {.lead = j % 4, .group_rows = group_rows[j / 4]};
            float *got = run(&p, &way);
            assert_memory_equal(got, want, (size_t)p.c.m * (size_t)p.c.ldd * sizeof(float));
            free(got);
        }
        drop_down(&p);
        free(want);
    }
}

/* What blocks stand for, and that with one scale for a row. */
static void blocks_go_back(void **state)
{
    (void)state;
    static const down_case c = {1025, 192, 640, 192};
    const rp_cuda *cuda = g_fp8;
    const size_t n = (size_t)c.m * (size_t)c.k;
    down p = new_down(&c);
    float *wide = on_device(g_fp8, NULL, n);
    void *data = NULL, *scale = NULL;

    rp_cuda_k_dequantize_blocks(cuda->stream, p.job.a, c.m, c.k, rp_cuda_at(g_fp8, wide));
    float *got = from_device(g_fp8, wide, n);
    assert_true(rpt_rel_l2(got, p.a, n) <= 3e-3);

    assert_int_equal(g_ops->alloc(g_fp8, n, "test", &data), RP_OK);
    assert_int_equal(g_ops->alloc(g_fp8, (size_t)c.m * sizeof(float), "test", &scale), RP_OK);
    const rp_cuda_narrow rows = {data, scale};
    rp_cuda_k_blocks_to_rows(cuda->stream, p.job.a, c.m, c.k, rows);
    rp_cuda_k_dequantize_rows(cuda->stream, rows, (size_t)c.m, (size_t)c.k,
                              rp_cuda_at(g_fp8, wide));
    free(got);
    got = from_device(g_fp8, wide, n);
    float *want = rounded(p.a, c.m, c.k);
    assert_true(rpt_rel_l2(got, want, n) <= 3e-3);
    g_ops->release(g_fp8, wide);
    g_ops->release(g_fp8, data);
    g_ops->release(g_fp8, scale);
    drop_down(&p);
    free(got);
    free(want);
}

static void what_the_kernel_cannot_is_refused(void **state)
{
    (void)state;
    static const down_case c = {1024, 192, 256, 192};
    down p = down_or_skip(&c);
    rp_cuda_down jobs[] = {p.job, p.job, p.job, p.job, p.job, p.job};

    jobs[0].m = RP_CUDA_GATED_ROWS - 1;
    jobs[1].n = 196;
    jobs[2].k = 192;
    jobs[3].ldd = 196;
    jobs[4].d = (char *)p.job.d + 8;
    jobs[5].w_scale = NULL;
    for (size_t i = 0; i < COUNT(jobs); i++) {
        assert_false(rp_cuda_down_can(&jobs[i], 90));
    }
    assert_false(rp_cuda_down_can(&p.job, 80) || rp_cuda_down_can(&p.job, 100));
    drop_down(&p);
}

/* ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_is_the_cpus),
        cmocka_unit_test(every_row_is_right),
        cmocka_unit_test(every_way_gives_the_same_bits),
        cmocka_unit_test(blocks_go_back),
        cmocka_unit_test(what_the_kernel_cannot_is_refused),
    };
    fp8_open_or_skip(RP_PRECISION_FP8, MAX_K, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_blocks", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
