/*
 * cuda_latent.cu - vectors of latents: what samplers and guiders compute (vec.h).
 *
 * Products and sums are rounded one by one, never fused, so that combine and extrapolate give the
 * bits of the host's loops. Sums over elements are in double, by pieces that do not depend on the
 * device.
 */
#include "tensor/cuda/cuda_device.cuh"

#define LATENT_THREADS 256
#define LATENT_WARPS   (LATENT_THREADS / RP_WARP)
#define PIECES         64 /* of a sum over a whole vector */

static_assert(2 + 2 * 2 * PIECES <= RP_VEC_ROOM, "project: the result, padding, pairs of doubles");

/* ---- combine ---- */

template <int N> struct terms {
    float coef[N > 0 ? N : 1];
    const float *in[N > 0 ? N : 1];
};

/* A thread reads its elements of all terms before it writes: out may be one of them. */
template <int N, int V>
__global__ void __launch_bounds__(LATENT_THREADS) combine_flat(terms<N> t, float *out, size_t n)
{
    const size_t step = (size_t)gridDim.x * LATENT_THREADS * V;

    for (size_t i = ((size_t)blockIdx.x * LATENT_THREADS + threadIdx.x) * V; i < n; i += step) {
        float sum[V] = {};
#pragma unroll
        for (int k = 0; k < N; k++) {
            float x[V];
            rp_load<V>(t.in[k] + i, x);
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float product = __fmul_rn(t.coef[k], x[j]);
                sum[j] = k == 0 ? product : __fadd_rn(sum[j], product);
            }
        }
        rp_store<V>(out + i, sum);
    }
}

template <int N>
static void launch_combine(cudaStream_t stream, float *out, size_t n, const float *coef,
                           const float *const *in)
{
    terms<N> t = {};
    bool wide = n % 4 == 0 && rp_wide(out);

    for (int k = 0; k < N; k++) {
        t.coef[k] = coef[k];
        t.in[k] = in[k];
        wide = wide && rp_wide(in[k]);
    }
    rp_with_chunk<4>(wide, [&](auto chunk) {
        constexpr int V = decltype(chunk)::value;
        const unsigned grid = rp_grid(rp_ceil_div(n, (size_t)LATENT_THREADS * V));
        combine_flat<N, V><<<grid, LATENT_THREADS, 0, stream>>>(t, out, n);
    });
}

void rp_cuda_k_combine(cudaStream_t stream, float *out, size_t n, int n_terms, const float *coef,
                       const float *const *in)
{
    static void (*const launch[])(cudaStream_t, float *, size_t, const float *,
                                  const float *const *) = {launch_combine<0>, launch_combine<1>,
                                                           launch_combine<2>, launch_combine<3>,
                                                           launch_combine<4>};

    static_assert(sizeof(launch) / sizeof(launch[0]) == RP_VEC_TERMS + 1, "a kernel for each");
    if (n > 0) {
        launch[n_terms](stream, out, n, coef, in);
    }
}

/* ---- sums ---- */

/* The same bits in every lane. */
__device__ inline double lanes_sum(double x)
{
    for (int step = RP_WARP / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(RP_ALL, x, step);
    }
    return x;
}

/* partial[2 piece], [2 piece + 1] = sums of a b and of b b over every PIECES-th tile */
__global__ void __launch_bounds__(LATENT_THREADS)
    project_pieces(const float *a, const float *b, size_t n, double *partial)
{
    __shared__ double warps[2][LATENT_WARPS];
    double dot = 0, square = 0;

    for (size_t i = (size_t)blockIdx.x * LATENT_THREADS + threadIdx.x; i < n;
         i += (size_t)PIECES * LATENT_THREADS) {
        const double y = (double)b[i];
        dot += (double)a[i] * y;
        square += y * y;
    }
    dot = lanes_sum(dot);
    square = lanes_sum(square);
    if (threadIdx.x % RP_WARP == 0) {
        warps[0][threadIdx.x / RP_WARP] = dot;
        warps[1][threadIdx.x / RP_WARP] = square;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        double sum = 0;
        for (int i = 0; i < LATENT_WARPS; i++) {
            sum += warps[threadIdx.x][i];
        }
        partial[2 * blockIdx.x + threadIdx.x] = sum;
    }
}

/* One warp. */
__global__ void project_finish(const double *partial, float *factor)
{
    double dot = 0, square = 0;

    for (int i = threadIdx.x; i < PIECES; i += RP_WARP) {
        dot += partial[2 * i];
        square += partial[2 * i + 1];
    }
    dot = lanes_sum(dot);
    square = lanes_sum(square);
    if (threadIdx.x == 0) {
        *factor = (float)(dot / (square + 1e-8));
    }
}

void rp_cuda_k_project(cudaStream_t stream, const float *a, const float *b, size_t n, float *room)
{
    double *const partial = reinterpret_cast<double *>(room + 2);

    project_pieces<<<PIECES, LATENT_THREADS, 0, stream>>>(a, b, n, partial);
    project_finish<<<1, RP_WARP, 0, stream>>>(partial, room);
}

/* ---- rows ---- */

/* A row to a warp; a lane reads and writes the same elements throughout: out may be an input. */
__global__ void __launch_bounds__(LATENT_THREADS) extrapolate_rows(rp_vec_rows rows, float *out)
{
    const int lane = threadIdx.x % RP_WARP;
    const float factor = rows.factor != nullptr ? *rows.factor : 1.0f;

    for (size_t row = (size_t)blockIdx.x * LATENT_WARPS + threadIdx.x / RP_WARP; row < rows.n_rows;
         row += (size_t)gridDim.x * LATENT_WARPS) {
        const float *const to = rows.to + row * (size_t)rows.w;
        const float *const away = rows.away + row * (size_t)rows.w;
        float *const moved = out + row * (size_t)rows.w;
        double to_sum = 0, out_sum = 0;

        for (int i = lane; i < rows.w; i += RP_WARP) {
            const float target = to[i];
            const float from = __fmul_rn(away[i], factor);
            const float x = __fadd_rn(from, __fmul_rn(rows.scale, __fsub_rn(target, from)));
            to_sum += (double)target * (double)target;
            out_sum += (double)x * (double)x;
            moved[i] = x;
        }
        to_sum = lanes_sum(to_sum);
        out_sum = lanes_sum(out_sum);
        if (!rows.keep_length || !(out_sum > 0)) {
            continue;
        }
        const float ratio = __fdiv_rn((float)__dsqrt_rn(to_sum), (float)__dsqrt_rn(out_sum));
        for (int i = lane; i < rows.w; i += RP_WARP) {
            moved[i] = __fmul_rn(moved[i], ratio);
        }
    }
}

void rp_cuda_k_extrapolate(cudaStream_t stream, const rp_vec_rows *rows, float *out)
{
    const unsigned grid = rp_grid(rp_ceil_div(rows->n_rows, LATENT_WARPS));

    if (rows->n_rows > 0 && rows->w > 0) {
        extrapolate_rows<<<grid, LATENT_THREADS, 0, stream>>>(*rows, out);
    }
}
