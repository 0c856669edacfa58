/*
 * cuda_gated.cu - launches of cuda_gated.cuh: which shapes, in which order of tiles, tensor maps.
 */
#include "tensor/cuda/cuda_gated.cuh"

#include <cudaTypedefs.h>

static size_t elem_bytes(rp_dtype dtype)
{
    return dtype == RP_F8_E4M3 ? gated_e4m3::ELEM_BYTES : gated_bf16::ELEM_BYTES;
}

/* The driver's function, found by the runtime: the program need not be linked with the driver. */
static cudaError_t find_encode(PFN_cuTensorMapEncodeTiled_v12000 *out)
{
    cudaDriverEntryPointQueryResult result;
    void *function = NULL;
    const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &result);

    if (code != cudaSuccess) {
        return code;
    }
    *out = (PFN_cuTensorMapEncodeTiled_v12000)function;
    return function != NULL ? cudaSuccess : cudaErrorSymbolNotFound;
}

/* A matrix [rows, cols] of bf16 or e4m3, moved in boxes of box_rows x 128 bytes. */
static bool encode(PFN_cuTensorMapEncodeTiled_v12000 fn, CUtensorMap *map, const void *data,
                   rp_dtype dtype, int rows, int cols, int box_rows)
{
    const size_t size = elem_bytes(dtype);
    const cuuint64_t dims[2] = {(cuuint64_t)cols, (cuuint64_t)rows};
    const cuuint64_t strides[1] = {(cuuint64_t)cols * size};
    const cuuint32_t box[2] = {(cuuint32_t)(K_BYTES / size), (cuuint32_t)box_rows};
    const cuuint32_t steps[2] = {1, 1};
    const CUtensorMapDataType type =
        dtype == RP_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8;

    return fn(map, type, 2, const_cast<void *>(data), dims, strides, box, steps,
              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename E>
static cudaError_t launch(cudaStream_t stream, const rp_cuda_gated *g, const gated_job &job)
{
    PFN_cuTensorMapEncodeTiled_v12000 fn = NULL;
    CUtensorMap x, w_gate, w_up, out;
    int device = 0, n_sms = 0;
    cudaError_t code = find_encode(&fn);

    if (code != cudaSuccess) {
        return code;
    }
    if (!encode(fn, &x, g->x, g->dtype, g->t, g->k, TILE_ROWS) ||
        !encode(fn, &w_gate, g->w_gate, g->dtype, g->d, g->k, TILE_COLS) ||
        !encode(fn, &w_up, g->w_up, g->dtype, g->d, g->k, TILE_COLS) ||
        !encode(fn, &out, g->out, RP_BF16, g->t, g->d, STORE_ROWS)) {
        return cudaErrorInvalidValue;
    }
    code =
        cudaFuncSetAttribute(gated<E>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
    if (code != cudaSuccess) {
        return code;
    }
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, device);
    const int n_tiles = job.n_rows * job.n_cols;
    gated<E><<<(unsigned)(n_tiles < n_sms ? n_tiles : n_sms), N_THREADS, SHARED_BYTES, stream>>>(
        x, w_gate, w_up, out, job);
    return cudaPeekAtLastError();
}

#if defined(RP_CUDA_SM90A)
static bool is_aligned(const rp_cuda_gated *g)
{
    const bool wide = rp_wide(g->x) && rp_wide(g->w_gate) && rp_wide(g->w_up) && rp_wide(g->out);

    return wide && rp_wide(g->gate_scale) && rp_wide(g->up_scale) && rp_wide(g->row_most);
}

static bool has_scales(const rp_cuda_gated *g)
{
    return g->gate_scale != NULL && g->up_scale != NULL && g->row_most != NULL;
}
#endif

bool rp_cuda_gated_can(const rp_cuda_gated *g, int capability)
{
#if defined(RP_CUDA_SM90A)
    const int tile_k = K_BYTES / (int)elem_bytes(g->dtype);
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
    const size_t fit = in_cache / ((size_t)g->k * TILE_ROWS * elem_bytes(g->dtype));
    const size_t n_groups = rp_ceil_div(n_rows, fit > 0 ? fit : 1);

    return {.group_rows = (int)rp_ceil_div(n_rows, n_groups), .lead = 1};
}

cudaError_t rp_cuda_k_gated(cudaStream_t stream, const rp_cuda_gated *g,
                            const rp_cuda_gated_way *way)
{
    const int n_k = (int)((size_t)g->k * elem_bytes(g->dtype) / K_BYTES);
    gated_job job = {};

    job.n_k = n_k;
    job.n_rows = (int)rp_ceil_div((size_t)g->t, TILE_ROWS);
    job.n_cols = g->d / TILE_COLS;
    job.group_rows = way->group_rows;
    /* With fewer pieces than the ring has, the first consumer could be a whole tile ahead. */
    job.lead = n_k >= STAGES ? way->lead : 0;
    if (g->dtype == RP_BF16) {
        return launch<gated_bf16>(stream, g, job);
    }
    job.t = g->t;
    job.x_scale = g->x_scale;
    job.gate_scale = g->gate_scale;
    job.up_scale = g->up_scale;
    job.row_most = (unsigned *)g->row_most;
    const cudaError_t code =
        cudaMemsetAsync(g->row_most, 0, (size_t)g->t * sizeof(*g->row_most), stream);
    return code == cudaSuccess ? launch<gated_e4m3>(stream, g, job) : code;
}
