/* test_tokenizer.c - token ids against the Hugging Face tokenizer (tests/ref/make_tokenizer.py). */
#include "rp_test.h"

#include "text/tokenizer.h"
#include "weights/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL   RP_TEST_MODEL "/tokenizer"
#define MAX_IDS 512

static cJSON *load(const char *path)
{
    char *text = NULL;
    cJSON *file = NULL;
    size_t n_bytes = 0;

    assert_int_equal(rp_json_read(path, 1 << 22, &text, &n_bytes), RP_OK);
    assert_int_equal(rp_json_parse(path, text, n_bytes, &rp_json_default, &file), RP_OK);
    free(text);
    return file;
}

static void check_row(const rp_tokenizer *tokenizer, const cJSON *row, int max)
{
    int32_t ids[MAX_IDS];
    int n = -1, n_all = -1;
    const char *text = cJSON_GetObjectItem(row, "text")->valuestring;
    const cJSON *want = cJSON_GetObjectItem(row, "ids");

    assert_int_equal(rp_tokenizer_encode(tokenizer, text, ids, max, &n, &n_all, NULL), RP_OK);
    if (n != cJSON_GetArraySize(want)) {
        fail_msg("\"%s\": %d ids, want %d", text, n, cJSON_GetArraySize(want));
    }
    for (int i = 0; i < n; i++) {
        if (ids[i] != cJSON_GetArrayItem(want, i)->valueint) {
            fail_msg("\"%s\": id %d is %d, want %d", text, i, ids[i],
                     cJSON_GetArrayItem(want, i)->valueint);
        }
    }
    assert_true(n_all >= n);
}

static int check_rows(const rp_tokenizer *tokenizer, const cJSON *rows)
{
    const cJSON *row = NULL;
    int n_rows = 0;

    cJSON_ArrayForEach(row, rows)
    {
        const cJSON *max = cJSON_GetObjectItem(row, "max");
        check_row(tokenizer, row, max != NULL ? max->valueint : MAX_IDS);
        n_rows++;
    }
    return n_rows;
}

static void ids_are_those_of_hugging_face(void **state)
{
    cJSON *captions = load(RP_TEST_DATA "/emoji-lumina2-reference/tokenizer_cases.json");
    cJSON *special = load(RP_TEST_DATA "/tokenizer.json");

    assert_int_equal(check_rows(*state, captions), 904);
    assert_int_equal(check_rows(*state, cJSON_GetObjectItem(special, "rows")), 292);
    assert_int_equal(rp_tokenizer_vocab(*state), 2560);
    cJSON_Delete(captions);
    cJSON_Delete(special);
}

/* Cut at every length: the kept ids are the first ones, and the end of the text is handed back. */
static void what_does_not_fit_is_cut_and_named(void **state)
{
    const char *text = "red heart\xe6\x97\xa5<eos> a";
    int32_t all[MAX_IDS], ids[MAX_IDS];
    int n_all = 0, n = 0;
    char *cut = NULL;

    assert_int_equal(rp_tokenizer_encode(*state, text, all, MAX_IDS, &n, &n_all, &cut), RP_OK);
    assert_int_equal(n, n_all);
    assert_string_equal(cut, "");
    free(cut);
    /* <bos> red _heart, three bytes of one character, <eos>, _a */
    static const char *const rest[] = {"red heart\xe6\x97\xa5<eos> a",
                                       "red heart\xe6\x97\xa5<eos> a",
                                       " heart\xe6\x97\xa5<eos> a",
                                       "\xe6\x97\xa5<eos> a",
                                       "\xe6\x97\xa5<eos> a",
                                       "\xe6\x97\xa5<eos> a",
                                       "<eos> a",
                                       " a"};
    assert_int_equal(n_all, 8);
    for (int max = 0; max < n_all; max++) {
        int total = 0;
        ids[max] = -7;
        assert_int_equal(rp_tokenizer_encode(*state, text, ids, max, &n, &total, &cut), RP_OK);
        assert_int_equal(n, max);
        assert_int_equal(total, n_all);
        assert_memory_equal(ids, all, sizeof(ids[0]) * (size_t)max);
        assert_int_equal(ids[max], -7);
        assert_string_equal(cut, rest[max]);
        free(cut);
    }
}

static void text_that_is_not_utf8_is_refused(void **state)
{
    int32_t ids[4] = {-7, -7, -7, -7};
    int n = -5;

    rpt_log_collect();
    assert_int_equal(rp_tokenizer_encode(*state, "red \xff heart", ids, 4, &n, NULL, NULL),
                     RP_E_ARG);
    assert_non_null(strstr(rpt_log_last(), "byte 4"));
    assert_int_equal(rp_tokenizer_encode(*state, "\xe6\x97", ids, 4, &n, NULL, NULL), RP_E_ARG);
    assert_int_equal(n, -5);
    assert_int_equal(ids[0], -7);
    rp_set_log(NULL, NULL);
}

