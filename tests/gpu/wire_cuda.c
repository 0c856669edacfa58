/* wire_cuda.c - wire_device.h with CUDA and NCCL, called as plainly as can be. */
#include "wire_device.h"

#include "base/check.h"
#include "base/log.h"
#include "xport/xport_nccl.h"

#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>
#include <nccl.h>

struct wire_plain {
    ncclComm_t comm;
    cudaStream_t stream;
    cudaGraphExec_t graphs[2];
};

static rp_status check_cuda(cudaError_t code, const char *call)
{
    return code == cudaSuccess ? RP_OK
                               : RP_FAIL(RP_E_CUDA, "%s: %s", call, cudaGetErrorString(code));
}

static rp_status check_nccl(ncclResult_t code, const char *call)
{
    return code == ncclSuccess ? RP_OK
                               : RP_FAIL(RP_E_CUDA, "%s: %s: %s", call, ncclGetErrorString(code),
                                         ncclGetLastError(NULL));
}

/* ---- memory */

static bool g_has_gpu; /* else all memory is the host's, as in wire_host.c */

int wire_bind(int local_rank)
{
    int n = 0;

    g_has_gpu = cudaGetDeviceCount(&n) == cudaSuccess && n > 0 &&
                cudaSetDevice(local_rank % n) == cudaSuccess;
    (void)cudaGetLastError();
    return g_has_gpu ? n : 0;
}

void *wire_alloc(bool on_device, size_t n_bytes)
{
    void *memory = NULL;

    if (!g_has_gpu) {
        return on_device ? NULL : malloc(n_bytes);
    }
    if ((on_device ? cudaMalloc(&memory, n_bytes) : cudaMallocHost(&memory, n_bytes)) !=
        cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    return memory;
}

void wire_release(bool on_device, void *memory)
{
    if (!g_has_gpu) {
        free(memory);
    } else {
        (void)(on_device ? cudaFree(memory) : cudaFreeHost(memory));
    }
}

rp_status wire_copy(void *to, const void *from, size_t n_bytes)
{
    if (!g_has_gpu) {
        memcpy(to, from, n_bytes);
        return RP_OK;
    }
    RP_TRY(check_cuda(cudaMemcpy(to, from, n_bytes, cudaMemcpyDefault), "cudaMemcpy"));
    /* between two places of the GPU it may return before all is there */
    return check_cuda(cudaStreamSynchronize(NULL), "cudaStreamSynchronize");
}

/* ---- transfers */

rp_status wire_plain_open(rp_ctrl *ctrl, wire_plain **out)
{
    wire_plain *plain = calloc(1, sizeof(*plain));
    ncclUniqueId id = {{0}};
    rp_status st = plain == NULL ? RP_FAIL(RP_E_NOMEM, "no memory") : RP_OK;

    /* as rankpool's own communicator (nccl_comm.c) */
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    if (st == RP_OK) {
        st = check_cuda(cudaStreamCreateWithFlags(&plain->stream, cudaStreamNonBlocking),
                        "cudaStreamCreate");
    }
    if (st == RP_OK && rp_ctrl_rank(ctrl) == 0) {
        st = check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    }
    RP_TRY_OUT(rp_ctrl_agree(ctrl, st, "plain NCCL"));
    RP_TRY_OUT(rp_ctrl_bcast(ctrl, &id, sizeof(id)));
    RP_TRY_OUT(
        check_nccl(ncclCommInitRank(&plain->comm, rp_ctrl_n_ranks(ctrl), id, rp_ctrl_rank(ctrl)),
                   "ncclCommInitRank"));
    *out = plain;
    plain = NULL;

out:
    wire_plain_close(plain);
    return st;
}

static void drop_graph(wire_plain *plain, int which)
{
    if (plain->graphs[which] != NULL) {
        (void)cudaGraphExecDestroy(plain->graphs[which]);
        plain->graphs[which] = NULL;
    }
}

void wire_plain_close(wire_plain *plain)
{
    if (plain == NULL) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        drop_graph(plain, i); /* first: a communicator waits for the graphs that use it */
    }
    if (plain->comm != NULL) {
        (void)ncclCommDestroy(plain->comm);
    }
    if (plain->stream != NULL) {
        (void)cudaStreamDestroy(plain->stream);
    }
    free(plain);
}

static rp_status post(const wire_plain *plain, const rp_xfer *x)
{
    return x->send ? check_nccl(ncclSend(x->bytes, x->n_bytes, ncclInt8, x->peer, plain->comm,
                                         plain->stream),
                                "ncclSend")
                   : check_nccl(ncclRecv(x->bytes, x->n_bytes, ncclInt8, x->peer, plain->comm,
                                         plain->stream),
                                "ncclRecv");
}

static rp_status group(const wire_plain *plain, const rp_xfer *xfers, int n)
{
    RP_TRY(check_nccl(ncclGroupStart(), "ncclGroupStart"));
    for (int i = 0; i < n; i++) {
        RP_TRY(post(plain, &xfers[i]));
    }
    return check_nccl(ncclGroupEnd(), "ncclGroupEnd");
}

static rp_status wait_for(const wire_plain *plain)
{
    return check_cuda(cudaStreamSynchronize(plain->stream), "cudaStreamSynchronize");
}

rp_status wire_plain_move(wire_plain *plain, const rp_xfer *xfers, int n)
{
    RP_TRY(group(plain, xfers, n));
    return wait_for(plain);
}

rp_status wire_plain_record(wire_plain *plain, int which, const rp_xfer *xfers, int n)
{
    cudaGraph_t graph = NULL;

    drop_graph(plain, which);
    RP_TRY(check_cuda(cudaStreamBeginCapture(plain->stream, cudaStreamCaptureModeThreadLocal),
                      "cudaStreamBeginCapture"));
    rp_status st = group(plain, xfers, n);
    const cudaError_t end = cudaStreamEndCapture(plain->stream, &graph); /* whatever st is */
    st = st == RP_OK ? check_cuda(end, "cudaStreamEndCapture") : st;
    if (st == RP_OK) {
        st = check_cuda(cudaGraphInstantiate(&plain->graphs[which], graph, 0),
                        "cudaGraphInstantiate");
    }
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    return st;
}

void wire_nccl_graphs(bool on)
{
    rp_xport_nccl_graphs(on);
}

rp_status wire_plain_replay(wire_plain *plain, int which)
{
    RP_TRY(check_cuda(cudaGraphLaunch(plain->graphs[which], plain->stream), "cudaGraphLaunch"));
    return wait_for(plain);
}
