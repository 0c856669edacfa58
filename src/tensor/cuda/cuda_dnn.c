/*
 * cuda_dnn.c - cuDNN's graph API in C.
 *
 * All descriptors live until the graph is dropped: a plan may refer to those it was made from.
 */
#include "tensor/cuda/cuda_dnn.h"

#include <cuda_runtime_api.h>

#include <string.h>

/* Alignment that is promised for the memory of every tensor. */
#define ALIGNMENT 16

static void note(rp_dnn_graph *g, cudnnStatus_t status)
{
    if (g->status == CUDNN_STATUS_SUCCESS && status != CUDNN_STATUS_SUCCESS) {
        g->status = status;
        cudnnGetLastErrorString(g->message, sizeof(g->message));
    }
}

cudnnBackendDescriptor_t rp_dnn_make(rp_dnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;

    if (g->status != CUDNN_STATUS_SUCCESS) {
        return NULL;
    }
    if (g->n == RP_DNN_DESCRIPTORS) {
        note(g, CUDNN_STATUS_BAD_PARAM);
        return NULL;
    }
    note(g, cudnnBackendCreateDescriptor(type, &d));
    if (g->status != CUDNN_STATUS_SUCCESS) {
        return NULL;
    }
    g->all[g->n++] = d;
    return d;
}

void rp_dnn_set(rp_dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    if (g->status == CUDNN_STATUS_SUCCESS) {
        note(g, cudnnBackendSetAttribute(d, name, type, n, values));
    }
}

void rp_dnn_set_descriptor(rp_dnn_graph *g, cudnnBackendDescriptor_t d,
                           cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    rp_dnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void rp_dnn_finish(rp_dnn_graph *g, cudnnBackendDescriptor_t d)
{
    if (g->status == CUDNN_STATUS_SUCCESS) {
        note(g, cudnnBackendFinalize(d));
    }
}

cudnnBackendDescriptor_t rp_dnn_tensor(rp_dnn_graph *g, rp_dnn_place place, cudnnDataType_t type,
                                       const int64_t dim[4], const int64_t stride[4])
{
    cudnnBackendDescriptor_t d = rp_dnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t uid = ++g->n_tensors;
    const int64_t alignment = ALIGNMENT;
    const bool yes = true;

    rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim);
    rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (place == RP_DNN_VIRTUAL) {
        rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    } else if (g->n_uids < RP_DNN_POINTERS) {
        g->uids[g->n_uids++] = uid;
    } else {
        note(g, CUDNN_STATUS_BAD_PARAM);
    }
    if (place == RP_DNN_VALUE) {
        rp_dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    }
    rp_dnn_finish(g, d);
    return d;
}

void rp_dnn_add(rp_dnn_graph *g, cudnnBackendDescriptor_t operation)
{
    rp_dnn_finish(g, operation);
    if (g->status != CUDNN_STATUS_SUCCESS) {
        return;
    }
    if (g->n_operations == RP_DNN_OPERATIONS) {
        note(g, CUDNN_STATUS_BAD_PARAM);
        return;
    }
    g->operations[g->n_operations++] = operation;
}

void rp_dnn_pointwise(rp_dnn_graph *g, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t kind = rp_dnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    rp_dnn_set(g, kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    rp_dnn_set(g, kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    rp_dnn_finish(g, kind);

    cudnnBackendDescriptor_t op = rp_dnn_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    if (b != NULL) {
        rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    }
    rp_dnn_add(g, op);
}

/* The heuristic's configurations, best first; how many. */
static int propose(rp_dnn_graph *g, cudnnHandle_t handle,
                   cudnnBackendDescriptor_t configs[RP_DNN_CONFIGS])
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t graph = rp_dnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    int64_t n = 0;

    rp_dnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
               g->n_operations, g->operations);
    rp_dnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    rp_dnn_finish(g, graph);

    cudnnBackendDescriptor_t heuristic = rp_dnn_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    rp_dnn_set_descriptor(g, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    rp_dnn_set(g, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    rp_dnn_finish(g, heuristic);
    for (int i = 0; i < RP_DNN_CONFIGS; i++) {
        configs[i] = rp_dnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    }
    if (g->status == CUDNN_STATUS_SUCCESS) {
        note(g,
             cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, RP_DNN_CONFIGS, &n, configs));
    }
    if (g->status != CUDNN_STATUS_SUCCESS) {
        return 0;
    }
    return n < RP_DNN_CONFIGS ? (int)n : RP_DNN_CONFIGS;
}

/* Plan of a configuration; *bytes: its workspace. */
static cudnnStatus_t try_config(cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t plan,
                                int64_t *bytes)
{
    cudnnStatus_t st = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (st == CUDNN_STATUS_SUCCESS) {
        st = cudnnBackendFinalize(plan);
    }
    if (st == CUDNN_STATUS_SUCCESS) {
        st = cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                      CUDNN_TYPE_INT64, 1, NULL, bytes);
    }
    return st;
}

