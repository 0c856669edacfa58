/*
 * ctrl_ops.h - what an implementation of control provides, and what ctrl.c keeps about an open one.
 *
 * Private to ctrl/. Adding an implementation: ctrl_<name>.c with a row, one line in ctrl_list.c.
 */
#ifndef RP_CTRL_OPS_H
#define RP_CTRL_OPS_H

#include "ctrl/ctrl.h"
#include "ctrl/ctrl_launch.h"
#include "ctrl/ctrl_watch.h"

#include <stdint.h>

/* Where this process stands among the ranks. */
typedef struct {
    int rank, n_ranks;
    int local_rank, n_local;
    int node; /* the lowest rank of this node: equal on ranks that share memory */
} rp_ctrl_place;

enum { RP_CTRL_TAG_MESSAGE = 1, RP_CTRL_TAG_REPLY = 2 };

typedef struct rp_ctrl_ops {
    const char *name;

    /* Is this the one for a process that was started like this? No side effects. */
    bool (*wanted)(const rp_ctrl_launch *launch, bool force_mpi);

    /* Collective. Outputs on success only. */
    rp_status (*open)(const rp_ctrl_launch *launch, rp_ctrl_place *place_out, void **self_out);
    void (*close)(void *self);
    void (*abort)(void *self, int exit_code);

    /* Collective; as the public functions. */
    rp_status (*barrier)(void *self);
    rp_status (*bcast)(void *self, void *bytes, size_t n_bytes);
    rp_status (*gather)(void *self, const void *mine, size_t n_bytes, void *all);
    rp_status (*allgather)(void *self, const void *mine, size_t n_bytes, void *all);

    /* One message of at most RP_CTRL_MESSAGE_BYTES; messages of one pair and tag keep their order.
     */
    rp_status (*send)(void *self, int to, int tag, const void *bytes, size_t n_bytes);
    rp_status (*recv)(void *self, int from, int tag, void *bytes, size_t max_bytes, size_t *n_out);

    const void *(*native)(const void *self);
} rp_ctrl_ops;

/* All implementations of this build, ended by NULL; the first wanted one is taken. */
extern const rp_ctrl_ops *const rp_ctrl_list[];

/* What every rank knows about every rank. */
typedef struct {
    char host[RP_CTRL_HOST_BYTES];
    int32_t pid, node;
} rp_ctrl_peer;

/* One rank's part of an agreement. */
typedef struct {
    int32_t status;
    char text[RP_CTRL_TEXT_BYTES];
} rp_ctrl_vote;

struct rp_ctrl {
    const rp_ctrl_ops *ops;
    void *self;
    rp_ctrl_place place;
    rp_ctrl_peer *peers;  /* [n_ranks] */
    rp_ctrl_vote *votes;  /* [n_ranks] */
    rp_ctrl_watch *watch; /* NULL: one rank, or it could not be set up */
};

#endif
