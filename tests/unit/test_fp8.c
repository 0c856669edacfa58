/* test_fp8.c - weights of 8 bits: their conversion, their scales, files that hold them. */
#include "rp_e4m3.h"
#include "rp_test.h"

#include "tensor/cpu/cpu.h"
#include "weights/safetensors.h"
#include "weights/weights.h"

#include <stdio.h>
#include <string.h>

enum { ROWS = 4, COLS = 6, N = ROWS * COLS };

static uint8_t g_codes[N];
static char *g_dir;

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        g_codes[i] = (uint8_t)(40 + 5 * i); /* both signs */
    }
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

/* ---- conversion ---- */

static void all_codes_convert_exactly(void **state)
{
    (void)state;
    uint8_t all[256];
    float got[256];

    for (int i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
    }
    const rp_tensor w = {.dtype = RP_F8_E4M3, .n_dims = 1, .dim = {256, 1, 1, 1}, .data = all};
    rp_cpu_to_f32(&w, 0, 256, got);
    for (int i = 0; i < 256; i++) {
        const double want = rpt_e4m3_value((uint8_t)i);
        if (isnan(want) ? !isnan(got[i]) : (double)got[i] != want) {
            fail_msg("%02x: got %g, want %g", (unsigned)i, (double)got[i], want);
        }
        assert_int_equal(signbit(got[i]) != 0, i >> 7);
        if (!isnan(want)) {
            assert_int_equal(rpt_e4m3_of(want), i); /* the test's own two ways */
        }
        const float alone = rp_cpu_element(&w, (size_t)i);
        assert_memory_equal(&alone, &got[i], sizeof(alone));
    }
    assert_true(got[0x7e] == 448.0f && got[1] == 0x1p-9f && got[0x38] == 1.0f);
}

/* Also pieces that begin and end within a row, as panels of a product do. */
static void scales_multiply_all_or_rows(void **state)
{
    (void)state;
    static const float scale[ROWS] = {0.5f, -3.0f, 0.0078125f, 100.0f};
    static const int n_scales[] = {0, 1, ROWS};
    float got[N];

    for (int k = 0; k < 3; k++) {
        const rp_tensor w = {.dtype = RP_F8_E4M3,
                             .n_dims = 2,
                             .dim = {ROWS, COLS, 1, 1},
                             .data = g_codes,
                             .scale = n_scales[k] > 0 ? scale : NULL,
                             .n_scales = n_scales[k]};
        for (int first = 0; first < N; first++) {
            const int n = N - first - first % 3;
            rp_cpu_to_f32(&w, (size_t)first, n > 0 ? (size_t)n : 0, got);
            for (int i = 0; i < n; i++) {
                const float by = n_scales[k] == 0 ? 1.0f
                                 : k == 1         ? scale[0]
                                                  : scale[(first + i) / COLS];
                assert_true(got[i] == (float)rpt_e4m3_value(g_codes[first + i]) * by);
            }
        }
    }
}

/* ---- files ---- */

static const float g_f32[ROWS] = {0.5f, 2.0f, -3.0f, 0.25f};
static const uint16_t g_bf16[ROWS] = {0x3f00, 0x4000, 0xc040, 0x3e80};
static const uint16_t g_f16[ROWS] = {0x3800, 0x4000, 0xc200, 0x3400};

static const void *scales_in(rp_dtype dtype)
{
    return dtype == RP_F32 ? (const void *)g_f32 : dtype == RP_F16 ? g_f16 : g_bf16;
}

/* a.weight [4, 6] in F8_E4M3, and what is beside it. */
static rp_weights *open_with(const rp_named_tensor *beside, size_t n)
{
    rp_named_tensor all[8] = {
        {"a.weight",
         {.dtype = RP_F8_E4M3, .n_dims = 2, .dim = {ROWS, COLS, 1, 1}, .data = g_codes}}};
    rp_weights *weights = NULL;
    char path[600];

    for (size_t i = 0; i < n; i++) {
        all[1 + i] = beside[i];
    }
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", g_dir);
    assert_int_equal(rp_safetensors_write(path, all, 1 + n, NULL, 1), RP_OK);
    assert_int_equal(rp_weights_open(g_dir, &weights), RP_OK);
    return weights;
}

static rp_status bind(rp_weights *weights, rp_tensor *out)
{
    static const int64_t dims[] = {ROWS, COLS};

    rp_weights_bind(weights, out, 2, dims, "a.weight");
    return rp_weights_finish(weights);
}

