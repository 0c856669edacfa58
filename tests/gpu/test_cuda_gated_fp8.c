/*
 * test_cuda_gated_fp8.c - gated_linear in precision fp8. With feeds_linear, on compute capability
 * 9.0, it is one kernel, which leaves e4m3 in blocks: those against the CPU's results of the same
 * rounded numbers. Without, and for shapes that the kernel does not take: product and swiglu.
 */
#include "fp8_blocks.h"

#include <stdbool.h>

/* Relative L2 error. WIDE: results in bf16, and sums that e4m3 products keep less of. BLOCKS: those
 * in e4m3, which alone is 2.6 %. */
#define WIDE   1e-2
#define BLOCKS 4e-2
#define GUARD  768.0f /* a value that bf16 keeps */

enum { GUARDS = 16, MAX_K = 4096 }; /* elements around out */

typedef struct {
    int t, k, d;
} gated_case;

static const gated_case block_cases[] = {
    {1100, 128, 128},  {1024, 256, 384}, {1100, 2304, 1280}, {1300, 128, 1280},
    {1025, 2304, 128}, {1089, 512, 256}, {4224, 256, 1280},  {1024, 3968, 128},
};
static const gated_case other_cases[] = {
    {1000, 256, 128}, {1100, 144, 128}, {1100, 256, 208}, {1024, MAX_K, 128}, {3, 32, 16},
};

/* ---- one op ---- */

/* One op with what it needs. */
typedef struct {
    gated_case c;
    size_t n;                            /* elements of out */
    float *host_x, *host_gate, *host_up; /* borrowed by nobody */
    float *x, *room, *memory, *out;      /* out lies within memory, with guards around it */
    rp_tensor gate, up;
} gated_call;

static gated_call new_call(const gated_case *c)
{
    const size_t t = (size_t)c->t, k = (size_t)c->k, d = (size_t)c->d;
    gated_call g = {.c = *c,
                    .n = t * d,
                    .host_x = values(t * k, 1, 1.0f),
                    .host_gate = values(d * k, 2, 0.0625f),
                    .host_up = values(d * k, 3, 0.0625f)};
    rp_tensor gate = matrix(c->d, c->k, g.host_gate), up = matrix(c->d, c->k, g.host_up);
    rp_tensor *const both[] = {&gate, &up};
    float *guards = malloc((g.n + 2 * GUARDS) * sizeof(*guards));

    assert_non_null(guards);
    for (size_t i = 0; i < g.n + 2 * GUARDS; i++) {
        guards[i] = GUARD;
    }
    assert_int_equal(g_ops->weights_begin(g_fp8, both, 2), RP_OK);
    assert_int_equal(g_ops->weight(g_fp8, &gate, &g.gate), RP_OK);
    assert_int_equal(g_ops->weight(g_fp8, &up, &g.up), RP_OK);
    assert_int_equal(g.gate.dtype, RP_F8_E4M3);
    g.x = on_device(g_fp8, g.host_x, t * k);
    g.room = on_device(g_fp8, NULL, 2 * g.n);
    g.memory = on_device(g_fp8, guards, g.n + 2 * GUARDS);
    g.out = g.memory + GUARDS;
    free(guards);
    return g;
}

static void drop_call(gated_call *g)
{
    float *const arrays[] = {g->x, g->room, g->memory};

    for (size_t i = 0; i < COUNT(arrays); i++) {
        g_ops->release(g_fp8, arrays[i]);
    }
    g_ops->weight_release(g_fp8, &g->gate);
    g_ops->weight_release(g_fp8, &g->up);
    free(g->host_x);
    free(g->host_gate);
    free(g->host_up);
}

static void run(const gated_call *g, bool feeds_linear)
{
    g_ops->gated_linear(g_fp8, g->x, g->c.t, g->c.k, &g->gate, &g->up, feeds_linear, g->room,
                        g->out);
}

