/*
 * cpu_math.h - functions that the compiler turns into vector code: no branch, no call, no table.
 *
 * A loop over them gives every element the same bits wherever it stands. NaN goes through.
 * Reductions use 16 accumulators in a fixed order.
 */
#ifndef RP_CPU_MATH_H
#define RP_CPU_MATH_H

#include "tensor/cpu/cpu.h"

#include "base/float_bits.h"

#include <stdint.h>

typedef float rp_cpu_v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t rp_cpu_v8i __attribute__((vector_size(32), aligned(4), may_alias));

/*
 * x = n ln 2 + r with |r| <= ln 2 / 2; returns e^r - 1 and sets *scale to 2^n. -87 <= x <= 88.
 * e^r - 1 = r + r^2 q(r), with q of degree 4 fitted for the smallest relative error of e^r (3e-9).
 */
RP_INLINE float rp_cpu_exp_parts(float x, float *scale)
{
    const float magic =
        12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const float shifted = x * 1.44269504f + magic;
    const float n = shifted - magic;
    /* ln 2 in two parts; n times the first is exact */
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    const float q = (((0.0013814172f * r + 0.008368922f) * r + 0.041668408f) * r + 0.1666652f) * r +
                    0.49999994f;

    *scale = rp_float_of((rp_bits_of(shifted) << 23) + 0x3f800000u);
    return r + r * r * q;
}

/* e^x, relative error below 2e-7; 0 below -87, e^88 above 88. */
RP_INLINE float rp_cpu_expf(float x)
{
    const float low = x < -87.0f ? -87.0f : x;
    const float inner = low > 88.0f ? 88.0f : low;
    float scale;
    const float em1 = rp_cpu_exp_parts(inner, &scale);
    const float y = scale + scale * em1;

    return x < -87.0f ? 0.0f : y;
}

/* (e^2a - 1) / (e^2a + 1) with a = |x|, without cancellation near 0. */
RP_INLINE float rp_cpu_tanhf(float x)
{
    const uint32_t sign = rp_bits_of(x) & 0x80000000u;
    const float a = rp_float_of(rp_bits_of(x) ^ sign);
    const float twice = a > 10.0f ? 20.0f : 2.0f * a;
    float scale;
    const float em1 = rp_cpu_exp_parts(twice, &scale);
    const float e = scale * em1 + (scale - 1.0f);
    const float y = e / (e + 2.0f);

    return rp_float_of(rp_bits_of(y) ^ sign);
}

/* x / (1 + e^-y) */
RP_INLINE float rp_cpu_times_sigmoid(float x, float y)
{
    return x / (1.0f + rp_cpu_expf(-y));
}

RP_INLINE float rp_cpu_siluf(float x)
{
    return rp_cpu_times_sigmoid(x, x);
}

/* 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3); Hendrycks & Gimpel 2016
 */
RP_INLINE float rp_cpu_geluf(float x)
{
    return rp_cpu_times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x));
}

RP_INLINE float rp_cpu_v8_total(const rp_cpu_v8 *v)
{
    return (((*v)[0] + (*v)[4]) + ((*v)[1] + (*v)[5])) +
           (((*v)[2] + (*v)[6]) + ((*v)[3] + (*v)[7]));
}

/* sum x[i] y[i] */
RP_INLINE float rp_cpu_dot(const float *x, const float *y, int n)
{
    rp_cpu_v8 a = {0}, b = {0};
    float tail = 0;
    int i = 0;

    for (; i + 16 <= n; i += 16) {
        a += *(const rp_cpu_v8 *)(x + i) * *(const rp_cpu_v8 *)(y + i);
        b += *(const rp_cpu_v8 *)(x + i + 8) * *(const rp_cpu_v8 *)(y + i + 8);
    }
    for (; i < n; i++) {
        tail += x[i] * y[i];
    }
    a += b;
    return rp_cpu_v8_total(&a) + tail;
}

/* sum (x[i] - mean) */
RP_INLINE float rp_cpu_sum_diff(const float *x, int n, float mean)
{
    rp_cpu_v8 a = {0}, b = {0};
    float tail = 0;
    int i = 0;

    for (; i + 16 <= n; i += 16) {
        a += *(const rp_cpu_v8 *)(x + i) - mean;
        b += *(const rp_cpu_v8 *)(x + i + 8) - mean;
    }
    for (; i < n; i++) {
        tail += x[i] - mean;
    }
    a += b;
    return rp_cpu_v8_total(&a) + tail;
}

/* sum x[i] */
RP_INLINE float rp_cpu_sum(const float *x, int n)
{
    return rp_cpu_sum_diff(x, n, 0.0f);
}

/* sum (x[i] - mean)^2 */
RP_INLINE float rp_cpu_sum_sq_diff(const float *x, int n, float mean)
{
    rp_cpu_v8 a = {0}, b = {0};
    float tail = 0;
    int i = 0;

    for (; i + 16 <= n; i += 16) {
        const rp_cpu_v8 p = *(const rp_cpu_v8 *)(x + i) - mean;
        const rp_cpu_v8 q = *(const rp_cpu_v8 *)(x + i + 8) - mean;
        a += p * p;
        b += q * q;
    }
    for (; i < n; i++) {
        tail += (x[i] - mean) * (x[i] - mean);
    }
    a += b;
    return rp_cpu_v8_total(&a) + tail;
}

/* The largest of n >= 1; a NaN may be passed over. */
RP_INLINE float rp_cpu_max(const float *x, int n)
{
    float best = x[0];
    int i = 0;

    if (n >= 8) {
        rp_cpu_v8 a = *(const rp_cpu_v8 *)x;
        for (i = 8; i + 8 <= n; i += 8) {
            const rp_cpu_v8 v = *(const rp_cpu_v8 *)(x + i);
            const rp_cpu_v8i above = v > a;
            a = (rp_cpu_v8)((above & (rp_cpu_v8i)v) | (~above & (rp_cpu_v8i)a));
        }
        for (int j = 0; j < 8; j++) {
            best = a[j] > best ? a[j] : best;
        }
    }
    for (; i < n; i++) {
        best = x[i] > best ? x[i] : best;
    }
    return best;
}

#endif
