/*
 * cuda_sdpa.c - cuDNN's fused attention: the graphs it is known by, and a plan for each shape.
 *
 * In bf16 it is one operation (newer cuDNN) or the graph of operations that cuDNN recognises as
 * attention; in e4m3 such a graph. The first that gives a plan is taken, once for each shape.
 */
#include "tensor/cuda/cuda_sdpa.h"

#include "tensor/cuda/cuda_dnn.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define SDPA_MAX_WORKSPACE ((size_t)256 << 20)

/* ---- graphs ---- */

/* Plan of one shape; cuda->sdpas is the first of a list. */
struct rp_cuda_sdpas {
    rp_cuda_sdpas *next;
    rp_sdpa_key key; /* key.scale is read by every run */
    rp_dnn_graph graph;
    const char *recipe; /* name of the graph; NULL: cuDNN cannot */
};

/* Made in the order of the pointers of a run. */
typedef struct {
    cudnnBackendDescriptor_t q, k, v, out, scale;
    cudnnBackendDescriptor_t number[RP_CUDA_QKV_NUMBERS]; /* for e4m3 */
} sdpa_tensors;

static cudnnDataType_t type_of(const rp_sdpa_key *s)
{
    return s->narrow ? CUDNN_DATA_FP8_E4M3 : CUDNN_DATA_BFLOAT16;
}

/* [1, heads, rows, head_dim] in place: head after head within a row. */
static cudnnBackendDescriptor_t heads_tensor(rp_dnn_graph *g, const rp_sdpa_key *s, int heads,
                                             int rows, int row_stride)
{
    const int head_dim = s->head_dim;
    const int64_t dim[4] = {1, heads, rows, head_dim};
    const int64_t stride[4] = {(int64_t)rows * row_stride, head_dim, row_stride, 1};

    return rp_dnn_tensor(g, RP_DNN_MEMORY, type_of(s), dim, stride);
}

/* The same with the last two turned: [1, heads, head_dim, rows]. */
static cudnnBackendDescriptor_t turned_tensor(rp_dnn_graph *g, const rp_sdpa_key *s, int heads,
                                              int rows, int row_stride)
{
    const int head_dim = s->head_dim;
    const int64_t dim[4] = {1, heads, head_dim, rows};
    const int64_t stride[4] = {(int64_t)rows * row_stride, head_dim, 1, row_stride};

    return rp_dnn_tensor(g, RP_DNN_MEMORY, type_of(s), dim, stride);
}

static sdpa_tensors make_tensors(rp_dnn_graph *g, const rp_sdpa_key *s, bool k_turned)
{
    static const int64_t one[4] = {1, 1, 1, 1};
    sdpa_tensors t;

    t.q = heads_tensor(g, s, s->n_heads, s->n_q, s->q_stride);
    t.k = k_turned ? turned_tensor(g, s, s->n_kv_heads, s->n_kv, s->k_stride)
                   : heads_tensor(g, s, s->n_kv_heads, s->n_kv, s->k_stride);
    t.v = heads_tensor(g, s, s->n_kv_heads, s->n_kv, s->v_stride);
    t.out = heads_tensor(g, s, s->n_heads, s->n_q, s->out_stride);
    t.scale = rp_dnn_tensor(g, RP_DNN_VALUE, CUDNN_DATA_FLOAT, one, one);
    for (int i = 0; i < RP_CUDA_QKV_NUMBERS; i++) {
        t.number[i] =
            s->narrow ? rp_dnn_tensor(g, RP_DNN_MEMORY, CUDNN_DATA_FLOAT, one, one) : NULL;
    }
    return t;
}

/* Attention as one operation. */
static void build_unified(rp_dnn_graph *g, const rp_sdpa_key *s)
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
static cudnnBackendDescriptor_t between(rp_dnn_graph *g, const rp_sdpa_key *s, int n,
                                        cudnnDataType_t type)
{
    const int64_t dim[4] = {1, s->n_heads, s->n_q, n};
    const int64_t stride[4] = {(int64_t)s->n_heads * s->n_q * n, (int64_t)s->n_q * n, n, 1};

    return rp_dnn_tensor(g, RP_DNN_VIRTUAL, type, dim, stride);
}

/* A virtual tensor = x times a number. */
static cudnnBackendDescriptor_t times(rp_dnn_graph *g, const rp_sdpa_key *s, int n,
                                      cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t number)
{
    cudnnBackendDescriptor_t y = between(g, s, n, CUDNN_DATA_FLOAT);

    rp_dnn_pointwise(g, CUDNN_POINTWISE_MUL, x, number, y);
    return y;
}

/* shares = softmax(scores). The log of the sum belongs to the pattern, although nobody reads it. */
static void add_softmax(rp_dnn_graph *g, const rp_sdpa_key *s, cudnnBackendDescriptor_t scores,
                        cudnnBackendDescriptor_t shares)
{
    cudnnBackendDescriptor_t moved = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t powers = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t max = between(g, s, 1, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t sum = between(g, s, 1, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t log_sum = between(g, s, 1, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t stats = between(g, s, 1, CUDNN_DATA_FLOAT);

    add_reduction(g, CUDNN_REDUCE_TENSOR_MAX, scores, max);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_SUB, scores, max, moved);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_EXP, moved, NULL, powers);
    add_reduction(g, CUDNN_REDUCE_TENSOR_ADD, powers, sum);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL, log_sum);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_ADD, max, log_sum, stats);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_DIV, powers, sum, shares);
}

