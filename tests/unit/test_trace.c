/* test_trace.c - spans are kept while there is room and the trace is on. */
#include "rp_test.h"

#include "base/trace.h"

#include <string.h>

static const rp_trace_of of = {.step = 3, .unit = 1, .image = 0, .cond = 1};

static void off_or_absent_nothing_is_kept(void **state)
{
    (void)state;
    rp_trace trace = {0};

    assert_int_equal(rp_trace_start(&trace, 0), RP_OK);
    assert_true(rp_trace_begin(&trace) == 0 && rp_trace_begin(NULL) == 0);
    rp_trace_end(&trace, 1.0, RP_TRACE_UNIT, of);
    rp_trace_end(NULL, 1.0, RP_TRACE_UNIT, of);
    assert_int_equal(trace.n, 0);
    rp_trace_free(&trace);
}

static void spans_are_kept_in_order_and_those_without_room_are_counted(void **state)
{
    (void)state;
    rp_trace trace = {0};

    assert_int_equal(rp_trace_start(&trace, 2), RP_OK);
    for (int i = 0; i < 5; i++) {
        rp_trace_end(&trace, rp_trace_begin(&trace), RP_TRACE_UNIT + i % 2, of);
    }
    rp_trace_end(&trace, 0, RP_TRACE_WAIT, of); /* begun while it was off */
    assert_int_equal(trace.n, 2);
    assert_int_equal(trace.lost, 3);
    assert_true(0 < trace.spans[0].begin && trace.spans[0].begin <= trace.spans[0].end);
    assert_true(trace.spans[0].end <= trace.spans[1].begin);
    assert_string_equal(rp_trace_name(trace.spans[0].what), "unit");
    assert_string_equal(rp_trace_name(trace.spans[1].what), "gather");
    assert_memory_equal(&trace.spans[1].of, &of, sizeof(of));
    rp_trace_free(&trace);
}

static void a_smaller_trace_after_a_larger_one_has_its_own_room(void **state)
{
    (void)state;
    rp_trace trace = {0};

    assert_int_equal(rp_trace_start(&trace, 8), RP_OK);
    assert_int_equal(rp_trace_start(&trace, 1), RP_OK);
    for (int i = 0; i < 3; i++) {
        rp_trace_end(&trace, rp_trace_begin(&trace), RP_TRACE_MERGE, of);
    }
    assert_int_equal(trace.n, 1);
    assert_int_equal(trace.lost, 2);
    rp_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(off_or_absent_nothing_is_kept),
        cmocka_unit_test(spans_are_kept_in_order_and_those_without_room_are_counted),
        cmocka_unit_test(a_smaller_trace_after_a_larger_one_has_its_own_room),
    };

    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
