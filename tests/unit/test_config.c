/* test_config.c - typed reading of JSON, and the strict JSON below it. */
#include "rp_test.h"

#include "weights/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_up(void **state)
{
    (void)state;
    rpt_log_collect();
    rpt_log_clear();
    return 0;
}

static void assert_logged(const char *part)
{
    if (strstr(rpt_log_last(), part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, rpt_log_last());
    }
}

/* Parses an exact copy on the heap, so that a read past its end shows under the sanitizer. */
static rp_status parse(const char *text, rp_config **out)
{
    const size_t n = strlen(text);
    char *const copy = malloc(n + 1);
    char *const exact = n > 0 ? realloc(copy, n) : copy;
    const rp_status st = rp_config_parse("c.json", memcpy(exact, text, n), n, out);

    free(exact);
    return st;
}

static void what_is_not_json_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *say;
    } cases[] = {
        {"", "line 1, column 1: the text ends too early"},
        {"   ", "ends too early"},
        {"{", "a key in double quotes"},
        {"{\"a\"", "':'"},
        {"{\"a\":", "ends too early"},
        {"{\"a\":1", "',' or '}'"},
        {"{\"a\":1,}", "a key in double quotes"},
        {"{\"a\":[1,]}", "not a JSON value"},
        {"{\"a\":[1 2]}", "',' or ']'"},
        {"{a:1}", "a key in double quotes"},
        {"{'a':1}", "a key in double quotes"},
        {"{\"a\": 1} x", "column 10: something comes after"},
        {"{}{}", "something comes after"},
        {"{\n  \"a\": NaN\n}", "line 2, column 8: NaN is not JSON"},
        {"{\"a\": Infinity}", "Infinity is not JSON"},
        {"{\"a\": -Infinity}", "Infinity is not JSON"},
        {"{\"a\": 01}", "',' or '}'"},
        {"{\"a\": +1}", "not a JSON value"},
        {"{\"a\": 1.}", "not a number"},
        {"{\"a\": .5}", "not a JSON value"},
        {"{\"a\": 1e}", "not a number"},
        {"{\"a\": -}", "not a number"},
        {"{\"a\": 0x10}", "',' or '}'"},
        {"{\"a\": 1e999}", "too large for a double"},
        {"{\"a\": 1111111111111111111111111111111111111111111111111111111111111111}",
         "more than 63 characters"},
        {"{\"a\": tru}", "not a JSON value"},
        {"{\"a\": True}", "not a JSON value"},
        {"{\"a\": \"x}", "a string without an end"},
        {"{\"a\": \"x\\", "bad escape"},
        {"{\"a\": \"\\x\"}", "bad escape"},
        {"{\"a\": \"\\u12g4\"}", "bad \\u escape"},
        {"{\"a\": \"\\u12\"}", "bad \\u escape"},
        {"{\"a\": \"\\u0000\"}", "\\u0000"},
        {"{\"a\": \"\\ud800\"}", "no character"},
        {"{\"a\": \"tab\there\"}", "a control character"},
        {"{\"a\": \"\xFF\"}", "not UTF-8"},
        {"{\"\xC3\": 1}", "not UTF-8"},
        {"\xEF\xBB\xBF{}", "not a JSON value"},
        {"{\"a\": 1, \"b\": 2, \"a\": 3}", "\"a\" comes twice"},
        {"{\"x\": {\"a\": 1, \"\\u0061\": 3}}", "\"a\" comes twice"},
        {"{\"a\": 1} // no comments", "something comes after"},
        {"[1]", "is not a JSON object"},
        {"\"a\"", "is not a JSON object"},
        {"null", "is not a JSON object"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rp_config *config = NULL;
        const rp_status st = parse(cases[i].text, &config);
        if (st != RP_E_FORMAT || config != NULL) {
            fail_msg("%s was taken (%d)", cases[i].text, st);
        }
        assert_logged("c.json");
        assert_logged(cases[i].say);
    }
}

static void a_nul_byte_is_not_space(void **state)
{
    (void)state;
    static const char after[] = "{}\0", inside[] = "{\0}";
    rp_config *config = NULL;

    assert_int_equal(rp_config_parse("c.json", after, 3, &config), RP_E_FORMAT);
    assert_int_equal(rp_config_parse("c.json", inside, 3, &config), RP_E_FORMAT);
}

