/*
 * cuda_linear.c - products of activations with weights: which product, of what, to where.
 *
 * Weights that lie one after the other are multiplied as one. Activations are taken as they are,
 * or made what the weights are: bf16 (or f32), or e4m3. Those that a gated pair has left in blocks
 * go into a kernel of our own (cuda_blocks.cuh) if it can take the weights.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"

/* x[t, k] as the caller has it, and as weights of a type want it: made when the first one does. */
typedef struct {
    const float *address;
    rp_cuda_view given;
    int t, k, stride;
    rp_cuda_narrowed before; /* what the op before this one has left */
    rp_cuda_view cast;       /* data NULL: not made yet */
    rp_cuda_narrow narrow;
} input;

static rp_status as_e4m3(rp_cuda *cuda, input *in, rp_cuda_gemm_shape *shape, rp_cuda_view *out)
{
    if (in->narrow.data == NULL) {
        RP_TRY(rp_cuda_narrow_x(cuda, &in->before, in->address, in->given, in->t, in->k, in->stride,
                                &in->narrow));
    }
    shape->lda = in->k;
    shape->scale_a = in->narrow.scale;
    *out = (rp_cuda_view){in->narrow.data, RP_F8_E4M3};
    return RP_OK;
}

/* As it is, or copied; multiplied out when e4m3 is all that was left. */
static rp_status as_wide(rp_cuda *cuda, input *in, rp_dtype dtype, rp_cuda_gemm_shape *shape,
                         rp_cuda_view *out)
{
    const bool only = in->before.only && in->before.t > 0 && in->before.x == in->address;

    if (in->given.dtype == dtype && !only) {
        shape->lda = in->stride;
        *out = in->given;
        return RP_OK;
    }
    if (in->cast.data == NULL) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast,
                                    (size_t)in->t * (size_t)in->k * rp_dtype_bytes(dtype),
                                    "product inputs"));
        in->cast = (rp_cuda_view){cuda->cast.data, dtype};
        if (only) {
            RP_TRY(rp_cuda_narrow_back(cuda, &in->before, in->given, in->t, in->k, in->stride,
                                       in->cast));
        } else {
            rp_cuda_k_convert_rows(cuda->stream, in->given, in->t, in->k, in->stride, in->cast);
        }
    }
    shape->lda = in->k;
    *out = in->cast;
    return RP_OK;
}

static rp_status match(rp_cuda *cuda, input *in, const rp_tensor *w, rp_cuda_gemm_shape *shape,
                       rp_cuda_view *out)
{
    shape->scale_a = NULL;
    shape->scale_b = w->scale;
    return w->dtype == RP_F8_E4M3 ? as_e4m3(cuda, in, shape, out)
                                  : as_wide(cuda, in, w->dtype, shape, out);
}

/* Neighbours by chance, from two arenas, do not count: then bits would depend on addresses. */
static bool follows(const rp_cuda *cuda, const rp_tensor *a, const rp_tensor *b)
{
    return b->dtype == a->dtype && rp_cuda_same_arena(cuda, a, b) &&
           (const char *)a->data + (size_t)rp_tensor_elems(a) * rp_dtype_bytes(a->dtype) ==
               (const char *)b->data &&
           (a->scale == NULL || a->scale + a->dim[0] == b->scale);
}

/* cuBLASLt writes results of e4m3 to 16-byte aligned rows only; others take the way over scratch.
 */
