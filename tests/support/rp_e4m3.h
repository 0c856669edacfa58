/* rp_e4m3.h - 8-bit E4M3 by its definition, for the tests: bias 7, 3 fraction bits, no infinity. */
#ifndef RP_E4M3_H
#define RP_E4M3_H

#include <math.h>
#include <stdint.h>

static inline double rpt_e4m3_value(uint8_t code)
{
    const int exponent = (code >> 3) & 15, fraction = code & 7;
    const double size = (code & 0x7f) == 0x7f ? (double)NAN
                        : exponent == 0       ? ldexp(fraction, -9)
                                              : ldexp(8 + fraction, exponent - 10);

    return code & 0x80 ? -size : size;
}

/* To nearest, ties to even, cut at 448. */
static inline uint8_t rpt_e4m3_of(double x)
{
    const uint8_t sign = signbit(x) ? 0x80 : 0;
    const double size = fabs(x);
    int exponent = size < 0x1p-6 ? -6 : ilogb(size);
    int steps = (int)nearbyint(ldexp(size < 448 ? size : 448, 3 - (size < 448 ? exponent : 8)));

    exponent = size < 448 ? exponent : 8;
    if (steps == 16) {
        steps = 8;
        exponent++;
    }
    return (uint8_t)(sign | (steps < 8 ? steps : ((exponent + 7) << 3) + steps - 8));
}

#endif
