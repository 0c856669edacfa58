/* test_pool_speed.c - the moving median of a rank's pace, and when it changes a placement. */
#include "rp_test.h"

#include "pool/pool_speed.h"

#include <string.h>

enum { MAX_UNITS = 12, MAX_RANKS = 4 };

static void waves(rp_pace *pace, int n, double seconds)
{
    for (int i = 0; i < n; i++) {
        rp_pace_add(pace, seconds, 2.0);
    }
}

static void the_first_wave_does_not_count_and_two_more_are_not_enough(void **state)
{
    (void)state;
    rp_pace pace = {0};

    rp_pace_add(&pace, 100.0, 1.0);
    assert_float_equal(rp_pace_median(&pace), 0.0, 0.0);
    rp_pace_add(&pace, 6.0, 2.0);
    rp_pace_add(&pace, 90.0, 1.0);
    assert_float_equal(rp_pace_median(&pace), 0.0, 0.0);
    rp_pace_add(&pace, 20.0, 4.0);
    assert_float_equal(rp_pace_median(&pace), 5.0, 1e-12);
}

static void a_few_odd_waves_do_not_move_the_median_and_a_lasting_change_does(void **state)
{
    (void)state;
    rp_pace pace = {0};

    waves(&pace, 1 + RP_SPEED_WAVES, 2.0);
    waves(&pace, RP_SPEED_WAVES / 2, 50.0);
    assert_float_equal(rp_pace_median(&pace), 1.0, 0.0);
    waves(&pace, 1, 50.0);
    assert_float_equal(rp_pace_median(&pace), 25.0, 0.0);
    waves(&pace, RP_SPEED_WAVES, 4.0);
    assert_float_equal(rp_pace_median(&pace), 2.0, 0.0);
}

static void a_rank_without_units_keeps_its_pace_for_a_while(void **state)
{
    (void)state;
    rp_pace pace = {0};

    waves(&pace, 1 + RP_SPEED_KNOWN, 2.0);
    for (int i = 1; i < RP_SPEED_FORGET; i++) {
        rp_pace_add(&pace, 0.0, 0.0);
    }
    assert_float_equal(rp_pace_median(&pace), 1.0, 0.0);
    rp_pace_add(&pace, 0.0, 0.0);
    assert_float_equal(rp_pace_median(&pace), 0.0, 0.0);
}

/* ---- waves whose units take as long as their rank's pace says */

typedef struct {
    rp_speed speed;
    rp_unit units[MAX_UNITS];
    int n_units, rank_of[MAX_UNITS], n_of[MAX_RANKS];
} fake_pool;

static void open_fake(fake_pool *f, int n_ranks, int n_units)
{
    memset(f, 0, sizeof(*f));
    assert_int_equal(rp_speed_new(n_ranks, &f->speed), RP_OK);
    f->n_units = n_units;
    for (int i = 0; i < n_units; i++) {
        f->units[i] = (rp_unit){.input = i, .cond = 0, .cost = 1.0f};
    }
}

static void run_waves(fake_pool *f, int n, const double *pace)
{
    int trial[MAX_UNITS];

    for (int k = 0; k < n; k++) {
        double busy[MAX_RANKS] = {0};
        rp_speed_place(&f->speed, f->units, f->n_units, f->rank_of, trial);
        memset(f->n_of, 0, sizeof(f->n_of));
        for (int i = 0; i < f->n_units; i++) {
            busy[f->rank_of[i]] += f->units[i].cost * pace[f->rank_of[i]];
            f->n_of[f->rank_of[i]]++;
        }
        rp_speed_learn(&f->speed, f->units, f->n_units, f->rank_of, busy);
    }
}

static void assert_shares(const fake_pool *f, const int *want)
{
    for (int r = 0; r < f->speed.n_ranks; r++) {
        assert_int_equal(f->n_of[r], want[r]);
    }
}

