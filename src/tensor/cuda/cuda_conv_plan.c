/*
 * cuda_conv_plan.c - convolutions as cuDNN computes them: one plan for each shape.
 *
 * The algorithm comes from cuDNN's model of the device, not from a measurement, so that every rank
 * takes the same one in every run. In bf16 the tensor cores compute; f32 is for checking and takes
 * the algorithms that only multiply and add, without TF32.
 */
#include "tensor/cuda/cuda_conv.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define CONV_MAX_WORKSPACE ((size_t)1 << 30)

/* Plan of one shape; cuda->convs is the first of a list. */
struct rp_cuda_convs {
    rp_cuda_convs *next;
    rp_cuda_conv_key key;
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t conv;
    cudnnConvolutionFwdAlgo_t algorithm;
    size_t workspace_bytes;
};

/* ------------------------------------------------------------------ plans */

static void free_plan(rp_cuda_convs *plan)
{
    if (plan->conv != NULL) {
        cudnnDestroyConvolutionDescriptor(plan->conv);
    }
    if (plan->w != NULL) {
        cudnnDestroyFilterDescriptor(plan->w);
    }
    if (plan->y != NULL) {
        cudnnDestroyTensorDescriptor(plan->y);
    }
    if (plan->x != NULL) {
        cudnnDestroyTensorDescriptor(plan->x);
    }
    free(plan);
}

static cudnnTensorFormat_t format_of(const rp_cuda_conv_key *k)
{
    return k->rows ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
}

static rp_status describe_tensor(rp_cuda *cuda, cudnnDataType_t type, const rp_cuda_conv_key *k,
                                 int c, cudnnTensorDescriptor_t *out)
{
    const rp_status st = RP_DNN(cuda, cudnnCreateTensorDescriptor(out));

    if (st != RP_OK) {
        return st;
    }
    return RP_DNN(cuda, cudnnSetTensor4dDescriptor(*out, format_of(k), type, 1, c, k->h, k->w));
}

static rp_status describe_filter(rp_cuda *cuda, cudnnDataType_t type, const rp_cuda_conv_key *k,
                                 cudnnFilterDescriptor_t *out)
{
    const rp_status st = RP_DNN(cuda, cudnnCreateFilterDescriptor(out));

    if (st != RP_OK) {
        return st;
    }
    return RP_DNN(cuda, cudnnSetFilter4dDescriptor(*out, type, format_of(k), k->c_out, k->c_in,
                                                   k->kernel, k->kernel));
}

