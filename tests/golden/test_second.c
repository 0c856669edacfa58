/*
 * test_second.c - a second pipeline of other shapes against diffusers and transformers: float32
 * shards, float16 and bfloat16 files, odd widths, a sliding window that matters, oblong latents.
 *
 * tests/data/second-lumina2/README.md describes the values.
 */
#include "golden.h"

#include <math.h>
#include <stdio.h>

/* Observed on the CPU backend: text 7e-7, denoiser 5e-7, picture 1e-6, whole run 7e-7. */
#define TOLERANCE 1e-5

enum { C = 4, H = 12, W = 20, N = C * H * W, COND_DIM = 40, N_STATES = 6, STEPS = 4, SCALE = 4 };

static const char *const g_prompt[] = {"long", "short"}; /* 23 tokens, 1 token */

static rp_backend g_backend;
static rp_safetensors *g_file;

static int setup(void **state)
{
    (void)state;
    g_backend = golden_backend(2);
    g_file = golden_file(GOLDEN_SECOND "/reference.safetensors");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rp_safetensors_close(g_file);
    g_backend.ops->close(g_backend.self);
    return 0;
}

static rp_tensor reference(const char *format, const char *what)
{
    char name[64];

    (void)snprintf(name, sizeof(name), format, what);
    return golden_tensor(g_file, name, RP_F32);
}

/* The embedding that the pipeline uses: the hidden state before the last. */
static const float *embeds(int prompt, int *n_tokens_out)
{
    const rp_tensor all = reference("%s.hidden_states", g_prompt[prompt]);

    *n_tokens_out = (int)all.dim[1];
    return (const float *)all.data + (N_STATES - 2) * all.dim[1] * COND_DIM;
}

/* ------------------------------------------------------------------- text */

static void check_states(void *encoder, const char *prompt, int softcap)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s.ids", prompt);
    const rp_tensor ids = golden_tensor(g_file, name, RP_I32);
    const rp_tensor all =
        reference(softcap ? "%s.hidden_states_softcap" : "%s.hidden_states", prompt);
    const int n = (int)all.dim[1];
    float *got = golden_new((size_t)n * COND_DIM);

    assert_int_equal(all.dim[0], N_STATES);
    for (int layer = 0; layer < N_STATES; layer++) {
        const float *want = (const float *)all.data + (size_t)layer * (size_t)n * COND_DIM;
        (void)snprintf(name, sizeof(name), "%s state %d softcap %d", prompt, layer, softcap);
        assert_int_equal(rp_encoder_list[0]->encode(encoder, ids.data, n, softcap, layer, got),
                         RP_OK);
        rpt_assert_close(name, got, want, (size_t)n * COND_DIM,
                         golden_tolerance(TOLERANCE, GOLDEN_BF16_REL));
    }
    free(got);
}

static void hidden_states_are_those_of_transformers(void **state)
{
    const rp_model_source source = {.dir = GOLDEN_SECOND "/text_encoder", .backend = g_backend};
    void *encoder = NULL;

    (void)state;
    assert_int_equal(rp_encoder_list[0]->open(&source, &encoder), RP_OK);
    for (int p = 0; p < 2; p++) {
        check_states(encoder, g_prompt[p], 0);
        check_states(encoder, g_prompt[p], 1);
    }
    rp_encoder_list[0]->close(encoder);
}

/* --------------------------------------------------------------- denoiser */

typedef struct {
    void *net;
    float *x, *velocity; /* backend memory */
} denoiser;

static denoiser denoiser_open(void)
{
    const rp_model_source source = {.dir = GOLDEN_SECOND "/transformer", .backend = g_backend};
    const rp_tensor sigmas = reference("run.%s", "sigmas");
    const rp_denoiser_job job = {.c = C,
                                 .h = H,
                                 .w = W,
                                 .sigma = sigmas.data,
                                 .n_evals = STEPS,
                                 .n_conds = 2,
                                 .max_tokens = 23};
    denoiser d = {0};
    void *mem[2] = {NULL};

    assert_int_equal(rp_denoiser_list[0]->open(&source, &d.net), RP_OK);
    assert_int_equal(rp_denoiser_list[0]->begin(d.net, &job), RP_OK);
    for (int p = 0; p < 2; p++) {
        int n = 0;
        const float *rows = embeds(p, &n);
        assert_int_equal(rp_denoiser_list[0]->condition(d.net, p, rows, n), RP_OK);
        assert_int_equal(
            g_backend.ops->alloc(g_backend.self, N * sizeof(float), "latents", &mem[p]), RP_OK);
    }
    d.x = mem[0];
    d.velocity = mem[1];
    return d;
}

static void denoiser_close(denoiser *d)
{
    g_backend.ops->release(g_backend.self, d->x);
    g_backend.ops->release(g_backend.self, d->velocity);
    rp_denoiser_list[0]->close(d->net);
}

