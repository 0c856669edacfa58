/* cuda_group_norm.cu - group norm: sums of pieces, then one pass that normalises. */
#include "tensor/cuda/cuda_device.cuh"

#define GROUP_THREADS 256
#define GROUP_DEPTH   2 /* chunks of a thread in the last pass */

/* Of n elements: mean, and sum of the squared distances from it (Chan, Golub and LeVeque 1979). */
template <typename Real> struct moments {
    Real n, mean, m2;

    __device__ void merge(Real other_n, Real other_mean, Real other_m2)
    {
        const Real total = n + other_n;
        const Real apart = other_mean - mean;

        if (other_n > 0) {
            const Real share = other_n / total;
            mean += apart * share;
            m2 += other_m2 + apart * apart * n * share;
            n = total;
        }
    }

    /* Lane 0 gets all 32, always in the same order. */
    __device__ void merge_warp()
    {
        for (int step = RP_WARP / 2; step > 0; step /= 2) {
            const Real other_n = __shfl_down_sync(RP_ALL, n, step);
            const Real other_mean = __shfl_down_sync(RP_ALL, mean, step);
            const Real other_m2 = __shfl_down_sync(RP_ALL, m2, step);
            merge(other_n, other_mean, other_m2);
        }
    }
};

/* Block (piece, group): n, mean and m2 of one piece of a group's n elements. */
template <int V, typename X>
__global__ void __launch_bounds__(GROUP_THREADS)
    group_pieces(const X *x, size_t n, size_t piece, float *partial)
{
    __shared__ float warps[GROUP_THREADS / RP_WARP][3];
    const size_t begin = min(n, blockIdx.x * piece);
    const size_t end = min(n, begin + piece);
    moments<float> sum = {0.0f, 0.0f, 0.0f};

    x += blockIdx.y * n;
#pragma unroll 2
    for (size_t i = begin + (size_t)threadIdx.x * V; i < end; i += GROUP_THREADS * V) {
        float v[V], mean = 0.0f, m2 = 0.0f;
        rp_load<V>(x + i, v);
#pragma unroll
        for (int j = 0; j < V; j++) {
            mean += v[j] * (1.0f / V);
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            m2 += (v[j] - mean) * (v[j] - mean);
        }
        sum.merge((float)V, mean, m2);
    }
    sum.merge_warp();
    if (threadIdx.x % RP_WARP == 0) {
        float *mine = warps[threadIdx.x / RP_WARP];
        mine[0] = sum.n;
        mine[1] = sum.mean;
        mine[2] = sum.m2;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        float *out = partial + (blockIdx.y * (size_t)RP_CUDA_GROUP_PIECES + blockIdx.x) * 3;
        for (int i = 1; i < GROUP_THREADS / RP_WARP; i++) {
            sum.merge(warps[i][0], warps[i][1], warps[i][2]);
        }
        out[0] = sum.n;
        out[1] = sum.mean;
        out[2] = sum.m2;
    }
}

/* A warp a group: its pieces -> mean and 1 / sqrt(var + eps), behind the pieces of all groups. */
__global__ void group_merge(float *partial, float eps)
{
    const float *pieces = partial + (size_t)blockIdx.x * RP_CUDA_GROUP_PIECES * 3;
    float *out = partial + (size_t)gridDim.x * RP_CUDA_GROUP_PIECES * 3 + (size_t)blockIdx.x * 2;
    moments<double> sum = {0.0, 0.0, 0.0};

    for (int i = threadIdx.x; i < RP_CUDA_GROUP_PIECES; i += RP_WARP) {
        sum.merge(pieces[3 * i], pieces[3 * i + 1], pieces[3 * i + 2]);
    }
    sum.merge_warp();
    if (threadIdx.x == 0) {
        out[0] = (float)sum.mean;
        out[1] = (float)(1.0 / sqrt(sum.m2 / sum.n + (double)eps));
    }
}

