/*
 * down_bench.c - the feed-forward part in e4m3, in two ways: one product of gate and up and that of
 * down by cuBLASLt, with swiglu between them; and gated pair in blocks, our own product of those.
 * Each kernel alone (median of 50) and at least 0.6 s in a row, where power is the limit, then both
 * ways whole. Random numbers, the L2 cache as the run before leaves it.
 *
 *   down_bench [t [k [d [n]]]]     4224 2304 9216 2304 when left out: x[t, k], inner[t, d], [t, n]
 *
 * Ends with 1 when a result is wrong, 77 without a device that can.
 */
#include "tensor/cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROW_MS 600.0

typedef struct {
    rp_cuda *cuda;
    int t, k, d, n;
    float *room, *wide, *blocks, *plain, *own; /* activations; `blocks` holds e4m3 */
    rp_cuda_narrow x8, rows8;
    rp_tensor w[3]; /* gate, up, down */
    rp_cuda_gated gated;
    rp_cuda_gated_way gated_way, way;
    rp_cuda_down job;
} bench;

#include "bench_time.h"

/* ---- what is measured ---- */

static rp_cuda_gemm_shape shape_of(int m, int n, int k, const float *scale_a, const rp_tensor *w)
{
    return (rp_cuda_gemm_shape){.m = m,
                                .n = n,
                                .k = k,
                                .batch = 1,
                                .lda = k,
                                .ldb = k,
                                .ldd = n,
                                .b_transposed = true,
                                .alpha = 1.0f,
                                .scale_a = scale_a,
                                .scale_b = w->scale};
}

/* Gate and up are one matrix. */
static void run_gate_and_up(const bench *b)
{
    const rp_cuda_gemm_shape shape = shape_of(b->t, 2 * b->d, b->k, b->x8.scale, &b->w[0]);
    const rp_cuda_view x = {b->x8.data, RP_F8_E4M3};

    need(rp_cuda_gemm(b->cuda, &shape, x, rp_cuda_weight_view(&b->w[0]),
                      rp_cuda_at(b->cuda, b->room)));
}

static void run_swiglu(const bench *b)
{
    rp_cuda_k_swiglu_narrow(b->cuda->stream, rp_cuda_at(b->cuda, b->room), b->t, b->d,
                            rp_cuda_at(b->cuda, b->wide), b->rows8);
}

static void run_down_rows(const bench *b)
{
    const rp_cuda_gemm_shape shape = shape_of(b->t, b->n, b->d, b->rows8.scale, &b->w[2]);
    const rp_cuda_view x = {b->rows8.data, RP_F8_E4M3};

    need(rp_cuda_gemm(b->cuda, &shape, x, rp_cuda_weight_view(&b->w[2]),
                      rp_cuda_at(b->cuda, b->plain)));
}

static void run_gated(const bench *b)
{
    need_cuda(rp_cuda_k_gated(b->cuda->stream, &b->gated, &b->gated_way));
}

static void run_down_blocks(const bench *b)
{
    need_cuda(rp_cuda_k_down(b->cuda->stream, &b->job, &b->way));
}

static void run_plain(const bench *b)
{
    run_gate_and_up(b);
    run_swiglu(b);
    run_down_rows(b);
}

static void run_own(const bench *b)
{
    run_gated(b);
    run_down_blocks(b);
}

/* ---- setting up ---- */

static void *new_memory(const bench *b, size_t n_bytes)
{
    void *mem = NULL;

    need(rp_cuda_alloc(b->cuda, n_bytes, "bench", &mem));
    return mem;
}

static float *new_act(const bench *b, size_t n)
{
    void *mem = NULL;

    need(rp_cuda_alloc_act(b->cuda, n, "bench", &mem));
    rp_cuda_k_fill(b->cuda->stream, rp_cuda_at(b->cuda, mem), n, 1, 1.0f);
    return mem;
}

static rp_cuda_narrow new_rows(const bench *b, int t, int k)
{
    return (rp_cuda_narrow){new_memory(b, (size_t)t * (size_t)k),
                            new_memory(b, (size_t)t * sizeof(float))};
}

static rp_tensor shape_of_weight(int rows, int cols)
{
    return (rp_tensor){.dtype = RP_BF16, .n_dims = 2, .dim = {rows, cols, 1, 1}, .narrow = true};
}

