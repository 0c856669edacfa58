/*
 * xport_mpi.c - payload over MPI, host memory.
 *
 * A transfer is one MPI_Isend or MPI_Irecv, all with the same tag: MPI keeps the order of messages
 * of a pair, so the k-th send to a rank meets the k-th receive there.
 */
#ifdef RP_HAVE_MPI

#include "xport/xport.h"

#include "base/check.h"
#include "base/log.h"
#include "ctrl/ctrl_mpi.h"
#include "ctrl/ctrl_wait.h"

#include <limits.h>
#include <stdlib.h>

#include <mpi.h>

#define TAG         1
#define PIECE_BYTES ((size_t)1 << 30) /* MPI counts are int */

typedef struct {
    MPI_Comm comm; /* our own, apart from control's messages */
    int rank, n_ranks;
    int capacity, n;       /* n: transfers under way */
    MPI_Request *requests; /* [capacity] */
    MPI_Status *statuses;  /* [capacity] */
    int *expected;         /* [capacity] bytes to receive, -1 for a send */
} mpi_self;

static bool mpi_usable(const rp_ctrl *ctrl)
{
    return rp_ctrl_native(ctrl) != NULL;
}

static rp_status mpi_reserve(void *self_, int n)
{
    mpi_self *self = self_;

    if (n <= self->capacity) {
        return RP_OK;
    }
    MPI_Request *const requests = calloc((size_t)n, sizeof(*requests));
    MPI_Status *const statuses = calloc((size_t)n, sizeof(*statuses));
    int *const expected = calloc((size_t)n, sizeof(*expected));

    if (self->n != 0 || requests == NULL || statuses == NULL || expected == NULL) {
        free(requests);
        free(statuses);
        free(expected);
        return self->n != 0
                   ? RP_FAIL(RP_E_ARG, "cannot reserve while %d transfers are under way", self->n)
                   : RP_FAIL(RP_E_NOMEM, "no memory for %d transfers", n);
    }
    free(self->requests);
    free(self->statuses);
    free(self->expected);
    self->requests = requests;
    self->statuses = statuses;
    self->expected = expected;
    self->capacity = n;
    return RP_OK;
}

static rp_status check(const mpi_self *self, const rp_xfer *xfers, int n)
{
    if (self->n != 0) {
        return RP_FAIL(RP_E_ARG, "a group of %d transfers is still under way", self->n);
    }
    for (int i = 0; i < n; i++) {
        const rp_xfer *x = &xfers[i];
        if (x->peer < 0 || x->peer >= self->n_ranks || (x->peer == 0) != (self->rank != 0)) {
            return RP_FAIL(RP_E_ARG,
                           "transfer between rank %d and rank %d of %d: one of them must be 0",
                           self->rank, x->peer, self->n_ranks);
        }
        if (x->bytes == NULL || x->n_bytes == 0 || x->n_bytes > INT_MAX) {
            return RP_FAIL(RP_E_ARG, "transfer of %zu bytes with rank %d, allowed: 1 to %d",
                           x->n_bytes, x->peer, INT_MAX);
        }
    }
    return RP_OK;
}

static rp_status post(mpi_self *self, const rp_xfer *x)
{
    MPI_Request *request = &self->requests[self->n];

    if (x->send) {
        RP_TRY(RP_MPI(
            MPI_Isend(x->bytes, (int)x->n_bytes, MPI_BYTE, x->peer, TAG, self->comm, request)));
    } else {
        RP_TRY(RP_MPI(
            MPI_Irecv(x->bytes, (int)x->n_bytes, MPI_BYTE, x->peer, TAG, self->comm, request)));
    }
    self->expected[self->n++] = x->send ? -1 : (int)x->n_bytes;
    return RP_OK;
}

static rp_status mpi_begin(void *self_, const rp_xfer *xfers, int n)
{
    mpi_self *self = self_;

    RP_TRY(check(self, xfers, n));
    RP_TRY(mpi_reserve(self, n));
    /* Receives first: what comes meanwhile goes straight to its place. */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n; i++) {
            if (xfers[i].send == (pass == 1)) {
                RP_TRY(post(self, &xfers[i]));
            }
        }
    }
    return RP_OK;
}

/* All requests are over; did each receive get what its sender was meant to send? */
static rp_status check_sizes(const mpi_self *self, int n)
{
    for (int i = 0; i < n; i++) {
        int got = 0;
        if (self->expected[i] < 0) {
            continue;
        }
        RP_TRY(RP_MPI(MPI_Get_count(&self->statuses[i], MPI_BYTE, &got)));
        if (got != self->expected[i]) {
            return RP_FAIL(RP_E_MPI, "rank %d sent %d bytes, expected %d",
                           self->statuses[i].MPI_SOURCE, got, self->expected[i]);
        }
    }
    return RP_OK;
}

