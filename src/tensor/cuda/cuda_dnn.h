/*
 * cuda_dnn.h - cuDNN's graph API in C: descriptors, a plan for a graph of operations, its
 * execution.
 *
 * A graph is filled by calls that do nothing once one of them has failed; rp_dnn_compile() then
 * makes the plan, and graph->status tells whether all of it went well:
 *
 *     rp_dnn_graph *g = ...zeros...;
 *     x = rp_dnn_tensor(g, ...);  y = rp_dnn_tensor(g, ...);
 *     op = rp_dnn_make(g, ...);  rp_dnn_set_descriptor(g, op, ..., x);  ...  rp_dnn_add(g, op);
 *     rp_dnn_compile(g, handle, max_workspace);
 *     if (g->status == CUDNN_STATUS_SUCCESS) rp_dnn_run(g, handle, workspace, (void *[]){px, py});
 *     rp_dnn_drop(g);
 *
 * Nothing here logs: that a plan cannot be made is an answer, not a failure.
 */
#ifndef RP_CUDA_DNN_H
#define RP_CUDA_DNN_H

#include <cudnn.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if CUDNN_VERSION < 90000
#error "rankpool needs cuDNN 9.0 or newer"
#endif

#define RP_DNN_DESCRIPTORS 96 /* of a graph: tensors, operations, engine configurations, plan */
#define RP_DNN_OPERATIONS  20
#define RP_DNN_POINTERS    16
#define RP_DNN_CONFIGS     16 /* asked of the heuristic */

typedef enum {
    RP_DNN_MEMORY,  /* device memory, given to rp_dnn_run() */
    RP_DNN_VALUE,   /* one number in host memory, given to rp_dnn_run(), read while it runs */
    RP_DNN_VIRTUAL, /* between two operations; never in memory */
} rp_dnn_place;

typedef struct {
    cudnnBackendDescriptor_t all[RP_DNN_DESCRIPTORS]; /* in the order of their making */
    int n;
    cudnnBackendDescriptor_t operations[RP_DNN_OPERATIONS];
    int n_operations;
    int64_t n_tensors;             /* a tensor's number is its unique id, from 1 */
    int64_t uids[RP_DNN_POINTERS]; /* of the tensors that are not virtual */
    int n_uids;
    bool repeatable; /* set by the caller: no engine whose bits may differ from run to run */
    cudnnBackendDescriptor_t plan;
    size_t workspace_bytes;        /* that the plan needs */
    cudnnBackendDescriptor_t pack; /* the pointers of the last run */
    void *packed[RP_DNN_POINTERS + 1];
    cudnnStatus_t status; /* of the first call that failed */
    char message[256];    /* cuDNN's, of that call */
} rp_dnn_graph;

/* A descriptor that the graph owns; NULL after a failure. */
cudnnBackendDescriptor_t rp_dnn_make(rp_dnn_graph *g, cudnnBackendDescriptorType_t type);
void rp_dnn_set(rp_dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *values);
void rp_dnn_set_descriptor(rp_dnn_graph *g, cudnnBackendDescriptor_t d,
                           cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
void rp_dnn_finish(rp_dnn_graph *g, cudnnBackendDescriptor_t d);

/* A finished tensor of four dimensions, slowest first; strides in elements. */
cudnnBackendDescriptor_t rp_dnn_tensor(rp_dnn_graph *g, rp_dnn_place place, cudnnDataType_t type,
                                       const int64_t dim[4], const int64_t stride[4]);

/* Append y = mode(x) or, with b, y = mode(x, b), computed in f32. */
void rp_dnn_pointwise(rp_dnn_graph *g, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

/* Finish an operation and append it to the graph. */
void rp_dnn_add(rp_dnn_graph *g, cudnnBackendDescriptor_t operation);

/*
 * The plan: the first of the heuristic's configurations, best first, that this device can run with
 * at most max_workspace bytes. Nothing is measured, so the same graph has the same plan on every
 * rank. CUDNN_STATUS_NOT_SUPPORTED when there is none. May compile code: up to seconds.
 */
void rp_dnn_compile(rp_dnn_graph *g, cudnnHandle_t handle, size_t max_workspace);

/* Queue the plan on the handle's stream. pointers: of the tensors that are not virtual, in the
 * order of their making. Allocates nothing on the device. */
cudnnStatus_t rp_dnn_run(rp_dnn_graph *g, cudnnHandle_t handle, void *workspace,
                         void *const *pointers);

/* Free what the graph owns and make it empty again. */
void rp_dnn_drop(rp_dnn_graph *g);

#endif