/* Attention as the operations that cuDNN knows it by. */
static void build_composite(rp_dnn_graph *g, const rp_sdpa_key *s)
{
    const sdpa_tensors t = make_tensors(g, s, true);
    cudnnBackendDescriptor_t scores = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t shares = between(g, s, s->n_kv, CUDNN_DATA_BFLOAT16);

    add_matmul(g, t.q, t.k, scores);
    add_softmax(g, s, times(g, s, s->n_kv, scores, t.scale), shares);
    add_matmul(g, shares, t.v, t.out);
}

/*
 * The same in e4m3: every number is multiplied back by its scale behind a product, shares and
 * outputs are multiplied by theirs before they are rounded. The largest share and output belong to
 * the pattern and cannot be left out, although nobody reads them.
 */
static void build_e4m3(rp_dnn_graph *g, const rp_sdpa_key *s)
{
    const sdpa_tensors t = make_tensors(g, s, true);
    cudnnBackendDescriptor_t scores = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t shares = between(g, s, s->n_kv, CUDNN_DATA_FLOAT);
    cudnnBackendDescriptor_t rounded = between(g, s, s->n_kv, CUDNN_DATA_FP8_E4M3);
    cudnnBackendDescriptor_t x = scores, y = between(g, s, s->head_dim, CUDNN_DATA_FLOAT);

    add_matmul(g, t.q, t.k, scores);
    x = times(g, s, s->n_kv, x, t.scale);
    x = times(g, s, s->n_kv, x, t.number[RP_CUDA_QKV_BACK_Q]);
    x = times(g, s, s->n_kv, x, t.number[RP_CUDA_QKV_BACK_K]);
    add_softmax(g, s, x, shares);
    add_reduction(g, CUDNN_REDUCE_TENSOR_AMAX, shares, t.number[RP_CUDA_QKV_MOST_SHARE]);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_MUL, shares, t.number[RP_CUDA_QKV_TO_SHARE], rounded);
    add_matmul(g, rounded, t.v, y);
    y = times(g, s, s->head_dim, y, t.number[RP_CUDA_QKV_BACK_SHARE]);
    y = times(g, s, s->head_dim, y, t.number[RP_CUDA_QKV_BACK_V]);
    rp_dnn_pointwise(g, CUDNN_POINTWISE_MUL, y, t.number[RP_CUDA_QKV_TO_OUT], t.out);
    add_reduction(g, CUDNN_REDUCE_TENSOR_AMAX, y, t.number[RP_CUDA_QKV_MOST_OUT]);
}

/* ---- plans ---- */

typedef struct {
    const char *name;
    bool narrow;
    size_t min_version; /* of the library that runs */
    void (*build)(rp_dnn_graph *g, const rp_sdpa_key *s);
} sdpa_recipe;

/* In the order of trying. */
static const sdpa_recipe recipes[] = {
    {"unified", false, 91301, build_unified},
    {"composite", false, 90000, build_composite},
    /* there since 9.1, tested by its makers since 9.14 */
    {"e4m3", true, 91400, build_e4m3},
};

/* 9.10.0 and 9.10.1 compute it wrongly. */
static bool sdpa_broken(size_t version)
{
    return version == 91000 || version == 91001;
}

/* Only a graph that cuDNN cannot compute leads to another way: a shortage of memory on one rank
 * must not give it other bits than the others have. */
static rp_status make_plan(rp_cuda *cuda, rp_cuda_sdpas *plan)
{
    const size_t version = cudnnGetVersion();
    char why[sizeof(plan->graph.message)] = "not in this version";
    int n_ops = 0;

    for (size_t i = 0; i < sizeof(recipes) / sizeof(recipes[0]) && !sdpa_broken(version); i++) {
        if (version < recipes[i].min_version || recipes[i].narrow != (plan->key.narrow != 0)) {
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
        n_ops = plan->graph.n_operations;
        rp_dnn_drop(&plan->graph);
    }
    RP_INFO(
        "%s: cuDNN %zu has no attention in %s for %d queries, %d keys, %d heads of %d: %s (after "
        "%d operations)",
        cuda->name, version, plan->key.narrow ? "e4m3" : "bf16", plan->key.n_q, plan->key.n_kv,
        plan->key.n_heads, plan->key.head_dim, why, n_ops);
    return RP_OK;
}

static rp_status add_plan(rp_cuda *cuda, const rp_sdpa_key *key, rp_cuda_sdpas **out)
{
    void *mem = NULL;

    if (rp_cuda_recording(cuda)) {
        return RP_FAIL(RP_E_ARG, "%s: attention of a new shape in a recorded sequence", cuda->name);
    }
    RP_TRY(rp_mem_new(1, sizeof(rp_cuda_sdpas), "an attention plan", &mem));
    rp_cuda_sdpas *plan = mem;
    plan->key = *key;
    const rp_status st = make_plan(cuda, plan);
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

rp_status rp_cuda_sdpa_find(rp_cuda *cuda, const rp_sdpa_key *key, rp_cuda_sdpas **out)
{
    rp_cuda_sdpas *plan = cuda->sdpas;

    while (plan != NULL && memcmp(&plan->key, key, sizeof(*key)) != 0) {
        plan = plan->next;
    }
    if (plan == NULL) {
        RP_TRY(add_plan(cuda, key, &plan));
    }
    *out = plan->recipe != NULL ? plan : NULL;
    return RP_OK;
}

rp_status rp_cuda_sdpa_run(rp_cuda *cuda, rp_cuda_sdpas *plan, void *pointers[SDPA_POINTERS])
{
    if (plan->graph.workspace_bytes > 0) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->workspace, plan->graph.workspace_bytes,
                                    "workspace of the attention"));
    }
    pointers[SDPA_SCALE] = &plan->key.scale;
    return RP_DNN(cuda, rp_dnn_run(&plan->graph, cuda->dnn, cuda->workspace.data, pointers));
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
