/* cuda_softmax.cu - softmax of rows of scores, with their masks. */
#include "tensor/cuda/cuda_device.cuh"

#include <float.h>

#define SOFTMAX_THREADS 512

typedef struct {
    size_t rows;
    int n_q, n_kv, q0;
    float softcap;
    bool causal;
    int window;
} softmax_job;

/* Keys that a row sees: first to end - 1. */
__device__ inline int2 visible(const softmax_job &job, size_t row)
{
    const int i = job.q0 + (int)(row % job.n_q);
    int2 seen = make_int2(0, job.n_kv);

    if (job.causal) {
        seen.y = min(i + 1, job.n_kv);
        if (job.window > 0) {
            seen.x = max(i - job.window + 1, 0);
        }
    }
    return seen;
}

/* Scores at, at + 1, ... capped; -inf for keys out of sight. */
template <int V>
__device__ inline void load_scores(const float *s, int at, int2 seen, float softcap, float (&v)[V])
{
    rp_load<V>(s + at, v);
#pragma unroll
    for (int j = 0; j < V; j++) {
        if (softcap > 0.0f) {
            v[j] = softcap * tanhf(v[j] / softcap);
        }
        v[j] = at + j >= seen.x && at + j < seen.y ? v[j] : -INFINITY;
    }
}

/* Largest score and, against it, the sum of exponentials: of the lanes, then of the warps. */
__device__ inline float2 merge_block(float top, float sum, float2 *buffer)
{
    float warp_top = top;

    for (int step = RP_WARP / 2; step > 0; step /= 2) {
        warp_top = fmaxf(warp_top, __shfl_xor_sync(RP_ALL, warp_top, step));
    }
    sum = rp_lanes_sum(sum * expf(top - warp_top), RP_WARP);
    if (threadIdx.x % RP_WARP == 0) {
        buffer[threadIdx.x / RP_WARP] = make_float2(warp_top, sum);
    }
    __syncthreads();
    const int n_warps = blockDim.x / RP_WARP;
    float2 all = make_float2(buffer[0].x, 0.0f);
    for (int i = 1; i < n_warps; i++) {
        all.x = fmaxf(all.x, buffer[i].x);
    }
    for (int i = 0; i < n_warps; i++) {
        all.y += buffer[i].y * expf(buffer[i].x - all.x);
    }
    return all;
}

/*
 * A block a row, read twice. The sum is kept against the largest score so far and made smaller when
 * a larger one comes. -FLT_MAX stands for none: it has no infinite distance to anything.
 */
template <int V, typename P>
__global__ void __launch_bounds__(SOFTMAX_THREADS)
    softmax_rows(const float *s, const softmax_job job, P *p)
{
    __shared__ float2 buffer[2][RP_WARP]; /* of even and odd turns: one barrier a row is enough */
    const int step = blockDim.x * V;
    int turn = 0;

    for (size_t row = blockIdx.x; row < job.rows; row += gridDim.x, turn ^= 1) {
        const float *from = s + row * (size_t)job.n_kv;
        P *to = p + row * (size_t)job.n_kv;
        const int2 seen = visible(job, row);
        float top = -FLT_MAX, sum = 0.0f;
        for (int at = seen.x / V * V + threadIdx.x * V; at < seen.y; at += step) {
            float v[V], old = top;
            load_scores<V>(from, at, seen, job.softcap, v);
#pragma unroll
            for (int j = 0; j < V; j++) {
                top = fmaxf(top, v[j]);
            }
            sum *= expf(old - top);
#pragma unroll
            for (int j = 0; j < V; j++) {
                sum += expf(v[j] - top);
            }
        }
        const float2 all = merge_block(top, sum, buffer[turn]);
        const float inverse = 1.0f / all.y;
        for (int at = threadIdx.x * V; at < job.n_kv; at += step) {
            float v[V] = {};
            if (at + V > seen.x && at < seen.y && seen.x < seen.y) {
                load_scores<V>(from, at, seen, job.softcap, v);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    v[j] = expf(v[j] - all.x) * inverse;
                }
            }
            rp_store<V>(to + at, v);
        }
    }
}

void rp_cuda_k_softmax(cudaStream_t stream, const float *s, int heads, int n_q, int n_kv, int q0,
                       float softcap, bool causal, int window, rp_cuda_view p)
{
    softmax_job job = {};

    if (heads <= 0 || n_q <= 0 || n_kv <= 0) {
        return;
    }
    job.rows = (size_t)heads * (size_t)n_q;
    job.n_q = n_q;
    job.n_kv = n_kv;
    job.q0 = q0;
    job.softcap = softcap;
    job.causal = causal;
    job.window = window;
    rp_with_act(p.dtype, [&](auto to) {
        using P = decltype(to);
        const bool fits = n_kv % 4 == 0 && rp_wide(s) && rp_wide(p.data);
        rp_with_chunk<4>(fits, [&](auto chunk) {
            constexpr int V = decltype(chunk)::value;
            /* some chunks a thread, and several rows at once on a multiprocessor */
            const int threads = rp_threads(rp_ceil_div((size_t)n_kv, 4 * V), SOFTMAX_THREADS);
            softmax_rows<V><<<rp_grid(job.rows), threads, 0, stream>>>(s, job, (P *)p.data);
        });
    });
}