/* With feeds_linear: did it leave blocks? */
static bool in_blocks(const gated_call *g)
{
    const rp_cuda *cuda = g_fp8;

    run(g, true);
    return cuda->narrowed.blocks && cuda->narrowed.x == g->out && cuda->narrowed.t == g->c.t &&
           cuda->narrowed.k == g->c.d;
}

static host_blocks blocks_now(const gated_call *g)
{
    return blocks_of(g->out, g->c.t, g->c.d);
}

static gated_call call_or_skip(const gated_case *c)
{
    gated_call g = new_call(c);

    if (!in_blocks(&g)) {
        drop_call(&g);
        print_message("not on this device\n");
        skip();
    }
    return g;
}

static void check_guards(const gated_call *g)
{
    float *memory = from_device(g_fp8, g->memory, g->n + 2 * GUARDS);

    for (size_t i = 0; i < GUARDS; i++) {
        assert_true(memory[i] == GUARD && memory[GUARDS + g->n + i] == GUARD);
    }
    free(memory);
}

/* Product and swiglu. */
static float *apart(const gated_call *g)
{
    const rp_tensor *const both[] = {&g->gate, &g->up};
    float *out = on_device(g_fp8, NULL, g->n);

    g_ops->linear(g_fp8, g->x, g->c.t, g->c.k, g->c.k, both, 2, NULL, g->room);
    g_ops->swiglu(g_fp8, g->room, g->c.t, g->c.d, out);
    float *host = from_device(g_fp8, out, g->n);
    g_ops->release(g_fp8, out);
    return host;
}

static float *on_cpu(const gated_call *g)
{
    const gated_case *c = &g->c;
    float *x = rounded(g->host_x, c->t, c->k), *w_gate = rounded(g->host_gate, c->d, c->k);
    float *w_up = rounded(g->host_up, c->d, c->k);
    float *room = malloc(2 * g->n * sizeof(*room)), *out = malloc(g->n * sizeof(*out));
    const rp_tensor gate = matrix(c->d, c->k, w_gate), up = matrix(c->d, c->k, w_up);

    assert_true(room != NULL && out != NULL);
    g_cpu_ops->gated_linear(g_cpu, x, c->t, c->k, &gate, &up, false, room, out);
    assert_int_equal(g_cpu_ops->sync(g_cpu), RP_OK);
    free(x);
    free(w_gate);
    free(w_up);
    free(room);
    return out;
}

/* ---- product and swiglu ---- */

/* Rows that lie nowhere else. */
static bool left_only(void)
{
    const rp_cuda *cuda = g_fp8;

    return cuda->narrowed.t > 0 && cuda->narrowed.only;
}

static void same_as_apart(const gated_case *c, bool feeds_linear)
{
    const size_t n_x = (size_t)c->t * (size_t)c->k;
    gated_call g = new_call(c);

    run(&g, feeds_linear);
    assert_false(left_only());
    float *got = from_device(g_fp8, g.out, g.n), *want = on_cpu(&g), *plain = apart(&g);
    const double error = rpt_rel_l2(got, want, g.n);
    print_message("    t %d k %d d %d: error %.2g\n", c->t, c->k, c->d, error);
    assert_true(error <= WIDE);
    assert_memory_equal(got, plain, g.n * sizeof(float));
    check_guards(&g);
    float *x = from_device(g_fp8, g.x, n_x);
    assert_memory_equal(x, g.host_x, n_x * sizeof(float));
    drop_call(&g);
    free(got);
    free(want);
    free(plain);
    free(x);
}

static void others_are_product_and_swiglu(void **state)
{
    (void)state;
    same_as_apart(&block_cases[1], false);
    for (size_t i = 0; i < 2 * COUNT(other_cases); i++) {
        same_as_apart(&other_cases[i / 2], i % 2 == 1);
    }
}

/* ---- blocks ---- */

