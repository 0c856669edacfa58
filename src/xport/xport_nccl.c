/*
 * xport_nccl.c - payload between GPUs over NCCL.
 *
 * A group of transfers is one NCCL group of sends and receives: sizes may differ, ranks without
 * work are not in it. Control (id, agreement, alarm) goes over MPI, which never sees GPU memory.
 *
 * No call of NCCL is waited for: it is polled, and between two polls this rank looks whether
 * another one has given up and whether its own time is over. A rank that gives up rings the alarm
 * and aborts its communicator; all others hear it and do the same. After that the transport only
 * closes.
 */
#if defined(RP_HAVE_NCCL) && defined(RP_HAVE_MPI)

#include "xport/xport_nccl.h"
#include "xport/xport.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "xport/nccl_wait.h"

#include <math.h>
#include <stdlib.h>

#define OPEN_S      60.0
#define GROUP_S     300.0
#define PIECE_BYTES ((size_t)1 << 30)

static double g_open_s = OPEN_S, g_group_s = GROUP_S;
static bool g_graphs = true;

void rp_xport_nccl_limits(double open_s, double group_s)
{
    g_open_s = open_s > 0 ? open_s : OPEN_S;
    g_group_s = group_s > 0 ? group_s : GROUP_S;
}

void rp_xport_nccl_graphs(bool on)
{
    g_graphs = on;
}

static bool nccl_usable(const rp_ctrl *ctrl)
{
    return rp_ctrl_native(ctrl) != NULL;
}

/* ---- groups */

static rp_status nccl_reserve(void *self_, int n)
{
    rp_nccl_state *self = self_;

    if (n <= self->capacity) {
        return RP_OK;
    }
    if (self->n != 0) {
        return RP_FAIL(RP_E_ARG, "cannot reserve while %d transfers are under way", self->n);
    }
    rp_xfer *xfers = calloc((size_t)n, sizeof(*xfers));
    if (xfers == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for %d transfers", n);
    }
    free(self->xfers);
    self->xfers = xfers;
    self->capacity = n;
    return RP_OK;
}

static rp_status check_free(const rp_nccl_state *self)
{
    if (self->broken) {
        return RP_FAIL(RP_E_CUDA, "transport nccl was given up after a failure");
    }
    return self->n == 0 ? RP_OK
                        : RP_FAIL(RP_E_ARG, "a group of %d transfers is still under way", self->n);
}

static rp_status check(const rp_nccl_state *self, const rp_xfer *xfers, int n)
{
    RP_TRY(check_free(self));
    for (int i = 0; i < n; i++) {
        const rp_xfer *x = &xfers[i];
        if (x->peer < 0 || x->peer >= self->n_ranks || (x->peer == 0) != (self->rank != 0)) {
            return RP_FAIL(RP_E_ARG,
                           "transfer between rank %d and rank %d of %d: one of them must be 0",
                           self->rank, x->peer, self->n_ranks);
        }
        if (x->bytes == NULL || x->n_bytes == 0) {
            return RP_FAIL(RP_E_ARG, "transfer of %zu bytes with rank %d, allowed: 1 and more",
                           x->n_bytes, x->peer);
        }
    }
    return RP_OK;
}

/* Outputs wait until rank 0 has evaluated its own units and has heard from all ranks, which nothing
 * limits; then its clock runs, and its alarm ends the others. */
static double limit_of(const rp_nccl_state *self, bool receives)
{
    return self->rank == 0 || receives ? self->group_s : HUGE_VAL;
}

static rp_status launch(rp_nccl_state *self)
{
    int with = self->xfers[0].peer;
    bool receives = false;

    for (int i = 0; i < self->n; i++) {
        with = self->xfers[i].peer == with ? with : RP_NCCL_ALL;
        receives = receives || !self->xfers[i].send;
    }
    self->held = false;
    rp_nccl_begin_wait(self, with, limit_of(self, receives));
    rp_status st = rp_nccl_group(self->comm, self->xfers, self->n);
    if (st != RP_OK) {
        st = rp_nccl_fail(self, st, rp_nccl_why(self->comm));
        rp_nccl_give_up(self);
    }
    return st;
}

