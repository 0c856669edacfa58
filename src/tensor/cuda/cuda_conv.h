/* cuda_conv.h - between cuda_conv.c, which prepares pictures, and cuda_conv_plan.c, which has
 * cuDNN. */
#ifndef RP_CUDA_CONV_H
#define RP_CUDA_CONV_H

#include "tensor/cuda/cuda.h"

/* All that a plan depends on. No holes: compared as bytes. */
typedef struct {
    int c_in, c_out, h, w, kernel;
    int dtype; /* an rp_dtype */
    int rows;  /* 1: [h w, c], filters [c_out, k, k, c_in] */
} rp_cuda_conv_key;

/* x, w and y of the key's type, 16-byte aligned. */
typedef struct {
    rp_cuda_conv_key key;
    rp_cuda_view x, w, y;
} rp_cuda_conv_job;

/* y = conv(x). RP_E_UNSUP where cuDNN cannot, RP_E_NOMEM for its workspace. */
rp_status rp_cuda_conv_run(rp_cuda *cuda, const rp_cuda_conv_job *job);

#endif
