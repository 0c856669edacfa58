/*
 * cuda_linear.c - matrix products by cuBLASLt.
 *
 * A plan (layouts and algorithm) is made once per shape. The algorithm is the first that cuBLASLt's
 * heuristic names: the same on every GPU of a type, so the same bits on every rank.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define WORKSPACE_BYTES ((size_t)64 << 20)

/* What a plan depends on; compared as bytes, so it is zeroed first. */
typedef struct {
    rp_cuda_gemm_shape shape;
    rp_dtype in, out;
    uint32_t align_a, align_b, align_d;
} plan_key;

typedef struct plan {
    plan_key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
    struct plan *next;
} plan;

struct rp_cuda_plans {
    plan *first;
};

static void free_plan(plan *p)
{
    if (p->op != NULL) {
        (void)cublasLtMatmulDescDestroy(p->op);
    }
    cublasLtMatrixLayout_t const layouts[] = {p->a, p->b, p->d};
    for (int i = 0; i < 3; i++) {
        if (layouts[i] != NULL) {
            (void)cublasLtMatrixLayoutDestroy(layouts[i]);
        }
    }
    free(p);
}

void rp_cuda_plans_drop(rp_cuda *cuda)
{
    while (cuda->plans != NULL && cuda->plans->first != NULL) {
        plan *p = cuda->plans->first;
        cuda->plans->first = p->next;
        free_plan(p);
    }
    free(cuda->plans);
    cuda->plans = NULL;
}

static cudaDataType_t type_of(rp_dtype dtype)
{
    return dtype == RP_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* Largest power of two, up to 256, that divides the address. */
static uint32_t alignment_of(const void *p)
{
    const uintptr_t bits = (uintptr_t)p | 256;

    return (uint32_t)(bits & (~bits + 1));
}

/* A row-major [rows, cols] matrix is cuBLAS' column-major [cols, rows]. */
static rp_status new_layout(rp_cuda *cuda, rp_dtype dtype, int rows, int cols, int ld, int batch,
                            int64_t step, cublasLtMatrixLayout_t *out)
{
    RP_TRY(RP_BLAS(
        cuda, cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)cols, (uint64_t)rows, ld)));
    RP_TRY(RP_BLAS(cuda, cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                          &batch, sizeof(batch))));
    return RP_BLAS(
        cuda, cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                               &step, sizeof(step)));
}

/* d^T = b a^T in column-major terms: cuBLAS' first matrix is our b, its second our a. */
static rp_status fill_plan(rp_cuda *cuda, plan *p)
{
    const rp_cuda_gemm_shape *s = &p->key.shape;
    const cublasOperation_t trans = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int b_rows = s->b_transposed ? s->n : s->k;
    const int b_cols = s->b_transposed ? s->k : s->n;

    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &trans,
                                                        sizeof(trans))));
    RP_TRY(new_layout(cuda, p->key.in, b_rows, b_cols, s->ldb, s->batch, s->step_b, &p->b));
    RP_TRY(new_layout(cuda, p->key.in, s->m, s->k, s->lda, s->batch, s->step_a, &p->a));
    return new_layout(cuda, p->key.out, s->m, s->n, s->ldd, s->batch, s->step_d, &p->d);
}

static rp_status ask(rp_cuda *cuda, plan *p, cublasLtMatmulPreference_t want)
{
    const size_t workspace = WORKSPACE_BYTES;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } alignment[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p->key.align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p->key.align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p->key.align_d},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p->key.align_d},
    };
    cublasLtMatmulHeuristicResult_t found = {0};
    int n = 0;

    RP_TRY(RP_BLAS(
        cuda, cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &workspace, sizeof(workspace))));
    for (size_t i = 0; i < sizeof(alignment) / sizeof(alignment[0]); i++) {
        RP_TRY(RP_BLAS(cuda, cublasLtMatmulPreferenceSetAttribute(want, alignment[i].attribute,
                                                                  &alignment[i].bytes,
                                                                  sizeof(uint32_t))));
    }
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulAlgoGetHeuristic(cuda->lt, p->op, p->b, p->a, p->d, p->d,
                                                        want, 1, &found, &n)));
    if (n == 0 || found.state != CUBLAS_STATUS_SUCCESS) {
        return RP_FAIL(RP_E_UNSUP,
                       "GPU %d (%s): cuBLASLt has no algorithm for a product of %d x %d x %d",
                       cuda->device, cuda->name, p->key.shape.m, p->key.shape.n, p->key.shape.k);
    }
    p->algo = found.algo;
    return RP_OK;
}

static rp_status choose_algorithm(rp_cuda *cuda, plan *p)
{
    cublasLtMatmulPreference_t want = NULL;

    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->workspace, WORKSPACE_BYTES, "workspace of products"));
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulPreferenceCreate(&want)));
    const rp_status st = ask(cuda, p, want);
    (void)cublasLtMatmulPreferenceDestroy(want);
    return st;
}

