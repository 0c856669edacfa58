/*
 * cuda_fp8.cu - rows to e4m3 and back, gated units that write such rows, scales of a product.
 *
 * A row goes to a block and stays in registers between the search for its largest magnitude and
 * the conversion; longer rows, and rows that wide loads cannot take, are read twice.
 */
#include "tensor/cuda/cuda_narrow.cuh"

#define ROW_THREADS 384

/* fn(chunks a thread): the fewest that hold a row of d in chunks of V. False when it is too long.
 */
template <int V, typename Fn> static bool with_chunks(int d, Fn fn)
{
    if (d <= ROW_THREADS * V) {
        fn(std::integral_constant<int, 1>());
    } else if (d <= ROW_THREADS * V * 2) {
        fn(std::integral_constant<int, 2>());
    } else if (d <= ROW_THREADS * V * 4) {
        fn(std::integral_constant<int, 4>());
    } else if (d <= ROW_THREADS * V * 8) {
        fn(std::integral_constant<int, 8>());
    } else {
        return false;
    }
    return true;
}

/* `each` elements of a row a thread. */
static int threads_of(int d, int each)
{
    return rp_threads(rp_ceil_div((size_t)d, (size_t)each), ROW_THREADS);
}

/* ---- quantise ---- */

template <int V, int CHUNKS, typename In>
__global__ void __launch_bounds__(ROW_THREADS)
    quantize_held(const In *__restrict__ in, int k, size_t stride, uint8_t *__restrict__ out,
                  float *__restrict__ scale)
{
    __shared__ float buffer[RP_WARP];
    const In *from = in + blockIdx.x * stride;
    uint8_t *to = out + blockIdx.x * (size_t)k;
    rp_pack<In, V> pack[CHUNKS];
    float most = 0.0f, back;

#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int at = (threadIdx.x + c * blockDim.x) * V;
        pack[c] = {};
        if (at < k) {
            pack[c] = rp_load_pack<V>(from + at);
        }
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            most = fmaxf(most, fabsf(rp_float(pack[c].v[j])));
        }
    }
    const float by = rp_narrow_factor(rp_block_max(most, buffer), &back);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int at = (threadIdx.x + c * blockDim.x) * V;
        if (at < k) {
            float x[V];
            rp_unpack<V>(pack[c], x);
            rp_store_e4m3<V>(to + at, x, by);
        }
    }
    if (threadIdx.x == 0) {
        scale[blockIdx.x] = back;
    }
}

template <typename In>
__global__ void __launch_bounds__(ROW_THREADS)
    quantize_reread(const In *__restrict__ in, int k, size_t stride, uint8_t *__restrict__ out,
                    float *__restrict__ scale)
{
    __shared__ float buffer[RP_WARP];
    const In *from = in + blockIdx.x * stride;
    uint8_t *to = out + blockIdx.x * (size_t)k;
    float most = 0.0f, back;

    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        most = fmaxf(most, fabsf(rp_float(from[i])));
    }
    const float by = rp_narrow_factor(rp_block_max(most, buffer), &back);
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        const float x[1] = {rp_float(from[i])};
        rp_store_e4m3<1>(to + i, x, by);
    }
    if (threadIdx.x == 0) {
        scale[blockIdx.x] = back;
    }
}

void rp_cuda_k_quantize_rows(cudaStream_t stream, rp_cuda_view in, int rows, int k, int stride,
                             rp_cuda_narrow out)
{
    if (rows <= 0 || k <= 0) {
        return;
    }
    rp_with_any(in.dtype, [&](auto from) {
        using In = decltype(from);
        constexpr int V = rp_chunk<In>;
        const In *const x = (const In *)in.data;
        const bool fits = k % V == 0 && stride % V == 0 && rp_wide(in.data) && rp_wide(out.data);
        const bool held = fits && with_chunks<V>(k, [&](auto chunks) {
                              constexpr int C = decltype(chunks)::value;
                              quantize_held<V, C><<<rows, threads_of(k, C * V), 0, stream>>>(
                                  x, k, (size_t)stride, out.data, out.scale);
                          });
        if (!held) {
            quantize_reread<<<rows, threads_of(k, 1), 0, stream>>>(x, k, (size_t)stride, out.data,
                                                                   out.scale);
        }
    });
}

/* ---- and back ---- */

template <typename Out>
__global__ void __launch_bounds__(ROW_THREADS)
    dequantize(const uint8_t *__restrict__ in, const float *__restrict__ scale, size_t cols,
               Out *__restrict__ out)
{
    const size_t row = blockIdx.x * cols;
    const float by = scale[blockIdx.x];

    for (size_t i = threadIdx.x; i < cols; i += blockDim.x) {
        out[row + i] = rp_round<Out>(rp_float_of_e4m3(in[row + i]) * by);
    }
}