/* Each scale from the largest of its 128, each element where it belongs. Returns the largest
 * difference, as a share of that largest one. */
static double check_blocks(const host_blocks *b, const float *got, const float *want)
{
    double worst = 0;

    for (size_t at = 0; at < (size_t)b->t * (size_t)b->k; at += RP_CUDA_BLOCK) {
        float most = 0;
        for (size_t i = at; i < at + RP_CUDA_BLOCK; i++) {
            most = fmaxf(most, fabsf(want[i]));
        }
        assert_true(fabsf(scale_of(b, at) * 448.0f - most) <= 0.03f * most);
        for (size_t i = at; i < at + RP_CUDA_BLOCK; i++) {
            const float diff = fabsf(got[i] - want[i]);
            assert_true(diff <= 0.07f * fabsf(want[i]) + 0.05f * most);
            worst = fmax(worst, (double)(diff / most));
        }
    }
    return worst;
}

static void blocks_are_the_rounded_results(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(block_cases); i++) {
        gated_call g = call_or_skip(&block_cases[i]);
        host_blocks b = blocks_now(&g);
        float *got = multiplied_out(&b), *want = on_cpu(&g);
        const double error = rpt_rel_l2(got, want, g.n), worst = check_blocks(&b, got, want);
        print_message("    t %d k %d d %d: error %.2g, worst %.2g of the largest in its block\n",
                      g.c.t, g.c.k, g.c.d, error, worst);
        assert_true(error <= BLOCKS);
        check_guards(&g);
        drop_blocks(&b);
        drop_call(&g);
        free(got);
        free(want);
    }
}

static void same_blocks(const host_blocks *a, const host_blocks *b)
{
    assert_memory_equal(a->codes, b->codes, (size_t)a->t * (size_t)a->k);
    for (size_t i = 0; i < (size_t)(a->k / RP_CUDA_BLOCK); i++) {
        assert_memory_equal(a->scales + i * a->rows, b->scales + i * b->rows,
                            (size_t)a->t * sizeof(*a->scales));
    }
}

/* A row of zeros, of large numbers, with a NaN; a matrix with one, which is in a column of all. */
static void check_lost(const gated_call *g, bool in_matrix)
{
    host_blocks b = blocks_now(g);

    for (size_t i = 0; i < g->n; i++) {
        const size_t row = i / (size_t)g->c.d, col = i % (size_t)g->c.d;
        const bool lost = row == 5 || (in_matrix && col == 77);
        const int size = b.codes[i] & 0x7f;
        assert_true((size == 0x7f) == lost);
        assert_true(row != 3 || lost || size == 0);
        assert_true(isfinite(scale_of(&b, i)) && scale_of(&b, i) > 0.0f);
    }
    drop_blocks(&b);
}

static void rows_that_are_not_finite(void **state)
{
    (void)state;
    static const gated_case c = {1100, 256, 256};

    for (int in_matrix = 0; in_matrix < 2; in_matrix++) {
        gated_call g = call_or_skip(&c);
        memset(g.host_x + (size_t)3 * (size_t)c.k, 0, (size_t)c.k * sizeof(float));
        for (int i = 0; i < c.k; i++) {
            g.host_x[700 * c.k + i] *= 4096.0f;
        }
        g.host_x[5 * c.k + 9] = NAN;
        g_ops->put(g_fp8, g.x, g.host_x, (size_t)c.t * (size_t)c.k * sizeof(float));
        if (in_matrix) {
            g.host_up[77 * c.k + 9] = NAN;
            const rp_tensor up = matrix(c.d, c.k, g.host_up);
            g_ops->weight_release(g_fp8, &g.up);
            assert_int_equal(g_ops->weight(g_fp8, &up, &g.up), RP_OK);
        }
        run(&g, true);
        check_lost(&g, in_matrix);
        drop_call(&g);
    }
}

