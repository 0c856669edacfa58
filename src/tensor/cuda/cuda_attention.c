/*
 * cuda_attention.c - softmax attention.
 *
 * In one of these ways:
 *   - a kernel of our own for bf16 without a mask (cuda_flash.cuh): what the image model does, step
 *     after step, on compute capability 9.0. In precision fp8, when only a product reads the
 *     output, it is written as the rows in e4m3 that the product takes: an output is a mean of
 *     rows of v, so one scale does for all.
 *   - cuDNN's fused attention for bf16 without a mask, where that kernel does not fit.
 *   - both in e4m3 (precision fp8-attention) when only a product reads the output: the kernel of
 *     our own where it fits, else cuDNN's. q, k and v are rounded with a scale each; v's is the
 *     output's too.
 *   - matrix products and a softmax (cuda_attention_products.c) for all the rest: f32, masks,
 *     soft-capping, the wide head of an autoencoder.
 *
 * Heads lie side by side in a row, and q, k and v may be columns of one matrix: all ways read them
 * in place, with the row stride.
 */
#include "tensor/cuda/cuda_sdpa.h"

#include "base/check.h"

#define SDPA_MAX_HEAD_DIM 128
#define NARROW_LEAST_ROWS 512 /* queries and keys: below, rounding costs more than it saves */

static bool is_bf16(rp_cuda_view view)
{
    return view.dtype == RP_BF16 && (uintptr_t)view.data % 16 == 0;
}

/* May it be one kernel, ours or cuDNN's? One query or one key is another kernel of cuDNN's, without
 * use here. */
static bool sdpa_fits(const rp_attention_shape *s, rp_cuda_view q, rp_cuda_view k, rp_cuda_view v,
                      rp_cuda_view out)
{
    return is_bf16(q) && is_bf16(k) && is_bf16(v) && is_bf16(out) && s->softcap == 0 &&
           !s->causal && s->n_q > 1 && s->n_kv > 1 && s->head_dim <= SDPA_MAX_HEAD_DIM &&
           s->head_dim % 8 == 0 && s->q_stride % 8 == 0 && s->k_stride % 8 == 0 &&
           s->v_stride % 8 == 0 && s->out_stride % 8 == 0;
}

/* ---- our own ---- */

/* Of an output that is only read by a product in 8 bits. */
static bool only_rows(const rp_cuda *cuda, const rp_attention_shape *s)
{
    return cuda->fp8 && s->feeds_linear && s->out_stride == s->n_heads * s->head_dim;
}

static rp_cuda_flash flash_of(const rp_attention_shape *s, rp_cuda_view q, rp_cuda_view k,
                              rp_cuda_view v, rp_cuda_view out)
{
    return (rp_cuda_flash){.n_q = s->n_q,
                           .n_kv = s->n_kv,
                           .n_heads = s->n_heads,
                           .n_kv_heads = s->n_kv_heads,
                           .head_dim = s->head_dim,
                           .q_stride = s->q_stride,
                           .k_stride = s->k_stride,
                           .v_stride = s->v_stride,
                           .out_stride = s->out_stride,
                           .scale = s->scale,
                           .q = q.data,
                           .k = k.data,
                           .v = v.data,
                           .out = out.data};
}

/* *done: false when it cannot, or should not, do this shape. */
static rp_status run_flash(rp_cuda *cuda, const rp_attention_shape *s, rp_cuda_flash *f,
                           const float *out, bool *done)
{
    *done = rp_cuda_flash_can(f, cuda->capability) && rp_cuda_flash_pays(f);
    if (!*done) {
        return RP_OK;
    }
    if (only_rows(cuda, s)) {
        RP_TRY(rp_cuda_narrow_room(cuda, s->n_q, s->out_stride, &f->rows));
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->heads, RP_CUDA_FLASH_PIECES * sizeof(float),
                                    "the largest value of the attention"));
        f->most = cuda->heads.data;
        rp_cuda_narrow_only(cuda, out, s->n_q, s->out_stride);
    }
    return RP_CUDA(cuda, rp_cuda_k_flash(cuda->stream, f));
}

