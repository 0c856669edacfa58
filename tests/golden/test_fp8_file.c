/*
 * test_fp8_file.c - the shipped denoiser from files of 8 bits, as they are found in the wild: block
 * matrices in F8_E4M3 with a scale for each row, with one scale, with none. What such a file says
 * in f32 is written too, and both must predict the same.
 */
#include "golden.h"
#include "rp_e4m3.h"

#include <stdio.h>

/*
 * Observed on the CPU: 0.14 to 0.15 from the shipped weights, with inputs that are noise. In fp8
 * the activations are rounded too, and the f32 file once more, with other scales.
 */
#define TOLERANCE     0.2
#define FP8_TOLERANCE 0.4

enum { C = 16, SIZE = 16, N = C * SIZE * SIZE, TOKENS = 9, COND_DIM = 192, MAX_TENSORS = 1024 };

typedef enum { PER_ROW, ONE, NONE, N_KINDS } scale_kind;

static rp_backend g_backend;

typedef struct {
    rp_named_tensor wide[MAX_TENSORS], narrow[2 * MAX_TENSORS];
    size_t n_wide, n_narrow;
    void *mem[4 * MAX_TENSORS];
    size_t n_mem;
} file_pair;

static void *keep(file_pair *pair, size_t n_bytes)
{
    pair->mem[pair->n_mem] = calloc(n_bytes, 1);
    assert_non_null(pair->mem[pair->n_mem]);
    return pair->mem[pair->n_mem++];
}

