/* test_sample.c - samplers: orders of convergence on an equation with a known solution, plans,
 * diffusers. */
#include "rp_test.h"

#include "sample/sample.h"
#include "sample/schedule.h"
#include "weights/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 512, N = 16 * 16 * 16, MAX_WORK = 4 };

static const rp_sampler *find(const char *name)
{
    for (int i = 0; rp_sampler_list[i] != NULL; i++) {
        if (strcmp(rp_sampler_list[i]->name, name) == 0) {
            return rp_sampler_list[i];
        }
    }
    fail_msg("no sampler %s", name);
    return NULL;
}

/* ------------------------------------------------------------- known path */

/*
 * Data that is an even mixture of normal(1, V) and normal(-1, V), noised to x = (1 - s) x0 + s
 * noise. With S = (1 - s)^2 V + s^2 the mean of x0 given x is E = t + (1 - s) V / S (x - (1 - s)
 * t),   t = tanh((1 - s) x / S) and the velocity is (x - E) / s. The path through x(1) is found
 * with Runge and Kutta's fourth order.
 */
#define VARIANCE 0.25

static double velocity_at(double x, double s)
{
    const double keep = 1 - s, spread = keep * keep * VARIANCE + s * s, t = tanh(keep * x / spread);

    return (x - t - keep * VARIANCE / spread * (x - keep * t)) / s;
}

static double true_end(double x, double begin, double end)
{
    enum { FINE = 4000 };
    const double stop = end > 1e-4 ? end : 1e-4, h = (stop - begin) / FINE;

    for (int i = 0; i < FINE; i++) {
        const double s = begin + h * i;
        const double k1 = velocity_at(x, s), k2 = velocity_at(x + h / 2 * k1, s + h / 2);
        const double k3 = velocity_at(x + h / 2 * k2, s + h / 2),
                     k4 = velocity_at(x + h * k3, s + h);
        x += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4);
    }
    return x + (end - stop) * velocity_at(x, stop); /* the formula is 0 / 0 at 0 */
}

typedef struct {
    float eval_sigma[3 * MAX_STEPS];
    int n_evals, next;
    size_t n;
} known_path;

static rp_status known_velocity(void *arg, int eval, const float *x, float *velocity)
{
    known_path *path = arg;

    /* calls come in the order of the plan, each once */
    assert_int_equal(eval, path->next);
    assert_true(eval < path->n_evals);
    path->next++;
    const double s = path->eval_sigma[eval];
    assert_true(s > 0);
    for (size_t i = 0; i < path->n; i++) {
        velocity[i] = (float)velocity_at(x[i], s);
    }
    return RP_OK;
}

/* Two paths from begin to end in even steps; returns the bigger error at the end. */
static double run_known(const rp_sampler *sampler, double begin, double end, int n_steps)
{
    static known_path path;
    float levels[MAX_STEPS + 2], x[2], velocity[2], work[2 * MAX_WORK] = {0};
    float *const sigma = levels + 1; /* what stands before it must not matter */
    int eval_step[3 * MAX_STEPS];

    assert_true(sampler->n_work <= MAX_WORK);
    levels[0] = (float)(begin * 1.001);
    for (int i = 0; i <= n_steps; i++) {
        sigma[i] = (float)(begin + (end - begin) * i / n_steps);
    }
    path.n = 2;
    path.next = 0;
    path.n_evals = sampler->plan(sigma, n_steps, path.eval_sigma, eval_step);
    assert_int_equal(path.n_evals, sampler->plan(sigma, n_steps, NULL, NULL));
    assert_true(path.n_evals <= 3 * n_steps);
    x[0] = 0.6f;
    x[1] = -1.5f;
    const rp_sample_state state = {.x = x,
                                   .n = 2,
                                   .sigma = sigma,
                                   .n_steps = n_steps,
                                   .denoise = known_velocity,
                                   .arg = &path,
                                   .velocity = velocity,
                                   .work = work,
                                   .vec = &rp_vec_host};
    int eval = 0;
    for (int step = 0; step < n_steps; step++) {
        assert_int_equal(eval_step[eval], step);
        assert_int_equal(sampler->step(&state, step, eval), RP_OK);
        while (eval < path.n_evals && eval_step[eval] == step) {
            eval++;
        }
        assert_int_equal(path.next, eval);
    }
    assert_int_equal(eval, path.n_evals);
    return fmax(fabs(x[0] - true_end(0.6f, begin, end)), fabs(x[1] - true_end(-1.5f, begin, end)));
}

/* Error ratio when steps are halved: 2^order. */
static double order(const rp_sampler *sampler, double begin, double end)
{
    return log2(run_known(sampler, begin, end, 16) / run_known(sampler, begin, end, 32));
}

/* Observed: orders 0.98, 1.93, 2.01, 2.12; errors 0.035, 2.5e-4, 1.3e-4, 2.5e-3. */
static void orders_are_as_promised(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double order, error; /* of 32 steps from 0.95 to 0.05 */
    } rows[] = {
        {"euler", 1, 0.05}, {"heun", 2, 5e-4}, {"midpoint", 2, 3e-4}, {"dpmpp_2m", 2, 4e-3}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const double got = order(find(rows[i].name), 0.95, 0.05);
        const double error = run_known(find(rows[i].name), 0.95, 0.05, 32);
        if (getenv("RPT_VERBOSE") != NULL) {
            print_message("%s: order %.2f, error %.2g\n", rows[i].name, got, error);
        }
        assert_true(fabs(got - rows[i].order) < 0.35);
        assert_true(error < rows[i].error);
    }
}

