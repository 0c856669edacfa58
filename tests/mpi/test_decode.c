/* test_decode.c - pictures are decoded on all ranks that can, and are the same whoever did it. */
#include "mpi_test.h"

#include "rp_fake.h"

#include "base/check.h"
#include "base/log.h"
#include "job/job_resident.h"
#include "xport/xport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_IMAGES = 32, MOST_SIDE = 64, PICTURE_BYTES = MOST_SIDE * MOST_SIDE * 3 };

typedef struct {
    const char *images, *side, *residency;
} a_job;

static int g_rank, g_n;
static bool g_device; /* the transport moves device memory */
static int g_errors, g_cannot, g_short;
static char g_error[RP_LOG_LINE_BYTES];
static uint8_t g_rgb[MOST_IMAGES][PICTURE_BYTES]; /* of the newest job */

/* The fake GPU's memory is host memory, so what moves that can be said to move a GPU's. */
rp_status __real_rp_xport_choose(const char *name, const rp_ctrl *ctrl, bool on_device,
                                 const rp_xport_ops **out);
rp_status __wrap_rp_xport_choose(const char *name, const rp_ctrl *ctrl, bool on_device,
                                 const rp_xport_ops **out);

rp_status __wrap_rp_xport_choose(const char *name, const rp_ctrl *ctrl, bool on_device,
                                 const rp_xport_ops **out)
{
    static rp_xport_ops row;

    (void)on_device;
    RP_TRY(__real_rp_xport_choose(name, ctrl, false, out));
    row = **out;
    row.on_device = g_device;
    *out = &row;
    return RP_OK;
}

static void keep_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    if (level == RP_LOG_ERROR) {
        g_errors++;
        (void)snprintf(g_error, sizeof(g_error), "%s", line);
    }
    g_cannot += strstr(line, "rank 0 decodes all pictures") != NULL;
    g_short += strstr(line, "memory of other ranks was too short to decode") != NULL;
}

static int start_test(void **state)
{
    (void)state;
    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    g_device = false;
    g_errors = g_cannot = g_short = 0;
    g_error[0] = '\0';
    return 0;
}

static rp_settings *settings(const a_job *job, uint64_t seed)
{
    char number[24];
    const char *const values[][2] = {
        {"model", RP_TEST_MODEL},      {"backend", "fake"},   {"steps", "1"},
        {"width", job->side},          {"height", job->side}, {"images", job->images},
        {"residency", job->residency}, {"seed", number},      {"out", ""},
        {"prompt", "red heart"},       {"threads", "1"}};
    rp_settings *s = rp_settings_new();

    (void)snprintf(number, sizeof(number), "%d", (int)seed);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        assert_int_equal(rp_settings_set(s, values[i][0], values[i][1]), RP_OK);
    }
    return s;
}

/* Rank 0: the job's pictures to g_rgb. */
static rp_status generate(rankpool *pool, const a_job *job, uint64_t seed)
{
    rp_settings *s = settings(job, seed);
    rp_result *result = NULL;
    const rp_status st = rp_generate(pool, s, NULL, &result);

    for (int i = 0; st == RP_OK && i < rp_result_n_images(result); i++) {
        int width = 0, height = 0;
        const uint8_t *rgb = rp_result_rgb(result, i, &width, &height);
        memcpy(g_rgb[i], rgb, (size_t)width * (size_t)height * 3);
    }
    rp_result_free(result);
    rp_settings_free(s);
    return st;
}

/* Picture i of several has seed + i: alone, on rank 0, it must be the same. */
static bool same_alone(rankpool *pool, const a_job *job, uint64_t seed)
{
    static uint8_t together[MOST_IMAGES][PICTURE_BYTES];
    const a_job one = {"1", job->side, "run"};
    bool ok = true;

    memcpy(together, g_rgb, sizeof(together));
    for (int i = 0; ok && i < atoi(job->images); i++) {
        const int before = rp_fake.n_pictures;
        ok = generate(pool, &one, seed + (uint64_t)i) == RP_OK &&
             rp_fake.n_pictures == before + 1 && memcmp(together[i], g_rgb[0], PICTURE_BYTES) == 0;
    }
    return ok;
}

