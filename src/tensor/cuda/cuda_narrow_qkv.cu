/*
 * cuda_narrow_qkv.cu - q, k and v to e4m3 with one scale each, for an attention in 8 bits.
 *
 * Two readings: the first one's blocks leave the largest magnitudes that they met, each block of
 * the second takes the largest of those and rounds.
 */
#include "tensor/cuda/cuda_narrow.cuh"

#define THREADS 256
#define CHUNK   16 /* elements: two loads, one store */

/*
 * Shares of the softmax: powers of at most 1 before the division. A power of two, so that the way
 * back is exact, with room below 448 for a kernel whose running maximum lags a little behind.
 */
#define TO_SHARE 256.0f

/* Two scales and 1 / sqrt(head_dim) are multiplied into one: zeros must not make that one zero. */
#define LEAST_MOST 1e-12f

typedef __nv_bfloat16 bf16;

typedef struct {
    rp_cuda_part part[3];
} job;

/* fn(chunk of the part, its number) for this thread's chunks */
template <typename Fn> __device__ inline void each_chunk(const rp_cuda_part &part, Fn fn)
{
    const unsigned per_row = (unsigned)part.cols / CHUNK;
    const unsigned n = (unsigned)part.rows * per_row;

    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        const size_t row = i / per_row, col = i % per_row;
        float x[CHUNK];
        rp_load<CHUNK>((const bf16 *)part.from + row * (size_t)part.stride + col * CHUNK, x);
        fn(x, i);
    }
}

__global__ void __launch_bounds__(THREADS)
    round_parts(const job parts, const float *__restrict__ most, rp_cuda_number *numbers,
                float *__restrict__ out_scale, unsigned n_out)
{
    __shared__ float buffer[3][RP_WARP];
    float by[3], back[3];

#pragma unroll
    for (int p = 0; p < 3; p++) {
        float m = LEAST_MOST;
        for (int i = threadIdx.x; i < RP_CUDA_QKV_PIECES; i += THREADS) {
            m = fmaxf(m, most[p * RP_CUDA_QKV_PIECES + i]);
        }
        by[p] = rp_narrow_factor(rp_block_max(m, buffer[p]), &back[p]);
    }
#pragma unroll
    for (int p = 0; p < 3; p++) {
        uint8_t *const to = parts.part[p].to;
        const float factor = by[p];
        each_chunk(parts.part[p], [&](const float(&x)[CHUNK], unsigned i) {
            rp_store_e4m3<CHUNK>(to + (size_t)i * CHUNK, x, factor);
        });
    }
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n_out; i += gridDim.x * THREADS) {
        out_scale[i] = back[2];
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        numbers[RP_CUDA_QKV_BACK_Q].value = back[0];
        numbers[RP_CUDA_QKV_BACK_K].value = back[1];
        numbers[RP_CUDA_QKV_BACK_V].value = back[2];
        numbers[RP_CUDA_QKV_TO_SHARE].value = TO_SHARE;
        numbers[RP_CUDA_QKV_BACK_SHARE].value = 1.0f / TO_SHARE;
        numbers[RP_CUDA_QKV_TO_OUT].value = by[2];
    }
}

void rp_cuda_k_narrow_qkv(cudaStream_t stream, const rp_cuda_part parts[3], float *most,
                          rp_cuda_number *numbers, float *out_scale, int n_out)
{
    const job all = {{parts[0], parts[1], parts[2]}};

    rp_cuda_k_largest(stream, parts, 3, RP_CUDA_QKV_PIECES, most);
    round_parts<<<RP_CUDA_QKV_PIECES, THREADS, 0, stream>>>(all, most, numbers, out_scale,
                                                            (unsigned)n_out);
}
