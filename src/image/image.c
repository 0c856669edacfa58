/* image.c - from what a VAE decodes to bytes. */
#include "image/image.h"

#include <math.h>

/* In float32 and with halves to even, step by step as numpy does it, so that the bytes agree. */
static uint8_t to_byte(float x)
{
    const float unit = x / 2.0f + 0.5f;
    const float clamped = unit > 0.0f ? (unit < 1.0f ? unit : 1.0f) : 0.0f; /* NaN is not > 0 */

    return (uint8_t)rintf(clamped * 255.0f);
}

void rp_image_from_f32(const float *rgb_f32, int h, int w, uint8_t *rgb)
{
    const size_t n_px = (size_t)h * (size_t)w;

    for (size_t c = 0; c < 3; c++) {
        for (size_t i = 0; i < n_px; i++) {
            rgb[i * 3 + c] = to_byte(rgb_f32[c * n_px + i]);
        }
    }
}
