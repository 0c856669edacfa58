/* ctrl_mpi.h - MPI return codes as statuses, for control and for transports over MPI. */
#ifndef RP_CTRL_MPI_H
#define RP_CTRL_MPI_H

#include <rankpool/status.h>

/* RP_OK for MPI_SUCCESS; else RP_E_MPI, logged with the function's name (the head of `call`) and
 * MPI's text. */
rp_status rp_ctrl_mpi_check(int code, const char *call);

#define RP_MPI(expr) rp_ctrl_mpi_check((expr), #expr)

#endif
