/* test_device_fails.c - a device that fails during a step, and ranks with different devices: all
 * ranks leave alike, with one line. */
#include "mpi_test.h"

#include "rp_fake.h"

#include <rankpool/rankpool.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int g_rank, g_errors, g_warns, g_infos;
static char g_error[1024], g_warn[1024], g_info[1024];

static const char *g_share = "off"; /* --allow-shared-gpu */

static void keep_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    if (level == RP_LOG_ERROR) {
        g_errors++;
        (void)snprintf(g_error, sizeof(g_error), "%s", line);
    } else if (level == RP_LOG_WARN) {
        g_warns++;
        (void)snprintf(g_warn, sizeof(g_warn), "%s", line);
    } else if (level == RP_LOG_INFO) {
        g_infos++;
        (void)snprintf(g_info, sizeof(g_info), "%s", line);
    }
}

static int start_test(void **state)
{
    (void)state;
    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    g_errors = g_warns = g_infos = 0;
    g_error[0] = g_warn[0] = g_info[0] = '\0';
    return 0;
}

static rp_settings *settings(const char *backend, const char *out)
{
    const char *const values[][2] = {
        {"model", RP_TEST_MODEL}, {"backend", backend}, {"steps", "6"},
        {"width", "32"},          {"height", "32"},     {"out", out},
        {"prompt", "red heart"},  {"threads", "1"},     {"allow-shared-gpu", g_share}};
    rp_settings *s = rp_settings_new();

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        assert_int_equal(rp_settings_set(s, values[i][0], values[i][1]), RP_OK);
    }
    return s;
}

/* A job as the command runs it: the status that this rank leaves with. */
static rp_status run(const char *backend, const char *out)
{
    rp_settings *s = settings(backend, out);
    rankpool *pool = NULL;
    rp_status st = rp_open(s, &pool);

    if (st == RP_OK) {
        st = g_rank == 0 ? rp_generate(pool, s, NULL, NULL) : rp_serve(pool);
    }
    rp_close(pool);
    rp_settings_free(s);
    return st;
}

static bool says(const char *line, const char *const *words)
{
    bool ok = true;

    for (int i = 0; words[i] != NULL; i++) {
        if (strstr(line, words[i]) == NULL) {
            print_error("no \"%s\" in \"%s\"\n", words[i], line);
            ok = false;
        }
    }
    return ok;
}

/* One error on rank 0, none elsewhere. */
static bool told_once(const char *const *words)
{
    return g_rank != 0 ? g_errors == 0 : g_errors == 1 && says(g_error, words);
}

static void a_device_that_fails_ends_all_ranks_with_one_line(void **state)
{
    (void)state;
    const char *const words[] = {"rank 1 on host ", "step 3, unit 1 (image 0, condition 1)",
                                 "GPU 0 (fake GPU, GPU-fake)", "illegal memory access", NULL};
    char *dir = g_rank == 0 ? rpt_mkdir() : NULL;
    char out[512] = "none.png";

    if (g_rank == 0) {
        (void)snprintf(out, sizeof(out), "%s/none.png", dir);
    }
    rp_fake.fail_unit = g_rank == 1 ? 4 : 0;
    mpt_assert_all(run("fake", out) == RP_E_CUDA && told_once(words));
    if (g_rank == 0) {
        assert_int_equal(rmdir(dir), 0); /* it is empty: no picture and no part of one */
        free(dir);
    }
}

static void rank_0_fails_like_any_other(void **state)
{
    (void)state;
    const char *const words[] = {"rank 0 on host ", "step 2, unit 0", "illegal memory access",
                                 NULL};

    rp_fake.fail_unit = g_rank == 0 ? 3 : 0;
    mpt_assert_all(run("fake", "") == RP_E_CUDA && told_once(words));
}

static void a_device_too_small_for_the_job_ends_all_ranks(void **state)
{
    (void)state;
    const char *const words[] = {"setting the job up", "rank 1 on host ",
                                 "weights take 0.04 GB in f32 (they are there)", NULL};

    rp_fake.budget = g_rank == 1 ? 40100000 : RP_FAKE_ENOUGH; /* the weights, and little else */
    mpt_assert_all(run("fake", "") == RP_E_NOMEM && told_once(words));
}

static void ranks_with_and_without_a_device_are_refused(void **state)
{
    (void)state;
    const char *const words[] = {"rank 1 on host ", "computes on cpu in f32",
                                 "rank 0 on host ", "on fake in f32",
                                 "--backend",       NULL};

    rp_fake.absent = g_rank == 1;
    mpt_assert_all(run("auto", "") == RP_E_UNSUP && told_once(words));
}

