/*
 * cuda_narrow.cuh - rows as e4m3 with a scale each: what kernels share that write such rows.
 *
 * A row's scale is its largest magnitude over 448, the largest number of the type. Values are first
 * rounded to the type that the row has in memory: a kernel that writes both gives the same bytes as
 * quantising afterwards.
 */
#ifndef RP_CUDA_NARROW_CUH
#define RP_CUDA_NARROW_CUH

#include "tensor/cuda/cuda_device.cuh"

#include <cuda_fp8.h>

#define RP_E4M3_MAX 448.0f
#define RP_LEAST_MAX                                                                               \
    1e-30f /* so that neither a scale nor its inverse overflows; zeros stay zeros */

/* Largest over a block of whole warps, in every thread; the rules of rp_block_sum. */
__device__ inline float rp_block_max(float x, float *buffer)
{
    const int n_warps = blockDim.x / RP_WARP;
    float most = 0.0f;

    for (int step = RP_WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(RP_ALL, x, step));
    }
    if (threadIdx.x % RP_WARP == 0) {
        buffer[threadIdx.x / RP_WARP] = x;
    }
    __syncthreads();
    for (int i = 0; i < n_warps; i++) {
        most = fmaxf(most, buffer[i]);
    }
    return most;
}

/* What a row of this largest magnitude is multiplied by; *scale takes it back. */
__device__ inline float rp_narrow_factor(float most, float *scale)
{
    most = fmaxf(most, RP_LEAST_MAX);
    *scale = most / RP_E4M3_MAX;
    return RP_E4M3_MAX / most;
}

/* V elements times `by`. A NaN stays one. */
template <int V> __device__ inline void rp_store_e4m3(uint8_t *p, const float (&x)[V], float by)
{
    if constexpr (V == 1) {
        *p = __nv_cvt_float_to_fp8(x[0] * by, __NV_SATFINITE, __NV_E4M3);
    } else {
        using word = typename rp_word_of<V>::type;
        alignas(V) __nv_fp8x2_storage_t two[V / 2];
#pragma unroll
        for (int i = 0; i < V; i += 2) {
            two[i / 2] = __nv_cvt_float2_to_fp8x2(make_float2(x[i] * by, x[i + 1] * by),
                                                  __NV_SATFINITE, __NV_E4M3);
        }
        *reinterpret_cast<word *>(p) = *reinterpret_cast<const word *>(two);
    }
}

__device__ inline float rp_float_of_e4m3(uint8_t x)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(x, __NV_E4M3)));
}

#endif
