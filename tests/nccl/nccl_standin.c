/* nccl_standin.c - the functions of NCCL that transport nccl uses, over host memory and TCP. */
#include "nccl_standin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RANKS = 16, MAX_OPS = 256, NONE = -1 };

typedef struct {
    int peer;
    bool send;
    char *bytes;
    size_t n, done;
    int after; /* op that must be over first, or NONE */
    bool on_stream;
} op;

enum phase { CONNECTING, READY, WORKING, CLOSING };

struct ncclComm {
    int rank, n_ranks;
    struct sockaddr_in root;
    int fds[MAX_RANKS]; /* rank 0: to every other; elsewhere [0] */
    int n_linked;       /* rank 0: connections made; elsewhere 1 once connected */
    enum phase phase;
    bool ready; /* elsewhere: rank 0 has said that all are here */
    int polls;  /* to go until the phase is through */
    ncclResult_t error;
    op ops[MAX_OPS];
    int n_ops;
};

nccl_standin g_nccl;
static ncclComm_t g_comm; /* the one that lives */
static bool g_captures;   /* its work goes into a graph */
static int g_listen = NONE;
static int g_depth; /* of groups */
static ncclComm_t g_grouped;
static char g_last[128];

void nccl_standin_reset(void)
{
    const nccl_standin old = g_nccl;

    g_nccl = (nccl_standin){.n_comms = old.n_comms,
                            .n_streams = old.n_streams,
                            .n_events = old.n_events,
                            .n_blocks = old.n_blocks,
                            .n_graphs = old.n_graphs};
    g_last[0] = '\0';
}

static ncclResult_t misuse(const char *what)
{
    g_nccl.n_misuse++;
    (void)snprintf(g_last, sizeof(g_last), "%s", what);
    return ncclInvalidUsage;
}

/* ---- memory, streams and events: cuda */

typedef struct block {
    struct block *next;
    size_t n;
    char bytes[];
} block;

struct CUstream_st {
    bool captures;
};

struct CUevent_st {
    int n_ops; /* of the communicator, on the stream when it was recorded */
};

static block *g_blocks;
static cudaError_t g_cuda_last;
static cudaStream_t g_stream; /* the newest ones: what is left behind on purpose is no leak */
static cudaEvent_t g_event;

static bool on_device(const void *p, size_t n)
{
    const char *c = p;

    for (const block *b = g_blocks; b != NULL; b = b->next) {
        if (c >= b->bytes && c + n <= b->bytes + b->n) {
            return true;
        }
    }
    return false;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t last = g_cuda_last;

    g_cuda_last = cudaSuccess;
    return last;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaSuccess ? "no error" : "error of the stand-in";
}

cudaError_t cudaMalloc(void **out, size_t n)
{
    block *b = malloc(sizeof(*b) + n);

    if (b == NULL) {
        return cudaErrorMemoryAllocation;
    }
    b->n = n;
    b->next = g_blocks;
    g_blocks = b;
    g_nccl.n_blocks++;
    *out = b->bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    for (block **at = &g_blocks; *at != NULL; at = &(*at)->next) {
        block *b = *at;
        if (b->bytes == memory) {
            *at = b->next;
            free(b);
            g_nccl.n_blocks--;
            return cudaSuccess;
        }
    }
    return memory == NULL ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
    if (!on_device(kind == cudaMemcpyHostToDevice ? to : from, n)) {
        return cudaErrorInvalidValue;
    }
    memcpy(to, from, n);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    *out = flags == cudaStreamNonBlocking ? calloc(1, sizeof(**out)) : NULL;
    g_nccl.n_streams += *out != NULL;
    g_stream = *out;
    return *out != NULL ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    g_stream = g_stream == stream ? NULL : g_stream;
    free(stream);
    g_nccl.n_streams--;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    *out = flags == cudaEventDisableTiming ? calloc(1, sizeof(**out)) : NULL;
    g_nccl.n_events += *out != NULL;
    g_event = *out;
    return *out != NULL ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    g_event = g_event == event ? NULL : g_event;
    free(event);
    g_nccl.n_events--;
    return cudaSuccess;
}

