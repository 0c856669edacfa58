/* test_job_room.c - text encoder and VAE leave a device that is too small for all, and come back.
 */
#include "rp_test.h"

#include "rp_fake.h"

#include "base/log.h"
#include "ctrl/ctrl.h"
#include "job/job_need.h"
#include "job/job_resident.h"
#include "job/job_room.h"

#include <rankpool/rankpool.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 64, N_RGB = SIDE * SIDE * 3 };

static uint8_t g_want[N_RGB];         /* where nothing has to leave */
static size_t g_most;                 /* bytes that this took */
static int g_errors, g_left, g_given; /* lines */
static rp_fake_state g_fake;          /* more of the fake GPU of the next run */
static char g_last_left[256], g_last_error[1024];

static void count_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    if (level == RP_LOG_ERROR) {
        g_errors++;
        (void)snprintf(g_last_error, sizeof(g_last_error), "%s", line);
    }
    if (strstr(line, " left the GPU") != NULL) {
        g_left++;
        (void)snprintf(g_last_left, sizeof(g_last_left), "%s", line);
    }
    g_given += strstr(line, "the GPU's scratch was given back (") != NULL;
}

static rp_settings *settings(void)
{
    static const char *const values[][2] = {
        {"model", RP_TEST_MODEL}, {"backend", "fake"}, {"steps", "2"},          {"width", "64"},
        {"height", "64"},         {"out", ""},         {"prompt", "red heart"}, {"threads", "1"}};
    rp_settings *s = rp_settings_new();

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        assert_int_equal(rp_settings_set(s, values[i][0], values[i][1]), RP_OK);
    }
    return s;
}

/* Two jobs on a device of so many bytes; the picture of the second. */
static rp_status run(size_t budget, uint8_t *rgb, rp_settings *s)
{
    rankpool *pool = NULL;
    rp_result *result = NULL;
    int width = 0, height = 0;

    rp_fake = g_fake;
    rp_fake.budget = budget;
    g_errors = g_left = g_given = 0;
    rp_status st = rp_open(s, &pool);
    for (int i = 0; i < 2 && st == RP_OK; i++) {
        rp_result_free(result);
        result = NULL;
        st = rp_generate(pool, s, NULL, &result);
    }
    if (st == RP_OK) {
        memcpy(rgb, rp_result_rgb(result, 0, &width, &height), N_RGB);
        assert_int_equal(width * height * 3, N_RGB);
    }
    rp_result_free(result);
    rp_close(pool);
    rp_settings_free(s);
    assert_int_equal(rp_fake.used, 0);
    return st;
}

static void with_room_for_all_nothing_leaves(void **state)
{
    (void)state;
    assert_int_equal(run(RP_FAKE_ENOUGH, g_want, settings()), RP_OK);
    assert_int_equal(g_errors, 0);
    assert_int_equal(g_left, 0);
    assert_int_equal(rp_fake.n_networks, 3);
    g_most = rp_fake.most;
}

static void the_encoder_leaves_and_comes_back_for_the_next_prompt(void **state)
{
    (void)state;
    uint8_t rgb[N_RGB];

    assert_int_equal(run(g_most - 1000000, rgb, settings()), RP_OK);
    assert_memory_equal(rgb, g_want, N_RGB);
    assert_int_equal(g_errors, 0);
    assert_true(g_left >= 1);
    assert_non_null(strstr(g_last_left, "the text encoder left the GPU (0.0"));
    assert_non_null(strstr(g_last_left, "memory is short; it comes back for the next prompt"));
    assert_true(rp_fake.n_networks > 3);
}

/* Whatever the size: the same picture, or one line that says why there is none. */
static void a_device_of_any_size_gives_the_picture_or_one_error(void **state)
{
    (void)state;
    uint8_t rgb[N_RGB];
    int n_good = 0, n_bad = 0;

    for (size_t budget = g_most; budget > 2000000; budget -= 500000) {
        const rp_status st = run(budget, rgb, settings());
        if (st == RP_OK) {
            assert_memory_equal(rgb, g_want, N_RGB);
            assert_int_equal(g_errors, 0);
            n_good++;
        } else {
            assert_int_equal(st, RP_E_NOMEM);
            assert_int_equal(g_errors, 1);
            n_bad++;
        }
    }
    print_message("%d sizes with a picture, %d without; the last: %s\n", n_good, n_bad,
                  g_last_error);
    assert_true(n_good > 10 && n_bad > 0);
}

