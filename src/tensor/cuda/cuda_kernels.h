/*
 * cuda_kernels.h - launchers of our own kernels; the .cu files beside it hold them.
 *
 * Every launcher queues one or a few kernels on `stream` and returns; a launch that fails is found
 * by the backend's next sync (cudaGetLastError). Shapes and formulas are those of tensor_ops.h.
 * Vectors (norm weights, biases, scales, gates) are f32 on the device. Results do not depend on
 * timing: no atomics in sums.
 */
#ifndef RP_CUDA_KERNELS_H
#define RP_CUDA_KERNELS_H

#include "tensor/tensor_ops.h"

#include <cuda_runtime_api.h>

/* Device memory with its element type. */
typedef struct {
    void *data;
    rp_dtype dtype; /* RP_F32 or RP_BF16; inputs of rp_cuda_k_convert also RP_F16 */
} rp_cuda_view;

/* Rows as e4m3, contiguous, and what each of them is to be multiplied by. */
typedef struct {
    uint8_t *data;
    float *scale;
} rp_cuda_narrow;

#ifdef __cplusplus
extern "C" {
#endif

/* ---- cuda_elem.cu ---- */
void rp_cuda_k_convert(cudaStream_t stream, rp_cuda_view in, rp_cuda_view out, size_t n);
/* in [t, k], rows in_stride elements apart -> out [t, k] contiguous */
void rp_cuda_k_convert_rows(cudaStream_t stream, rp_cuda_view in, int t, int k, int in_stride,
                            rp_cuda_view out);
/* x[t, n] += bias[n], rows stride elements apart */
void rp_cuda_k_add_bias(cudaStream_t stream, rp_cuda_view x, int t, int n, int stride,
                        const float *bias);
/* ids in device memory */
void rp_cuda_k_embed(cudaStream_t stream, rp_cuda_view table, const int32_t *ids, int t, int d,
                     float scale, rp_cuda_view out);
void rp_cuda_k_swiglu(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out);
void rp_cuda_k_geglu(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out);
void rp_cuda_k_silu(cudaStream_t stream, rp_cuda_view x, size_t n, rp_cuda_view out);
void rp_cuda_k_add(cudaStream_t stream, rp_cuda_view x, rp_cuda_view y, size_t n);
/* *flag = 1 if an element is not finite; flag in memory that the device can write */
void rp_cuda_k_check_finite(cudaStream_t stream, const float *x, size_t n, int *flag);

/* ---- cuda_fill.cu ---- */
/* normal(0, std) by counter-based hashing of (seed, index) and Box-Muller; ones for std 0 */
void rp_cuda_k_fill(cudaStream_t stream, rp_cuda_view out, size_t n, uint64_t seed, float std);
/* Can the current device run one of these kernels? Launches nothing; makes the device's context. */
cudaError_t rp_cuda_k_probe(void);

/* ---- cuda_latent.cu: the slots of vec.h ---- */
void rp_cuda_k_combine(cudaStream_t stream, float *out, size_t n, int n_terms, const float *coef,
                       const float *const *in);
void rp_cuda_k_project(cudaStream_t stream, const float *a, const float *b, size_t n, float *room);
void rp_cuda_k_extrapolate(cudaStream_t stream, const rp_vec_rows *rows, float *out);

/* ---- cuda_norm.cu: rows (t may be 1 to millions, d 1 to 65536) ---- */
/* w NULL: ones; scale NULL: zeros; gate NULL: 1 without tanh. also: the rows of out once more, for
 * bf16 only and d a multiple of 16; {NULL} for not. only: nobody reads out itself, so it need not
 * be written where `also` is. */
void rp_cuda_k_rms_norm(cudaStream_t stream, rp_cuda_view x, int t, int d, const float *w,
                        float shift, float eps, const float *scale, rp_cuda_view out,
                        rp_cuda_narrow also, bool only);
void rp_cuda_k_add_rms_norm(cudaStream_t stream, rp_cuda_view x, rp_cuda_view y, int t, int d,
                            const float *w, float shift, float eps, const float *gate);
void rp_cuda_k_add_rms_norm_rms_norm(cudaStream_t stream, rp_cuda_view x, rp_cuda_view y, int t,
                                     int d, const float *w, float shift, float eps,
                                     const float *gate, const float *w2, const float *scale2,
                                     rp_cuda_view out, rp_cuda_narrow also, bool only);
void rp_cuda_k_layer_norm(cudaStream_t stream, rp_cuda_view x, int t, int d, float eps,
                          const float *scale, rp_cuda_view out);
/* ---- cuda_fp8.cu ---- */
/* in [rows, k], F16 too, rows stride elements apart; scales: largest magnitude of the row / 448 */
void rp_cuda_k_quantize_rows(cudaStream_t stream, rp_cuda_view in, int rows, int k, int stride,
                             rp_cuda_narrow out);
void rp_cuda_k_dequantize_rows(cudaStream_t stream, rp_cuda_narrow in, size_t rows, size_t cols,
                               rp_cuda_view out);
void rp_cuda_k_set(cudaStream_t stream, float *out, size_t n, float value);
/* x[i, j] *= row_scale[i] * col_scale[j], rows stride elements apart */
void rp_cuda_k_scale_product(cudaStream_t stream, rp_cuda_view x, int t, int n, int stride,
                             const float *row_scale, const float *col_scale);
void rp_cuda_k_swiglu_narrow(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out,
                             rp_cuda_narrow also);
void rp_cuda_k_geglu_narrow(cudaStream_t stream, rp_cuda_view ab, int t, int d, rp_cuda_view out,
                            rp_cuda_narrow also);
/* ---- cuda_largest.cu ---- */
/* bf16 [rows, cols], rows stride elements apart -> e4m3 [rows, cols]; cols and stride multiples of
 * 8, addresses 16-byte aligned */
typedef struct {
    const void *from;
    uint8_t *to;
    int rows, cols, stride;
} rp_cuda_part;
/* most[part, n_pieces]: the largest of a part's row of these is that of all |from|; NaN does not
 * count. n: 1 to 3 parts */
void rp_cuda_k_largest(cudaStream_t stream, const rp_cuda_part *list, int n, int n_pieces,
                       float *most);
/* ---- cuda_narrow_qkv.cu: inputs of an attention in e4m3 ---- */
/* A number in device memory, in the alignment that cuDNN is promised. */
typedef struct {
    float value, rest[3];
} rp_cuda_number;
/* What such an attention reads and writes besides. BACK: what e4m3 is to be multiplied by; TO: by
 * what a value becomes e4m3; MOST: written by cuDNN. */
enum {
    RP_CUDA_QKV_BACK_Q,
    RP_CUDA_QKV_BACK_K,
    RP_CUDA_QKV_BACK_V,
    RP_CUDA_QKV_TO_SHARE,
    RP_CUDA_QKV_BACK_SHARE,
    RP_CUDA_QKV_TO_OUT,
    RP_CUDA_QKV_MOST_SHARE,
    RP_CUDA_QKV_MOST_OUT,
    RP_CUDA_QKV_NUMBERS
};
#define RP_CUDA_QKV_PIECES 528 /* 4 blocks for each SM of an H100 */
/* q, k and v with one scale each, their largest magnitude / 448. numbers[RP_CUDA_QKV_NUMBERS] but
 * for MOST; out_scale[n_out] = BACK_V, for outputs are e4m3 with the scale of v. most: scratch of
 * 3 RP_CUDA_QKV_PIECES floats. cols: multiples of 16 */
void rp_cuda_k_narrow_qkv(cudaStream_t stream, const rp_cuda_part parts[3], float *most,
                          rp_cuda_number *numbers, float *out_scale, int n_out);
/* ---- cuda_gated.cu: compute capability 9.0 ---- */
/* out[t, d] = silu(x[t, k] w_gate[d, k]^T) * (x w_up[d, k]^T), all contiguous; sums, silu and
 * product in f32. Of bf16, out is bf16. Of e4m3, out is e4m3 in blocks (cuda_blocks.cu), and sums
 * inside a product keep fewer bits, as in cuBLASLt's fast ones. */
typedef struct {
    rp_dtype dtype; /* of x and weights: RP_BF16 or RP_F8_E4M3 */
    const void *x, *w_gate, *w_up;
    int t, k, d;
    void *out;
    const float *x_scale, *gate_scale, *up_scale; /* of e4m3: [t], [d], [d] */
    float *block_scale;                           /* of e4m3: of out */
} rp_cuda_gated;
/* Fewer rows are better off with cuBLASLt: its tiles may be smaller, so that there are enough of
 * them for all multiprocessors. */
#define RP_CUDA_GATED_ROWS 1024
/* How to go about it; the bits do not depend on it. */
typedef struct {
    int group_rows; /* rows of 128 x 128 tiles, >= 1, that are finished before the next ones */
    int lead; /* pieces of k, 0 to 3, by which one half of a block is ahead of the other, so that
                 one multiplies while the other finishes */
} rp_cuda_gated_way;
/* Can this build and a device of this capability (90 for 9.0) do it? Shapes: t at least the above,
 * d a multiple of 128, k of 64 (128 of e4m3), addresses of 16 (x_scale: of 4). */
bool rp_cuda_gated_can(const rp_cuda_gated *g, int capability);
/* By the shape alone. */
rp_cuda_gated_way rp_cuda_gated_choose(const rp_cuda_gated *g);
/* Only what rp_cuda_gated_can. Allocates nothing, waits for nothing. */
cudaError_t rp_cuda_k_gated(cudaStream_t stream, const rp_cuda_gated *g,
                            const rp_cuda_gated_way *way);
/* ---- cuda_blocks.cu: rows as e4m3 in blocks ---- */
/* [t, k] with a scale for each 128 of a row, its largest magnitude there / 448. An rp_cuda_narrow
 * then has scale [k / 128][rp_cuda_block_rows(t)], whatever in the last places. */
#define RP_CUDA_BLOCK 128
static inline size_t rp_cuda_block_rows(int t)
{
    return ((size_t)t + 127) / 128 * 128;
}
/* Where they lie in memory that has room for [t, k] of bf16 (t 8 or more): e4m3, then scales. */
rp_cuda_narrow rp_cuda_blocks_at(void *memory, int t, int k);
/* d[m, n] = a[m, k] w[n, k]^T, times w_scale[n]; w e4m3 and contiguous, d bf16 with rows ldd
 * elements apart. Products of 128 of k, times their scales in a, are summed in f32. */
typedef struct {
    rp_cuda_narrow a; /* in blocks */
    const void *w;
    const float *w_scale;
    int m, n, k, ldd;
    void *d;
} rp_cuda_down;
/* Can this build and a device of this capability do it? Shapes: m at least RP_CUDA_GATED_ROWS, n
 * and ldd multiples of 8, k of 128, addresses of 16 (w_scale: of 8). */
bool rp_cuda_down_can(const rp_cuda_down *g, int capability);
/* By the shape alone. */
rp_cuda_gated_way rp_cuda_down_choose(const rp_cuda_down *g);
/* Only what rp_cuda_down_can. Allocates nothing, waits for nothing. Tiles have 192 columns. */
cudaError_t rp_cuda_k_down(cudaStream_t stream, const rp_cuda_down *g,
                           const rp_cuda_gated_way *way);
/* What blocks stand for; and that as rows with a scale each, rounded once more. */
void rp_cuda_k_dequantize_blocks(cudaStream_t stream, rp_cuda_narrow in, int t, int k,
                                 rp_cuda_view out);
void rp_cuda_k_blocks_to_rows(cudaStream_t stream, rp_cuda_narrow in, int t, int k,
                              rp_cuda_narrow out);
/* ---- cuda_flash.cu, cuda_flash_round.cu: compute capability 9.0 ---- */
/* Inputs of the attention below in e4m3, one scale each: largest magnitude / 448. v is transposed,
 * with zeros behind its keys; of every 32 keys, place 16 h + 4 i + 2 b + e (i to 3, others to 1)
 * has key 16 h + 8 b + 2 i + e: so the powers need not change places between the two products. */
typedef struct {
    uint8_t *q, *k; /* [n_q, n_heads 96], [n_kv, n_kv_heads 96] */
    uint8_t *v;     /* [n_kv_heads 96, rp_cuda_flash_keys(n_kv)] */
    float *scale;   /* [3]: what q, k and v are to be multiplied by */
    float *most;    /* scratch of 3 RP_CUDA_FLASH_ROUNDS floats */
} rp_cuda_flash_in;
#define RP_CUDA_FLASH_ROUNDS 528 /* 4 blocks for each SM of an H100 */
/* softmax(scale q k^T) v, heads of 96 side by side in rows of bf16; n_heads / n_kv_heads of them
 * share a head of k and v. Scores, powers and sums in f32, shares rounded to bf16 for their
 * product, or to e4m3 where q, k and v are.
 */
typedef struct {
    int n_q, n_kv, n_heads, n_kv_heads, head_dim;
    int q_stride, k_stride, v_stride, out_stride; /* elements */
    float scale;
    const void *q, *k, *v;
    void *out;           /* bf16, unless rows.data is there: */
    rp_cuda_narrow rows; /* out as e4m3 [n_q, n_heads head_dim], all with one scale */
    float *most;         /* then: scratch of RP_CUDA_FLASH_PIECES floats */
    rp_cuda_flash_in in; /* q, k and v are first rounded to there, unless in.q is NULL; then out is
                            e4m3, with the scale of v */
} rp_cuda_flash;
static inline int rp_cuda_flash_keys(int n_kv)
{
    return (n_kv + 127) / 128 * 128;
}
/* Bytes that `in` takes, and `in` there; mem 256-byte aligned. */
size_t rp_cuda_flash_in_bytes(const rp_cuda_flash *f);
rp_cuda_flash_in rp_cuda_flash_in_at(const rp_cuda_flash *f, void *mem);
#define RP_CUDA_FLASH_PIECES 264 /* 2 blocks for each SM of an H100 */
/* Fewer are better off with cuDNN. */
#define RP_CUDA_FLASH_QUERIES 1024
#define RP_CUDA_FLASH_KEYS    512
/* Can this build and a device of this capability do it? Shapes: at least the above, strides
 * multiples of 8, scale positive, addresses of 16. */
bool rp_cuda_flash_can(const rp_cuda_flash *f, int capability);
/* By the shape alone: are most multiprocessors busy to the end? cuDNN's tiles are smaller. */
bool rp_cuda_flash_pays(const rp_cuda_flash *f);
/* Only what rp_cuda_flash_can. Allocates nothing, waits for nothing. */
cudaError_t rp_cuda_k_flash(cudaStream_t stream, const rp_cuda_flash *f);
/* Its beginning where f->in is there: q, k and v are rounded. */
void rp_cuda_k_flash_round(cudaStream_t stream, const rp_cuda_flash *f);
/* ---- cuda_rope.cu ---- */
void rp_cuda_k_head_norm_rope(cudaStream_t stream, const rp_rope_shape *shape, rp_cuda_view x,
                              const float *w_q, const float *w_k, const float *cos,
                              const float *sin);
/* ---- cuda_group_norm.cu ---- */
/* partial: scratch of rp_cuda_group_norm_floats(groups) floats */
#define RP_CUDA_GROUP_PIECES 64
static inline size_t rp_cuda_group_norm_floats(int groups)
{
    return (size_t)groups * RP_CUDA_GROUP_PIECES * 3 + (size_t)groups * 2;
}
void rp_cuda_k_group_norm(cudaStream_t stream, rp_cuda_view x, int c, int hw, int groups,
                          const float *w, const float *b, float eps, bool silu, float *partial,
                          rp_cuda_view out);
/* ---- cuda_group_rows.cu: pictures as rows [h w, c] ---- */
/* partial: scratch of rp_cuda_group_rows_floats(c, groups) floats */
#define RP_CUDA_ROW_PIECES 1024
static inline size_t rp_cuda_group_rows_floats(int c, int groups)
{
    return (size_t)RP_CUDA_ROW_PIECES * (size_t)c * 2 + (size_t)groups * 2;
}
void rp_cuda_k_group_norm_rows(cudaStream_t stream, rp_cuda_view x, int c, int hw, int groups,
                               const float *w, const float *b, float eps, bool silu, float *partial,
                               rp_cuda_view out);
/* out[2h 2w, c] = nearest-neighbour doubling of x[h w, c] */
void rp_cuda_k_upsample_rows(cudaStream_t stream, rp_cuda_view x, int c, int h, int w,
                             rp_cuda_view out);
/* out[padded_out, kernel^2, padded_in] = in[c_out, c_in, kernel^2], of one type, zeros behind */
void rp_cuda_k_filter_rows(cudaStream_t stream, rp_cuda_view in, int c_out, int c_in, int kernel,
                           int padded_out, int padded_in, rp_cuda_view out);
/* out[t, padded] = in[t, c], zeros behind */
void rp_cuda_k_pad_rows(cudaStream_t stream, rp_cuda_view in, size_t t, int c, int padded,
                        rp_cuda_view out);
/* out[t, n] = y[t, n] (rows stride elements apart) + bias[n] + add[t, n]; bias and add.data may be
 * NULL, out may be add, and y for stride n */
void rp_cuda_k_end_rows(cudaStream_t stream, rp_cuda_view y, size_t t, int n, int stride,
                        const float *bias, rp_cuda_view add, rp_cuda_view out);
/* ---- cuda_softmax.cu ---- */
/*
 * Row i of s [n_q, n_kv] (f32 scores, already scaled; rows n_kv apart) is query q0 + i: soft-capped
 * when softcap > 0, keys that it may not see (causal, window as in rp_attention_shape) left out,
 * softmax -> p [n_q, n_kv] (rows n_kv apart), zeros for keys left out. `heads` such matrices follow
 * each other in s and in p. p may be s when it is f32.
 */
void rp_cuda_k_softmax(cudaStream_t stream, const float *s, int heads, int n_q, int n_kv, int q0,
                       float softcap, bool causal, int window, rp_cuda_view p);

/* ---- cuda_image.cu ---- */
void rp_cuda_k_patchify(cudaStream_t stream, rp_cuda_view x, int c, int h, int w, int p,
                        rp_cuda_view out);
void rp_cuda_k_unpatchify(cudaStream_t stream, rp_cuda_view tokens, int c, int h, int w, int p,
                          float sign, rp_cuda_view out);
void rp_cuda_k_transpose(cudaStream_t stream, rp_cuda_view x, int rows, int cols, rp_cuda_view out);
/* out[c, 2h, 2w] = nearest-neighbour doubling of x[c, h, w] */
void rp_cuda_k_upsample(cudaStream_t stream, rp_cuda_view x, int c, int h, int w, rp_cuda_view out);
/* out[c, hw] = y[c, hw] + bias[c] + add[c, hw], all f32; bias and add may be NULL, out may be y or
 * add */
void rp_cuda_k_end_planes(cudaStream_t stream, const float *y, int c, size_t hw, const float *bias,
                          const float *add, float *out);
/* bytes[hw, 3] of x[hw, 3] (rows) or x[3, hw] */
void rp_cuda_k_to_bytes(cudaStream_t stream, rp_cuda_view x, size_t hw, bool rows, uint8_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