static rp_status nccl_start(void *self_, const rp_xfer *xfers, int n)
{
    rp_nccl_state *self = self_;

    RP_TRY(check(self, xfers, n));
    RP_TRY(nccl_reserve(self, n));
    self->n = n;
    self->held = true;
    for (int i = 0; i < n; i++) {
        self->xfers[i] = xfers[i];
        self->held = self->held && !xfers[i].send;
    }
    /* Receives alone wait for finish: a kernel of NCCL that spins for bytes takes the GPU from what
     * this rank evaluates meanwhile. */
    return n == 0 || self->held ? RP_OK : launch(self);
}

static rp_status nccl_finish(void *self_, bool block, bool *done)
{
    rp_nccl_state *self = self_;

    *done = self->n == 0 && !self->broken;
    if (*done) {
        return RP_OK;
    }
    if (self->broken) {
        return check_free(self);
    }
    if (self->held) {
        RP_TRY(launch(self));
    }
    RP_TRY(rp_nccl_wait(self, block, done));
    if (*done) {
        self->n = 0;
    }
    return RP_OK;
}

static rp_status nccl_broadcast(void *self_, void *bytes, size_t n_bytes, int root)
{
    rp_nccl_state *self = self_;

    RP_TRY(check_free(self));
    if (root < 0 || root >= self->n_ranks) {
        return RP_FAIL(RP_E_ARG, "broadcast from rank %d of %d", root, self->n_ranks);
    }
    for (size_t sent = 0; sent < n_bytes;) {
        const size_t n = n_bytes - sent < PIECE_BYTES ? n_bytes - sent : PIECE_BYTES;
        rp_nccl_begin_wait(self, self->rank == root ? RP_NCCL_ALL : root, self->group_s);
        RP_TRY(rp_nccl_over(self, rp_nccl_broadcast(self->comm, (char *)bytes + sent, n, root)));
        sent += n;
    }
    return RP_OK;
}

/* ---- opening and closing */

static void nccl_close(void *self_)
{
    rp_nccl_state *self = self_;

    if (self == NULL) {
        return;
    }
    if (self->n != 0) {
        RP_WARN("transport nccl is closed with %d transfers under way", self->n);
        rp_nccl_give_up(self);
    }
    if (!self->opening && !self->broken && rp_xport_alarm_heard(self->alarm)) {
        rp_nccl_give_up(self); /* the others have: finalize would wait for them */
    }
    if (!self->opening && !self->broken) {
        rp_nccl_begin_wait(self, RP_NCCL_ALL, self->open_s);
        (void)rp_nccl_over(self, rp_nccl_finalize(self->comm));
    }
    rp_nccl_free(self->comm);
    rp_xport_alarm_close(self->alarm);
    free(self->xfers);
    free(self->votes);
    free(self);
}

/* Bytes each way between rank 0 and every other: NCCL connects a pair in its first transfer, which
 * takes most of a second. */
static rp_status warm_up(rp_nccl_state *self)
{
    char *const memory = rp_nccl_scratch(self->comm);

    for (int r = 1; r < self->n_ranks; r++) {
        const int peer = self->rank == 0 ? r : 0;
        const rp_xfer xfers[] = {{peer, true, memory, 1}, {peer, false, memory + 1, 1}};
        if (self->rank != 0 && self->rank != r) {
            continue;
        }
        /* Rank 0 goes from pair to pair: others wait for its turns before theirs. */
        rp_nccl_begin_wait(self, peer, self->open_s * (self->rank + 1));
        RP_TRY(rp_nccl_over(self, rp_nccl_group(self->comm, xfers, 2)));
    }
    return RP_OK;
}

