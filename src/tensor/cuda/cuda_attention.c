/*
 * cuda_attention.c - softmax attention.
 *
 * Two ways:
 *   - cuDNN's fused attention for bf16 without a mask: what the image model does, step after step.
 *     Either as one operation (newer cuDNN) or as the graph of operations that cuDNN recognises as
 *     attention; the first that gives a plan is taken, once for each shape.
 *   - matrix products and a softmax for all the rest (f32, masks, soft-capping, the wide head of an
 *     autoencoder): scores of a block of queries of all heads, cut so that they take little memory.
 *
 * Heads lie side by side in a row, and q, k and v may be columns of one matrix: both ways read and
 * write them in place, with the row stride.
 */
#include "tensor/cuda/cuda.h"

#include "tensor/cuda/cuda_dnn.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define SDPA_MAX_WORKSPACE ((size_t)256 << 20)
#define MAX_SCORES_BYTES   ((size_t)256 << 20)
#define SDPA_MAX_HEAD_DIM  128

/* ------------------------------------------------------------------ cuDNN: graphs */

/* All that a plan depends on. No holes: compared as bytes. */
typedef struct {
    int n_q, n_kv, n_heads, n_kv_heads, head_dim;
    int q_stride, k_stride, v_stride, out_stride;
    float scale;
} sdpa_key;

/* Plan of one shape; cuda->sdpas is the first of a list. */
struct rp_cuda_sdpas {
    rp_cuda_sdpas *next;
    sdpa_key key; /* key.scale is read by every run */
    rp_dnn_graph graph;
    const char *recipe; /* name of the graph; NULL: cuDNN cannot, use matrix products */
};

/* Pointers of a run, in the order in which make_tensors() makes them. */
enum { SDPA_Q, SDPA_K, SDPA_V, SDPA_OUT, SDPA_SCALE, SDPA_POINTERS };

typedef struct {
    cudnnBackendDescriptor_t q, k, v, out, scale;
} sdpa_tensors;

/* [1, heads, rows, head_dim] in place: head after head within a row. */
static cudnnBackendDescriptor_t heads_tensor(rp_dnn_graph *g, int heads, int rows, int head_dim,
                                             int row_stride)
{
    const int64_t dim[4] = {1, heads, rows, head_dim};
    const int64_t stride[4] = {(int64_t)rows * row_stride, head_dim, row_stride, 1};

    return rp_dnn_tensor(g, RP_DNN_MEMORY, CUDNN_DATA_BFLOAT16, dim, stride);
}

/* The same with the last two turned: [1, heads, head_dim, rows]. */
static cudnnBackendDescriptor_t turned_tensor(rp_dnn_graph *g, int heads, int rows, int head_dim,
                                              int row_stride)
{
    const int64_t dim[4] = {1, heads, head_dim, rows};
    const int64_t stride[4] = {(int64_t)rows * row_stride, head_dim, 1, row_stride};

    return rp_dnn_tensor(g, RP_DNN_MEMORY, CUDNN_DATA_BFLOAT16, dim, stride);
}

static sdpa_tensors make_tensors(rp_dnn_graph *g, const sdpa_key *s, bool k_turned)
{
    static const int64_t one[4] = {1, 1, 1, 1};
    sdpa_tensors t;

    t.q = heads_tensor(g, s->n_heads, s->n_q, s->head_dim, s->q_stride);
    t.k = k_turned ? turned_tensor(g, s->n_kv_heads, s->n_kv, s->head_dim, s->k_stride)
                   : heads_tensor(g, s->n_kv_heads, s->n_kv, s->head_dim, s->k_stride);
    t.v = heads_tensor(g, s->n_kv_heads, s->n_kv, s->head_dim, s->v_stride);
    t.out = heads_tensor(g, s->n_heads, s->n_q, s->head_dim, s->out_stride);
    t.scale = rp_dnn_tensor(g, RP_DNN_VALUE, CUDNN_DATA_FLOAT, one, one);
    return t;
}

/* Attention as one operation. */
static void build_unified(rp_dnn_graph *g, const sdpa_key *s)
{
#if CUDNN_VERSION >= 91301
    const sdpa_tensors t = make_tensors(g, s, false);
    cudnnBackendDescriptor_t op = rp_dnn_make(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);

    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, t.q);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, t.k);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, t.v);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, t.out);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, t.scale);
    rp_dnn_add(g, op);
#else
    (void)s;
    g->status = CUDNN_STATUS_NOT_SUPPORTED;
#endif
}

