/* cpu_convert.c - weights of any type to f32. */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <assert.h>
#include <string.h>

/* bfloat16 is the upper half of an f32. */
RP_INLINE float bf16_to_f32(uint16_t x)
{
    return rp_cpu_float_of_bits((uint32_t)x << 16);
}

/*
 * IEEE 754 binary16. Exponent and fraction put in an f32's places are the value times 2^-112,
 * subnormal numbers too, so one exact product is the conversion; infinity and NaN get their
 * exponent by hand.
 */
RP_INLINE float f16_to_f32(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
    const uint32_t rest = (uint32_t)(x & 0x7fffu) << 13;
    const uint32_t finite = rp_cpu_bits_of_float(rp_cpu_float_of_bits(rest) * 0x1p112f);
    const uint32_t bits = rest >= 0x0f800000u ? rest | 0x7f800000u : finite;

    return rp_cpu_float_of_bits(bits | sign);
}

RP_SIMD static void from_bf16(const uint16_t *restrict x, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = bf16_to_f32(x[i]);
    }
}

RP_SIMD static void from_f16(const uint16_t *restrict x, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = f16_to_f32(x[i]);
    }
}

void rp_cpu_to_f32(const rp_tensor *weight, size_t first, size_t n, float *out)
{
    switch (weight->dtype) {
    case RP_F32:
        memcpy(out, (const float *)weight->data + first, n * sizeof(*out));
        break;
    case RP_F16:
        from_f16((const uint16_t *)weight->data + first, n, out);
        break;
    case RP_BF16:
        from_bf16((const uint16_t *)weight->data + first, n, out);
        break;
    default:
        assert(!"weight() lets no other type in");
        break;
    }
}

float rp_cpu_element(const rp_tensor *weight, size_t i)
{
    float x = 0;

    rp_cpu_to_f32(weight, i, 1, &x);
    return x;
}
