/* xport_alarm.c - "I have failed", as an empty MPI message to every other rank. */
#ifdef RP_HAVE_MPI

#include "xport/xport_alarm.h"

#include "base/check.h"
#include "base/log.h"
#include "ctrl/ctrl_mpi.h"
#include "ctrl/ctrl_wait.h"

#include <stdlib.h>

#include <mpi.h>

#define TAG 1

struct rp_xport_alarm {
    MPI_Comm comm;
    int rank, n_ranks;
    int rung, heard;
    int *all;           /* [n_ranks] who rang */
    MPI_Request *sends; /* [n_ranks] */
};

void rp_xport_alarm_ring(rp_xport_alarm *alarm)
{
    for (int r = 0; r < alarm->n_ranks && !alarm->rung; r++) {
        if (r != alarm->rank) {
            (void)RP_MPI(MPI_Isend(NULL, 0, MPI_BYTE, r, TAG, alarm->comm, &alarm->sends[r]));
        }
    }
    alarm->rung = 1;
}

bool rp_xport_alarm_heard(rp_xport_alarm *alarm)
{
    if (!alarm->heard) {
        (void)MPI_Iprobe(MPI_ANY_SOURCE, TAG, alarm->comm, &alarm->heard, MPI_STATUS_IGNORE);
    }
    return alarm->heard != 0;
}

static void wait_for(MPI_Request *request)
{
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;
    int over = 0;

    while (MPI_Test(request, &over, MPI_STATUS_IGNORE) == MPI_SUCCESS && !over) {
        rp_ctrl_wait_pause(&wait);
    }
}

/* Every message that was sent is taken, so that none is left in MPI. */
static void drain(rp_xport_alarm *alarm)
{
    MPI_Request request = MPI_REQUEST_NULL;

    if (MPI_Iallgather(&alarm->rung, 1, MPI_INT, alarm->all, 1, MPI_INT, alarm->comm, &request) !=
        MPI_SUCCESS) {
        return;
    }
    wait_for(&request);
    for (int r = 0; r < alarm->n_ranks; r++) {
        if (alarm->all[r] && r != alarm->rank) {
            (void)MPI_Irecv(NULL, 0, MPI_BYTE, r, TAG, alarm->comm, &request);
            wait_for(&request);
        }
        wait_for(&alarm->sends[r]);
    }
}

void rp_xport_alarm_close(rp_xport_alarm *alarm)
{
    if (alarm == NULL) {
        return;
    }
    if (alarm->comm != MPI_COMM_NULL) {
        drain(alarm);
        (void)RP_MPI(MPI_Comm_free(&alarm->comm));
    }
    free(alarm->all);
    free(alarm->sends);
    free(alarm);
}

static rp_status new_alarm(const rp_ctrl *ctrl, rp_xport_alarm **out)
{
    const size_t n_ranks = (size_t)rp_ctrl_n_ranks(ctrl);
    rp_xport_alarm *alarm = calloc(1, sizeof(*alarm));

    if (alarm != NULL) {
        alarm->comm = MPI_COMM_NULL;
        alarm->rank = rp_ctrl_rank(ctrl);
        alarm->n_ranks = (int)n_ranks;
        alarm->all = calloc(n_ranks, sizeof(*alarm->all));
        alarm->sends = calloc(n_ranks, sizeof(MPI_Request));
    }
    if (alarm == NULL || alarm->all == NULL || alarm->sends == NULL) {
        rp_xport_alarm_close(alarm);
        return RP_FAIL(RP_E_NOMEM, "no memory for %zu ranks of a transport", n_ranks);
    }
    for (size_t r = 0; r < n_ranks; r++) {
        alarm->sends[r] = MPI_REQUEST_NULL;
    }
    *out = alarm;
    return RP_OK;
}

rp_status rp_xport_alarm_open(rp_ctrl *ctrl, rp_xport_alarm **out)
{
    rp_xport_alarm *alarm = NULL;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_ctrl_agree(ctrl, new_alarm(ctrl, &alarm), "opening a transport"));
    RP_TRY_OUT(RP_MPI(MPI_Comm_dup(*(const MPI_Comm *)rp_ctrl_native(ctrl), &alarm->comm)));
    RP_TRY_OUT(RP_MPI(MPI_Comm_set_errhandler(alarm->comm, MPI_ERRORS_RETURN)));
    *out = alarm;
    alarm = NULL;

out:
    rp_xport_alarm_close(alarm);
    return st;
}

#endif
