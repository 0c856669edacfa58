/* fp8_arrays.h - for the tests of products in 8 bits: numbers as the device rounds them, on the
 * host and on the device. */
#ifndef RP_TEST_FP8_ARRAYS_H
#define RP_TEST_FP8_ARRAYS_H

#include "fp8_backend.h"
#include "rp_e4m3.h"

#include "tensor/cuda/cuda.h"

#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* What bf16 keeps; times scale, a power of two. */
static float *values(size_t n, unsigned seed, float scale)
{
    float *x = malloc((n + 1) * sizeof(*x));

    assert_non_null(x);
    rpt_fill(x, n, seed);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        bits &= 0xffff0000u;
        memcpy(&x[i], &bits, sizeof(bits));
        x[i] *= scale;
    }
    return x;
}

/* What rows [t, k] stand for once the device has rounded them. */
static float *rounded(const float *x, int t, int k)
{
    float *out = malloc((size_t)t * (size_t)k * sizeof(*out));

    assert_non_null(out);
    for (int i = 0; i < t; i++) {
        const float *row = x + (size_t)i * (size_t)k;
        float most = 1e-30f;
        for (int j = 0; j < k; j++) {
            most = fmaxf(most, fabsf(row[j]));
        }
        for (int j = 0; j < k; j++) {
            const uint8_t code = rpt_e4m3_of((double)(row[j] * (448.0f / most)));
            out[(size_t)i * (size_t)k + (size_t)j] = (float)rpt_e4m3_value(code) * (most / 448.0f);
        }
    }
    return out;
}

static rp_tensor matrix(int rows, int cols, const float *data)
{
    return (rp_tensor){
        .dtype = RP_F32, .n_dims = 2, .dim = {rows, cols, 1, 1}, .data = data, .narrow = true};
}

static void *device_bytes(const void *from, size_t n)
{
    void *host = malloc(n);

    assert_non_null(host);
    assert_int_equal(cudaMemcpy(host, from, n, cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
}

#endif
