/* test_safetensors.c - good files are read as they were written, bad ones refused with the cause.
 */
#include "rp_test.h"

#include "weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Length prefix, header and n_data bytes 0, 1, 2, ... in memory of exactly that size. */
static uint8_t *make_file(uint64_t n_claimed, const char *header, size_t n_data, size_t *n_out)
{
    const size_t n_header = strlen(header);
    uint8_t *const bytes = malloc(8 + n_header + n_data);

    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(n_claimed >> (8 * i));
    }
    memcpy(bytes + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) {
        bytes[8 + n_header + i] = (uint8_t)i;
    }
    *n_out = 8 + n_header + n_data;
    return bytes;
}

/* *bytes_out must outlive the file. */
static rp_status open_header(const char *header, size_t n_data, uint8_t **bytes_out,
                             rp_safetensors **out)
{
    size_t n = 0;
    uint8_t *const b = make_file(strlen(header), header, n_data, &n);
    const rp_status st = rp_safetensors_open_bytes("f.safetensors", b, n, out);

    *bytes_out = b;
    return st;
}

static void tensors_and_metadata_are_found(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]},"
        "\"scalar\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[22,23]},"
        "\"empty\":{\"dtype\":\"F16\",\"shape\":[4,0],\"data_offsets\":[10,10]},"
        "\"i64\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[24,32]},"
        "\"f8\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[32,34]},"
        "\"f4\":{\"dtype\":\"F4\",\"shape\":[2,2],\"data_offsets\":[34,36]},"
        "\"5d\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[36,40]},"
        "\"i32\":{\"dtype\":\"I32\",\"shape\":[1,1,1,1],\"data_offsets\":[40,44]}}    ";
    static const char *const names[] = {"b",  "a",  "scalar", "empty", "i64",
                                        "f8", "f4", "5d",     "i32"};
    rp_safetensors *file = NULL;
    uint8_t *bytes = NULL;
    rp_tensor t = {0};
    int known = -1;

    assert_int_equal(open_header(header, 45, &bytes, &file), RP_OK); /* a gap at 23 and one at 44 */
    assert_int_equal(rp_safetensors_count(file), 9);
    for (size_t i = 0; i < 9; i++) {
        assert_string_equal(rp_safetensors_at(file, i, &t, &known), names[i]);
        const int want_known = i < 4 || i == 5 || i == 8;
        assert_int_equal(known, want_known);
        assert_int_equal(t.data != NULL, want_known);
        assert_int_equal(rp_safetensors_find(file, names[i], &t), want_known ? RP_OK : RP_E_ABSENT);
    }
    assert_string_equal(rp_safetensors_type(file, 4), "I64");
    assert_string_equal(rp_safetensors_type(file, 1), "BF16");

    assert_int_equal(rp_safetensors_find(file, "b", &t), RP_OK);
    assert_int_equal(t.dtype, RP_F32);
    assert_int_equal(t.n_dims, 2);
    assert_true(t.dim[0] == 2 && t.dim[1] == 2 && t.dim[2] == 1 && t.dim[3] == 1);
    assert_int_equal(((const uint8_t *)t.data)[15], 15);
    assert_int_equal(rp_safetensors_find(file, "scalar", &t), RP_OK);
    assert_int_equal(t.n_dims, 0);
    assert_int_equal(*(const uint8_t *)t.data, 22);
    assert_int_equal(rp_safetensors_find(file, "c", &t), RP_E_ABSENT);
    assert_string_equal(rp_safetensors_metadata(file, "format"), "pt");
    assert_null(rp_safetensors_metadata(file, "none"));
    assert_int_equal(rp_safetensors_bytes(file), 16 + 6 + 1 + 8 + 2 + 2 + 4 + 4);
    assert_string_equal(rpt_log_last(), "");
    rp_safetensors_close(file);
    rp_safetensors_close(NULL);
    free(bytes);
}

