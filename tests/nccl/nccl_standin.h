/*
 * nccl_standin.h - how the stand-in for NCCL behaves in this process, and what it has seen.
 *
 * It moves bytes of host memory over TCP on the loopback interface, rank 0 in the middle. Work is
 * on "the stream" only once ncclCommGetAsyncError has said ncclSuccess, as with a non-blocking
 * communicator of NCCL; bytes move while events or errors are asked for. One communicator at a
 * time.
 */
#ifndef RP_NCCL_STANDIN_H
#define RP_NCCL_STANDIN_H

#include <nccl.h>

#include <stdbool.h>

typedef struct {
    /* behaviour */
    int polls;               /* every call says ncclInProgress so many times before it is through */
    ncclResult_t id_fails;   /* result of ncclGetUniqueId */
    ncclResult_t init_fails; /* what connecting ends with, when not ncclSuccess */
    bool init_hangs;
    int fail_group; /* the asynchronous error comes with this group or broadcast, counted from 1 */
    int hang_group; /* nothing moves any more from this one on */
    double abort_s; /* ncclCommAbort takes so long */
    int no_capture; /* 1: a capture cannot begin; 2: it cannot end */

    /* seen */
    int n_groups, n_aborts; /* groups: called, or launched as a graph */
    int n_launches;         /* of graphs */
    int n_early;            /* events recorded while their work was not on the stream yet */
    int n_misuse; /* calls on a communicator that was not ready for them, memory not of the device
                   */
    int blocking; /* of the newest communicator's configuration */
    int n_comms, n_streams, n_events, n_blocks, n_graphs; /* alive */
} nccl_standin;

extern nccl_standin g_nccl;

/* Forget behaviour and counts, except of what is alive. */
void nccl_standin_reset(void);

#endif