static void predict(denoiser *d, int cond, int eval, const float *x, float *out)
{
    g_backend.ops->put(g_backend.self, d->x, x, N * sizeof(float));
    assert_int_equal(rp_denoiser_list[0]->predict(d->net, cond, eval, d->x, d->velocity), RP_OK);
    g_backend.ops->get(g_backend.self, out, d->velocity, N * sizeof(float));
    assert_int_equal(g_backend.ops->sync(g_backend.self), RP_OK);
}

static void predictions_are_those_of_diffusers(void **state)
{
    static const int steps[] = {0, 2};
    const rp_tensor run = reference("run.%s", "latents");
    const rp_tensor start = reference("run.%s", "latents_start");
    denoiser d = denoiser_open();
    float got[N];

    (void)state;
    for (int i = 0; i < 2; i++) {
        const float *x =
            steps[i] == 0 ? start.data : (const float *)run.data + (size_t)(steps[i] - 1) * N;
        for (int p = 0; p < 2; p++) {
            char name[64];
            (void)snprintf(name, sizeof(name), "step%d.%s", steps[i], g_prompt[p]);
            const rp_tensor want = golden_tensor(g_file, name, RP_F32);
            predict(&d, p, steps[i], x, got);
            for (int j = 0; j < N; j++) {
                got[j] = -got[j]; /* the network's output is minus the velocity */
            }
            rpt_assert_close(name, got, want.data, N,
                             golden_tolerance(TOLERANCE, GOLDEN_BF16_REL));
        }
    }
    denoiser_close(&d);
}

/* Guidance 3 with the pipeline's normalisation: each row of the picture keeps the length that it
 * has in the conditional prediction. */
static void guide(const float *cond, const float *uncond, float *out)
{
    for (int row = 0; row < C * H; row++) {
        const int at = row * W;
        double wanted = 0;
        double is = 0;
        for (int i = at; i < at + W; i++) {
            out[i] = uncond[i] + 3.0f * (cond[i] - uncond[i]);
            wanted += (double)cond[i] * cond[i];
            is += (double)out[i] * out[i];
        }
        for (int i = at; i < at + W; i++) {
            out[i] *= (float)sqrt(wanted / is);
        }
    }
}

static void a_run_of_four_steps_is_that_of_the_pipeline(void **state)
{
    const rp_tensor sigmas = reference("run.%s", "sigmas");
    const rp_tensor run = reference("run.%s", "latents");
    const rp_tensor start = reference("run.%s", "latents_start");
    const float *sigma = sigmas.data;
    denoiser d = denoiser_open();
    float x[N], cond[N], uncond[N], velocity[N];

    (void)state;
    memcpy(x, start.data, sizeof(x));
    for (int step = 0; step < STEPS; step++) {
        predict(&d, 0, step, x, cond);
        predict(&d, 1, step, x, uncond);
        guide(cond, uncond, velocity);
        for (int i = 0; i < N; i++) {
            x[i] += (sigma[step + 1] - sigma[step]) * velocity[i];
        }
        rpt_assert_close("run", x, (const float *)run.data + (size_t)step * N, N,
                         golden_tolerance(TOLERANCE, GOLDEN_BF16_RUN));
    }
    denoiser_close(&d);
}

/* -------------------------------------------------------------------- vae */

static void picture_is_that_of_diffusers(void **state)
{
    const rp_model_source source = {.dir = GOLDEN_SECOND "/vae", .backend = g_backend};
    const size_t n = (size_t)3 * H * W * SCALE * SCALE;
    const rp_tensor run = reference("run.%s", "latents");
    const rp_tensor image = reference("run.%s", "picture");
    float *rgb = golden_new(n);
    rp_vae_info info = {0};
    void *vae = NULL;

    (void)state;
    assert_int_equal(rp_vae_list[0]->open(&source, &vae), RP_OK);
    rp_vae_list[0]->info(vae, &info);
    assert_int_equal(info.scale, SCALE);
    assert_int_equal(
        rp_vae_list[0]->decode(vae, (const float *)run.data + (STEPS - 1) * N, H, W, rgb, NULL),
        RP_OK);
    rpt_assert_close("picture", rgb, image.data, n, golden_tolerance(TOLERANCE, GOLDEN_BF16_REL));
    rp_vae_list[0]->close(vae);
    free(rgb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_are_those_of_transformers),
        cmocka_unit_test(predictions_are_those_of_diffusers),
        cmocka_unit_test(a_run_of_four_steps_is_that_of_the_pipeline),
        cmocka_unit_test(picture_is_that_of_diffusers),
    };

    golden_skip_unless_usable();
    return cmocka_run_group_tests_name("second", tests, setup, teardown);
}