static void data_that_lies_askew_is_copied(void **state)
{
    (void)state;
    /* Whatever the header's length, of these four neighbours three or more are misaligned. */
    static const char header[] =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]},"
        "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[5,6]},"
        "\"d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[6,10]},"
        "\"e\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[11,13]},"
        "\"f\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[14,16]}}";
    static const struct {
        const char *name;
        size_t begin, n_bytes;
    } rows[] = {{"b", 1, 4}, {"d", 6, 4}, {"e", 11, 2}, {"f", 14, 2}};
    rp_safetensors *file = NULL;
    uint8_t *bytes = NULL;

    assert_int_equal(open_header(header, 16, &bytes, &file), RP_OK);
    for (size_t i = 0; i < 4; i++) {
        rp_tensor t = {0};
        assert_int_equal(rp_safetensors_find(file, rows[i].name, &t), RP_OK);
        assert_int_equal((uintptr_t)t.data % rows[i].n_bytes, 0);
        assert_memory_equal(t.data, bytes + 8 + strlen(header) + rows[i].begin, rows[i].n_bytes);
    }
    rp_safetensors_close(file);
    free(bytes);
}

#define T(fields) "{\"w\":{" fields "}}"
#define D(x)      "\"dtype\":" x
#define S(x)      "\"shape\":" x
#define O(x)      "\"data_offsets\":" x
#define F32       D("\"F32\"")
#define W4        "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":"

static void bad_headers_are_refused_with_the_cause(void **state)
{
    (void)state;
    static const struct {
        const char *header, *say; /* over 16 bytes of data */
    } cases[] = {
        {"{}x", "something comes after"},
        {"[1]", "not a JSON object"},
        {"{\"w\":1}", "tensor w is not described by an object"},
        {"{\"w\":null}", "tensor w is not described"},
        {T(S("[1]") "," O("[0,4]")), "no dtype"},
        {T(D("1") "," S("[1]") "," O("[0,4]")), "no dtype"},
        {T(D("\"f32\"") "," S("[1]") "," O("[0,4]")), "unknown dtype f32"},
        {T(D("\"\"") "," S("[1]") "," O("[0,4]")), "unknown dtype"},
        {T(F32 "," O("[0,4]")), "no shape"},
        {T(F32 "," S("4") "," O("[0,4]")), "no shape"},
        {T(F32 "," S("{\"a\":1}") "," O("[0,4]")), "no shape"},
        {T(F32 "," S("[-1]") "," O("[0,4]")), "whole numbers"},
        {T(F32 "," S("[1.5]") "," O("[0,6]")), "whole numbers"},
        {T(F32 "," S("[\"1\"]") "," O("[0,4]")), "whole numbers"},
        {T(F32 "," S("[9007199254740992]") "," O("[0,4]")), "whole numbers"},
        {T(F32 "," S("[1e300]") "," O("[0,4]")), "whole numbers"},
        {T(F32 "," S("[4294967296,4294967296]") "," O("[0,0]")), "too large"},
        {T(F32 "," S("[4503599627370496,4503599627370496,0]") "," O("[0,0]")), "too large"},
        {T(D("\"I64\"") "," S("[2,2,2,2,4503599627370496,1024]") "," O("[0,0]")), "too large"},
        {T(F32 "," S("[1]")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("[0]")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("[0,4,8]")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("4")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("[\"0\",4]")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("[-4,0]")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("[0.5,4.5]")), "data_offsets"},
        {T(F32 "," S("[1]") "," O("[4,0]")), "at bytes 4 to 0"},
        {T(F32 "," S("[1]") "," O("[16,20]")), "the file has 16 of data (cut short?)"},
        {T(F32 "," S("[1]") "," O("[0,9007199254740991]")), "cut short?"},
        {T(F32 "," S("[0]") "," O("[17,17]")), "cut short?"},
        {T(F32 "," S("[1]") "," O("[0,5]")), "has 5 bytes, its shape and dtype need 4"},
        {T(F32 "," S("[2]") "," O("[0,4]")), "has 4 bytes, its shape and dtype need 8"},
        {T(D("\"I64\"") "," S("[1]") "," O("[0,4]")), "need 8"},
        {T(F32 "," S("[1,1,1,1,2]") "," O("[0,4]")), "need 8"},
        {T(D("\"F4\"") "," S("[3]") "," O("[0,1]")), "whole bytes"},
        {"{\"v\":{" W4 "[0,4]},\"w\":{" W4 "[3,7]}}", "data of tensors v and w overlaps"},
        {"{\"w\":{" W4 "[4,8]},\"v\":{" W4 "[4,8]}}", "overlaps"},
        {"{\"w\":{" W4 "[0,4]},\"v\":{" W4 "[4,8]},\"w\":{" W4 "[8,12]}}", "\"w\" comes twice"},
        {"{\"__metadata__\":[]}", "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"n\":1}}", "__metadata__ has n, which is not a string"},
        {"{\"\\u0000\":{}}", "\\u0000"},
        {T(F32 ",\"shape\":[1],\"shape\":[1]," O("[0,4]")), "\"shape\" comes twice"},
        {"{\"w\":[[[[[[[[[[]]]]]]]]]]}", "nested too deep"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rp_safetensors *file = NULL;
        uint8_t *bytes = NULL;
        if (open_header(cases[i].header, 16, &bytes, &file) != RP_E_FORMAT || file != NULL) {
            fail_msg("%s was taken", cases[i].header);
        }
        assert_logged("f.safetensors");
        assert_logged(cases[i].say);
        free(bytes);
    }
}

static void bad_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_claimed;
        const char *say;
    } cases[] = {
        {0, "header of 0 bytes"},
        {1, "header of 1 bytes"},
        {3, "cut short?"},
        {100000000, "cut short?"},
        {100000001, "not a safetensors file"},
        {1ull << 40, "header of 1099511627776 bytes"},
        {UINT64_MAX, "header of 18446744073709551615 bytes"},
        {UINT64_MAX - 7, "not a safetensors file"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rp_safetensors *file = NULL;
        size_t n = 0;
        uint8_t *const bytes = make_file(cases[i].n_claimed, "{}", 0, &n);
        assert_int_equal(rp_safetensors_open_bytes("f", bytes, n, &file), RP_E_FORMAT);
        assert_logged(cases[i].say);
        assert_null(file);
        free(bytes);
    }
}

