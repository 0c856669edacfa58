/* nccl_comm.c - one NCCL communicator on which nothing blocks. */
#ifdef RP_HAVE_NCCL

#include "xport/nccl_comm.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ctrl/ctrl_wait.h"
#include "xport/nccl_graphs.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cuda_runtime_api.h>
#include <nccl.h>

#define CAPTURE_MS    1000 /* for a call of NCCL to end while its work is captured */
#define ID_ADDRESS_AT 8    /* an id begins with a magic number, then the socket address of rank 0 */

_Static_assert(sizeof(ncclUniqueId) == sizeof(((rp_nccl_id *)NULL)->id), "room for an id");

enum state {
    IDLE,
    CALLED,   /* NCCL works on the call in a thread of its own */
    ON_STREAM /* the GPU does */
};

/* What an abort takes with it into a thread of its own; the communicator may be freed meanwhile. */
typedef struct aborting {
    ncclComm_t comm;
    int device;
    rp_nccl_graphs graphs;
    cudaStream_t capturing; /* or NULL */
    atomic_int over;        /* the second of the two to set it frees this */
} aborting;

struct rp_nccl_comm {
    ncclComm_t comm;
    int device;
    cudaStream_t stream;
    cudaEvent_t over;
    void *scratch;
    enum state state;
    bool to_stream;     /* what was called puts work on the stream */
    bool keeps;         /* groups, as graphs */
    aborting *aborting; /* so that an abort needs no memory; NULL once it was used */
    rp_nccl_graphs graphs;
    rp_nccl_kept *captured; /* the group whose call is being captured */
    bool stuck; /* what was aborted may still be there: the GPU's objects are left alone */
    char why[256];
};

const char *rp_nccl_why(const rp_nccl_comm *comm)
{
    return comm->why;
}

int rp_nccl_version(void)
{
    int version = 0;

    return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}

static rp_status check_nccl(rp_nccl_comm *c, ncclResult_t code, const char *call)
{
    if (code == ncclSuccess || code == ncclInProgress) {
        return RP_OK;
    }
    const char *last = ncclGetLastError(c->comm);
    const bool more = last != NULL && last[0] != '\0';
    (void)snprintf(c->why, sizeof(c->why), "%s: %s%s%.*s", call, ncclGetErrorString(code),
                   more ? ": " : "", more ? (int)strcspn(last, "\n") : 0, more ? last : "");
    return RP_E_CUDA;
}

static rp_status check_cuda(rp_nccl_comm *c, cudaError_t code, const char *call)
{
    if (code == cudaSuccess) {
        return RP_OK;
    }
    (void)snprintf(c->why, sizeof(c->why), "%s: %s", call, cudaGetErrorString(code));
    return RP_E_CUDA;
}

rp_status rp_nccl_new(bool graphs, rp_nccl_comm **out)
{
    rp_nccl_comm *c = calloc(1, sizeof(*c));

    *out = c;
    if (c == NULL) {
        return RP_E_NOMEM;
    }
    c->keeps = graphs;
    c->aborting = calloc(1, sizeof(*c->aborting));
    if (c->aborting == NULL) {
        return RP_E_NOMEM;
    }
    /* Multicast memory serves reductions, which we have none of, and cannot be had in containers.
     */
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    /* NCCL must not remember the buffers of a captured group: they may go, and others come there.
     */
    (void)setenv("NCCL_GRAPH_REGISTER", "0", 1);
    RP_TRY(check_cuda(c, cudaGetDevice(&c->device), "cudaGetDevice"));
    RP_TRY(check_cuda(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking),
                      "cudaStreamCreate"));
    RP_TRY(check_cuda(c, cudaEventCreateWithFlags(&c->over, cudaEventDisableTiming),
                      "cudaEventCreate"));
    return check_cuda(c, cudaMalloc(&c->scratch, 2), "cudaMalloc");
}

void *rp_nccl_scratch(rp_nccl_comm *c)
{
    return c->scratch;
}

void rp_nccl_free(rp_nccl_comm *c)
{
    if (c == NULL) {
        return;
    }
    rp_nccl_graphs_drop(&c->graphs);
    if (c->comm != NULL && check_nccl(c, ncclCommDestroy(c->comm), "ncclCommDestroy") != RP_OK) {
        RP_WARN("transport nccl: %s", c->why);
    }
    if (!c->stuck) {
        (void)cudaFree(c->scratch);
        (void)(c->over != NULL && cudaEventDestroy(c->over));
        (void)(c->stream != NULL && cudaStreamDestroy(c->stream));
    }
    free(c->aborting);
    free(c);
}

