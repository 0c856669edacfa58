/* test_vae.c - the decoder of the shipped model against diffusers. */
#include "golden.h"

#include <stdio.h>

/* Observed on the CPU backend: up to 4e-7. */
#define TOLERANCE 1e-5

/* Largest difference of a pixel in bf16, of 255: 0.01 of the range -1 to 1 is 1.3. */
#define BF16_LEVELS 16

enum { C = 16, SIZE = 16, SCALE = 8, PX = SIZE * SCALE };

static rp_backend g_backend;
static void *g_vae;

static int setup(void **state)
{
    const rp_model_source source = {.dir = RP_TEST_MODEL "/vae", .backend = golden_backend(2)};

    (void)state;
    g_backend = source.backend;
    assert_string_equal(rp_vae_list[0]->class_name, "AutoencoderKL");
    assert_int_equal(rp_vae_list[0]->open(&source, &g_vae), RP_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rp_vae_list[0]->close(g_vae);
    g_backend.ops->close(g_backend.self);
    return 0;
}

/* The last of the 20 latents of the default run. */
static const float *last_latents(const rp_safetensors *file)
{
    const rp_tensor all = golden_tensor(file, "default.latents", RP_F32);

    return (const float *)all.data + (size_t)(all.dim[0] - 1) * C * SIZE * SIZE;
}

static void check_bytes(const uint8_t *bytes, const uint8_t *want)
{
    const int most = golden_is_bf16() ? BF16_LEVELS : 1;

    for (int i = 0; i < 3 * PX * PX; i++) {
        if (abs(bytes[i] - want[i]) > most) {
            fail_msg("pixel %d channel %d is %d, should be %d", i / 3, i % 3, bytes[i], want[i]);
        }
    }
}

/* Bytes alone, floats alone, both at once: the same. */
static void one_output_does_not_change_the_other(void **state)
{
    enum { H = 3, W = 5, N = 3 * H * W * SCALE * SCALE };
    float *latents = golden_new(C * H * W), *rgb = golden_new(N), *both = golden_new(N);
    static uint8_t bytes[N], bytes_too[N];

    (void)state;
    rpt_fill(latents, C * H * W, 2);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, H, W, rgb, NULL), RP_OK);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, H, W, NULL, bytes), RP_OK);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, H, W, both, bytes_too), RP_OK);
    assert_memory_equal(rgb, both, N * sizeof(float));
    assert_memory_equal(bytes, bytes_too, N);
    free(latents);
    free(rgb);
    free(both);
}

static void pictures_are_those_of_the_pipeline(void **state)
{
    static const char *const path[] = {GOLDEN_EMOJI "/p0.safetensors",
                                       GOLDEN_EMOJI "/p1.safetensors"};
    float *rgb = golden_new((size_t)3 * PX * PX);
    static uint8_t made[3 * PX * PX];

    (void)state;
    for (int p = 0; p < 2; p++) {
        rp_safetensors *file = golden_file(path[p]);
        const rp_tensor image = golden_tensor(file, "default.image", RP_F32);
        const rp_tensor bytes = golden_tensor(file, "default.image_uint8", RP_U8);
        assert_int_equal(rp_vae_list[0]->decode(g_vae, last_latents(file), SIZE, SIZE, rgb, made),
                         RP_OK);
        rpt_assert_close("image", rgb, image.data, (size_t)3 * PX * PX,
                         golden_tolerance(TOLERANCE, GOLDEN_BF16_REL));
        check_bytes(made, bytes.data);
        rp_safetensors_close(file);
    }
    free(rgb);
}

static void info_is_that_of_the_config(void **state)
{
    rp_vae_info info = {0};

    (void)state;
    rp_vae_list[0]->info(g_vae, &info);
    assert_int_equal(info.latent_channels, C);
    assert_int_equal(info.scale, SCALE);
}

/* Sizes one after the other share buffers: what is left in them must not show. */
static void another_size_in_between_changes_nothing(void **state)
{
    enum { H = 4, W = 6 };
    const size_t n = (size_t)3 * H * W * SCALE * SCALE;
    float *latents = golden_new(C * SIZE * SIZE);
    float *small = golden_new(n);
    float *again = golden_new(n);
    float *big = golden_new((size_t)3 * PX * PX);

    (void)state;
    rpt_fill(latents, C * SIZE * SIZE, 1);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, H, W, small, NULL), RP_OK);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, SIZE, SIZE, big, NULL), RP_OK);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, H, W, again, NULL), RP_OK);
    assert_memory_equal(small, again, n * sizeof(float));
    free(latents);
    free(small);
    free(again);
    free(big);
}

static void bad_sizes_are_refused(void **state)
{
    float latents[C] = {0};
    float rgb[3 * SCALE * SCALE] = {9.0f};

    (void)state;
    rpt_log_collect();
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, 0, 1, rgb, NULL), RP_E_ARG);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, 1, -1, rgb, NULL), RP_E_ARG);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, 1, 5000, rgb, NULL), RP_E_ARG);
    assert_non_null(strstr(rpt_log_last(), "5000"));
    assert_true(rgb[0] == 9.0f);
    assert_int_equal(rp_vae_list[0]->decode(g_vae, latents, 1, 1, rgb, NULL), RP_OK);
    assert_true(rgb[0] != 9.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_those_of_the_pipeline),
        cmocka_unit_test(info_is_that_of_the_config),
        cmocka_unit_test(one_output_does_not_change_the_other),
        cmocka_unit_test(another_size_in_between_changes_nothing),
        cmocka_unit_test(bad_sizes_are_refused),
    };

    golden_skip_unless_usable();
    return cmocka_run_group_tests_name("vae", tests, setup, teardown);
}