/* One pool for some jobs one after the other, each compared when `compare`. */
static rp_status run(const a_job *jobs, int n, bool compare, bool *same)
{
    rp_settings *s = settings(&jobs[0], 3);
    rankpool *pool = NULL;
    rp_status st = rp_open(s, &pool);

    if (st == RP_OK && g_rank > 0) {
        st = rp_serve(pool);
    }
    for (int i = 0; st == RP_OK && g_rank == 0 && i < n; i++) {
        memset(g_rgb, 0, sizeof(g_rgb));
        st = generate(pool, &jobs[i], 3);
        *same = st == RP_OK && *same && (!compare || same_alone(pool, &jobs[i], 3));
    }
    rp_close(pool);
    rp_settings_free(s);
    return st;
}

/* ---- */

static void check_batch(void)
{
    static const a_job jobs[] = {{"3", "32", "run"}, {"1", "64", "run"},  {"5", "64", "run"},
                                 {"2", "32", "job"}, {"5", "32", "step"}, {"3", "64", "run"}};
    bool same = true;

    const rp_status st = run(jobs, sizeof(jobs) / sizeof(jobs[0]), true, &same);
    mpt_assert_all(st == RP_OK && same && g_errors + g_cannot + g_short == 0 && rp_fake.used == 0);
}

static void pictures_are_the_same_whoever_decodes_them(void **state)
{
    (void)state;
    check_batch();
}

static void also_where_they_are_sent_from_device_to_device(void **state)
{
    (void)state;
    g_device = g_n > 1;
    check_batch();
}

/* 5 pictures: 3 and 2 on two ranks; one picture stays on rank 0, and nobody else has a VAE then. */
static void each_rank_decodes_its_share(void **state)
{
    (void)state;
    const a_job five = {"5", "32", "run"}, one = {"1", "32", "run"};
    const int want[3][3] = {{5, 0, 0}, {3, 2, 0}, {2, 2, 1}};
    bool same = true;

    rp_status st = run(&five, 1, false, &same);
    const bool shared = rp_fake.n_pictures == want[g_n - 1][g_rank];
    mpt_assert_all(st == RP_OK && shared && rp_fake.n_networks == (g_rank == 0 ? 3 : 2));
    rp_fake.n_pictures = rp_fake.n_networks = 0;
    st = run(&one, 1, false, &same);
    mpt_assert_all(st == RP_OK && rp_fake.n_pictures == (g_rank == 0) &&
                   rp_fake.n_networks == (g_rank == 0 ? 3 : 1));
}

/* One line on rank 0, however many jobs: after it nobody asks again. */
static bool told_at_most_once(void)
{
    return g_errors == 0 && g_cannot + g_short <= 1;
}

/* Less and less memory on the last rank: first it leaves its pictures to rank 0, then it has no
 * room for the VAE, at last none for the job. */
static void check_short_memory(bool device)
{
    static const a_job jobs[] = {{"3", "64", "run"}, {"3", "64", "run"}};
    static uint8_t want[MOST_IMAGES][PICTURE_BYTES];
    int n_good = 0, n_cannot = 0, n_short = 0;
    bool same = true;

    g_device = device;
    rp_status st = run(jobs, 1, true, &same);
    mpt_assert_all(st == RP_OK && same);
    st = run(jobs, 2, false, &same);
    memcpy(want, g_rgb, sizeof(want));
    for (size_t budget = rp_fake.most; mpt_everywhere(st == RP_OK); budget -= 1000000) {
        (void)start_test(NULL);
        g_device = device;
        rp_fake.budget = g_rank == g_n - 1 ? budget : RP_FAKE_ENOUGH;
        st = run(jobs, 2, false, &same);
        same = st != RP_OK || memcmp(want, g_rgb, sizeof(want)) == 0;
        mpt_assert_all(rp_fake.used == 0 && same && (st == RP_OK || st == RP_E_NOMEM));
        mpt_assert_all(st != RP_OK || told_at_most_once());
        n_good += st == RP_OK;
        n_cannot += g_cannot;
        n_short += g_short;
    }
    if (g_rank == 0) {
        print_message("%d sizes with pictures, rank 0 took over some of %d, all of %d\n", n_good,
                      n_short, n_cannot);
    }
    mpt_assert_all(g_rank > 0 || (n_short > 0 && n_cannot > 0 && n_good > n_short + n_cannot));
}