/* Work that needs so many bytes of the device, which it gives back. */
typedef struct {
    rp_backend backend;
    size_t n_bytes;
    int n_tries;
} needy;

static rp_status try_to_take(void *arg)
{
    needy *work = arg;
    void *mem = NULL;

    work->n_tries++;
    const rp_status st =
        work->backend.ops->alloc(work->backend.self, work->n_bytes, "a test", &mem);
    work->backend.ops->release(work->backend.self, mem);
    return st;
}

static void assert_says(const char *const *words)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strstr(g_last_error, words[i]) == NULL) {
            fail_msg("no \"%s\" in \"%s\"", words[i], g_last_error);
        }
    }
}

static void a_transformer_that_does_not_fit_is_told_with_what_would(void **state)
{
    (void)state;
    const char *const open[] = {"fake GPU for the transformer: the transformer's weights take 0.04 "
                                "GB in f32, its buffers for latents of 16 x 16 ",
                                ", or instead the text encoder's weights 0.008",
                                ", or the VAE's 0.0059 and 0.0126 GB, scratch",
                                "0.025 of 0.025 GB are free",
                                "--precision fp8 (0.0223 GB)",
                                NULL};
    const char *const job[] = {"for the transformer: ",
                               "0.04 GB in f32 (they are there)",
                               "latents of 20 x 20 ",
                               "scratch so far 0 GB",
                               "--precision bf16 (0.0",
                               "--precision fp8 (0.0",
                               "--width ",
                               "fewer --images",
                               NULL};
    rp_settings *s = settings();

    assert_int_equal(run(25000000, NULL, s), RP_E_NOMEM);
    assert_says(open);
    assert_null(strstr(g_last_error, "--precision bf16"));
    s = settings();
    assert_int_equal(rp_settings_set(s, "width", "160"), RP_OK);
    assert_int_equal(rp_settings_set(s, "height", "160"), RP_OK);
    assert_int_equal(rp_settings_set(s, "steps", "200"), RP_OK);
    assert_int_equal(rp_settings_set(s, "images", "2"), RP_OK);
    assert_int_equal(run(50500000, NULL, s), RP_E_NOMEM);
    assert_says(job);
    assert_true(strlen(g_last_error) < RP_CTRL_TEXT_BYTES); /* or ranks above 0 would cut it */
}

/* Beside the transformer, which is there. A smaller picture or fewer of them help no encoder. */
static void an_encoder_or_vae_that_does_not_fit_is_named(void **state)
{
    (void)state;
    const char *const encoder[] = {
        "fake GPU for the text encoder: ", "weights take 0.04 GB in f32 (they are there)",
        "the text encoder's weights 0.00847 GB",
        "--precision bf16 (0.0294 GB), --precision fp8 (0.0223 GB)", NULL};
    const char *const vae[] = {"fake GPU for the VAE: ",
                               "weights take 0.04 GB in f32 (they are there)",
                               "latents of 20 x 20",
                               "the VAE's 0.0059 and 0.0197 GB",
                               "--precision bf16 (0.0",
                               "--width 48 --height 48 (0.0",
                               NULL};

    assert_int_equal(run(45000000, NULL, settings()), RP_E_NOMEM);
    assert_int_equal(g_errors, 1);
    assert_says(encoder);
    assert_null(strstr(g_last_error, "--width"));
    assert_null(strstr(g_last_error, "--images"));

    rp_settings *s = settings();
    assert_int_equal(rp_settings_set(s, "width", "160"), RP_OK);
    assert_int_equal(rp_settings_set(s, "height", "160"), RP_OK);
    assert_int_equal(rp_settings_set(s, "images", "2"), RP_OK);
    assert_int_equal(run(51000000, NULL, s), RP_E_NOMEM);
    assert_int_equal(g_errors, 1);
    assert_says(vae);
    assert_null(strstr(g_last_error, "--images"));
}

