/*
 * ctrl_mpi.c - control over MPI.
 *
 * Every wait is a loop of our own around the non-blocking calls (ctrl_wait.h): MPI's blocking ones
 * burn a core, which on ranks that share cores costs milliseconds a message.
 */
#ifdef RP_HAVE_MPI

#include "ctrl/ctrl_mpi.h"

#include "base/check.h"
#include "base/log.h"
#include "ctrl/ctrl_ops.h"
#include "ctrl/ctrl_wait.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

#define PIECE_BYTES ((size_t)1 << 30) /* MPI counts are int */

typedef struct {
    MPI_Comm comm; /* our own: never mixes with messages of the caller */
    bool finalize; /* MPI was started here */
} mpi_self;

rp_status rp_ctrl_mpi_check(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;

    if (code == MPI_SUCCESS) {
        return RP_OK;
    }
    (void)MPI_Error_string(code, text, &n);
    return RP_FAIL(RP_E_MPI, "%.*s failed: %s", (int)strcspn(call, "("), call, text);
}

static bool mpi_running(void)
{
    int initialized = 0, finalized = 0;

    (void)MPI_Initialized(&initialized);
    (void)MPI_Finalized(&finalized);
    return initialized && !finalized;
}

static bool mpi_wanted(const rp_ctrl_launch *launch, bool force_mpi)
{
    return launch->n != 1 || force_mpi || mpi_running();
}

static rp_status mpi_start(void)
{
    int level = 0, finalized = 0;

    (void)MPI_Finalized(&finalized);
    if (finalized) {
        return RP_FAIL(RP_E_MPI, "MPI was finalized in this process and cannot be started again");
    }
    RP_TRY(RP_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level)));
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (level < MPI_THREAD_FUNNELED) {
        (void)MPI_Finalize();
        return RP_FAIL(RP_E_MPI, "this MPI has no MPI_THREAD_FUNNELED (it gives level %d)", level);
    }
    return RP_OK;
}

/* A program built with one MPI and started by the launcher of another becomes N worlds of one. */
static rp_status check_size(const rp_ctrl_launch *launch, int n_ranks)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;

    if (n_ranks > 1 || launch->n <= 1) {
        return RP_OK;
    }
    if (launch->rank <= 0) {
        (void)MPI_Get_library_version(version, &n);
        RP_ERROR(
            "%s started %d ranks but MPI sees 1: launcher and program belong to different MPIs; "
            "start with the launcher of %.*s",
            launch->name, launch->n, (int)strcspn(version, ",\n"), version);
    }
    return RP_E_MPI;
}

static rp_status find_node(MPI_Comm comm, rp_ctrl_place *place)
{
    MPI_Comm node = MPI_COMM_NULL;
    rp_status st = RP_OK;

    place->node = place->rank;
    RP_TRY(
        RP_MPI(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, place->rank, MPI_INFO_NULL, &node)));
    RP_TRY_OUT(RP_MPI(MPI_Comm_rank(node, &place->local_rank)));
    RP_TRY_OUT(RP_MPI(MPI_Comm_size(node, &place->n_local)));
    RP_TRY_OUT(RP_MPI(MPI_Bcast(&place->node, 1, MPI_INT, 0, node)));

out:
    (void)MPI_Comm_free(&node);
    return st;
}

static void mpi_close(void *self_)
{
    mpi_self *self = self_;

    if (self == NULL) {
        return;
    }
    if (self->comm != MPI_COMM_NULL) {
        (void)RP_MPI(MPI_Comm_free(&self->comm));
    }
    if (self->finalize) {
        (void)RP_MPI(MPI_Finalize());
    }
    free(self);
}

static rp_status mpi_open(const rp_ctrl_launch *launch, rp_ctrl_place *place_out, void **self_out)
{
    rp_ctrl_place place = {0};
    mpi_self *self = malloc(sizeof(*self));
    rp_status st = RP_OK;

    if (self == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for joining the ranks");
    }
    *self = (mpi_self){.comm = MPI_COMM_NULL, .finalize = false};
    if (!mpi_running()) {
        RP_TRY_OUT(mpi_start());
        self->finalize = true;
    }
    RP_TRY_OUT(RP_MPI(MPI_Comm_size(MPI_COMM_WORLD, &place.n_ranks)));
    RP_TRY_OUT(check_size(launch, place.n_ranks));
    RP_TRY_OUT(RP_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &self->comm)));
    RP_TRY_OUT(RP_MPI(MPI_Comm_set_errhandler(self->comm, MPI_ERRORS_RETURN)));
    RP_TRY_OUT(RP_MPI(MPI_Comm_rank(self->comm, &place.rank)));
    RP_TRY_OUT(find_node(self->comm, &place));

    *place_out = place;
    *self_out = self;
    self = NULL;

