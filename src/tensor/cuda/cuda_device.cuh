/*
 * cuda_device.cuh - what the kernels share: elements of any type as floats, wide loads, sums of a
 * block, the choice of a kernel by element type.
 *
 * A kernel works on chunks of V elements. V of the widest type make 16 bytes (8 for bf16 alone, 4
 * where f32 takes part), or V is 1 where addresses or row lengths do not allow that. Its
 * grid may be smaller than the work: every kernel goes on with the next tile, row or warp.
 */
#ifndef RP_CUDA_DEVICE_CUH
#define RP_CUDA_DEVICE_CUH

#include "tensor/cuda/cuda_kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#define RP_WARP     32
#define RP_ALL      0xffffffffu /* lanes */
#define RP_MAX_GRID 0x7fffffff

/* Chunk of a kernel that touches these types. */
template <typename... T> constexpr int rp_chunk = ((sizeof(T) == 2) && ...) ? 8 : 4;

__device__ inline float rp_float(float x)
{
    return x;
}

__device__ inline float rp_float(__half x)
{
    return __half2float(x);
}

__device__ inline float rp_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* Round to the element type. */
template <typename T> __device__ inline T rp_round(float x)
{
    if constexpr (std::is_same_v<T, float>) {
        return x;
    } else if constexpr (std::is_same_v<T, __half>) {
        return __float2half_rn(x);
    } else {
        return __float2bfloat16_rn(x);
    }
}

/* Words that one instruction moves. */
template <int BYTES> struct rp_word_of;
template <> struct rp_word_of<2> {
    using type = unsigned short;
};
template <> struct rp_word_of<4> {
    using type = unsigned;
};
template <> struct rp_word_of<8> {
    using type = uint2;
};
template <> struct rp_word_of<16> {
    using type = uint4;
};

/* V elements as they lie in memory. */
template <typename T, int V> struct rp_pack {
    static constexpr int bytes = sizeof(T) * V < 16 ? sizeof(T) * V : 16;
    static constexpr int n_words = sizeof(T) * V / bytes;
    using word = typename rp_word_of<bytes>::type;

    alignas(bytes) T v[V];
};

template <int V, typename T> __device__ inline rp_pack<T, V> rp_load_pack(const T *p)
{
    using word = typename rp_pack<T, V>::word;
    rp_pack<T, V> pack;

#pragma unroll
    for (int i = 0; i < pack.n_words; i++) {
        reinterpret_cast<word *>(pack.v)[i] = reinterpret_cast<const word *>(p)[i];
    }
    return pack;
}

/* A plain assignment is at times taken apart into its elements (seen with CUDA 13.0). */
template <int V, typename T> __device__ inline void rp_store_pack(T *p, const rp_pack<T, V> &pack)
{
    using word = typename rp_pack<T, V>::word;

#pragma unroll
    for (int i = 0; i < pack.n_words; i++) {
        __stwb(reinterpret_cast<word *>(p) + i, reinterpret_cast<const word *>(pack.v)[i]);
    }
}

template <int V, typename T>
__device__ inline void rp_unpack(const rp_pack<T, V> &pack, float (&out)[V])
{
#pragma unroll
    for (int i = 0; i < V; i++) {
        out[i] = rp_float(pack.v[i]);
    }
}

template <int V, typename T> __device__ inline void rp_load(const T *p, float (&out)[V])
{
    rp_unpack<V>(rp_load_pack<V>(p), out);
}

template <int V, typename T> __device__ inline void rp_store(T *p, const float (&x)[V])
{
    rp_pack<T, V> pack;

    if constexpr (std::is_same_v<T, __nv_bfloat16> && V % 2 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 2) {
            /* one instruction rounds two */
            const __nv_bfloat162 two = __floats2bfloat162_rn(x[i], x[i + 1]);
            pack.v[i] = two.x;
            pack.v[i + 1] = two.y;
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) {
            pack.v[i] = rp_round<T>(x[i]);
        }
    }
    rp_store_pack<V>(p, pack);
}

/* x / (1 + e^-y); the division is good to 2 units in the last place */
__device__ inline float rp_times_sigmoid(float x, float y)
{
    return __fdividef(x, 1.0f + expf(-y));
}

__device__ inline float rp_silu(float x)
{
    return rp_times_sigmoid(x, x);
}

/* 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
__device__ inline float rp_gelu(float x)
{
    return rp_times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x));
}

/* Sum over `width` neighbouring lanes (a power of two), the same bits in each of them. */
__device__ inline float rp_lanes_sum(float x, int width)
{
    for (int step = width / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(RP_ALL, x, step);
    }
    return x;
}

/*
 * Sum over a block of whole warps, the same bits in every thread. One barrier only: two calls in a
 * row need two buffers of RP_WARP floats, a third may take the first again.
 */
__device__ inline float rp_block_sum(float x, float *buffer)
{
    const int n_warps = blockDim.x / RP_WARP;
    float sum = 0.0f;

    x = rp_lanes_sum(x, RP_WARP);
    if (threadIdx.x % RP_WARP == 0) {
        buffer[threadIdx.x / RP_WARP] = x;
    }
    __syncthreads();
    for (int i = 0; i < n_warps; i++) {
        sum += buffer[i];
    }
    return sum;
}

/* ---- host ---- */

/* May a kernel touch this with 16 bytes at a time? NULL may stand for an absent vector. */
static inline bool rp_wide(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

static inline size_t rp_ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static inline unsigned rp_grid(size_t blocks)
{
    return (unsigned)(blocks < RP_MAX_GRID ? blocks : RP_MAX_GRID);
}

/* Threads for `work` steps: whole warps, no more than `max`, and as many steps for each of them. */
static inline int rp_threads(size_t work, int max)
{
    const size_t steps = rp_ceil_div(work, (size_t)max);
    const size_t threads = rp_ceil_div(work, steps);

    return (int)(rp_ceil_div(threads, RP_WARP) * RP_WARP);
}

/* As many blocks as the device runs at once, for kernels that keep something from row to row. */
template <typename Kernel> static unsigned rp_resident_grid(Kernel kernel, int threads, size_t rows)
{
    int device = 0, n_sms = 1, per_sm = 1;

    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, device);
    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, threads, 0);
    const size_t blocks = (size_t)n_sms * (size_t)(per_sm > 0 ? per_sm : 1);
    return rp_grid(rows < blocks ? rows : blocks);
}

/* fn(an element of the type): activations. */
template <typename Fn> static void rp_with_act(rp_dtype dtype, Fn fn)
{
    if (dtype == RP_BF16) {
        fn(__nv_bfloat16());
    } else {
        fn(float());
    }
}

/* The same for weights too. */
template <typename Fn> static void rp_with_any(rp_dtype dtype, Fn fn)
{
    if (dtype == RP_F16) {
        fn(__half());
    } else {
        rp_with_act(dtype, fn);
    }
}

/* fn(V as a type): V when `wide`, else 1. */
template <int V, typename Fn> static void rp_with_chunk(bool wide, Fn fn)
{
    if (wide) {
        fn(std::integral_constant<int, V>());
    } else {
        fn(std::integral_constant<int, 1>());
    }
}

__device__ inline float rp_inverse_root(float sum_sq, int d, float eps)
{
    return 1.0f / sqrtf(sum_sq / (float)d + eps);
}

#endif
