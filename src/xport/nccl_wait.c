/* nccl_wait.c - waiting for NCCL with an ear for the other ranks and an eye on the clock. */
#if defined(RP_HAVE_NCCL) && defined(RP_HAVE_MPI)

#include "xport/nccl_wait.h"

#include "base/clock.h"
#include "base/log.h"
#include "ctrl/ctrl_wait.h"

#include <stdio.h>
#include <stdlib.h>

#define ABORT_S    10.0 /* or open_s, if that is less */
#define WITH_BYTES 160

static void name_peers(const rp_nccl_state *self, char *text)
{
    size_t n = 0;

    if (self->with != RP_NCCL_ALL) {
        (void)snprintf(text, WITH_BYTES, "rank %d on host %s", self->with,
                       rp_ctrl_host(self->ctrl, self->with));
        return;
    }
    (void)snprintf(text, WITH_BYTES, "all other ranks");
    for (int i = 0; i < self->n && n < WITH_BYTES; i++) {
        if (i == 0 || self->xfers[i].peer != self->xfers[i - 1].peer) {
            n += (size_t)snprintf(text + n, WITH_BYTES - n, "%s %d", n == 0 ? "ranks" : ",",
                                  self->xfers[i].peer);
        }
    }
}

rp_status rp_nccl_fail(const rp_nccl_state *self, rp_status st, const char *why)
{
    const int version = rp_nccl_version();
    const char *ifname = getenv("NCCL_SOCKET_IFNAME");
    char peers[WITH_BYTES];

    if (rp_xport_alarm_heard(self->alarm)) {
        return RP_E_PEER;
    }
    rp_xport_alarm_ring(self->alarm);
    name_peers(self, peers);
    if (!self->opening) {
        return RP_FAIL(st, "NCCL failed between rank %d on host %s and %s: %s", self->rank,
                       rp_ctrl_host(self->ctrl, self->rank), peers, why);
    }
    return RP_FAIL(st,
                   "NCCL %d.%d.%d cannot connect rank %d on host %s with %s over %s, "
                   "NCCL_SOCKET_IFNAME %s: %s; --transport mpi does without NCCL",
                   version / 10000, version / 100 % 100, version % 100, self->rank,
                   rp_ctrl_host(self->ctrl, self->rank), peers,
                   self->id.where[0] != '\0' ? self->id.where : "no interface",
                   ifname != NULL ? ifname : "not set", why);
}

void rp_nccl_give_up(rp_nccl_state *self)
{
    const double limit_s = self->open_s < ABORT_S ? self->open_s : ABORT_S;

    self->broken = true;
    self->n = 0;
    if (self->comm != NULL && !rp_nccl_abort(self->comm, limit_s)) {
        RP_WARN("transport nccl: ncclCommAbort does not come back; the GPU may stay busy");
    }
}

void rp_nccl_begin_wait(rp_nccl_state *self, int with, double limit_s)
{
    self->with = with;
    self->limit_s = limit_s;
    self->give_up_at = rp_clock_now() + limit_s;
}

/* One look at what is under way. */
static rp_status look(rp_nccl_state *self, bool *done)
{
    char late[64];
    const rp_status st = rp_nccl_poll(self->comm, done);

    if (st == RP_OK && *done) {
        return RP_OK;
    }
    if (st != RP_OK || rp_xport_alarm_heard(self->alarm)) {
        return rp_nccl_fail(self, st, rp_nccl_why(self->comm));
    }
    if (rp_clock_now() > self->give_up_at) {
        (void)snprintf(late, sizeof(late), "no end after %g s", self->limit_s);
        return rp_nccl_fail(self, RP_E_CUDA, late);
    }
    return RP_OK;
}

rp_status rp_nccl_wait(rp_nccl_state *self, bool block, bool *done)
{
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;

    for (;;) {
        const rp_status st = look(self, done);
        if (st != RP_OK) {
            rp_nccl_give_up(self);
            return st;
        }
        if (*done || !block) {
            return RP_OK;
        }
        rp_ctrl_wait_pause(&wait);
    }
}

rp_status rp_nccl_over(rp_nccl_state *self, rp_status st)
{
    bool done = false;

    if (st != RP_OK) {
        st = rp_nccl_fail(self, st, rp_nccl_why(self->comm));
        rp_nccl_give_up(self);
        return st;
    }
    return rp_nccl_wait(self, true, &done);
}

#endif