/* Cut anywhere, a file is refused; only bytes that no tensor uses may be missing. */
static void every_cut_is_refused(void **state)
{
    (void)state;
    size_t n = 0;
    const char *header = "{\"w\":{" W4 "[0,4]},\"v\":{" W4 "[4,8]}}";
    uint8_t *const bytes = make_file(strlen(header), header, 8, &n);

    for (size_t cut = 0; cut <= n; cut++) {
        rp_safetensors *file = NULL;
        uint8_t *const copy = malloc(cut + 1);
        memcpy(copy, bytes, cut);
        uint8_t *const exact = realloc(copy, cut > 0 ? cut : 1);
        const rp_status st = rp_safetensors_open_bytes("f", exact, cut, &file);
        assert_int_equal(st, cut == n ? RP_OK : RP_E_FORMAT);
        rp_safetensors_close(file);
        free(exact);
    }
    free(bytes);
}

static void a_file_without_tensors_is_fine(void **state)
{
    (void)state;
    rp_safetensors *file = NULL;
    uint8_t *bytes = NULL;
    rp_tensor t = {0};

    assert_int_equal(open_header("{}", 0, &bytes, &file), RP_OK);
    assert_int_equal(rp_safetensors_count(file), 0);
    assert_int_equal(rp_safetensors_find(file, "w", &t), RP_E_ABSENT);
    assert_null(rp_safetensors_metadata(file, "format"));
    rp_safetensors_close(file);
    free(bytes);
}

static void many_tensors_are_checked_in_no_time(void **state)
{
    (void)state;
    const size_t n_tensors = 20000, room = n_tensors * 80;
    char *const header = malloc(room);
    rp_safetensors *file = NULL;
    uint8_t *bytes = NULL;
    size_t n = 1;

    header[0] = '{';
    for (size_t i = 0; i < n_tensors; i++) {
        n += (size_t)snprintf(
            header + n, room - n,
            "%s\"t%zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
            i > 0 ? "," : "", i, i, i + 1);
    }
    header[n] = '}';
    header[n + 1] = '\0';
    assert_int_equal(open_header(header, n_tensors, &bytes, &file), RP_OK);
    for (size_t i = 0; i < n_tensors; i++) {
        char name[32];
        rp_tensor t = {0};
        (void)snprintf(name, sizeof(name), "t%zu", i);
        assert_int_equal(rp_safetensors_find(file, name, &t), RP_OK);
        assert_int_equal(*(const uint8_t *)t.data, (uint8_t)i);
    }
    rp_safetensors_close(file);
    free(bytes);
    free(header);
}

/* --------------------------------------------------------------- files */

static char *g_dir;

static int set_up_dir(void **state)
{
    g_dir = rpt_mkdir();
    return set_up(state);
}

static int tear_down_dir(void **state)
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

