/* cuda_ops.h - the ops of cuda_ops.c, documented in tensor_ops.h. */
#ifndef RP_CUDA_OPS_H
#define RP_CUDA_OPS_H

#include "tensor/tensor_ops.h"

void rp_cuda_check_finite(void *self, const float *x, size_t n);
void rp_cuda_combine(void *self, float *out, size_t n, int n_terms, const float *coef,
                     const float *const *in);
void rp_cuda_project(void *self, const float *a, const float *b, size_t n, float *room);
void rp_cuda_extrapolate(void *self, const rp_vec_rows *rows, float *out);
void rp_cuda_embed(void *self, const rp_tensor *table, const int32_t *ids, int t, float scale,
                   float *out);
void rp_cuda_rms_norm(void *self, const float *x, int t, int d, const rp_tensor *w, float shift,
                      float eps, const float *scale, float *out, bool feeds_linear);
void rp_cuda_add_rms_norm(void *self, float *x, const float *y, int t, int d, const rp_tensor *w,
                          float shift, float eps, const float *gate);
void rp_cuda_add_rms_norm_rms_norm(void *self, float *x, const float *y, int t, int d,
                                   const rp_tensor *w, float shift, float eps, const float *gate,
                                   const rp_tensor *w2, const float *scale2, float *out,
                                   bool feeds_linear);
void rp_cuda_layer_norm(void *self, const float *x, int t, int d, float eps, const float *scale,
                        float *out);
void rp_cuda_head_norm_rope(void *self, const rp_rope_shape *shape, float *x, const rp_tensor *w_q,
                            const rp_tensor *w_k, const float *cos, const float *sin);
void rp_cuda_swiglu(void *self, const float *ab, int t, int d, float *out);
void rp_cuda_geglu(void *self, const float *ab, int t, int d, float *out);
void rp_cuda_silu(void *self, const float *x, size_t n, float *out);
void rp_cuda_add(void *self, float *x, const float *y, size_t n);
void rp_cuda_patchify(void *self, const float *x, int c, int h, int w, int p, float *out);
void rp_cuda_unpatchify(void *self, const float *tokens, int c, int h, int w, int p, float sign,
                        float *out);
void rp_cuda_group_norm(void *self, const float *x, int c, int hw, int groups, const rp_tensor *w,
                        const rp_tensor *b, float eps, bool silu, float *out);
void rp_cuda_transpose(void *self, const float *x, int rows, int cols, float *out);
void rp_cuda_to_bytes(void *self, const float *x, size_t hw, uint8_t *bytes);

#endif
