/*
 * cuda_conv.c - convolutions of one picture [c, h, w].
 *
 * A kernel of 1 is a matrix product: out[c_out, h w] = w[c_out, c_in] x[c_in, h w]. A kernel of 3
 * is cuDNN's. Its algorithm comes from cuDNN's model of the device, not from a measurement, so that
 * every rank takes the same one in every run. In bf16 the tensor cores compute; f32 is for checking
 * and takes the algorithms that only multiply and add, without TF32.
 *
 * Doubling is a kernel of its own, before: its output goes to scratch.
 */
#include "tensor/cuda/cuda.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define CONV_MAX_WORKSPACE ((size_t)1 << 30)

/* All that a plan depends on. No holes: compared as bytes. */
typedef struct {
    int c_in, c_out, h, w, kernel;
    int dtype; /* an rp_dtype */
} conv_key;

/* Plan of one shape; cuda->convs is the first of a list. */
struct rp_cuda_convs {
    rp_cuda_convs *next;
    conv_key key;
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

static rp_status describe_tensor(rp_cuda *cuda, cudnnDataType_t type, int c, int h, int w,
                                 cudnnTensorDescriptor_t *out)
{
    const rp_status st = RP_DNN(cuda, cudnnCreateTensorDescriptor(out));

    if (st != RP_OK) {
        return st;
    }
    return RP_DNN(cuda, cudnnSetTensor4dDescriptor(*out, CUDNN_TENSOR_NCHW, type, 1, c, h, w));
}

static rp_status describe_filter(rp_cuda *cuda, cudnnDataType_t type, const conv_key *k,
                                 cudnnFilterDescriptor_t *out)
{
    const rp_status st = RP_DNN(cuda, cudnnCreateFilterDescriptor(out));

    if (st != RP_OK) {
        return st;
    }
    return RP_DNN(cuda, cudnnSetFilter4dDescriptor(*out, type, CUDNN_TENSOR_NCHW, k->c_out, k->c_in,
                                                   k->kernel, k->kernel));
}

/* Sums in f32 for both types. */
static rp_status describe_conv(rp_cuda *cuda, const conv_key *k, cudnnConvolutionDescriptor_t *out)
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

static bool algorithm_allowed(const conv_key *k, const cudnnConvolutionFwdAlgoPerf_t *a)
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
    const conv_key *k = &plan->key;
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
    const conv_key *k = &plan->key;
    const cudnnDataType_t type = k->dtype == RP_F32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
    rp_status st = describe_tensor(cuda, type, k->c_in, k->h, k->w, &plan->x);