/* ---------------------------------------------------------------- folders */

static void write_file(const char *dir, const char *name, const void *bytes, size_t n_bytes)
{
    char path[1024];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

static char *model_bytes(size_t *n_bytes)
{
    char *bytes = NULL;

    assert_int_equal(rp_json_read(MODEL "/tokenizer.model", 1 << 24, &bytes, n_bytes), RP_OK);
    return bytes;
}

/* Opens a folder with these model bytes and this config (either may be NULL); the status. */
static rp_status open_with(const char *bytes, size_t n_bytes, const char *config,
                           rp_tokenizer **out)
{
    rp_tokenizer *tokenizer = NULL;
    char *dir = rpt_mkdir();

    if (bytes != NULL) {
        write_file(dir, "tokenizer.model", bytes, n_bytes);
    } else {
        write_file(dir, "tokenizer.json", "{}", 2);
    }
    if (config != NULL) {
        write_file(dir, "tokenizer_config.json", config, strlen(config));
    }
    const rp_status st = rp_tokenizer_open(dir, &tokenizer);
    rpt_rmdir(dir);
    if (out != NULL) {
        *out = tokenizer;
    } else {
        assert_true((tokenizer != NULL) == (st == RP_OK));
        rp_tokenizer_close(tokenizer);
    }
    return st;
}

#define ADDED(id, text) "\"" id "\": {\"content\": \"" text "\"}"

static void eos_keeps_its_place(void **state)
{
    (void)state;
    const char *config = "{\"add_eos_token\": true, \"bos_token\": {\"content\": \"<bos>\"},"
                         " \"eos_token\": \"<eos>\", \"added_tokens_decoder\": null}";
    cJSON *file = load(RP_TEST_DATA "/tokenizer.json");
    rp_tokenizer *tokenizer = NULL;
    size_t n_bytes = 0;
    char *bytes = model_bytes(&n_bytes), *cut = NULL;
    int32_t ids[4];
    int n = 0, n_all = 0;

    assert_int_equal(open_with(bytes, n_bytes, config, &tokenizer), RP_OK);
    assert_int_equal(check_rows(tokenizer, cJSON_GetObjectItem(file, "cut")), 32);
    assert_int_equal(rp_tokenizer_encode(tokenizer, "red heart", ids, 3, &n, &n_all, &cut), RP_OK);
    assert_int_equal(n_all, 4);
    assert_string_equal(cut, " heart");
    free(cut);
    assert_int_equal(rp_tokenizer_encode(tokenizer, "red heart", ids, 0, &n, &n_all, &cut), RP_OK);
    assert_int_equal(n, 0);
    free(cut);
    rp_tokenizer_close(tokenizer);
    free(bytes);
    cJSON_Delete(file);
}

/* The longest of several added tokens that begin at one byte; ids past the vocabulary widen it. */
static void the_longest_added_token_wins(void **state)
{
    (void)state;
    const char *config = "{\"add_bos_token\": false, \"added_tokens_decoder\": {" ADDED(
        "5", "<a") "," ADDED("3000", "<ab>") "," ADDED("7", "<ab") "}}";
    static const int32_t want[] = {5, 7, 3000, 5};
    rp_tokenizer *tokenizer = NULL;
    size_t n_bytes = 0;
    char *bytes = model_bytes(&n_bytes);
    int32_t ids[8];
    int n = 0;

    assert_int_equal(open_with(bytes, n_bytes, config, &tokenizer), RP_OK);
    assert_int_equal(rp_tokenizer_vocab(tokenizer), 3001);
    assert_int_equal(rp_tokenizer_encode(tokenizer, "<a<ab<ab><a", ids, 8, &n, NULL, NULL), RP_OK);
    assert_int_equal(n, 4);
    assert_memory_equal(ids, want, sizeof(want));
    rp_tokenizer_close(tokenizer);
    free(bytes);
}

static void bad_configs_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *says;
        rp_status st;
    } rows[] = {
        {NULL, "tokenizer_config.json", RP_E_IO},
        {"[]", "object", RP_E_FORMAT},
        {"{", "tokenizer_config.json", RP_E_FORMAT},
        {"{}", "bos_token", RP_E_FORMAT},
        {"{\"bos_token\": \"<nothing>\"}", "<nothing>", RP_E_FORMAT},
        {"{\"add_bos_token\": 1}", "add_bos_token", RP_E_FORMAT},
        {"{\"tokenizer_class\": \"T5Tokenizer\"}", "T5Tokenizer", RP_E_UNSUP},
        {"{\"added_tokens_decoder\": []}", "added_tokens_decoder", RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {" ADDED("x", "a") "}}", "\"x\"", RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {" ADDED("-1", "a") "}}", "\"-1\"", RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {" ADDED("99999999999999999999", "a") "}}", "999",
         RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {" ADDED("1", "") "}}", "content", RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {\"1\": 5}}", "content", RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {" ADDED("1", "a") "," ADDED("2", "a") "}}", "two ids",
         RP_E_FORMAT},
        {"{\"added_tokens_decoder\": {\"1\": {\"content\": \"a\", \"lstrip\": true}}}", "lstrip",
         RP_E_UNSUP},
    };
    size_t n_bytes = 0;
    char *bytes = model_bytes(&n_bytes);

    rpt_log_collect();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rpt_log_clear();
        assert_int_equal(open_with(bytes, n_bytes, rows[i].config, NULL), rows[i].st);
        assert_non_null(strstr(rpt_log_last(), rows[i].says));
    }
    rp_set_log(NULL, NULL);
    free(bytes);
}