static void without_a_device_auto_takes_the_cpu_and_says_so_once(void **state)
{
    (void)state;
    const char *const words[] = {"not computing on fake: there is no fake GPU", NULL};

    rp_fake.absent = true;
    const bool ok = run("auto", "") == RP_OK && g_errors == 0;
    mpt_assert_all(ok && (g_rank != 0 ? g_infos == 0 : g_infos == 1 && says(g_info, words)));
}

static void a_device_that_was_asked_for_and_is_not_there_is_an_error(void **state)
{
    (void)state;
    const char *const words[] = {"backend fake cannot work here: there is no fake GPU", NULL};

    rp_fake.absent = true;
    mpt_assert_all(run("fake", "") == RP_E_UNSUP && (g_rank != 0 || says(g_error, words)));
}

/* ---- devices side by side */

static void gpus_of_two_kinds_are_allowed_with_one_warning(void **state)
{
    (void)state;
    static const char *const ids[] = {"GPU-0", "GPU-1", "GPU-2"};
    const char *const words[] = {"rank 1 on host ", " has a fake GPU 2, rank 0 a fake GPU:",
                                 "last bits from those of one kind of GPU", NULL};

    rp_fake.name = g_rank == 1 ? "fake GPU 2" : NULL;
    rp_fake.id = ids[g_rank];
    const bool ok = run("fake", "") == RP_OK && g_errors == 0;
    mpt_assert_all(ok && (g_rank != 0 ? g_warns == 0 : g_warns == 1 && says(g_warn, words)));
}

static void two_ranks_with_one_gpu_are_refused(void **state)
{
    (void)state;
    const char *const words[] = {"ranks 0 and 1 on host ",
                                 "have the same GPU (fake GPU, GPU-0)",
                                 " (of CUDA_VISIBLE_DEVICES=\"0,abc\" rank 1 sees 1);",
                                 "start one rank per GPU",
                                 "--allow-shared-gpu",
                                 NULL};
    const char *const unset[] = {"have the same GPU (fake GPU, GPU-0); start", NULL};

    rp_fake.id = g_rank < 2 ? "GPU-0" : "GPU-2";
    assert_int_equal(g_rank == 1 ? setenv("CUDA_VISIBLE_DEVICES", "0,abc", 1)
                                 : unsetenv("CUDA_VISIBLE_DEVICES"),
                     0);
    mpt_assert_all(run("fake", "") == RP_E_UNSUP && told_once(words));
    g_errors = 0;
    assert_int_equal(unsetenv("CUDA_VISIBLE_DEVICES"), 0);
    mpt_assert_all(run("fake", "") == RP_E_UNSUP && told_once(unset));
}

static void two_ranks_may_share_a_gpu_where_that_is_allowed(void **state)
{
    (void)state;
    rp_fake.id = "GPU-0";
    g_share = "on";
    const bool ok = run("fake", "") == RP_OK;
    g_share = "off";
    mpt_assert_all(ok && g_errors + g_warns == 0);
}

static void a_backend_that_lacks_an_op_is_refused_at_the_start(void **state)
{
    (void)state;
    const rp_backend_ops whole = rp_fake_ops;
    char slot[64];
    const char *const words[] = {"backend fake lacks an op (", slot, NULL};

    (void)snprintf(slot, sizeof(slot), "(slot %zu of its table)",
                   offsetof(rp_backend_ops, to_bytes) / sizeof(void *));
    rp_fake_ops.to_bytes = g_rank == 1 ? NULL : rp_fake_ops.to_bytes;
    const bool ok = run("fake", "") == RP_E_UNSUP && told_once(words);
    rp_fake_ops = whole;
    mpt_assert_all(ok && rp_fake.n_networks == 0);
}

#define TEST(name) cmocka_unit_test_setup(name, start_test)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_device_that_fails_ends_all_ranks_with_one_line),
        TEST(rank_0_fails_like_any_other),
        TEST(a_device_too_small_for_the_job_ends_all_ranks),
        TEST(ranks_with_and_without_a_device_are_refused),
        TEST(without_a_device_auto_takes_the_cpu_and_says_so_once),
        TEST(a_device_that_was_asked_for_and_is_not_there_is_an_error),
        TEST(gpus_of_two_kinds_are_allowed_with_one_warning),
        TEST(two_ranks_with_one_gpu_are_refused),
        TEST(two_ranks_may_share_a_gpu_where_that_is_allowed),
        TEST(a_backend_that_lacks_an_op_is_refused_at_the_start),
    };
    int level = 0;

    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &g_rank);
    rp_set_log(keep_line, NULL);
    const int failed = cmocka_run_group_tests_name("device_fails", tests, NULL, NULL);
    (void)MPI_Finalize();
    return failed;
}