/* Though one would fit, by the sums. */
static void a_smaller_picture_is_not_told_for_the_encoder(void **state)
{
    (void)state;
    static const rp_room_use uses[] = {RP_ROOM_ENCODE, RP_ROOM_SAMPLE, RP_ROOM_DECODE};
    const rp_denoiser_job job = {.h = 16, .w = 16, .n_evals = 2, .n_conds = 2, .max_tokens = 8};
    rp_settings *s = settings();
    rankpool *pool = NULL;

    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    assert_int_equal(rp_open(s, &pool), RP_OK);
    for (int i = 0; i < 3; i++) {
        char text[RP_LOG_LINE_BYTES] = "";
        rp_need_explain(&pool->pipeline, uses[i], &job, 2, text, sizeof(text));
        assert_int_equal(strstr(text, "--width 112 --height 112 (") != NULL, i > 0);
        assert_int_equal(strstr(text, "fewer --images") != NULL, i == 1);
    }
    rp_close(pool);
    rp_settings_free(s);
    assert_int_equal(rp_fake.used, 0);
}

/* What is told is what they take: here of f32. */
static void needs_are_what_is_taken(void **state)
{
    (void)state;
    static const int32_t ids[] = {2, 3, 4, 5, 6};
    static float x[16 * 4 * 6], embeds[5 * 4096];
    const rp_backend_params params = {.n_threads = 1};
    rp_backend backend = {.ops = rp_backend_list[0]};
    rp_model_source source = {.dir = RP_TEST_MODEL "/text_encoder"};
    rp_model_need need = {0};
    void *self = NULL;

    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    assert_int_equal(backend.ops->open(&params, &backend.self), RP_OK);
    source.backend = backend;
    const rp_encoder_ops *encoder = rp_encoder_list[0];
    assert_int_equal(encoder->need(source.dir, RP_PRECISION_F32, 5, &need), RP_OK);
    assert_int_equal(encoder->open(&source, &self), RP_OK);
    assert_int_equal(rp_fake.used, need.weights);
    assert_int_equal(encoder->encode(self, ids, 5, 0, -2, embeds), RP_OK);
    assert_int_equal(rp_fake.used, need.weights + need.buffers);
    encoder->close(self);

    source.dir = RP_TEST_MODEL "/vae";
    const rp_vae_ops *vae = rp_vae_list[0];
    assert_int_equal(vae->need(source.dir, RP_PRECISION_F32, 4, 6, &need), RP_OK);
    assert_int_equal(vae->open(&source, &self), RP_OK);
    assert_int_equal(rp_fake.used, need.weights);
    uint8_t *rgb = malloc(3 * 32 * 48);
    assert_non_null(rgb);
    assert_int_equal(vae->decode(self, x, 4, 6, NULL, rgb), RP_OK);
    assert_int_equal(rp_fake.used, need.weights + need.buffers);
    vae->close(self);
    free(rgb);
    backend.ops->close(backend.self);
    assert_int_equal(rp_fake.used, 0);
}

static void a_precision_that_the_device_cannot_compute_in_is_not_told(void **state)
{
    (void)state;
    static const unsigned fp8 =
        RP_PRECISION_BIT(RP_PRECISION_FP8) | RP_PRECISION_BIT(RP_PRECISION_FP8_ATTENTION);
    static const struct {
        unsigned lacks;
        bool bf16, fp8; /* told */
    } rows[] = {
        {0, true, true},    /* compute capability 9.0 */
        {fp8, true, false}, /* 8.6 */
        {fp8 | RP_PRECISION_BIT(RP_PRECISION_BF16), false, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        g_fake = (rp_fake_state){.lacks = rows[i].lacks};
        assert_int_equal(run(35000000, NULL, settings()), RP_E_NOMEM);
        assert_int_equal(strstr(g_last_error, "--precision bf16 (0.02") != NULL, rows[i].bf16);
        assert_int_equal(strstr(g_last_error, "--precision fp8 (0.02") != NULL, rows[i].fp8);
        assert_int_equal(strstr(g_last_error, "nothing smaller of this model") != NULL,
                         !rows[i].bf16);
        assert_null(strstr(g_last_error, "for scratch"));
    }
    g_fake = (rp_fake_state){0};
}

/* ---- scratch */

static void what_would_fit_leaves_room_for_scratch(void **state)
{
    (void)state;
    const char *const words[] = {"--precision fp8 (0.02", " (with 0.01 GB left for scratch)", NULL};

    g_fake = (rp_fake_state){.scratch_room = 10000000};
    assert_int_equal(run(35000000, NULL, settings()), RP_E_NOMEM);
    assert_says(words);
    assert_null(strstr(g_last_error, "--precision bf16"));
    g_fake = (rp_fake_state){0};
    assert_int_equal(run(35000000, NULL, settings()), RP_E_NOMEM);
    assert_non_null(strstr(g_last_error, "--precision bf16 (0.02"));
}

/* A rank with nobody who could leave, and with 600 of 1000 bytes as scratch. */
static void trim_is_called_once_and_only_when_memory_is_short(void **state)
{
    (void)state;
    static const struct {
        size_t n_bytes, scratch;
        rp_status st;
        int n_tries, n_trims;
    } rows[] = {
        {400, 600, RP_OK, 1, 0},       {401, 600, RP_OK, 2, 1},     {1000, 600, RP_OK, 2, 1},
        {1001, 600, RP_E_NOMEM, 2, 1}, {1001, 0, RP_E_NOMEM, 1, 1}, /* nothing came back */
    };
    const rp_backend_params params = {.n_threads = 1};
    rp_backend backend = {.ops = rp_backend_list[0]};

    assert_int_equal(backend.ops->open(&params, &backend.self), RP_OK);
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        rp_pipeline p = {.backend = backend, .on_device = true, .whole = i % 2 == 0};
        needy work = {backend, rows[i / 2].n_bytes, 0};
        rp_fake = (rp_fake_state){
            .budget = 1000, .used = rows[i / 2].scratch, .scratch = rows[i / 2].scratch};
        g_errors = g_given = 0;
        assert_int_equal(rp_room_run(&p, RP_ROOM_SAMPLE, try_to_take, &work), rows[i / 2].st);
        assert_int_equal(work.n_tries, rows[i / 2].n_tries);
        assert_int_equal(rp_fake.n_trims, rows[i / 2].n_trims);
        assert_int_equal(g_errors, rows[i / 2].st != RP_OK);
        assert_int_equal(g_given, p.whole && rows[i / 2].n_tries > 1); /* rank 0 says it */
        rp_room_spare(&p);
        assert_int_equal(rp_fake.n_trims, rows[i / 2].n_trims);
    }
    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    backend.ops->close(backend.self);
}

