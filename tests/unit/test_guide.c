/* test_guide.c - guidance against diffusers (tests/ref/make_guide.py, reference runs). */
#include "rp_test.h"

#include "guide/guide.h"
#include "weights/json.h"
#include "weights/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { C = 16, H = 16, W = 16, N = C * H * W };

static const rp_guider *find(const char *name)
{
    for (int i = 0; rp_guider_list[i] != NULL; i++) {
        if (strcmp(rp_guider_list[i]->name, name) == 0) {
            return rp_guider_list[i];
        }
    }
    fail_msg("no guider %s", name);
    return NULL;
}

/* On the host, one image [c, h, w]. */
static void merge(const char *name, const rp_guide_params *params, const float *const *preds,
                  int n_branches, const int shape[3], float *out)
{
    static float room[RP_VEC_ROOM] __attribute__((aligned(8)));
    const rp_guide_merge m = {.vec = &rp_vec_host,
                              .preds = preds,
                              .n_branches = n_branches,
                              .c = shape[0],
                              .h = shape[1],
                              .w = shape[2],
                              .out = out,
                              .room = room};

    find(name)->merge(params, &m);
}

static int count_branches(double truncation, float scale, int n_steps, int step)
{
    const rp_guide_params params = {.scale = scale, .renorm = true, .truncation = truncation};
    int branches[RP_GUIDE_BRANCHES] = {-1, -1, -1, -1};
    const int n = find("cfg")->plan(&params, step, n_steps, branches);

    assert_int_equal(branches[0], RP_BRANCH_POSITIVE);
    assert_int_equal(branches[1], n == 2 ? RP_BRANCH_NEGATIVE : -1);
    return n;
}

static void guidance_is_on_above_one_and_until_truncation(void **state)
{
    (void)state;

    assert_int_equal(count_branches(1.0, 1.0f, 20, 0), 1);
    assert_int_equal(count_branches(1.0, 0.0f, 20, 0), 1);
    assert_int_equal(count_branches(1.0, 1.5f, 20, 0), 2);
    assert_int_equal(count_branches(1.0, 4.0f, 20, 19), 2);
    assert_int_equal(count_branches(0.25, 4.0f, 20, 4), 2); /* 5 / 20 is not over 0.25 */
    assert_int_equal(count_branches(0.25, 4.0f, 20, 5), 1);
    assert_int_equal(count_branches(0.0, 4.0f, 20, 0), 1);
    /* 14 / 20 > 0.7f but not > 0.7: Python compares doubles */
    assert_int_equal(count_branches(0.7, 4.0f, 20, 13), 2);
    assert_int_equal(count_branches(0.7, 4.0f, 20, 14), 1);
    assert_int_equal(count_branches(0.3, 4.0f, 10, 2), 2);
}

static void numbers(const cJSON *array, int n, float *out)
{
    assert_int_equal(cJSON_GetArraySize(array), n);
    for (int i = 0; i < n; i++) {
        out[i] = (float)cJSON_GetArrayItem(array, i)->valuedouble;
    }
}

/* Observed: cfg exact; renormalised 9e-8 (torch sums in float); zero star 8e-8. */
static void merges_are_those_of_diffusers(void **state)
{
    (void)state;
    enum { SMALL = 2 * 3 * 8 };
    const char *path = RP_TEST_DATA "/guide.json";
    float cond[SMALL], uncond[SMALL], want[SMALL], out[SMALL];
    const float *preds[2] = {cond, uncond};
    char *text = NULL;
    cJSON *file = NULL;
    const cJSON *row = NULL;
    size_t n_bytes = 0;
    int n_rows = 0;

    assert_int_equal(rp_json_read(path, 1 << 20, &text, &n_bytes), RP_OK);
    assert_int_equal(rp_json_parse(path, text, n_bytes, &rp_json_default, &file), RP_OK);
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(file, "rows"))
    {
        const char *name = cJSON_GetObjectItem(row, "guider")->valuestring;
        const rp_guide_params params = {
            .scale = (float)cJSON_GetObjectItem(row, "scale")->valuedouble,
            .renorm = cJSON_IsTrue(cJSON_GetObjectItem(row, "renorm")) != 0,
            .truncation = 1.0};
        const bool exact = strcmp(name, "cfg") == 0 && !params.renorm;

        numbers(cJSON_GetObjectItem(file, "cond"), SMALL, cond);
        numbers(cJSON_GetObjectItem(file, "uncond"), SMALL, uncond);
        numbers(cJSON_GetObjectItem(row, "out"), SMALL, want);
        merge(name, &params, preds, 2, (int[]){2, 3, 8}, out);
        rpt_assert_close(name, out, want, SMALL, exact ? 0.0 : 5e-7);
        n_rows++;
    }
    assert_int_equal(n_rows, 9);
    cJSON_Delete(file);
    free(text);
}

static const float *tensor(const rp_safetensors *file, const char *name)
{
    rp_tensor t;

    assert_int_equal(rp_safetensors_find(file, name, &t), RP_OK);
    return t.data;
}

