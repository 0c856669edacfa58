/* cpu_convert.c - weights of any type to f32. */
#include "tensor/cpu/cpu.h"

#include "base/float_bits.h"

#include <assert.h>
#include <string.h>

RP_SIMD static void from_bf16(const uint16_t *restrict x, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = rp_float_of_bf16(x[i]);
    }
}

RP_SIMD static void from_f16(const uint16_t *restrict x, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = rp_float_of_f16(x[i]);
    }
}

RP_SIMD static void from_e4m3(const uint8_t *restrict x, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = rp_float_of_e4m3(x[i]);
    }
}

RP_SIMD static void multiply(float *x, size_t n, float by)
{
    for (size_t i = 0; i < n; i++) {
        x[i] *= by;
    }
}

/* By its scales; the elements may begin and end within a row. */
static void scale(const rp_tensor *weight, size_t first, size_t n, float *x)
{
    if (weight->n_scales == 0) {
        return;
    }
    const size_t cols = (size_t)(rp_tensor_elems(weight) / weight->n_scales);
    for (size_t at = 0; at < n;) {
        const size_t left = cols - (first + at) % cols; /* in this row */
        const size_t part = left < n - at ? left : n - at;
        multiply(x + at, part, weight->scale[(first + at) / cols]);
        at += part;
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
    case RP_F8_E4M3:
        from_e4m3((const uint8_t *)weight->data + first, n, out);
        scale(weight, first, n, out);
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
