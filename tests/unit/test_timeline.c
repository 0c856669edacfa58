/* test_timeline.c - marks around units, the gaps between them, the trace. */
#include "rp_test.h"

#include "base/clock.h"
#include "job/job_timeline.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static rp_backend g_cpu;

static int open_cpu(void **state)
{
    const rp_backend_params params = {.n_threads = 1};

    (void)state;
    for (int i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, "cpu") == 0) {
            g_cpu.ops = rp_backend_list[i];
        }
    }
    return g_cpu.ops->open(&params, &g_cpu.self) == RP_OK ? 0 : -1;
}

static int close_cpu(void **state)
{
    (void)state;
    g_cpu.ops->close(g_cpu.self);
    return 0;
}

static void one_unit(rp_timeline *t, int eval)
{
    const rp_unit unit = {.input = eval % 2, .cond = 1, .cost = 1.0f};
    const int mark = rp_timeline_begin(t, &g_cpu, &unit, eval);

    rp_clock_sleep_us(1000);
    rp_timeline_end(&g_cpu, mark);
}

static void units_follow_each_other(void **state)
{
    (void)state;
    static const int eval_step[] = {0, 0, 1};
    rp_timeline t = {0};

    assert_int_equal(rp_timeline_reserve(&t, &g_cpu, 2), RP_OK);
    assert_int_equal(rp_timeline_reserve(&t, &g_cpu, 3), RP_OK);
    for (int i = 0; i < 5; i++) { /* no room for the last two */
        one_unit(&t, i % 3);
    }
    assert_int_equal(t.n, 3);
    assert_int_equal(rp_timeline_read(&t, &g_cpu, eval_step), RP_OK);
    assert_true(t.units[0].begin_ms == 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(t.units[i].step, eval_step[i]);
        assert_true(t.units[i].end_ms >= t.units[i].begin_ms + 1.0);
        assert_true(i == 0 || t.units[i].begin_ms >= t.units[i - 1].end_ms);
    }
    rp_timeline_free(&t);
}

static void marks_without_room_are_told(void **state)
{
    (void)state;
    double ms[2];

    g_cpu.ops->mark(g_cpu.self, 1 << 20); /* nothing */
    g_cpu.ops->mark(g_cpu.self, -1);
    assert_int_equal(g_cpu.ops->marks_read(g_cpu.self, 1 << 20, ms), RP_E_ARG);
    assert_int_equal(g_cpu.ops->marks_read(g_cpu.self, 0, ms), RP_OK);
}

/* A gap counts when the unit before it is not of the first step. */
static void gaps_leave_the_first_step_out(void **state)
{
    (void)state;
    static const rp_timed_unit units[] = {{.step = 0, .begin_ms = 0, .end_ms = 2},
                                          {.step = 0, .begin_ms = 5, .end_ms = 6},
                                          {.step = 1, .begin_ms = 9, .end_ms = 10},
                                          {.step = 1, .begin_ms = 10.25, .end_ms = 12},
                                          {.step = 2, .begin_ms = 12.5, .end_ms = 14}};
    double gaps[4];

    assert_int_equal(rp_timeline_gaps(units, 5, gaps), 2);
    assert_true(fabs(gaps[0] - 250) < 1e-6 && fabs(gaps[1] - 500) < 1e-6);
    assert_int_equal(rp_timeline_gaps(units, 1, gaps), 0);
    assert_int_equal(rp_timeline_gaps(units, 0, gaps), 0);
}

static void the_trace_is_chromes(void **state)
{
    (void)state;
    static const rp_timed_unit unit = {
        .step = 3, .eval = 6, .image = 2, .cond = 1, .begin_ms = 1.5, .end_ms = 4};
    char *text = rp_timeline_json(&unit, 1);
    cJSON *root = cJSON_Parse(text);
    const cJSON *event = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "traceEvents"), 1);

    assert_non_null(root);
    assert_string_equal(cJSON_GetObjectItem(event, "ph")->valuestring, "X");
    assert_string_equal(cJSON_GetObjectItem(event, "name")->valuestring, "image 2, condition 1");
    assert_true(cJSON_GetObjectItem(event, "ts")->valuedouble == 1500);
    assert_true(cJSON_GetObjectItem(event, "dur")->valuedouble == 2500);
    cJSON_Delete(root);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_follow_each_other),
        cmocka_unit_test(marks_without_room_are_told),
        cmocka_unit_test(gaps_leave_the_first_step_out),
        cmocka_unit_test(the_trace_is_chromes),
    };
    return cmocka_run_group_tests_name("timeline", tests, open_cpu, close_cpu);
}
