/* ctrl_list.c - the implementations of control in this build. */
#include "ctrl/ctrl_ops.h"

extern const rp_ctrl_ops rp_ctrl_mpi;
extern const rp_ctrl_ops rp_ctrl_solo;

const rp_ctrl_ops *const rp_ctrl_list[] = {
#ifdef RP_HAVE_MPI
    &rp_ctrl_mpi,
#endif
    &rp_ctrl_solo,
    NULL,
};
