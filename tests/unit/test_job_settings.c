/* test_job_settings.c - options: defaults, environment, text, JSON; what is refused and with which words. */
#include "rp_test.h"

#include "job/job_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rp_settings *fresh(void)
{
    rp_settings *settings = rp_settings_new();

    assert_non_null(settings);
    rpt_log_collect();
    rpt_log_clear();
    return settings;
}

static void every_row_is_complete(void **state)
{
    (void)state;
    assert_int_equal(rp_option_count(), RP_N_OPTIONS);
    assert_null(rp_option_at(rp_option_count()));
    for (size_t i = 0; i < rp_option_count(); i++) {
        const rp_option_info *row = rp_option_at(i);
        assert_true(strlen(row->name) > 0 && strlen(row->help) > 0 && strlen(row->group) > 0);
        assert_true(strncmp(row->env, "RANKPOOL_", 9) == 0);
        assert_int_equal(rp_option_find(row->name), i);
        assert_int_equal(rp_option_check((rp_option_id)i, row->name, row->def), RP_OK);
        assert_true(row->is_switch || strlen(row->meta) > 0);
    }
}

static void defaults_are_the_pipelines(void **state)
{
    (void)state;
    rp_settings *s = fresh();
    rp_job_params p;

    assert_int_equal(rp_job_params_read(s, &p), RP_OK);
    assert_int_equal(p.steps, 30);
    assert_true(p.guide.renorm && p.guide.truncation == 1.0 && p.guide.scale == 4.0f);
    assert_string_equal(p.sampler->name, "euler");
    assert_string_equal(p.schedule->name, "flow");
    assert_string_equal(p.system_prompt, RP_SYSTEM_PROMPT);
    rp_settings_free(s);
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"steps", "0"},      {"steps", "1001"},   {"steps", "2.5"},      {"steps", "ten"},
        {"steps", ""},       {"steps", "1e2"},    {"steps", " 3"},       {"guidance", "nan"},
        {"guidance", "inf"}, {"guidance", "-1"},  {"guidance", "0x10"},  {"guidance", "1e999"},
        {"seed", "-1"},      {"seed", "18446744073709551616"},           {"seed", "1.0"},
        {"images", "1025"},  {"overwrite", "yes"}, {"sampler", "eul"},   {"sampler", "euler|heun"},
        {"guidance-truncation", "1.01"},          {"prompt", "caf\xe9"}, {"transport", "tcp"},
    };
    rp_settings *s = fresh();

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *before = strdup(rp_settings_get(s, bad[i][0]));
        if (rp_settings_set(s, bad[i][0], bad[i][1]) != RP_E_ARG) {
            fail_msg("%s = '%s' was accepted", bad[i][0], bad[i][1]);
        }
        assert_string_equal(rp_settings_get(s, bad[i][0]), before);
        assert_non_null(strstr(rpt_log_last(), bad[i][0]));
        free((void *)before);
    }
    rp_settings_free(s);
}

static void unknown_names_get_the_nearest(void **state)
{
    (void)state;
    rp_settings *s = fresh();

    assert_int_equal(rp_settings_set(s, "guidence", "3"), RP_E_ABSENT);
    assert_non_null(strstr(rpt_log_last(), "'guidance'"));
    assert_int_equal(rp_settings_set(s, "zzzzzzzz", "3"), RP_E_ABSENT);
    assert_null(rp_settings_get(s, "zzzzzzzz"));
    rp_settings_free(s);
}

