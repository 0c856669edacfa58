/*
 * cuda.h - what the files of the CUDA backend share.
 *
 *   cuda_backend.c    open and close, the ops table
 *   cuda_device.c     which devices there are, names of failures
 *   cuda_why.c        why one is not computed on, in words; needs no CUDA
 *   cuda_memory.c     allocations, addresses, copies, scratch
 *   cuda_weights.c    weights in arenas
 *   cuda_upload.c     weights on their way to the device
 *   cuda_record.c     sequences of ops as CUDA graphs
 *   cuda_marks.c      time marks
 *   cuda_gemm.c       matrix products (cuBLASLt)
 *   cuda_linear.c     products with weights
 *   cuda_narrow.c     activations as e4m3, for those products
 *   cuda_gated.c      a gated pair of products, in one kernel, two or three
 *   cuda_attention.c  attention: which way, and the ways that are one kernel
 *   cuda_attention_products.c  attention: products and a softmax
 *   cuda_sdpa.c       cuDNN's attention: graphs and plans
 *   cuda_conv.c       convolutions: pictures made ready, bias, addend
 *   cuda_conv_plan.c  convolutions: cuDNN
 *   cuda_conv_graph.c  convolutions: cuDNN's graphs
 *   cuda_ops.c        the other ops: addresses looked up, kernels launched
 *   *.cu              kernels (cuda_kernels.h)
 *
 * One stream per backend: ops run in the order of their calls. Plans (algorithms, cuDNN graphs) are
 * made the first time that a shape is seen and kept; that is never while a sequence is recorded,
 * because its first run is plain.
 */
#ifndef RP_CUDA_H
#define RP_CUDA_H

#include "tensor/cuda/cuda_kernels.h"
#include "tensor/cuda/cuda_why.h"

#include <cublasLt.h>
#include <cudnn.h>

typedef struct rp_cuda_arena rp_cuda_arena;       /* weights lie in arenas, one after the other */
typedef struct rp_cuda_plans rp_cuda_plans;       /* matrix products */
typedef struct rp_cuda_sdpas rp_cuda_sdpas;       /* attention */
typedef struct rp_cuda_convs rp_cuda_convs;       /* convolutions */
typedef struct rp_cuda_graphs rp_cuda_graphs;     /* recorded sequences */
typedef struct rp_cuda_uploader rp_cuda_uploader; /* pinned memory on the way of weights */

typedef struct {
    void *data;
    size_t n_bytes;
} rp_cuda_scratch;

/* One allocation. Floats that `base` addresses lie at `data`: for bf16, base is an address range
 * that only stands for them. */
typedef struct {
    char *base, *data;
    size_t n_bytes; /* at base, 4 for each float */
    rp_dtype dtype;
} rp_cuda_block;

/* Rows that lie in the scratch `narrow` too: x[t, k], contiguous. t 0: none do. */
typedef struct {
    const float *x;
    int t, k;
    bool only;   /* they lie nowhere else: x itself was not written */
    bool blocks; /* only, and in x's own memory instead (rp_cuda_blocks_at) */
} rp_cuda_narrowed;