/* It has a VAE once it has decoded; rank 0 alone says who left. */
static void the_vae_of_another_rank_leaves_in_silence_and_comes_back(void **state)
{
    (void)state;
    const rp_backend_params params = {.n_threads = 1};
    const rp_pipeline_options options = {.whole = false};
    rp_backend backend = {.ops = rp_backend_list[0]};
    rp_pipeline p;

    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH};
    g_errors = g_left = g_given = 0;
    assert_int_equal(backend.ops->open(&params, &backend.self), RP_OK);
    assert_int_equal(rp_pipeline_open(RP_TEST_MODEL, backend, &options, &p), RP_OK);
    assert_null(p.vae_self);
    assert_int_equal(rp_room_run(&p, RP_ROOM_DECODE, NULL, NULL), RP_OK);
    assert_non_null(p.vae_self);
    rp_fake.budget = rp_fake.used + 1000;
    needy work = {backend, 2000, 0};
    assert_int_equal(rp_room_run(&p, RP_ROOM_SAMPLE, try_to_take, &work), RP_OK);
    assert_int_equal(work.n_tries, 2);
    assert_null(p.vae_self);
    assert_int_equal(rp_room_run(&p, RP_ROOM_DECODE, NULL, NULL), RP_OK);
    assert_non_null(p.vae_self);
    rp_fake.budget = rp_fake.used + rp_fake.used / 50; /* less than is spared before sampling */
    rp_room_spare(&p);
    assert_null(p.vae_self);
    assert_int_equal(g_errors + g_left + g_given, 0);
    rp_pipeline_close(&p);
    backend.ops->close(backend.self);
    assert_int_equal(rp_fake.used, 0);
}

/* As without scratch; somewhere between enough and too little scratch makes the difference. */
static void scratch_makes_room_where_nobody_else_can(void **state)
{
    (void)state;
    uint8_t rgb[N_RGB];
    int n_good = 0, n_bad = 0, n_by_scratch = 0;

    g_fake = (rp_fake_state){.scratch_of = 400};
    assert_int_equal(run(RP_FAKE_ENOUGH, rgb, settings()), RP_OK);
    assert_memory_equal(rgb, g_want, N_RGB);
    assert_int_equal(rp_fake.n_trims, 0);
    for (size_t budget = rp_fake.most; budget > 40000000; budget -= 500000) {
        const rp_status st = run(budget, rgb, settings());
        assert_true(g_given <= rp_fake.n_trims);
        if (st == RP_OK) {
            assert_memory_equal(rgb, g_want, N_RGB);
            assert_int_equal(g_errors, 0);
            n_good++;
            n_by_scratch += g_given > 0;
        } else {
            assert_int_equal(st, RP_E_NOMEM);
            assert_int_equal(g_errors, 1);
            n_bad++;
        }
    }
    print_message("%d sizes with a picture, %d of them by giving scratch back, %d without\n",
                  n_good, n_by_scratch, n_bad);
    assert_true(n_by_scratch > 0 && n_good > n_by_scratch && n_bad > 0);
    g_fake = (rp_fake_state){0};
}