static void add_matmul(rp_dnn_graph *g, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b,
                       cudnnBackendDescriptor_t c)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t kind = rp_dnn_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    rp_dnn_set(g, kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    rp_dnn_finish(g, kind);

    cudnnBackendDescriptor_t op = rp_dnn_make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
    rp_dnn_add(g, op);
}

static void add_reduction(rp_dnn_graph *g, cudnnReduceTensorOp_t how, cudnnBackendDescriptor_t x,
                          cudnnBackendDescriptor_t y)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t kind = rp_dnn_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    rp_dnn_set(g, kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    rp_dnn_set(g, kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how);
    rp_dnn_finish(g, kind);

    cudnnBackendDescriptor_t op = rp_dnn_make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind);
    rp_dnn_add(g, op);
}

/* A virtual tensor [1, heads, queries, n]. */
static cudnnBackendDescriptor_t between(rp_dnn_graph *g, const sdpa_key *s, int n,
                                        cudnnDataType_t type)
{
    const int64_t dim[4] = {1, s->n_heads, s->n_q, n};
    const int64_t stride[4] = {(int64_t)s->n_heads * s->n_q * n, (int64_t)s->n_q * n, n, 1};

    return rp_dnn_tensor(g, RP_DNN_VIRTUAL, type, dim, stride);
}

/*
 * Attention as the operations that cuDNN knows it by. The log of the sum belongs to the pattern,
 * although nobody reads it here.
 */
static void build_composite(rp_dnn_graph *g, const sdpa_key *s)
{
    const sdpa_tensors t = make_tensors(g, s, true);
    cudnnBackendDescriptor_t scores = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t scaled = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t moved = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t powers = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t shares = between(g, s, s->n_kv, CUDNN_DATA_BFLOAT16);
    cudnnBackendDescriptor_t max = between(g, s, 1, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t sum = between(g, s, 1, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t log_sum = between(g, s, 1, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t stats = between(g, s, 1, CUDNN_DATA_FLOAT);

    add_matmul(g, t.q, t.k, scores);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_MUL, scores, t.scale, scaled);
    add_reduction(g, CUDNN_REDUCE_TENSOR_MAX, scaled, max);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_SUB, scaled, max, moved);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_EXP, moved, NULL, powers);
    add_reduction(g, CUDNN_REDUCE_TENSOR_ADD, powers, sum);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL, log_sum);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_ADD, max, log_sum, stats);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_DIV, powers, sum, shares);
    add_matmul(g, shares, t.v, t.out);
}

/* ------------------------------------------------------------------ cuDNN: plans */

typedef struct {
    const char *name;
    size_t min_version; /* of the library that runs */
    void (*build)(rp_dnn_graph *g, const sdpa_key *s);
} sdpa_recipe;

/* In the order of trying. */
static const sdpa_recipe recipes[] = {
    {"unified", 91301, build_unified},
    {"composite", 90000, build_composite},
};

/* 9.10.0 and 9.10.1 compute it wrongly. */
static bool sdpa_broken(size_t version)
{
    return version == 91000 || version == 91001;
}

/* Only a graph that cuDNN cannot compute leads to matrix products: a shortage of memory on one rank
 * must not give it other bits than the others have. */
static rp_status make_plan(rp_cuda *cuda, rp_cuda_sdpas *plan)
{
    const size_t version = cudnnGetVersion();
    char why[sizeof(plan->graph.message)] = "this version is known to be wrong";

    for (size_t i = 0; i < sizeof(recipes) / sizeof(recipes[0]) && !sdpa_broken(version); i++) {
        if (version < recipes[i].min_version) {
            continue;
        }
        recipes[i].build(&plan->graph, &plan->key);
        rp_dnn_compile(&plan->graph, cuda->dnn, SDPA_MAX_WORKSPACE);
        if (plan->graph.status == CUDNN_STATUS_SUCCESS) {
            plan->recipe = recipes[i].name;
            return RP_OK;
        }
        if (plan->graph.status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
            plan->graph.status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED) {
            return RP_DNN(cuda, plan->graph.status);
        }
        memcpy(why, plan->graph.message, sizeof(why));
        rp_dnn_drop(&plan->graph);
    }
    RP_INFO("%s: cuDNN %zu has no attention for %d queries, %d keys, %d heads of %d: %s",
            cuda->name, version, plan->key.n_q, plan->key.n_kv, plan->key.n_heads,
            plan->key.head_dim, why);
    return RP_OK;
}