static rp_status first_error(const mpi_self *self, int n)
{
    for (int i = 0; i < n; i++) {
        const int code = self->statuses[i].MPI_ERROR;
        if (code != MPI_SUCCESS && code != MPI_ERR_PENDING) {
            return rp_ctrl_mpi_check(code, self->expected[i] < 0 ? "MPI_Isend(" : "MPI_Irecv(");
        }
    }
    return RP_FAIL(RP_E_MPI, "MPI_Testall failed");
}

static rp_status mpi_finish(void *self_, bool block, bool *done)
{
    mpi_self *self = self_;
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;
    int over = self->n == 0;

    while (!over) {
        const int code = MPI_Testall(self->n, self->requests, &over, self->statuses);
        if (code != MPI_SUCCESS) {
            const int n = self->n;
            self->n = 0;
            return code == MPI_ERR_IN_STATUS ? first_error(self, n)
                                             : rp_ctrl_mpi_check(code, "MPI_Testall(");
        }
        if (!over && !block) {
            break;
        }
        if (!over) {
            rp_ctrl_wait_pause(&wait);
        }
    }
    if (over) {
        const int n = self->n;
        self->n = 0;
        RP_TRY(check_sizes(self, n));
    }
    *done = over != 0;
    return RP_OK;
}

static rp_status wait_for(MPI_Request *request)
{
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;

    for (int over = 0;;) {
        RP_TRY(RP_MPI(MPI_Test(request, &over, MPI_STATUS_IGNORE)));
        if (over) {
            return RP_OK;
        }
        rp_ctrl_wait_pause(&wait);
    }
}

static rp_status mpi_broadcast(void *self_, void *bytes, size_t n_bytes, int root)
{
    mpi_self *self = self_;

    if (root < 0 || root >= self->n_ranks || self->n != 0) {
        return RP_FAIL(RP_E_ARG, "broadcast from rank %d of %d, %d transfers under way", root,
                       self->n_ranks, self->n);
    }
    for (size_t sent = 0; sent < n_bytes;) {
        const size_t n = n_bytes - sent < PIECE_BYTES ? n_bytes - sent : PIECE_BYTES;
        MPI_Request request = MPI_REQUEST_NULL;
        RP_TRY(
            RP_MPI(MPI_Ibcast((char *)bytes + sent, (int)n, MPI_BYTE, root, self->comm, &request)));
        RP_TRY(wait_for(&request));
        sent += n;
    }
    return RP_OK;
}

static void mpi_close(void *self_)
{
    mpi_self *self = self_;

    if (self == NULL) {
        return;
    }
    if (self->n != 0) {
        RP_WARN("transport mpi is closed with %d transfers under way", self->n);
        for (int i = 0; i < self->n; i++) {
            (void)MPI_Cancel(&self->requests[i]);
            (void)MPI_Request_free(&self->requests[i]);
        }
    }
    if (self->comm != MPI_COMM_NULL) {
        (void)RP_MPI(MPI_Comm_free(&self->comm));
    }
    free(self->requests);
    free(self->statuses);
    free(self->expected);
    free(self);
}

/* One byte each way with every rank: connections are made now and not in the first step. */
static rp_status warm_up(mpi_self *self)
{
    char byte = 0;
    bool done = false;

    for (int r = 1; r < self->n_ranks; r++) {
        for (int back = 0; back < 2; back++) {
            const rp_xfer x = {self->rank == 0 ? r : 0, (self->rank == 0) == (back == 0), &byte, 1};
            if (self->rank == 0 || self->rank == r) {
                RP_TRY(mpi_begin(self, &x, 1));
                RP_TRY(mpi_finish(self, true, &done));
            }
        }
    }
    return RP_OK;
}

static rp_status mpi_open(rp_ctrl *ctrl, void **self_out)
{
    mpi_self *self = calloc(1, sizeof(*self));
    rp_status st = RP_OK;

    if (self == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for transport mpi");
    } else {
        *self = (mpi_self){
            .comm = MPI_COMM_NULL, .rank = rp_ctrl_rank(ctrl), .n_ranks = rp_ctrl_n_ranks(ctrl)};
    }
    RP_TRY_OUT(rp_ctrl_agree(ctrl, st, "opening transport mpi")); /* before all go into the dup */
    RP_TRY_OUT(RP_MPI(MPI_Comm_dup(*(const MPI_Comm *)rp_ctrl_native(ctrl), &self->comm)));
    RP_TRY_OUT(RP_MPI(MPI_Comm_set_errhandler(self->comm, MPI_ERRORS_RETURN)));
    RP_TRY_OUT(warm_up(self));

    *self_out = self;
    self = NULL;

out:
    mpi_close(self);
    return st;
}

const rp_xport_ops rp_xport_mpi = {
    .name = "mpi",
    .help = "MPI messages through host memory",
    .usable = mpi_usable,
    .open = mpi_open,
    .start = mpi_begin,
    .finish = mpi_finish,
    .broadcast = mpi_broadcast,
    .reserve = mpi_reserve,
    .close = mpi_close,
};

#endif
