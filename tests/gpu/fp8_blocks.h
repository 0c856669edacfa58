/* fp8_blocks.h - e4m3 with a scale for each 128 of a row, on the host: what a gated pair of
 * products has left on the device. */
#ifndef RP_TEST_FP8_BLOCKS_H
#define RP_TEST_FP8_BLOCKS_H

#include "fp8_arrays.h"

typedef struct {
    uint8_t *codes; /* [t, k] */
    float *scales;  /* [k / 128][rows], whatever in the last places */
    int t, k;
    size_t rows;
} host_blocks;

/* In the memory of x[t, k], an activation. */
static host_blocks blocks_of(const float *x, int t, int k)
{
    const rp_cuda_narrow at = rp_cuda_blocks_at(rp_cuda_at(g_fp8, x).data, t, k);
    host_blocks b = {.t = t, .k = k, .rows = rp_cuda_block_rows(t)};

    assert_int_equal(g_ops->sync(g_fp8), RP_OK);
    b.codes = device_bytes(at.data, (size_t)t * (size_t)k);
    b.scales = device_bytes(at.scale, b.rows * (size_t)(k / RP_CUDA_BLOCK) * sizeof(*b.scales));
    return b;
}

static void drop_blocks(host_blocks *b)
{
    free(b->codes);
    free(b->scales);
}

/* Of the element `at` of [t, k]. */
static float scale_of(const host_blocks *b, size_t at)
{
    const size_t k = (size_t)b->k;

    return b->scales[at % k / RP_CUDA_BLOCK * b->rows + at / k];
}

/* What they stand for. */
static float *multiplied_out(const host_blocks *b)
{
    const size_t n = (size_t)b->t * (size_t)b->k;
    float *x = malloc(n * sizeof(*x));

    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)rpt_e4m3_value(b->codes[i]) * scale_of(b, i);
    }
    return x;
}

#endif