/* Work that is not on the stream yet is not waited for: the event comes too early. */
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    (void)stream;
    event->n_ops = 0;
    for (int i = 0; g_comm != NULL && i < g_comm->n_ops; i++) {
        event->n_ops += g_comm->ops[i].on_stream;
        g_nccl.n_early += !g_comm->ops[i].on_stream;
    }
    return cudaSuccess;
}

/* ---- moving bytes */

static bool is_over(const op *o)
{
    return o->done == o->n;
}

/* The first of its peer and direction, and what it depends on is over. */
static bool may_move(const ncclComm_t comm, int i)
{
    const op *o = &comm->ops[i];

    for (int k = 0; k < i; k++) {
        const op *before = &comm->ops[k];
        if (before->peer == o->peer && before->send == o->send && !is_over(before)) {
            return false;
        }
    }
    return o->on_stream && !is_over(o) && (o->after == NONE || is_over(&comm->ops[o->after]));
}

static void move(ncclComm_t comm, op *o)
{
    const int fd = comm->fds[o->peer];
    const size_t left = o->n - o->done;
    const ssize_t n = o->send ? send(fd, o->bytes + o->done, left, MSG_DONTWAIT | MSG_NOSIGNAL)
                              : recv(fd, o->bytes + o->done, left, MSG_DONTWAIT);

    if (n > 0) {
        o->done += (size_t)n;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        comm->error = ncclRemoteError;
        (void)snprintf(g_last, sizeof(g_last), "connection with rank %d has ended", o->peer);
    }
}

static void progress(ncclComm_t comm)
{
    if (g_nccl.hang_group != 0 && g_nccl.n_groups >= g_nccl.hang_group) {
        return;
    }
    for (int i = 0; i < comm->n_ops; i++) {
        if (may_move(comm, i)) {
            move(comm, &comm->ops[i]);
        }
    }
}

/* ---- graphs: the operations of a group, to be done again */

struct CUgraph_st {
    struct CUgraph_st *next; /* all graphs */
    int n_ops;
    op ops[MAX_OPS];
};

static cudaGraph_t g_graphs;

static void put_on_stream(ncclComm_t comm);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    if (g_nccl.no_capture == 1 || mode != cudaStreamCaptureModeRelaxed || stream->captures) {
        g_cuda_last = cudaErrorStreamCaptureUnsupported;
        return cudaErrorStreamCaptureUnsupported;
    }
    stream->captures = true;
    g_captures = true;
    return cudaSuccess;
}

