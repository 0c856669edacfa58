/*
 * ops_bench.c - time and bytes a second of the ops of a transformer block that only move data:
 * norms (rows as bf16, as e4m3 too, as e4m3 only) and the norm and turn of heads, in rows of at
 * least 0.2 s, beside a copy. Calls take turns on several sets of arrays, so that nothing is found
 * in the L2 cache.
 *
 *   ops_bench [t]     4224 when left out
 *
 * Ends with 77 without a device.
 */
#include "tensor/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

enum { SETS = 4, HIDDEN = 2304, N_Q = 24, N_K = 8, HEAD_DIM = 96, STRIDE = 3840 };

#define LEAST_MS 200.0f

typedef struct {
    rp_cuda *cuda;
    int t;
    float *x[SETS];             /* [t, hidden] f32, the residual stream */
    float *y[SETS], *out[SETS]; /* [t, hidden] activations */
    float *qkv[SETS];           /* [t, stride] activations */
    float *scale, *cos, *sin;   /* [hidden]; [t, head_dim / 2] */
    rp_tensor norm, head_q, head_k;
} bench;

typedef void (*bench_fn)(const bench *b, int set);

static const rp_backend_ops *const ops = &rp_backend_cuda;

static void need(rp_status st)
{
    if (st != RP_OK) {
        exit(1);
    }
}

static void need_cuda(cudaError_t code)
{
    if (code != cudaSuccess) {
        (void)fprintf(stderr, "%s\n", cudaGetErrorString(code));
        exit(1);
    }
}

/* ---- what is measured ---- */

static void copy_stream(const bench *b, int set)
{
    ops->copy(b->cuda, b->x[set], b->x[(set + 1) % SETS], (size_t)b->t * HIDDEN * sizeof(float));
}

static void rms(const bench *b, int set, bool feeds_linear)
{
    ops->rms_norm(b->cuda, b->x[set], b->t, HIDDEN, &b->norm, 0, 1e-5f, b->scale, b->out[set],
                  feeds_linear);
}

static void rms_rows(const bench *b, int set)
{
    rms(b, set, false);
}

static void rms_feeds(const bench *b, int set)
{
    rms(b, set, true);
}

static void add_rms(const bench *b, int set, bool feeds_linear)
{
    ops->add_rms_norm_rms_norm(b->cuda, b->x[set], b->y[set], b->t, HIDDEN, &b->norm, 0, 1e-5f,
                               b->scale, &b->norm, b->scale, b->out[set], feeds_linear);
}

static void add_rms_rows(const bench *b, int set)
{
    add_rms(b, set, false);
}

static void add_rms_feeds(const bench *b, int set)
{
    add_rms(b, set, true);
}

static void turn_heads(const bench *b, float *x, int n_q, int n_k)
{
    const rp_rope_shape shape = {.t = b->t,
                                 .n_q = n_q,
                                 .n_k = n_k,
                                 .head_dim = HEAD_DIM,
                                 .row_stride = STRIDE,
                                 .eps = 1e-5f,
                                 .kind = RP_ROPE_PAIRS};

    ops->head_norm_rope(b->cuda, &shape, x, &b->head_q, &b->head_k, b->cos, b->sin);
}

static void heads_together(const bench *b, int set)
{
    turn_heads(b, b->qkv[set], N_Q, N_K);
}

static void heads_apart(const bench *b, int set)
{
    turn_heads(b, b->qkv[set], N_Q, 0);
    turn_heads(b, b->qkv[set] + (size_t)N_Q * HEAD_DIM, 0, N_K);
}

/* ---- arrays ---- */

static float *new_array(const bench *b, size_t n, bool act, uint64_t seed)
{
    void *mem = NULL;

    need(act ? ops->alloc_act(b->cuda, n, "bench", &mem)
             : ops->alloc(b->cuda, n * sizeof(float), "bench", &mem));
    rp_cuda_k_fill(b->cuda->stream, rp_cuda_at(b->cuda, mem), n, seed, 1.0f);
    return mem;
}

static rp_tensor new_vector(const bench *b, int n)
{
    const rp_tensor shape = {.dtype = RP_F32, .n_dims = 1, .dim = {n, 1, 1, 1}};
    rp_tensor out;

    need(ops->weight_fill(b->cuda, &shape, 1, 0.0f, &out));
    return out;
}

