/* test_pool_ahead.c - units that are begun before the one before them has ended: in which order,
 * and who answers for a failure that is known late. */
#include "mpi_test.h"

#include "plain_memory.h"
#include "rp_fake.h"

#include "base/log.h"
#include "pool/pool.h"

#include <rankpool/rankpool.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 4, MSG_STOP = 2 };

static rp_ctrl *g_ctrl;
static int g_rank, g_n;
static char g_events[512]; /* " +12 -12": unit of condition 2 at call 1 was begun, was waited for */
static int g_fail = -1;    /* such a number: it fails when it is waited for */

static void note(char what, const rp_unit *unit, int eval)
{
    const size_t n = strlen(g_events);

    (void)snprintf(g_events + n, sizeof(g_events) - n, " %c%d%d", what, eval, (int)unit->cond);
}

static rp_status begin(void *arg, const rp_unit *unit, int eval, const void *in, void *out)
{
    (void)arg;
    if (eval == RP_EVAL_DECODE) {
        *(float *)out = -*(const float *)in;
        return RP_OK;
    }
    note('+', unit, eval);
    *(float *)out = *(const float *)in + (float)unit->cond;
    return RP_OK;
}

static rp_status end(void *arg, const rp_unit *unit, int eval)
{
    (void)arg;
    note('-', unit, eval);
    return 10 * eval + unit->cond == g_fail ? RP_FAIL(RP_E_CUDA, "an illegal memory access")
                                            : RP_OK;
}

static rp_pool *open_pool(void)
{
    rp_pool_params params = {.ctrl = g_ctrl, .eval = begin, .end = end};
    rp_pool *pool = NULL;

    g_events[0] = '\0';
    g_fail = -1;
    params.memory = plain_memory;
    if (rp_xport_choose("auto", g_ctrl, false, &params.xport) != RP_OK ||
        rp_pool_open(&params, &pool) != RP_OK ||
        rp_pool_plan(pool, N, 1, sizeof(float), sizeof(float)) != RP_OK) {
        return NULL;
    }
    return pool;
}

static rp_status wave(rp_pool *pool, int eval, int n)
{
    static const float in = 2.0f;
    static float out[N];
    rp_unit units[N];

    for (int i = 0; i < n; i++) {
        units[i] = (rp_unit){.input = 0, .cond = i, .cost = 1.0f};
    }
    return rp_pool_eval(pool, eval, eval, units, n, &in, out);
}

static bool happened(const char *want)
{
    const bool ok = strcmp(g_events, want) == 0;

    if (!ok) {
        print_message("rank %d:%s, want%s\n", g_rank, g_events, want);
    }
    return ok;
}

/* ---- a pool of one rank */

static void alone_the_last_unit_is_left_to_the_next_wave(void **state)
{
    (void)state;
    rp_pool *pool = g_n == 1 ? open_pool() : NULL;

    if (g_n > 1) {
        return;
    }
    assert_non_null(pool);
    assert_int_equal(wave(pool, 0, 2), RP_OK);
    assert_true(happened(" +00 +01 -00"));
    assert_int_equal(wave(pool, 1, 2), RP_OK);
    assert_true(happened(" +00 +01 -00 +10 -01 +11 -10"));
    assert_int_equal(rp_pool_settle(pool), RP_OK);
    assert_int_equal(rp_pool_settle(pool), RP_OK); /* nothing is left */
    assert_true(happened(" +00 +01 -00 +10 -01 +11 -10 -11"));

    rp_rank_stats stats;
    rp_pool_stats(pool, &stats);
    assert_int_equal(stats.n_units, 4);
    rp_pool_close(pool);
}

static char g_line[RP_LOG_LINE_BYTES];
static int g_n_lines;

static void keep_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    if (level == RP_LOG_ERROR) {
        (void)snprintf(g_line, sizeof(g_line), "%s", line);
        g_n_lines++;
    }
}

/* One error, with all of these words; NULL ends them. */
static void check_line(const char *const *words)
{
    assert_int_equal(g_n_lines, 1);
    for (int i = 0; words[i] != NULL; i++) {
        if (strstr(g_line, words[i]) == NULL) {
            fail_msg("no \"%s\" in \"%s\"", words[i], g_line);
        }
    }
}

/* Which unit fails, where that comes out, what is said. */
static void fails(int which, bool by_settle, const char *words)
{
    rp_pool *pool = open_pool();

    assert_non_null(pool);
    g_fail = which;
    g_n_lines = 0;
    rp_set_log(keep_line, NULL);
    const rp_status first = wave(pool, 3, 2);
    const rp_status second = by_settle ? rp_pool_settle(pool) : wave(pool, 4, 2);
    rp_set_log(NULL, NULL);
    assert_int_equal(first, RP_OK);
    assert_int_equal(second, RP_E_CUDA);
    check_line((const char *[]){words, NULL});
    rp_pool_close(pool);
}

