/*
 * flash_bench.c - what the attention of our own is worth: every way of it beside cuDNN's, at the
 * image model's shapes (24 heads of 96 that share 8 of k and v; q, k and v are columns of one
 * matrix), each alone (median of 50) and 2000 in a row, where power is the limit; then with its
 * output in 8 bits, beside cuDNN's and the kernel that rounds it; then all of it in 8 bits, beside
 * cuDNN's, with the error of both against bf16. Random numbers, the L2 cache as the run before
 * leaves it.
 *
 *   flash_bench [n_q n_kv]     4224 4224, then 4096 4224 when left out
 *
 * Ends with 1 when a result is not cuDNN's, 77 without a device that can.
 */
#include "tensor/cuda/cuda_sdpa.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_ROW = 2000, N_HEADS = 24, N_KV_HEADS = 8, HEAD_DIM = 96 };

typedef struct {
    rp_cuda *cuda;
    float *qkv, *theirs, *ours; /* activations */
    size_t n_out;
    rp_sdpa_key key;
    rp_cuda_sdpas *plan;
    rp_cuda_flash job;
    rp_cuda_narrow rows;
    rp_cuda_sdpas *narrow_plan; /* cuDNN's in e4m3, NULL where it has none; what it takes: */
    rp_cuda_part parts[3];
    float *most;
    rp_cuda_number *numbers;
} bench;

#include "bench_time.h"

static void run_theirs(const bench *b)
{
    void *pointers[SDPA_POINTERS] = {
        [SDPA_Q] = (void *)(uintptr_t)b->job.q,
        [SDPA_K] = (void *)(uintptr_t)b->job.k,
        [SDPA_V] = (void *)(uintptr_t)b->job.v,
        [SDPA_OUT] = rp_cuda_at(b->cuda, b->theirs).data,
    };

    need(rp_cuda_sdpa_run(b->cuda, b->plan, pointers));
}

static void run_theirs_rounded(const bench *b)
{
    const int k = N_HEADS * HEAD_DIM;

    run_theirs(b);
    rp_cuda_k_quantize_rows(b->cuda->stream, rp_cuda_at(b->cuda, b->theirs), b->job.n_q, k, k,
                            b->rows);
}

static void run_ours(const bench *b)
{
    need_cuda(rp_cuda_k_flash(b->cuda->stream, &b->job));
}

static void round_theirs(const bench *b)
{
    rp_cuda_k_narrow_qkv(b->cuda->stream, b->parts, b->most, b->numbers, b->rows.scale, b->job.n_q);
}

static void run_theirs_e4m3(const bench *b)
{
    void *pointers[SDPA_POINTERS] = {[SDPA_Q] = b->parts[0].to,
                                     [SDPA_K] = b->parts[1].to,
                                     [SDPA_V] = b->parts[2].to,
                                     [SDPA_OUT] = b->rows.data};

    for (int i = 0; i < RP_CUDA_QKV_NUMBERS; i++) {
        pointers[SDPA_NUMBERS + i] = &b->numbers[i];
    }
    round_theirs(b);
    need(rp_cuda_sdpa_run(b->cuda, b->narrow_plan, pointers));
}

static void round_ours(const bench *b)
{
    rp_cuda_k_flash_round(b->cuda->stream, &b->job);
}

static float *new_act(const bench *b, size_t n, uint64_t seed)
{
    void *mem = NULL;

    need(rp_cuda_alloc_act(b->cuda, n, "bench", &mem));
    rp_cuda_k_fill(b->cuda->stream, rp_cuda_at(b->cuda, mem), n, seed, 1.0f);
    return mem;
}

static void *new_bytes(const bench *b, size_t n)
{
    void *mem = NULL;

    need(rp_cuda_alloc(b->cuda, n, "bench", &mem));
    return mem;
}

static const void *column(const bench *b, int i)
{
    return (const char *)rp_cuda_at(b->cuda, b->qkv).data + (size_t)i * 2;
}