static void new_weights(bench *b)
{
    rp_tensor inner = shape_of_weight(b->d, b->k), outer = shape_of_weight(b->n, b->d);
    rp_tensor *const both[] = {&inner, &inner};

    need(rp_cuda_weights_begin(b->cuda, both, 2)); /* side by side, as a network has them */
    for (int i = 0; i < 2; i++) {
        need(rp_cuda_weight_fill(b->cuda, &inner, 5 + (uint64_t)i, 0.03f, &b->w[i]));
    }
    need(rp_cuda_weight_fill(b->cuda, &outer, 7, 0.02f, &b->w[2]));
    if ((const char *)b->w[0].data + (size_t)b->d * (size_t)b->k != (const char *)b->w[1].data ||
        b->w[0].scale + b->d != b->w[1].scale) {
        (void)fprintf(stderr, "the weights are not side by side: d no multiple of 64\n");
        exit(1);
    }
}

static void new_jobs(bench *b)
{
    void *const out = rp_cuda_at(b->cuda, b->blocks).data;
    const rp_cuda_narrow blocks = rp_cuda_blocks_at(out, b->t, b->d);

    b->gated = (rp_cuda_gated){.dtype = RP_F8_E4M3,
                               .x = b->x8.data,
                               .w_gate = b->w[0].data,
                               .w_up = b->w[1].data,
                               .t = b->t,
                               .k = b->k,
                               .d = b->d,
                               .out = out,
                               .x_scale = b->x8.scale,
                               .gate_scale = b->w[0].scale,
                               .up_scale = b->w[1].scale,
                               .block_scale = blocks.scale};
    b->job = (rp_cuda_down){.a = blocks,
                            .w = b->w[2].data,
                            .w_scale = b->w[2].scale,
                            .m = b->t,
                            .n = b->n,
                            .k = b->d,
                            .ldd = b->n,
                            .d = rp_cuda_at(b->cuda, b->own).data};
    b->gated_way = rp_cuda_gated_choose(&b->gated);
    b->way = rp_cuda_down_choose(&b->job);
}

static void open_bench(bench *b)
{
    const rp_backend_params params = {.n_threads = 1, .precision = RP_PRECISION_FP8};
    const size_t t = (size_t)b->t;
    void *self = NULL;

    need(rp_backend_cuda.open(&params, &self));
    b->cuda = self;
    new_weights(b);
    b->room = new_act(b, 2 * t * (size_t)b->d);
    b->wide = new_act(b, t * (size_t)b->d);
    b->blocks = new_act(b, t * (size_t)b->d);
    b->plain = new_act(b, t * (size_t)b->n);
    b->own = new_act(b, t * (size_t)b->n);
    b->x8 = new_rows(b, b->t, b->k);
    b->rows8 = new_rows(b, b->t, b->d);
    rp_cuda_k_quantize_rows(b->cuda->stream, rp_cuda_at(b->cuda, b->room), b->t, b->k, b->k, b->x8);
    new_jobs(b);
}

/* ---- time ---- */

static void measure(const bench *b, bench_fn fn, double flop, const char *name)
{
    const double once = time_alone(b, fn);
    const int n = (int)(ROW_MS / once) + 1;

    print_times(42, name, flop, once, time_in_row(b, fn, n, n));
}

/* ---- results ---- */

static float *on_host(const bench *b, const float *x, size_t n)
{
    float *host = malloc(n * sizeof(*host));

    if (host == NULL) {
        exit(1);
    }
    rp_cuda_get(b->cuda, host, x, n * sizeof(*host));
    need(rp_backend_cuda.sync(b->cuda));
    return host;
}

static bool same(const bench *b, const char *what, const float *a, const float *c, size_t n,
                 double most)
{
    float *got = on_host(b, a, n), *want = on_host(b, c, n);
    double sum_sq = 0, diff_sq = 0;

    for (size_t i = 0; i < n; i++) {
        const double diff = (double)got[i] - (double)want[i];
        sum_sq += (double)want[i] * (double)want[i];
        diff_sq += diff * diff;
    }
    free(got);
    free(want);
    const double relative = sqrt(diff_sq / sum_sq);
    printf("    %s: relative L2 %.3g (at most %.3g): %s\n", what, relative, most,
           relative < most ? "same" : "WRONG");
    return relative < most;
}

