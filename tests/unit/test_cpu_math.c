/*
 * test_cpu_math.c - the fast functions against libm in double precision, and every half-precision
 * number.
 */
#include "rp_test.h"

#include "tensor/cpu/cpu_math.h"

#include <math.h>
#include <stdlib.h>

/* The largest error relative to |f|, over n points from lo to hi. */
static double worst(float (*got)(float), double (*want)(double), double lo, double hi, int n)
{
    double error = 0;

    for (int i = 0; i <= n; i++) {
        const float x = (float)(lo + (hi - lo) * i / n);
        const double f = want((double)x);
        const double e = fabs((double)got(x) - f) / (fabs(f) > 1e-30 ? fabs(f) : 1e-30);
        error = e <= error ? error : e; /* a NaN wins */
    }
    return error;
}

static float fast_exp(float x)
{
    return rp_cpu_expf(x);
}

static float fast_tanh(float x)
{
    return rp_cpu_tanhf(x);
}

static float fast_silu(float x)
{
    return rp_cpu_siluf(x);
}

static float fast_gelu(float x)
{
    return rp_cpu_geluf(x);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu(double x)
{
    return x / (1 + exp(-2 * sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

/* Observed: 8e-8, 1.6e-7 (twice), 1.7e-7, 1.4e-6 (the argument's own rounding, times the
 * steepness). */
static void errors_are_small(void **state)
{
    (void)state;
    const double e_exp = worst(fast_exp, exp, -86.9, 88.0, 1000000);
    const double e_tanh = worst(fast_tanh, tanh, -12, 12, 1000000);
    const double e_tiny = worst(fast_tanh, tanh, -1e-3, 1e-3, 10001);
    const double e_silu = worst(fast_silu, silu, -30, 88, 1000000);
    const double e_gelu = worst(fast_gelu, gelu, -4, 20, 1000000);

    print_message("exp %.2g, tanh %.2g %.2g, silu %.2g, gelu %.2g\n", e_exp, e_tanh, e_tiny, e_silu,
                  e_gelu);
    assert_true(e_exp < 2e-7);
    assert_true(e_tanh < 3e-7);
    assert_true(e_tiny < 3e-7);
    assert_true(e_silu < 4e-7);
    assert_true(e_gelu < 3e-6);
}

static void ends_are_right(void **state)
{
    (void)state;
    assert_true(rp_cpu_expf(0.0f) == 1.0f);
    assert_true(rp_cpu_expf(-INFINITY) == 0.0f);
    assert_true(rp_cpu_expf(-88.0f) == 0.0f);
    assert_true(isfinite(rp_cpu_expf(1000.0f)) && rp_cpu_expf(1000.0f) > 1e38f);
    assert_true(isnan(rp_cpu_expf(NAN)));
    assert_true(rp_cpu_tanhf(INFINITY) == 1.0f && rp_cpu_tanhf(-INFINITY) == -1.0f);
    assert_true(rp_cpu_tanhf(0.0f) == 0.0f && isnan(rp_cpu_tanhf(NAN)));
    assert_true(rp_cpu_siluf(-200.0f) > -1e-30f && rp_cpu_siluf(200.0f) == 200.0f);
    assert_true(isnan(rp_cpu_siluf(NAN)) && isnan(rp_cpu_geluf(NAN)));
}

static void reductions_take_every_element_once(void **state)
{
    (void)state;
    float x[70], y[70];

    for (int n = 1; n <= 70; n++) {
        double dot = 0, sum = 0, sq = 0;
        for (int i = 0; i < n; i++) {
            x[i] = (float)(i * 7 % 11 - 5);
            y[i] = (float)(i * 5 % 7 - 3);
            dot += (double)x[i] * (double)y[i];
            sum += (double)x[i];
            sq += ((double)x[i] - 2) * ((double)x[i] - 2);
        }
        assert_true((double)rp_cpu_dot(x, y, n) == dot);
        assert_true((double)rp_cpu_sum(x, n) == sum);
        assert_true((double)rp_cpu_sum_diff(x, n, 2.0f) == sum - 2 * n);
        assert_true((double)rp_cpu_sum_sq_diff(x, n, 2.0f) == sq);
        for (int i = 0; i < n; i++) {
            const float before = x[i];
            x[i] = 100.0f;
            assert_true(rp_cpu_max(x, n) == 100.0f);
            x[i] = before;
        }
    }
}

/* IEEE 754 binary16 and bfloat16 by their definition, all 65536 numbers. */
static void halves_convert_exactly(void **state)
{
    (void)state;
    static const rp_dtype types[] = {RP_F16, RP_BF16};
    uint16_t *all = malloc(65536 * sizeof(*all));
    float *got = malloc(65536 * sizeof(*got));

    for (unsigned i = 0; i < 65536; i++) {
        all[i] = (uint16_t)i;
    }
    for (int k = 0; k < 2; k++) {
        const rp_tensor w = {.dtype = types[k], .n_dims = 1, .dim = {65536, 1, 1, 1}, .data = all};
        const int n_frac = types[k] == RP_F16 ? 10 : 7;
        const int bias = types[k] == RP_F16 ? 15 : 127;
        rp_cpu_to_f32(&w, 0, 65536, got);
        for (int i = 0; i < 65536; i++) {
            const int exponent = (i & 0x7fff) >> n_frac, fraction = i & ((1 << n_frac) - 1);
            const double tiny = ldexp(fraction, 1 - bias - n_frac);
            const double full = ldexp(fraction + (1 << n_frac), exponent - bias - n_frac);
            double want = exponent == 0 ? tiny : full;
            if (exponent == 2 * bias + 1) {
                want = fraction == 0 ? INFINITY : NAN;
            }
            if (isnan(want) ? !isnan(got[i]) : (double)fabsf(got[i]) != want) {
                fail_msg("%s %04x: got %g, want %g", rp_dtype_name(types[k]), (unsigned)i,
                         (double)got[i], want);
            }
            assert_int_equal(signbit(got[i]) != 0, i >> 15);
            assert_memory_equal(&(float){rp_cpu_element(&w, (size_t)i)}, &got[i], sizeof(float));
        }
    }
    free(all);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_small),
        cmocka_unit_test(ends_are_right),
        cmocka_unit_test(reductions_take_every_element_once),
        cmocka_unit_test(halves_convert_exactly),
    };
    return cmocka_run_group_tests_name("cpu_math", tests, NULL, NULL);
}