typedef struct {
    int device;
    char name[64];
    char id[64];           /* UUID: which GPU it is, whatever its number here */
    int n_threads;         /* of this rank, for copies in host memory */
    int capability;        /* 90 for 9.0 */
    rp_dtype act;          /* element type of activations and matrices: RP_F32 or RP_BF16 */
    bool fp8;              /* weights that are `narrow` are kept as e4m3 and multiplied as that */
    bool narrow_attention; /* attention whose output feeds a product is computed in e4m3 */
    cudaStream_t stream;
    cublasLtHandle_t lt;
    cudnnHandle_t dnn;
    rp_cuda_scratch workspace; /* of cuBLASLt and cuDNN */
    rp_cuda_scratch cast;      /* inputs of matrix products in another type */
    rp_cuda_scratch scores;    /* of attention and convolutions */
    rp_cuda_scratch narrow;    /* inputs of products in e4m3, their scales first */
    rp_cuda_narrowed narrowed; /* what is in it, until the next op looks up an address */
    rp_cuda_scratch heads;     /* inputs of attention in e4m3, and their scales */
    int *flag;                 /* pinned; set by rp_cuda_k_check_finite */
    int32_t *ids;              /* pinned; token ids on their way */
    int n_ids;
    rp_cuda_block *blocks; /* sorted by base */
    int n_blocks, blocks_room;
    rp_cuda_arena *arenas;
    rp_cuda_uploader *uploader; /* from the first weight to the next sync */
    rp_cuda_plans *plans;
    rp_cuda_sdpas *sdpas;
    rp_cuda_convs *convs;
    size_t conv_elems; /* of a picture that one convolution takes whole */
    rp_cuda_graphs *graphs;
    cudaEvent_t *marks; /* [n_marks] */
    int n_marks;
    rp_status failed; /* first failure since the last sync; already logged */
} rp_cuda;

extern const rp_backend_ops rp_backend_cuda;

/* Log the failure of a CUDA, cuBLAS or cuDNN call with its text and the device; RP_E_CUDA
 * (RP_E_NOMEM when memory ran out). RP_OK for success. */
rp_status rp_cuda_check(const rp_cuda *cuda, cudaError_t code, const char *call);
rp_status rp_cuda_check_blas(const rp_cuda *cuda, cublasStatus_t code, const char *call);
rp_status rp_cuda_check_dnn(const rp_cuda *cuda, cudnnStatus_t code, const char *call);
#define RP_CUDA(cuda, expr) rp_cuda_check((cuda), (expr), #expr)
#define RP_BLAS(cuda, expr) rp_cuda_check_blas((cuda), (expr), #expr)
#define RP_DNN(cuda, expr)  rp_cuda_check_dnn((cuda), (expr), #expr)

/* Keep the first failure for sync(). */
void rp_cuda_keep(rp_cuda *cuda, rp_status status);

/* Where the floats that `p` addresses really are, and as what: half the distance from the start of
 * the block for bf16. Memory of no block is f32 as it stands. Whoever asks may write there, so
 * cuda->narrowed counts no more. */
rp_cuda_view rp_cuda_at(rp_cuda *cuda, const void *p);

/* View of a weight. */
static inline rp_cuda_view rp_cuda_weight_view(const rp_tensor *w)
{
    return (rp_cuda_view){(void *)(uintptr_t)w->data, w->dtype};
}

/* ---- cuda_device.c ---- */
int rp_cuda_n_devices(void);
const char *rp_cuda_why_not(void);
bool rp_cuda_usable(void);
void rp_cuda_pci(int device, char *out, size_t n_out);
void rp_cuda_info(void *self, rp_device_info *out);
void rp_cuda_uuid_text(const cudaUUID_t *uuid, char *out, size_t n_out);
/* The current device, which is `which`, can run the kernels of this build. RP_E_UNSUP. */
rp_status rp_cuda_need_kernels(const rp_cuda *cuda, const rp_cuda_which *which);
/* Element type for a precision on this device. RP_E_UNSUP. */
rp_status rp_cuda_choose_act(const rp_cuda_which *which, rp_precision precision, rp_dtype *act_out);

/* ---- cuda_memory.c ---- */
rp_status rp_cuda_alloc(void *self, size_t n_bytes, const char *what, void **out);
rp_status rp_cuda_alloc_act(void *self, size_t n_elems, const char *what, void **out);
void rp_cuda_release(void *self, void *mem);
rp_status rp_cuda_alloc_host(void *self, size_t n_bytes, const char *what, void **out);
void rp_cuda_release_host(void *self, void *mem);
void rp_cuda_blocks_drop(rp_cuda *cuda);
void rp_cuda_put(void *self, void *dst, const void *host, size_t n_bytes);
void rp_cuda_get(void *self, void *host, const void *src, size_t n_bytes);
void rp_cuda_copy(void *self, void *dst, const void *src, size_t n_bytes);
void rp_cuda_copy_rows(void *self, float *dst, size_t dst_stride, const float *src,
                       size_t src_stride, int n_rows, int n_cols);