static rp_status product(rp_cuda *cuda, const rp_cuda_gemm_shape *shape, rp_cuda_view x,
                         rp_cuda_view w, rp_cuda_view out)
{
    const size_t size = rp_dtype_bytes(out.dtype);
    const size_t row = (size_t)shape->n * size, stride = (size_t)shape->ldd * size;
    rp_cuda_gemm_shape aside = *shape;

    if (w.dtype != RP_F8_E4M3 || ((uintptr_t)out.data % 16 == 0 && stride % 16 == 0)) {
        return rp_cuda_gemm(cuda, shape, x, w, out);
    }
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->scores, (size_t)shape->m * row, "product outputs"));
    const rp_cuda_view to = {cuda->scores.data, out.dtype};
    aside.ldd = shape->n;
    RP_TRY(rp_cuda_gemm(cuda, &aside, x, w, to));
    return RP_CUDA(cuda, cudaMemcpy2DAsync(out.data, stride, to.data, row, row, (size_t)shape->m,
                                           cudaMemcpyDeviceToDevice, cuda->stream));
}

/* Of x in blocks. done: it took the job. */
static rp_status from_blocks(rp_cuda *cuda, const rp_cuda_gemm_shape *shape, const input *in,
                             const rp_tensor *w, rp_cuda_view out, bool *done)
{
    if (!rp_cuda_narrow_is_blocks(&in->before, in->address) || w->dtype != RP_F8_E4M3 ||
        out.dtype != RP_BF16) {
        return RP_OK;
    }
    RP_TRY(rp_cuda_narrow_check(cuda, &in->before, in->t, in->k, in->stride));
    const rp_cuda_down job = {.a = rp_cuda_blocks_at(in->given.data, in->t, in->k),
                              .w = w->data,
                              .w_scale = w->scale,
                              .m = shape->m,
                              .n = shape->n,
                              .k = shape->k,
                              .ldd = shape->ldd,
                              .d = out.data};
    if (!rp_cuda_down_can(&job, cuda->capability)) {
        return RP_OK;
    }
    *done = true;
    const rp_cuda_gated_way way = rp_cuda_down_choose(&job);
    return RP_CUDA(cuda, rp_cuda_k_down(cuda->stream, &job, &way));
}

/* Weights that lie one after the other are one matrix; the others take a product each. */
static rp_status products(rp_cuda *cuda, rp_cuda_gemm_shape *shape, input *in,
                          const rp_tensor *const *w, int n_w, rp_cuda_view out)
{
    for (int i = 0; i < n_w;) {
        const rp_tensor *const first = w[i];
        bool done = false;
        shape->n = 0;
        do {
            shape->n += (int)w[i++]->dim[0];
        } while (i < n_w && follows(cuda, w[i - 1], w[i]));
        RP_TRY(from_blocks(cuda, shape, in, first, out, &done));
        if (!done) {
            rp_cuda_view x;
            RP_TRY(match(cuda, in, first, shape, &x));
            RP_TRY(product(cuda, shape, x, rp_cuda_weight_view(first), out));
        }
        out.data = (char *)out.data + (size_t)shape->n * rp_dtype_bytes(out.dtype);
    }
    return RP_OK;
}

static rp_status linear(rp_cuda *cuda, const float *x, int t, int k, int x_stride,
                        const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out)
{
    const rp_cuda_narrowed before = cuda->narrowed;
    const rp_cuda_view to = rp_cuda_at(cuda, out);
    input in = {.address = x,
                .given = rp_cuda_at(cuda, x),
                .t = t,
                .k = k,
                .stride = x_stride,
                .before = before};
    int n = 0;

    for (int i = 0; i < n_w; i++) {
        n += (int)w[i]->dim[0];
    }
    rp_cuda_gemm_shape shape = {
        .m = t, .k = k, .batch = 1, .ldb = k, .ldd = n, .b_transposed = true, .alpha = 1.0f};
    RP_TRY(products(cuda, &shape, &in, w, n_w, to));
    if (bias != NULL) {
        rp_cuda_k_add_bias(cuda->stream, to, t, n, n, bias->data);
    }
    return RP_CUDA(cuda, cudaPeekAtLastError());
}

void rp_cuda_linear(void *self, const float *x, int t, int k, int x_stride,
                    const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out)
{
    if (t > 0) {
        rp_cuda_keep(self, linear(self, x, t, k, x_stride, w, n_w, bias, out));
    }
}