static const float g_f32[6] = {0.5f, -1, 2, 3, 4, 5};
static const uint16_t g_bf16[3] = {0x3F80, 0x4000, 0x4040};
static const uint8_t g_u8[3] = {7, 8, 9};

static const rp_named_tensor g_tensors[] = {
    {"u8", {.dtype = RP_U8, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = g_u8}},
    {"half \"quoted\" \xC3\xA4",
     {.dtype = RP_BF16, .n_dims = 2, .dim = {3, 1, 1, 1}, .data = g_bf16}},
    {"none", {.dtype = RP_F32, .n_dims = 1, .dim = {0, 1, 1, 1}, .data = NULL}},
    {"scalar", {.dtype = RP_U8, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = g_u8 + 2}},
    {"full", {.dtype = RP_F32, .n_dims = 2, .dim = {2, 3, 1, 1}, .data = g_f32}},
};
#define N_TENSORS (sizeof(g_tensors) / sizeof(g_tensors[0]))

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const char *const metadata[] = {"step", "7", "note", "two\nlines", NULL};
    rp_safetensors *file = NULL;

    assert_int_equal(rp_safetensors_write(in_dir("a"), g_tensors, N_TENSORS, metadata, 0), RP_OK);
    assert_int_equal(rp_safetensors_open(in_dir("a"), &file), RP_OK);
    assert_int_equal(rp_safetensors_count(file), N_TENSORS);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const rp_tensor *const want = &g_tensors[i].tensor;
        rp_tensor got = {0};
        assert_int_equal(rp_safetensors_find(file, g_tensors[i].name, &got), RP_OK);
        assert_int_equal(got.dtype, want->dtype);
        assert_int_equal(got.n_dims, want->n_dims);
        assert_memory_equal(got.dim, want->dim, sizeof(got.dim));
        if (rp_tensor_elems(&got) > 0) {
            assert_memory_equal(got.data, want->data,
                                (size_t)rp_tensor_elems(&got) * rp_dtype_bytes(got.dtype));
        }
    }
    /* Widest first, so the data needs no copies. */
    rp_tensor got = {0};
    int known = 0;
    assert_string_equal(rp_safetensors_at(file, 0, &got, &known), "none");
    assert_string_equal(rp_safetensors_at(file, 1, &got, &known), "full");
    assert_string_equal(rp_safetensors_at(file, 4, &got, &known), "scalar");
    assert_string_equal(rp_safetensors_metadata(file, "note"), "two\nlines");
    rp_safetensors_close(file);
}

static void equal_arguments_give_equal_bytes_and_fingerprints(void **state)
{
    (void)state;
    rp_safetensors *a = NULL, *b = NULL, *c = NULL;
    const uint8_t other[3] = {7, 8, 10};
    rp_named_tensor changed = g_tensors[0];

    changed.tensor.data = other;
    assert_int_equal(rp_safetensors_write(in_dir("a"), g_tensors, 1, NULL, 0), RP_OK);
    assert_int_equal(rp_safetensors_write(in_dir("b"), g_tensors, 1, NULL, 0), RP_OK);
    assert_int_equal(rp_safetensors_write(in_dir("c"), &changed, 1, NULL, 0), RP_OK);
    assert_int_equal(rp_safetensors_open(in_dir("a"), &a), RP_OK);
    assert_int_equal(rp_safetensors_open(in_dir("b"), &b), RP_OK);
    assert_int_equal(rp_safetensors_open(in_dir("c"), &c), RP_OK);
    assert_true(rp_safetensors_fingerprint(a) == rp_safetensors_fingerprint(b));
    assert_true(rp_safetensors_fingerprint(a) != rp_safetensors_fingerprint(c));
    rp_safetensors_close(a);
    rp_safetensors_close(b);
    rp_safetensors_close(c);
}

