/*
 * gated_bench.c - what the fused gated pair of products is worth: it and its ways beside product
 * and swiglu, each alone (median of 50) and 300 in a row, where power is the limit; in bf16, then
 * in e4m3, where the next product wants the result in 8 bits too: in blocks, or rows beside bf16.
 * Random numbers, the L2 cache as the run before leaves it.
 *
 *   gated_bench [t [k [d]]]     4224 2304 9216 when left out
 *
 * Ends with 1 when a result is not the other route's, 77 without a device that can.
 */
#include "tensor/cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_ROW = 300 };

typedef struct {
    rp_precision precision;
    rp_cuda *cuda;
    int t, k, d;
    float *x, *room, *plain, *fused; /* activations; fused: or blocks of e4m3 */
    rp_cuda_narrow x8, out8;         /* of e4m3: x, and what swiglu leaves the next product */
    rp_tensor w[2];
    rp_cuda_gated job;
    rp_cuda_gated_way way;
} bench;

#include "bench_time.h"

static bool is_narrow(const bench *b)
{
    return b->precision == RP_PRECISION_FP8;
}

/* Both weights are one matrix. */
static void run_product(const bench *b)
{
    const rp_cuda_gemm_shape shape = {.m = b->t,
                                      .n = 2 * b->d,
                                      .k = b->k,
                                      .batch = 1,
                                      .lda = b->k,
                                      .ldb = b->k,
                                      .ldd = 2 * b->d,
                                      .b_transposed = true,
                                      .alpha = 1.0f,
                                      .scale_a = b->x8.scale,
                                      .scale_b = b->w[0].scale};
    const rp_cuda_view x8 = {b->x8.data, RP_F8_E4M3};

    need(rp_cuda_gemm(b->cuda, &shape, is_narrow(b) ? x8 : rp_cuda_at(b->cuda, b->x),
                      rp_cuda_weight_view(&b->w[0]), rp_cuda_at(b->cuda, b->room)));
}

static void run_swiglu(const bench *b)
{
    const rp_cuda_view ab = rp_cuda_at(b->cuda, b->room), out = rp_cuda_at(b->cuda, b->plain);

    if (is_narrow(b)) {
        rp_cuda_k_swiglu_narrow(b->cuda->stream, ab, b->t, b->d, out, b->out8);
    } else {
        rp_cuda_k_swiglu(b->cuda->stream, ab, b->t, b->d, out);
    }
}

static void run_plain(const bench *b)
{
    run_product(b);
    run_swiglu(b);
}

static void run_fused(const bench *b)
{
    need_cuda(rp_cuda_k_gated(b->cuda->stream, &b->job, &b->way));
}

static float *new_act(const bench *b, size_t n, uint64_t seed)
{
    void *mem = NULL;

    need(rp_cuda_alloc_act(b->cuda, n, "bench", &mem));
    rp_cuda_k_fill(b->cuda->stream, rp_cuda_at(b->cuda, mem), n, seed, 1.0f);
    return mem;
}

static rp_cuda_narrow new_rows(const bench *b, int t, int k)
{
    void *data = NULL, *scale = NULL;

    need(rp_cuda_alloc(b->cuda, (size_t)t * (size_t)k, "bench", &data));
    need(rp_cuda_alloc(b->cuda, (size_t)t * sizeof(float), "bench", &scale));
    return (rp_cuda_narrow){data, scale};
}

static void new_weights(bench *b)
{
    rp_tensor shape = {
        .dtype = RP_BF16, .n_dims = 2, .dim = {b->d, b->k, 1, 1}, .narrow = is_narrow(b)};
    rp_tensor *const both[] = {&shape, &shape};

    need(rp_cuda_weights_begin(b->cuda, both, 2)); /* side by side, as a network has them */
    for (int i = 0; i < 2; i++) {
        need(rp_cuda_weight_fill(b->cuda, &shape, 5 + (uint64_t)i, 0.03f, &b->w[i]));
    }
    if ((const char *)b->w[0].data + (size_t)b->d * (size_t)b->k * rp_dtype_bytes(b->w[0].dtype) !=
        (const char *)b->w[1].data) {
        (void)fprintf(stderr, "the weights are not side by side: d k must be a multiple of 256\n");
        exit(1);
    }
}

static void open_bench(bench *b)
{
    const rp_backend_params params = {.n_threads = 1, .precision = b->precision};
    const size_t t = (size_t)b->t, k = (size_t)b->k, d = (size_t)b->d;
    void *self = NULL;

    need(rp_backend_cuda.open(&params, &self));
    b->cuda = self;
    new_weights(b);
    b->x = new_act(b, t * k, 1);
    b->room = new_act(b, 2 * t * d, 2);
    b->plain = new_act(b, t * d, 3);
    b->fused = new_act(b, t * d, 4);
    b->job = (rp_cuda_gated){.dtype = b->w[0].dtype,
                             .x = rp_cuda_at(b->cuda, b->x).data,
                             .w_gate = b->w[0].data,
                             .w_up = b->w[1].data,
                             .t = b->t,
                             .k = b->k,
                             .d = b->d,
                             .out = rp_cuda_at(b->cuda, b->fused).data,
                             .gate_scale = b->w[0].scale,
                             .up_scale = b->w[1].scale};
    if (is_narrow(b)) {
        b->x8 = new_rows(b, b->t, b->k);
        b->out8 = new_rows(b, b->t, b->d);
        rp_cuda_k_quantize_rows(b->cuda->stream, rp_cuda_at(b->cuda, b->x), b->t, b->k, b->k,
                                b->x8);
        b->job.x = b->x8.data;
        b->job.x_scale = b->x8.scale;
        b->job.block_scale = rp_cuda_blocks_at(b->job.out, b->t, b->d).scale;
    }
}