/* Not one that may add in another order the next time? What cannot be asked is taken for good. */
static bool repeatable(cudnnBackendDescriptor_t config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendDescriptor_t engine = NULL;
    int64_t n_engines = 0, n = 0;
    bool good = true;

    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS) {
        return true;
    }
    if (cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &n_engines, &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n,
                                 notes) == CUDNN_STATUS_SUCCESS) {
        for (int64_t i = 0; i < n; i++) {
            good = good && notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
        }
    }
    cudnnBackendDestroyDescriptor(engine);
    return good;
}

static void choose(rp_dnn_graph *g, int n, const cudnnBackendDescriptor_t *configs,
                   size_t max_workspace)
{
    cudnnStatus_t last = CUDNN_STATUS_NOT_SUPPORTED;

    for (int i = 0; i < n; i++) {
        cudnnBackendDescriptor_t plan = NULL;
        int64_t bytes = 0;
        if (g->repeatable && !repeatable(configs[i])) {
            continue;
        }
        cudnnStatus_t st =
            cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
        if (st == CUDNN_STATUS_SUCCESS) {
            st = try_config(configs[i], plan, &bytes);
        }
        if (st == CUDNN_STATUS_SUCCESS && (bytes < 0 || (uint64_t)bytes > max_workspace)) {
            st = CUDNN_STATUS_NOT_SUPPORTED;
        }
        if (st == CUDNN_STATUS_SUCCESS) {
            g->plan = plan;
            g->workspace_bytes = (size_t)bytes;
            return;
        }
        last = st;
        if (plan != NULL) {
            cudnnBackendDestroyDescriptor(plan);
        }
        if (st == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
            st == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED) {
            break; /* short memory must not choose another kernel, which has other bits */
        }
    }
    note(g, last);
}

void rp_dnn_compile(rp_dnn_graph *g, cudnnHandle_t handle, size_t max_workspace)
{
    /* trying what this device cannot do may leave an error behind that is nobody's */
    const cudaError_t before = cudaPeekAtLastError();
    cudnnBackendDescriptor_t configs[RP_DNN_CONFIGS];
    const int n = propose(g, handle, configs);

    if (g->status == CUDNN_STATUS_SUCCESS) {
        choose(g, n, configs, max_workspace);
    }
    if (before == cudaSuccess) {
        (void)cudaGetLastError(); /* also when a later configuration could */
    }
}

/* A pack of these pointers and this workspace; a finished one cannot be changed. */
static cudnnStatus_t make_pack(rp_dnn_graph *g, void *workspace, void *const *pointers)
{
    cudnnBackendDescriptor_t pack = NULL;
    cudnnStatus_t st = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);

    if (st != CUDNN_STATUS_SUCCESS) {
        return st;
    }
    st = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                  g->n_uids, g->uids);
    if (st == CUDNN_STATUS_SUCCESS) {
        st = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                      CUDNN_TYPE_VOID_PTR, g->n_uids, pointers);
    }
    if (st == CUDNN_STATUS_SUCCESS) {
        st = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
                                      1, &workspace);
    }
    if (st == CUDNN_STATUS_SUCCESS) {
        st = cudnnBackendFinalize(pack);
    }
    if (st != CUDNN_STATUS_SUCCESS) {
        cudnnBackendDestroyDescriptor(pack);
        return st;
    }
    if (g->pack != NULL) {
        cudnnBackendDestroyDescriptor(g->pack);
    }
    g->pack = pack;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t rp_dnn_run(rp_dnn_graph *g, cudnnHandle_t handle, void *workspace,
                         void *const *pointers)
{
    void *wanted[RP_DNN_POINTERS + 1] = {workspace};

    memcpy(wanted + 1, pointers, (size_t)g->n_uids * sizeof(*pointers));
    if (g->pack == NULL || memcmp(wanted, g->packed, sizeof(wanted)) != 0) {
        const cudnnStatus_t st = make_pack(g, workspace, pointers);
        if (st != CUDNN_STATUS_SUCCESS) {
            return st;
        }
        memcpy(g->packed, wanted, sizeof(wanted));
    }
    return cudnnBackendExecute(handle, g->plan, g->pack);
}

void rp_dnn_drop(rp_dnn_graph *g)
{
    if (g->pack != NULL) {
        cudnnBackendDestroyDescriptor(g->pack);
    }
    if (g->plan != NULL) {
        cudnnBackendDestroyDescriptor(g->plan);
    }
    while (g->n > 0) {
        cudnnBackendDestroyDescriptor(g->all[--g->n]);
    }
    *g = (rp_dnn_graph){0};
}
