/*
 * cuda_elem.cu - elementwise ops, rows gathered or packed, the check for finite numbers.
 *
 * All of it is bound by memory. Flat arrays are cut into tiles of a block; a thread has FLAT_DEPTH
 * chunks of a tile on their way at once. Ops on rows give a row to a block.
 */
#include "tensor/cuda/cuda_device.cuh"

#define FLAT_THREADS 256
#define FLAT_DEPTH   2 /* chunks of a thread */
#define ROW_THREADS  384
#define BIAS_BLOCKS  4096

template <int V> constexpr size_t flat_tile = (size_t)FLAT_THREADS *FLAT_DEPTH *V;

struct identity_of {
    static __device__ float of(float x)
    {
        return x;
    }
};

struct silu_of {
    static __device__ float of(float x)
    {
        return rp_silu(x);
    }
};

struct gelu_of {
    static __device__ float of(float x)
    {
        return rp_gelu(x);
    }
};

/* ---- flat arrays ---- */

/* A thread reads all of its chunks before it writes one: out may be in. */
template <typename F, int V, typename In, typename Out>
__global__ void __launch_bounds__(FLAT_THREADS) map_flat(const In *in, Out *out, size_t n)
{
    for (size_t at = blockIdx.x * flat_tile<V>; at < n; at += gridDim.x * flat_tile<V>) {
        const size_t first = at + (size_t)threadIdx.x * V;
        rp_pack<In, V> pack[FLAT_DEPTH];
#pragma unroll
        for (int k = 0; k < FLAT_DEPTH; k++) {
            const size_t i = first + (size_t)k * FLAT_THREADS * V;
            if (i + V <= n) {
                pack[k] = rp_load_pack<V>(in + i);
            }
        }
#pragma unroll
        for (int k = 0; k < FLAT_DEPTH; k++) {
            const size_t i = first + (size_t)k * FLAT_THREADS * V;
            if (i + V <= n) {
                float x[V];
                rp_unpack<V>(pack[k], x);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    x[j] = F::of(x[j]);
                }
                rp_store<V>(out + i, x);
            } else if (V > 1) {
                for (size_t j = i; j < n; j++) {
                    out[j] = rp_round<Out>(F::of(rp_float(in[j])));
                }
            }
        }
    }
}

template <typename F, typename In, typename Out>
static void launch_map(cudaStream_t stream, const void *in, void *out, size_t n)
{
    rp_with_chunk<rp_chunk<In, Out>>(rp_wide(in) && rp_wide(out), [&](auto chunk) {
        constexpr int V = decltype(chunk)::value;
        map_flat<F, V><<<rp_grid(rp_ceil_div(n, flat_tile<V>)), FLAT_THREADS, 0, stream>>>(
            (const In *)in, (Out *)out, n);
    });
}

void rp_cuda_k_convert(cudaStream_t stream, rp_cuda_view in, rp_cuda_view out, size_t n)
{
    if (n == 0) {
        return;
    }
    rp_with_any(in.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            launch_map<identity_of, decltype(from), decltype(to)>(stream, in.data, out.data, n);
        });
    });
}

void rp_cuda_k_silu(cudaStream_t stream, rp_cuda_view x, size_t n, rp_cuda_view out)
{
    if (n == 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            launch_map<silu_of, decltype(from), decltype(to)>(stream, x.data, out.data, n);
        });
    });
}

template <int V, typename X, typename Y>
__global__ void __launch_bounds__(FLAT_THREADS) add_flat(X *x, const Y *y, size_t n)
{
    for (size_t at = blockIdx.x * flat_tile<V>; at < n; at += gridDim.x * flat_tile<V>) {
        const size_t first = at + (size_t)threadIdx.x * V;
        rp_pack<X, V> x_pack[FLAT_DEPTH];
        rp_pack<Y, V> y_pack[FLAT_DEPTH];
#pragma unroll
        for (int k = 0; k < FLAT_DEPTH; k++) {
            const size_t i = first + (size_t)k * FLAT_THREADS * V;
            if (i + V <= n) {
                x_pack[k] = rp_load_pack<V>(x + i);
                y_pack[k] = rp_load_pack<V>(y + i);
            }
        }
#pragma unroll
        for (int k = 0; k < FLAT_DEPTH; k++) {
            const size_t i = first + (size_t)k * FLAT_THREADS * V;
            if (i + V <= n) {
                float sum[V], add[V];
                rp_unpack<V>(x_pack[k], sum);
                rp_unpack<V>(y_pack[k], add);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    sum[j] += add[j];
                }
                rp_store<V>(x + i, sum);
            } else if (V > 1) {
                for (size_t j = i; j < n; j++) {
                    x[j] = rp_round<X>(rp_float(x[j]) + rp_float(y[j]));
                }
            }
        }
    }
}