static float value_of(const rp_tensor *t, size_t i)
{
    uint32_t bits;
    float x;

    assert_true(t->dtype == RP_F32 || t->dtype == RP_BF16);
    if (t->dtype == RP_F32) {
        return ((const float *)t->data)[i];
    }
    bits = (uint32_t)((const uint16_t *)t->data)[i] << 16;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static float scale_for(const rp_tensor *t, size_t first, size_t n)
{
    float most = 0;

    for (size_t i = first; i < first + n; i++) {
        most = fmaxf(most, fabsf(value_of(t, i)));
    }
    return most / 448.0f;
}

/* One matrix both ways. */
static void add_matrix(file_pair *pair, const char *name, const rp_tensor *t, scale_kind kind)
{
    const size_t n = (size_t)rp_tensor_elems(t), rows = (size_t)t->dim[0], cols = n / rows;
    uint8_t *codes = keep(pair, n);
    float *values = keep(pair, n * sizeof(float)), *scale = keep(pair, rows * sizeof(float));
    char *scale_name = keep(pair, strlen(name) + 16);
    rp_tensor wide = *t, narrow = *t, scales = {.dtype = RP_F32, .dim = {1, 1, 1, 1}};

    const float one = kind == ONE ? scale_for(t, 0, n) : 1.0f;
    for (size_t i = 0; i < n; i++) {
        if (i % cols == 0) {
            scale[i / cols] = kind == PER_ROW ? scale_for(t, i, cols) : one;
        }
        codes[i] = rpt_e4m3_of((double)(value_of(t, i) / scale[i / cols]));
        values[i] = (float)rpt_e4m3_value(codes[i]) * scale[i / cols];
    }
    wide.dtype = RP_F32;
    wide.data = values;
    narrow.dtype = RP_F8_E4M3;
    narrow.data = codes;
    scales.data = scale;
    scales.n_dims = kind == PER_ROW ? 2 : 0;
    scales.dim[0] = kind == PER_ROW ? t->dim[0] : 1;
    pair->wide[pair->n_wide++] = (rp_named_tensor){name, wide};
    pair->narrow[pair->n_narrow++] = (rp_named_tensor){name, narrow};
    if (kind != NONE) {
        (void)snprintf(scale_name, strlen(name) + 16, "%.*sscale_weight",
                       (int)(strlen(name) - strlen("weight")), name);
        pair->narrow[pair->n_narrow++] = (rp_named_tensor){scale_name, scales};
    }
}

static void copy_config(const char *dir)
{
    char path[600], text[4096];
    FILE *from = fopen(RP_TEST_MODEL "/transformer/config.json", "r");

    (void)snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *to = fopen(path, "w");
    assert_true(from != NULL && to != NULL);
    const size_t n = fread(text, 1, sizeof(text), from);
    assert_true(n > 0 && n < sizeof(text) && fwrite(text, 1, n, to) == n);
    assert_int_equal(fclose(to), 0);
    assert_int_equal(fclose(from), 0);
}

static void write_folder(const char *dir, const rp_named_tensor *tensors, size_t n)
{
    char path[600];

    copy_config(dir);
    (void)snprintf(path, sizeof(path), "%s/diffusion_pytorch_model.safetensors", dir);
    assert_int_equal(rp_safetensors_write(path, tensors, n, NULL, 1), RP_OK);
}

static void write_pair(scale_kind kind, const char *wide_dir, const char *narrow_dir)
{
    rp_safetensors *file =
        golden_file(RP_TEST_MODEL "/transformer/diffusion_pytorch_model.safetensors");
    file_pair *pair = calloc(1, sizeof(*pair));

    assert_non_null(pair);
    for (size_t i = 0; i < rp_safetensors_count(file); i++) {
        rp_tensor t;
        int known = 0;
        const char *name = rp_safetensors_at(file, i, &t, &known);
        if (t.n_dims == 2 &&
            (strstr(name, ".attn.to_") != NULL || strstr(name, ".feed_forward.") != NULL)) {
            add_matrix(pair, name, &t, kind);
        } else {
            pair->wide[pair->n_wide++] = (rp_named_tensor){name, t};
            pair->narrow[pair->n_narrow++] = (rp_named_tensor){name, t};
        }
    }
    assert_true(kind == NONE || pair->n_narrow == pair->n_wide + 12 * 7); /* all blocks' matrices */
    write_folder(wide_dir, pair->wide, pair->n_wide);
    write_folder(narrow_dir, pair->narrow, pair->n_narrow);
    for (size_t i = 0; i < pair->n_mem; i++) {
        free(pair->mem[i]);
    }
    free(pair);
    rp_safetensors_close(file);
}

static void predict(const char *dir, float *out)
{
    const rp_denoiser_ops *ops = rp_denoiser_list[0];
    const rp_backend_ops *b = g_backend.ops;
    const float sigma = 0.7f;
    const rp_denoiser_job job = {.c = C,
                                 .h = SIZE,
                                 .w = SIZE,
                                 .sigma = &sigma,
                                 .n_evals = 1,
                                 .n_conds = 1,
                                 .max_tokens = TOKENS};
    float x[N], cond[TOKENS * COND_DIM];
    void *net = NULL, *in = NULL, *velocity = NULL;

    rpt_fill(x, N, 5);
    rpt_fill(cond, TOKENS * COND_DIM, 6);
    assert_int_equal(ops->open(&(rp_model_source){.dir = dir, .backend = g_backend}, &net), RP_OK);
    assert_int_equal(b->alloc(g_backend.self, N * sizeof(float), "x", &in), RP_OK);
    assert_int_equal(b->alloc(g_backend.self, N * sizeof(float), "v", &velocity), RP_OK);
    b->put(g_backend.self, in, x, N * sizeof(float));
    assert_int_equal(ops->begin(net, &job), RP_OK);
    assert_int_equal(ops->condition(net, 0, cond, TOKENS), RP_OK);
    assert_int_equal(ops->predict(net, 0, 0, in, velocity), RP_OK);
    b->get(g_backend.self, out, velocity, N * sizeof(float));
    assert_int_equal(b->sync(g_backend.self), RP_OK);
    b->release(g_backend.self, in);
    b->release(g_backend.self, velocity);
    ops->close(net);
}

static bool is_fp8(void)
{
    return golden_precision_name() != NULL && strcmp(golden_precision_name(), "fp8") == 0;
}

static void files_of_8_bits_say_what_they_say(void **state)
{
    (void)state;
    static const char *const names[N_KINDS] = {"a scale for each row", "one scale", "no scale"};
    float shipped[N], wide[N], narrow[N];

    predict(RP_TEST_MODEL "/transformer", shipped);
    for (int kind = 0; kind < N_KINDS; kind++) {
        char *wide_dir = rpt_mkdir(), *narrow_dir = rpt_mkdir();
        write_pair((scale_kind)kind, wide_dir, narrow_dir);
        predict(wide_dir, wide);
        predict(narrow_dir, narrow);
        const double between = rpt_rel_l2(narrow, wide, N);
        print_message("    %s: error %.2g; from the shipped weights %.2g\n", names[kind], between,
                      rpt_rel_l2(narrow, shipped, N));
        if (is_fp8()) {
            assert_true(between < FP8_TOLERANCE);
        } else {
            assert_memory_equal(narrow, wide, sizeof(wide));
        }
        assert_true(rpt_rel_l2(narrow, shipped, N) < (is_fp8() ? FP8_TOLERANCE : TOLERANCE));
        rpt_rmdir(wide_dir);
        rpt_rmdir(narrow_dir);
    }
}

/* fp8 is not for every GPU. */
static void open_or_skip(void)
{
    const rp_backend_params params = {.n_threads = 2, .precision = RP_PRECISION_FP8};
    void *self = NULL;

    if (is_fp8() && golden_backend_ops()->open(&params, &self) == RP_E_UNSUP) {
        print_message("SKIP: no fp8 here\n");
        exit(77);
    }
    if (self != NULL) {
        golden_backend_ops()->close(self);
    }
    g_backend = golden_backend(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_of_8_bits_say_what_they_say)};

    golden_skip_unless_usable();
    open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("fp8_file", tests, NULL, NULL);
    g_backend.ops->close(g_backend.self);
    return n_failed;
}
