/*
 * cuda_largest.cu - the largest magnitudes of matrices in bf16, for what rounds them to e4m3.
 *
 * Each block leaves the largest that it met; who reads takes the largest of those. It is the same
 * in any order. All loads of a thread are on their way before it needs the first.
 */
#include "tensor/cuda/cuda_narrow.cuh"

#define THREADS   256
#define CHUNK     8 /* elements: one load */
#define LOADS     4
#define MAX_PARTS 3

typedef __nv_bfloat16 bf16;

typedef struct {
    rp_cuda_part part[MAX_PARTS];
    int n;
} parts;

__device__ static uint4 load_chunk(const rp_cuda_part &p, unsigned i, unsigned per_row)
{
    const unsigned row = i / per_row, col = i - row * per_row;
    const bf16 *const from = (const bf16 *)p.from + (size_t)row * (unsigned)p.stride + col * CHUNK;

    return __ldg(reinterpret_cast<const uint4 *>(from));
}

/* A NaN does not count: it stays one whatever the scale. */
__device__ static __nv_bfloat162 larger(__nv_bfloat162 most, const uint4 &chunk)
{
    const unsigned words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};

#pragma unroll
    for (int j = 0; j < 4; j++) {
        most = __hmax2(most, __habs2(*reinterpret_cast<const __nv_bfloat162 *>(&words[j])));
    }
    return most;
}

__device__ static float largest_of(const rp_cuda_part &p)
{
    const unsigned per_row = (unsigned)p.cols / CHUNK, n = (unsigned)p.rows * per_row;
    const unsigned step = gridDim.x * THREADS;
    __nv_bfloat162 two = __float2bfloat162_rn(0.0f);

    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n; i += LOADS * step) {
        uint4 chunk[LOADS];
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
            const unsigned at = i + j * step;
            chunk[j] = at < n ? load_chunk(p, at, per_row) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
            two = larger(two, chunk[j]);
        }
    }
    return fmaxf(__low2float(two), __high2float(two));
}

/* most[part, block] */
__global__ void __launch_bounds__(THREADS)
    largest_of_parts(const parts all, float *__restrict__ most)
{
    __shared__ float buffer[MAX_PARTS][RP_WARP];

#pragma unroll
    for (int p = 0; p < MAX_PARTS; p++) {
        if (p < all.n) {
            const float m = rp_block_max(largest_of(all.part[p]), buffer[p]);
            if (threadIdx.x == 0) {
                most[(unsigned)p * gridDim.x + blockIdx.x] = m;
            }
        }
    }
}

void rp_cuda_k_largest(cudaStream_t stream, const rp_cuda_part *list, int n, int n_pieces,
                       float *most)
{
    parts all = {};

    all.n = n;
    for (int p = 0; p < n; p++) {
        all.part[p] = list[p];
    }
    largest_of_parts<<<(unsigned)n_pieces, THREADS, 0, stream>>>(all, most);
}
