/*
 * cuda_sdpa.h - cuDNN's fused attention, bf16 or e4m3.
 *
 * A plan is made the first time that a shape is seen, and kept until rp_cuda_sdpas_drop().
 */
#ifndef RP_CUDA_SDPA_H
#define RP_CUDA_SDPA_H

#include "tensor/cuda/cuda.h"

#include <stdint.h>

/* All that a plan depends on. No holes: compared as bytes. */
typedef struct {
    int n_q, n_kv, n_heads, n_kv_heads, head_dim;
    int q_stride, k_stride, v_stride, out_stride; /* elements */
    float scale;
    int32_t narrow; /* 1: q, k, v and out are e4m3; 0: bf16 */
} rp_sdpa_key;

/* Pointers of a run, 16-byte aligned. Those from SDPA_NUMBERS on are for e4m3 alone: f32 numbers in
 * device memory, in the order of rp_cuda_qkv_numbers. */
enum {
    SDPA_Q,
    SDPA_K,
    SDPA_V,
    SDPA_OUT,
    SDPA_SCALE, /* set by rp_cuda_sdpa_run() */
    SDPA_NUMBERS,
    SDPA_POINTERS = SDPA_NUMBERS + RP_CUDA_QKV_NUMBERS
};

/* The plan of a shape; NULL when cuDNN cannot compute it, which is logged the first time. */
rp_status rp_cuda_sdpa_find(rp_cuda *cuda, const rp_sdpa_key *key, rp_cuda_sdpas **out);

rp_status rp_cuda_sdpa_run(rp_cuda *cuda, rp_cuda_sdpas *plan, void *pointers[SDPA_POINTERS]);

#endif
