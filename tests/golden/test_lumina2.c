/* test_lumina2.c - the denoiser of the shipped model against diffusers. */
#include "golden.h"

#include <stdio.h>

/* Observed on the CPU backend: up to 1.4e-6. */
#define TOLERANCE 1e-5

enum { C = 16, SIZE = 16, N = C * SIZE * SIZE, COND_DIM = 192, STEPS = 20, MAX_TOKENS = 40 };

static rp_backend g_backend;
static const rp_denoiser_ops *g_ops;
static void *g_net;

static int setup(void **state)
{
    const rp_model_source source = {.dir = RP_TEST_MODEL "/transformer",
                                    .backend = golden_backend(2)};

    (void)state;
    g_backend = source.backend;
    g_ops = rp_denoiser_list[0];
    assert_string_equal(g_ops->class_name, "Lumina2Transformer2DModel");
    assert_int_equal(g_ops->open(&source, &g_net), RP_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_ops->close(g_net);
    g_backend.ops->close(g_backend.self);
    return 0;
}

/* A job of the 20 sigmas, with the prompt as condition 0 and the empty prompt as condition 1. */
static void begin(const rp_safetensors *file)
{
    const rp_tensor sigmas = golden_tensor(file, "sigmas", RP_F32);
    const rp_tensor cond = golden_tensor(file, "prompt_embeds", RP_F32);
    const rp_tensor uncond = golden_tensor(file, "negative_prompt_embeds", RP_F32);
    const rp_denoiser_job job = {.c = C,
                                 .h = SIZE,
                                 .w = SIZE,
                                 .sigma = sigmas.data,
                                 .n_evals = STEPS,
                                 .n_conds = 2,
                                 .max_tokens = MAX_TOKENS};

    assert_int_equal(g_ops->begin(g_net, &job), RP_OK);
    assert_int_equal(g_ops->condition(g_net, 0, cond.data, (int)cond.dim[0]), RP_OK);
    assert_int_equal(g_ops->condition(g_net, 1, uncond.data, (int)uncond.dim[0]), RP_OK);
}

static void predict(int cond, int eval, const float *x, float *out)
{
    void *in = NULL;
    void *velocity = NULL;

    assert_int_equal(g_backend.ops->alloc(g_backend.self, N * sizeof(float), "x", &in), RP_OK);
    assert_int_equal(g_backend.ops->alloc(g_backend.self, N * sizeof(float), "v", &velocity),
                     RP_OK);
    g_backend.ops->put(g_backend.self, in, x, N * sizeof(float));
    assert_int_equal(g_ops->predict(g_net, cond, eval, in, velocity), RP_OK);
    g_backend.ops->get(g_backend.self, out, velocity, N * sizeof(float));
    assert_int_equal(g_backend.ops->sync(g_backend.self), RP_OK);
    g_backend.ops->release(g_backend.self, in);
    g_backend.ops->release(g_backend.self, velocity);
}

/* The pipeline negates what the network says: velocity is noise - image. */
static void check_step(const rp_safetensors *file, int step, int cond, const char *what)
{
    char name[64];
    float got[N];
    float want[N];

    (void)snprintf(name, sizeof(name), "step%d.latents", step);
    const rp_tensor x = golden_tensor(file, name, RP_F32);
    (void)snprintf(name, sizeof(name), "step%d.%s", step, what);
    const rp_tensor out = golden_tensor(file, name, RP_F32);
    for (int i = 0; i < N; i++) {
        want[i] = -((const float *)out.data)[i];
    }
    predict(cond, step, x.data, got);
    rpt_assert_close(name, got, want, N, golden_tolerance(TOLERANCE, GOLDEN_BF16_REL));
}

static void predictions_are_those_of_the_pipeline(void **state)
{
    static const char *const path[] = {GOLDEN_EMOJI "/p0.safetensors",
                                       GOLDEN_EMOJI "/p1.safetensors"};
    static const int steps[] = {0, 10, 19};

    (void)state;
    for (int p = 0; p < 2; p++) {
        rp_safetensors *file = golden_file(path[p]);
        begin(file);
        for (int i = 0; i < 3; i++) {
            check_step(file, steps[i], 0, "cond");
            check_step(file, steps[i], 1, "uncond");
        }
        rp_safetensors_close(file);
    }
}

static void info_is_that_of_the_config(void **state)
{
    rp_denoiser_info info = {0};

    (void)state;
    g_ops->info(g_net, &info);
    assert_int_equal(info.latent_channels, 16);
    assert_int_equal(info.patch, 2);
    assert_int_equal(info.native_size, 16);
    assert_int_equal(info.cond_dim, 192);
    assert_int_equal(info.max_cond_tokens, 299);
    assert_int_equal(info.max_latent_size, 1024);
    assert_int_equal(info.n_params, 10003456);
}

static void cost_grows_with_tokens_and_area(void **state)
{
    (void)state;
    const float one = g_ops->cost(g_net, 1, SIZE, SIZE);
    assert_true(one > 0);
    assert_true(g_ops->cost(g_net, 40, SIZE, SIZE) > one);
    /* four times the area: more than four times the work, for attention is quadratic */
    assert_true(g_ops->cost(g_net, 1, 2 * SIZE, 2 * SIZE) > 4 * one);
}

/* A unit's bits depend on (latents, sigma, condition) alone: not on the other condition's length,
 * on the order of units, on a job of another shape before it, or on trimmed memory. */
static void bits_depend_on_the_unit_alone(void **state)
{
    rp_safetensors *file = golden_file(GOLDEN_EMOJI "/p0.safetensors");
    static const float sigma[] = {1.0f, 0.5f};
    const rp_denoiser_job other = {
        .c = C, .h = 8, .w = 20, .sigma = sigma, .n_evals = 2, .n_conds = 1, .max_tokens = 299};
    float x[N], first[N], again[N];
    float *embeds = golden_new(299 * COND_DIM);
    float *wide = golden_new((size_t)C * 8 * 20);

    (void)state;
    rpt_fill(x, N, 1);
    rpt_fill(embeds, 299 * COND_DIM, 2);
    begin(file);
    predict(1, 7, x, first);
    predict(0, 7, x, again);
    predict(1, 7, x, again);
    assert_memory_equal(first, again, sizeof(first));

    assert_int_equal(g_ops->begin(g_net, &other), RP_OK);
    assert_int_equal(g_ops->condition(g_net, 0, embeds, 299), RP_OK);
    begin(file);
    predict(1, 7, x, again);
    assert_memory_equal(first, again, sizeof(first));

    g_ops->trim(g_net);
    begin(file);
    predict(1, 7, x, again);
    assert_memory_equal(first, again, sizeof(first));
    free(embeds);
    free(wide);
    rp_safetensors_close(file);
}

/* The same unit on one thread and on three. */
static void bits_do_not_depend_on_threads(void **state)
{
    const rp_backend two = g_backend;
    void *const net = g_net;
    rp_safetensors *file = golden_file(GOLDEN_EMOJI "/p1.safetensors");
    float x[N], got[2][N];

    (void)state;
    rpt_fill(x, N, 3);
    for (int i = 0; i < 2; i++) {
        const rp_model_source source = {.dir = RP_TEST_MODEL "/transformer",
                                        .backend = golden_backend(1 + 2 * i)};
        g_backend = source.backend;
        assert_int_equal(g_ops->open(&source, &g_net), RP_OK);
        begin(file);
        predict(0, 3, x, got[i]);
        g_ops->close(g_net);
        g_backend.ops->close(g_backend.self);
    }
    assert_memory_equal(got[0], got[1], sizeof(got[0]));
    g_backend = two;
    g_net = net;
    rp_safetensors_close(file);
}

static void refuse_job(rp_denoiser_job job, const char *part)
{
    assert_int_equal(g_ops->begin(g_net, &job), RP_E_ARG);
    if (strstr(rpt_log_last(), part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", rpt_log_last(), part);
    }
}

static void bad_jobs_and_units_are_refused(void **state)
{
    static const float sigma[] = {1.0f};
    const rp_denoiser_job good = {
        .c = C, .h = 8, .w = 8, .sigma = sigma, .n_evals = 1, .n_conds = 1, .max_tokens = 4};
    rp_denoiser_job job;
    float embeds[5 * COND_DIM] = {0};
    float x[C * 8 * 8] = {0};
    float v[C * 8 * 8] = {9.0f};

    (void)state;
    rpt_log_collect();
    job = good;
    job.c = 4;
    refuse_job(job, "16 channels");
    job = good;
    job.h = 7;
    refuse_job(job, "multiples of 2");
    job = good;
    job.w = 0;
    refuse_job(job, "8 x 0");
    job = good;
    job.w = 1026;
    refuse_job(job, "up to 1024");
    job = good;
    job.max_tokens = 300;
    refuse_job(job, "299 tokens");
    job = good;
    job.n_evals = 0;
    refuse_job(job, "0 model calls");
    assert_int_equal(g_ops->predict(g_net, 0, 0, x, v), RP_E_ARG); /* no job */

    assert_int_equal(g_ops->begin(g_net, &good), RP_OK);
    assert_int_equal(g_ops->predict(g_net, 0, 0, x, v), RP_E_ARG); /* condition not given */
    assert_int_equal(g_ops->condition(g_net, 0, embeds, 5), RP_E_ARG);
    assert_int_equal(g_ops->condition(g_net, 0, embeds, 0), RP_E_ARG);
    assert_int_equal(g_ops->condition(g_net, 1, embeds, 1), RP_E_ARG);
    assert_int_equal(g_ops->condition(g_net, 0, embeds, 4), RP_OK);
    assert_int_equal(g_ops->predict(g_net, 0, 1, x, v), RP_E_ARG);
    assert_int_equal(g_ops->predict(g_net, 1, 0, x, v), RP_E_ARG);
    assert_true(v[0] == 9.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_are_those_of_the_pipeline),
        cmocka_unit_test(info_is_that_of_the_config),
        cmocka_unit_test(cost_grows_with_tokens_and_area),
        cmocka_unit_test(bits_depend_on_the_unit_alone),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(bad_jobs_and_units_are_refused),
    };

    golden_skip_unless_usable();
    return cmocka_run_group_tests_name("lumina2", tests, setup, teardown);
}
