/* test_pool_assign.c - placement against hand values and against the best of all placements. */
#include "rp_test.h"

#include "pool/pool.h"

#include <string.h>

enum { MAX_UNITS = 9, MAX_RANKS = 4 };

static void units_of_cost(rp_unit *units, int n, const float *cost)
{
    for (int i = 0; i < n; i++) {
        units[i] = (rp_unit){.input = i, .cond = 0, .cost = cost != NULL ? cost[i] : 1.0f};
    }
}

static double finish_of(const rp_unit *units, int n, const double *speed, int n_ranks,
                        const int *rank_of)
{
    double worst = 0;

    for (int r = 0; r < n_ranks; r++) {
        double load = 0;
        for (int i = 0; i < n; i++) {
            load += rank_of[i] == r ? units[i].cost : 0;
        }
        load /= speed != NULL ? speed[r] : 1;
        worst = load > worst ? load : worst;
    }
    return worst;
}

/* By trying all n_ranks^n placements. */
static double best_finish(const rp_unit *units, int n, const double *speed, int n_ranks)
{
    int rank_of[MAX_UNITS] = {0};
    double best = finish_of(units, n, speed, n_ranks, rank_of);

    for (;;) {
        int i = 0;
        while (i < n && ++rank_of[i] == n_ranks) {
            rank_of[i++] = 0;
        }
        if (i == n) {
            return best;
        }
        const double finish = finish_of(units, n, speed, n_ranks, rank_of);
        best = finish < best ? finish : best;
    }
}

static void assert_places(const float *cost, int n, const double *speed, int n_ranks,
                          const int *want)
{
    rp_unit units[MAX_UNITS];
    int rank_of[MAX_UNITS];

    units_of_cost(units, n, cost);
    rp_pool_assign(units, n, speed, n_ranks, rank_of);
    for (int i = 0; i < n; i++) {
        assert_int_equal(rank_of[i], want[i]);
    }
}

static void equal_units_go_round_in_order_and_ties_to_the_lower_rank(void **state)
{
    (void)state;
    assert_places(NULL, 7, NULL, 3, (const int[]){0, 1, 2, 0, 1, 2, 0});
    assert_places(NULL, 2, NULL, 4, (const int[]){0, 1});
    assert_places(NULL, 3, NULL, 1, (const int[]){0, 0, 0});
}

static void long_units_come_first(void **state)
{
    (void)state;
    assert_places((const float[]){1, 1, 2}, 3, NULL, 2, (const int[]){1, 1, 0});
    assert_places((const float[]){1, 3, 2, 3}, 4, NULL, 2, (const int[]){1, 0, 0, 1});
}

static void fast_ranks_get_more(void **state)
{
    (void)state;
    static const double second_is_fast[] = {1, 3}, first_is_slow[] = {0.1, 1, 1};

    assert_places(NULL, 4, second_is_fast, 2, (const int[]){1, 1, 0, 1});
    assert_places(NULL, 2, first_is_slow, 3, (const int[]){1, 2});
}

static void no_units_touch_nothing(void **state)
{
    (void)state;
    int rank_of[1] = {7};

    rp_pool_assign(NULL, 0, NULL, 3, rank_of);
    assert_int_equal(rank_of[0], 7);
}

static unsigned next(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

/* Graham 1969: LPT <= (4/3 - 1/(3m)) of the best on m equal ranks; Gonzalez, Ibarra, Sahni 1977: <=
 * 2 on ranks of any speeds. */
static void placements_are_near_the_best_of_all(void **state)
{
    (void)state;
    unsigned seed = 1;

    for (int round = 0; round < 300; round++) {
        const int n_ranks = 1 + (int)(next(&seed) % MAX_RANKS);
        const int n = 1 + (int)(next(&seed) % (n_ranks == 4 ? 7 : MAX_UNITS));
        float cost[MAX_UNITS];
        double speed[MAX_RANKS];
        rp_unit units[MAX_UNITS];
        int rank_of[MAX_UNITS], again[MAX_UNITS];
        for (int i = 0; i < n; i++) {
            cost[i] = (float)(1 + next(&seed) % 9);
        }
        for (int r = 0; r < n_ranks; r++) {
            speed[r] = 1.0 + next(&seed) % 4;
        }
        units_of_cost(units, n, cost);
        for (int with_speed = 0; with_speed < 2; with_speed++) {
            const double *s = with_speed ? speed : NULL;
            const double bound = with_speed ? 2.0 : 4.0 / 3.0 - 1.0 / (3.0 * n_ranks);
            rp_pool_assign(units, n, s, n_ranks, rank_of);
            rp_pool_assign(units, n, s, n_ranks, again);
            assert_memory_equal(rank_of, again, (size_t)n * sizeof(int));
            for (int i = 0; i < n; i++) {
                assert_true(rank_of[i] >= 0 && rank_of[i] < n_ranks);
            }
            assert_true(finish_of(units, n, s, n_ranks, rank_of) <=
                        bound * best_finish(units, n, s, n_ranks) + 1e-9);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_units_go_round_in_order_and_ties_to_the_lower_rank),
        cmocka_unit_test(long_units_come_first),
        cmocka_unit_test(fast_ranks_get_more),
        cmocka_unit_test(no_units_touch_nothing),
        cmocka_unit_test(placements_are_near_the_best_of_all),
    };

    return cmocka_run_group_tests_name("pool_assign", tests, NULL, NULL);
}