static rp_status new_plan(rp_cuda *cuda, const plan_key *key, const plan **out)
{
    if (cuda->plans == NULL) {
        cuda->plans = calloc(1, sizeof(*cuda->plans));
    }
    plan *p = cuda->plans == NULL ? NULL : calloc(1, sizeof(*p));
    if (p == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the plan of a matrix product");
    }
    p->key = *key;
    rp_status st = fill_plan(cuda, p);
    if (st == RP_OK) {
        st = choose_algorithm(cuda, p);
    }
    if (st != RP_OK) {
        free_plan(p);
        return st;
    }
    p->next = cuda->plans->first;
    cuda->plans->first = p;
    *out = p;
    return RP_OK;
}

/* The shape by fields: padding between them stays zero. */
static void fill_key(plan_key *key, const rp_cuda_gemm_shape *s, rp_cuda_view a, rp_cuda_view b,
                     rp_cuda_view d)
{
    memset(key, 0, sizeof(*key));
    key->shape.m = s->m;
    key->shape.n = s->n;
    key->shape.k = s->k;
    key->shape.batch = s->batch > 0 ? s->batch : 1;
    key->shape.lda = s->lda;
    key->shape.ldb = s->ldb;
    key->shape.ldd = s->ldd;
    key->shape.step_a = s->step_a;
    key->shape.step_b = s->step_b;
    key->shape.step_d = s->step_d;
    key->shape.b_transposed = s->b_transposed;
    key->in = a.dtype;
    key->out = d.dtype;
    key->align_a = alignment_of(a.data);
    key->align_b = alignment_of(b.data);
    key->align_d = alignment_of(d.data);
}

rp_status rp_cuda_gemm(rp_cuda *cuda, const rp_cuda_gemm_shape *shape, rp_cuda_view a,
                       rp_cuda_view b, rp_cuda_view d)
{
    const float zero = 0.0f;
    const plan *p = NULL;
    plan_key key;

    if (a.dtype != b.dtype) {
        return RP_FAIL(RP_E_ARG, "product of %s and %s", rp_dtype_name(a.dtype),
                       rp_dtype_name(b.dtype));
    }
    if (shape->m == 0 || shape->n == 0) {
        return RP_OK;
    }
    fill_key(&key, shape, a, b, d);
    for (p = cuda->plans == NULL ? NULL : cuda->plans->first; p != NULL; p = p->next) {
        if (memcmp(&p->key, &key, sizeof(key)) == 0) {
            break;
        }
    }
    if (p == NULL) {
        RP_TRY(new_plan(cuda, &key, &p));
    }
    return RP_BLAS(cuda, cublasLtMatmul(cuda->lt, p->op, &shape->alpha, b.data, p->b, a.data, p->a,
                                        &zero, d.data, p->d, d.data, p->d, &p->algo,
                                        cuda->workspace.data, WORKSPACE_BYTES, cuda->stream));
}

/* ---- linear ---- */

/* x in the type of the weights: as it is, or copied. x_stride becomes that of the copy. */
static rp_status match(rp_cuda *cuda, const float *x, int t, int k, int *x_stride, rp_dtype dtype,
                       rp_cuda_view *out)
{
    *out = rp_cuda_at(cuda, x);
    if (out->dtype == dtype) {
        return RP_OK;
    }
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, (size_t)t * (size_t)k * rp_dtype_bytes(dtype),
                                "product inputs"));
    const rp_cuda_view cast = {cuda->cast.data, dtype};
    rp_cuda_k_convert_rows(cuda->stream, *out, t, k, *x_stride, cast);
    *x_stride = k;
    *out = cast;
    return RP_OK;
}

/* Neighbours by chance, from two arenas, do not count: then bits would depend on addresses. */
static bool follows(const rp_cuda *cuda, const rp_tensor *a, const rp_tensor *b)
{
    return b->dtype == a->dtype && rp_cuda_same_arena(cuda, a, b) &&
           (const char *)a->data + (size_t)rp_tensor_elems(a) * rp_dtype_bytes(a->dtype) ==
               (const char *)b->data;
}

/* Weights that lie one after the other are one matrix; the others take a product each. */
static rp_status products(rp_cuda *cuda, rp_cuda_gemm_shape *shape, rp_cuda_view x,
                          const rp_tensor *const *w, int n_w, rp_cuda_view out)
{
    for (int i = 0; i < n_w;) {
        const rp_tensor *const first = w[i];
        shape->n = 0;
        do {
            shape->n += (int)w[i++]->dim[0];
        } while (i < n_w && follows(cuda, w[i - 1], w[i]));
        RP_TRY(rp_cuda_gemm(cuda, shape, x, rp_cuda_weight_view(first), out));
        out.data = (char *)out.data + (size_t)shape->n * rp_dtype_bytes(out.dtype);
    }
    return RP_OK;
}

static rp_status linear(rp_cuda *cuda, const float *x, int t, int k, int x_stride,
                        const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out)
{
    const rp_cuda_view to = rp_cuda_at(cuda, out);
    rp_cuda_view from;
    int n = 0;

    for (int i = 0; i < n_w; i++) {
        n += (int)w[i]->dim[0];
    }
    RP_TRY(match(cuda, x, t, k, &x_stride, w[0]->dtype, &from));
    rp_cuda_gemm_shape shape = {.m = t,
                                .k = k,
                                .batch = 1,
                                .lda = x_stride,
                                .ldb = k,
                                .ldd = n,
                                .b_transposed = true,
                                .alpha = 1.0f};
    RP_TRY(products(cuda, &shape, from, w, n_w, to));
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
