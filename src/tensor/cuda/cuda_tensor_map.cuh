/*
 * cuda_tensor_map.cuh - descriptions of matrices for TMA, made on the host.
 */
#ifndef RP_CUDA_TENSOR_MAP_CUH
#define RP_CUDA_TENSOR_MAP_CUH

#include "tensor/cuda/cuda_kernels.h"

#include <cuda.h>
#include <cudaTypedefs.h>

/* A matrix [rows, cols], rows stride elements apart, that is moved in boxes. Address and stride in
 * bytes are multiples of 16, so is a box's width. */
typedef struct {
    const void *data;
    rp_dtype dtype; /* RP_BF16, or one byte each */
    int rows, cols, stride;
    int box_rows, box_cols;
    CUtensorMapSwizzle swizzle; /* spans a row of the box */
} rp_tensor_map;

/* The driver's function, found by the runtime: the program need not be linked with the driver. */
static inline cudaError_t rp_find_encode(PFN_cuTensorMapEncodeTiled_v12000 *out)
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

static inline bool rp_encode_map(PFN_cuTensorMapEncodeTiled_v12000 fn, CUtensorMap *map,
                                 const rp_tensor_map *m)
{
    const bool is_bf16 = m->dtype == RP_BF16;
    const cuuint64_t dims[2] = {(cuuint64_t)m->cols, (cuuint64_t)m->rows};
    const cuuint64_t strides[1] = {(cuuint64_t)m->stride * (is_bf16 ? 2 : 1)};
    const cuuint32_t box[2] = {(cuuint32_t)m->box_cols, (cuuint32_t)m->box_rows};
    const cuuint32_t steps[2] = {1, 1};
    const CUtensorMapDataType type =
        is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8;

    return fn(map, type, 2, const_cast<void *>(m->data), dims, strides, box, steps,
              CU_TENSOR_MAP_INTERLEAVE_NONE, m->swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#endif
