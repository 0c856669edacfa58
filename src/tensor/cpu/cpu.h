/*
 * cpu.h - what the files of the CPU backend share.
 */
#ifndef RP_CPU_H
#define RP_CPU_H

#include "tensor/tensor_ops.h"
#include "tensor/cpu/cpu_team.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h> /* defines __GLIBC__ */

/*
 * RP_SIMD marks a hot loop: on x86-64 it is compiled for AVX2 machines and for all others, and the
 * loader picks (this needs the loader of glibc). No fused multiply-add is formed, so both give the
 * same bits. Sanitizers cannot run that early. RP_INLINE marks what such loops call.
 */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) &&       \
    !defined(RP_SANITIZED)
#define RP_SIMD __attribute__((target_clones("avx2", "default")))
#else
#define RP_SIMD
#endif
#define RP_INLINE static inline __attribute__((always_inline))

/* Sizes of tasks. They must not depend on the number of threads: they decide the bits. */
#define RP_CPU_COLS       128     /* output columns of a matrix product */
#define RP_CPU_ROWS       512     /* its rows */
#define RP_CPU_QUERIES    128     /* query rows of attention */
#define RP_CPU_ELEMS      8192    /* elements of cheap work, about 3 microseconds */
#define RP_CPU_CONV_ELEMS 1048576 /* unfolded input of a convolution */

typedef struct {
    rp_cpu_team *team;
    int n_threads;
    size_t scratch_elems;     /* floats in each scratch */
    float **scratch;          /* [n_threads] */
    size_t conv_weight_elems; /* floats in conv_weight */
    float *conv_weight;       /* a kernel in f32, for all threads */
    void **made;              /* [n_made] data of weights that weight_fill() made */
    int n_made;
    double *marks; /* [n_marks] clock times */
    int n_marks;
    rp_status failed; /* first failure since the last sync; already logged */
} rp_cpu;

extern const rp_backend_ops rp_backend_cpu;

/* Rows of `d` elements that make one task of cheap work. */
RP_INLINE int rp_cpu_rows(int d)
{
    return d >= RP_CPU_ELEMS ? 1 : RP_CPU_ELEMS / d;
}

RP_INLINE int rp_cpu_ceil_div(int a, int b)
{
    return a / b + (a % b != 0);
}

RP_INLINE int rp_cpu_min(int a, int b)
{
    return a < b ? a : b;
}

/* Is the scratch of `elems` floats there? If not, the failure is kept for sync(), and the op must
 * return: reserve() was called with too small numbers. */
bool rp_cpu_has_scratch(rp_cpu *cpu, size_t elems, const char *op);

/* Scratch of at least `elems` floats; grows only. RP_E_NOMEM. */
rp_status rp_cpu_grow_scratch(rp_cpu *cpu, size_t elems);

/* ---- cpu_convert.c ---- */
/* out[n] = elements first .. first+n-1 of a weight */
void rp_cpu_to_f32(const rp_tensor *weight, size_t first, size_t n, float *out);
float rp_cpu_element(const rp_tensor *weight, size_t i);

/* ---- cpu_memory.c, documented in tensor_ops.h ---- */
rp_status rp_cpu_alloc(void *self, size_t n_bytes, const char *what, void **out);
rp_status rp_cpu_alloc_act(void *self, size_t n_elems, const char *what, void **out);
void rp_cpu_release(void *self, void *mem);
void rp_cpu_put(void *self, void *dst, const void *host, size_t n_bytes);
void rp_cpu_get(void *self, void *host, const void *src, size_t n_bytes);
void rp_cpu_copy(void *self, void *dst, const void *src, size_t n_bytes);
void rp_cpu_copy_rows(void *self, float *dst, size_t dst_stride, const float *src,
                      size_t src_stride, int n_rows, int n_cols);
void rp_cpu_check_finite(void *self, const float *x, size_t n);
rp_status rp_cpu_weights_begin(void *self, rp_tensor *const *host, size_t n);
void *rp_cpu_weights_span(void *self, size_t *n_bytes);
rp_status rp_cpu_weight_place(void *self, const rp_tensor *host, rp_tensor *out);
rp_status rp_cpu_weight(void *self, const rp_tensor *host, rp_tensor *out);
rp_status rp_cpu_weight_fill(void *self, const rp_tensor *shape, uint64_t seed, float std,
                             rp_tensor *out);
void rp_cpu_weight_release(void *self, rp_tensor *weight);

/* ---- cpu_marks.c, documented in tensor_ops.h ---- */
rp_status rp_cpu_marks_reserve(void *self, int n);
void rp_cpu_mark(void *self, int index);
rp_status rp_cpu_marks_read(void *self, int n, double *ms_out);

/* ---- the ops, documented in tensor_ops.h ---- */
void rp_cpu_embed(void *self, const rp_tensor *table, const int32_t *ids, int t, float scale,
                  float *out);
void rp_cpu_linear(void *self, const float *x, int t, int k, int x_stride,
                   const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out);
void rp_cpu_gated_linear(void *self, const float *x, int t, int k, const rp_tensor *w_gate,
                         const rp_tensor *w_up, bool feeds_linear, float *room, float *out);
void rp_cpu_attention(void *self, const rp_attention_shape *shape, const float *q, const float *k,
                      const float *v, float *out);
void rp_cpu_rms_norm(void *self, const float *x, int t, int d, const rp_tensor *w, float shift,
                     float eps, const float *scale, float *out, bool feeds_linear);
void rp_cpu_add_rms_norm(void *self, float *x, const float *y, int t, int d, const rp_tensor *w,
                         float shift, float eps, const float *gate);
void rp_cpu_add_rms_norm_rms_norm(void *self, float *x, const float *y, int t, int d,
                                  const rp_tensor *w, float shift, float eps, const float *gate,
                                  const rp_tensor *w2, const float *scale2, float *out,
                                  bool feeds_linear);
void rp_cpu_layer_norm(void *self, const float *x, int t, int d, float eps, const float *scale,
                       float *out);
void rp_cpu_head_norm_rope(void *self, const rp_rope_shape *shape, float *x, const rp_tensor *w_q,
                           const rp_tensor *w_k, const float *cos, const float *sin);
void rp_cpu_swiglu(void *self, const float *ab, int t, int d, float *out);
void rp_cpu_geglu(void *self, const float *ab, int t, int d, float *out);
void rp_cpu_silu(void *self, const float *x, size_t n, float *out);
void rp_cpu_add(void *self, float *x, const float *y, size_t n);
void rp_cpu_patchify(void *self, const float *x, int c, int h, int w, int p, float *out);
void rp_cpu_unpatchify(void *self, const float *tokens, int c, int h, int w, int p, float sign,
                       float *out);
void rp_cpu_conv2d(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                   const rp_tensor *bias, const float *add, float *out);
void rp_cpu_group_norm(void *self, const float *x, int c, int hw, int groups, const rp_tensor *w,
                       const rp_tensor *b, float eps, bool silu, float *out);
void rp_cpu_transpose(void *self, const float *x, int rows, int cols, float *out);
void rp_cpu_to_bytes(void *self, const float *x, size_t hw, uint8_t *bytes);

#endif