static void make_job(bench *b, int n_q, int n_kv)
{
    const int q_dim = N_HEADS * HEAD_DIM, kv_dim = N_KV_HEADS * HEAD_DIM;
    const int row = q_dim + 2 * kv_dim, first = n_kv > n_q ? n_kv - n_q : 0;
    const size_t n_rows = (size_t)(n_kv > n_q ? n_kv : n_q);

    b->n_out = (size_t)n_q * (size_t)q_dim;
    b->qkv = new_act(b, n_rows * (size_t)row, 1);
    b->theirs = new_act(b, b->n_out, 2);
    b->ours = new_act(b, b->n_out, 3);
    b->job = (rp_cuda_flash){.n_q = n_q,
                             .n_kv = n_kv,
                             .n_heads = N_HEADS,
                             .n_kv_heads = N_KV_HEADS,
                             .head_dim = HEAD_DIM,
                             .q_stride = row,
                             .k_stride = row,
                             .v_stride = row,
                             .out_stride = q_dim,
                             .scale = 1.0f / sqrtf((float)HEAD_DIM),
                             .q = column(b, first * row),
                             .k = column(b, q_dim),
                             .v = column(b, q_dim + kv_dim),
                             .out = rp_cuda_at(b->cuda, b->ours).data,
                             .most = new_bytes(b, RP_CUDA_FLASH_PIECES * sizeof(float))};
    b->rows = (rp_cuda_narrow){new_bytes(b, b->n_out), new_bytes(b, (size_t)n_q * sizeof(float))};
}

static void make_plan(bench *b)
{
    const rp_cuda_flash *const f = &b->job;

    b->key = (rp_sdpa_key){.n_q = f->n_q,
                           .n_kv = f->n_kv,
                           .n_heads = f->n_heads,
                           .n_kv_heads = f->n_kv_heads,
                           .head_dim = f->head_dim,
                           .q_stride = f->q_stride,
                           .k_stride = f->k_stride,
                           .v_stride = f->v_stride,
                           .out_stride = f->out_stride,
                           .scale = f->scale};
    need(rp_cuda_sdpa_find(b->cuda, &b->key, &b->plan));
}

static void make_narrow_plan(bench *b)
{
    const rp_cuda_flash *const f = &b->job;
    const int q_dim = N_HEADS * HEAD_DIM, kv_dim = N_KV_HEADS * HEAD_DIM;
    rp_sdpa_key key = b->key;

    key.narrow = 1;
    key.q_stride = key.out_stride = q_dim;
    key.k_stride = key.v_stride = kv_dim;
    need(rp_cuda_sdpa_find(b->cuda, &key, &b->narrow_plan));
    b->parts[0] = (rp_cuda_part){f->q, new_bytes(b, b->n_out), f->n_q, q_dim, f->q_stride};
    for (int i = 1; i < 3; i++) {
        b->parts[i] =
            (rp_cuda_part){i == 1 ? f->k : f->v, new_bytes(b, (size_t)f->n_kv * (size_t)kv_dim),
                           f->n_kv, kv_dim, f->k_stride};
    }
    b->most = new_bytes(b, 3 * RP_CUDA_QKV_PIECES * sizeof(float));
    b->numbers = new_bytes(b, RP_CUDA_QKV_NUMBERS * sizeof(rp_cuda_number));
}

/* ---- time ---- */

static void measure(const bench *b, bench_fn fn, const char *name)
{
    const double flop = 4.0 * b->job.n_q * b->job.n_kv * N_HEADS * HEAD_DIM;
    const double once = time_alone(b, fn);

    print_times(34, name, flop, once, time_in_row(b, fn, N_ROW / 4, N_ROW));
}

/* ---- results ---- */

static float *on_host(const bench *b, const float *x)
{
    float *host = malloc(b->n_out * sizeof(*host));

    if (host == NULL) {
        exit(1);
    }
    rp_cuda_get(b->cuda, host, x, b->n_out * sizeof(*host));
    need(rp_backend_cuda.sync(b->cuda));
    return host;
}

/* Both round to bf16, shares and outputs. */
static bool like_theirs(const bench *b, const float *got)
{
    double most = 0, largest = 0, sum_sq = 0, diff_sq = 0;

    float *want = on_host(b, b->theirs);
    for (size_t i = 0; i < b->n_out; i++) {
        const double w = (double)want[i], diff = fabs((double)got[i] - w);
        most = diff > most || isnan(diff) ? diff : most;
        largest = fmax(largest, fabs(w));
        sum_sq += w * w;
        diff_sq += diff * diff;
    }
    free(want);
    const double relative = sqrt(diff_sq / sum_sq);
    printf("    largest difference from cuDNN %.4g (largest value %.4g), relative L2 %.3g: %s\n",
           most, largest, relative, relative < 1e-2 ? "same" : "WRONG");
    return relative < 1e-2;
}