static void depth_and_number_of_values_are_bounded(void **state)
{
    (void)state;
    rp_config *config = NULL;
    char text[300];

    for (int depth = 64; depth <= 65; depth++) { /* the object itself is the first level */
        size_t n = (size_t)snprintf(text, sizeof(text), "{\"a\":");
        memset(text + n, '[', (size_t)depth - 1);
        memset(text + n + depth - 1, ']', (size_t)depth - 1);
        (void)strcpy(text + n + 2 * (size_t)(depth - 1), "}");
        assert_int_equal(parse(text, &config), depth == 64 ? RP_OK : RP_E_FORMAT);
        rp_config_close(config);
        config = NULL;
    }
    assert_logged("nested too deep");

    const size_t n_deep = 10u << 20; /* would end a recursion without a limit */
    char *const deep = malloc(n_deep);
    memset(deep, '[', n_deep);
    assert_int_equal(rp_config_parse("deep", deep, n_deep, &config), RP_E_FORMAT);
    assert_logged("nested too deep");
    for (size_t i = 0; i < n_deep; i++) {
        deep[i] = i == 0 ? '[' : i % 2 == 1 ? '1' : ',';
    }
    assert_int_equal(rp_config_parse("wide", deep, n_deep, &config), RP_E_FORMAT);
    assert_logged("too many values");
    free(deep);
}

static rp_config *must_parse(const char *text)
{
    rp_config *config = NULL;

    assert_int_equal(parse(text, &config), RP_OK);
    assert_non_null(config);
    return config;
}

static void getters_read_what_is_there(void **state)
{
    (void)state;
    rp_config *c = must_parse(
        "\t{\"i\": 42, \"neg\": -7, \"r\": 0.5, \"e\": 1e-5, \"big\": 9007199254740991,\r\n"
        "\"t\": true, \"f\": false, \"s\": \"\\u00e4\\\"\\ud83c\\udf88\", \"n\": null,"
        "\"a\": [1, 2, 3], \"c\": [\"diffusers\", \"Lumina2\"], \"o\": {\"x\": 1}} \n");
    int64_t ints[3] = {0};

    assert_true(rp_config_int(c, "i", 0, 100, -1) == 42);
    assert_true(rp_config_int(c, "neg", -10, 0, 1) == -7);
    assert_true(rp_config_int(c, "big", 0, INT64_MAX, -1) == 9007199254740991);
    assert_true(rp_config_int(c, "none", 0, 100, 5) == 5);
    assert_true(rp_config_int(c, "n", 0, 100, 6) == 6);
    assert_float_equal(rp_config_real(c, "r", 0, 1, NAN), 0.5, 0);
    assert_float_equal(rp_config_real(c, "e", 0, 1, NAN), 1e-5, 0);
    assert_float_equal(rp_config_real(c, "none", 0, 1, 0.25), 0.25, 0);
    assert_true(rp_config_bool(c, "t", false));
    assert_false(rp_config_bool(c, "f", true));
    assert_true(rp_config_bool(c, "none", true));
    assert_string_equal(rp_config_text(c, "s", NULL), "\xC3\xA4\"\xF0\x9F\x8E\x88");
    assert_string_equal(rp_config_text(c, "none", "fallback"), "fallback");
    assert_int_equal(rp_config_ints(c, "a", 3, 1, 3, ints), 3);
    assert_true(ints[0] == 1 && ints[2] == 3);
    assert_int_equal(rp_config_ints(c, "a", -8, 1, 3, ints), 3);
    assert_string_equal(rp_config_text_at(c, "c", 1), "Lumina2");
    assert_null(rp_config_text_at(c, "c", 2));
    assert_null(rp_config_text_at(c, "c", -1));
    assert_null(rp_config_text_at(c, "a", 0));
    assert_null(rp_config_text_at(c, "none", 0));
    assert_null(rp_config_text_at(c, "s", 0));
    assert_null(rp_config_text_at(c, "o", 0));
    assert_true(rp_config_has(c, "i"));
    assert_false(rp_config_has(c, "n"));
    assert_false(rp_config_has(c, "I"));
    assert_int_equal(rp_config_finish(c), RP_OK);
    assert_string_equal(rpt_log_last(), "");
    rp_config_close(c);
    rp_config_close(NULL);
}