void rp_cuda_k_add(cudaStream_t stream, rp_cuda_view x, rp_cuda_view y, size_t n)
{
    if (n == 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto x_type) {
        rp_with_act(y.dtype, [&](auto y_type) {
            using X = decltype(x_type);
            using Y = decltype(y_type);
            rp_with_chunk<rp_chunk<X, Y>>(rp_wide(x.data) && rp_wide(y.data), [&](auto chunk) {
                constexpr int V = decltype(chunk)::value;
                add_flat<V><<<rp_grid(rp_ceil_div(n, flat_tile<V>)), FLAT_THREADS, 0, stream>>>(
                    (X *)x.data, (const Y *)y.data, n);
            });
        });
    });
}

/* All that find something write the same. */
template <int V>
__global__ void __launch_bounds__(FLAT_THREADS) find_not_finite(const float *x, size_t n, int *flag)
{
    bool found = false;

    for (size_t i = ((size_t)blockIdx.x * FLAT_THREADS + threadIdx.x) * V; i < n;
         i += (size_t)gridDim.x * FLAT_THREADS * V) {
        if (i + V <= n) {
            float v[V];
            rp_load<V>(x + i, v);
#pragma unroll
            for (int j = 0; j < V; j++) {
                found |= !isfinite(v[j]);
            }
        } else {
            for (size_t j = i; j < n; j++) {
                found |= !isfinite(x[j]);
            }
        }
    }
    if (found) {
        *flag = 1;
    }
}

void rp_cuda_k_check_finite(cudaStream_t stream, const float *x, size_t n, int *flag)
{
    if (n == 0) {
        return;
    }
    rp_with_chunk<4>(rp_wide(x), [&](auto chunk) {
        constexpr int V = decltype(chunk)::value;
        find_not_finite<V>
            <<<rp_grid(rp_ceil_div(n, flat_tile<V>)), FLAT_THREADS, 0, stream>>>(x, n, flag);
    });
}

/* ---- rows ---- */

/* out[t, d] = scale * row ids[i] of in, or row i without ids */
template <int V, typename In, typename Out>
__global__ void __launch_bounds__(ROW_THREADS)
    gather_rows(const In *__restrict__ in, const int32_t *__restrict__ ids, int d, size_t in_stride,
                float scale, Out *__restrict__ out)
{
    const size_t row = blockIdx.x;
    const In *from = in + (ids != nullptr ? (size_t)ids[row] : row) * in_stride;
    Out *to = out + row * (size_t)d;

#pragma unroll 2
    for (int i = threadIdx.x * V; i < d; i += blockDim.x * V) {
        float x[V];
        rp_load<V>(from + i, x);
#pragma unroll
        for (int j = 0; j < V; j++) {
            x[j] *= scale;
        }
        rp_store<V>(to + i, x);
    }
}

static void gather(cudaStream_t stream, rp_cuda_view in, const int32_t *ids, int t, int d,
                   int in_stride, float scale, rp_cuda_view out)
{
    if (t <= 0 || d <= 0) {
        return;
    }
    rp_with_any(in.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            using In = decltype(from);
            using Out = decltype(to);
            constexpr int wide = rp_chunk<In, Out>;
            const bool fits =
                d % wide == 0 && in_stride % wide == 0 && rp_wide(in.data) && rp_wide(out.data);
            rp_with_chunk<wide>(fits, [&](auto chunk) {
                constexpr int V = decltype(chunk)::value;
                gather_rows<V><<<t, rp_threads(rp_ceil_div(d, V), ROW_THREADS), 0, stream>>>(
                    (const In *)in.data, ids, d, (size_t)in_stride, scale, (Out *)out.data);
            });
        });
    });
}