static rp_status connect_all(rp_nccl_state *self)
{
    rp_nccl_begin_wait(self,
                       self->rank != 0      ? 0
                       : self->n_ranks == 2 ? 1
                                            : RP_NCCL_ALL,
                       self->open_s);
    RP_TRY(rp_nccl_over(self, rp_nccl_connect(self->comm, &self->id, self->rank, self->n_ranks)));
    return warm_up(self);
}

/* Rank 0's id to all ranks, whatever `mine` is: the call is collective. */
static rp_status share_id(rp_nccl_state *self, rp_ctrl *ctrl, rp_status mine)
{
    if (self->rank == 0 && mine == RP_OK) {
        self->with = self->n_ranks == 2 ? 1 : RP_NCCL_ALL;
        mine = rp_nccl_make_id(self->comm, &self->id);
        if (mine != RP_OK) {
            mine = rp_nccl_fail(self, mine, rp_nccl_why(self->comm));
        }
    }
    RP_TRY(rp_ctrl_bcast(ctrl, &self->id, sizeof(self->id)));
    return mine == RP_OK && self->id.where[0] == '\0' ? RP_E_PEER : mine;
}

/* All succeed or none; a rank that failed has logged why. */
static rp_status all_or_none(rp_nccl_state *self, rp_ctrl *ctrl, rp_status mine)
{
    const int32_t st = (int32_t)mine;

    RP_TRY(rp_ctrl_allgather(ctrl, &st, sizeof(st), self->votes));
    for (int r = 0; r < self->n_ranks && mine == RP_OK; r++) {
        mine = self->votes[r] != RP_OK ? RP_E_PEER : RP_OK;
    }
    return mine;
}

static rp_status new_self(rp_ctrl *ctrl, rp_nccl_state **out)
{
    const int n_ranks = rp_ctrl_n_ranks(ctrl);
    rp_nccl_state *self = calloc(1, sizeof(*self));
    int32_t *votes = calloc((size_t)n_ranks, sizeof(*votes));

    if (self == NULL || votes == NULL) {
        free(self);
        free(votes);
        return RP_FAIL(RP_E_NOMEM, "no memory for transport nccl");
    }
    *self = (rp_nccl_state){.ctrl = ctrl,
                            .rank = rp_ctrl_rank(ctrl),
                            .n_ranks = n_ranks,
                            .open_s = g_open_s,
                            .group_s = g_group_s,
                            .opening = true,
                            .votes = votes,
                            .with = RP_NCCL_ALL};
    *out = self;
    return RP_OK;
}

/* This rank's stream, and then with all ranks the connections. */
static rp_status connect_self(rp_nccl_state *self, rp_ctrl *ctrl)
{
    rp_status st = rp_nccl_new(g_graphs, &self->comm);

    if (st != RP_OK) {
        st = rp_nccl_fail(self, st, self->comm != NULL ? rp_nccl_why(self->comm) : "no memory");
    }
    st = share_id(self, ctrl, st);
    st = all_or_none(self, ctrl, st); /* or ranks would wait for one that does not come */
    st = st == RP_OK ? connect_all(self) : st;
    return all_or_none(self, ctrl, st);
}

static rp_status nccl_open(rp_ctrl *ctrl, void **self_out)
{
    rp_nccl_state *self = NULL;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_ctrl_agree(ctrl, new_self(ctrl, &self), "opening transport nccl"));
    RP_TRY_OUT(rp_xport_alarm_open(ctrl, &self->alarm));
    st = connect_self(self, ctrl);
    if (st != RP_OK) {
        rp_nccl_give_up(self); /* also what has worked here: the other end is given up */
        goto out;
    }
    self->opening = false;
    *self_out = self;
    self = NULL;

out:
    nccl_close(self);
    return st;
}

const rp_xport_ops rp_xport_nccl = {
    .name = "nccl",
    .help = "NCCL between GPUs",
    .on_device = true,
    .usable = nccl_usable,
    .open = nccl_open,
    .start = nccl_start,
    .finish = nccl_finish,
    .broadcast = nccl_broadcast,
    .reserve = nccl_reserve,
    .close = nccl_close,
};

#endif
