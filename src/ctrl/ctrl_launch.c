/* ctrl_launch.c - which launcher started this process, told by its environment. */
#include "ctrl/ctrl_launch.h"

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>

/* A whole number >= 0, or `absent` for anything else. */
static int number(const char *name, int absent)
{
    const char *text = getenv(name);
    char *end = NULL;

    if (text == NULL || text[0] < '0' || text[0] > '9') {
        return absent;
    }
    const long value = strtol(text, &end, 10);
    return *end == '\0' && value <= INT_MAX ? (int)value : absent;
}

/* Tasks of this Slurm step; 0 outside of a step (a batch script is in an allocation, not in a
 * step). */
static int step_tasks(void)
{
    if (number("SLURM_STEP_ID", -1) < 0 || number("SLURM_PROCID", -1) < 0) {
        return 0;
    }
    return number("SLURM_STEP_NUM_TASKS", number("SLURM_NTASKS", 0));
}

rp_ctrl_launch rp_ctrl_launch_read(void)
{
    const int n_tasks = step_tasks();

    if (number("OMPI_COMM_WORLD_SIZE", 0) > 0) {
        return (rp_ctrl_launch){"mpirun", number("OMPI_COMM_WORLD_SIZE", 0),
                                number("OMPI_COMM_WORLD_RANK", -1), false};
    }
    if (number("PMI_RANK", -1) >= 0) {
        return (rp_ctrl_launch){"pmi", number("PMI_SIZE", 0), number("PMI_RANK", -1), false};
    }
    if (number("PMIX_RANK", -1) >= 0) {
        return (rp_ctrl_launch){"pmix", n_tasks, number("PMIX_RANK", -1), false};
    }
    if (n_tasks > 1) {
        return (rp_ctrl_launch){"srun", n_tasks, number("SLURM_PROCID", -1), true};
    }
    return (rp_ctrl_launch){"", 1, 0, false};
}
