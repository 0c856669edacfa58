/*
 * randn.c - the noise that PyTorch draws on a CPU.
 *
 * Three things must agree for equal bits: the generator (mt19937, Matsumoto & Nishimura 1998), the
 * order in which its numbers are used (below), and the rounding of every operation of log, sine and
 * cosine. The AVX2 kernels of PyTorch use Cephes' single precision polynomials (S. Moshier,
 * netlib.org/cephes) through ATen/native/cpu/avx_mathfun.h, compiled with multiply-adds contracted
 * wherever a product has one use; each fmaf below is one of these. fmaf rounds once with and
 * without hardware for it, so the bits are the same on every machine (-ffp-contract=off keeps the
 * compiler from adding more). With such hardware the compiler does 8 numbers at a time, which is
 * why there are no branches.
 *
 * Checked bit by bit against torch 2.15.0 and 2.11.0 (tests/unit/test_randn.c).
 */
#include "base/randn.h"

#include "base/float_bits.h"

#include <math.h>
#include <stdbool.h>

enum { MT_N = 624, MT_M = 397, BLOCK = 16, HALF = BLOCK / 2 };

typedef struct {
    uint32_t state[MT_N], words[MT_N]; /* words: what the state gives */
    int next;                          /* of the words; MT_N: a new state is due */
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

static inline uint32_t twist(uint32_t a, uint32_t b)
{
    const uint32_t mixed = (a & 0x80000000u) | (b & 0x7fffffffu);

    return (mixed >> 1) ^ (-(mixed & 1u) & 0x9908b0dfu);
}

static inline uint32_t temper(uint32_t y)
{
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static void mt_renew(mt19937 *mt)
{
    uint32_t *const s = mt->state;

    for (int j = 0; j < MT_N - MT_M; j++) {
        s[j] = s[j + MT_M] ^ twist(s[j], s[j + 1]);
    }
    for (int j = MT_N - MT_M; j < MT_N - 1; j++) {
        s[j] = s[j + MT_M - MT_N] ^ twist(s[j], s[j + 1]);
    }
    s[MT_N - 1] = s[MT_M - 1] ^ twist(s[MT_N - 1], s[0]);
    for (int j = 0; j < MT_N; j++) {
        mt->words[j] = temper(s[j]);
    }
    mt->next = 0;
}

/* The next one to `most` words; returns how many. */
static int mt_take(mt19937 *mt, size_t most, const uint32_t **words)
{
    if (mt->next == MT_N) {
        mt_renew(mt);
    }
    const int left = MT_N - mt->next, n = most < (size_t)left ? (int)most : left;

    *words = mt->words + mt->next;
    mt->next += n;
    return n;
}

static uint32_t mt_next(mt19937 *mt)
{
    const uint32_t *word;

    (void)mt_take(mt, 1, &word);
    return *word;
}

/* [0, 1), 24 bits: float's precision. */
static void fill_uniform(mt19937 *mt, float *out, size_t n)
{
    const uint32_t *words;

    for (size_t i = 0; i < n;) {
        const int n_words = mt_take(mt, n - i, &words);
        for (int k = 0; k < n_words; k++) {
            out[i + (size_t)k] = (float)(int32_t)(words[k] & 0xffffffu) * 0x1p-24f;
        }
        i += (size_t)n_words;
    }
}

/* [0, 1), 53 bits of a 64-bit word whose high half is drawn first. */
static double uniform_double(mt19937 *mt)
{
    const uint64_t high = mt_next(mt);
    const uint64_t word = high << 32 | mt_next(mt);

    return (double)(word & 0x1fffffffffffffu) * 0x1p-53;
}

/* Natural logarithm of 2^-24 <= x <= 1: x = 2^e m, 0.707 <= m < 1.414, polynomial in m - 1. */
RP_FLOAT_INLINE float log_avx2(float x)
{
    static const float p[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                               -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                               2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    const uint32_t bits = rp_bits_of(x);
    const float half = rp_float_of((bits & 0x7fffffu) | 0x3f000000u); /* 0.5 up to 1 */
    const uint32_t small = half < 0.707106781186547524f;
    const float m =
        half - 1.0f + rp_float_of(rp_bits_of(half) & -small); /* as the vector code adds */
    const int exponent = (int)(bits >> 23) - 126 - (int)small;
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
RP_FLOAT_INLINE void sincos_avx2(float x, float *sin_out, float *cos_out)
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

    const uint32_t bits = (uint32_t)octant, swap = -(bits >> 1 & 1);
    const uint32_t differ = (rp_bits_of(s) ^ rp_bits_of(c)) & swap;
    *sin_out = rp_float_of((rp_bits_of(s) ^ differ) ^ (bits & 4) << 29);
    *cos_out = rp_float_of((rp_bits_of(c) ^ differ) ^ (~(bits - 2) & 4) << 29);
}

/* Box-Muller in place over 16 uniforms: the first 8 give the radii, the last 8 the angles. */
RP_FLOAT_INLINE void box_muller(float *block)
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

RP_FLOAT_INLINE void make_normal(float *out, size_t n)
{
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK) {
        box_muller(out + i);
    }
}

static void make_normal_anywhere(float *out, size_t n)
{
    make_normal(out, n);
}

#if defined(__GNUC__) && defined(__x86_64__)
/* 8 at a time, with multiply-adds of the hardware. */
__attribute__((target("avx2,fma"))) static void make_normal_fast(float *out, size_t n)
{
    make_normal(out, n);
}

static bool has_fast(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
#define make_normal_fast make_normal_anywhere

static bool has_fast(void)
{
    return false;
}
#endif

/* n >= 16: all uniforms first, then blocks. A tail gets 16 fresh uniforms that overwrite the last
 * 16 values, of which some were already normal. */
static void fill_blocks(mt19937 *mt, void (*normal)(float *out, size_t n), float *out, size_t n)
{
    fill_uniform(mt, out, n);
    normal(out, n);
    if (n % BLOCK != 0) {
        float *tail = out + n - BLOCK;
        fill_uniform(mt, tail, BLOCK);
        normal(tail, BLOCK);
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

static void randn(uint64_t seed, void (*normal)(float *out, size_t n), float *out, size_t n)
{
    mt19937 mt;

    mt_seed(&mt, (uint32_t)seed);
    if (n >= BLOCK) {
        fill_blocks(&mt, normal, out, n);
    } else {
        fill_pairs(&mt, out, n);
    }
}

void rp_randn(uint64_t seed, float *out, size_t n)
{
    randn(seed, has_fast() ? make_normal_fast : make_normal_anywhere, out, n);
}

void rp_randn_anywhere(uint64_t seed, float *out, size_t n)
{
    randn(seed, make_normal_anywhere, out, n);
}
