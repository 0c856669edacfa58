/* cuda_rope.cu - norm of heads and rotary embedding, in place. */
#include "tensor/cuda/cuda_device.cuh"

#define HEAD_WARPS 4 /* of a block */
#define HEAD_DEPTH 2 /* heads of a group of lanes on their way at once */

typedef struct {
    size_t t;
    int n, head_dim;
    size_t row_stride;
    const float *w;
    float eps;
    const float *cos, *sin;
    int lanes;      /* of a head, a power of two */
    size_t per_row; /* warps for the heads of one row */
} head_job;

__device__ inline void turn(float &a, float &b, float c, float s)
{
    const float x = a;

    a = x * c - b * s;
    b = x * s + b * c;
}

/*
 * Turn V elements of the first half of a head, from `at`, and the V that lie a half further.
 * PAIRS: both have partners within themselves; else each other.
 */
template <bool PAIRS, int V> struct angles {
    float c[V], s[V];

    __device__ void load(const float *cos, const float *sin, int at, int half)
    {
        if constexpr (PAIRS) {
            float low[V / 2], high[V / 2];
            rp_load<V / 2>(cos + at / 2, low);
            rp_load<V / 2>(cos + (half + at) / 2, high);
            join(low, high, c);
            rp_load<V / 2>(sin + at / 2, low);
            rp_load<V / 2>(sin + (half + at) / 2, high);
            join(low, high, s);
        } else {
            rp_load<V>(cos + at, c);
            rp_load<V>(sin + at, s);
        }
    }

    static __device__ void join(const float *low, const float *high, float *out)
    {
#pragma unroll
        for (int i = 0; i < V / 2; i++) {
            out[i] = low[i];
            out[V / 2 + i] = high[i];
        }
    }

    __device__ void apply(float (&low)[V], float (&high)[V]) const
    {
        if constexpr (PAIRS) {
#pragma unroll
            for (int i = 0; i < V / 2; i++) {
                turn(low[2 * i], low[2 * i + 1], c[i], s[i]);
                turn(high[2 * i], high[2 * i + 1], c[V / 2 + i], s[V / 2 + i]);
            }
        } else {
#pragma unroll
            for (int i = 0; i < V; i++) {
                turn(low[i], high[i], c[i], s[i]);
            }
        }
    }
};

/* x * weight / root of the mean square over the head; every lane of the warp takes part. */
template <int V>
__device__ inline void norm_head(float (&low)[V], float (&high)[V], const float (&w_low)[V],
                                 const float (&w_high)[V], const head_job &job)
{
    float sum_sq = 0.0f;

#pragma unroll
    for (int i = 0; i < V; i++) {
        sum_sq += low[i] * low[i] + high[i] * high[i];
    }
    const float inverse = rp_inverse_root(rp_lanes_sum(sum_sq, job.lanes), job.head_dim, job.eps);
#pragma unroll
    for (int i = 0; i < V; i++) {
        low[i] = low[i] * inverse * w_low[i];
        high[i] = high[i] * inverse * w_high[i];
    }
}

/*
 * A group of lanes a head: a lane holds a chunk of the first half and the one a half further, so
 * that either kind of turn stays in the lane. A warp takes HEAD_DEPTH heads a group, all of one
 * row.
 */
template <bool PAIRS, int V, typename X>
__global__ void __launch_bounds__(HEAD_WARPS *RP_WARP) heads_held(X *x, const head_job job)
{
    const int half = job.head_dim / 2;
    const int groups = RP_WARP / job.lanes;
    const int group = threadIdx.x % RP_WARP / job.lanes;
    const int at = threadIdx.x % job.lanes * V;
    const bool on = at < half; /* lanes is rounded up */
    float w_low[V] = {}, w_high[V] = {};

    if (on && job.w != nullptr) {
        rp_load<V>(job.w + at, w_low);
        rp_load<V>(job.w + half + at, w_high);
    }
    for (size_t warp = (size_t)blockIdx.x * HEAD_WARPS + threadIdx.x / RP_WARP;
         warp < job.t * job.per_row; warp += (size_t)gridDim.x * HEAD_WARPS) {
        const size_t row = warp / job.per_row;
        const int head0 = (int)(warp % job.per_row) * groups * HEAD_DEPTH + group;
        X *heads = x + row * job.row_stride + at;
        rp_pack<X, V> low_pack[HEAD_DEPTH], high_pack[HEAD_DEPTH];
        angles<PAIRS, V> angle;
#pragma unroll
        for (int k = 0; k < HEAD_DEPTH; k++) {
            const int head = head0 + k * groups;
            low_pack[k] = high_pack[k] = {};
            if (on && head < job.n) {
                low_pack[k] = rp_load_pack<V>(heads + (size_t)head * job.head_dim);
                high_pack[k] = rp_load_pack<V>(heads + (size_t)head * job.head_dim + half);
            }
        }
        if (on) {
            angle.load(job.cos + row * half, job.sin + row * half, at, half);
        }
#pragma unroll
        for (int k = 0; k < HEAD_DEPTH; k++) {
            const int head = head0 + k * groups;
            float low[V], high[V];
            rp_unpack<V>(low_pack[k], low);
            rp_unpack<V>(high_pack[k], high);
            if (job.w != nullptr) {
                norm_head<V>(low, high, w_low, w_high, job);
            }
            if (on && head < job.n) {
                angle.apply(low, high);
                rp_store<V>(heads + (size_t)head * job.head_dim, low);
                rp_store<V>(heads + (size_t)head * job.head_dim + half, high);
            }
        }
    }
}

