/* test_predict.c - predictions against hand values, and placement against the pool's own. */
#include "rp_test.h"

#include "cli/cli_predict_model.h"
#include "pool/pool.h"

#include <math.h>

static rp_predict_result predict(rp_predict_job job, int n_ranks)
{
    rp_predict_result result;

    job.waves = job.waves > 0 ? job.waves : 1;
    assert_int_equal(rp_predict(&job, n_ranks, &result), RP_OK);
    return result;
}

static void assert_near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-9 * fabs(want) + 1e-12)) {
        fail_msg("got %.12g, want %.12g", got, want);
    }
}

static void test_one_image_has_two_units(void **state)
{
    const rp_predict_job job = {.images = 1, .branches = 2, .unit_ms = {40, 40}};

    (void)state;
    assert_near(predict(job, 1).step_ms, 80);
    assert_int_equal(predict(job, 1).limit, RP_LIMIT_NONE);
    assert_near(predict(job, 2).speedup, 2);
    assert_near(predict(job, 2).efficiency, 1);
    const rp_predict_result four = predict(job, 4);
    assert_near(four.speedup, 2);
    assert_near(four.efficiency, 0.5);
    assert_int_equal(four.busy_ranks, 2);
    assert_int_equal(four.limit, RP_LIMIT_UNITS);
    assert_near(four.lost_ms[RP_LIMIT_UNITS], 20);
}

static void test_uneven_units(void **state)
{
    rp_predict_job job = {.images = 3, .branches = 1, .unit_ms = {10}};

    (void)state;
    const rp_predict_result two = predict(job, 2);
    assert_near(two.step_ms, 20);
    assert_int_equal(two.most_units, 2);
    assert_int_equal(two.limit, RP_LIMIT_UNEVEN);
    assert_near(two.lost_ms[RP_LIMIT_UNEVEN], 5);
    job = (rp_predict_job){.images = 1, .branches = 2, .unit_ms = {15, 10}};
    assert_near(predict(job, 2).speedup, 25.0 / 15);
    job.images = 2; /* now they pair up */
    assert_near(predict(job, 2).speedup, 2);
}

/* Fair shares: of loads 10 and 30 on one core the first ends at 20, the last at 40. */
static void test_ranks_share_cores(void **state)
{
    rp_predict_job job = {.images = 4, .branches = 1, .unit_ms = {10}, .cores = 2};

    (void)state;
    const rp_predict_result four = predict(job, 4);
    assert_near(four.step_ms, 20);
    assert_int_equal(four.limit, RP_LIMIT_CORES);
    assert_near(predict(job, 2).step_ms, 20);
    assert_near(predict(job, 2).efficiency, 1);
    job = (rp_predict_job){.images = 1, .branches = 2, .unit_ms = {10, 30}, .cores = 1};
    assert_near(predict(job, 2).step_ms, 40);
    job.cores = 2;
    assert_near(predict(job, 8).step_ms, 30); /* ranks without units take no core */
}

/* 1 Gbit/s: 125000 bytes a ms. Rank 0 sends one image's latents, then works; rank 1's predictions
 * come when both are done. */
static void test_link_and_latency(void **state)
{
    rp_predict_job job = {.images = 2, .branches = 1, .unit_ms = {10}, .bytes = 125000, .gbit = 1};

    (void)state;
    assert_near(predict(job, 1).step_ms, 20);
    assert_near(predict(job, 2).step_ms, 1 + 10 + 1);
    assert_near(predict(job, 2).lost_ms[RP_LIMIT_NETWORK], 2);
    assert_int_equal(predict(job, 2).limit, RP_LIMIT_NETWORK);
    job.latency_us = 100; /* over 64 KiB: three each way */
    assert_near(predict(job, 2).step_ms, 12.6);
    assert_near(predict(job, 2).lost_ms[RP_LIMIT_LATENCY], 0.6);
    job.bytes = 1250;
    assert_near(predict(job, 2).step_ms, 10 + 2 * 0.01 + 2 * 0.1);
    assert_int_equal(predict(job, 2).limit, RP_LIMIT_LATENCY);
    /* both units of one image on a rank: its latents go there once, two predictions come back */
    job = (rp_predict_job){
        .images = 2, .branches = 2, .unit_ms = {10, 10}, .bytes = 125000, .gbit = 1};
    assert_near(predict(job, 2).step_ms, 1 + 20 + 2);
}