static cudaGraph_t new_graph(const op *ops, int n)
{
    cudaGraph_t graph = calloc(1, sizeof(*graph));

    graph->n_ops = n;
    memcpy(graph->ops, ops, (size_t)n * sizeof(*ops));
    graph->next = g_graphs;
    g_graphs = graph;
    g_nccl.n_graphs++;
    return graph;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    const bool bad = !stream->captures || g_nccl.no_capture == 2;

    stream->captures = false;
    g_captures = false;
    *out = bad ? NULL : new_graph(g_comm->ops, g_comm->n_ops);
    g_comm->n_ops = 0; /* nothing of it ran */
    g_comm->phase = READY;
    g_cuda_last = bad ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
    return g_cuda_last;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    (void)flags;
    *out = new_graph(graph->ops, graph->n_ops);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    (void)stream;
    if (g_comm == NULL || g_comm->n_ops != 0) {
        return cudaErrorInvalidValue;
    }
    g_nccl.n_groups++;
    g_nccl.n_launches++;
    memcpy(g_comm->ops, graph->ops, (size_t)graph->n_ops * sizeof(op));
    g_comm->n_ops = graph->n_ops;
    g_comm->phase = WORKING;
    put_on_stream(g_comm);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    for (cudaGraph_t *at = &g_graphs; *at != NULL; at = &(*at)->next) {
        if (*at == graph) {
            *at = graph->next;
            free(graph);
            g_nccl.n_graphs--;
            return g_comm != NULL ? cudaSuccess : cudaErrorInvalidValue;
        }
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    return cudaGraphDestroy(graph);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    int n_over = 0;

    if (g_comm == NULL) {
        return cudaSuccess;
    }
    progress(g_comm);
    while (n_over < g_comm->n_ops && is_over(&g_comm->ops[n_over])) {
        n_over++;
    }
    if (n_over >= event->n_ops) {
        if (n_over == g_comm->n_ops) {
            g_comm->n_ops = 0;
            g_comm->phase = READY;
        }
        return cudaSuccess;
    }
    g_cuda_last = cudaErrorNotReady;
    return cudaErrorNotReady;
}

/* ---- connecting */

ncclResult_t ncclGetVersion(int *version)
{
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n = sizeof(address);

    if (g_nccl.id_fails != ncclSuccess) {
        (void)snprintf(g_last, sizeof(g_last), "no socket interface found");
        return g_nccl.id_fails;
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (g_listen != NONE) {
        (void)close(g_listen);
    }
    g_listen = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (g_listen < 0 || bind(g_listen, (struct sockaddr *)&address, n) != 0 ||
        listen(g_listen, MAX_RANKS) != 0 ||
        getsockname(g_listen, (struct sockaddr *)&address, &n) != 0) {
        return ncclSystemError;
    }
    *id = (ncclUniqueId){{"standin"}};
    memcpy(id->internal + 8, &address, sizeof(address));
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    ncclComm_t comm = calloc(1, sizeof(*comm));

    if (comm == NULL || g_comm != NULL || n_ranks > MAX_RANKS) {
        free(comm);
        return misuse("a second communicator");
    }
    comm->rank = rank;
    comm->n_ranks = n_ranks;
    comm->polls = g_nccl.polls;
    memcpy(&comm->root, id.internal + 8, sizeof(comm->root));
    for (int r = 0; r < MAX_RANKS; r++) {
        comm->fds[r] = NONE;
    }
    g_nccl.blocking = config->blocking;
    g_nccl.n_comms++;
    g_comm = comm;
    *out = comm;
    return ncclInProgress;
}

static void take_one(ncclComm_t comm)
{
    int rank = 0;
    const int fd = accept(g_listen, NULL, NULL);

    if (fd >= 0 && recv(fd, &rank, sizeof(rank), MSG_WAITALL) == (ssize_t)sizeof(rank)) {
        comm->fds[rank] = fd;
        comm->n_linked++;
    }
}

static void join(ncclComm_t comm)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (struct sockaddr *)&comm->root, sizeof(comm->root)) != 0 ||
        send(fd, &comm->rank, sizeof(comm->rank), MSG_NOSIGNAL) < 0) {
        comm->error = ncclSystemError;
    }
    comm->fds[0] = fd;
    comm->n_linked = 1;
}

static void connect_step(ncclComm_t comm)
{
    char go = 0;

    if (g_nccl.init_hangs) {
        return;
    }
    if (g_nccl.init_fails != ncclSuccess) {
        (void)snprintf(g_last, sizeof(g_last), "no route to host");
        comm->error = g_nccl.init_fails;
        return;
    }
    if (comm->rank != 0) {
        if (comm->n_linked == 0) {
            join(comm);
        }
        comm->ready = comm->ready || recv(comm->fds[0], &go, 1, MSG_DONTWAIT) == 1;
        return;
    }
    if (comm->n_linked < comm->n_ranks - 1) {
        take_one(comm);
    }
    if (comm->n_linked == comm->n_ranks - 1 && !comm->ready) {
        for (int r = 1; r < comm->n_ranks; r++) {
            (void)send(comm->fds[r], &go, 1, MSG_NOSIGNAL);
        }
        comm->ready = true;
    }
}

/* ---- calls that go on by themselves */

static void put_on_stream(ncclComm_t comm)
{
    for (int i = 0; i < comm->n_ops; i++) {
        comm->ops[i].on_stream = !g_captures;
    }
    if (g_nccl.fail_group != 0 && g_nccl.n_groups >= g_nccl.fail_group) {
        comm->error = ncclSystemError;
        (void)snprintf(g_last, sizeof(g_last), "the network card is gone");
    }
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    bool through = true;

    if (comm->phase == CONNECTING && comm->error == ncclSuccess) {
        connect_step(comm);
        through = comm->ready;
    }
    if (comm->error == ncclSuccess && (comm->polls > 0 || !through)) {
        comm->polls -= comm->polls > 0;
        *error = ncclInProgress;
        return ncclSuccess;
    }
    if (comm->phase == WORKING && comm->error == ncclSuccess) {
        put_on_stream(comm);
        progress(comm);
    } else if (comm->phase == CONNECTING && comm->error == ncclSuccess) {
        comm->phase = READY;
    }
    *error = comm->error;
    return ncclSuccess;
}

