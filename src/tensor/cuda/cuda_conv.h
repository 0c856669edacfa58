/* cuda_conv.h - between cuda_conv.c, which prepares pictures, cuda_conv_plan.c, which has cuDNN,
 * and cuda_conv_graph.c, which describes graphs to it. */
#ifndef RP_CUDA_CONV_H
#define RP_CUDA_CONV_H

#include "tensor/cuda/cuda.h"
#include "tensor/cuda/cuda_dnn.h"

#define RP_CUDA_ENDS_BIAS 1
#define RP_CUDA_ENDS_ADD  2

/* All that a plan depends on. No holes: compared as bytes. */
typedef struct {
    int c_in, c_out, h, w, kernel;
    int dtype; /* an rp_dtype */
    int rows;  /* 1: [h w, c], filters [c_out, k, k, c_in] */
    int ends;  /* of RP_CUDA_ENDS_*: what is added to the output */
} rp_cuda_conv_key;

/* x, w, y and add of the key's type, 16-byte aligned; add does not overlap y. */
typedef struct {
    rp_cuda_conv_key key;
    rp_cuda_view x, w, y;
    const float *bias; /* of which key.ends tells */
    rp_cuda_view add;
} rp_cuda_conv_job;

/* y = conv(x), and where cuDNN can + bias + add: then *ended. RP_E_UNSUP where it cannot even do
 * the first, RP_E_NOMEM for its workspace. */
rp_status rp_cuda_conv_run(rp_cuda *cuda, const rp_cuda_conv_job *job, bool *ended);

/* Pointers of a graph's run; then those of the addend and of the bias, where there are. */
enum { CONV_X, CONV_W, CONV_Y, CONV_REST };

/* A graph of zeros becomes y = (conv(x) + add) + bias, in f32 up to y; key->ends tells which of
 * them are added. All in bf16 and as rows, but for the bias in f32. */
void rp_cuda_conv_build(rp_dnn_graph *g, const rp_cuda_conv_key *k);

#endif
