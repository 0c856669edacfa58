/*
 * cuda_blocks.cu - rows as e4m3 with a scale for each 128 columns: their product with weights
 * (launches of cuda_blocks.cuh), and what they stand for, where that product is not to be had.
 */
#include "tensor/cuda/cuda_blocks.cuh"
#include "tensor/cuda/cuda_narrow.cuh"

#define ROW_THREADS 384

rp_cuda_narrow rp_cuda_blocks_at(void *memory, int t, int k)
{
    const size_t align = 256;
    const size_t bytes = ((size_t)t * (size_t)k + align - 1) / align * align;
    uint8_t *const data = (uint8_t *)memory;

    return {data, (float *)(data + bytes)};
}

/* ---- product ---- */

bool rp_cuda_down_can(const rp_cuda_down *g, int capability)
{
#if defined(RP_CUDA_SM90A)
    const bool aligned = rp_wide(g->a.data) && rp_wide(g->a.scale) && rp_wide(g->w) &&
                         rp_wide(g->d) && (uintptr_t)g->w_scale % sizeof(float2) == 0 &&
                         g->ldd % 8 == 0;

    return capability == 90 && aligned && g->w_scale != NULL && g->m >= RP_CUDA_GATED_ROWS &&
           g->n > 0 && g->n % 8 == 0 && g->k > 0 && g->k % RP_CUDA_BLOCK == 0;
#else
    (void)g;
    (void)capability;
    return false;
#endif
}

rp_cuda_gated_way rp_cuda_down_choose(const rp_cuda_down *g)
{
    const int n_sms = 132; /* of an H100, so that a group of rows is all that is in work */
    const int n_cols = (int)rp_ceil_div((size_t)g->n, TILE_COLS);

    return {.group_rows = n_cols < n_sms ? n_sms / n_cols : 1, .lead = 1};
}

static cudaError_t launch(cudaStream_t stream, const rp_cuda_down *g, const down_job &job)
{
    PFN_cuTensorMapEncodeTiled_v12000 fn = NULL;
    CUtensorMap a, w, d;
    cudaError_t code = rp_find_encode(&fn);

    if (code != cudaSuccess) {
        return code;
    }
    const rp_tensor_map of_a = rp_tile_map(g->a.data, RP_F8_E4M3, g->m, g->k, g->k, TILE_ROWS);
    const rp_tensor_map of_w = rp_tile_map(g->w, RP_F8_E4M3, g->n, g->k, g->k, TILE_COLS);
    const rp_tensor_map of_d = rp_tile_map(g->d, RP_BF16, g->m, g->n, g->ldd, STORE_ROWS);
    if (!rp_encode_map(fn, &a, &of_a) || !rp_encode_map(fn, &w, &of_w) ||
        !rp_encode_map(fn, &d, &of_d)) {
        return cudaErrorInvalidValue;
    }
    code = cudaFuncSetAttribute(down, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
    if (code != cudaSuccess) {
        return code;
    }
    down<<<rp_blocks_for(job.order), N_THREADS, SHARED_BYTES, stream>>>(a, w, d, job);
    return cudaPeekAtLastError();
}

cudaError_t rp_cuda_k_down(cudaStream_t stream, const rp_cuda_down *g, const rp_cuda_gated_way *way)
{
    down_job job = {};

    job.n_k = g->k / K_BYTES;
    job.order.n_rows = (int)rp_ceil_div((size_t)g->m, TILE_ROWS);
    job.order.n_cols = (int)rp_ceil_div((size_t)g->n, TILE_COLS);
    job.order.group_rows = way->group_rows;
    /* With fewer pieces than the ring has, the first consumer could be a whole tile ahead. */
    job.lead = job.n_k >= STAGES ? way->lead : 0;
    job.n = g->n;
    job.a_scale = g->a.scale;
    job.w_scale = g->w_scale;
    return launch(stream, g, job);
}

/* ---- and back ---- */

/* This block's row, element by element. */
struct row_of_blocks {
    const uint8_t *data;
    const float *scale;
    size_t step; /* from scale to scale */

    __device__ row_of_blocks(rp_cuda_narrow in, int k, size_t n_scales)
    {
        data = in.data + blockIdx.x * (size_t)k;
        scale = in.scale + blockIdx.x;
        step = n_scales;
    }
    __device__ float at(int i) const
    {
        return rp_float_of_e4m3(data[i]) * scale[i / RP_CUDA_BLOCK * step];
    }
};

template <typename Out>
__global__ void __launch_bounds__(ROW_THREADS)
    dequantize_blocks(rp_cuda_narrow in, int k, size_t step, Out *__restrict__ out)
{
    const row_of_blocks from(in, k, step);
    Out *const to = out + blockIdx.x * (size_t)k;

    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        to[i] = rp_round<Out>(from.at(i));
    }
}

void rp_cuda_k_dequantize_blocks(cudaStream_t stream, rp_cuda_narrow in, int t, int k,
                                 rp_cuda_view out)
{
    if (t > 0 && k > 0) {
        rp_with_act(out.dtype, [&](auto to) {
            using Out = decltype(to);
            dequantize_blocks<<<(unsigned)t, rp_threads((size_t)k, ROW_THREADS), 0, stream>>>(
                in, k, rp_cuda_block_rows(t), (Out *)out.data);
        });
    }
}

__global__ void __launch_bounds__(ROW_THREADS)
    blocks_to_rows(rp_cuda_narrow in, int k, size_t step, rp_cuda_narrow out)
{
    __shared__ float buffer[RP_WARP];
    const row_of_blocks from(in, k, step);
    float most = 0.0f, back;

    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        most = fmaxf(most, fabsf(from.at(i)));
    }
    const float by = rp_narrow_factor(rp_block_max(most, buffer), &back);
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        const float x[1] = {from.at(i)};
        rp_store_e4m3<1>(out.data + blockIdx.x * (size_t)k + i, x, by);
    }
    if (threadIdx.x == 0) {
        out.scale[blockIdx.x] = back;
    }
}

void rp_cuda_k_blocks_to_rows(cudaStream_t stream, rp_cuda_narrow in, int t, int k,
                              rp_cuda_narrow out)
{
    if (t > 0 && k > 0) {
        blocks_to_rows<<<(unsigned)t, rp_threads((size_t)k, ROW_THREADS), 0, stream>>>(
            in, k, rp_cuda_block_rows(t), out);
    }
}