/* Sums in f32 for both types. */
static rp_status describe_conv(rp_cuda *cuda, const rp_cuda_conv_key *k,
                               cudnnConvolutionDescriptor_t *out)
{
    const int pad = k->kernel / 2;
    const cudnnMathType_t math = k->dtype == RP_F32 ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH;
    rp_status st = RP_DNN(cuda, cudnnCreateConvolutionDescriptor(out));

    if (st == RP_OK) {
        st = RP_DNN(cuda,
                    cudnnSetConvolution2dDescriptor(*out, pad, pad, 1, 1, 1, 1,
                                                    CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    }
    if (st == RP_OK) {
        st = RP_DNN(cuda, cudnnSetConvolutionMathType(*out, math));
    }
    return st;
}

static bool algorithm_allowed(const rp_cuda_conv_key *k, const cudnnConvolutionFwdAlgoPerf_t *a)
{
    const bool plain = a->algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM ||
                       a->algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM ||
                       a->algo == CUDNN_CONVOLUTION_FWD_ALGO_GEMM;

    if (a->status != CUDNN_STATUS_SUCCESS || a->determinism != CUDNN_DETERMINISTIC) {
        return false;
    }
    if (k->dtype != RP_F32) {
        return true;
    }
    return plain && (a->mathType == CUDNN_FMA_MATH || a->mathType == CUDNN_DEFAULT_MATH);
}

/* Can the plan run `a`? Its workspace is asked for again, with the arithmetic that belongs to it.
 */
static bool take_algorithm(rp_cuda *cuda, rp_cuda_convs *plan,
                           const cudnnConvolutionFwdAlgoPerf_t *a)
{
    const bool f32 = plan->key.dtype == RP_F32;
    size_t n_bytes = 0;

    if (cudnnSetConvolutionMathType(plan->conv, f32 ? CUDNN_FMA_MATH : a->mathType) !=
            CUDNN_STATUS_SUCCESS ||
        cudnnGetConvolutionForwardWorkspaceSize(cuda->dnn, plan->x, plan->w, plan->conv, plan->y,
                                                a->algo, &n_bytes) != CUDNN_STATUS_SUCCESS ||
        n_bytes > CONV_MAX_WORKSPACE) {
        return false;
    }
    plan->algorithm = a->algo;
    plan->workspace_bytes = n_bytes;
    return true;
}

static rp_status choose_algorithm(rp_cuda *cuda, rp_cuda_convs *plan)
{
    cudnnConvolutionFwdAlgoPerf_t found[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    const rp_cuda_conv_key *k = &plan->key;
    int n = 0;
    const rp_status st = RP_DNN(cuda, cudnnGetConvolutionForwardAlgorithm_v7(
                                          cuda->dnn, plan->x, plan->w, plan->conv, plan->y,
                                          CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &n, found));

    if (st != RP_OK) {
        return st;
    }
    for (int i = 0; i < n; i++) {
        if (algorithm_allowed(k, &found[i]) && take_algorithm(cuda, plan, &found[i])) {
            return RP_OK;
        }
    }
    return RP_FAIL(RP_E_UNSUP, "%s: cuDNN has no convolution %dx%d of %d to %d channels, %dx%d, %s",
                   cuda->name, k->kernel, k->kernel, k->c_in, k->c_out, k->h, k->w,
                   rp_dtype_name((rp_dtype)k->dtype));
}

static rp_status make_plan(rp_cuda *cuda, rp_cuda_convs *plan)
{
    const rp_cuda_conv_key *k = &plan->key;
    const cudnnDataType_t type = k->dtype == RP_F32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
    rp_status st = describe_tensor(cuda, type, k, k->c_in, &plan->x);

    if (st == RP_OK) {
        st = describe_tensor(cuda, type, k, k->c_out, &plan->y);
    }
    if (st == RP_OK) {
        st = describe_filter(cuda, type, k, &plan->w);
    }
    if (st == RP_OK) {
        st = describe_conv(cuda, k, &plan->conv);
    }
    if (st == RP_OK) {
        st = choose_algorithm(cuda, plan);
    }
    return st;
}

/* The plan of a shape, made when it is new. */
static rp_status find_plan(rp_cuda *cuda, const rp_cuda_conv_key *key, rp_cuda_convs **out)
{
    void *mem = NULL;

    for (rp_cuda_convs *p = cuda->convs; p != NULL; p = p->next) {
        if (memcmp(&p->key, key, sizeof(*key)) == 0) {
            *out = p;
            return RP_OK;
        }
    }
    if (rp_cuda_recording(cuda)) {
        return RP_FAIL(RP_E_ARG, "%s: a convolution of a new shape in a recorded sequence",
                       cuda->name);
    }
    rp_status st = rp_mem_new(1, sizeof(rp_cuda_convs), "a convolution plan", &mem);
    if (st != RP_OK) {
        return st;
    }
    rp_cuda_convs *plan = mem;
    plan->key = *key;
    st = make_plan(cuda, plan);
    if (st != RP_OK) {
        free_plan(plan);
        return st;
    }
    plan->next = cuda->convs;
    cuda->convs = plan;
    *out = plan;
    return RP_OK;
}

void rp_cuda_convs_drop(rp_cuda *cuda)
{
    while (cuda->convs != NULL) {
        rp_cuda_convs *plan = cuda->convs;
        cuda->convs = plan->next;
        free_plan(plan);
    }
}

/* ------------------------------------------------------------------ runs */

rp_status rp_cuda_conv_run(rp_cuda *cuda, const rp_cuda_conv_job *job)
{
    const float one = 1.0f, zero = 0.0f;
    rp_cuda_convs *plan = NULL;

    RP_TRY(find_plan(cuda, &job->key, &plan));
    if (plan->workspace_bytes > 0) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->workspace, plan->workspace_bytes,
                                    "workspace of a convolution"));
    }
    return RP_DNN(cuda, cudnnConvolutionForward(cuda->dnn, &one, plan->x, job->x.data, plan->w,
                                                job->w.data, plan->conv, plan->algorithm,
                                                cuda->workspace.data, plan->workspace_bytes, &zero,
                                                plan->y, job->y.data));
}
