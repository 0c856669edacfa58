/* test_device_fails.c - a device that fails during a step, and ranks with different devices: all
 * ranks leave alike, with one line. */
#include "mpi_test.h"

#include "rp_fake.h"

#include <rankpool/rankpool.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int g_rank, g_errors, g_infos;
static char g_error[1024], g_info[1024];

static void keep_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    if (level == RP_LOG_ERROR) {
        g_errors++;
        (void)snprintf(g_error, sizeof(g_error), "%s", line);
    } else if (level == RP_LOG_INFO) {
        g_infos++;
        (void)snprintf(g_info, sizeof(g_info), "%s", line);
    }
}

static int start_test(void **state)
{
    (void)state;
    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    g_errors = g_infos = 0;
    g_error[0] = g_info[0] = '\0';
    return 0;
}

static rp_settings *settings(const char *backend, const char *out)
{
    const char *const values[][2] = {{"model", RP_TEST_MODEL}, {"backend", backend}, {"steps", "6"},
                                     {"width", "32"},          {"height", "32"},     {"out", out},
                                     {"prompt", "red heart"},  {"threads", "1"}};
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
    };
    int level = 0;

    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &g_rank);
    rp_set_log(keep_line, NULL);
    const int failed = cmocka_run_group_tests_name("device_fails", tests, NULL, NULL);
    (void)MPI_Finalize();
    return failed;
}