static const void *ip_of(const struct sockaddr *a, size_t *n)
{
    const bool v6 = a->sa_family == AF_INET6;

    *n = v6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);
    return v6 ? (const void *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr
              : (const void *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
}

static void find_interface(const struct sockaddr *address, char *name, size_t n_bytes)
{
    struct ifaddrs *all = NULL;
    size_t n = 0;
    const void *ip = ip_of(address, &n);

    (void)snprintf(name, n_bytes, "unknown interface");
    if (getifaddrs(&all) != 0) {
        return;
    }
    for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr != NULL && i->ifa_addr->sa_family == address->sa_family &&
            memcmp(ip_of(i->ifa_addr, &n), ip, n) == 0) {
            (void)snprintf(name, n_bytes, "interface %s", i->ifa_name);
            break;
        }
    }
    freeifaddrs(all);
}

/* NCCL does not say which interface it took; its id holds the address. */
static void read_where(rp_nccl_id *id)
{
    struct sockaddr_storage address = {0};
    char ip[INET6_ADDRSTRLEN] = "", name[64];
    size_t n = 0;

    memcpy(&address, id->id + ID_ADDRESS_AT, sizeof(id->id) - ID_ADDRESS_AT);
    const struct sockaddr *a = (const struct sockaddr *)&address;
    if (a->sa_family != AF_INET && a->sa_family != AF_INET6) {
        (void)snprintf(id->where, sizeof(id->where), "an interface of NCCL's choice");
        return;
    }
    (void)inet_ntop(a->sa_family, ip_of(a, &n), ip, sizeof(ip));
    find_interface(a, name, sizeof(name));
    (void)snprintf(id->where, sizeof(id->where), "%s (%s)", name, ip);
}

rp_status rp_nccl_make_id(rp_nccl_comm *c, rp_nccl_id *id)
{
    ncclUniqueId made;

    RP_TRY(check_nccl(c, ncclGetUniqueId(&made), "ncclGetUniqueId"));
    memcpy(id->id, &made, sizeof(made));
    read_where(id);
    return RP_OK;
}

static rp_status called(rp_nccl_comm *c, ncclResult_t code, const char *call, bool to_stream)
{
    RP_TRY(check_nccl(c, code, call));
    c->state = CALLED;
    c->to_stream = to_stream;
    return RP_OK;
}

rp_status rp_nccl_connect(rp_nccl_comm *c, const rp_nccl_id *id, int rank, int n_ranks)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;

    config.blocking = 0; /* only such a communicator can be aborted */
    memcpy(&unique, id->id, sizeof(unique));
    return called(c, ncclCommInitRankConfig(&c->comm, n_ranks, unique, rank, &config),
                  "ncclCommInitRankConfig", false);
}

static rp_status call_group(rp_nccl_comm *c, const rp_xfer *xfers, int n)
{
    ncclResult_t first = ncclGroupStart();

    if (first != ncclSuccess) {
        return called(c, first, "ncclGroupStart", true);
    }
    for (int i = 0; i < n; i++) {
        const rp_xfer *x = &xfers[i];
        const ncclResult_t code =
            x->send ? ncclSend(x->bytes, x->n_bytes, ncclInt8, x->peer, c->comm, c->stream)
                    : ncclRecv(x->bytes, x->n_bytes, ncclInt8, x->peer, c->comm, c->stream);
        first = first == ncclSuccess && code != ncclInProgress ? code : first;
    }
    const ncclResult_t end = ncclGroupEnd(); /* also after a failure inside: it closes the group */
    return called(c, first != ncclSuccess ? first : end, "ncclSend or ncclRecv", true);
}

/* Its work is on the stream; `over` comes behind it. */
static rp_status started(rp_nccl_comm *c)
{
    RP_TRY(check_cuda(c, cudaEventRecord(c->over, c->stream), "cudaEventRecord"));
    c->state = ON_STREAM;
    return RP_OK;
}

static rp_status launch(rp_nccl_comm *c, const rp_nccl_kept *kept)
{
    RP_TRY(check_cuda(c, cudaGraphLaunch(kept->exec, c->stream), "cudaGraphLaunch"));
    return started(c);
}

rp_status rp_nccl_group(rp_nccl_comm *c, const rp_xfer *xfers, int n)
{
    rp_nccl_kept *kept = c->keeps ? rp_nccl_graphs_find(&c->graphs, xfers, n) : NULL;

    if (kept != NULL && kept->exec != NULL) {
        return launch(c, kept);
    }
    if (kept != NULL && rp_nccl_kept_is_due(kept) && rp_nccl_kept_begin(kept, c->stream)) {
        c->captured = kept;
    }
    return call_group(c, xfers, n);
}

