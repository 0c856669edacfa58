/* float_bits.h - the bits of floats; numbers of 16 and 8 bits as floats, exactly. For loops: all of it is inlined. */
#ifndef RP_FLOAT_BITS_H
#define RP_FLOAT_BITS_H

#include <stdint.h>

#define RP_FLOAT_INLINE static inline __attribute__((always_inline))

/* Not by memcpy: AddressSanitizer marks a variable whose address is taken at every element. */
typedef union {
    float x;
    uint32_t bits;
} rp_float_bits;

RP_FLOAT_INLINE uint32_t rp_bits_of(float x)
{
    return (rp_float_bits){.x = x}.bits;
}

RP_FLOAT_INLINE float rp_float_of(uint32_t bits)
{
    return (rp_float_bits){.bits = bits}.x;
}

/* bfloat16 is the upper half of an f32. */
RP_FLOAT_INLINE float rp_float_of_bf16(uint16_t x)
{
    return rp_float_of((uint32_t)x << 16);
}

/*
 * IEEE 754 binary16. Exponent and fraction put in an f32's places are the value times 2^-112,
 * subnormal numbers too, so one exact product is the conversion; infinity and NaN get their
 * exponent by hand.
 */
RP_FLOAT_INLINE float rp_float_of_f16(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
    const uint32_t rest = (uint32_t)(x & 0x7fffu) << 13;
    const uint32_t finite = rp_bits_of(rp_float_of(rest) * 0x1p112f);
    const uint32_t bits = rest >= 0x0f800000u ? rest | 0x7f800000u : finite;

    return rp_float_of(bits | sign);
}

/* OCP 8-bit E4M3, in the same way: the value times 2^-120. All bits set but the sign is NaN. */
RP_FLOAT_INLINE float rp_float_of_e4m3(uint8_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x80u) << 24;
    const uint32_t rest = (uint32_t)(x & 0x7fu) << 20;
    const uint32_t number = rp_bits_of(rp_float_of(rest) * 0x1p120f);
    const uint32_t bits = rest == 0x07f00000u ? 0x7fc00000u : number;

    return rp_float_of(bits | sign);
}

#endif