/* From pure noise to the end: 1 and 0 are the levels where logarithms are infinite. */
static void every_sampler_goes_from_one_to_zero(void **state)
{
    (void)state;

    for (int r = 0; rp_sampler_list[r] != NULL; r++) {
        const rp_sampler *sampler = rp_sampler_list[r];
        assert_non_null(sampler->help);
        assert_true(isfinite(run_known(sampler, 1, 0, 1)));
        assert_true(isfinite(run_known(sampler, 1, 0, 2)));
        const double coarse = run_known(sampler, 1, 0, 16), fine = run_known(sampler, 1, 0, 256);
        if (getenv("RPT_VERBOSE") != NULL) {
            print_message("%s: 16 steps %.2g, 256 steps %.2g\n", sampler->name, coarse, fine);
        }
        assert_true(fine < 0.02);
        assert_true(fine < coarse / 4);
    }
}

static void plans_have_the_promised_counts(void **state)
{
    (void)state;
    static const float sigma[4] = {1.0f, 0.75f, 0.5f, 0.0f};
    float at[9];
    int step[9];

    assert_int_equal(find("euler")->plan(sigma, 3, at, step), 3);
    assert_true(at[0] == 1.0f && at[1] == 0.75f && at[2] == 0.5f && step[2] == 2);
    assert_int_equal(find("dpmpp_2m")->plan(sigma, 3, at, step), 3);
    assert_int_equal(find("heun")->plan(sigma, 3, at, step), 5);
    assert_true(at[1] == 0.75f && at[3] == 0.5f && at[4] == 0.5f && step[4] == 2 && step[3] == 1);
    assert_int_equal(find("midpoint")->plan(sigma, 3, at, step), 6);
    assert_true(at[1] == 0.875f && at[5] == 0.25f && step[5] == 2);
}

static rp_status failing(void *arg, int eval, const float *x, float *velocity)
{
    (void)x;
    velocity[0] = 1.0f;
    return eval == *(const int *)arg ? RP_E_PEER : RP_OK;
}

/* A step that fails leaves x alone, whichever call failed. */
static void failures_are_passed_on(void **state)
{
    (void)state;
    static const float sigma[3] = {1.0f, 0.5f, 0.0f};

    for (int r = 0; rp_sampler_list[r] != NULL; r++) {
        float x = 3.0f, velocity, work[MAX_WORK] = {0};
        int at[9];
        const int n = rp_sampler_list[r]->plan(sigma, 2, NULL, at);
        for (int bad = 0; bad < n && at[bad] == 0; bad++) {
            const rp_sample_state s = {&x,   1,         sigma, 2,           failing,
                                       &bad, &velocity, work,  &rp_vec_host};
            assert_int_equal(rp_sampler_list[r]->step(&s, 0, 0), RP_E_PEER);
            assert_true(x == 3.0f);
        }
    }
}

/* -------------------------------------------------------------- diffusers */

static rp_status recorded_velocity(void *arg, int eval, const float *x, float *velocity)
{
    const float *const *run = arg; /* latents before step 0, latents after every step, sigmas */
    const float *from = eval == 0 ? run[0] : run[1] + (size_t)(eval - 1) * N;
    const float *to = run[1] + (size_t)eval * N;

    (void)x;
    for (size_t i = 0; i < N; i++) {
        velocity[i] = (to[i] - from[i]) / (run[2][eval + 1] - run[2][eval]);
    }
    return RP_OK;
}

/* Observed: 2e-9 after 20 steps. */
static void euler_follows_the_reference_run(void **state)
{
    (void)state;
    static float x[N], velocity[N];
    const char *path = RP_TEST_DATA "/emoji-lumina2-reference/p0.safetensors";
    rp_safetensors *file = NULL;
    rp_tensor init, latents, sigmas;

    assert_int_equal(rp_safetensors_open(path, &file), RP_OK);
    assert_int_equal(rp_safetensors_find(file, "latents_init", &init), RP_OK);
    assert_int_equal(rp_safetensors_find(file, "default.latents", &latents), RP_OK);
    assert_int_equal(rp_safetensors_find(file, "sigmas", &sigmas), RP_OK);
    const float *run[3] = {init.data, latents.data, sigmas.data};

    memcpy(x, init.data, sizeof(x));
    const rp_sample_state s = {x,   N,        run[2], 20,          recorded_velocity,
                               run, velocity, NULL,   &rp_vec_host};
    for (int step = 0; step < 20; step++) {
        assert_int_equal(find("euler")->step(&s, step, step), RP_OK);
        rpt_assert_close("euler", x, run[1] + (size_t)step * N, N, 1e-6);
    }
    rp_safetensors_close(file);
}

/* The rounding of diffusers' step on its own numbers: x + dt * v, two roundings, no fused
 * multiply-add. */
static void euler_rounds_twice(void **state)
{
    (void)state;
    static const float sigma[2] = {1.0f, 0.7f};
    float x[N], velocity[N], want[N];

    rpt_fill(x, N, 1);
    rpt_fill(want, N, 2);
    known_path path = {.eval_sigma = {1.0f}, .n_evals = 1, .n = N};
    for (size_t i = 0; i < N; i++) {
        /* v = x at s = 1: (1 - 0) / 1 */
        const volatile float product = (sigma[1] - sigma[0]) * x[i];
        want[i] = x[i] + product;
    }
    const rp_sample_state s = {x,     N,        sigma, 1,           known_velocity,
                               &path, velocity, NULL,  &rp_vec_host};
    assert_int_equal(find("euler")->step(&s, 0, 0), RP_OK);
    assert_memory_equal(x, want, sizeof(x));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_are_as_promised),
        cmocka_unit_test(every_sampler_goes_from_one_to_zero),
        cmocka_unit_test(plans_have_the_promised_counts),
        cmocka_unit_test(failures_are_passed_on),
        cmocka_unit_test(euler_follows_the_reference_run),
        cmocka_unit_test(euler_rounds_twice),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