static void open_arrays(bench *b)
{
    const size_t n = (size_t)b->t * HIDDEN;

    for (int i = 0; i < SETS; i++) {
        const uint64_t seed = 10 * (uint64_t)i;
        b->x[i] = new_array(b, n, false, seed + 1);
        b->y[i] = new_array(b, n, true, seed + 2);
        b->out[i] = new_array(b, n, true, seed + 3);
        b->qkv[i] = new_array(b, (size_t)b->t * STRIDE, true, seed + 4);
    }
    b->scale = new_array(b, HIDDEN, false, 5);
    b->cos = new_array(b, (size_t)b->t * HEAD_DIM / 2, false, 6);
    b->sin = new_array(b, (size_t)b->t * HEAD_DIM / 2, false, 7);
    b->norm = new_vector(b, HIDDEN);
    b->head_q = new_vector(b, HEAD_DIM);
    b->head_k = new_vector(b, HEAD_DIM);
}

/* ---- time ---- */

/* Milliseconds of n calls together. */
static float time_of(const bench *b, bench_fn fn, int n)
{
    cudaEvent_t from, to;
    float ms = 0;

    need_cuda(cudaEventCreate(&from));
    need_cuda(cudaEventCreate(&to));
    need_cuda(cudaEventRecord(from, b->cuda->stream));
    for (int i = 0; i < n; i++) {
        fn(b, i % SETS);
    }
    need_cuda(cudaEventRecord(to, b->cuda->stream));
    need_cuda(cudaEventSynchronize(to));
    need_cuda(cudaEventElapsedTime(&ms, from, to));
    (void)cudaEventDestroy(from);
    (void)cudaEventDestroy(to);
    return ms;
}

/* bytes: what a call must read and write at least, by the sizes of its arrays. */
static void measure(const bench *b, bench_fn fn, const char *name, double bytes)
{
    int n = 64;

    (void)time_of(b, fn, n);
    float ms = time_of(b, fn, n);
    while (ms < LEAST_MS) {
        n *= 2;
        ms = time_of(b, fn, n);
    }
    const double us = (double)ms * 1e3 / n;
    printf("%-50s %8.2f us %7.0f GB/s   (%d in a row)\n", name, us, bytes / us * 1e-3, n);
    (void)fflush(stdout);
}

static bool open_bench(bench *b, rp_precision precision)
{
    const rp_backend_params params = {.n_threads = 1, .precision = precision};
    void *self = NULL;
    const rp_status st = ops->open(&params, &self);

    if (st == RP_E_UNSUP) {
        printf("SKIP: no %s on this device\n", rp_precision_name(precision));
        return false;
    }
    need(st);
    b->cuda = self;
    open_arrays(b);
    printf("%s, %s, t %d\n", b->cuda->name, rp_precision_name(precision), b->t);
    return true;
}

static void close_bench(const bench *b)
{
    need(ops->sync(b->cuda));
    ops->close(b->cuda);
}

static void measure_bf16(int t)
{
    const double n = (double)t * HIDDEN, heads = (double)t * (N_Q + N_K) * HEAD_DIM;
    const double angles = (double)t * HEAD_DIM * sizeof(float);
    bench b = {.t = t};

    if (open_bench(&b, RP_PRECISION_BF16)) {
        measure(&b, copy_stream, "copy of f32 rows", n * 8);
        measure(&b, rms_rows, "rms_norm", n * 6);
        measure(&b, add_rms_rows, "add_rms_norm_rms_norm", n * 12);
        measure(&b, heads_apart, "head_norm_rope, queries, then keys", heads * 4 + 2 * angles);
        measure(&b, heads_together, "head_norm_rope, queries and keys", heads * 4 + angles);
        close_bench(&b);
    }
}

static void measure_fp8(int t)
{
    const double n = (double)t * HIDDEN, scales = (double)t * sizeof(float);
    bench b = {.t = t};

    if (open_bench(&b, RP_PRECISION_FP8)) {
        rp_cuda_narrow rows;
        need(rp_cuda_narrow_room(b.cuda, t, HIDDEN, &rows)); /* a product would have made it */
        measure(&b, rms_rows, "rms_norm, e4m3 too", n * 7 + scales);
        measure(&b, rms_feeds, "rms_norm, e4m3 only", n * 5 + scales);
        measure(&b, add_rms_rows, "add_rms_norm_rms_norm, e4m3 too", n * 13 + scales);
        measure(&b, add_rms_feeds, "add_rms_norm_rms_norm, e4m3 only", n * 11 + scales);
        close_bench(&b);
    }
}

int main(int argc, char **argv)
{
    const int t = argc > 1 ? atoi(argv[1]) : 4224;

    if (rp_cuda_n_devices() == 0) {
        printf("SKIP: %s\n", rp_cuda_why_not());
        return 77;
    }
    if (t < 1) {
        (void)fprintf(stderr, "usage: ops_bench [t]\n");
        return 2;
    }
    measure_bf16(t);
    measure_fp8(t);
    return 0;
}