/* The call of a group has been captured: now it runs, as a graph or after all by a call. */
static rp_status end_capture(rp_nccl_comm *c)
{
    rp_nccl_kept *kept = c->captured;

    c->captured = NULL;
    if (rp_nccl_kept_end(kept, c->stream)) {
        return launch(c, kept);
    }
    return call_group(c, kept->xfers, kept->n);
}

rp_status rp_nccl_broadcast(rp_nccl_comm *c, void *bytes, size_t n_bytes, int root)
{
    return called(c, ncclBroadcast(bytes, bytes, n_bytes, ncclInt8, root, c->comm, c->stream),
                  "ncclBroadcast", true);
}

rp_status rp_nccl_finalize(rp_nccl_comm *c)
{
    rp_nccl_graphs_drop(&c->graphs);
    return called(c, ncclCommFinalize(c->comm), "ncclCommFinalize", false);
}

static rp_status poll_stream(rp_nccl_comm *c, bool *done)
{
    const cudaError_t code = cudaEventQuery(c->over);

    if (code == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* or the backend takes it for a failed launch of its own */
        return RP_OK;
    }
    RP_TRY(check_cuda(c, code, "waiting for the GPU"));
    c->state = IDLE;
    *done = true;
    return RP_OK;
}

rp_status rp_nccl_poll(rp_nccl_comm *c, bool *done)
{
    ncclResult_t now = ncclSuccess;

    *done = c->state == IDLE;
    if (c->state == IDLE) {
        return RP_OK;
    }
    RP_TRY(check_nccl(c, ncclCommGetAsyncError(c->comm, &now), "ncclCommGetAsyncError"));
    RP_TRY(check_nccl(c, now, "NCCL"));
    if (c->state == CALLED) {
        if (now == ncclInProgress) {
            return RP_OK; /* nothing is on the stream yet: an event there would come too early */
        }
        if (!c->to_stream) {
            c->state = IDLE;
            *done = true;
            return RP_OK;
        }
        if (c->captured != NULL) {
            RP_TRY(end_capture(c));
            return RP_OK;
        }
        RP_TRY(started(c));
    }
    return poll_stream(c, done);
}

/* ---- abort: in a thread, because it may hang in a driver that does */

/* A call that is being captured comes to its end by itself: nothing of it is on the GPU. */
static void end_open_capture(const aborting *job)
{
    ncclResult_t now = ncclInProgress;
    cudaGraph_t graph = NULL;

    for (int i = 0; i < CAPTURE_MS && now == ncclInProgress; i++) {
        if (ncclCommGetAsyncError(job->comm, &now) != ncclSuccess) {
            break;
        }
        rp_clock_sleep_us(1000);
    }
    (void)cudaStreamEndCapture(job->capturing, &graph);
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
}

/* NCCL's abort waits until no graph holds work of the communicator. One that runs is freed by CUDA
 * when it ends, and the abort ends it. */
static void abort_now(aborting *job)
{
    if (job->capturing != NULL) {
        end_open_capture(job);
    }
    rp_nccl_graphs_drop(&job->graphs);
    (void)ncclCommAbort(job->comm);
}

static void *abort_main(void *arg)
{
    aborting *job = arg;

    (void)cudaSetDevice(job->device); /* a new thread would wake up GPU 0 */
    abort_now(job);
    if (atomic_exchange(&job->over, 1) != 0) {
        free(job);
    }
    return NULL;
}

static bool wait_abort(aborting *job, double limit_s)
{
    const double start = rp_clock_now();
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;

    while (atomic_load(&job->over) == 0 && rp_clock_now() - start < limit_s) {
        rp_ctrl_wait_pause(&wait);
    }
    const bool back = atomic_exchange(&job->over, 1) != 0;
    if (back) {
        free(job);
    }
    return back;
}

bool rp_nccl_abort(rp_nccl_comm *c, double limit_s)
{
    aborting *job = c->aborting;
    bool back = true;
    pthread_t thread;

    c->state = IDLE;
    if (c->comm == NULL) {
        return true;
    }
    c->aborting = NULL;
    job->comm = c->comm;
    job->device = c->device;
    job->graphs = c->graphs;
    job->capturing = c->captured != NULL ? c->stream : NULL;
    c->graphs.n = 0;
    c->captured = NULL;
    if (pthread_create(&thread, NULL, abort_main, job) != 0) {
        abort_now(job);
        free(job);
    } else {
        (void)pthread_detach(thread);
        back = wait_abort(job, limit_s);
    }
    c->stuck = !back;
    c->comm = NULL;
    return back;
}

#endif