static void release(ncclComm_t comm)
{
    for (int r = 0; r < MAX_RANKS; r++) {
        if (comm->fds[r] != NONE) {
            (void)close(comm->fds[r]);
        }
    }
    free(comm);
    g_comm = NULL;
    g_nccl.n_comms--;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    if (comm->phase != READY || comm->polls > 0) {
        return misuse("finalize of a communicator at work");
    }
    comm->phase = CLOSING;
    comm->polls = g_nccl.polls;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    const ncclResult_t st =
        comm->phase == CLOSING && comm->polls == 0 ? ncclSuccess : misuse("destroy too early");

    release(comm);
    return st;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    const struct timespec wait = {(time_t)g_nccl.abort_s,
                                  (long)((g_nccl.abort_s - (double)(time_t)g_nccl.abort_s) * 1e9)};

    (void)nanosleep(&wait, NULL);
    if (g_captures || g_graphs != NULL) {
        (void)misuse("NCCL would wait for its graphs for ever");
    }
    g_nccl.n_aborts++;
    release(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[] = {"no error",
                                       "unhandled cuda error",
                                       "unhandled system error",
                                       "internal error",
                                       "invalid argument",
                                       "invalid usage",
                                       "remote process exited or there was a network error",
                                       "NCCL operation in progress"};

    return text[result];
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return g_last;
}

/* ---- transfers */

ncclResult_t ncclGroupStart(void)
{
    g_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (g_depth == 0) {
        return misuse("end of a group that never began");
    }
    if (--g_depth > 0 || g_grouped == NULL) {
        return ncclSuccess;
    }
    g_nccl.n_groups++;
    g_grouped->phase = WORKING;
    g_grouped->polls = g_nccl.polls;
    g_grouped = NULL;
    return ncclInProgress;
}

static ncclResult_t add(ncclComm_t comm, int peer, bool send, void *bytes, size_t n, int after)
{
    if (comm->n_ops == MAX_OPS || !on_device(bytes, n)) {
        return misuse("memory that is not the device's");
    }
    comm->ops[comm->n_ops++] =
        (op){.peer = peer, .send = send, .bytes = bytes, .n = n, .after = after};
    return ncclSuccess;
}

static ncclResult_t begin(ncclComm_t comm)
{
    if (comm->phase != READY || comm->polls > 0) {
        return misuse("a call on a communicator at work");
    }
    g_depth++;
    g_grouped = comm;
    return ncclSuccess;
}

static ncclResult_t one(ncclComm_t comm, int peer, bool send, void *bytes, size_t n)
{
    ncclResult_t st = begin(comm);

    if (st == ncclSuccess) {
        st = add(comm, peer, send, bytes, n, NONE);
        const ncclResult_t end = ncclGroupEnd();
        st = st == ncclSuccess ? end : st;
    }
    return st;
}

ncclResult_t ncclSend(const void *bytes, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)type;
    (void)stream;
    return one(comm, peer, true, (void *)(size_t)bytes, n);
}

ncclResult_t ncclRecv(void *bytes, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)type;
    (void)stream;
    return one(comm, peer, false, bytes, n);
}

/* By way of rank 0, which is the only one with a connection to all. */
ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t st = begin(comm);

    (void)type;
    (void)stream;
    if (st != ncclSuccess || from != to) {
        return ncclInvalidUsage;
    }
    if (comm->rank != 0) {
        st = add(comm, 0, comm->rank == root, to, n, NONE);
    } else {
        st = root != 0 ? add(comm, root, false, to, n, NONE) : ncclSuccess;
        for (int r = 1; r < comm->n_ranks && st == ncclSuccess; r++) {
            st = r != root ? add(comm, r, true, to, n, root != 0 ? 0 : NONE) : st;
        }
    }
    const ncclResult_t end = ncclGroupEnd();
    return st != ncclSuccess ? st : end;
}
