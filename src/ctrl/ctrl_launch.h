/* ctrl_launch.h - which launcher started this process. */
#ifndef RP_CTRL_LAUNCH_H
#define RP_CTRL_LAUNCH_H

#include <stdbool.h>

typedef struct {
    const char
        *name;      /* "mpirun", "pmi", "pmix", "srun", or "" when started alone; static storage */
    int n;          /* processes it started; 0: unknown, but a launcher there was */
    int rank;       /* this one's number; -1: unknown */
    bool strangers; /* several copies were started without a way to find each other */
} rp_ctrl_launch;

/* From the environment: OMPI_COMM_WORLD_* (Open MPI's mpirun), PMI_* (MPICH's, srun --mpi=pmi2),
 * PMIX_RANK (srun --mpi=pmix), SLURM_* (plain srun). Inside an allocation the SLURM_* of an
 * mpirun's ranks are those of its helper step, so they are looked at last. */
rp_ctrl_launch rp_ctrl_launch_read(void);

#endif