void rp_cuda_k_convert_rows(cudaStream_t stream, rp_cuda_view in, int t, int k, int in_stride,
                            rp_cuda_view out)
{
    gather(stream, in, nullptr, t, k, in_stride, 1.0f, out);
}

void rp_cuda_k_embed(cudaStream_t stream, rp_cuda_view table, const int32_t *ids, int t, int d,
                     float scale, rp_cuda_view out)
{
    gather(stream, table, ids, t, d, d, scale, out);
}

/* Blocks cover columns (x) and every gridDim.y-th row (y); a thread keeps its piece of the bias. */
template <int V, typename X>
__global__ void __launch_bounds__(ROW_THREADS)
    add_bias_rows(X *x, size_t t, int n, size_t stride, const float *bias)
{
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    float add[V];

    if (i >= n) {
        return;
    }
    rp_load<V>(bias + i, add);
#pragma unroll 2
    for (size_t row = blockIdx.y; row < t; row += gridDim.y) {
        float sum[V];
        rp_load<V>(x + row * stride + i, sum);
#pragma unroll
        for (int j = 0; j < V; j++) {
            sum[j] += add[j];
        }
        rp_store<V>(x + row * stride + i, sum);
    }
}

void rp_cuda_k_add_bias(cudaStream_t stream, rp_cuda_view x, int t, int n, int stride,
                        const float *bias)
{
    if (t <= 0 || n <= 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto type) {
        using X = decltype(type);
        constexpr int wide = rp_chunk<X>;
        const bool fits = n % wide == 0 && stride % wide == 0 && rp_wide(x.data) && rp_wide(bias);
        rp_with_chunk<wide>(fits, [&](auto chunk) {
            constexpr int V = decltype(chunk)::value;
            const size_t chunks = rp_ceil_div(n, V);
            const int threads = rp_threads(chunks, ROW_THREADS);
            const size_t columns = rp_ceil_div(chunks, threads);
            const size_t rows = rp_ceil_div(BIAS_BLOCKS, columns);
            const dim3 grid((unsigned)columns, (unsigned)(rows < (size_t)t ? rows : (size_t)t));
            add_bias_rows<V>
                <<<grid, threads, 0, stream>>>((X *)x.data, (size_t)t, n, (size_t)stride, bias);
        });
    });
}

/* out[t, d] = F(ab[t, 0:d]) * ab[t, d:2d] */
template <typename F, int V, typename In, typename Out>
__global__ void __launch_bounds__(ROW_THREADS)
    glu_rows(const In *__restrict__ ab, int d, Out *__restrict__ out)
{
    const In *a = ab + (size_t)blockIdx.x * 2 * (size_t)d;
    const In *b = a + d;
    Out *to = out + (size_t)blockIdx.x * (size_t)d;

#pragma unroll 3
    for (int i = threadIdx.x * V; i < d; i += blockDim.x * V) {
        float x[V], y[V];
        rp_load<V>(a + i, x);
        rp_load<V>(b + i, y);
#pragma unroll
        for (int j = 0; j < V; j++) {
            x[j] = F::of(x[j]) * y[j];
        }
        rp_store<V>(to + i, x);
    }
}

template <typename F>
static void launch_glu(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out)
{
    if (t <= 0 || d <= 0) {
        return;
    }
    rp_with_act(ab.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            using In = decltype(from);
            using Out = decltype(to);
            constexpr int wide = rp_chunk<In, Out>;
            const bool fits = d % wide == 0 && rp_wide(ab.data) && rp_wide(out.data);
            rp_with_chunk<wide>(fits, [&](auto chunk) {
                constexpr int V = decltype(chunk)::value;
                glu_rows<F, V><<<t, rp_threads(rp_ceil_div(d, V), ROW_THREADS), 0, stream>>>(
                    (const In *)ab.data, d, (Out *)out.data);
            });
        });
    });
}

void rp_cuda_k_swiglu(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out)
{
    launch_glu<silu_of>(stream, ab, t, d, out);
}

void rp_cuda_k_geglu(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out)
{
    launch_glu<gelu_of>(stream, ab, t, d, out);
}
