/*
 * cuda_fill.cu - random numbers that depend on a seed and a place alone.
 */
#include "tensor/cuda/cuda_device.cuh"

#define THREADS 256

/* The finalizer of splitmix64 (Steele, Lea and Flood 2014). */
__device__ inline uint64_t mix_bits(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Elements 2 pair and 2 pair + 1 of the stream `key`: Box and Muller 1958, radius up to 5.8. */
__device__ inline float2 normal_pair(uint64_t key, uint64_t pair)
{
    const uint64_t bits = mix_bits(key + pair * 0x9e3779b97f4a7c15u);
    const float u = (float)((uint32_t)(bits >> 40) + 1u) * 0x1p-24f; /* (0, 1] */
    const float turn = (float)((uint32_t)bits >> 8) * 0x1p-24f;      /* [0, 1) */
    const float radius = sqrtf(-2.0f * logf(u));
    float s, c;

    sincospif(2.0f * turn, &s, &c);
    return make_float2(radius * c, radius * s);
}

template <typename Out>
__global__ void __launch_bounds__(THREADS) fill_flat(Out *out, size_t n, uint64_t seed, float std)
{
    const uint64_t key = mix_bits(seed + 0x9e3779b97f4a7c15u);

    for (size_t pair = (size_t)blockIdx.x * THREADS + threadIdx.x; 2 * pair < n;
         pair += (size_t)gridDim.x * THREADS) {
        const float2 x = std == 0.0f ? make_float2(1.0f, 1.0f) : normal_pair(key, pair);
        const float by = std == 0.0f ? 1.0f : std;
        out[2 * pair] = rp_round<Out>(x.x * by);
        if (2 * pair + 1 < n) {
            out[2 * pair + 1] = rp_round<Out>(x.y * by);
        }
    }
}

void rp_cuda_k_fill(cudaStream_t stream, rp_cuda_view out, size_t n, uint64_t seed, float std)
{
    const unsigned grid = rp_grid(rp_ceil_div(rp_ceil_div(n, 2), THREADS));

    if (n == 0) {
        return;
    }
    rp_with_any(out.dtype, [&](auto type) {
        fill_flat<<<grid, THREADS, 0, stream>>>((decltype(type) *)out.data, n, seed, std);
    });
}

cudaError_t rp_cuda_k_probe(void)
{
    cudaFuncAttributes attributes;

    return cudaFuncGetAttributes(&attributes, fill_flat<float>);
}