/* The plan of a shape, made when it is new. */
static rp_status find_plan(rp_cuda *cuda, const sdpa_key *key, rp_cuda_sdpas **out)
{
    void *mem = NULL;

    for (rp_cuda_sdpas *p = cuda->sdpas; p != NULL; p = p->next) {
        if (memcmp(&p->key, key, sizeof(*key)) == 0) {
            *out = p;
            return RP_OK;
        }
    }
    if (rp_cuda_recording(cuda)) {
        return RP_FAIL(RP_E_ARG, "%s: attention of a new shape in a recorded sequence", cuda->name);
    }
    rp_status st = rp_mem_new(1, sizeof(rp_cuda_sdpas), "an attention plan", &mem);
    if (st != RP_OK) {
        return st;
    }
    rp_cuda_sdpas *plan = mem;
    plan->key = *key;
    st = make_plan(cuda, plan);
    if (st != RP_OK) {
        rp_dnn_drop(&plan->graph);
        free(plan);
        return st;
    }
    plan->next = cuda->sdpas;
    cuda->sdpas = plan;
    *out = plan;
    return RP_OK;
}

void rp_cuda_sdpas_drop(rp_cuda *cuda)
{
    while (cuda->sdpas != NULL) {
        rp_cuda_sdpas *plan = cuda->sdpas;
        cuda->sdpas = plan->next;
        rp_dnn_drop(&plan->graph);
        free(plan);
    }
}

static bool is_bf16(rp_cuda_view view)
{
    return view.dtype == RP_BF16 && (uintptr_t)view.data % 16 == 0;
}

/* Is it worth asking cuDNN? One query or one key is another kernel of it, without use here. */
static bool sdpa_fits(const rp_attention_shape *s, rp_cuda_view q, rp_cuda_view k, rp_cuda_view v,
                      rp_cuda_view out)
{
    return is_bf16(q) && is_bf16(k) && is_bf16(v) && is_bf16(out) && s->softcap == 0 &&
           !s->causal && s->n_q > 1 && s->n_kv > 1 && s->head_dim <= SDPA_MAX_HEAD_DIM &&
           s->head_dim % 8 == 0 && s->q_stride % 8 == 0 && s->k_stride % 8 == 0 &&
           s->v_stride % 8 == 0 && s->out_stride % 8 == 0;
}

/* *done: false when cuDNN cannot do this shape. */
static rp_status run_sdpa(rp_cuda *cuda, const rp_attention_shape *s, rp_cuda_view q,
                          rp_cuda_view k, rp_cuda_view v, rp_cuda_view out, bool *done)
{
    const sdpa_key key = {s->n_q,      s->n_kv,     s->n_heads,  s->n_kv_heads, s->head_dim,
                          s->q_stride, s->k_stride, s->v_stride, s->out_stride, s->scale};
    rp_cuda_sdpas *plan = NULL;
    rp_status st = find_plan(cuda, &key, &plan);

    *done = st != RP_OK || plan->recipe != NULL;
    if (st == RP_OK && *done && plan->graph.workspace_bytes > 0) {
        st = rp_cuda_scratch_grow(cuda, &cuda->workspace, plan->graph.workspace_bytes,
                                  "workspace of the attention");
    }
    if (st != RP_OK || !*done) {
        return st;
    }
    void *pointers[SDPA_POINTERS] = {
        [SDPA_Q] = q.data,
        [SDPA_K] = k.data,
        [SDPA_V] = v.data,
        [SDPA_OUT] = out.data,
        [SDPA_SCALE] = &plan->key.scale,
    };
    return RP_DNN(cuda, rp_dnn_run(&plan->graph, cuda->dnn, cuda->workspace.data, pointers));
}

/* ------------------------------------------------------------------ matrix products */

