/* test_ctrl_wait.c - how long a wait sleeps: idle ranks are cheap, waits in a step end in time. */
#include "rp_test.h"

#include "base/clock.h"
#include "ctrl/ctrl_wait.h"

static void idle_ranks_sleep_200_us_whatever_cores_they_have(void **state)
{
    (void)state;
    for (int own = 0; own < 2; own++) {
        rp_ctrl_wait_own_cores(own != 0);
        assert_int_equal(rp_ctrl_wait_sleep_us(0.06), 200);
        assert_int_equal(rp_ctrl_wait_sleep_us(3600), 200);
        assert_int_equal(rp_ctrl_wait_sleep_us(0), 0);
    }
    rp_ctrl_wait_own_cores(false);
}

static void sleeps_only_grow(void **state)
{
    (void)state;
    for (int own = 0; own < 2; own++) {
        unsigned before = 0;
        rp_ctrl_wait_own_cores(own != 0);
        for (double waited_s = 0; waited_s < 0.1; waited_s += 1e-4) {
            const unsigned us = rp_ctrl_wait_sleep_us(waited_s);
            assert_true(us >= before && (us == 0 || us >= 20));
            before = us;
        }
    }
    rp_ctrl_wait_own_cores(false);
}

/* On shared cores 1 ms awake, and the longest sleep before 2 ms. */
static void shared_cores_are_soon_left_alone(void **state)
{
    (void)state;
    rp_ctrl_wait_own_cores(false);
    assert_int_equal(rp_ctrl_wait_sleep_us(0.9e-3), 0);
    assert_int_equal(rp_ctrl_wait_sleep_us(1.01e-3), 22);
    assert_int_equal(rp_ctrl_wait_sleep_us(1.8e-3), 200);
}

/* On own cores the last sleep of a wait is at most 0.5 % of it. */
static void own_cores_end_a_wait_within_half_a_percent(void **state)
{
    (void)state;
    rp_ctrl_wait_own_cores(true);
    assert_int_equal(rp_ctrl_wait_sleep_us(4.9e-3), 0);
    for (double waited_s = 0; waited_s < 0.1; waited_s += 1e-4) {
        assert_true(rp_ctrl_wait_sleep_us(waited_s) * 1e-6 <= 0.005 * waited_s);
    }
    rp_ctrl_wait_own_cores(false);
}

/* A pause takes about what was promised; loose, as the machine may be busy. */
static void pauses_of_a_long_wait_are_few(void **state)
{
    (void)state;
    rp_ctrl_wait wait = RP_CTRL_WAIT_INIT;
    const double start = rp_clock_now();
    int n = 0;

    rp_ctrl_wait_own_cores(false);
    rp_ctrl_wait_pause(&wait);
    assert_true(wait.start_s >= start);
    wait.start_s -= 0.05; /* as if it had lasted that long */
    for (const double from = rp_clock_now(); rp_clock_now() - from < 0.05; n++) {
        rp_ctrl_wait_pause(&wait);
    }
    assert_true(n >= 1 && n <= 251);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_ranks_sleep_200_us_whatever_cores_they_have),
        cmocka_unit_test(sleeps_only_grow),
        cmocka_unit_test(shared_cores_are_soon_left_alone),
        cmocka_unit_test(own_cores_end_a_wait_within_half_a_percent),
        cmocka_unit_test(pauses_of_a_long_wait_are_few),
    };
    return cmocka_run_group_tests_name("ctrl_wait", tests, NULL, NULL);
}
