/* cuda_rope.cu - norm of heads and rotary embedding, in place. */
#include "tensor/cuda/cuda_device.cuh"

#define HEAD_WARPS 4 /* of a block */
#define HEAD_DEPTH 2 /* heads of a group of lanes on their way at once */

typedef struct {
    rp_rope_shape s;
    const float *w_q, *w_k;
    const float *cos, *sin;
    int lanes;          /* of a head, a power of two */
    int q_parts, parts; /* warps for the queries of one row, and for all its heads */
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
    const float inverse =
        rp_inverse_root(rp_lanes_sum(sum_sq, job.lanes), job.s.head_dim, job.s.eps);
#pragma unroll
    for (int i = 0; i < V; i++) {
        low[i] = low[i] * inverse * w_low[i];
        high[i] = high[i] * inverse * w_high[i];
    }
}

/* What one warp has of every row that it comes to: heads of one kind, at most HEAD_DEPTH for each
 * group of lanes. */
struct head_part {
    int groups;
    int first, n; /* of this lane's group: its first head, and how many there are from it to the end
                     of the kind, `groups` apart */
    const float *w;

    __device__ head_part(const head_job &job, int part)
    {
        const bool keys = part >= job.q_parts;
        const int end = keys ? job.s.n_q + job.s.n_k : job.s.n_q;

        groups = RP_WARP / job.lanes;
        w = keys ? job.w_k : job.w_q;
        first = keys ? job.s.n_q + (part - job.q_parts) * groups * HEAD_DEPTH
                     : part * groups * HEAD_DEPTH;
        first += threadIdx.x % RP_WARP / job.lanes;
        n = first < end ? (end - first + groups - 1) / groups : 0;
    }
};

/* A lane's elements of its heads in one row, as they lie in memory; zeros past the n-th head. */
template <int V, typename X> struct head_packs {
    rp_pack<X, V> low[HEAD_DEPTH], high[HEAD_DEPTH];

    __device__ void load(const X *from, size_t apart, int half, int n)
    {
#pragma unroll
        for (int k = 0; k < HEAD_DEPTH; k++) {
            low[k] = high[k] = {};
            if (k < n) {
                low[k] = rp_load_pack<V>(from + k * apart);
                high[k] = rp_load_pack<V>(from + k * apart + half);
            }
        }
    }
};

/*
 * A group of lanes a head: a lane holds a chunk of the first half and the one a half further, so
 * that either kind of turn stays in the lane. A warp has the same heads, HEAD_DEPTH a group, of
 * many rows: it keeps their weights, turns them by the same angles, and asks for the next row
 * before it works on this one. The warps of a block are mostly at the same row and find its angles
 * in the L1 cache. The grid is what the device runs at once, its warps a multiple of job.parts.
 */
template <bool PAIRS, int V, typename X>
__global__ void __launch_bounds__(HEAD_WARPS *RP_WARP) heads_held(X *x, const head_job job)
{
    const unsigned warp = blockIdx.x * HEAD_WARPS + threadIdx.x / RP_WARP;
    const unsigned step = gridDim.x * HEAD_WARPS / job.parts; /* rows */
    const head_part part(job, (int)(warp % job.parts));
    const size_t t = job.s.t, stride = job.s.row_stride;
    const size_t apart = (size_t)part.groups * job.s.head_dim;
    const int half = job.s.head_dim / 2;
    const int at = threadIdx.x % job.lanes * V;
    const bool on = at < half; /* lanes is rounded up */
    const int n = on ? part.n : 0;
    X *const own = x + (size_t)part.first * job.s.head_dim + at;
    float w_low[V] = {}, w_high[V] = {};
    head_packs<V, X> next;
    angles<PAIRS, V> angle;

    if (on && part.w != nullptr) {
        rp_load<V>(part.w + at, w_low);
        rp_load<V>(part.w + half + at, w_high);
    }
    size_t row = warp / job.parts;
    if (row < t) {
        next.load(own + row * stride, apart, half, n);
    }
    for (; row < t; row += step) {
        X *const heads = own + row * stride;
        const head_packs<V, X> now = next;
        if (on) {
            angle.load(job.cos + row * half, job.sin + row * half, at, half);
        }
        if (row + step < t) {
            next.load(heads + step * stride, apart, half, n);
        }
#pragma unroll
        for (int k = 0; k < HEAD_DEPTH; k++) {
            float low[V], high[V];
            rp_unpack<V>(now.low[k], low);
            rp_unpack<V>(now.high[k], high);
            if (part.w != nullptr) {
                norm_head<V>(low, high, w_low, w_high, job);
            }
            if (k < n) {
                angle.apply(low, high);
                rp_store<V>(heads + k * apart, low);
                rp_store<V>(heads + k * apart + half, high);
            }
        }
    }
}