static void test_rank_0_alone(void **state)
{
    const rp_predict_job job = {
        .images = 1, .branches = 2, .unit_ms = {10, 10}, .waves = 2, .root_ms = 8};

    (void)state;
    assert_near(predict(job, 1).step_ms, 48);
    assert_near(predict(job, 2).step_ms, 28);
    assert_near(predict(job, 2).lost_ms[RP_LIMIT_ROOT], 4);
    assert_int_equal(predict(job, 2).limit, RP_LIMIT_ROOT);
}

/* Each rank its share: latents of 1 ms out, pictures of 3 ms back. The step is as without it. */
static void test_decoding_is_one_more_wave(void **state)
{
    rp_predict_job job = {.images = 8, .branches = 2, .unit_ms = {40, 40}, .decode_ms = 27};

    (void)state;
    assert_near(predict(job, 1).decode_ms, 8 * 27);
    assert_near(predict(job, 3).decode_ms, 3 * 27);
    assert_near(predict(job, 8).decode_ms, 27);
    assert_near(predict(job, 16).decode_ms, 27);
    job.cores = 4;
    assert_near(predict(job, 8).decode_ms, 2 * 27);
    job = (rp_predict_job){.images = 2,
                           .branches = 1,
                           .unit_ms = {10},
                           .bytes = 125000,
                           .decode_ms = 27,
                           .picture_bytes = 375000,
                           .gbit = 1};
    assert_near(predict(job, 1).decode_ms, 2 * 27);
    assert_near(predict(job, 2).decode_ms, 1 + 27 + 3);
    assert_near(predict(job, 2).step_ms, 1 + 10 + 1);
    job.images = 1; /* rank 0 has it */
    assert_near(predict(job, 2).decode_ms, 27);
    job.decode_ms = 0;
    assert_near(predict(job, 2).decode_ms, 0);
}

/* The longest rank, for many waves, is the one of the pool's placement. */
static void test_places_as_the_pool(void **state)
{
    rp_unit units[9 * 3];
    int rank_of[9 * 3];

    (void)state;
    for (int images = 1; images <= 9; images++) {
        const rp_predict_job job = {.images = images, .branches = 3, .unit_ms = {7, 11, 4}};
        for (int i = 0; i < 3 * images; i++) {
            units[i] = (rp_unit){.input = i / 3, .cond = i % 3, .cost = (float)job.unit_ms[i % 3]};
        }
        for (int n_ranks = 1; n_ranks <= 12; n_ranks++) {
            double load[12] = {0}, most = 0;
            rp_pool_assign(units, 3 * images, NULL, n_ranks, rank_of);
            for (int i = 0; i < 3 * images; i++) {
                load[rank_of[i]] += units[i].cost;
            }
            for (int r = 0; r < n_ranks; r++) {
                most = fmax(most, load[r]);
            }
            assert_near(predict(job, n_ranks).step_ms, most);
        }
    }
}

static void test_a_thousand_ranks(void **state)
{
    const rp_predict_job job = {
        .images = 512, .branches = 2, .unit_ms = {40, 40}, .bytes = 1 << 20, .gbit = 400};

    (void)state;
    const rp_predict_result all = predict(job, 1024);
    assert_int_equal(all.busy_ranks, 1024);
    assert_true(all.speedup > 300 && all.speedup < 1024);
    assert_int_equal(all.limit, RP_LIMIT_NETWORK);
    for (int k = 0; k < RP_N_LIMITS; k++) {
        assert_true(all.lost_ms[k] >= 0 && all.lost_ms[k] < all.step_ms);
        assert_non_null(rp_predict_limit_name((rp_predict_limit)k));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_image_has_two_units),
        cmocka_unit_test(test_uneven_units),
        cmocka_unit_test(test_ranks_share_cores),
        cmocka_unit_test(test_link_and_latency),
        cmocka_unit_test(test_rank_0_alone),
        cmocka_unit_test(test_decoding_is_one_more_wave),
        cmocka_unit_test(test_places_as_the_pool),
        cmocka_unit_test(test_a_thousand_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
