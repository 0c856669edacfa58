/* test_cuda_why.c - why a GPU is not computed on: decisions and texts, without a GPU or CUDA. */
#include "rp_test.h"

#include "tensor/cuda/cuda_why.h"

#include <string.h>

/* ---- no device */

static const struct {
    rp_cuda_count count;
    const char *want; /* "": there is one */
} g_counts[] = {
    {{.n = 2, .driver = 13000, .runtime = 13000}, ""},
    {{.n = 1, .driver = 13000, .runtime = 12090, .visible = "1"}, ""},
    /* what CUDA says without a driver is that it is too old, whatever is visible */
    {{.error = "CUDA driver version is insufficient for CUDA runtime version",
      .driver_too_old = true,
      .runtime = 13000},
     "there is no NVIDIA driver"},
    {{.error = "no CUDA-capable device is detected", .runtime = 13000, .visible = "0"},
     "there is no NVIDIA driver"},
    {{.error = "CUDA driver version is insufficient for CUDA runtime version",
      .driver_too_old = true,
      .driver = 12040,
      .runtime = 12090,
      .visible = "0"},
     "the driver is for CUDA 12.4, this build needs 12.9"},
    {{.error = "no CUDA-capable device is detected",
      .driver = 13000,
      .runtime = 13000,
      .visible = ""},
     "no GPU is visible with CUDA_VISIBLE_DEVICES=\"\" (no CUDA-capable device is detected)"},
    {{.error = "invalid device ordinal", .driver = 13000, .runtime = 13000, .visible = "one,two"},
     "no GPU is visible with CUDA_VISIBLE_DEVICES=\"one,two\" (invalid device ordinal)"},
    {{.n = 0, .driver = 13000, .runtime = 13000, .visible = "7"},
     "no GPU is visible with CUDA_VISIBLE_DEVICES=\"7\" (there is none)"},
    {{.n = 0, .driver = 13000, .runtime = 13000}, "there is no GPU"},
    {{.error = "system not yet initialized", .driver = 13000, .runtime = 13000},
     "system not yet initialized"},
};

static void the_cause_of_no_device_is_named(void **state)
{
    char why[RP_CUDA_WHY_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(g_counts) / sizeof(g_counts[0]); i++) {
        const bool any = rp_cuda_why_none(&g_counts[i].count, why, sizeof(why));
        assert_string_equal(why, g_counts[i].want);
        assert_int_equal(any, g_counts[i].want[0] == '\0');
    }
}

static void a_long_list_is_cut(void **state)
{
    char list[1000], why[RP_CUDA_WHY_BYTES];
    const rp_cuda_count count = {.error = "no CUDA-capable device is detected",
                                 .driver = 13000,
                                 .runtime = 13000,
                                 .visible = list};

    (void)state;
    memset(list, 'x', sizeof(list) - 1);
    list[sizeof(list) - 1] = '\0';
    assert_false(rp_cuda_why_none(&count, why, sizeof(why)));
    assert_non_null(strstr(why, "x\" (no CUDA-capable device is detected)"));
}

/* ---- kernels */

static const struct {
    const char *architectures;
    int major, minor;
    bool can;
} g_builds[] = {
    /* what CMakeLists.txt builds when it is not told: 12.0 also as PTX */
    {"80-real,90a-real,120", 7, 5, false},
    {"80-real,90a-real,120", 8, 0, true},
    {"80-real,90a-real,120", 8, 9, true},
    {"80-real,90a-real,120", 9, 0, true},
    {"80-real,90a-real,120", 10, 0, false},
    {"80-real,90a-real,120", 11, 0, false},
    {"80-real,90a-real,120", 12, 0, true},
    {"80-real,90a-real,120", 12, 1, true},
    {"80-real,90a-real,120", 13, 0, true},
    /* machine code: the same major number, not an older minor one */
    {"86-real", 8, 0, false},
    {"86-real", 8, 6, true},
    {"86-real", 8, 9, true},
    {"86-real", 9, 0, false},
    /* PTX: all that is not older */
    {"80-virtual", 7, 5, false},
    {"80-virtual", 8, 0, true},
    {"80-virtual", 12, 0, true},
    {"80", 10, 3, true},
    /* "a": that one only, "f": its major number */
    {"90a-real", 8, 9, false},
    {"90a", 10, 0, false},
    {"100a-real", 10, 3, false},
    {"100f-real", 10, 0, true},
    {"100f-real", 10, 3, true},
    {"100f", 12, 0, false},
    {"103f", 10, 0, false},
    /* nothing that can be known from the words: the device is asked when it is opened */
    {"native", 7, 5, true},
    {"all-major", 7, 5, true},
    {"90a-real,native", 7, 5, true},
    {"OFF", 7, 5, true},
    {"", 7, 5, true},
};

static void a_build_runs_on_what_it_has_code_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(g_builds) / sizeof(g_builds[0]); i++) {
        const rp_cuda_which which = {0, "a GPU", g_builds[i].major, g_builds[i].minor};
        if (rp_cuda_why_can_run(g_builds[i].architectures, &which) != g_builds[i].can) {
            fail_msg("a build for \"%s\" %s on %d.%d", g_builds[i].architectures,
                     g_builds[i].can ? "does not run" : "runs", which.major, which.minor);
        }
    }
}