void rp_cuda_k_dequantize_rows(cudaStream_t stream, rp_cuda_narrow in, size_t rows, size_t cols,
                               rp_cuda_view out)
{
    if (rows == 0 || cols == 0) {
        return;
    }
    rp_with_act(out.dtype, [&](auto to) {
        using Out = decltype(to);
        dequantize<<<(unsigned)rows, rp_threads(cols, ROW_THREADS), 0, stream>>>(
            in.data, in.scale, cols, (Out *)out.data);
    });
}

__global__ void __launch_bounds__(ROW_THREADS) set_flat(float *out, size_t n, float value)
{
    const size_t i = (size_t)blockIdx.x * ROW_THREADS + threadIdx.x;

    if (i < n) {
        out[i] = value;
    }
}

void rp_cuda_k_set(cudaStream_t stream, float *out, size_t n, float value)
{
    if (n > 0) {
        set_flat<<<rp_grid(rp_ceil_div(n, ROW_THREADS)), ROW_THREADS, 0, stream>>>(out, n, value);
    }
}

/* ---- a product's scales, where it is computed without them ---- */

template <typename X>
__global__ void __launch_bounds__(ROW_THREADS)
    scale_rows(X *x, int n, size_t stride, const float *row_scale, const float *col_scale)
{
    X *const at = x + blockIdx.x * stride;
    const float by = row_scale[blockIdx.x];

    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        at[i] = rp_round<X>(rp_float(at[i]) * by * col_scale[i]);
    }
}

void rp_cuda_k_scale_product(cudaStream_t stream, rp_cuda_view x, int t, int n, int stride,
                             const float *row_scale, const float *col_scale)
{
    if (t <= 0 || n <= 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto type) {
        using X = decltype(type);
        scale_rows<<<t, threads_of(n, 1), 0, stream>>>((X *)x.data, n, (size_t)stride, row_scale,
                                                       col_scale);
    });
}

/* ---- gated units ---- */

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

/* out[t, d] = F(ab[t, 0:d]) * ab[t, d:2d], and the same rows as e4m3 */
template <typename F, int V, int CHUNKS, typename T>
__global__ void __launch_bounds__(ROW_THREADS)
    glu_held(const T *__restrict__ ab, int d, T *__restrict__ out, rp_cuda_narrow also)
{
    __shared__ float buffer[RP_WARP];
    const T *a = ab + (size_t)blockIdx.x * 2 * (size_t)d;
    const size_t row = blockIdx.x * (size_t)d;
    float x[CHUNKS][V];
    float most = 0.0f, back;

#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int at = (threadIdx.x + c * blockDim.x) * V;
        float y[V];
        if (at < d) {
            rp_load<V>(a + at, x[c]);
            rp_load<V>(a + d + at, y);
#pragma unroll
            for (int j = 0; j < V; j++) {
                x[c][j] = rp_float(rp_round<T>(F::of(x[c][j]) * y[j]));
                most = fmaxf(most, fabsf(x[c][j]));
            }
            rp_store<V>(out + row + at, x[c]);
        }
    }
    const float by = rp_narrow_factor(rp_block_max(most, buffer), &back);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int at = (threadIdx.x + c * blockDim.x) * V;
        if (at < d) {
            rp_store_e4m3<V>(also.data + row + at, x[c], by);
        }
    }
    if (threadIdx.x == 0) {
        also.scale[blockIdx.x] = back;
    }
}

template <typename F>
static bool launch_glu(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out,
                       rp_cuda_narrow also)
{
    using T = __nv_bfloat16;
    constexpr int V = rp_chunk<T>;

    return ab.dtype == RP_BF16 && out.dtype == RP_BF16 && t > 0 && d > 0 && d % V == 0 &&
           rp_wide(ab.data) && rp_wide(out.data) && rp_wide(also.data) &&
           with_chunks<V>(d, [&](auto chunks) {
               constexpr int C = decltype(chunks)::value;
               glu_held<F, V, C><<<t, threads_of(d, C * V), 0, stream>>>((const T *)ab.data, d,
                                                                         (T *)out.data, also);
           });
}

void rp_cuda_k_swiglu_narrow(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out,
                             rp_cuda_narrow also)
{
    if (!launch_glu<silu_of>(stream, ab, t, d, out, also)) {
        rp_cuda_k_swiglu(stream, ab, t, d, out);
        rp_cuda_k_quantize_rows(stream, out, t, d, d, also);
    }
}

void rp_cuda_k_geglu_narrow(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out,
                            rp_cuda_narrow also)
{
    if (!launch_glu<gelu_of>(stream, ab, t, d, out, also)) {
        rp_cuda_k_geglu(stream, ab, t, d, out);
        rp_cuda_k_quantize_rows(stream, out, t, d, d, also);
    }
}
