/*
 * test_vec.c - vectors on the host: bit for bit the loops that samplers and guiders had before they
 * computed on vectors. The pictures of a seed depend on every rounding here.
 */
#include "rp_test.h"

#include "guide/guide.h"
#include "sample/sample.h"

#include <math.h>
#include <string.h>

enum { C = 3, H = 5, W = 11, N = C * H * W, MAX_WORK = 2 };

static const float g_sigma[] = {1.0f, 0.83f, 0.41f, 0.17f, 0.0f};
enum { STEPS = 4 };

/* ---- combine */

static void terms_are_summed_from_the_left(void **state)
{
    (void)state;
    const float coef[RP_VEC_TERMS] = {0.3f, -1.7f, 2.9f, 0.11f};
    float in[RP_VEC_TERMS][N], out[N];
    const float *at[RP_VEC_TERMS];

    for (int k = 0; k < RP_VEC_TERMS; k++) {
        rpt_fill(in[k], N, (unsigned)k + 1);
        at[k] = in[k];
    }
    for (int n_terms = 1; n_terms <= RP_VEC_TERMS; n_terms++) {
        rp_vec_host.combine(NULL, out, N, n_terms, coef, at);
        for (int i = 0; i < N; i++) {
            volatile float want = coef[0] * in[0][i]; /* volatile: each step is rounded */
            for (int k = 1; k < n_terms; k++) {
                const volatile float product = coef[k] * in[k][i];
                want = want + product;
            }
            assert_true(out[i] == want);
        }
    }
}

static void no_terms_are_zeros_and_out_may_be_a_term(void **state)
{
    (void)state;
    float x[4] = {1.5f, -0.0f, INFINITY, 3e-41f}, y[4] = {1, 2, 3, 4}, sum[4];

    rp_vec_copy(&rp_vec_host, sum, 4, x);
    assert_memory_equal(sum, x, sizeof(x)); /* also -0 and what is denormal */
    rp_vec_two(&rp_vec_host, sum, 4, 2.0f, y, -1.0f, x);
    rp_vec_two(&rp_vec_host, x, 4, 2.0f, y, -1.0f, x);
    assert_memory_equal(sum, x, sizeof(x));
    rp_vec_host.combine(NULL, y, 4, 0, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        assert_true(y[i] == 0.0f && !signbit(y[i]));
    }
}

/* ---- guiders: the loops as they were */

static float old_projection(const float *cond, const float *uncond, size_t n)
{
    double dot = 0, square = 0;

    for (size_t i = 0; i < n; i++) {
        dot += (double)cond[i] * uncond[i];
        square += (double)uncond[i] * uncond[i];
    }
    return (float)(dot / (square + 1e-8));
}

static void old_row(const rp_guide_params *params, float factor, const float *cond,
                    const float *uncond, float *out)
{
    double cond_sum = 0, out_sum = 0;

    for (int i = 0; i < W; i++) {
        const float from = uncond[i] * factor;
        const float guided = from + params->scale * (cond[i] - from);
        cond_sum += (double)cond[i] * cond[i];
        out_sum += (double)guided * guided;
        out[i] = guided;
    }
    if (params->renorm && out_sum > 0) {
        const float ratio = (float)sqrt(cond_sum) / (float)sqrt(out_sum);
        for (int i = 0; i < W; i++) {
            out[i] = out[i] * ratio;
        }
    }
}

static void old_merge(const char *name, const rp_guide_params *params, const float *cond,
                      const float *uncond, float *out)
{
    const float factor =
        strcmp(name, "cfg_zero_star") == 0 ? old_projection(cond, uncond, N) : 1.0f;

    for (int row = 0; row < C * H; row++) {
        old_row(params, factor, cond + row * W, uncond + row * W, out + row * W);
    }
}

static const rp_guider *guider(const char *name)
{
    for (int i = 0; rp_guider_list[i] != NULL; i++) {
        if (strcmp(rp_guider_list[i]->name, name) == 0) {
            return rp_guider_list[i];
        }
    }
    fail_msg("no guider %s", name);
    return NULL;
}

static void guiders_give_the_bits_of_the_plain_loops(void **state)
{
    (void)state;
    static const char *const names[] = {"cfg", "cfg_zero_star"};
    static float room[RP_VEC_ROOM] __attribute__((aligned(8)));
    float cond[N], uncond[N], out[N], want[N];
    const float *const preds[] = {cond, uncond};
    const rp_guide_merge m = {&rp_vec_host, preds, 2, C, H, W, out, room};

    rpt_fill(cond, N, 1);
    rpt_fill(uncond, N, 2);
    for (size_t r = 0; r < sizeof(names) / sizeof(names[0]); r++) {
        for (int renorm = 0; renorm < 2; renorm++) {
            const rp_guide_params params = {.scale = 3.7f, .renorm = renorm, .truncation = 1.0};
            guider(names[r])->merge(&params, &m);
            old_merge(names[r], &params, cond, uncond, want);
            assert_memory_equal(out, want, sizeof(out));
        }
    }
}