static void a_build_that_would_have_kernels_is_named(void **state)
{
    char why[RP_CUDA_WHY_BYTES];

    (void)state;
    rp_cuda_why_no_kernels(&(rp_cuda_which){0, "NVIDIA B200", 10, 0}, why, sizeof(why));
    assert_string_equal(why, "GPU 0 (NVIDIA B200) has compute capability 10.0, for which this "
                             "build has no kernels; build with -DCMAKE_CUDA_ARCHITECTURES=100");
    rp_cuda_why_no_kernels(&(rp_cuda_which){3, "Tesla T4", 7, 5}, why, sizeof(why));
    assert_string_equal(why, "GPU 3 (Tesla T4) has compute capability 7.5, for which this build "
                             "has no kernels; build with -DCMAKE_CUDA_ARCHITECTURES=75");
    rp_cuda_why_no_kernels(&(rp_cuda_which){0, "NVIDIA H100", 9, 0}, why, sizeof(why));
    assert_non_null(strstr(why, "-DCMAKE_CUDA_ARCHITECTURES=90a"));
}

static void the_longest_name_fits(void **state)
{
    char name[300], why[RP_CUDA_WHY_BYTES];

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    rp_cuda_why_no_kernels(&(rp_cuda_which){15, name, 12, 1}, why, sizeof(why));
    assert_string_equal(why + strlen(why) - 4, "=121");
    assert_false(rp_cuda_why_can_compute(&(rp_cuda_which){15, name, 8, 6},
                                         RP_PRECISION_FP8_ATTENTION, why, sizeof(why)));
    assert_string_equal(why + strlen(why) - 5, " bf16");
}

/* ---- precisions */

#define NEEDS(precision, has, needs, use)                                                          \
    "precision " precision ": GPU 1 (Old) has compute capability " has ", " precision              \
    " needs " needs "; use --precision " use

static const struct {
    int major, minor;
    rp_precision precision;
    const char *want; /* "": the device can */
} g_precisions[] = {
    {7, 5, RP_PRECISION_F32, ""},
    {7, 5, RP_PRECISION_BF16, NEEDS("bf16", "7.5", "8.0", "f32")},
    {7, 5, RP_PRECISION_FP8, NEEDS("fp8", "7.5", "8.9", "f32")},
    {7, 5, RP_PRECISION_FP8_ATTENTION, NEEDS("fp8-attention", "7.5", "8.9", "f32")},
    {8, 0, RP_PRECISION_F32, ""},
    {8, 0, RP_PRECISION_BF16, ""},
    {8, 0, RP_PRECISION_FP8, NEEDS("fp8", "8.0", "8.9", "bf16")},
    {8, 6, RP_PRECISION_FP8_ATTENTION, NEEDS("fp8-attention", "8.6", "8.9", "bf16")},
    {8, 9, RP_PRECISION_FP8, ""},
    {8, 9, RP_PRECISION_FP8_ATTENTION, ""},
    {9, 0, RP_PRECISION_BF16, ""},
    {9, 0, RP_PRECISION_FP8, ""},
    {12, 0, RP_PRECISION_FP8_ATTENTION, ""},
};

static void a_precision_the_device_lacks_is_named(void **state)
{
    char why[RP_CUDA_WHY_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(g_precisions) / sizeof(g_precisions[0]); i++) {
        const rp_cuda_which which = {1, "Old", g_precisions[i].major, g_precisions[i].minor};
        const bool can =
            rp_cuda_why_can_compute(&which, g_precisions[i].precision, why, sizeof(why));
        assert_string_equal(why, g_precisions[i].want);
        assert_int_equal(can, g_precisions[i].want[0] == '\0');
    }
}

static void auto_is_a_precision_the_device_has(void **state)
{
    const rp_cuda_which old = {0, "Old", 7, 5}, new = {0, "New", 8, 0};

    (void)state;
    assert_int_equal(rp_cuda_why_precision(&old, RP_PRECISION_AUTO), RP_PRECISION_F32);
    assert_int_equal(rp_cuda_why_precision(&new, RP_PRECISION_AUTO), RP_PRECISION_BF16);
    for (int p = RP_PRECISION_F32; p <= RP_PRECISION_FP8_ATTENTION; p++) {
        assert_int_equal(rp_cuda_why_precision(&old, (rp_precision)p), p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cause_of_no_device_is_named),
        cmocka_unit_test(a_long_list_is_cut),
        cmocka_unit_test(a_build_runs_on_what_it_has_code_for),
        cmocka_unit_test(a_build_that_would_have_kernels_is_named),
        cmocka_unit_test(the_longest_name_fits),
        cmocka_unit_test(a_precision_the_device_lacks_is_named),
        cmocka_unit_test(auto_is_a_precision_the_device_has),
    };

    return cmocka_run_group_tests_name("cuda_why", tests, NULL, NULL);
}