/* ---- time ---- */

static void measure(const bench *b, bench_fn fn, const char *name)
{
    const double flop = 4.0 * b->t * b->k * b->d, once = time_alone(b, fn);

    print_times(34, name, flop, once, time_in_row(b, fn, N_ROW, N_ROW));
}

/* ---- results ---- */

static float *on_host(const bench *b, const float *x)
{
    const size_t n = (size_t)b->t * (size_t)b->d;
    float *host = malloc(n * sizeof(*host));

    if (host == NULL) {
        exit(1);
    }
    rp_cuda_get(b->cuda, host, x, n * sizeof(*host));
    need(rp_backend_cuda.sync(b->cuda));
    return host;
}

/* What the kernel has left, of e4m3 multiplied out to `room`. */
static float *fused_on_host(const bench *b)
{
    const rp_cuda_view room = rp_cuda_at(b->cuda, b->room);

    if (!is_narrow(b)) {
        return on_host(b, b->fused);
    }
    rp_cuda_k_dequantize_blocks(b->cuda->stream, rp_cuda_blocks_at(b->job.out, b->t, b->d), b->t,
                                b->d, room);
    return on_host(b, b->room);
}

/* What tests allow of the norm. Both round to bf16, the plain route more than once; the kernel of
 * e4m3 to that, 2.6 %. */
static bool same(const bench *b)
{
    const size_t n = (size_t)b->t * (size_t)b->d;
    const double allowed = is_narrow(b) ? 4e-2 : 1e-2;
    double most = 0, largest = 0, sum_sq = 0, diff_sq = 0;

    float *want = on_host(b, b->plain), *got = fused_on_host(b);
    for (size_t i = 0; i < n; i++) {
        const double w = (double)want[i], diff = fabs((double)got[i] - w);
        most = diff > most || isnan(diff) ? diff : most;
        largest = fmax(largest, fabs(w));
        sum_sq += w * w;
        diff_sq += diff * diff;
    }
    free(want);
    free(got);
    const double relative = sqrt(diff_sq / sum_sq);
    printf("    largest difference %.4g (largest value %.4g), relative L2 %.3g: %s\n", most,
           largest, relative, relative < allowed ? "same" : "WRONG");
    return relative < allowed;
}

static bool measure_way(bench *b, int lead, int group_rows)
{
    char name[64];

    b->way = (rp_cuda_gated_way){.group_rows = group_rows, .lead = lead};
    (void)snprintf(name, sizeof(name), "fused, lead %d group %d", lead, group_rows);
    measure(b, run_fused, name);
    return same(b);
}

static bool measure_ways(bench *b)
{
    static const int groups[] = {8, 11, 17, 33};
    bool ok = true;

    b->way = rp_cuda_gated_choose(&b->job);
    const rp_cuda_gated_way chosen = b->way;
    printf("chosen: lead %d group %d\n", chosen.lead, chosen.group_rows);
    for (int lead = 0; lead <= 3; lead++) {
        ok = measure_way(b, lead, chosen.group_rows) && ok;
    }
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        ok = measure_way(b, chosen.lead, groups[i]) && ok;
    }
    b->way = chosen;
    return ok;
}

static bool measure_all(bench *b)
{
    measure(b, run_product, "product");
    measure(b, run_swiglu, is_narrow(b) ? "swiglu that writes e4m3 too" : "swiglu");
    measure(b, run_plain, "product and swiglu");
    const bool ok = measure_ways(b);
    measure(b, run_plain, "product and swiglu, again");
    return ok;
}

int main(int argc, char **argv)
{
    static const rp_precision precisions[] = {RP_PRECISION_BF16, RP_PRECISION_FP8};
    bool ok = true;
    int n_done = 0;

    if (rp_cuda_n_devices() == 0) {
        printf("SKIP: %s\n", rp_cuda_why_not());
        return 77;
    }
    for (int i = 0; i < 2; i++) {
        bench b = {.precision = precisions[i],
                   .t = argc > 1 ? atoi(argv[1]) : 4224,
                   .k = argc > 2 ? atoi(argv[2]) : 2304,
                   .d = argc > 3 ? atoi(argv[3]) : 9216};
        open_bench(&b);
        printf("%s, %s, t %d k %d d %d\n", b.cuda->name, is_narrow(&b) ? "e4m3" : "bf16", b.t, b.k,
               b.d);
        if (rp_cuda_gated_can(&b.job, b.cuda->capability)) {
            ok = measure_all(&b) && ok;
            n_done++;
        } else {
            printf("SKIP: not this shape, build or device (compute capability %d)\n",
                   b.cuda->capability);
        }
        need(rp_backend_cuda.sync(b.cuda));
        rp_backend_cuda.close(b.cuda);
    }
    return n_done == 0 ? 77 : ok ? 0 : 1;
}