static void a_rank_short_of_memory_leaves_pictures_to_rank_0(void **state)
{
    (void)state;
    if (g_n > 1) {
        check_short_memory(false);
    }
}

static void also_one_whose_slots_are_on_its_device(void **state)
{
    (void)state;
    if (g_n > 1) {
        check_short_memory(true);
    }
}

static void a_device_that_fails_while_it_decodes_ends_all_ranks_with_one_line(void **state)
{
    (void)state;
    const a_job three = {"3", "32", "run"};
    bool same = true;

    if (g_n == 1) {
        return;
    }
    rp_fake.fail_picture = g_rank == 1 ? 1 : 0;
    const rp_status st = run(&three, 1, false, &same);
    const bool told = strstr(g_error, "rank 1 on host ") != NULL &&
                      strstr(g_error, ": decoding image 1: GPU 0 (fake GPU") != NULL;
    if (g_rank == 0 && !told) {
        print_error("\"%s\"\n", g_error);
    }
    mpt_assert_all(st == RP_E_CUDA && (g_rank > 0 ? g_errors == 0 : g_errors == 1 && told));
}

/* With so many bytes on rank 0, do the jobs come to their end? The same answer on all ranks. */
static bool all_fit(const a_job *jobs, int n, size_t budget)
{
    bool same = true;

    (void)start_test(NULL);
    g_device = g_n > 1;
    rp_fake.budget = g_rank == 0 ? budget : RP_FAKE_ENOUGH;
    return mpt_everywhere(run(jobs, n, false, &same) == RP_OK);
}

/* What rank 0 keeps of a large job on its device makes room for the next. */
static void jobs_in_a_row_need_no_more_than_the_largest_alone(void **state)
{
    (void)state;
    static const a_job large_small[] = {{"32", "32", "run"}, {"1", "32", "run"}};
    static const a_job large_twice[] = {{"32", "32", "run"}, {"32", "32", "run"}};
    size_t too_small = 40000000, least = 60000000;

    while (least - too_small > 40000) {
        const size_t half = (least + too_small) / 2;
        if (all_fit(large_small, 1, half)) {
            least = half;
        } else {
            too_small = half;
        }
    }
    const bool then_small = all_fit(large_small, 2, least) && g_errors == 0;
    const bool again = all_fit(large_twice, 2, least) && g_errors == 0;
    mpt_assert_all(least < 60000000 && then_small && again);
}

#define TEST(name) cmocka_unit_test_setup(name, start_test)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(pictures_are_the_same_whoever_decodes_them),
        TEST(also_where_they_are_sent_from_device_to_device),
        TEST(each_rank_decodes_its_share),
        TEST(a_rank_short_of_memory_leaves_pictures_to_rank_0),
        TEST(also_one_whose_slots_are_on_its_device),
        TEST(a_device_that_fails_while_it_decodes_ends_all_ranks_with_one_line),
        TEST(jobs_in_a_row_need_no_more_than_the_largest_alone),
    };
    int level = 0;

    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &g_rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &g_n);
    rp_set_log(keep_line, NULL);
    const int failed = cmocka_run_group_tests_name("decode", tests, NULL, NULL);
    (void)MPI_Finalize();
    return failed;
}