static void json_is_all_or_nothing(void **state)
{
    (void)state;
    rp_settings *s = fresh();

    assert_int_equal(rp_settings_set_json(s, "{\"prompt\": \"sun\", \"steps\": 7, \"overwrite\": true}"), RP_OK);
    assert_string_equal(rp_settings_get(s, "prompt"), "sun");
    assert_string_equal(rp_settings_get(s, "steps"), "7");
    assert_string_equal(rp_settings_get(s, "overwrite"), "on");
    assert_int_equal(rp_settings_set_json(s, "{\"prompt\": \"moon\", \"steps\": 0}"), RP_E_ARG);
    assert_string_equal(rp_settings_get(s, "prompt"), "sun");
    assert_int_equal(rp_settings_set_json(s, "{\"step\": 4}"), RP_E_ABSENT);
    assert_non_null(strstr(rpt_log_last(), "'steps'"));
    assert_int_equal(rp_settings_set_json(s, "{\"steps\": 4} x"), RP_E_FORMAT);
    assert_int_equal(rp_settings_set_json(s, "[1]"), RP_E_FORMAT);
    assert_int_equal(rp_settings_set_json(s, ""), RP_E_FORMAT);
    assert_int_equal(rp_settings_set_json(s, "{\"steps\": 4, \"steps\": 5}"), RP_E_FORMAT);
    assert_int_equal(rp_settings_set_json(s, "{\"prompt\": \"red\\u0000heart\"}"), RP_E_FORMAT);
    assert_int_equal(rp_settings_set_json(s, "{\"steps\": 04}"), RP_E_FORMAT);
    assert_int_equal(rp_settings_set_json(s, "{\"steps\": null}"), RP_E_ARG);
    assert_int_equal(rp_settings_set_json(s, "{\"prompt\": 5}"), RP_E_ARG);
    assert_int_equal(rp_settings_set_json(s, "{\"out\": true}"), RP_E_ARG);
    assert_int_equal(rp_settings_set_json(s, "{\"seed\": 9007199254740993}"), RP_E_ARG);
    assert_int_equal(rp_settings_set_json(s, "{\"seed\": \"18446744073709551615\"}"), RP_OK);
    assert_string_equal(rp_settings_get(s, "seed"), "18446744073709551615");
    assert_int_equal(rp_settings_set_json(s, "{\"model\": \"x\"}"), RP_E_ARG); /* fixed for the run */
    rp_settings_free(s);
}

static void json_out_is_json_in(void **state)
{
    (void)state;
    rp_settings *s = fresh(), *t = fresh();

    assert_int_equal(rp_settings_set(s, "prompt", "a \"b\" \xc3\xa9"), RP_OK);
    assert_int_equal(rp_settings_set(s, "seed", "18446744073709551615"), RP_OK);
    assert_int_equal(rp_settings_set(s, "guidance", "3.75"), RP_OK);
    assert_int_equal(rp_settings_set(s, "guidance-renorm", "off"), RP_OK);
    char *json = rp_settings_json(s, RP_OPT_PICTURE, NULL);
    assert_non_null(json);
    assert_int_equal(rp_settings_set_json(t, json), RP_OK);
    for (int id = 0; id < RP_N_OPTIONS; id++) {
        if ((rp_option_rule_at((rp_option_id)id)->flags & RP_OPT_PICTURE) != 0) {
            assert_string_equal(rp_settings_text(t, (rp_option_id)id), rp_settings_text(s, (rp_option_id)id));
        }
    }
    free(json);
    rp_settings_free(s);
    rp_settings_free(t);
}

static void the_environment_comes_before_the_defaults(void **state)
{
    (void)state;
    rp_job_params p;

    assert_int_equal(setenv("RANKPOOL_STEPS", "12", 1), 0);
    rp_settings *s = fresh();
    assert_string_equal(rp_settings_get(s, "steps"), "12");
    rp_settings_free(s);
    assert_int_equal(setenv("RANKPOOL_STEPS", "many", 1), 0);
    s = fresh();
    assert_int_equal(rp_job_params_read(s, &p), RP_E_ARG);
    assert_non_null(strstr(rpt_log_last(), "RANKPOOL_STEPS"));
    rp_settings_free(s);
    assert_int_equal(unsetenv("RANKPOOL_STEPS"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_complete),
        cmocka_unit_test(defaults_are_the_pipelines),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(unknown_names_get_the_nearest),
        cmocka_unit_test(json_is_all_or_nothing),
        cmocka_unit_test(json_out_is_json_in),
        cmocka_unit_test(the_environment_comes_before_the_defaults),
    };
    return cmocka_run_group_tests_name("job_settings", tests, NULL, NULL);
}