/* cudaMalloc, zeroed; RP_E_NOMEM says what for, and how much there is. */
rp_status rp_cuda_malloc(rp_cuda *cuda, size_t n_bytes, const char *what, void **out);

/* ---- cuda_weights.c ---- */
rp_status rp_cuda_weights_begin(void *self, rp_tensor *const *host, size_t n);
void *rp_cuda_weights_span(void *self, size_t *n_bytes);
rp_status rp_cuda_weight_place(void *self, const rp_tensor *host, rp_tensor *out);
rp_status rp_cuda_weight(void *self, const rp_tensor *host, rp_tensor *out);
rp_status rp_cuda_weight_fill(void *self, const rp_tensor *shape, uint64_t seed, float std,
                              rp_tensor *out);
void rp_cuda_weight_release(void *self, rp_tensor *weight);
bool rp_cuda_same_arena(const rp_cuda *cuda, const rp_tensor *a, const rp_tensor *b);
void rp_cuda_arenas_drop(rp_cuda *cuda);

/* ---- cuda_upload.c ---- */
/* Host memory, mapped or not, to the device; `host` may go after the next sync. The pinned memory
 * that it takes stays until then. */
rp_status rp_cuda_upload(rp_cuda *cuda, void *dst, const void *host, size_t n_bytes);
void rp_cuda_uploader_drop(rp_cuda *cuda);

/* Is a sequence being recorded? Then nothing may be allocated. */
bool rp_cuda_recording(const rp_cuda *cuda);

/* At least n_bytes; contents are lost when it grows. RP_E_NOMEM, RP_E_ARG while recording. */
rp_status rp_cuda_scratch_grow(rp_cuda *cuda, rp_cuda_scratch *scratch, size_t n_bytes,
                               const char *what);
/* Bytes of one thing in a scratch that others follow: they begin at multiples of 256. */
static inline size_t rp_cuda_whole_lines(size_t n_bytes)
{
    return (n_bytes + 255) / 256 * 256;
}
/* All scratch there is, and freeing it: nothing queued may use it, no sequence may know it. */
size_t rp_cuda_scratch_bytes(rp_cuda *cuda);
void rp_cuda_scratch_drop(rp_cuda *cuda);

/* ---- cuda_record.c ---- */
bool rp_cuda_replay(void *self, uint64_t key);
void rp_cuda_recorded(void *self);
void rp_cuda_graphs_drop(rp_cuda *cuda); /* forget all */

/* ---- cuda_marks.c ---- */
rp_status rp_cuda_marks_reserve(void *self, int n);
void rp_cuda_mark(void *self, int index);
rp_status rp_cuda_marks_read(void *self, int n, double *ms_out);
void rp_cuda_marks_drop(rp_cuda *cuda);

/* ---- cuda_gemm.c ---- */
/*
 * Row major, `batch` times:  d[m, n] = alpha a[m, k] b^T   with b [n, k]  (b_transposed: as weights
 * lie) d[m, n] = alpha a[m, k] b     with b [k, n]  (else) ld*: elements from row to row; step_*:
 * elements from one of the batch to the next. a and b of one type, f32, bf16 or e4m3; d f32 or
 * bf16; sums in f32. Of e4m3, b_transposed and scales: d[i, j] *= scale_a[i] * scale_b[j].
 */
typedef struct {
    int m, n, k, batch;
    int lda, ldb, ldd;
    int64_t step_a, step_b, step_d;
    bool b_transposed;
    float alpha;
    const float *scale_a, *scale_b; /* [m], [n] */
} rp_cuda_gemm_shape;
/* Products of e4m3: sums of so many and more are kept exactly; faster too, on an H100. */
#define RP_CUDA_LONG_K 4096
rp_status rp_cuda_gemm(rp_cuda *cuda, const rp_cuda_gemm_shape *shape, rp_cuda_view a,
                       rp_cuda_view b, rp_cuda_view d);
