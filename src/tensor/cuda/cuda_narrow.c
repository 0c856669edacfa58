/*
 * cuda_narrow.c - activations as e4m3 with a scale for each row, for products with such weights.
 *
 * They are made of bf16 (or f32) by a kernel of their own, in scratch. Ops whose output mostly goes
 * straight into a product (norms, gated units) write the same bytes there on their way, which
 * saves that kernel; cuda->narrowed says whose they are. It holds only until another op asks for
 * an address, so rows that were changed in between are never taken. Where the caller has allowed it
 * (feeds_linear), norms and attention write their rows there and nowhere else. So does a gated pair
 * of products, but with a scale for each 128 of a row, and where its output would lie in bf16.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#define ALIGNMENT ((size_t)256)

static size_t bytes_of_scales(int t)
{
    return ((size_t)t * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t bytes_of(int t, int k)
{
    return bytes_of_scales(t) + (size_t)t * (size_t)k;
}

static rp_cuda_narrow rows_in(const rp_cuda_scratch *scratch, int t)
{
    return (rp_cuda_narrow){(uint8_t *)scratch->data + bytes_of_scales(t), scratch->data};
}

bool rp_cuda_narrow_can(const rp_cuda *cuda, rp_cuda_view out, int t, int d)
{
    return cuda->fp8 && out.dtype == RP_BF16 && t > 0 && d > 0 && d % 16 == 0;
}

/* Room is made by the products: before the first of them there is nobody to write for. */
rp_cuda_narrow rp_cuda_narrow_for(const rp_cuda *cuda, rp_cuda_view out, int t, int d)
{
    if (!rp_cuda_narrow_can(cuda, out, t, d) || bytes_of(t, d) > cuda->narrow.n_bytes) {
        return (rp_cuda_narrow){NULL, NULL};
    }
    return rows_in(&cuda->narrow, t);
}

void rp_cuda_narrow_done(rp_cuda *cuda, rp_cuda_narrow rows, const float *x, int t, int d)
{
    if (rows.data != NULL) {
        cuda->narrowed = (rp_cuda_narrowed){.x = x, .t = t, .k = d};
    }
}

rp_status rp_cuda_narrow_room(rp_cuda *cuda, int t, int d, rp_cuda_narrow *out)
{
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->narrow, bytes_of(t, d), "product inputs in fp8"));
    *out = rows_in(&cuda->narrow, t);
    return RP_OK;
}

void rp_cuda_narrow_only(rp_cuda *cuda, const float *x, int t, int d)
{
    cuda->narrowed = (rp_cuda_narrowed){.x = x, .t = t, .k = d, .only = true};
}

void rp_cuda_narrow_blocks(rp_cuda *cuda, const float *x, int t, int d)
{
    cuda->narrowed = (rp_cuda_narrowed){.x = x, .t = t, .k = d, .only = true, .blocks = true};
}

bool rp_cuda_narrow_is_blocks(const rp_cuda_narrowed *before, const float *x)
{
    return before->blocks && before->t > 0 && before->x == x;
}

rp_status rp_cuda_narrow_check(const rp_cuda *cuda, const rp_cuda_narrowed *before, int t, int k,
                               int x_stride)
{
    if (before->t == t && before->k == k && x_stride == k) {
        return RP_OK;
    }
    return RP_FAIL(
        RP_E_ARG,
        "%s: rows [%d, %d] were left for a product in 8 bits; it reads [%d, %d], %d apart",
        cuda->name, before->t, before->k, t, k, x_stride);
}

rp_status rp_cuda_narrow_x(rp_cuda *cuda, const rp_cuda_narrowed *before, const float *x,
                           rp_cuda_view at, int t, int k, int x_stride, rp_cuda_narrow *out)
{
    const bool blocks = rp_cuda_narrow_is_blocks(before, x);

    if (before->t == t && before->k == k && x_stride == k && before->x == x && !blocks) {
        *out = rows_in(&cuda->narrow, t);
        return RP_OK;
    }
    if (before->only && before->t > 0 && before->x == x) {
        RP_TRY(rp_cuda_narrow_check(cuda, before, t, k, x_stride));
    }
    RP_TRY(rp_cuda_narrow_room(cuda, t, k, out));
    if (blocks) {
        rp_cuda_k_blocks_to_rows(cuda->stream, rp_cuda_blocks_at(at.data, t, k), t, k, *out);
        return RP_OK;
    }
    rp_cuda_k_quantize_rows(cuda->stream, at, t, k, x_stride, *out);
    return RP_OK;
}

rp_status rp_cuda_narrow_back(rp_cuda *cuda, const rp_cuda_narrowed *before, rp_cuda_view at, int t,
                              int k, int x_stride, rp_cuda_view out)
{
    RP_TRY(rp_cuda_narrow_check(cuda, before, t, k, x_stride));
    if (before->blocks) {
        rp_cuda_k_dequantize_blocks(cuda->stream, rp_cuda_blocks_at(at.data, t, k), t, k, out);
        return RP_OK;
    }
    rp_cuda_k_dequantize_rows(cuda->stream, rows_in(&cuda->narrow, t), (size_t)t, (size_t)k, out);
    return RP_OK;
}
