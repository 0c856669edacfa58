/*
 * ctrl_watch.h - notices that a rank has gone and ends this process, whatever MPI and the launcher
 * do.
 *
 * MPI is no failure detector: a receive from a rank that was killed may never return. So every rank
 * keeps a TCP connection to rank 0 (ctrl_star.h) and a thread that sleeps until one of them ends.
 */
#ifndef RP_CTRL_WATCH_H
#define RP_CTRL_WATCH_H

#include <rankpool/status.h>

typedef struct rp_ctrl rp_ctrl;
typedef struct rp_ctrl_watch rp_ctrl_watch;

/* Collective. *out is NULL for one rank, and on all ranks when one of them could not be connected:
 * rank 0 warns, and the job goes on without. RP_E_MPI. */
rp_status rp_ctrl_watch_open(rp_ctrl *ctrl, rp_ctrl_watch **out);

/* From now on connections that end are no news. Every rank calls it before any rank closes. */
void rp_ctrl_watch_ignore(rp_ctrl_watch *watch);

/* Tell the others that this rank ends the job itself and has said why. */
void rp_ctrl_watch_abort(rp_ctrl_watch *watch);

/* These three take NULL. */
void rp_ctrl_watch_close(rp_ctrl_watch *watch);

#endif
