/* test_schedule.c - noise levels bit for bit against diffusers (tests/ref/make_schedule.py). */
#include "rp_test.h"

#include "sample/schedule.h"
#include "weights/json.h"
#include "weights/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STEPS 1000

static void write_config(const char *dir, const char *text)
{
    char path[1024];

    (void)snprintf(path, sizeof(path), "%s/scheduler_config.json", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static rp_status read_text(const char *text, rp_flow_config *out)
{
    char *dir = rpt_mkdir();

    write_config(dir, text);
    const rp_status st = rp_flow_config_read(dir, out);
    rpt_rmdir(dir);
    return st;
}

static const rp_schedule *find(const char *name)
{
    for (int i = 0; rp_schedule_list[i] != NULL; i++) {
        if (strcmp(rp_schedule_list[i]->name, name) == 0) {
            return rp_schedule_list[i];
        }
    }
    fail_msg("no schedule %s", name);
    return NULL;
}

static void check_row(const cJSON *row)
{
    float sigma[MAX_STEPS + 1];
    rp_flow_config config;
    const cJSON *bits = cJSON_GetObjectItem(row, "bits");
    const int n_steps = cJSON_GetObjectItem(row, "steps")->valueint;
    char *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(row, "config"));

    assert_int_equal(read_text(text, &config), RP_OK);
    config.image_seq_len = cJSON_GetObjectItem(row, "seq_len")->valueint;
    assert_int_equal(find("flow")->fill(&config, n_steps, sigma), RP_OK);
    assert_int_equal(cJSON_GetArraySize(bits), n_steps + 1);
    for (int i = 0; i <= n_steps; i++) {
        const uint32_t want = (uint32_t)cJSON_GetArrayItem(bits, i)->valuedouble;
        uint32_t got;
        memcpy(&got, &sigma[i], sizeof(got));
        if (got != want) {
            fail_msg("%s, %d steps: sigma[%d] is %.9g, bits %u, want %u", text, n_steps, i,
                     (double)sigma[i], got, want);
        }
    }
    /* the rows that force a spacing are the config's flag by another way */
    if (config.use_karras_sigmas || config.use_exponential_sigmas) {
        const rp_schedule *forced = find(config.use_karras_sigmas ? "karras" : "exponential");
        float again[MAX_STEPS + 1];
        config.use_karras_sigmas = !config.use_karras_sigmas;
        config.use_exponential_sigmas = !config.use_exponential_sigmas;
        assert_int_equal(forced->fill(&config, n_steps, again), RP_OK);
        assert_memory_equal(again, sigma, sizeof(float) * (size_t)(n_steps + 1));
    }
    free(text);
}

static void every_config_has_the_bits_of_diffusers(void **state)
{
    (void)state;
    const char *path = RP_TEST_DATA "/schedule.json";
    char *text = NULL;
    cJSON *file = NULL;
    const cJSON *row = NULL;
    size_t n_bytes = 0;
    int n_rows = 0;

    assert_int_equal(rp_json_read(path, 1 << 20, &text, &n_bytes), RP_OK);
    assert_int_equal(rp_json_parse(path, text, n_bytes, &rp_json_default, &file), RP_OK);
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(file, "rows"))
    {
        check_row(row);
        n_rows++;
    }
    assert_int_equal(n_rows, 18 * 6 - 3);
    cJSON_Delete(file);
    free(text);
}

static void the_shipped_model_has_the_reference_levels(void **state)
{
    (void)state;
    float sigma[21];
    rp_flow_config config;
    rp_safetensors *file = NULL;
    rp_tensor want;

    assert_int_equal(rp_flow_config_read(RP_TEST_MODEL "/scheduler", &config), RP_OK);
    assert_int_equal(config.num_train_timesteps, 1000);
    assert_int_equal(rp_schedule_list[0]->fill(&config, 20, sigma), RP_OK);
    assert_int_equal(
        rp_safetensors_open(RP_TEST_DATA "/emoji-lumina2-reference/p0.safetensors", &file), RP_OK);
    assert_int_equal(rp_safetensors_find(file, "sigmas", &want), RP_OK);
    assert_memory_equal(sigma, want.data, sizeof(sigma));
    rp_safetensors_close(file);
}