    if (st == RP_OK) {
        st = describe_tensor(cuda, type, k->c_out, k->h, k->w, &plan->y);
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
static rp_status find_plan(rp_cuda *cuda, const conv_key *key, rp_cuda_convs **out)
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

/* One convolution: x after doubling, all of one type; y where the products go. */
typedef struct {
    conv_key key;
    rp_cuda_view x, w, y;
} conv_job;

static rp_status run_product(rp_cuda *cuda, const conv_job *job)
{
    const int hw = job->key.h * job->key.w;
    const rp_cuda_gemm_shape shape = {
        .m = job->key.c_out,
        .n = hw,
        .k = job->key.c_in,
        .batch = 1,
        .lda = job->key.c_in,
        .ldb = hw,
        .ldd = hw,
        .b_transposed = false,
        .alpha = 1.0f,
    };

    return rp_cuda_gemm(cuda, &shape, job->w, job->x, job->y);
}

static rp_status run_conv(rp_cuda *cuda, const conv_job *job)
{
    const float one = 1.0f, zero = 0.0f;
    rp_cuda_convs *plan = NULL;
    rp_status st = find_plan(cuda, &job->key, &plan);

    if (st == RP_OK && plan->workspace_bytes > 0) {
        st = rp_cuda_scratch_grow(cuda, &cuda->workspace, plan->workspace_bytes,
                                  "workspace of a convolution");
    }
    if (st != RP_OK) {
        return st;
    }
    return RP_DNN(cuda, cudnnConvolutionForward(cuda->dnn, &one, plan->x, job->x.data, plan->w,
                                                job->w.data, plan->conv, plan->algorithm,
                                                cuda->workspace.data, plan->workspace_bytes, &zero,
                                                plan->y, job->y.data));
}

/* x in the type of the weight: as it is or, converted, in the cast scratch. */
static rp_status as_weight(rp_cuda *cuda, size_t n, rp_dtype dtype, rp_cuda_view *x)
{
    if (x->dtype == dtype) {
        return RP_OK;
    }
    const rp_status st = rp_cuda_scratch_grow(cuda, &cuda->cast, n * rp_dtype_bytes(dtype),
                                              "input of a convolution");
    if (st != RP_OK) {
        return st;
    }
    const rp_cuda_view out = {cuda->cast.data, dtype};
    rp_cuda_k_convert(cuda->stream, *x, out, n);
    *x = out;
    return RP_OK;
}

/* Room in the scores' scratch for the doubled input, and for the output where cuDNN cannot write
 * the type that is wanted; job->x and job->y follow. */
static rp_status lay_out(rp_cuda *cuda, const rp_conv_shape *s, conv_job *job)
{
    const size_t hw = (size_t)job->key.h * (size_t)job->key.w;
    const size_t elem = rp_dtype_bytes(job->w.dtype);
    const bool aside = s->kernel != 1 && job->y.dtype != job->w.dtype;
    const size_t x_bytes = s->upsample == 2 ? ((size_t)s->c_in * hw * elem + 255) / 256 * 256 : 0;
    const size_t y_bytes = aside ? (size_t)s->c_out * hw * elem : 0;

    if (x_bytes + y_bytes == 0) {
        return RP_OK;
    }
    const rp_status st =
        rp_cuda_scratch_grow(cuda, &cuda->scores, x_bytes + y_bytes, "scratch of a convolution");
    if (st != RP_OK) {
        return st;
    }
    if (x_bytes > 0) {
        const rp_cuda_view doubled = {cuda->scores.data, job->w.dtype};
        rp_cuda_k_upsample(cuda->stream, job->x, s->c_in, s->h, s->w, doubled);
        job->x = doubled;
    }
    if (aside) {
        job->y = (rp_cuda_view){(char *)cuda->scores.data + x_bytes, job->w.dtype};
    }
    return RP_OK;
}

static rp_status conv2d(rp_cuda *cuda, const rp_conv_shape *s, const float *x, const rp_tensor *w,
                        const rp_tensor *bias, float *out)
{
    const rp_cuda_view wanted = rp_cuda_at(cuda, out);
    conv_job job = {
        .key = {s->c_in, s->c_out, s->h * s->upsample, s->w * s->upsample, s->kernel,
                (int)w->dtype},
        .x = rp_cuda_at(cuda, x),
        .w = rp_cuda_weight_view(w),
        .y = wanted,
    };
    const size_t hw = (size_t)job.key.h * (size_t)job.key.w;

    rp_status st = as_weight(cuda, (size_t)s->c_in * (size_t)s->h * (size_t)s->w, w->dtype, &job.x);
    if (st == RP_OK) {
        st = lay_out(cuda, s, &job);
    }
    if (st == RP_OK) {
        st = s->kernel == 1 ? run_product(cuda, &job) : run_conv(cuda, &job);
    }
    if (st != RP_OK) {
        return st;
    }
    if (job.y.data != wanted.data) {
        rp_cuda_k_convert(cuda->stream, job.y, wanted, (size_t)s->c_out * hw);
    }
    if (bias != NULL) {
        rp_cuda_k_add_channel_bias(cuda->stream, wanted, s->c_out, hw, bias->data);
    }
    return RP_OK;
}

void rp_cuda_conv2d(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                    const rp_tensor *bias, float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_keep(cuda, conv2d(cuda, shape, x, w, bias, out));
}
