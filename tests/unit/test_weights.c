/* test_weights.c - one file or shards, bound by name and shape, complained about once. */
#include "rp_test.h"

#include "weights/safetensors.h"
#include "weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *g_dir;
static const float g_data[32] = {1, 2, 3, 4};

static int set_up(void **state)
{
    (void)state;
    g_dir = rpt_mkdir();
    rpt_log_collect();
    rpt_log_clear();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rpt_rmdir(g_dir);
    return 0;
}

static const char *in_dir(const char *name)
{
    static char path[600];

    (void)snprintf(path, sizeof(path), "%s/%s", g_dir, name);
    return path;
}

static void assert_logged(const char *part)
{
    if (strstr(rpt_log_last(), part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, rpt_log_last());
    }
}

/* A file of F32 tensors [2, 2] with these names ("a b c"). */
static void put_tensors(const char *file, const char *names)
{
    rp_named_tensor tensors[16];
    char text[256];
    char *rest = text, *name = NULL;
    size_t n = 0;

    (void)snprintf(text, sizeof(text), "%s", names);
    while ((name = strsep(&rest, " ")) != NULL) {
        tensors[n++] = (rp_named_tensor){
            name, {.dtype = RP_F32, .n_dims = 2, .dim = {2, 2, 1, 1}, .data = g_data}};
    }
    assert_int_equal(rp_safetensors_write(in_dir(file), tensors, n, NULL, 1), RP_OK);
}