static void scratch_is_among_the_needs_that_are_told(void **state)
{
    (void)state;
    const rp_denoiser_job job = {.c = 16, .h = 16, .w = 16, .n_evals = 2, .n_conds = 2};
    rp_settings *s = settings();
    char text[RP_LOG_LINE_BYTES] = "", want[64];
    rankpool *pool = NULL;
    rp_result *result = NULL;

    rp_fake = (rp_fake_state){.budget = RP_FAKE_ENOUGH, .scratch_of = 400};
    assert_int_equal(rp_open(s, &pool), RP_OK);
    assert_int_equal(rp_generate(pool, s, NULL, &result), RP_OK);
    rp_need_explain(&pool->pipeline, RP_ROOM_SAMPLE, &job, 1, text, sizeof(text));
    (void)snprintf(want, sizeof(want), ", scratch so far %.3g GB;", (double)rp_fake.scratch * 1e-9);
    assert_true(rp_fake.scratch > 0 && rp_fake.n_trims == 0);
    assert_non_null(strstr(text, want));
    rp_result_free(result);
    rp_close(pool);
    rp_settings_free(s);
    assert_int_equal(rp_fake.used, 0);
}

/* It is known, though it was given back; more than what the backend would say does not count. */
static void scratch_of_an_earlier_job_is_left_free(void **state)
{
    (void)state;
    const rp_denoiser_job job = {.c = 16, .h = 16, .w = 16, .n_evals = 2, .n_conds = 2};
    rp_settings *s = settings();
    char text[RP_LOG_LINE_BYTES] = "", want[64];
    rankpool *pool = NULL;

    rp_fake = (rp_fake_state){
        .budget = RP_FAKE_ENOUGH, .scratch_of = 400, .scratch_room = RP_FAKE_ENOUGH / 2};
    assert_int_equal(rp_open(s, &pool), RP_OK);
    assert_int_equal(rp_generate(pool, s, NULL, NULL), RP_OK);
    (void)snprintf(want, sizeof(want), " (with %.3g GB left for scratch)",
                   (double)rp_fake.scratch * 1e-9);
    needy work = {pool->backend, 2 * RP_FAKE_ENOUGH, 0};
    assert_int_equal(rp_room_run(&pool->pipeline, RP_ROOM_SAMPLE, try_to_take, &work), RP_E_NOMEM);
    assert_int_equal(rp_fake.scratch, 0);
    rp_need_explain(&pool->pipeline, RP_ROOM_SAMPLE, &job, 1, text, sizeof(text));
    assert_non_null(strstr(text, want));
    rp_close(pool);
    rp_settings_free(s);
    assert_int_equal(rp_fake.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_room_for_all_nothing_leaves),
        cmocka_unit_test(the_encoder_leaves_and_comes_back_for_the_next_prompt),
        cmocka_unit_test(a_device_of_any_size_gives_the_picture_or_one_error),
        cmocka_unit_test(a_transformer_that_does_not_fit_is_told_with_what_would),
        cmocka_unit_test(an_encoder_or_vae_that_does_not_fit_is_named),
        cmocka_unit_test(a_smaller_picture_is_not_told_for_the_encoder),
        cmocka_unit_test(needs_are_what_is_taken),
        cmocka_unit_test(a_precision_that_the_device_cannot_compute_in_is_not_told),
        cmocka_unit_test(trim_is_called_once_and_only_when_memory_is_short),
        cmocka_unit_test(the_vae_of_another_rank_leaves_in_silence_and_comes_back),
        cmocka_unit_test(scratch_makes_room_where_nobody_else_can),
        cmocka_unit_test(scratch_is_among_the_needs_that_are_told),
        cmocka_unit_test(what_would_fit_leaves_room_for_scratch),
        cmocka_unit_test(scratch_of_an_earlier_job_is_left_free),
    };

    rp_set_log(count_line, NULL);
    return cmocka_run_group_tests_name("job_room", tests, NULL, NULL);
}
