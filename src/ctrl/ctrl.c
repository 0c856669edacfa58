/* ctrl.c - control between ranks: joining, leaving, agreement; the rest goes to the implementation.
 */
#include "ctrl/ctrl.h"

#include "base/check.h"
#include "base/log.h"
#include "ctrl/ctrl_ops.h"
#include "ctrl/ctrl_wait.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static rp_status choose(const rp_ctrl_launch *launch, bool force_mpi, const rp_ctrl_ops **out)
{
    if (launch->strangers) {
        if (launch->rank <= 0) { /* the others know the same; one line is enough */
            RP_ERROR("srun started %d copies that do not know each other: use srun --mpi=pmix",
                     launch->n);
        }
        return RP_E_UNSUP;
    }
    for (int i = 0; rp_ctrl_list[i] != NULL; i++) {
        if (rp_ctrl_list[i]->wanted(launch, force_mpi)) {
            *out = rp_ctrl_list[i];
            return RP_OK;
        }
    }
    if (launch->rank <= 0) {
        RP_ERROR("several ranks need MPI, and this build has none: start one process without a "
                 "launcher, "
                 "or build with MPI");
    }
    return RP_E_UNSUP;
}

/* What the ranks know about each other. A rank without memory for it cannot even say so: it ends
 * all. */
static rp_status meet(rp_ctrl *ctrl)
{
    const size_t n = (size_t)ctrl->place.n_ranks;
    rp_ctrl_peer self = {.pid = (int32_t)getpid(), .node = ctrl->place.node};

    ctrl->peers = calloc(n, sizeof(*ctrl->peers));
    ctrl->votes = calloc(n, sizeof(*ctrl->votes));
    if (ctrl->peers == NULL || ctrl->votes == NULL) {
        rp_log_now("rank %d: no memory for the names of %zu ranks", ctrl->place.rank, n);
        ctrl->ops->abort(ctrl->self, 1);
        return RP_E_NOMEM;
    }
    if (gethostname(self.host, sizeof(self.host) - 1) != 0 || self.host[0] == '\0') {
        (void)snprintf(self.host, sizeof(self.host), "unknown");
    }
    return rp_ctrl_allgather(ctrl, &self, sizeof(self), ctrl->peers);
}

static void leave(rp_ctrl *ctrl)
{
    if (ctrl == NULL) {
        return;
    }
    if (ctrl->ops != NULL) {
        ctrl->ops->close(ctrl->self);
    }
    free(ctrl->peers);
    free(ctrl->votes);
    free(ctrl);
}

/* An error that nobody asked about is not lost: from here on this rank speaks for itself. */
static void tell_held(const rp_ctrl *ctrl)
{
    char text[RP_CTRL_TEXT_BYTES];

    if (ctrl->place.rank > 0) {
        rp_log_take(text, sizeof(text));
        rp_log_hold(false);
        if (text[0] != '\0') {
            RP_ERROR("rank %d on host %s: %s", ctrl->place.rank,
                     rp_ctrl_host(ctrl, ctrl->place.rank), text);
        }
    }
}

rp_status rp_ctrl_open(bool force_mpi, rp_ctrl **out)
{
    const rp_ctrl_launch launch = rp_ctrl_launch_read();
    const rp_ctrl_ops *ops = NULL;
    rp_ctrl *ctrl = NULL;
    rp_status st = RP_OK;

    RP_TRY(choose(&launch, force_mpi, &ops));
    ctrl = calloc(1, sizeof(*ctrl));
    if (ctrl == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for joining the ranks");
    }
    RP_TRY_OUT(ops->open(&launch, &ctrl->place, &ctrl->self));
    ctrl->ops = ops;
    rp_ctrl_wait_sharpen();
    RP_TRY_OUT(meet(ctrl));
    rp_log_hold(ctrl->place.rank > 0);
    RP_TRY_OUT(rp_ctrl_watch_open(ctrl, &ctrl->watch));

    *out = ctrl;
    ctrl = NULL;

out:
    if (ctrl != NULL && ctrl->ops != NULL) {
        tell_held(ctrl);
    }
    leave(ctrl);
    return st;
}

void rp_ctrl_close(rp_ctrl *ctrl)
{
    if (ctrl == NULL) {
        return;
    }
    tell_held(ctrl);
    /* First all are here, then all stop minding connections that end, then connections end. */
    (void)ctrl->ops->barrier(ctrl->self);
    rp_ctrl_watch_ignore(ctrl->watch);
    (void)ctrl->ops->barrier(ctrl->self);
    rp_ctrl_watch_close(ctrl->watch);
    leave(ctrl);
}

void rp_ctrl_abort(rp_ctrl *ctrl, int exit_code)
{
    tell_held(ctrl);
    if (ctrl->place.n_ranks > 1) {
        rp_ctrl_watch_abort(ctrl->watch);
        ctrl->ops->abort(ctrl->self, exit_code);
        _exit(exit_code);
    }
}

int rp_ctrl_rank(const rp_ctrl *ctrl)
{
    return ctrl->place.rank;
}

int rp_ctrl_n_ranks(const rp_ctrl *ctrl)
{
    return ctrl->place.n_ranks;
}

int rp_ctrl_local_rank(const rp_ctrl *ctrl)
{
    return ctrl->place.local_rank;
}

int rp_ctrl_n_local(const rp_ctrl *ctrl)
{
    return ctrl->place.n_local;
}

int rp_ctrl_node(const rp_ctrl *ctrl, int rank)
{
    assert(rank >= 0 && rank < ctrl->place.n_ranks);
    return ctrl->peers[rank].node;
}

