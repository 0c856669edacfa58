/*
 * rp_op_check.h - for the tests of the CPU ops: weights of every type, and one op run with 1, 2 and
 * 3 threads against values from plain loops. Included by one .c file of a test.
 */
#ifndef RP_OP_CHECK_H
#define RP_OP_CHECK_H

#include "rp_test.h"

#include "tensor/tensor_ops.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define N_SELVES 3
#define GUARD    7654321.0f

/* Observed relative L2 errors are below 3e-7 for all ops; sums of many products below 6e-7. */
#define TOLERANCE 1e-6

static const rp_backend_ops *g_ops;
static void *g_self[N_SELVES]; /* with 1, 2, 3 threads */

/* ---- values ---- */

static float *new_floats(size_t n)
{
    void *mem = NULL;

    assert_int_equal(g_ops->alloc(g_self[0], (n + 1) * sizeof(float), "test", &mem), RP_OK);
    ((float *)mem)[n] = GUARD;
    return mem;
}

static float *new_values(size_t n, unsigned seed)
{
    float *x = new_floats(n);

    rpt_fill(x, n, seed);
    return x;
}

static uint16_t f16_of(float x)
{
    int e = 0;
    const float m = frexpf(fabsf(x), &e); /* in [0.5, 1) */
    const int sign = signbit(x) ? 0x8000 : 0;
    const int scaled = (int)(m * 2048.0f); /* 11 bits, cut off */

    if (x == 0 || e < -13) {
        return (uint16_t)sign;
    }
    return (uint16_t)(sign | ((e + 14) << 10) | (scaled - 1024));
}

/* Element of a weight, decoded by the definition of its type. */
static double at(const rp_tensor *w, size_t i)
{
    if (w->dtype == RP_F32) {
        return ((const float *)w->data)[i];
    }
    const unsigned bits = ((const uint16_t *)w->data)[i];
    const int n_frac = w->dtype == RP_F16 ? 10 : 7;
    const int bias = w->dtype == RP_F16 ? 15 : 127;
    const int exponent = (int)(bits & 0x7fffu) >> n_frac;
    const int fraction = (int)(bits & ((1u << n_frac) - 1));
    const double size = exponent == 0 ? ldexp(fraction, 1 - bias - n_frac)
                                      : ldexp(fraction + (1 << n_frac), exponent - bias - n_frac);

    return bits & 0x8000u ? -size : size;
}

static rp_tensor new_weight(rp_dtype dtype, int64_t rows, int64_t cols, unsigned seed)
{
    const size_t n = (size_t)(rows * cols);
    float *x = new_values(n, seed);
    uint16_t *half = (uint16_t *)x; /* written over the values already read */
    rp_tensor w = {.dtype = dtype, .n_dims = 2, .dim = {rows, cols, 1, 1}, .data = x};

    for (size_t i = 0; i < n && dtype != RP_F32; i++) {
        float value;
        uint32_t bits;
        memcpy(&value, (const char *)x + i * sizeof(value), sizeof(value));
        memcpy(&bits, &value, sizeof(bits));
        const uint16_t h = dtype == RP_F16 ? f16_of(value) : (uint16_t)(bits >> 16);
        memcpy((char *)half + i * sizeof(h), &h, sizeof(h));
    }
    return w;
}

static void drop(const void *mem)
{
    g_ops->release(g_self[0], (void *)(uintptr_t)mem);
}

/* ---- one op, three times ---- */

typedef void (*op_fn)(void *self, const void *args, float *out);

/* Runs the op with each number of threads on a copy of `start` (or zeros) and compares. Frees
 * `want`. */
static void check_op(const char *name, op_fn op, const void *args, const float *start, float *want,
                     size_t n)
{
    float *first = new_floats(n);
    float *out = new_floats(n);

    for (int i = 0; i < N_SELVES; i++) {
        float *to = i == 0 ? first : out;
        if (start != NULL) {
            memcpy(to, start, n * sizeof(*to));
        } else {
            memset(to, 0xff, n * sizeof(*to)); /* NaN: an element left out is found */
        }
        op(g_self[i], args, to);
        assert_int_equal(g_ops->sync(g_self[i]), RP_OK);
        assert_true(to[n] == GUARD);
        assert_memory_equal(to, first, n * sizeof(*to));
    }
    rpt_assert_close(name, first, want, n, TOLERANCE);
    drop(first);
    drop(out);
    drop(want);
}

static int set_up(void **state)
{
    (void)state;
    rpt_log_collect();
    for (int i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, "cpu") == 0) {
            g_ops = rp_backend_list[i];
        }
    }
    for (int i = 0; g_ops != NULL && i < N_SELVES; i++) {
        const rp_backend_params params = {.n_threads = i + 1};
        if (g_ops->open(&params, &g_self[i]) != RP_OK ||
            g_ops->reserve(g_self[i], 9000, 300, 64) != RP_OK) {
            return 1;
        }
    }
    return g_ops == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < N_SELVES; i++) {
        g_ops->close(g_self[i]);
    }
    return 0;
}

#endif