/* A warp a head, one pair of elements a lane at a time: any head_dim, any address. */
template <bool PAIRS, typename X>
__global__ void __launch_bounds__(HEAD_WARPS *RP_WARP) heads_reread(X *x, const head_job job)
{
    const int d = job.s.head_dim, half = d / 2;
    const int lane = threadIdx.x % RP_WARP;
    const size_t n = (size_t)job.s.n_q + job.s.n_k;

    for (size_t unit = (size_t)blockIdx.x * HEAD_WARPS + threadIdx.x / RP_WARP; unit < job.s.t * n;
         unit += (size_t)gridDim.x * HEAD_WARPS) {
        const size_t row = unit / n, which = unit % n;
        const float *const w = which < (size_t)job.s.n_q ? job.w_q : job.w_k;
        X *head = x + row * job.s.row_stride + which * d;
        float inverse = 1.0f, sum_sq = 0.0f;
        if (w != nullptr) {
            for (int i = lane; i < d; i += RP_WARP) {
                sum_sq += rp_float(head[i]) * rp_float(head[i]);
            }
            inverse = rp_inverse_root(rp_lanes_sum(sum_sq, RP_WARP), d, job.s.eps);
        }
        for (int i = lane; i < half; i += RP_WARP) {
            const int p = PAIRS ? 2 * i : i;
            const int q = PAIRS ? 2 * i + 1 : i + half;
            float a = rp_float(head[p]) * inverse * (w != nullptr ? w[p] : 1.0f);
            float b = rp_float(head[q]) * inverse * (w != nullptr ? w[q] : 1.0f);
            turn(a, b, job.cos[row * half + i], job.sin[row * half + i]);
            head[p] = rp_round<X>(a);
            head[q] = rp_round<X>(b);
        }
    }
}

/* Can lanes hold the heads? V: elements of a chunk. */
static bool heads_fit(const head_job *job, rp_cuda_view x, int V)
{
    const int half = job->s.head_dim / 2;

    return job->s.head_dim % (2 * V) == 0 && half <= RP_WARP * V && job->s.row_stride % V == 0 &&
           rp_wide(x.data) && rp_wide(job->w_q) && rp_wide(job->w_k) && rp_wide(job->cos) &&
           rp_wide(job->sin);
}

/* Blocks whose warps are whole rows. */
static int blocks_of_rows(int parts)
{
    return parts % HEAD_WARPS == 0 ? parts / HEAD_WARPS : parts;
}

template <bool PAIRS, typename X>
static void hold_heads(cudaStream_t stream, rp_cuda_view x, head_job *job)
{
    constexpr int V = rp_chunk<X>;
    const auto kernel = heads_held<PAIRS, V, X>;

    for (job->lanes = 1; job->lanes * V < job->s.head_dim / 2;) {
        job->lanes *= 2;
    }
    const size_t at_once = (size_t)(RP_WARP / job->lanes * HEAD_DEPTH);
    job->q_parts = (int)rp_ceil_div((size_t)job->s.n_q, at_once);
    job->parts = job->q_parts + (int)rp_ceil_div((size_t)job->s.n_k, at_once);
    const size_t blocks = rp_ceil_div((size_t)job->s.t * (size_t)job->parts, HEAD_WARPS);
    const unsigned resident = rp_resident_grid(kernel, HEAD_WARPS * RP_WARP, blocks);
    const unsigned unit = (unsigned)blocks_of_rows(job->parts);
    const unsigned grid = resident < unit ? unit : resident / unit * unit;
    kernel<<<grid, HEAD_WARPS * RP_WARP, 0, stream>>>((X *)x.data, *job);
}

template <bool PAIRS, typename X>
static void launch_heads(cudaStream_t stream, rp_cuda_view x, head_job *job)
{
    const size_t n_heads = (size_t)job->s.n_q + (size_t)job->s.n_k;

    if (heads_fit(job, x, rp_chunk<X>)) {
        hold_heads<PAIRS, X>(stream, x, job);
    } else {
        const size_t blocks = rp_ceil_div((size_t)job->s.t * n_heads, HEAD_WARPS);
        heads_reread<PAIRS>
            <<<rp_grid(blocks), HEAD_WARPS * RP_WARP, 0, stream>>>((X *)x.data, *job);
    }
}

void rp_cuda_k_head_norm_rope(cudaStream_t stream, const rp_rope_shape *shape, rp_cuda_view x,
                              const float *w_q, const float *w_k, const float *cos,
                              const float *sin)
{
    head_job job = {};

    if (shape->t <= 0 || shape->n_q + shape->n_k <= 0 || shape->head_dim < 2) {
        return;
    }
    job.s = *shape;
    job.w_q = w_q;
    job.w_k = w_k;
    job.cos = cos;
    job.sin = sin;
    rp_with_act(x.dtype, [&](auto type) {
        if (shape->kind == RP_ROPE_PAIRS) {
            launch_heads<true, decltype(type)>(stream, x, &job);
        } else {
            launch_heads<false, decltype(type)>(stream, x, &job);
        }
    });
}
