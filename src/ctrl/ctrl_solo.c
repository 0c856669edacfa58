/* ctrl_solo.c - control of one rank: there is nobody to talk to, and MPI is never started. */
#include "ctrl/ctrl_ops.h"

#include "base/log.h"

#include <string.h>

static bool solo_wanted(const rp_ctrl_launch *launch, bool force_mpi)
{
    return launch->n == 1 && !force_mpi;
}

static rp_status solo_open(const rp_ctrl_launch *launch, rp_ctrl_place *place_out, void **self_out)
{
    (void)launch;
    *place_out = (rp_ctrl_place){.rank = 0, .n_ranks = 1, .local_rank = 0, .n_local = 1, .node = 0};
    *self_out = NULL;
    return RP_OK;
}

static void solo_close(void *self)
{
    (void)self;
}

static void solo_abort(void *self, int exit_code)
{
    (void)self;
    (void)exit_code;
}

static rp_status solo_barrier(void *self)
{
    (void)self;
    return RP_OK;
}

static rp_status solo_bcast(void *self, void *bytes, size_t n_bytes)
{
    (void)self;
    (void)bytes;
    (void)n_bytes;
    return RP_OK;
}

static rp_status solo_gather(void *self, const void *mine, size_t n_bytes, void *all)
{
    (void)self;
    if (n_bytes != 0) {
        memmove(all, mine, n_bytes);
    }
    return RP_OK;
}

static rp_status solo_send(void *self, int to, int tag, const void *bytes, size_t n_bytes)
{
    (void)self;
    (void)tag;
    (void)bytes;
    return RP_FAIL(RP_E_ARG, "no rank %d to send %zu bytes to: there is one rank", to, n_bytes);
}

static rp_status solo_recv(void *self, int from, int tag, void *bytes, size_t max_bytes,
                           size_t *n_out)
{
    (void)self;
    (void)tag;
    (void)bytes;
    (void)max_bytes;
    (void)n_out;
    return RP_FAIL(RP_E_ARG, "no rank %d to receive from: there is one rank", from);
}

static const void *solo_native(const void *self)
{
    (void)self;
    return NULL;
}

const rp_ctrl_ops rp_ctrl_solo = {
    .name = "solo",
    .wanted = solo_wanted,
    .open = solo_open,
    .close = solo_close,
    .abort = solo_abort,
    .barrier = solo_barrier,
    .bcast = solo_bcast,
    .gather = solo_gather,
    .allgather = solo_gather,
    .send = solo_send,
    .recv = solo_recv,
    .native = solo_native,
};