static void scales_are_found_beside_their_weight(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        rp_dtype dtype;
        int n_dims;
        int64_t dim[2];
        int64_t n_scales;
    } cases[] = {
        {"a.scale_weight", RP_F32, 0, {1, 1}, 1},
        {"a.scale_weight", RP_F32, 1, {1, 1}, 1},
        {"a.scale_weight", RP_F32, 1, {ROWS, 1}, ROWS},
        {"a.scale_weight", RP_BF16, 2, {ROWS, 1}, ROWS},
        {"a.weight_scale", RP_F16, 1, {ROWS, 1}, ROWS},
        {"a.weight_scale", RP_BF16, 0, {1, 1}, 1},
        {"a.weight_scale", RP_F32, 2, {1, 1}, 1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const rp_named_tensor beside = {cases[i].name,
                                        {.dtype = cases[i].dtype,
                                         .n_dims = cases[i].n_dims,
                                         .dim = {cases[i].dim[0], cases[i].dim[1], 1, 1},
                                         .data = scales_in(cases[i].dtype)}};
        rp_tensor t = {0};
        rp_weights *w = open_with(&beside, 1);
        if (bind(w, &t) != RP_OK || bind(w, &t) != RP_OK) { /* twice is no trouble */
            fail_msg("case %zu: %s", i, rpt_log_last());
        }
        assert_int_equal(t.dtype, RP_F8_E4M3);
        assert_memory_equal(t.data, g_codes, sizeof(g_codes));
        assert_int_equal(t.n_scales, cases[i].n_scales);
        assert_memory_equal(t.scale, g_f32, (size_t)t.n_scales * sizeof(float));
        rp_weights_close(w);
    }
}

/* No scale is 1; what other programs leave beside a weight is not left over. */
static void no_scale_and_marks_are_fine(void **state)
{
    (void)state;
    const rp_tensor number = {.dtype = RP_F32, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = g_f32};
    const rp_tensor none = {.dtype = RP_F8_E4M3, .n_dims = 1, .dim = {0, 1, 1, 1}, .data = g_codes};
    const rp_tensor bytes = {.dtype = RP_U8, .n_dims = 1, .dim = {5, 1, 1, 1}, .data = g_codes};
    const rp_named_tensor marks[] = {{"a.scale_input", number},
                                     {"a.input_scale", number},
                                     {"a.comfy_quant", bytes},
                                     {"scaled_fp8", none}};
    rp_tensor t = {0};

    for (size_t n = 0; n <= 4; n += 4) {
        rp_weights *w = open_with(marks, n);
        assert_int_equal(bind(w, &t), RP_OK);
        assert_null(t.scale);
        assert_int_equal(t.n_scales, 0);
        rp_weights_close(w);
    }
}

static void scales_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const float many[2 * ROWS * COLS];
    static const struct {
        rp_tensor tensor;
        const char *name, *say;
    } cases[] = {
        {{.dtype = RP_F32, .n_dims = 1, .dim = {COLS, 1, 1, 1}, .data = many},
         "a.scale_weight",
         "misshapen (a.scale_weight is [6], should be [] or [4])"},
        {{.dtype = RP_F32, .n_dims = 2, .dim = {1, ROWS, 1, 1}, .data = many},
         "a.scale_weight",
         "misshapen (a.scale_weight is [1, 4]"},
        {{.dtype = RP_F32, .n_dims = 2, .dim = {2, 2, 1, 1}, .data = many},
         "a.weight_scale",
         "misshapen (a.weight_scale is [2, 2]"},
        {{.dtype = RP_F32, .n_dims = 1, .dim = {0, 1, 1, 1}, .data = many},
         "a.weight_scale",
         "misshapen (a.weight_scale is [0]"},
        {{.dtype = RP_I32, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = many},
         "a.scale_weight",
         "of a wrong type (a.scale_weight is I32, should be F32, F16 or BF16)"},
        {{.dtype = RP_F8_E4M3, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = many},
         "a.scale_weight",
         "of a wrong type (a.scale_weight is F8_E4M3"},
        {{.dtype = RP_F32, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = many},
         "a.weight_scale_inv",
         "left over (a.weight_scale_inv)"},
        {{.dtype = RP_F32, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = many},
         "b.scale_weight",
         "left over (b.scale_weight)"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const rp_named_tensor beside = {cases[i].name, cases[i].tensor};
        rp_tensor t = {0};
        rp_weights *w = open_with(&beside, 1);
        assert_int_equal(bind(w, &t), RP_E_FORMAT);
        if (strstr(rpt_log_last(), cases[i].say) == NULL) {
            fail_msg("\"%s\" is not in \"%s\"", cases[i].say, rpt_log_last());
        }
        rp_weights_close(w);
    }
}

/* Beside a weight of another type, a scale means something else. */
static void other_types_take_no_scale(void **state)
{
    (void)state;
    static const int64_t dims[] = {ROWS};
    const rp_named_tensor beside[] = {
        {"b.weight", {.dtype = RP_F32, .n_dims = 1, .dim = {ROWS, 1, 1, 1}, .data = g_f32}},
        {"b.scale_weight", {.dtype = RP_F32, .n_dims = 0, .dim = {1, 1, 1, 1}, .data = g_f32}}};
    rp_tensor t = {0};
    rp_weights *w = open_with(beside, 2);

    rp_weights_bind(w, &t, 1, dims, "b.weight");
    assert_null(t.scale);
    assert_int_equal(bind(w, &t), RP_E_FORMAT);
    assert_non_null(strstr(rpt_log_last(), "1 tensor left over (b.scale_weight)"));
    rp_weights_close(w);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_codes_convert_exactly),
        TEST(scales_multiply_all_or_rows),
        TEST(scales_are_found_beside_their_weight),
        TEST(no_scale_and_marks_are_fine),
        TEST(scales_that_do_not_fit_are_refused),
        TEST(other_types_take_no_scale),
    };
    return cmocka_run_group_tests_name("fp8", tests, NULL, NULL);
}
