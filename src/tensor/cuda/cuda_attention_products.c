/*
 * cuda_attention_products.c - attention by matrix products and a softmax, for all that no kernel
 * does in one: scores of a block of queries of all heads, cut so that they take little memory.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"

#define MAX_SCORES_BYTES ((size_t)256 << 20)

typedef struct {
    rp_attention_shape s;
    rp_cuda_view q, k, v, out;
    rp_cuda_view scores; /* [head, query of the block, key] f32 */
    rp_cuda_view shares; /* the same after the softmax, in the type of v */
} products;

static rp_cuda_view moved_by(rp_cuda_view view, size_t n_elems)
{
    return (rp_cuda_view){(char *)view.data + n_elems * rp_dtype_bytes(view.dtype), view.dtype};
}

/* q, k and v in one type: as they are or, converted, in the cast scratch; strides follow. There is
 * no product of f32 matrices that gives bf16. */
static rp_status one_type(rp_cuda *cuda, products *p)
{
    rp_attention_shape *const s = &p->s;
    const struct {
        rp_cuda_view *view;
        int rows, cols, *stride;
    } in[3] = {
        {&p->q, s->n_q, s->n_heads * s->head_dim, &s->q_stride},
        {&p->k, s->n_kv, s->n_kv_heads * s->head_dim, &s->k_stride},
        {&p->v, s->n_kv, s->n_kv_heads * s->head_dim, &s->v_stride},
    };
    size_t bytes[3], total = 0;

    if (p->q.dtype == p->k.dtype && p->q.dtype == p->v.dtype &&
        (p->q.dtype == cuda->act || p->out.dtype == RP_F32)) {
        return RP_OK;
    }
    for (int i = 0; i < 3; i++) {
        bytes[i] = in[i].view->dtype == cuda->act
                       ? 0
                       : rp_cuda_whole_lines((size_t)in[i].rows * (size_t)in[i].cols *
                                             rp_dtype_bytes(cuda->act));
        total += bytes[i];
    }
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, total, "inputs of the attention"));
    char *at = cuda->cast.data;
    for (int i = 0; i < 3; i++) {
        if (bytes[i] > 0) {
            const rp_cuda_view cast = {at, cuda->act};
            rp_cuda_k_convert_rows(cuda->stream, *in[i].view, in[i].rows, in[i].cols, *in[i].stride,
                                   cast);
            *in[i].view = cast;
            *in[i].stride = in[i].cols;
            at += bytes[i];
        }
    }
    return RP_OK;
}

/*
 * Heads that share no keys are one batch: the first query head of every kv head, then the second...
 * so that matrix r n_kv_heads + j of the scores belongs to query head j (n_heads / n_kv_heads) + r.
 */
static rp_status score_products(rp_cuda *cuda, const products *p, int q0, int n)
{
    const rp_attention_shape *s = &p->s;
    const int group = s->n_heads / s->n_kv_heads;
    const size_t matrix = (size_t)n * (size_t)s->n_kv;
    const size_t batch = matrix * (size_t)s->n_kv_heads;
    const size_t q_at = (size_t)q0 * (size_t)s->q_stride;
    const rp_cuda_gemm_shape qk = {
        .m = n,
        .n = s->n_kv,
        .k = s->head_dim,
        .batch = s->n_kv_heads,
        .lda = s->q_stride,
        .ldb = s->k_stride,
        .ldd = s->n_kv,
        .step_a = (int64_t)group * s->head_dim,
        .step_b = s->head_dim,
        .step_d = (int64_t)matrix,
        .b_transposed = true,
        .alpha = s->scale,
    };

    for (int r = 0; r < group; r++) {
        const size_t head = (size_t)r * (size_t)s->head_dim;
        RP_TRY(rp_cuda_gemm(cuda, &qk, moved_by(p->q, q_at + head), p->k,
                            moved_by(p->scores, (size_t)r * batch)));
    }
    return RP_OK;
}

static rp_status value_products(rp_cuda *cuda, const products *p, int q0, int n)
{
    const rp_attention_shape *s = &p->s;
    const int group = s->n_heads / s->n_kv_heads;
    const size_t matrix = (size_t)n * (size_t)s->n_kv;
    const size_t batch = matrix * (size_t)s->n_kv_heads;
    const size_t out_at = (size_t)q0 * (size_t)s->out_stride;
    const rp_cuda_gemm_shape pv = {
        .m = n,
        .n = s->head_dim,
        .k = s->n_kv,
        .batch = s->n_kv_heads,
        .lda = s->n_kv,
        .ldb = s->v_stride,
        .ldd = s->out_stride,
        .step_a = (int64_t)matrix,
        .step_b = s->head_dim,
        .step_d = (int64_t)group * s->head_dim,
        .b_transposed = false,
        .alpha = 1.0f,
    };

    for (int r = 0; r < group; r++) {
        const size_t head = (size_t)r * (size_t)s->head_dim;
        RP_TRY(rp_cuda_gemm(cuda, &pv, moved_by(p->shares, (size_t)r * batch), p->v,
                            moved_by(p->out, out_at + head)));
    }
    return RP_OK;
}

/* n queries from q0 on */
static rp_status block_products(rp_cuda *cuda, const products *p, int q0, int n)
{
    const rp_attention_shape *s = &p->s;

    RP_TRY(score_products(cuda, p, q0, n));
    rp_cuda_k_softmax(cuda->stream, p->scores.data, s->n_heads, n, s->n_kv, q0, s->softcap,
                      s->causal, s->window, p->shares);
    return value_products(cuda, p, q0, n);
}

/* Queries of a block: all, or as many as the scores' budget allows. */
static int block_rows(const rp_attention_shape *s, size_t bytes_per_row)
{
    const size_t rows = MAX_SCORES_BYTES / bytes_per_row;

    if (rows >= (size_t)s->n_q) {
        return s->n_q;
    }
    if (rows >= 64) {
        return (int)(rows - rows % 64);
    }
    return rows > 0 ? (int)rows : 1;
}

/* Room for the scores and shares of `rows` queries. */
static rp_status make_room(rp_cuda *cuda, products *p, size_t row, size_t share_bytes, int rows)
{
    const size_t n = row * (size_t)rows;
    const size_t scores_bytes = rp_cuda_whole_lines(n * sizeof(float));

    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->scores, scores_bytes + n * share_bytes,
                                "scores of the attention"));
    p->scores = (rp_cuda_view){cuda->scores.data, RP_F32};
    p->shares = p->scores;
    if (share_bytes > 0) {
        p->shares = (rp_cuda_view){(char *)cuda->scores.data + scores_bytes, p->v.dtype};
    }
    return RP_OK;
}

rp_status rp_cuda_attention_products(rp_cuda *cuda, const rp_attention_shape *shape, rp_cuda_view q,
                                     rp_cuda_view k, rp_cuda_view v, rp_cuda_view out)
{
    products p = {.s = *shape, .q = q, .k = k, .v = v, .out = out};

    RP_TRY(one_type(cuda, &p));
    const bool in_place = p.v.dtype == RP_F32;
    const size_t row = (size_t)shape->n_heads * (size_t)shape->n_kv; /* scores of a query */
    const size_t share_bytes = in_place ? 0 : rp_dtype_bytes(p.v.dtype);
    const int rows = block_rows(shape, row * (sizeof(float) + share_bytes));
    RP_TRY(make_room(cuda, &p, row, share_bytes, rows));
    for (int q0 = 0; q0 < shape->n_q; q0 += rows) {
        RP_TRY(block_products(cuda, &p, q0, shape->n_q - q0 < rows ? shape->n_q - q0 : rows));
    }
    return RP_OK;
}
