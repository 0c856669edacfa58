/*
 * nccl_comm.h - one NCCL communicator on which nothing blocks: a call is made, then polled.
 *
 * Knows NCCL and CUDA, not deadlines or other ranks' troubles. Functions that return a status do
 * not log: the caller knows who was at the other end, and takes the cause from rp_nccl_why(). After
 * a failure only abort and free are left.
 */
#ifndef RP_NCCL_COMM_H
#define RP_NCCL_COMM_H

#include "xport/xport.h"

#include <stddef.h>

typedef struct rp_nccl_comm rp_nccl_comm;

/* What rank 0 makes and all ranks connect by. */
typedef struct {
    char id[128]; /* ncclUniqueId */
    char
        where[128]; /* the interface and address on which rank 0 waits for the others, for people */
} rp_nccl_id;

/* An unconnected communicator and a stream of its own on the GPU that is bound. graphs: groups that
 * repeat are launched as CUDA graphs (nccl_graphs.h). Free with
 * rp_nccl_free, also after a failure unless *out is NULL. RP_E_NOMEM, RP_E_CUDA. */
rp_status rp_nccl_new(bool graphs, rp_nccl_comm **out);
void rp_nccl_free(rp_nccl_comm *comm); /* NULL is allowed */

/* 2 bytes of memory of the GPU, for warming up. Borrowed. */
void *rp_nccl_scratch(rp_nccl_comm *comm);

/* Rank 0: a new id; NCCL listens from now on. */
rp_status rp_nccl_make_id(rp_nccl_comm *comm, rp_nccl_id *id);

/* These begin; rp_nccl_poll tells when they are over. One at a time. */
rp_status rp_nccl_connect(rp_nccl_comm *comm, const rp_nccl_id *id, int rank, int n_ranks);
rp_status rp_nccl_group(rp_nccl_comm *comm, const rp_xfer *xfers, int n);
rp_status rp_nccl_broadcast(rp_nccl_comm *comm, void *bytes, size_t n_bytes, int root);
rp_status rp_nccl_finalize(rp_nccl_comm *comm); /* collective; before rp_nccl_free */

/* Is what was begun over, its data in its place? True too when nothing was. */
rp_status rp_nccl_poll(rp_nccl_comm *comm, bool *done);

/* End all that is under way here; the peers must do the same. False: it did not come back within
 * limit_s and goes on by itself; the GPU may stay busy. */
bool rp_nccl_abort(rp_nccl_comm *comm, double limit_s);

/* Why the last call failed. Borrowed. */
const char *rp_nccl_why(const rp_nccl_comm *comm);

/* NCCL's version as a number, 22809 for 2.28.9; 0 when it cannot tell. */
int rp_nccl_version(void);

#endif