/* The same with q, k and v in e4m3 too. out: not written; its rows are left for the product.
 * Wherever it can: with more tiles than multiprocessors, cuDNN's kernel was seen to give other
 * numbers each time under compute-sanitizer. */
static rp_status run_narrow_flash(rp_cuda *cuda, const rp_attention_shape *s, rp_cuda_flash f,
                                  const float *out, bool *done)
{
    *done = rp_cuda_flash_can(&f, cuda->capability);
    if (!*done) {
        return RP_OK;
    }
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->heads, rp_cuda_flash_in_bytes(&f),
                                "attention inputs in fp8"));
    RP_TRY(rp_cuda_narrow_room(cuda, s->n_q, s->out_stride, &f.rows));
    f.in = rp_cuda_flash_in_at(&f, cuda->heads.data);
    rp_cuda_narrow_only(cuda, out, s->n_q, s->out_stride);
    return RP_CUDA(cuda, rp_cuda_k_flash(cuda->stream, &f));
}

/* ---- cuDNN ---- */

static rp_sdpa_key key_of(const rp_attention_shape *s)
{
    return (rp_sdpa_key){.n_q = s->n_q,
                         .n_kv = s->n_kv,
                         .n_heads = s->n_heads,
                         .n_kv_heads = s->n_kv_heads,
                         .head_dim = s->head_dim,
                         .q_stride = s->q_stride,
                         .k_stride = s->k_stride,
                         .v_stride = s->v_stride,
                         .out_stride = s->out_stride,
                         .scale = s->scale};
}

/* *done: false when cuDNN cannot do this shape. */
static rp_status run_sdpa(rp_cuda *cuda, const rp_attention_shape *s, rp_cuda_view q,
                          rp_cuda_view k, rp_cuda_view v, rp_cuda_view out, bool *done)
{
    const rp_sdpa_key key = key_of(s);
    rp_cuda_sdpas *plan = NULL;

    RP_TRY(rp_cuda_sdpa_find(cuda, &key, &plan));
    *done = plan != NULL;
    if (!*done) {
        return RP_OK;
    }
    void *pointers[SDPA_POINTERS] = {
        [SDPA_Q] = q.data, [SDPA_K] = k.data, [SDPA_V] = v.data, [SDPA_OUT] = out.data};
    return rp_cuda_sdpa_run(cuda, plan, pointers);
}

/* ---- cuDNN, e4m3 ---- */

static bool narrow_fits(const rp_cuda *cuda, const rp_attention_shape *s)
{
    return cuda->narrow_attention && s->feeds_linear && s->head_dim % 16 == 0 &&
           s->out_stride == s->n_heads * s->head_dim && s->n_q >= NARROW_LEAST_ROWS &&
           s->n_kv >= NARROW_LEAST_ROWS;
}

