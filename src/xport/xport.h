/*
 * xport.h - payload transports: move slots of bytes between rank 0 and the others.
 *
 * A transport knows bytes and ranks; it does not know images, branches or models. A wave is one
 * group of transfers out and one group back; sizes may differ and ranks without work are skipped.
 * Adding one: xport_<name>.c with a row, one line in xport_list.c; tests/mpi/test_xport.c then runs
 * against it.
 */
#ifndef RP_XPORT_H
#define RP_XPORT_H

#include "ctrl/ctrl.h"

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>

/* One transfer with a peer; rank 0 is one of the two ends. */
typedef struct {
    int peer;
    bool send;      /* else receive */
    void *bytes;    /* the row's kind of memory, borrowed until the group is done; only read when
                     * send. Ready when the group starts: nothing is still writing or reading it */
    size_t n_bytes; /* > 0 */
} rp_xfer;

typedef struct rp_xport_ops {
    const char *name; /* as in --transport */
    const char *help; /* one line */

    /* It moves memory of the GPU that this thread had bound at open; else it moves host memory. */
    bool on_device;

    /* Could this transport work between these ranks? Called before open; no side effects. */
    bool (*usable)(const rp_ctrl *ctrl);

    /* Collective over all ranks; connects and warms up every pair (0, r). *self_out on success
     * only. Fails on all ranks or on none: RP_E_PEER, without a line in the log, is that of ranks
     * that only know of another's failure. */
    rp_status (*open)(rp_ctrl *ctrl, void **self_out);

    /* Begin a group of transfers. Both ends list theirs in the same order per pair, with the same
     * sizes: mpi says RP_E_MPI when they differ, nccl only runs into its deadline. At most one
     * group is under way. It may wait for finish: no rank relies on a group that its peer only
     * started. */
    rp_status (*start)(void *self, const rp_xfer *xfers, int n);

    /* Finish it. With `block` false returns at once and says by *done whether it is finished. */
    rp_status (*finish)(void *self, bool block, bool *done);

    /* Collective. `root`'s n_bytes to the same place of all ranks; blocks. The row's kind of
     * memory, any size, for weights: no group is under way. */
    rp_status (*broadcast)(void *self, void *bytes, size_t n_bytes, int root);

    /* Make room for groups of up to n transfers, so that start allocates nothing. */
    rp_status (*reserve)(void *self, int n);

    /* Collective. NULL is allowed. Never fails; complains in the log. */
    void (*close)(void *self);
} rp_xport_ops;

/* All transports of this build, best first, ended by NULL. */
extern const rp_xport_ops *const rp_xport_list[];

/* The row for a name, or for "auto" the first usable one that moves the memory that the backend
 * computes in (`on_device`), else the first usable one. One rank may name any: what cannot serve it
 * gives way to local. RP_E_ARG (unknown; says which are known),
 * RP_E_UNSUP (not usable with so many ranks, or moves GPU memory and there is none). */
rp_status rp_xport_choose(const char *name, const rp_ctrl *ctrl, bool on_device,
                          const rp_xport_ops **out);

/* Collective, before anything is opened: do all ranks take the same row? Environments may differ
 * from host to host, and ranks of two transports would wait for each other. RP_E_UNSUP on all
 * ranks; rank 0 logs which rank takes another one. RP_E_MPI. */
rp_status rp_xport_agree(rp_ctrl *ctrl, const rp_xport_ops *mine);

#endif