static void put(const char *file, const char *text)
{
    FILE *f = fopen(in_dir(file), "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static rp_weights *must_open(void)
{
    rp_weights *weights = NULL;

    if (rp_weights_open(g_dir, &weights) != RP_OK) {
        fail_msg("%s", rpt_log_last());
    }
    return weights;
}

static void bind_2x2(rp_weights *weights, const char *name, rp_tensor *out)
{
    static const int64_t dims[] = {2, 2};

    rp_weights_bind(weights, out, 2, dims, "%s", name);
}

static void both_stems_are_found(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors", "diffusion_pytorch_model.safetensors"};

    for (size_t i = 0; i < 2; i++) {
        put_tensors(files[i], i == 0 ? "a" : "b");
        rp_weights *w = must_open();
        rp_tensor t = {0};
        assert_true(rp_weights_has(w, i == 0 ? "a" : "b")); /* diffusers' goes first */
        bind_2x2(w, i == 0 ? "a" : "b", &t);
        assert_memory_equal(t.data, g_data, 16);
        assert_int_equal(rp_weights_finish(w), RP_OK);
        assert_int_equal(rp_weights_bytes(w), 16);
        rp_weights_close(w);
    }
    rp_weights_close(NULL);
    assert_string_equal(rpt_log_last(), "");
}

static void nothing_there_is_an_error_with_what_was_looked_for(void **state)
{
    (void)state;
    rp_weights *w = NULL;

    assert_int_equal(rp_weights_open(g_dir, &w), RP_E_IO);
    assert_logged("diffusion_pytorch_model.safetensors");
    assert_logged("model.safetensors");
    assert_logged(g_dir);
    assert_int_equal(rp_weights_open(in_dir("none"), &w), RP_E_IO);
    assert_logged("none does not exist");
    put("model.safetensors", "no such thing");
    assert_int_equal(rp_weights_open(g_dir, &w), RP_E_FORMAT);
    assert_null(w);
}

/* All kinds of trouble, in one line. */
static void one_line_names_all_that_is_wrong(void **state)
{
    (void)state;
    static const int64_t d_2x2[] = {2, 2}, d_8x4[] = {8, 4}, d_4[] = {4}, d_2x3[] = {2, 3},
                         d_4x1[] = {4, 1};
    const rp_named_tensor tensors[] = {
        {"good.0.weight", {.dtype = RP_F32, .n_dims = 2, .dim = {2, 2, 1, 1}, .data = g_data}},
        {"flat", {.dtype = RP_F32, .n_dims = 1, .dim = {4, 1, 1, 1}, .data = g_data}},
        {"d", {.dtype = RP_F32, .n_dims = 2, .dim = {4, 4, 1, 1}, .data = g_data}},
        {"half", {.dtype = RP_BF16, .n_dims = 2, .dim = {2, 2, 1, 1}, .data = g_data}},
        {"ints", {.dtype = RP_I32, .n_dims = 1, .dim = {4, 1, 1, 1}, .data = g_data}},
        {"scalar", {.dtype = RP_F32, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = g_data}},
        {"e", {.dtype = RP_F32, .n_dims = 1, .dim = {1, 1, 1, 1}, .data = g_data}},
        {"one_dim", {.dtype = RP_F32, .n_dims = 1, .dim = {4, 1, 1, 1}, .data = g_data}},
        {"encoder.x", {.dtype = RP_F32, .n_dims = 1, .dim = {1, 1, 1, 1}, .data = g_data}},
    };
    rp_tensor t = {0};

    assert_int_equal(rp_safetensors_write(in_dir("model.safetensors"), tensors, 9, NULL, 0), RP_OK);
    rp_weights *w = must_open();
    rp_weights_ignore(w, "encoder.");
    rp_weights_bind(w, &t, 2, d_2x2, "good.%d.%s", 0, "weight");
    assert_non_null(t.data);
    rp_weights_bind(w, &t, 2, d_2x2, "half");
    assert_int_equal(t.dtype, RP_BF16);
    rp_weights_bind(w, &t, 0, NULL, "scalar");
    assert_non_null(t.data);
    rp_weights_bind(w, &t, 2, d_8x4, "d");
    assert_null(t.data); /* empty, and n_dims 0 */
    assert_int_equal(t.n_dims, 0);
    rp_weights_bind(w, &t, 2, d_2x2, "flat");
    rp_weights_bind(w, &t, 2, d_4x1, "one_dim");
    assert_null(t.data);
    rp_weights_bind(w, &t, 1, d_4, "ints");
    assert_null(t.data);
    rp_weights_bind(w, &t, 2, d_2x3, "a");
    rp_weights_bind(w, &t, 2, d_2x3, "b");
    assert_null(t.data);
    assert_false(rp_weights_has(w, "a"));
    assert_string_equal(rpt_log_last(), ""); /* only finish speaks */
    assert_int_equal(rp_weights_finish(w), RP_E_FORMAT);

    char want[900];
    (void)snprintf(want, sizeof(want),
                   "%s: 2 tensors missing (a, b), 3 misshapen (d is [4, 4], should be [8, 4], flat "
                   "is [4], should be [2, 2], one_dim is [4], should be [4, 1]), 1 of a wrong type "
                   "(ints is I32, should be F32, F16, BF16 or F8_E4M3), 1 "
                   "left over (e)",
                   g_dir);
    assert_string_equal(rpt_log_last(), want);
    rp_weights_close(w);
}

static void long_lists_are_cut(void **state)
{
    (void)state;
    rp_tensor t = {0};
    char name[1000];

    put_tensors("model.safetensors", "a b c d e f");
    rp_weights *w = must_open();
    assert_int_equal(rp_weights_finish(w), RP_E_FORMAT);
    assert_logged(": 6 tensors left over (a, b, c, d and 2 more)");
    rp_weights_close(w);

    w = must_open();
    for (int i = 0; i < 1000; i++) {
        static const int64_t dims[] = {2};
        rp_weights_bind(w, &t, 1, dims, "layer.%d", i);
    }
    assert_int_equal(rp_weights_finish(w), RP_E_FORMAT);
    assert_logged(
        ": 1000 tensors missing (layer.0, layer.1, layer.2, layer.3 and 996 more), 6 left");
    rp_weights_close(w);

    w = must_open(); /* names too long to print */
    memset(name, 'n', sizeof(name));
    name[400] = '\0';
    bind_2x2(w, name, &t);
    bind_2x2(w, name, &t);
    name[400] = 'n';
    name[sizeof(name) - 1] = '\0';
    bind_2x2(w, name, &t);
    assert_int_equal(rp_weights_finish(w), RP_E_FORMAT);
    assert_logged(": 3 tensors missing (nnnn");
    assert_logged("nnn...), 6 left over");
    rp_weights_close(w);
}

static void types_of_no_use_are_named(void **state)
{
    (void)state;
    static const char header[] =
        "{\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
        "\"v\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[8,16]}}";
    static const int64_t dims[] = {1};
    FILE *f = fopen(in_dir("model.safetensors"), "w");
    const unsigned char n = sizeof(header) - 1;
    rp_tensor t = {0};

    assert_non_null(f);
    assert_int_equal(fprintf(f, "%c%c%c%c%c%c%c%c%s%16s", n, 0, 0, 0, 0, 0, 0, 0, header, ""),
                     8 + n + 16);
    assert_int_equal(fclose(f), 0);
    rp_weights *w = must_open();
    rp_weights_bind(w, &t, 1, dims, "i");
    rp_weights_bind(w, &t, 1, dims, "v");
    assert_int_equal(rp_weights_finish(w), RP_E_FORMAT);
    assert_logged("1 tensor misshapen (v has more than 4 dims, should be [1])");
    assert_logged("1 of a wrong type (i is I64, should be F32, F16, BF16 or F8_E4M3)");
    rp_weights_close(w);
}

/* -------------------------------------------------------------- shards */

#define INDEX    "model.safetensors.index.json"
#define MAP(map) "{\"metadata\":{\"total_size\":48},\"weight_map\":{" map "}}"

static void shards_are_one_network(void **state)
{
    (void)state;
    rp_tensor t = {0};

    put_tensors("s1", "a b");
    put_tensors("s2", "c");
    put(INDEX, MAP("\"c\":\"s2\",\"a\":\"s1\",\"b\":\"s1\""));
    rp_weights *w = must_open();
    bind_2x2(w, "a", &t);
    bind_2x2(w, "c", &t);
    assert_memory_equal(t.data, g_data, 16);
    assert_int_equal(rp_weights_bytes(w), 48);
    assert_int_equal(rp_weights_finish(w), RP_E_FORMAT);
    assert_logged(": 1 tensor left over (b)");
    rp_weights_close(w);
}

static void index_and_shards_must_agree(void **state)
{
    (void)state;
    static const struct {
        const char *index, *say;
    } cases[] = {
        {MAP("\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s2\""), "tensor b should be in s2, but is in s1"},
        {MAP("\"a\":\"s1\",\"b\":\"s1\",\"c\":\"s2\",\"d\":\"s2\""),
         "tensor d should be in s2, which does not have it"},
        {MAP("\"a\":\"s1\",\"b\":\"s1\",\"c\":\"s2\",\"aa\":\"s2\""),
         "tensor aa should be in s2, which does not have it"},
        {MAP("\"a\":\"s1\",\"c\":\"s2\""), "does not list tensor b, which is in s1"},
        {MAP("\"a\":\"s1\",\"b\":\"s1\",\"c\":\"s3\""), "tensor c should be in s3, which does not"},
        {MAP("\"a\":\"s1\",\"b\":\"s1\",\"c\":\"none\""), "none: No such file"},
        {MAP("\"a\":\"../s1\""), "without folder"},
        {MAP("\"a\":\"..\""), "without folder"},
        {MAP("\"a\":\".\""), "without folder"},
        {MAP("\"a\":\"/etc/passwd\""), "without folder"},
        {MAP("\"a\":\"\""), "without folder"},
        {MAP("\"a\":1"), "without folder"},
        {MAP("\"a\":\"s1\",\"a\":\"s2\""), "comes twice"},
        {"{\"weight_map\":[]}", "no object \"weight_map\""},
        {"{}", "no object \"weight_map\""},
        {"[]", "no object \"weight_map\""},
        {"", "ends too early"},
    };

    put_tensors("s1", "a b");
    put_tensors("s2", "c");
    put_tensors("s3", "x");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rp_weights *w = NULL;
        put(INDEX, cases[i].index);
        const rp_status st = rp_weights_open(g_dir, &w);
        if (st != (i == 5 ? RP_E_IO : RP_E_FORMAT) || w != NULL) {
            fail_msg("%s gave %d", cases[i].index, st);
        }
        assert_logged(cases[i].say);
        assert_logged(i == 5 ? g_dir : INDEX);
    }
}

static void a_tensor_in_two_shards_is_refused(void **state)
{
    (void)state;
    rp_weights *w = NULL;

    put_tensors("s1", "a b");
    put_tensors("s2", "b c");
    put(INDEX, MAP("\"a\":\"s1\",\"b\":\"s1\",\"c\":\"s2\""));
    assert_int_equal(rp_weights_open(g_dir, &w), RP_E_FORMAT);
    assert_logged("tensor b is in s1 and in s2");
}

static void fingerprints_tell_networks_apart(void **state)
{
    (void)state;
    uint64_t prints[3];

    for (int i = 0; i < 3; i++) {
        put_tensors("model.safetensors", i == 2 ? "a c" : "a b");
        rp_weights *w = must_open();
        prints[i] = rp_weights_fingerprint(w);
        rp_weights_close(w);
    }
    assert_true(prints[0] == prints[1]);
    assert_true(prints[0] != prints[2]);
}

static void the_shipped_model_is_opened(void **state)
{
    (void)state;
    static const char *const parts[] = {"transformer", "text_encoder", "vae"};

    for (size_t i = 0; i < 3; i++) {
        rp_weights *w = NULL;
        char path[600];
        (void)snprintf(path, sizeof(path), "%s/%s", RP_TEST_MODEL, parts[i]);
        assert_int_equal(rp_weights_open(path, &w), RP_OK);
        assert_true(rp_weights_bytes(w) > 1000000);
        rp_weights_ignore(w, "");
        assert_int_equal(rp_weights_finish(w), RP_OK);
        rp_weights_close(w);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_stems_are_found),
        TEST(nothing_there_is_an_error_with_what_was_looked_for),
        TEST(one_line_names_all_that_is_wrong),
        TEST(long_lists_are_cut),
        TEST(types_of_no_use_are_named),
        TEST(shards_are_one_network),
        TEST(index_and_shards_must_agree),
        TEST(a_tensor_in_two_shards_is_refused),
        TEST(fingerprints_tell_networks_apart),
        TEST(the_shipped_model_is_opened),
    };

    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