/* q, k and v rounded, in scratch; q_dim and kv_dim: elements of their rows */
static rp_status round_inputs(rp_cuda *cuda, const rp_attention_shape *s, int q_dim, int kv_dim,
                              rp_cuda_view q, rp_cuda_view k, rp_cuda_view v, float *out_scale,
                              void *pointers[SDPA_POINTERS])
{
    const size_t numbers = RP_CUDA_QKV_NUMBERS * sizeof(rp_cuda_number);
    const size_t most = rp_cuda_whole_lines(3 * RP_CUDA_QKV_PIECES * sizeof(float));
    const size_t q_bytes = rp_cuda_whole_lines((size_t)s->n_q * (size_t)q_dim);
    const size_t kv_bytes = rp_cuda_whole_lines((size_t)s->n_kv * (size_t)kv_dim);

    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->heads, most + q_bytes + 2 * kv_bytes + numbers,
                                "attention inputs in fp8"));
    uint8_t *const at = cuda->heads.data;
    const rp_cuda_part parts[3] = {
        {q.data, at + most, s->n_q, q_dim, s->q_stride},
        {k.data, at + most + q_bytes, s->n_kv, kv_dim, s->k_stride},
        {v.data, at + most + q_bytes + kv_bytes, s->n_kv, kv_dim, s->v_stride},
    };
    rp_cuda_number *const number = (void *)(at + most + q_bytes + 2 * kv_bytes);
    rp_cuda_k_narrow_qkv(cuda->stream, parts, (float *)at, number, out_scale, s->n_q);
    pointers[SDPA_Q] = parts[0].to;
    pointers[SDPA_K] = parts[1].to;
    pointers[SDPA_V] = parts[2].to;
    for (int i = 0; i < RP_CUDA_QKV_NUMBERS; i++) {
        pointers[SDPA_NUMBERS + i] = &number[i];
    }
    return RP_OK;
}

/* out: not written; its rows are left for the product. *done: false when cuDNN cannot. */
static rp_status run_narrow(rp_cuda *cuda, const rp_attention_shape *s, rp_cuda_view q,
                            rp_cuda_view k, rp_cuda_view v, const float *out, bool *done)
{
    const int q_dim = s->n_heads * s->head_dim, kv_dim = s->n_kv_heads * s->head_dim;
    rp_sdpa_key key = key_of(s);
    void *pointers[SDPA_POINTERS] = {NULL};
    rp_cuda_sdpas *plan = NULL;
    rp_cuda_narrow rows;

    key.narrow = 1;
    key.q_stride = key.out_stride = q_dim;
    key.k_stride = key.v_stride = kv_dim;
    RP_TRY(rp_cuda_sdpa_find(cuda, &key, &plan));
    *done = plan != NULL;
    if (!*done) {
        return RP_OK;
    }
    RP_TRY(rp_cuda_narrow_room(cuda, s->n_q, q_dim, &rows));
    RP_TRY(round_inputs(cuda, s, q_dim, kv_dim, q, k, v, rows.scale, pointers));
    pointers[SDPA_OUT] = rows.data;
    RP_TRY(rp_cuda_sdpa_run(cuda, plan, pointers));
    rp_cuda_narrow_only(cuda, out, s->n_q, q_dim);
    return RP_CUDA(cuda, cudaPeekAtLastError());
}

/* ---- the choice ---- */

void rp_cuda_attention(void *self, const rp_attention_shape *shape, const float *q, const float *k,
                       const float *v, float *out)
{
    rp_cuda *cuda = self;
    const rp_cuda_view at_q = rp_cuda_at(cuda, q), at_k = rp_cuda_at(cuda, k),
                       at_v = rp_cuda_at(cuda, v), at_out = rp_cuda_at(cuda, out);
    const bool fits = sdpa_fits(shape, at_q, at_k, at_v, at_out);
    const bool narrow = fits && narrow_fits(cuda, shape);
    rp_cuda_flash own = flash_of(shape, at_q, at_k, at_v, at_out);
    rp_status st = RP_OK;
    bool done = false;

    if (narrow) {
        st = run_narrow_flash(cuda, shape, own, out, &done);
    }
    if (st == RP_OK && !done && narrow) {
        st = run_narrow(cuda, shape, at_q, at_k, at_v, out, &done);
    }
    if (st == RP_OK && !done && fits) {
        st = run_flash(cuda, shape, &own, out, &done);
    }
    if (st == RP_OK && !done && fits) {
        st = run_sdpa(cuda, shape, at_q, at_k, at_v, at_out, &done);
    }
    if (st == RP_OK && !done) {
        st = rp_cuda_attention_products(cuda, shape, at_q, at_k, at_v, at_out);
    }
    rp_cuda_keep(cuda, st);
}
