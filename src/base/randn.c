/*
 * randn.c - the noise that PyTorch draws on a CPU.
 *
 * Three things must agree for equal bits: the generator (mt19937, Matsumoto & Nishimura 1998), the
 * order in which its numbers are used (below), and the rounding of every operation of log, sine and
 * cosine. The AVX2 kernels of PyTorch use Cephes' single precision polynomials (S. Moshier,
 * netlib.org/cephes) through ATen/native/cpu/avx_mathfun.h, compiled with multiply-adds contracted
 * wherever a product has one use; each fmaf below is one of these. fmaf rounds once with and
 * without hardware for it, so the bits are the same on every machine (-ffp-contract=off keeps the
 * compiler from adding more).
 *
 * Checked bit by bit against torch 2.15.0 and 2.11.0 (tests/unit/test_randn.c).
 */
#include "base/randn.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { MT_N = 624, MT_M = 397, BLOCK = 16, HALF = BLOCK / 2 };

typedef struct {
    uint32_t state[MT_N];
    int next; /* index of the next word; MT_N: a new state is due */
} mt19937;

static void mt_seed(mt19937 *mt, uint32_t seed)
{
    mt->state[0] = seed;
    for (uint32_t j = 1; j < MT_N; j++) {
        const uint32_t prev = mt->state[j - 1];
        mt->state[j] = 1812433253u * (prev ^ (prev >> 30)) + j;
    }
    mt->next = MT_N;
}

static void mt_renew(mt19937 *mt)
{
    for (int j = 0; j < MT_N; j++) {
        const uint32_t mixed =
            (mt->state[j] & 0x80000000u) | (mt->state[(j + 1) % MT_N] & 0x7fffffffu);
        mt->state[j] =
            mt->state[(j + MT_M) % MT_N] ^ (mixed >> 1) ^ ((mixed & 1) != 0 ? 0x9908b0dfu : 0);
    }
    mt->next = 0;
}

static uint32_t mt_next(mt19937 *mt)
{
    if (mt->next == MT_N) {
        mt_renew(mt);
    }
    uint32_t y = mt->state[mt->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* [0, 1), 24 bits: float's precision. */
static float uniform_float(mt19937 *mt)
{
    return (float)(mt_next(mt) & 0xffffffu) * 0x1p-24f;
}

/* [0, 1), 53 bits of a 64-bit word whose high half is drawn first. */
static double uniform_double(mt19937 *mt)
{
    const uint64_t high = mt_next(mt);
    const uint64_t word = high << 32 | mt_next(mt);

    return (double)(word & 0x1fffffffffffffu) * 0x1p-53;
}

/* Natural logarithm of 2^-24 <= x <= 1: x = 2^e m, 0.707 <= m < 1.414, polynomial in m - 1. */
static float log_avx2(float x)
{
    static const float p[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                               -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                               2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    int exponent;
    float m = frexpf(x, &exponent);

    if (m < 0.707106781186547524f) {
        exponent--;
        m = m - 1.0f + m; /* the order of the vector code */
    } else {
        m = m - 1.0f;
    }
    const float e = (float)exponent, z = m * m;
    float y = p[0];
    for (int i = 1; i < 9; i++) {
        y = fmaf(y, m, p[i]);
    }
    y = fmaf(y * m, z, e * -2.12194440e-4f);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 0.693359375f, m + y);
}

/* Sine and cosine of 0 <= x < 2 pi: reduced by multiples of pi / 4 in three parts, then one
 * polynomial for each; which of them is the sine depends on the octant. */
static void sincos_avx2(float x, float *sin_out, float *cos_out)
{
    const int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    const float y = (float)octant;

    x = fmaf(y, -0.78515625f, x);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);

    const float z = x * x;
    float c = fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, z * -0.5f) + 1.0f;

    float s = fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f);
    s = fmaf(s * z, x, x);

    const bool swap = (octant & 2) != 0;
    const float sine = swap ? c : s, cosine = swap ? s : c;
    *sin_out = (octant & 4) != 0 ? -sine : sine;
    *cos_out = ((octant - 2) & 4) == 0 ? -cosine : cosine;
}

/* Box-Muller in place over 16 uniforms: the first 8 give the radii, the last 8 the angles. */
static void box_muller(float *block)
{
    for (int j = 0; j < HALF; j++) {
        const float radius = sqrtf(-2.0f * log_avx2(1.0f - block[j]));
        const float theta = 6.283185307179586f * block[j + HALF];
        float sine, cosine;

        sincos_avx2(theta, &sine, &cosine);
        block[j] = radius * cosine + 0.0f; /* + mean: turns -0 into 0 */
        block[j + HALF] = radius * sine + 0.0f;
    }
}

/* n >= 16: all uniforms first, then blocks. A tail gets 16 fresh uniforms that overwrite the last
 * 16 values, of which some were already normal. */
static void fill_blocks(mt19937 *mt, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = uniform_float(mt);
    }
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK) {
        box_muller(out + i);
    }
    if (n % BLOCK != 0) {
        float *tail = out + n - BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            tail[i] = uniform_float(mt);
        }
        box_muller(tail);
    }
}

/* n < 16: pairs in double precision, cosine first (ATen/core/DistributionsHelper.h). */
static void fill_pairs(mt19937 *mt, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 2) {
        const double u1 = uniform_double(mt), u2 = uniform_double(mt);
        const double radius = sqrt(-2.0 * log1p(-u2));
        const double theta = 2.0 * 3.14159265358979323846 * u1;

        out[i] = (float)(radius * cos(theta) + 0.0);
        if (i + 1 < n) {
            out[i + 1] = (float)(radius * sin(theta) + 0.0);
        }
    }
}

void rp_randn(uint64_t seed, float *out, size_t n)
{
    mt19937 mt;

    mt_seed(&mt, (uint32_t)seed);
    if (n >= BLOCK) {
        fill_blocks(&mt, out, n);
    } else {
        fill_pairs(&mt, out, n);
    }
}
