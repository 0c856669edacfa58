/* ctrl_star.h - one TCP connection between rank 0 and every other rank. */
#ifndef RP_CTRL_STAR_H
#define RP_CTRL_STAR_H

#include "ctrl/ctrl.h"

/*
 * Collective. fds [n_ranks], all -1 before: on rank 0 fds[r] leads to rank r, elsewhere fds[0] to
 * rank 0. Rank 0 listens on a port that the system picks and tells its addresses and a random token
 * over MPI; both ends show the token. A rank that cannot connect in 5 s is left with -1 on both
 * ends: see rp_ctrl_star_missing. RP_E_MPI.
 */
rp_status rp_ctrl_star_open(rp_ctrl *ctrl, int *fds);

/* Collective. The lowest rank without a connection, or -1; the same on all ranks. RP_E_MPI. */
rp_status rp_ctrl_star_missing(rp_ctrl *ctrl, const int *fds, int *rank_out);

#endif