static rp_cuda_view moved_by(rp_cuda_view view, size_t n_elems)
{
    return (rp_cuda_view){(char *)view.data + n_elems * rp_dtype_bytes(view.dtype), view.dtype};
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* q, k and v in one type: as they are or, converted, in the cast scratch; strides follow. There is
 * no product of f32 matrices that gives bf16. */
static rp_status one_type(rp_cuda *cuda, rp_attention_shape *s, rp_dtype out, rp_cuda_view *q,
                          rp_cuda_view *k, rp_cuda_view *v)
{
    const struct {
        rp_cuda_view *view;
        int rows, cols, *stride;
    } in[3] = {
        {q, s->n_q, s->n_heads * s->head_dim, &s->q_stride},
        {k, s->n_kv, s->n_kv_heads * s->head_dim, &s->k_stride},
        {v, s->n_kv, s->n_kv_heads * s->head_dim, &s->v_stride},
    };
    size_t bytes[3], total = 0;

    if (q->dtype == k->dtype && q->dtype == v->dtype && (q->dtype == cuda->act || out == RP_F32)) {
        return RP_OK;
    }
    for (int i = 0; i < 3; i++) {
        bytes[i] =
            in[i].view->dtype == cuda->act
                ? 0
                : round_up((size_t)in[i].rows * (size_t)in[i].cols * rp_dtype_bytes(cuda->act),
                           256);
        total += bytes[i];
    }
    const rp_status st = rp_cuda_scratch_grow(cuda, &cuda->cast, total, "inputs of the attention");
    if (st != RP_OK) {
        return st;
    }
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

typedef struct {
    rp_attention_shape s;
    rp_cuda_view q, k, v, out;
    rp_cuda_view scores; /* [head, query of the block, key] f32 */
    rp_cuda_view shares; /* the same after the softmax, in the type of v */
} products;

/*
 * Heads that share no keys are one batch: the first query head of every kv head, then the second...
 * so that matrix r n_kv_heads + j of the scores belongs to query head j (n_heads / n_kv_heads) + r.
 */
static rp_status block_products(rp_cuda *cuda, const products *p, int q0, int n)
{
    const rp_attention_shape *s = &p->s;
    const int group = s->n_heads / s->n_kv_heads;
    const size_t matrix = (size_t)n * (size_t)s->n_kv;
    const size_t batch = matrix * (size_t)s->n_kv_heads;
    const size_t q_at = (size_t)q0 * (size_t)s->q_stride;
    const size_t out_at = (size_t)q0 * (size_t)s->out_stride;
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
    rp_status st = RP_OK;

    for (int r = 0; r < group && st == RP_OK; r++) {
        const size_t head = (size_t)r * (size_t)s->head_dim;
        st = rp_cuda_gemm(cuda, &qk, moved_by(p->q, q_at + head), p->k,
                          moved_by(p->scores, (size_t)r * batch));
    }
    if (st != RP_OK) {
        return st;
    }
    rp_cuda_k_softmax(cuda->stream, p->scores.data, s->n_heads, n, s->n_kv, q0, s->softcap,
                      s->causal, s->window, p->shares);
    for (int r = 0; r < group && st == RP_OK; r++) {
        const size_t head = (size_t)r * (size_t)s->head_dim;
        st = rp_cuda_gemm(cuda, &pv, moved_by(p->shares, (size_t)r * batch), p->v,
                          moved_by(p->out, out_at + head));
    }
    return st;
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

static rp_status run_products(rp_cuda *cuda, products *p)
{
    rp_status st = one_type(cuda, &p->s, p->out.dtype, &p->q, &p->k, &p->v);
    if (st != RP_OK) {
        return st;
    }
    const rp_attention_shape *s = &p->s;
    const bool in_place = p->v.dtype == RP_F32;
    const size_t row = (size_t)s->n_heads * (size_t)s->n_kv; /* scores of a query */
    const size_t share_bytes = in_place ? 0 : rp_dtype_bytes(p->v.dtype);
    const int rows = block_rows(s, row * (sizeof(float) + share_bytes));
    const size_t scores_bytes = round_up(row * (size_t)rows * sizeof(float), 256);

    st = rp_cuda_scratch_grow(cuda, &cuda->scores, scores_bytes + row * (size_t)rows * share_bytes,
                              "scores of the attention");
    if (st != RP_OK) {
        return st;
    }
    p->scores = (rp_cuda_view){cuda->scores.data, RP_F32};
    p->shares = p->scores;
    if (!in_place) {
        p->shares = (rp_cuda_view){(char *)cuda->scores.data + scores_bytes, p->v.dtype};
    }
    for (int q0 = 0; q0 < s->n_q && st == RP_OK; q0 += rows) {
        st = block_products(cuda, p, q0, s->n_q - q0 < rows ? s->n_q - q0 : rows);
    }
    return st;
}

void rp_cuda_attention(void *self, const rp_attention_shape *shape, const float *q, const float *k,
                       const float *v, float *out)
{
    rp_cuda *cuda = self;
    products p = {
        .s = *shape,
        .q = rp_cuda_at(cuda, q),
        .k = rp_cuda_at(cuda, k),
        .v = rp_cuda_at(cuda, v),
        .out = rp_cuda_at(cuda, out),
    };
    rp_status st = RP_OK;
    bool done = false;

    if (sdpa_fits(shape, p.q, p.k, p.v, p.out)) {
        st = run_sdpa(cuda, shape, p.q, p.k, p.v, p.out, &done);
    }
    if (st == RP_OK && !done) {
        st = run_products(cuda, &p);
    }
    rp_cuda_keep(cuda, st);
}