const char *rp_ctrl_host(const rp_ctrl *ctrl, int rank)
{
    assert(rank >= 0 && rank < ctrl->place.n_ranks);
    return ctrl->peers[rank].host;
}

const char *rp_ctrl_kind(const rp_ctrl *ctrl)
{
    return ctrl->ops->name;
}

rp_status rp_ctrl_bcast(rp_ctrl *ctrl, void *bytes, size_t n_bytes)
{
    return ctrl->ops->bcast(ctrl->self, bytes, n_bytes);
}

rp_status rp_ctrl_gather(rp_ctrl *ctrl, const void *mine, size_t n_bytes, void *all)
{
    return ctrl->ops->gather(ctrl->self, mine, n_bytes, all);
}

rp_status rp_ctrl_allgather(rp_ctrl *ctrl, const void *mine, size_t n_bytes, void *all)
{
    return ctrl->ops->allgather(ctrl->self, mine, n_bytes, all);
}

/* Was this text said already, by rank 0 (which prints its own) or by a rank before `rank`? */
static bool already_said(const rp_ctrl_vote *votes, int rank)
{
    for (int i = 0; i < rank; i++) {
        if (votes[i].status != RP_OK && strcmp(votes[i].text, votes[rank].text) == 0) {
            return true;
        }
    }
    return false;
}

/* That of the lowest failed rank that knows why: RP_E_PEER only knows of another's failure. */
static rp_status verdict_of(const rp_ctrl_vote *votes, int n_ranks)
{
    rp_status st = RP_OK;

    for (int rank = 0; rank < n_ranks; rank++) {
        if (st == RP_OK || (st == RP_E_PEER && votes[rank].status != RP_OK)) {
            st = (rp_status)votes[rank].status;
        }
    }
    return st;
}

static rp_status count_votes(const rp_ctrl *ctrl, const char *what)
{
    const rp_ctrl_vote *votes = ctrl->votes;
    const rp_status st = verdict_of(votes, ctrl->place.n_ranks);

    for (int rank = 0; rank < ctrl->place.n_ranks; rank++) {
        if (votes[rank].status == RP_OK || (votes[rank].status == RP_E_PEER && st != RP_E_PEER)) {
            continue;
        }
        if (rank > 0 && !already_said(votes, rank)) {
            RP_ERROR("rank %d on host %s: %s: %s", rank, ctrl->peers[rank].host, what,
                     votes[rank].text);
        }
    }
    return st;
}

rp_status rp_ctrl_agree(rp_ctrl *ctrl, rp_status mine, const char *what)
{
    rp_ctrl_vote vote = {.status = (int32_t)mine};
    int32_t verdict = RP_OK;

    rp_log_take(vote.text, sizeof(vote.text));
    if (vote.text[0] == '\0') {
        (void)snprintf(vote.text, sizeof(vote.text), "%s", rp_status_text(mine));
    }
    if (ctrl->place.n_ranks == 1) {
        return mine;
    }
    RP_TRY(rp_ctrl_gather(ctrl, &vote, sizeof(vote), ctrl->votes));
    if (ctrl->place.rank == 0) {
        verdict = (int32_t)count_votes(ctrl, what);
    }
    RP_TRY(rp_ctrl_bcast(ctrl, &verdict, sizeof(verdict)));
    return (rp_status)verdict;
}

static rp_status check_message(const rp_ctrl *ctrl, int to, size_t n_bytes)
{
    if (to < 0 || to >= ctrl->place.n_ranks || to == ctrl->place.rank) {
        return RP_FAIL(RP_E_ARG, "message to rank %d, from rank %d of %d", to, ctrl->place.rank,
                       ctrl->place.n_ranks);
    }
    if (n_bytes > RP_CTRL_MESSAGE_BYTES) {
        return RP_FAIL(RP_E_ARG, "message of %zu bytes, at most %d", n_bytes,
                       RP_CTRL_MESSAGE_BYTES);
    }
    return RP_OK;
}

rp_status rp_ctrl_send(rp_ctrl *ctrl, int to, const void *bytes, size_t n_bytes)
{
    RP_TRY(check_message(ctrl, to, n_bytes));
    return ctrl->ops->send(ctrl->self, to, RP_CTRL_TAG_MESSAGE, bytes, n_bytes);
}

rp_status rp_ctrl_recv(rp_ctrl *ctrl, void *bytes, size_t max_bytes, size_t *n_out)
{
    return ctrl->ops->recv(ctrl->self, 0, RP_CTRL_TAG_MESSAGE, bytes, max_bytes, n_out);
}

rp_status rp_ctrl_reply(rp_ctrl *ctrl, const void *bytes, size_t n_bytes)
{
    RP_TRY(check_message(ctrl, 0, n_bytes));
    return ctrl->ops->send(ctrl->self, 0, RP_CTRL_TAG_REPLY, bytes, n_bytes);
}

rp_status rp_ctrl_wait_reply(rp_ctrl *ctrl, int from, void *bytes, size_t n_bytes)
{
    size_t n = 0;

    RP_TRY(check_message(ctrl, from, n_bytes));
    RP_TRY(ctrl->ops->recv(ctrl->self, from, RP_CTRL_TAG_REPLY, bytes, n_bytes, &n));
    if (n != n_bytes) {
        return RP_FAIL(RP_E_MPI, "reply of %zu bytes from rank %d, expected %zu", n, from, n_bytes);
    }
    return RP_OK;
}

const void *rp_ctrl_native(const rp_ctrl *ctrl)
{
    return ctrl->ops->native(ctrl->self);
}