/* Blocks against bf16: the rounding of e4m3. Our product against cuBLASLt's of what both matrices
 * stand for, in bf16: the rounding of that. */
static bool check(const bench *b)
{
    const size_t n_inner = (size_t)b->t * (size_t)b->d, n_out = (size_t)b->t * (size_t)b->n;
    const rp_cuda_view room = rp_cuda_at(b->cuda, b->room);
    const rp_cuda_narrow w8 = {(uint8_t *)(uintptr_t)b->w[2].data,
                               (float *)(uintptr_t)b->w[2].scale};
    const rp_cuda_view w = {new_memory(b, (size_t)b->n * (size_t)b->d * 2), RP_BF16};
    rp_cuda_gemm_shape shape = shape_of(b->t, b->n, b->d, NULL, &b->w[2]);

    run_plain(b);
    run_own(b);
    bool ok = same(b, "both ways whole", b->own, b->plain, n_out, 0.06);
    rp_cuda_k_dequantize_blocks(b->cuda->stream, b->job.a, b->t, b->d, room);
    ok = same(b, "gated pair in blocks, beside bf16", b->room, b->wide, n_inner, 0.04) && ok;
    rp_cuda_k_dequantize_rows(b->cuda->stream, w8, (size_t)b->n, (size_t)b->d, w);
    shape.scale_b = NULL;
    need(rp_cuda_gemm(b->cuda, &shape, room, w, rp_cuda_at(b->cuda, b->plain)));
    ok = same(b, "own product, beside cuBLASLt's in bf16", b->own, b->plain, n_out, 0.005) && ok;
    rp_cuda_release(b->cuda, w.data);
    return ok;
}

static void measure_ways(bench *b)
{
    static const int groups[] = {1, 3, 6, 11, 17, 33};
    const rp_cuda_gated_way chosen = b->way;
    const double flop = 2.0 * b->t * b->n * b->d;
    char name[64];

    printf("chosen: lead %d group %d\n", chosen.lead, chosen.group_rows);
    for (int i = 0; i < 4 + (int)(sizeof(groups) / sizeof(groups[0])); i++) {
        b->way.lead = i < 4 ? i : chosen.lead;
        b->way.group_rows = i < 4 ? chosen.group_rows : groups[i - 4];
        (void)snprintf(name, sizeof(name), "down, own, lead %d group %d", b->way.lead,
                       b->way.group_rows);
        measure(b, run_down_blocks, flop, name);
    }
    b->way = chosen;
}

static bool measure_all(bench *b)
{
    const double gated = 4.0 * b->t * b->k * b->d, flop = 2.0 * b->t * b->n * b->d;
    const bool ok = check(b);

    measure(b, run_gate_and_up, gated, "gate and up by cuBLASLt");
    measure(b, run_swiglu, 0.0, "swiglu that writes e4m3 too");
    measure(b, run_down_rows, flop, "down of rows by cuBLASLt");
    measure(b, run_gated, gated, "gated pair in blocks");
    measure_ways(b);
    measure(b, run_plain, gated + flop, "gate and up, swiglu, down by cuBLASLt");
    measure(b, run_own, gated + flop, "gated pair in blocks, down, own");
    return ok;
}

int main(int argc, char **argv)
{
    bench b = {.t = argc > 1 ? atoi(argv[1]) : 4224,
               .k = argc > 2 ? atoi(argv[2]) : 2304,
               .d = argc > 3 ? atoi(argv[3]) : 9216,
               .n = argc > 4 ? atoi(argv[4]) : 2304};

    if (rp_cuda_n_devices() == 0) {
        printf("SKIP: %s\n", rp_cuda_why_not());
        return 77;
    }
    open_bench(&b);
    printf("%s, t %d k %d d %d n %d\n", b.cuda->name, b.t, b.k, b.d, b.n);
    if (!rp_cuda_gated_can(&b.gated, b.cuda->capability) ||
        !rp_cuda_down_can(&b.job, b.cuda->capability)) {
        printf("SKIP: not this shape, build or device (compute capability %d)\n",
               b.cuda->capability);
        return 77;
    }
    const bool ok = measure_all(&b);
    need(rp_backend_cuda.sync(b.cuda));
    rp_backend_cuda.close(b.cuda);
    return ok ? 0 : 1;
}