/* Conformance: what every row promises, for any number of steps. */
static void every_schedule_falls_from_one_to_zero(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 3, 7, 50, MAX_STEPS};
    float sigma[MAX_STEPS + 2];
    rp_flow_config config;

    assert_int_equal(rp_flow_config_read(RP_TEST_MODEL "/scheduler", &config), RP_OK);
    for (int r = 0; rp_schedule_list[r] != NULL; r++) {
        assert_non_null(rp_schedule_list[r]->help);
        for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
            const int n = counts[k];
            sigma[n + 1] = 9.0f;
            assert_int_equal(rp_schedule_list[r]->fill(&config, n, sigma), RP_OK);
            assert_float_equal(sigma[0], 1.0f, 1e-6f);
            assert_true(sigma[n] == 0.0f && sigma[n + 1] == 9.0f);
            for (int i = 0; i < n; i++) {
                assert_true(sigma[i] > sigma[i + 1]);
            }
        }
    }
}

#define CLASS "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\""

static void what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        rp_status st;
    } rows[] = {
        {"{\"_class_name\": \"DDIMScheduler\"}", "DDIMScheduler", RP_E_UNSUP},
        {CLASS ", \"use_beta_sigmas\": true}", "use_beta_sigmas", RP_E_UNSUP},
        {CLASS ", \"invert_sigmas\": true}", "invert_sigmas", RP_E_UNSUP},
        {CLASS ", \"stochastic_sampling\": true}", "stochastic_sampling", RP_E_UNSUP},
        {"{\"shift\": 3.0}", "_class_name", RP_E_FORMAT},
        {CLASS ", \"shift\": 0}", "shift", RP_E_FORMAT},
        {CLASS ", \"shift\": \"x\"}", "shift", RP_E_FORMAT},
        {CLASS ", \"shift_terminal\": 1.0}", "shift_terminal", RP_E_FORMAT},
        {CLASS ", \"time_shift_type\": \"cubic\"}", "time_shift_type", RP_E_FORMAT},
        {CLASS ", \"max_image_seq_len\": 256}", "max_image_seq_len", RP_E_FORMAT},
        {CLASS ", \"use_karras_sigmas\": true, \"use_exponential_sigmas\": true}", "karras",
         RP_E_FORMAT},
        {"[1]", "scheduler_config.json", RP_E_FORMAT},
    };
    rp_flow_config config = {.shift = 7};

    rpt_log_collect();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rpt_log_clear();
        assert_int_equal(read_text(rows[i].text, &config), rows[i].st);
        assert_non_null(strstr(rpt_log_last(), rows[i].says));
    }
    assert_true(config.shift == 7); /* untouched */
    assert_int_equal(rp_flow_config_read("/nonexistent", &config), RP_E_IO);
    rp_set_log(NULL, NULL);
}

static void levels_that_do_not_exist_are_refused(void **state)
{
    (void)state;
    float sigma[3];
    rp_flow_config config;

    rpt_log_collect();
    assert_int_equal(read_text(CLASS ", \"shift_terminal\": 0.1}", &config), RP_OK);
    assert_int_equal(rp_schedule_list[0]->fill(&config, 0, sigma), RP_E_ARG);
    assert_int_equal(rp_schedule_list[0]->fill(&config, 1, sigma), RP_E_ARG);
    assert_int_equal(rp_schedule_list[0]->fill(&config, 2, sigma), RP_OK);
    assert_int_equal(read_text(CLASS
                               ", \"use_dynamic_shifting\": true, \"time_shift_type\": \"linear\","
                               " \"base_shift\": -1}",
                               &config),
                     RP_OK);
    assert_int_equal(rp_schedule_list[0]->fill(&config, 2, sigma), RP_E_ARG);
    rp_set_log(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_config_has_the_bits_of_diffusers),
        cmocka_unit_test(the_shipped_model_has_the_reference_levels),
        cmocka_unit_test(every_schedule_falls_from_one_to_zero),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(levels_that_do_not_exist_are_refused),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