typedef struct {
    size_t c, hw, per_group; /* per_group: channels */
    size_t parts;            /* blocks of a channel */
    const float *w, *b;
    const float *stats; /* mean and inverse deviation of every group */
} group_job;

/* A thread reads all of its chunks before it writes one: out may be x. */
template <bool SILU, int V, typename X, typename Out>
__global__ void __launch_bounds__(GROUP_THREADS)
    group_apply(const X *x, const group_job job, Out *out)
{
    for (size_t block = blockIdx.x; block < job.c * job.parts; block += gridDim.x) {
        const size_t channel = block / job.parts;
        const float *stats = job.stats + channel / job.per_group * 2;
        const float mean = stats[0];
        const float factor = stats[1] * job.w[channel];
        const float add = job.b[channel];
        const size_t first = (block % job.parts * GROUP_THREADS * GROUP_DEPTH + threadIdx.x) * V;
        rp_pack<X, V> pack[GROUP_DEPTH];
#pragma unroll
        for (int k = 0; k < GROUP_DEPTH; k++) {
            const size_t i = first + (size_t)k * GROUP_THREADS * V;
            if (i < job.hw) {
                pack[k] = rp_load_pack<V>(x + channel * job.hw + i);
            }
        }
#pragma unroll
        for (int k = 0; k < GROUP_DEPTH; k++) {
            const size_t i = first + (size_t)k * GROUP_THREADS * V;
            if (i < job.hw) {
                float v[V];
                rp_unpack<V>(pack[k], v);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    v[j] = (v[j] - mean) * factor + add;
                    v[j] = SILU ? rp_silu(v[j]) : v[j];
                }
                rp_store<V>(out + channel * job.hw + i, v);
            }
        }
    }
}

template <int V, typename X, typename Out>
static void launch_group(cudaStream_t stream, const X *x, group_job *job, float eps, bool silu,
                         float *partial, Out *out)
{
    const size_t groups = job->c / job->per_group;
    const size_t n = job->per_group * job->hw;
    const size_t piece = rp_ceil_div(rp_ceil_div(n, RP_CUDA_GROUP_PIECES), V) * V;
    const dim3 pieces(RP_CUDA_GROUP_PIECES, (unsigned)groups);

    job->parts = rp_ceil_div(job->hw, (size_t)GROUP_THREADS * GROUP_DEPTH * V);
    const unsigned grid = rp_grid(job->c * job->parts);
    group_pieces<V><<<pieces, GROUP_THREADS, 0, stream>>>(x, n, piece, partial);
    group_merge<<<(unsigned)groups, RP_WARP, 0, stream>>>(partial, eps);
    if (silu) {
        group_apply<true, V><<<grid, GROUP_THREADS, 0, stream>>>(x, *job, out);
    } else {
        group_apply<false, V><<<grid, GROUP_THREADS, 0, stream>>>(x, *job, out);
    }
}

void rp_cuda_k_group_norm(cudaStream_t stream, rp_cuda_view x, int c, int hw, int groups,
                          const float *w, const float *b, float eps, bool silu, float *partial,
                          rp_cuda_view out)
{
    group_job job = {};

    if (c <= 0 || hw <= 0 || groups <= 0) {
        return;
    }
    job.c = (size_t)c;
    job.hw = (size_t)hw;
    job.per_group = (size_t)(c / groups);
    job.w = w;
    job.b = b;
    job.stats = partial + (size_t)groups * RP_CUDA_GROUP_PIECES * 3;
    rp_with_act(x.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            using X = decltype(from);
            using Out = decltype(to);
            constexpr int wide = rp_chunk<X, Out>;
            const bool fits = hw % wide == 0 && rp_wide(x.data) && rp_wide(out.data);
            rp_with_chunk<wide>(fits, [&](auto chunk) {
                launch_group<decltype(chunk)::value>(stream, (const X *)x.data, &job, eps, silu,
                                                     partial, (Out *)out.data);
            });
        });
    });
}