/* Rows in e4m3, multiplied out, beside the result in bf16. */
static void print_error(const bench *b, const float *want, const char *name)
{
    double sum_sq = 0, diff_sq = 0;

    rp_cuda_k_dequantize_rows(b->cuda->stream, b->rows, (size_t)b->job.n_q,
                              (size_t)N_HEADS * HEAD_DIM, rp_cuda_at(b->cuda, b->theirs));
    float *got = on_host(b, b->theirs);
    for (size_t i = 0; i < b->n_out; i++) {
        const double w = (double)want[i], diff = (double)got[i] - w;
        sum_sq += w * w;
        diff_sq += diff * diff;
    }
    free(got);
    printf("    %s: relative L2 from bf16 %.4g\n", name, sqrt(diff_sq / sum_sq));
}

/* In 8 bits throughout; want: the result in bf16. */
static void bench_e4m3(bench *b, const float *want)
{
    make_narrow_plan(b);
    if (b->narrow_plan != NULL) {
        measure(b, run_theirs_e4m3, "cuDNN e4m3, with its rounding");
        print_error(b, want, "cuDNN e4m3");
        measure(b, round_theirs, "its rounding alone");
    }
    b->job.rows = b->rows;
    b->job.in = rp_cuda_flash_in_at(&b->job, new_bytes(b, rp_cuda_flash_in_bytes(&b->job)));
    measure(b, run_ours, "ours e4m3, with its rounding");
    print_error(b, want, "ours e4m3");
    measure(b, round_ours, "rounding alone");
    measure(b, run_ours, "ours e4m3, again");
    b->job.rows = (rp_cuda_narrow){NULL, NULL};
    b->job.in = (rp_cuda_flash_in){.q = NULL};
}

static bool bench_shape(rp_cuda *cuda, int n_q, int n_kv, bool *ok)
{
    bench b = {.cuda = cuda};

    make_job(&b, n_q, n_kv);
    printf("%s, %d queries, %d keys, %d / %d heads of %d\n", cuda->name, n_q, n_kv, N_HEADS,
           N_KV_HEADS, HEAD_DIM);
    if (!rp_cuda_flash_can(&b.job, cuda->capability)) {
        printf("SKIP: not this shape, build or device (compute capability %d)\n", cuda->capability);
        return false;
    }
    make_plan(&b);
    if (b.plan == NULL) {
        printf("SKIP: cuDNN cannot do this shape\n");
        return false;
    }
    measure(&b, run_theirs, "cuDNN");
    need_cuda(cudaMemsetAsync(b.job.out, 0xff, b.n_out * 2, cuda->stream));
    measure(&b, run_ours, "ours");
    float *const got = on_host(&b, b.ours);
    *ok = like_theirs(&b, got) && *ok;
    measure(&b, run_theirs_rounded, "cuDNN, and rounding of rows");
    b.job.rows = b.rows;
    measure(&b, run_ours, "ours, out in e4m3");
    b.job.rows = (rp_cuda_narrow){NULL, NULL};
    measure(&b, run_ours, "ours, again");
    measure(&b, run_theirs, "cuDNN, again");
    bench_e4m3(&b, got);
    free(got);
    return true;
}

int main(int argc, char **argv)
{
    const rp_backend_params params = {.n_threads = 1, .precision = RP_PRECISION_BF16};
    bool ok = true, done = false;
    void *cuda = NULL;

    if (rp_cuda_n_devices() == 0) {
        printf("SKIP: %s\n", rp_cuda_why_not());
        return 77;
    }
    need(rp_backend_cuda.open(&params, &cuda));
    if (argc > 2) {
        done = bench_shape(cuda, atoi(argv[1]), atoi(argv[2]), &ok);
    } else {
        done = bench_shape(cuda, 4224, 4224, &ok);
        done = bench_shape(cuda, 4096, 4224, &ok) || done;
    }
    need(rp_backend_cuda.sync(cuda));
    rp_backend_cuda.close(cuda);
    return !done ? 77 : ok ? 0 : 1;
}