/* A warp a head, one pair of elements a lane at a time: any head_dim, any address. */
template <bool PAIRS, typename X>
__global__ void __launch_bounds__(HEAD_WARPS *RP_WARP) heads_reread(X *x, const head_job job)
{
    const int half = job.head_dim / 2;
    const int lane = threadIdx.x % RP_WARP;

    for (size_t unit = (size_t)blockIdx.x * HEAD_WARPS + threadIdx.x / RP_WARP;
         unit < job.t * job.n; unit += (size_t)gridDim.x * HEAD_WARPS) {
        const size_t row = unit / job.n;
        X *head = x + row * job.row_stride + unit % job.n * job.head_dim;
        float inverse = 1.0f, sum_sq = 0.0f;
        if (job.w != nullptr) {
            for (int i = lane; i < job.head_dim; i += RP_WARP) {
                sum_sq += rp_float(head[i]) * rp_float(head[i]);
            }
            inverse = rp_inverse_root(rp_lanes_sum(sum_sq, RP_WARP), job.head_dim, job.eps);
        }
        for (int i = lane; i < half; i += RP_WARP) {
            const int p = PAIRS ? 2 * i : i;
            const int q = PAIRS ? 2 * i + 1 : i + half;
            float a = rp_float(head[p]) * inverse * (job.w != nullptr ? job.w[p] : 1.0f);
            float b = rp_float(head[q]) * inverse * (job.w != nullptr ? job.w[q] : 1.0f);
            turn(a, b, job.cos[row * half + i], job.sin[row * half + i]);
            head[p] = rp_round<X>(a);
            head[q] = rp_round<X>(b);
        }
    }
}

template <bool PAIRS, typename X>
static void launch_heads(cudaStream_t stream, rp_cuda_view x, head_job *job)
{
    constexpr int V = rp_chunk<X>;
    const int half = job->head_dim / 2;
    const bool fits = half % V == 0 && half <= RP_WARP * V && job->row_stride % V == 0 &&
                      rp_wide(x.data) && rp_wide(job->w) && rp_wide(job->cos) && rp_wide(job->sin);

    if (!fits) {
        const size_t blocks = rp_ceil_div(job->t * (size_t)job->n, HEAD_WARPS);
        heads_reread<PAIRS>
            <<<rp_grid(blocks), HEAD_WARPS * RP_WARP, 0, stream>>>((X *)x.data, *job);
        return;
    }
    for (job->lanes = 1; job->lanes * V < half;) {
        job->lanes *= 2;
    }
    const int at_once = RP_WARP / job->lanes * HEAD_DEPTH;
    job->per_row = rp_ceil_div((size_t)job->n, (size_t)at_once);
    const size_t blocks = rp_ceil_div(job->t * job->per_row, HEAD_WARPS);
    heads_held<PAIRS, V><<<rp_grid(blocks), HEAD_WARPS * RP_WARP, 0, stream>>>((X *)x.data, *job);
}

void rp_cuda_k_head_norm_rope(cudaStream_t stream, rp_cuda_view x, int t, int n, int head_dim,
                              int row_stride, const float *w, float eps, rp_rope_kind kind,
                              const float *cos, const float *sin)
{
    head_job job = {};

    if (t <= 0 || n <= 0 || head_dim < 2) {
        return;
    }
    job.t = (size_t)t;
    job.n = n;
    job.head_dim = head_dim;
    job.row_stride = (size_t)row_stride;
    job.w = w;
    job.eps = eps;
    job.cos = cos;
    job.sin = sin;
    rp_with_act(x.dtype, [&](auto type) {
        if (kind == RP_ROPE_PAIRS) {
            launch_heads<true, decltype(type)>(stream, x, &job);
        } else {
            launch_heads<false, decltype(type)>(stream, x, &job);
        }
    });
}
