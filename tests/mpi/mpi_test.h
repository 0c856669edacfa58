/*
 * mpi_test.h - tests on several ranks: every check is first brought together, then asserted alike
 * on all ranks, so that a failure on one does not leave its peers waiting.
 */
#ifndef RP_MPI_TEST_H
#define RP_MPI_TEST_H

#include "rp_test.h"

#include "ctrl/ctrl.h"

#include <mpi.h>

static inline bool mpt_everywhere(bool mine)
{
    int running = 0, all = mine;

    (void)MPI_Initialized(&running);
    if (running) {
        (void)MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    }
    return all != 0;
}

/* True on all ranks. */
#define mpt_assert_all(expr) assert_true(mpt_everywhere(expr))

#endif