/* What the op before has left is taken: also where it lies nowhere else. */
static void rows_come_in_8_bits(void **state)
{
    (void)state;
    static const gated_case c = {1100, 256, 1280};
    gated_call g = call_or_skip(&c);
    rp_cuda *cuda = g_fp8;
    host_blocks plain = blocks_now(&g);

    for (int only = 0; only < 2; only++) {
        const rp_cuda_view x = rp_cuda_at(cuda, g.x);
        rp_cuda_narrow rows;
        assert_int_equal(rp_cuda_narrow_room(cuda, c.t, c.k, &rows), RP_OK);
        rp_cuda_k_quantize_rows(cuda->stream, x, c.t, c.k, c.k, rows);
        if (only) {
            const size_t n_bytes = (size_t)c.t * (size_t)c.k * 2;
            assert_int_equal(cudaMemsetAsync(x.data, 0xff, n_bytes, cuda->stream), cudaSuccess);
            rp_cuda_narrow_only(cuda, g.x, c.t, c.k);
        } else {
            rp_cuda_narrow_done(cuda, rows, g.x, c.t, c.k);
        }
        run(&g, true);
        host_blocks b = blocks_now(&g);
        same_blocks(&b, &plain);
        drop_blocks(&b);
    }
    drop_blocks(&plain);
    drop_call(&g);
}

/* The job of the one kernel; x in 8 bits is made in its usual place. */
static rp_cuda_gated job_of(const gated_call *g)
{
    rp_cuda *cuda = g_fp8;
    const rp_cuda_view out = rp_cuda_at(cuda, g->out);
    rp_cuda_narrow x;

    assert_int_equal(rp_cuda_narrow_room(cuda, g->c.t, g->c.k, &x), RP_OK);
    rp_cuda_k_quantize_rows(cuda->stream, rp_cuda_at(cuda, g->x), g->c.t, g->c.k, g->c.k, x);
    return (rp_cuda_gated){.dtype = RP_F8_E4M3,
                           .x = x.data,
                           .w_gate = g->gate.data,
                           .w_up = g->up.data,
                           .t = g->c.t,
                           .k = g->c.k,
                           .d = g->c.d,
                           .out = out.data,
                           .x_scale = x.scale,
                           .gate_scale = g->gate.scale,
                           .up_scale = g->up.scale,
                           .block_scale = rp_cuda_blocks_at(out.data, g->c.t, g->c.d).scale};
}

/* Order of tiles and who is ahead change the time, not the bits. */
static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    static const gated_case ways[] = {{1024, 128, 256}, {1100, 512, 512}, {4000, 640, 1280}};
    static const int group_rows[] = {1, 5, 8, 1000};
    rp_cuda *cuda = g_fp8;

    for (size_t i = 0; i < COUNT(ways); i++) {
        gated_call g = call_or_skip(&ways[i]);
        host_blocks want = blocks_now(&g);
        const rp_cuda_gated job = job_of(&g);
        for (int j = 0; j < 4 * (int)COUNT(group_rows); j++) {
            const rp_cuda_gated_way way = {.lead = j % 4, .group_rows = group_rows[j / 4]};
            assert_int_equal(cudaMemsetAsync(job.out, 0xff, g.n * 2, cuda->stream), cudaSuccess);
            assert_int_equal(rp_cuda_k_gated(cuda->stream, &job, &way), cudaSuccess);
            host_blocks got = blocks_now(&g);
            same_blocks(&got, &want);
            drop_blocks(&got);
        }
        drop_blocks(&want);
        drop_call(&g);
    }
}

/* ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_are_product_and_swiglu),
        cmocka_unit_test(blocks_are_the_rounded_results),
        cmocka_unit_test(rows_that_are_not_finite),
        cmocka_unit_test(rows_come_in_8_bits),
        cmocka_unit_test(every_way_gives_the_same_bits),
    };
    fp8_open_or_skip(RP_PRECISION_FP8, MAX_K, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_gated_fp8", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