static void a_slow_rank_gets_less_once_its_pace_is_known(void **state)
{
    (void)state;
    fake_pool two, three;

    open_fake(&two, 2, 12);
    run_waves(&two, 1 + RP_SPEED_KNOWN, (const double[]){0.01, 0.02});
    assert_shares(&two, (const int[]){6, 6});
    run_waves(&two, 1, (const double[]){0.01, 0.02});
    assert_shares(&two, (const int[]){8, 4});
    rp_speed_free(&two.speed);

    open_fake(&three, 3, 12);
    run_waves(&three, 10, (const double[]){0.01, 0.02, 0.01});
    assert_shares(&three, (const int[]){5, 2, 5});
    rp_speed_free(&three.speed);
}

/* Where each unit goes stays too: a rank that gets another kind of unit makes new plans. */
static void about_equal_ranks_keep_the_placement_of_equal_ones(void **state)
{
    (void)state;
    static const double paces[][3] = {
        {0.0103, 0.01, 0.0101}, {0.01, 0.0104, 0.01}, {0.01, 0.01, 0.0096}};
    fake_pool f;

    open_fake(&f, 3, 8);
    for (int k = 0; k < 30; k++) {
        run_waves(&f, 3, paces[k % 3]);
        for (int i = 0; i < f.n_units; i++) {
            assert_int_equal(f.rank_of[i], i % 3);
        }
    }
    rp_speed_free(&f.speed);
}

static void two_units_stay_on_two_ranks_unless_one_does_both_sooner(void **state)
{
    (void)state;
    fake_pool f;

    open_fake(&f, 2, 2);
    run_waves(&f, 20, (const double[]){0.019, 0.01});
    assert_shares(&f, (const int[]){1, 1});
    assert_int_equal(f.rank_of[0], 0);
    run_waves(&f, 20, (const double[]){0.03, 0.01});
    assert_shares(&f, (const int[]){0, 2});
    rp_speed_free(&f.speed);
}

static void a_rank_that_was_slow_for_a_time_comes_back(void **state)
{
    (void)state;
    fake_pool f;

    open_fake(&f, 2, 2);
    run_waves(&f, 10, (const double[]){0.01, 0.09});
    assert_shares(&f, (const int[]){2, 0});
    run_waves(&f, RP_SPEED_FORGET + 6, (const double[]){0.01, 0.01});
    assert_shares(&f, (const int[]){1, 1});
    rp_speed_free(&f.speed);
}

static void units_too_short_to_be_timed_change_nothing(void **state)
{
    (void)state;
    fake_pool f;

    open_fake(&f, 2, 12);
    run_waves(&f, 20, (const double[]){0.00002, 0.00009});
    assert_shares(&f, (const int[]){6, 6});
    rp_speed_free(&f.speed);
}

static void no_units_and_no_ranks_to_choose_from_are_fine(void **state)
{
    (void)state;
    fake_pool f;

    open_fake(&f, 1, 3);
    run_waves(&f, 5, (const double[]){0.01});
    assert_shares(&f, (const int[]){3});
    f.n_units = 0;
    run_waves(&f, 2, (const double[]){0.01});
    assert_shares(&f, (const int[]){0});
    rp_speed_free(&f.speed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_wave_does_not_count_and_two_more_are_not_enough),
        cmocka_unit_test(a_few_odd_waves_do_not_move_the_median_and_a_lasting_change_does),
        cmocka_unit_test(a_rank_without_units_keeps_its_pace_for_a_while),
        cmocka_unit_test(a_slow_rank_gets_less_once_its_pace_is_known),
        cmocka_unit_test(about_equal_ranks_keep_the_placement_of_equal_ones),
        cmocka_unit_test(two_units_stay_on_two_ranks_unless_one_does_both_sooner),
        cmocka_unit_test(a_rank_that_was_slow_for_a_time_comes_back),
        cmocka_unit_test(units_too_short_to_be_timed_change_nothing),
        cmocka_unit_test(no_units_and_no_ranks_to_choose_from_are_fine),
    };

    return cmocka_run_group_tests_name("pool_speed", tests, NULL, NULL);
}
