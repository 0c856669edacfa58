/*
 * cuda_gemm.c - matrix products by cuBLASLt.
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
    bool scaled; /* of e4m3: the product itself takes the scales, not a kernel after it */
    struct plan *next;
} plan;

struct rp_cuda_plans {
    plan *first;
};

static void empty_plan(plan *p)
{
    if (p->op != NULL) {
        (void)cublasLtMatmulDescDestroy(p->op);
    }
    cublasLtMatrixLayout_t *const layouts[] = {&p->a, &p->b, &p->d};
    for (int i = 0; i < 3; i++) {
        if (*layouts[i] != NULL) {
            (void)cublasLtMatrixLayoutDestroy(*layouts[i]);
        }
        *layouts[i] = NULL;
    }
    p->op = NULL;
}

static void free_plan(plan *p)
{
    empty_plan(p);
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
    return dtype == RP_F8_E4M3 ? CUDA_R_8F_E4M3 : dtype == RP_BF16 ? CUDA_R_16BF : CUDA_R_32F;
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

static rp_status set_scales(rp_cuda *cuda, const plan *p, const rp_cuda_gemm_shape *s)
{
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                                        &s->scale_b, sizeof(s->scale_b))));
    return RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER,
                                                        &s->scale_a, sizeof(s->scale_a)));
}

static rp_status fill_e4m3(rp_cuda *cuda, const plan *p, const rp_cuda_gemm_shape *s)
{
    const int8_t fast = s->k < RP_CUDA_LONG_K;
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;

    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_FAST_ACCUM,
                                                        &fast, sizeof(fast))));
    if (!p->scaled) {
        return RP_OK;
    }
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
                                                        &mode, sizeof(mode))));
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
                                                        &mode, sizeof(mode))));
    return set_scales(cuda, p, s);
}

/* d^T = b a^T in column-major terms: cuBLAS' first matrix is our b, its second our a. */
static rp_status fill_plan(rp_cuda *cuda, plan *p, const rp_cuda_gemm_shape *now)
{
    const rp_cuda_gemm_shape *s = &p->key.shape;
    const cublasOperation_t trans = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int b_rows = s->b_transposed ? s->n : s->k;
    const int b_cols = s->b_transposed ? s->k : s->n;

    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
    RP_TRY(RP_BLAS(cuda, cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &trans,
                                                        sizeof(trans))));
    if (p->key.in == RP_F8_E4M3) {
        RP_TRY(fill_e4m3(cuda, p, now));
    }
    RP_TRY(new_layout(cuda, p->key.in, b_rows, b_cols, s->ldb, s->batch, s->step_b, &p->b));
    RP_TRY(new_layout(cuda, p->key.in, s->m, s->k, s->lda, s->batch, s->step_a, &p->a));
    return new_layout(cuda, p->key.out, s->m, s->n, s->ldd, s->batch, s->step_d, &p->d);
}

/* RP_E_ABSENT without a word where a plan with scales inside is not to be had. */
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
    const cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(cuda->lt, p->op, p->b, p->a, p->d,
                                                               p->d, want, 1, &found, &n);
    const bool none = n == 0 || found.state != CUBLAS_STATUS_SUCCESS;
    if (p->scaled &&
        (code == CUBLAS_STATUS_NOT_SUPPORTED || (code == CUBLAS_STATUS_SUCCESS && none))) {
        return RP_E_ABSENT;
    }
    if (code != CUBLAS_STATUS_NOT_SUPPORTED) { /* that is said below, with the shape */
        RP_TRY(rp_cuda_check_blas(cuda, code, "cublasLtMatmulAlgoGetHeuristic"));
    }
    if (none) {
        return RP_FAIL(RP_E_UNSUP,
                       "GPU %d (%s): cuBLASLt has no algorithm for a product of %d x %d x %d in %s",
                       cuda->device, cuda->name, p->key.shape.m, p->key.shape.n, p->key.shape.k,
                       rp_dtype_name(p->key.in));
    }
    p->algo = found.algo;
    return RP_OK;
}

static rp_status choose_algorithm(rp_cuda *cuda, plan *p)
{
    cublasLtMatmulPreference_t want = NULL;

    RP_TRY(RP_BLAS(cuda, cublasLtMatmulPreferenceCreate(&want)));
    const rp_status st = ask(cuda, p, want);
    (void)cublasLtMatmulPreferenceDestroy(want);
    return st;
}

static rp_status make_plan(rp_cuda *cuda, plan *p, const rp_cuda_gemm_shape *now)
{
    RP_TRY(fill_plan(cuda, p, now));
    return choose_algorithm(cuda, p);
}

static rp_status new_plan(rp_cuda *cuda, const plan_key *key, const rp_cuda_gemm_shape *now,
                          const plan **out)
{
    if (cuda->plans == NULL) {
        cuda->plans = calloc(1, sizeof(*cuda->plans));
    }
    plan *p = cuda->plans == NULL ? NULL : calloc(1, sizeof(*p));
    if (p == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the plan of a matrix product");
    }
    p->key = *key;
    p->scaled = key->in == RP_F8_E4M3;
    rp_status st = make_plan(cuda, p, now);
    if (st == RP_E_ABSENT) { /* not every GPU has products that take vectors of scales */
        empty_plan(p);
        p->scaled = false;
        st = make_plan(cuda, p, now);
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
        RP_TRY(new_plan(cuda, &key, shape, &p));
    }
    /* also for plans made before: trim() may have freed it */
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->workspace, WORKSPACE_BYTES, "workspace of products"));
    if (p->scaled) {
        RP_TRY(set_scales(cuda, p, shape));
    }
    RP_TRY(RP_BLAS(cuda, cublasLtMatmul(cuda->lt, p->op, &shape->alpha, b.data, p->b, a.data, p->a,
                                        &zero, d.data, p->d, d.data, p->d, &p->algo,
                                        cuda->workspace.data, WORKSPACE_BYTES, cuda->stream)));
    if (key.in == RP_F8_E4M3 && !p->scaled) {
        rp_cuda_k_scale_product(cuda->stream, d, shape->m, shape->n, shape->ldd, shape->scale_a,
                                shape->scale_b);
    }
    return RP_OK;
}