static void a_late_failure_is_that_of_its_own_step_and_unit(void **state)
{
    (void)state;
    if (g_n > 1) {
        return;
    }
    fails(31, false, "step 3, unit 1 (image 0, condition 1): an illegal");
    fails(31, true, "step 3, unit 1 (image 0, condition 1): an illegal");
    fails(40, false, "step 4, unit 0 (image 0, condition 0): an illegal");
}

static void a_new_plan_forgets_what_was_left(void **state)
{
    (void)state;
    rp_pool *pool = g_n == 1 ? open_pool() : NULL;

    if (g_n > 1) {
        return;
    }
    assert_int_equal(wave(pool, 0, 1), RP_OK);
    assert_int_equal(rp_pool_plan(pool, N, 1, sizeof(float), sizeof(float)), RP_OK);
    assert_int_equal(rp_pool_settle(pool), RP_OK);
    assert_true(happened(" +00"));
    rp_pool_close(pool);
}

/* A small job on a device that fails as `how` says. */
static void run_failing_job(rp_fake_state how)
{
    static const char *const options[][2] = {
        {"model", RP_TEST_MODEL}, {"backend", "fake"}, {"steps", "6"},          {"width", "32"},
        {"height", "32"},         {"out", ""},         {"prompt", "red heart"}, {"threads", "1"}};
    rp_settings *s = rp_settings_new();
    rankpool *pool = NULL;

    rp_fake = how;
    rp_fake.budget = RP_FAKE_ENOUGH;
    for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++) {
        assert_int_equal(rp_settings_set(s, options[k][0], options[k][1]), RP_OK);
    }
    assert_int_equal(rp_open(s, &pool), RP_OK);
    g_n_lines = 0;
    rp_set_log(keep_line, NULL);
    const rp_status st = rp_generate(pool, s, NULL, NULL);
    rp_set_log(NULL, NULL);
    rp_close(pool);
    rp_settings_free(s);
    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    assert_int_equal(st, RP_E_CUDA);
}

/* The first two units are waited for one by one, the last one at the end of the last step. */
static void a_job_names_the_unit_that_failed(void **state)
{
    static const char *const where[] = {"step 0, unit 1", "step 1, unit 0", "step 1, unit 1",
                                        "step 5, unit 1"};
    static const int fail_unit[] = {2, 3, 4, 12};

    (void)state;
    for (size_t i = 0; g_n == 1 && i < sizeof(where) / sizeof(where[0]); i++) {
        run_failing_job((rp_fake_state){.fail_unit = fail_unit[i]});
        check_line((const char *[]){"rank 0 on host ", where[i], "GPU-fake", NULL});
    }
}

static void a_job_names_the_picture_that_was_not_decoded(void **state)
{
    (void)state;
    if (g_n == 1) {
        run_failing_job((rp_fake_state){.fail_picture = 1});
        check_line((const char *[]){"rank 0 on host ", "decoding image 0", "GPU-fake", NULL});
    }
}

/* ---- several ranks: outputs travel, so a wave ends with its last unit */

static rp_status serve(rp_pool *pool)
{
    static unsigned char message[RP_CTRL_MESSAGE_BYTES];
    rp_status st = RP_OK;

    for (;;) {
        size_t n = 0;
        int32_t kind = MSG_STOP;
        if (st != RP_OK || rp_ctrl_recv(g_ctrl, message, sizeof(message), &n) != RP_OK) {
            return st != RP_OK ? st : RP_E_MPI;
        }
        memcpy(&kind, message, sizeof(kind));
        if (kind == MSG_STOP) {
            return RP_OK;
        }
        st = rp_pool_serve_wave(pool, message, n);
    }
}

static void with_others_every_unit_ends_in_its_wave(void **state)
{
    (void)state;
    if (g_n != 2) {
        return;
    }
    rp_pool *pool = open_pool();
    bool ok = pool != NULL;

    mpt_assert_all(ok);
    if (g_rank == 0) {
        ok = wave(pool, 0, N) == RP_OK && wave(pool, RP_EVAL_DECODE, 2) == RP_OK;
        ok = happened(" +00 +02 -00 -02") && ok;
        (void)rp_ctrl_send(g_ctrl, 1, &(int32_t){MSG_STOP}, sizeof(int32_t));
    } else {
        ok = serve(pool) == RP_OK && happened(" +01 +03 -01 -03");
    }
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_the_last_unit_is_left_to_the_next_wave),
        cmocka_unit_test(a_late_failure_is_that_of_its_own_step_and_unit),
        cmocka_unit_test(a_new_plan_forgets_what_was_left),
        cmocka_unit_test(a_job_names_the_unit_that_failed),
        cmocka_unit_test(a_job_names_the_picture_that_was_not_decoded),
        cmocka_unit_test(with_others_every_unit_ends_in_its_wave),
    };

    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    if (rp_ctrl_open(false, &g_ctrl) != RP_OK) {
        return 1;
    }
    g_rank = rp_ctrl_rank(g_ctrl);
    g_n = rp_ctrl_n_ranks(g_ctrl);
    const int failed = cmocka_run_group_tests_name("pool ahead", tests, NULL, NULL);
    rp_ctrl_close(g_ctrl);
    return failed;
}