void rp_cuda_plans_drop(rp_cuda *cuda);

/* ---- cuda_linear.c ---- */
void rp_cuda_linear(void *self, const float *x, int t, int k, int x_stride,
                    const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out);

/* ---- cuda_narrow.c ---- */
/* Do rows out[t, d] have a form in e4m3 that products take? By precision, type and shape alone. */
bool rp_cuda_narrow_can(const rp_cuda *cuda, rp_cuda_view out, int t, int d);
/* Where an op that writes rows out[t, d] may write them as e4m3 too; {NULL} when it should not. */
rp_cuda_narrow rp_cuda_narrow_for(const rp_cuda *cuda, rp_cuda_view out, int t, int d);
/* It did: a product that comes next may take them. */
void rp_cuda_narrow_done(rp_cuda *cuda, rp_cuda_narrow rows, const float *x, int t, int d);
/* Room for rows out[t, d] that are written as e4m3 and nowhere else; what lay there is lost. */
rp_status rp_cuda_narrow_room(rp_cuda *cuda, int t, int d, rp_cuda_narrow *out);
/* They were, with their scales: the product that comes next takes them. */
void rp_cuda_narrow_only(rp_cuda *cuda, const float *x, int t, int d);
/* The same of rows in blocks, in x's own memory. */
void rp_cuda_narrow_blocks(rp_cuda *cuda, const float *x, int t, int d);
/* Has x been left so? */
bool rp_cuda_narrow_is_blocks(const rp_cuda_narrowed *before, const float *x);
/* x[t, k], which lies at `at`, as e4m3: what the op before this one has left (`before`), or made
 * now. */
rp_status rp_cuda_narrow_x(rp_cuda *cuda, const rp_cuda_narrowed *before, const float *x,
                           rp_cuda_view at, int t, int k, int x_stride, rp_cuda_narrow *out);
/* x[t, k], which lies at `at`, multiplied out, for when `before` says that it has been left in e4m3
 * only. */
rp_status rp_cuda_narrow_back(rp_cuda *cuda, const rp_cuda_narrowed *before, rp_cuda_view at, int t,
                              int k, int x_stride, rp_cuda_view out);
/* Fails for rows of another shape than was left: they would be read where nobody wrote. */
rp_status rp_cuda_narrow_check(const rp_cuda *cuda, const rp_cuda_narrowed *before, int t, int k,
                               int x_stride);

/* ---- cuda_gated.c ---- */
void rp_cuda_gated_linear(void *self, const float *x, int t, int k, const rp_tensor *w_gate,
                          const rp_tensor *w_up, bool feeds_linear, float *room, float *out);

/* ---- cuda_attention.c ---- */
void rp_cuda_attention(void *self, const rp_attention_shape *shape, const float *q, const float *k,
                       const float *v, float *out);

/* ---- cuda_attention_products.c ---- */
/* Any shape and types; q, k and v are read where they lie unless they need another type. */
rp_status rp_cuda_attention_products(rp_cuda *cuda, const rp_attention_shape *shape, rp_cuda_view q,
                                     rp_cuda_view k, rp_cuda_view v, rp_cuda_view out);

/* ---- cuda_sdpa.c ---- */
void rp_cuda_sdpas_drop(rp_cuda *cuda);

/* ---- cuda_conv.c ---- */
void rp_cuda_conv2d(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                    const rp_tensor *bias, const float *add, float *out);
void rp_cuda_convs_drop(rp_cuda *cuda);
bool rp_cuda_picture_rows(void *self);
/* A filter [c_out, c_in, k, k] just loaded: its taps turned to the order that its convolution
 * reads, where that is another. */
rp_status rp_cuda_turn_filter(rp_cuda *cuda, const rp_tensor *filter);

#endif