static void a_dot_leads_into_an_object(void **state)
{
    (void)state;
    rp_config *c = must_parse("{\"a\": {\"b\": 3, \"n\": null}, \"x.y\": 4, \"x\": {\"y\": 5}}");

    assert_true(rp_config_int(c, "a.b", 0, 9, -1) == 3);
    assert_true(rp_config_int(c, "x.y", 0, 9, -1) == 4); /* a key that is spelled so goes first */
    assert_true(rp_config_int(c, "a.c", 0, 9, 7) == 7);
    assert_false(rp_config_has(c, "a.n"));
    assert_false(rp_config_has(c, "none.b"));
    (void)rp_config_int(c, "a.b", 4, 9, -1);
    assert_int_equal(rp_config_finish(c), RP_E_FORMAT);
    assert_logged("\"a.b\" is 3, it must be a whole number from 4 to 9");
    rp_config_close(c);
}

/* One getter each, over {"k": value}. */
static void get_int(rp_config *c)
{
    (void)rp_config_int(c, "k", 1, 100, 0);
}
static void get_any_int(rp_config *c)
{
    (void)rp_config_int(c, "k", INT64_MIN, INT64_MAX - 1, INT64_MAX);
}
static void get_real(rp_config *c)
{
    (void)rp_config_real(c, "k", 0, 1, NAN);
}
static void get_bool(rp_config *c)
{
    (void)rp_config_bool(c, "k", true);
}
static void get_text(rp_config *c)
{
    assert_string_equal(rp_config_text(c, "k", NULL), "");
}
static void get_two(rp_config *c)
{
    int64_t ints[2];

    assert_int_equal(rp_config_ints(c, "k", 2, 1, 100, ints), 0);
}
static void get_up_to_two(rp_config *c)
{
    int64_t ints[2];

    assert_int_equal(rp_config_ints(c, "k", -2, 1, 100, ints), 0);
}