static const char plain_config[] = "{\"bos_token\": \"<bos>\"}";

static void a_missing_model_says_where_to_get_it(void **state)
{
    (void)state;

    rpt_log_collect();
    assert_int_equal(open_with(NULL, 0, plain_config, NULL), RP_E_IO);
    assert_non_null(strstr(rpt_log_last(), "original repository"));
    assert_int_equal(rp_tokenizer_open("/nonexistent", &(rp_tokenizer *){NULL}), RP_E_IO);
    assert_non_null(strstr(rpt_log_last(), "/nonexistent/tokenizer.model"));
    rp_set_log(NULL, NULL);
}

static void a_damaged_model_is_one_error(void **state)
{
    (void)state;
    size_t n_bytes = 0;
    char *bytes = model_bytes(&n_bytes), *bad = malloc(n_bytes + 64);

    assert_non_null(bad);
    rpt_log_collect();
    assert_int_equal(open_with(bytes, n_bytes, plain_config, NULL), RP_OK);
    assert_int_equal(open_with("", 0, plain_config, NULL), RP_E_UNSUP); /* defaults normalise */
    assert_int_equal(open_with("{\"version\": 1}", 14, plain_config, NULL), RP_E_FORMAT);
    for (size_t cut = 1; cut < n_bytes; cut += n_bytes / 50) {
        assert_true(open_with(bytes, cut, plain_config, NULL) != RP_OK);
    }
    unsigned seed = 1;
    for (int i = 0; i < 200; i++) { /* any status, no crash */
        memcpy(bad, bytes, n_bytes);
        for (int k = 0; k < 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            bad[(seed >> 4) % n_bytes] = (char)(seed >> 24);
        }
        (void)open_with(bad, n_bytes, plain_config, NULL);
    }
    /* a normalisation table that the library would follow out of bounds: normalizer_spec {2: bytes}
     */
    static const char table[] = "\x1a\x0e\x12\x0c\x04\0\0\0\xff\xff\xff\xff\x01\x02\x03\x04";
    memcpy(bad, bytes, n_bytes);
    memcpy(bad + n_bytes, table, sizeof(table) - 1);
    assert_int_equal(open_with(bad, n_bytes + sizeof(table) - 1, plain_config, NULL), RP_E_UNSUP);
    assert_non_null(strstr(rpt_log_last(), "precompiled_charsmap"));
    rp_set_log(NULL, NULL);
    free(bad);
    free(bytes);
}

static void fingerprints_tell_folders_apart(void **state)
{
    const char *config = "{\"bos_token\": \"<bos>\", \"add_bos_token\": true}";
    size_t n_bytes = 0;
    char *bytes = model_bytes(&n_bytes);
    rp_tokenizer *a = NULL, *b = NULL, *c = NULL;

    assert_int_equal(open_with(bytes, n_bytes, config, &a), RP_OK);
    assert_int_equal(open_with(bytes, n_bytes, config, &b), RP_OK);
    assert_int_equal(open_with(bytes, n_bytes, plain_config, &c), RP_OK);
    assert_true(rp_tokenizer_fingerprint(a) == rp_tokenizer_fingerprint(b));
    assert_true(rp_tokenizer_fingerprint(a) != rp_tokenizer_fingerprint(c));
    assert_true(rp_tokenizer_fingerprint(a) != rp_tokenizer_fingerprint(*state));
    rp_tokenizer_close(a);
    rp_tokenizer_close(b);
    rp_tokenizer_close(c);
    rp_tokenizer_close(NULL);
    free(bytes);
}

static int open_shipped(void **state)
{
    rp_tokenizer *tokenizer = NULL;
    const rp_status st = rp_tokenizer_open(MODEL, &tokenizer);

    *state = tokenizer;
    return st;
}

static int close_shipped(void **state)
{
    rp_tokenizer_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_hugging_face),
        cmocka_unit_test(what_does_not_fit_is_cut_and_named),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(eos_keeps_its_place),
        cmocka_unit_test(the_longest_added_token_wins),
        cmocka_unit_test(bad_configs_are_refused),
        cmocka_unit_test(a_missing_model_says_where_to_get_it),
        cmocka_unit_test(a_damaged_model_is_one_error),
        cmocka_unit_test(fingerprints_tell_folders_apart),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, open_shipped, close_shipped);
}