out:
    mpi_close(self);
    return st;
}

static void mpi_abort(void *self_, int exit_code)
{
    const mpi_self *self = self_;

    (void)MPI_Abort(self->comm, exit_code);
}

static rp_status wait_for(MPI_Request *request)
{
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;

    for (int done = 0;;) {
        RP_TRY(RP_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE)));
        if (done) {
            return RP_OK;
        }
        rp_ctrl_wait_pause(&wait);
    }
}

static rp_status mpi_barrier(void *self_)
{
    const mpi_self *self = self_;
    MPI_Request request = MPI_REQUEST_NULL;

    RP_TRY(RP_MPI(MPI_Ibarrier(self->comm, &request)));
    return wait_for(&request);
}

static rp_status mpi_bcast(void *self_, void *bytes, size_t n_bytes)
{
    const mpi_self *self = self_;

    for (size_t done = 0; done < n_bytes;) {
        const size_t n = n_bytes - done < PIECE_BYTES ? n_bytes - done : PIECE_BYTES;
        MPI_Request request = MPI_REQUEST_NULL;
        RP_TRY(RP_MPI(MPI_Ibcast((char *)bytes + done, (int)n, MPI_BYTE, 0, self->comm, &request)));
        RP_TRY(wait_for(&request));
        done += n;
    }
    return RP_OK;
}

static rp_status check_count(size_t n_bytes)
{
    return n_bytes <= INT_MAX
               ? RP_OK
               : RP_FAIL(RP_E_ARG, "%zu bytes from each rank, at most %d", n_bytes, INT_MAX);
}

static rp_status mpi_gather(void *self_, const void *mine, size_t n_bytes, void *all)
{
    const mpi_self *self = self_;
    MPI_Request request = MPI_REQUEST_NULL;

    RP_TRY(check_count(n_bytes));
    RP_TRY(RP_MPI(MPI_Igather(mine, (int)n_bytes, MPI_BYTE, all, (int)n_bytes, MPI_BYTE, 0,
                              self->comm, &request)));
    return wait_for(&request);
}

static rp_status mpi_allgather(void *self_, const void *mine, size_t n_bytes, void *all)
{
    const mpi_self *self = self_;
    MPI_Request request = MPI_REQUEST_NULL;

    RP_TRY(check_count(n_bytes));
    RP_TRY(RP_MPI(MPI_Iallgather(mine, (int)n_bytes, MPI_BYTE, all, (int)n_bytes, MPI_BYTE,
                                 self->comm, &request)));
    return wait_for(&request);
}

static rp_status mpi_send(void *self_, int to, int tag, const void *bytes, size_t n_bytes)
{
    const mpi_self *self = self_;
    MPI_Request request = MPI_REQUEST_NULL;

    RP_TRY(RP_MPI(MPI_Isend(bytes, (int)n_bytes, MPI_BYTE, to, tag, self->comm, &request)));
    return wait_for(&request);
}

static rp_status mpi_recv(void *self_, int from, int tag, void *bytes, size_t max_bytes,
                          size_t *n_out)
{
    const mpi_self *self = self_;
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Status status;
    int n = 0, found = 0;

    for (;;) {
        RP_TRY(RP_MPI(MPI_Improbe(from, tag, self->comm, &found, &message, &status)));
        if (found) {
            break;
        }
        rp_ctrl_wait_pause(&wait);
    }
    RP_TRY(RP_MPI(MPI_Get_count(&status, MPI_BYTE, &n)));
    if ((size_t)n > max_bytes) {
        /* it is taken off the queue all the same, so that the next receive finds the next message
         */
        if (MPI_Imrecv(bytes, 0, MPI_BYTE, &message, &request) == MPI_SUCCESS) {
            (void)MPI_Wait(&request, MPI_STATUS_IGNORE);
        }
        return RP_FAIL(RP_E_MPI, "message of %d bytes from rank %d, room for %zu", n, from,
                       max_bytes);
    }
    RP_TRY(RP_MPI(MPI_Imrecv(bytes, n, MPI_BYTE, &message, &request)));
    RP_TRY(wait_for(&request));
    *n_out = (size_t)n;
    return RP_OK;
}

static const void *mpi_native(const void *self_)
{
    const mpi_self *self = self_;

    return &self->comm;
}

const rp_ctrl_ops rp_ctrl_mpi = {
    .name = "mpi",
    .wanted = mpi_wanted,
    .open = mpi_open,
    .close = mpi_close,
    .abort = mpi_abort,
    .barrier = mpi_barrier,
    .bcast = mpi_bcast,
    .gather = mpi_gather,
    .allgather = mpi_allgather,
    .send = mpi_send,
    .recv = mpi_recv,
    .native = mpi_native,
};

#endif