static void getters_refuse_with_key_value_and_what_is_allowed(void **state)
{
    (void)state;
    static const struct {
        void (*get)(rp_config *);
        const char *text, *say;
    } cases[] = {
        {get_int, "{}", "\"k\" is missing, it must be a whole number from 1 to 100"},
        {get_int, "{\"k\": null}", "\"k\" is null, it must"},
        {get_int, "{\"k\": 0}", "\"k\" is 0, it must be a whole number from 1 to 100"},
        {get_int, "{\"k\": 101}", "is 101"},
        {get_int, "{\"k\": 1.5}", "is 1.5"},
        {get_int, "{\"k\": \"7\"}", "is \"7\""},
        {get_int, "{\"k\": 1e300}", "is 1e+300"},
        {get_any_int, "{\"k\": 9007199254740993}", "whole number"},
        {get_any_int, "{\"k\": -9007199254740993}", "whole number"},
        {get_any_int, "{\"k\": 9223372036854775807}", "whole number"},
        {get_int, "{\"k\": [1]}", "is [1]"},
        {get_int, "{\"k\": true}", "is true"},
        {get_real, "{}", "is missing, it must be a number from 0 to 1"},
        {get_real, "{\"k\": -0.1}", "is -0.1"},
        {get_real, "{\"k\": \"x\"}", "is \"x\""},
        {get_bool, "{\"k\": 1}", "is 1, it must be true or false"},
        {get_bool, "{\"k\": \"true\"}", "true or false"},
        {get_text, "{\"k\": 1}", "is 1, it must be text"},
        {get_text, "{}", "is missing, it must be text"},
        {get_two, "{\"k\": [1]}", "is [1], it must be 2 whole numbers from 1 to 100"},
        {get_two, "{\"k\": [1,2,3]}", "is [1,2,3]"},
        {get_two, "{\"k\": [1,200]}", "is [1,200]"},
        {get_two, "{\"k\": [1,\"2\"]}", "2 whole numbers"},
        {get_two, "{\"k\": {\"a\": 1, \"b\": 2}}", "2 whole numbers"},
        {get_two, "{}", "is missing"},
        {get_up_to_two, "{\"k\": []}", "is [], it must be 1 to 2 whole numbers"},
        {get_up_to_two, "{\"k\": [1,2,3]}", "1 to 2 whole numbers"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rp_config *c = must_parse(cases[i].text);
        cases[i].get(c);
        assert_int_equal(rp_config_finish(c), RP_E_FORMAT);
        assert_logged("c.json: ");
        assert_logged(cases[i].say);
        rp_config_close(c);
    }
}

static void the_first_error_is_kept_and_long_values_are_cut(void **state)
{
    (void)state;
    char text[4000] = "{\"a\": \"";
    memset(text + 7, 'x', 3000);
    (void)strcpy(text + 3007, "\", \"b\": 2}");
    rp_config *c = must_parse(text);

    (void)rp_config_int(c, "a", 0, 1, 0);
    rp_config_refuse(c, "b", "something else");
    assert_string_equal(rpt_log_last(), ""); /* nothing before finish */
    assert_int_equal(rp_config_finish(c), RP_E_FORMAT);
    assert_logged("\"a\" is \"xxx");
    assert_logged("x..., it must be a whole number from 0 to 1");
    assert_null(strstr(rpt_log_last(), "something else"));
    rp_config_close(c);

    c = must_parse("{\"b\": 2}");
    rp_config_refuse(c, "b", "an even prime above 2");
    assert_int_equal(rp_config_finish(c), RP_E_FORMAT);
    assert_string_equal(rpt_log_last(), "c.json: \"b\" is 2, it must be an even prime above 2");
    rp_config_close(c);
}

static void fingerprints_follow_the_text(void **state)
{
    (void)state;
    rp_config *a = must_parse("{\"a\": 1}"), *b = must_parse("{\"a\": 1}");
    rp_config *c = must_parse("{\"a\": 2}");

    assert_true(rp_config_fingerprint(a) == rp_config_fingerprint(b));
    assert_true(rp_config_fingerprint(a) != rp_config_fingerprint(c));
    rp_config_close(a);
    rp_config_close(b);
    rp_config_close(c);
}

static void files_are_opened_by_folder_and_name(void **state)
{
    (void)state;
    char *const dir = rpt_mkdir();
    rp_config *config = NULL;
    char path[600];

    assert_int_equal(rp_config_open(dir, "config.json", &config), RP_E_IO);
    assert_logged("config.json: No such file or directory");
    assert_int_equal(rp_config_open(dir, ".", &config), RP_E_IO);
    assert_logged("not a regular file");

    (void)snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *const f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs("{\"a\": 1}\n", f) >= 0);
    assert_int_equal(fflush(f), 0);
    assert_int_equal(rp_config_open(dir, "config.json", &config), RP_OK);
    assert_true(rp_config_int(config, "a", 0, 1, 0) == 1);
    rp_config_close(config);
    config = NULL;

    assert_int_equal(fseek(f, 16 << 20, SEEK_SET), 0);
    assert_int_equal(fputc(' ', f), ' ');
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rp_config_open(dir, "config.json", &config), RP_E_IO);
    assert_logged("at most 16777216");
    assert_null(config);
    rpt_rmdir(dir);
}

static void the_shipped_configs_are_read(void **state)
{
    (void)state;
    rp_config *c = NULL;
    int64_t ints[8] = {0};

    assert_int_equal(rp_config_open(RP_TEST_MODEL "/vae", "config.json", &c), RP_OK);
    assert_true(rp_config_int(c, "latent_channels", 1, 1024, 0) == 16);
    assert_int_equal(rp_config_ints(c, "block_out_channels", -8, 1, 4096, ints), 4);
    assert_float_equal(rp_config_real(c, "scaling_factor", 1e-6, 1e6, NAN), 0.5424, 0);
    assert_false(rp_config_has(c, "latents_mean"));
    assert_int_equal(rp_config_finish(c), RP_OK);
    rp_config_close(c);
}

#define TEST(f) cmocka_unit_test_setup(f, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_json_is_refused_with_its_place),
        TEST(a_nul_byte_is_not_space),
        TEST(depth_and_number_of_values_are_bounded),
        TEST(getters_read_what_is_there),
        TEST(a_dot_leads_into_an_object),
        TEST(getters_refuse_with_key_value_and_what_is_allowed),
        TEST(the_first_error_is_kept_and_long_values_are_cut),
        TEST(fingerprints_follow_the_text),
        TEST(files_are_opened_by_folder_and_name),
        TEST(the_shipped_configs_are_read),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