/* latents of a run after `step`, or the initial ones for step -1 */
static const float *latents(const rp_safetensors *file, const char *run, int step)
{
    return step < 0 ? tensor(file, "latents_init") : tensor(file, run) + (size_t)step * N;
}

/* The pipeline's own steps: x1 = x0 + dt v, where v is minus the merged output of the model.
 * Compared in x1. Observed: exact without renormalisation, 4e-8 with. */
static void check_step(const rp_safetensors *file, const char *run, int step,
                       rp_guide_params params)
{
    char name[64];
    float merged[N], x[N];
    const float *sigma = tensor(file, "sigmas");
    const float dt = sigma[step + 1] - sigma[step];
    const float *preds[2];

    (void)snprintf(name, sizeof(name), "step%d.cond", step);
    preds[0] = tensor(file, name);
    (void)snprintf(name, sizeof(name), "step%d.uncond", step);
    preds[1] = tensor(file, name);
    merge("cfg", &params, preds, params.scale > 1.0f ? 2 : 1, (int[]){C, H, W}, merged);
    const float *from = latents(file, run, step - 1);
    for (int i = 0; i < N; i++) {
        x[i] = from[i] + dt * -merged[i];
    }
    rpt_assert_close(run, x, latents(file, run, step), N, 5e-7);
}

static void reference_runs_are_met(void **state)
{
    (void)state;
    static const char *const paths[2] = {RP_TEST_DATA "/emoji-lumina2-reference/p0.safetensors",
                                         RP_TEST_DATA "/emoji-lumina2-reference/p1.safetensors"};
    const rp_guide_params norm = {.scale = 4.0f, .renorm = true, .truncation = 1.0};
    const rp_guide_params plain = {.scale = 4.0f, .renorm = false, .truncation = 1.0};
    const rp_guide_params none = {.scale = 1.0f, .renorm = true, .truncation = 1.0};

    for (int i = 0; i < 2; i++) {
        rp_safetensors *file = NULL;
        assert_int_equal(rp_safetensors_open(paths[i], &file), RP_OK);
        check_step(file, "default.latents", 0, norm);
        check_step(file, "default.latents", 10, norm);
        check_step(file, "default.latents", 19, norm);
        /* all runs begin with the same latents, so step 0 serves them all */
        check_step(file, "nonorm.latents", 0, plain);
        check_step(file, "trunc.latents", 0, norm);
        check_step(file, "cfg1.latents", 0, none);
        rp_safetensors_close(file);
    }
}

/* Conformance of every row: out may be a prediction, one prediction is passed on, plans are sane.
 */
static void every_guider_keeps_the_contract(void **state)
{
    (void)state;
    enum { SMALL = 3 * 5 * 7 };
    float cond[SMALL], uncond[SMALL], apart[SMALL], inside[SMALL];
    const rp_guide_params params = {.scale = 3.0f, .renorm = true, .truncation = 1.0};

    for (int r = 0; rp_guider_list[r] != NULL; r++) {
        const rp_guider *guider = rp_guider_list[r];
        int branches[RP_GUIDE_BRANCHES];
        const int n = guider->plan(&params, 0, 10, branches);
        assert_non_null(guider->help);
        assert_true(n >= 1 && n <= RP_GUIDE_BRANCHES);

        for (int alias = 0; alias < 2; alias++) {
            rpt_fill(cond, SMALL, 1);
            rpt_fill(uncond, SMALL, 2);
            const float *preds[2] = {cond, uncond};
            merge(guider->name, &params, preds, n, (int[]){3, 5, 7}, apart);
            preds[alias] = inside;
            memcpy(inside, alias == 0 ? cond : uncond, sizeof(inside));
            merge(guider->name, &params, preds, n, (int[]){3, 5, 7}, inside);
            if (alias < n) {
                assert_memory_equal(inside, apart, sizeof(apart));
            }
            preds[0] = cond;
            merge(guider->name, &params, preds, 1, (int[]){3, 5, 7}, apart);
            assert_memory_equal(apart, cond, sizeof(apart));
        }
    }
}

static void a_row_of_zeros_stays_zero(void **state)
{
    (void)state;
    const rp_guide_params params = {.scale = 2.0f, .renorm = true, .truncation = 1.0};
    const float cond[4] = {1.0f, 2.0f, 0.0f, 0.0f}, uncond[4] = {2.0f, 4.0f, 0.0f, 0.0f};
    const float *preds[2] = {cond, uncond};
    float out[4] = {9.0f, 9.0f, 9.0f, 9.0f};

    merge("cfg", &params, preds, 2, (int[]){1, 2, 2}, out); /* 2 cond - uncond = 0 in row 0 */
    for (int i = 0; i < 4; i++) {
        assert_true(out[i] == 0.0f); /* not NaN */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guidance_is_on_above_one_and_until_truncation),
        cmocka_unit_test(merges_are_those_of_diffusers),
        cmocka_unit_test(reference_runs_are_met),
        cmocka_unit_test(every_guider_keeps_the_contract),
        cmocka_unit_test(a_row_of_zeros_stays_zero),
    };
    return cmocka_run_group_tests_name("guide", tests, NULL, NULL);
}
