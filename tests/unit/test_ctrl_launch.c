/* test_ctrl_launch.c - which launcher started us, from the environments that launchers make. */
#include "rp_test.h"

#include "ctrl/ctrl.h"
#include "ctrl/ctrl_launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"OMPI_COMM_WORLD_SIZE",
                                    "OMPI_COMM_WORLD_RANK",
                                    "PMI_RANK",
                                    "PMI_SIZE",
                                    "PMIX_RANK",
                                    "SLURM_STEP_ID",
                                    "SLURM_PROCID",
                                    "SLURM_NTASKS",
                                    "SLURM_STEP_NUM_TASKS"};

/* "NAME=value NAME=value", all others unset. */
static rp_ctrl_launch launch(const char *environment)
{
    char text[512];
    char *save = NULL;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(unsetenv(names[i]), 0);
    }
    (void)snprintf(text, sizeof(text), "%s", environment);
    for (char *item = strtok_r(text, " ", &save); item != NULL; item = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(item, '=');
        *equals = '\0';
        assert_int_equal(setenv(item, equals + 1, 1), 0);
    }
    return rp_ctrl_launch_read();
}

static void every_launcher_is_known_by_its_variables(void **state)
{
    (void)state;
    static const struct {
        const char *environment, *name;
        int n, rank;
        bool strangers;
    } rows[] = {
        {"", "", 1, 0, false},
        {"OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=2 PMIX_RANK=2", "mpirun", 4, 2, false},
        {"OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0", "mpirun", 1, 0, false},
        /* mpirun inside an allocation: the SLURM_* are those of its helper */
        {"OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=3 SLURM_STEP_ID=0 SLURM_PROCID=1 "
         "SLURM_NTASKS=2",
         "mpirun", 4, 3, false},
        {"PMI_RANK=1 PMI_SIZE=3", "pmi", 3, 1, false},
        {"PMIX_RANK=1 SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=3", "pmix", 3, 1, false},
        {"PMIX_RANK=0", "pmix", 0, 0, false},
        {"SLURM_STEP_ID=0 SLURM_PROCID=2 SLURM_NTASKS=3", "srun", 3, 2, true},
        {"SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=1", "", 1, 0, false},
        {"SLURM_PROCID=0 SLURM_NTASKS=4", "", 1, 0, false}, /* a batch script's own shell */
        {"OMPI_COMM_WORLD_SIZE=many PMI_RANK=-1 PMIX_RANK=1x", "", 1, 0, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const rp_ctrl_launch got = launch(rows[i].environment);
        assert_string_equal(got.name, rows[i].name);
        assert_int_equal(got.n, rows[i].n);
        assert_int_equal(got.rank, rows[i].rank);
        assert_int_equal(got.strangers, rows[i].strangers);
    }
}

static void copies_that_do_not_know_each_other_are_refused(void **state)
{
    (void)state;
    rp_ctrl *ctrl = NULL;

    rpt_log_collect();
    rpt_log_clear();
    (void)launch("SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=3");
    assert_int_equal(rp_ctrl_open(false, &ctrl), RP_E_UNSUP);
    assert_null(ctrl);
    assert_string_equal(rpt_log_last(),
                        "srun started 3 copies that do not know each other: use srun --mpi=pmix");
    rpt_log_clear();
    (void)launch("SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=3");
    assert_int_equal(rp_ctrl_open(false, &ctrl), RP_E_UNSUP);
    assert_string_equal(rpt_log_last(), ""); /* one of them says it */
}

static void alone_there_is_one_rank(void **state)
{
    (void)state;
    rp_ctrl *ctrl = NULL;

    (void)launch("");
    assert_int_equal(rp_ctrl_open(false, &ctrl), RP_OK);
    assert_string_equal(rp_ctrl_kind(ctrl), "solo");
    assert_int_equal(rp_ctrl_n_ranks(ctrl), 1);
    rp_ctrl_close(ctrl);
    rp_ctrl_close(NULL);
}

#ifdef RP_HAVE_MPI
/* A launcher of another MPI: its ranks find nobody. */
static void a_launcher_of_another_mpi_is_found_out(void **state)
{
    (void)state;
    rp_ctrl *ctrl = NULL;

    rpt_log_clear();
    (void)launch("PMI_RANK=0 PMI_SIZE=4");
    assert_int_equal(rp_ctrl_open(false, &ctrl), RP_E_MPI);
    assert_null(ctrl);
    assert_non_null(strstr(rpt_log_last(), "pmi started 4 ranks but MPI sees 1"));
}
#else
static void several_ranks_need_a_build_with_mpi(void **state)
{
    (void)state;
    static const char *const environments[] = {"OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0",
                                               "PMIX_RANK=0"};
    rp_ctrl *ctrl = NULL;

    for (int i = 0; i < 3; i++) {
        rpt_log_clear();
        (void)launch(i < 2 ? environments[i] : "");
        assert_int_equal(rp_ctrl_open(i == 2, &ctrl), RP_E_UNSUP);
        assert_null(ctrl);
        assert_non_null(strstr(rpt_log_last(), "several ranks need MPI, and this build has none"));
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_launcher_is_known_by_its_variables),
        cmocka_unit_test(copies_that_do_not_know_each_other_are_refused),
        cmocka_unit_test(alone_there_is_one_rank),
#ifdef RP_HAVE_MPI
        cmocka_unit_test(a_launcher_of_another_mpi_is_found_out),
#else
        cmocka_unit_test(several_ranks_need_a_build_with_mpi),
#endif
    };

    return cmocka_run_group_tests_name("ctrl_launch", tests, NULL, NULL);
}