static void bad_arguments_write_nothing(void **state)
{
    (void)state;
    static const char *const odd[] = {"key", NULL};
    const rp_named_tensor bad[] = {
        {NULL, {.dtype = RP_U8, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"", {.dtype = RP_U8, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"__metadata__", {.dtype = RP_U8, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"\xFF", {.dtype = RP_U8, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"w", {.dtype = RP_N_DTYPES, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"w", {.dtype = RP_U8, .n_dims = 5, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"w", {.dtype = RP_U8, .n_dims = -1, .dim = {3, 1, 1, 1}, .data = g_u8}},
        {"w", {.dtype = RP_U8, .n_dims = 1, .dim = {-3, 1, 1, 1}, .data = g_u8}},
        {"w", {.dtype = RP_U8, .n_dims = 2, .dim = {INT64_MAX, 2, 1, 1}, .data = g_u8}},
        {"w", {.dtype = RP_U8, .n_dims = 1, .dim = {3, 1, 1, 1}, .data = NULL}},
    };
    const rp_named_tensor twice[] = {g_tensors[0], g_tensors[4], g_tensors[0]};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(rp_safetensors_write(in_dir("a"), &bad[i], 1, NULL, 0), RP_E_ARG);
    }
    assert_int_equal(rp_safetensors_write(in_dir("a"), twice, 3, NULL, 0), RP_E_ARG);
    assert_logged("two tensors are named u8");
    assert_int_equal(rp_safetensors_write(in_dir("a"), g_tensors, 1, odd, 0), RP_E_ARG);
    assert_int_equal(access(in_dir("a"), F_OK), -1);
    assert_int_equal(rp_safetensors_write(in_dir("no/a"), g_tensors, 1, NULL, 0), RP_E_IO);
    assert_int_equal(rp_safetensors_write(in_dir("a"), g_tensors, 1, NULL, 0), RP_OK);
    assert_int_equal(rp_safetensors_write(in_dir("a"), g_tensors, 1, NULL, 0), RP_E_EXISTS);
    assert_int_equal(rp_safetensors_write(in_dir("a"), g_tensors, 2, NULL, 1), RP_OK);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void what_is_no_file_of_this_kind_is_named(void **state)
{
    (void)state;
    rp_safetensors *file = NULL;

    assert_int_equal(rp_safetensors_open(in_dir("none"), &file), RP_E_IO);
    assert_logged("none: No such file or directory");
    assert_int_equal(rp_safetensors_open(g_dir, &file), RP_E_IO);
    assert_logged("not a regular file");
    assert_int_equal(mkfifo(in_dir("pipe"), 0666), 0);
    assert_int_equal(rp_safetensors_open(in_dir("pipe"), &file), RP_E_IO);
    assert_logged("not a regular file");
    put(in_dir("empty"), "");
    assert_int_equal(rp_safetensors_open(in_dir("empty"), &file), RP_E_FORMAT);
    assert_logged("has 0 bytes");
    put(in_dir("lfs"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    assert_int_equal(rp_safetensors_open(in_dir("lfs"), &file), RP_E_FORMAT);
    assert_logged("git lfs pull");
    put(in_dir("html"), "<!doctype html><html></html>");
    assert_int_equal(rp_safetensors_open(in_dir("html"), &file), RP_E_FORMAT);
    assert_logged("not a safetensors file");
    assert_null(file);
}

static void the_shipped_model_is_read(void **state)
{
    (void)state;
    rp_safetensors *file = NULL;
    rp_tensor t = {0};

    assert_int_equal(rp_safetensors_open(RP_TEST_MODEL "/text_encoder/model.safetensors", &file),
                     RP_OK);
    assert_int_equal(rp_safetensors_count(file), 46);
    assert_int_equal(rp_safetensors_find(file, "embed_tokens.weight", &t), RP_OK);
    assert_int_equal(t.dtype, RP_BF16);
    assert_true(t.n_dims == 2 && t.dim[0] == 2560 && t.dim[1] == 192);
    assert_string_equal(rp_safetensors_metadata(file, "format"), "pt");
    rp_safetensors_close(file);
}

#define TEST(f)     cmocka_unit_test_setup(f, set_up)
#define TEST_DIR(f) cmocka_unit_test_setup_teardown(f, set_up_dir, tear_down_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tensors_and_metadata_are_found),
        TEST(data_that_lies_askew_is_copied),
        TEST(bad_headers_are_refused_with_the_cause),
        TEST(bad_lengths_are_refused),
        TEST(every_cut_is_refused),
        TEST(a_file_without_tensors_is_fine),
        TEST(many_tensors_are_checked_in_no_time),
        TEST_DIR(what_is_written_is_read),
        TEST_DIR(equal_arguments_give_equal_bytes_and_fingerprints),
        TEST_DIR(bad_arguments_write_nothing),
        TEST_DIR(what_is_no_file_of_this_kind_is_named),
        TEST(the_shipped_model_is_read),
    };

    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