/* ---- samplers: the loops as they were */

static rp_status pull(void *arg, int eval, const float *x, float *velocity)
{
    (void)arg;
    for (int i = 0; i < N; i++) {
        velocity[i] = 0.9f * x[i] + 0.01f * (float)(eval + i % 7);
    }
    return RP_OK;
}

static void old_euler(int step, int eval, float *x, float *work)
{
    const float dt = g_sigma[step + 1] - g_sigma[step];
    float v[N];

    (void)work;
    (void)pull(NULL, eval, x, v);
    for (int i = 0; i < N; i++) {
        x[i] = x[i] + dt * v[i];
    }
}

static void old_heun(int step, int eval, float *x, float *work)
{
    const float dt = g_sigma[step + 1] - g_sigma[step], half = 0.5f * dt;
    float begin[N], ahead[N], end[N];

    if (!(g_sigma[step + 1] > 0.0f)) {
        old_euler(step, eval, x, work);
        return;
    }
    (void)pull(NULL, eval, x, begin);
    for (int i = 0; i < N; i++) {
        ahead[i] = x[i] + dt * begin[i];
    }
    (void)pull(NULL, eval + 1, ahead, end);
    for (int i = 0; i < N; i++) {
        x[i] = x[i] + half * (begin[i] + end[i]);
    }
}

static void old_midpoint(int step, int eval, float *x, float *work)
{
    const float dt = g_sigma[step + 1] - g_sigma[step];
    const float to_middle = 0.5f * (g_sigma[step] + g_sigma[step + 1]) - g_sigma[step];
    float v[N], ahead[N];

    (void)work;
    (void)pull(NULL, eval, x, v);
    for (int i = 0; i < N; i++) {
        ahead[i] = x[i] + to_middle * v[i];
    }
    (void)pull(NULL, eval + 1, ahead, v);
    for (int i = 0; i < N; i++) {
        x[i] = x[i] + dt * v[i];
    }
}

static double lambda(float sigma)
{
    return log((1.0 - sigma) / sigma);
}

static void old_dpmpp_2m(int step, int eval, float *x, float *before)
{
    const float sigma = g_sigma[step], keep = g_sigma[step + 1] / sigma;
    float v[N], extra = 0.0f;

    if (step > 0) {
        const double h = lambda(g_sigma[step + 1]) - lambda(sigma);
        const double weight = h / (2.0 * (lambda(sigma) - lambda(g_sigma[step - 1])));
        extra = isfinite(weight) ? (float)weight : 0.0f;
    }
    (void)pull(NULL, eval, x, v);
    for (int i = 0; i < N; i++) {
        const float clean = x[i] - sigma * v[i];
        const float target = clean + extra * (clean - before[i]);
        x[i] = keep * x[i] + (1.0f - keep) * target;
        before[i] = clean;
    }
}

static const rp_sampler *sampler(const char *name)
{
    for (int i = 0; rp_sampler_list[i] != NULL; i++) {
        if (strcmp(rp_sampler_list[i]->name, name) == 0) {
            return rp_sampler_list[i];
        }
    }
    fail_msg("no sampler %s", name);
    return NULL;
}

static void samplers_give_the_bits_of_the_plain_loops(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*step)(int step, int eval, float *x, float *work);
    } rows[] = {{"euler", old_euler},
                {"heun", old_heun},
                {"midpoint", old_midpoint},
                {"dpmpp_2m", old_dpmpp_2m}};

    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        const rp_sampler *now = sampler(rows[r].name);
        float x[N], want[N], velocity[N], work[MAX_WORK * N] = {0}, old_work[N] = {0};
        int eval_step[3 * STEPS], eval = 0;
        const rp_sample_state s = {x, N, g_sigma, STEPS, pull, NULL, velocity, work, &rp_vec_host};
        assert_true(now->n_work <= MAX_WORK);
        const int n = now->plan(g_sigma, STEPS, NULL, eval_step);
        rpt_fill(x, N, 3);
        memcpy(want, x, sizeof(want));
        for (int step = 0; step < STEPS; step++) {
            assert_int_equal(now->step(&s, step, eval), RP_OK);
            rows[r].step(step, eval, want, old_work);
            assert_memory_equal(x, want, sizeof(x));
            while (eval < n && eval_step[eval] == step) {
                eval++;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_are_summed_from_the_left),
        cmocka_unit_test(no_terms_are_zeros_and_out_may_be_a_term),
        cmocka_unit_test(guiders_give_the_bits_of_the_plain_loops),
        cmocka_unit_test(samplers_give_the_bits_of_the_plain_loops),
    };
    return cmocka_run_group_tests_name("vec", tests, NULL, NULL);
}
