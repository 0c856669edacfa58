/*
 * nccl_wait.h - an open transport nccl, and how it waits: polling, with an ear for the other ranks
 * and an eye on the clock. A rank that gives up rings the alarm and aborts its communicator.
 */
#ifndef RP_NCCL_WAIT_H
#define RP_NCCL_WAIT_H

#include "xport/nccl_comm.h"
#include "xport/xport_alarm.h"

#include <stdint.h>

enum { RP_NCCL_ALL = -1 };

typedef struct {
    const rp_ctrl *ctrl;
    int rank, n_ranks;
    rp_nccl_comm *comm;
    rp_nccl_id id;
    rp_xport_alarm *alarm;
    double open_s, group_s;
    bool opening, broken;
    int32_t *votes; /* [n_ranks] */

    int capacity, n; /* n: transfers under way */
    rp_xfer *xfers;  /* [capacity] */
    bool held;       /* they begin in finish */
    int with;        /* rank at the other end, or RP_NCCL_ALL */
    double limit_s, give_up_at;
} rp_nccl_state;

/* From now on: waiting for rank `with` or for RP_NCCL_ALL, at most limit_s. */
void rp_nccl_begin_wait(rp_nccl_state *self, int with, double limit_s);

/* Wait for what is under way. After a failure it is given up. RP_E_CUDA (logged), RP_E_PEER
 * (another rank has failed and says why). */
rp_status rp_nccl_wait(rp_nccl_state *self, bool block, bool *done);

/* The same for a call just made, which gave `st`. */
rp_status rp_nccl_over(rp_nccl_state *self, rp_status st);

/* Ring the alarm and log why, for `st`; but RP_E_PEER, in silence, when another rank has rung: its
 * failure is the cause of this one. */
rp_status rp_nccl_fail(const rp_nccl_state *self, rp_status st, const char *why);

/* Abort; after this the transport only closes. */
void rp_nccl_give_up(rp_nccl_state *self);

#endif
