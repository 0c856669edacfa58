/*
 * cuda_gated.cu - launches of cuda_gated.cuh: which shapes, in which order of tiles, tensor maps.
 */
#include "tensor/cuda/cuda_gated.cuh"

template <typename E>
static cudaError_t launch(cudaStream_t stream, const rp_cuda_gated *g, const gated_job &job)
{
    PFN_cuTensorMapEncodeTiled_v12000 fn = NULL;
    CUtensorMap x, w_gate, w_up, out;
    cudaError_t code = rp_find_encode(&fn);

    if (code != cudaSuccess) {
        return code;
    }
    const rp_tensor_map of_x = rp_tile_map(g->x, g->dtype, g->t, g->k, g->k, TILE_ROWS);
    const rp_tensor_map of_gate = rp_tile_map(g->w_gate, g->dtype, g->d, g->k, g->k, TILE_COLS);
    const rp_tensor_map of_up = rp_tile_map(g->w_up, g->dtype, g->d, g->k, g->k, TILE_COLS);
    const rp_tensor_map of_out = rp_tile_map(g->out, g->dtype, g->t, g->d, g->d, STORE_ROWS);
    if (!rp_encode_map(fn, &x, &of_x) || !rp_encode_map(fn, &w_gate, &of_gate) ||
        !rp_encode_map(fn, &w_up, &of_up) || !rp_encode_map(fn, &out, &of_out)) {
        return cudaErrorInvalidValue;
    }
    code =
        cudaFuncSetAttribute(gated<E>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
    if (code != cudaSuccess) {
        return code;
    }
    gated<E>
        <<<rp_blocks_for(job.order), N_THREADS, SHARED_BYTES, stream>>>(x, w_gate, w_up, out, job);
    return cudaPeekAtLastError();
}

#if defined(RP_CUDA_SM90A)
static bool is_aligned(const rp_cuda_gated *g)
{
    const bool wide = rp_wide(g->x) && rp_wide(g->w_gate) && rp_wide(g->w_up) && rp_wide(g->out);

    return wide && rp_wide(g->gate_scale) && rp_wide(g->up_scale);
}

static bool has_scales(const rp_cuda_gated *g)
{
    return g->gate_scale != NULL && g->up_scale != NULL && g->block_scale != NULL;
}
#endif

bool rp_cuda_gated_can(const rp_cuda_gated *g, int capability)
{
#if defined(RP_CUDA_SM90A)
    const int tile_k = K_BYTES / (int)rp_elem_bytes(g->dtype);
    const bool type = g->dtype == RP_BF16 || (g->dtype == RP_F8_E4M3 && has_scales(g));

    return capability == 90 && type && is_aligned(g) && g->t >= RP_CUDA_GATED_ROWS && g->d > 0 &&
           g->d % TILE_COLS == 0 && g->k > 0 && g->k % tile_k == 0;
#else
    (void)g;
    (void)capability;
    return false;
#endif
}

rp_cuda_gated_way rp_cuda_gated_choose(const rp_cuda_gated *g)
{
    const size_t in_cache = (size_t)12 << 20; /* of x, beside the weights that go by */
    const size_t n_rows = rp_ceil_div((size_t)g->t, TILE_ROWS);
    const size_t fit = in_cache / ((size_t)g->k * TILE_ROWS * rp_elem_bytes(g->dtype));
    const size_t n_groups = rp_ceil_div(n_rows, fit > 0 ? fit : 1);

    return {.group_rows = (int)rp_ceil_div(n_rows, n_groups), .lead = 1};
}

cudaError_t rp_cuda_k_gated(cudaStream_t stream, const rp_cuda_gated *g,
                            const rp_cuda_gated_way *way)
{
    const int n_k = (int)((size_t)g->k * rp_elem_bytes(g->dtype) / K_BYTES);
    gated_job job = {};

    job.n_k = n_k;
    job.order.n_rows = (int)rp_ceil_div((size_t)g->t, TILE_ROWS);
    job.order.n_cols = g->d / TILE_COLS;
    job.order.group_rows = way->group_rows;
    /* With fewer pieces than the ring has, the first consumer could be a whole tile ahead. */
    job.lead = n_k >= STAGES ? way->lead : 0;
    if (g->dtype == RP_BF16) {
        return launch<gated_bf16>(stream, g, job);
    }
    job.t = g->t;
    job.x_scale = g->x_scale;
    job.gate_scale = g->gate_scale;
    job.up_scale = g->up_scale;
    job.block_scale = g->block_scale;
    return launch<gated_e4m3>(stream, g, job);
}
