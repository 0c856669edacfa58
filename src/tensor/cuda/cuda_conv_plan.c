/*
 * cuda_conv_plan.c - convolutions as cuDNN computes them: one plan for each shape.
 *
 * The algorithm comes from cuDNN's model of the device, not from a measurement, so that every rank
 * takes the same one in every run. In bf16 the tensor cores compute; f32 is for checking and takes
 * the algorithms that only multiply and add, without TF32.
 *
 * Bias and addend go into the convolution where cuDNN has a kernel for that: as a graph of
 * operations with the bias in f32 (cuda_conv_graph.c), or by its older call, whose bias is bf16.
 * Where it has neither, whoever asks adds them afterwards.
 */
#include "tensor/cuda/cuda_conv.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define CONV_MAX_WORKSPACE ((size_t)1 << 30)

/* How a plan is run. */
typedef enum { CONV_PLAIN, CONV_GRAPH, CONV_CALL } conv_way;

/* Plan of one shape; cuda->convs is the first of a list. */
struct rp_cuda_convs {
    rp_cuda_convs *next;
    rp_cuda_conv_key key;
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t conv;
    cudnnConvolutionFwdAlgo_t algorithm;
    size_t workspace_bytes;
    conv_way way;
    rp_dnn_graph graph;           /* of CONV_GRAPH */
    cudnnTensorDescriptor_t bias; /* of CONV_CALL */
    cudnnActivationDescriptor_t identity;
};

/* ------------------------------------------------------------------ plans */

static void free_plan(rp_cuda_convs *plan)
{
    rp_dnn_drop(&plan->graph);
    if (plan->identity != NULL) {
        cudnnDestroyActivationDescriptor(plan->identity);
    }
    if (plan->bias != NULL) {
        cudnnDestroyTensorDescriptor(plan->bias);
    }
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

static rp_status make_plain(rp_cuda *cuda, rp_cuda_convs *plan)
{
    const rp_cuda_conv_key *k = &plan->key;
    const cudnnDataType_t type = k->dtype == RP_F32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;

    RP_TRY(describe_tensor(cuda, type, k, k->c_in, &plan->x));
    RP_TRY(describe_tensor(cuda, type, k, k->c_out, &plan->y));
    RP_TRY(describe_filter(cuda, type, k, &plan->w));
    RP_TRY(describe_conv(cuda, k, &plan->conv));
    return choose_algorithm(cuda, plan);
}

/* ------------------------------------------------------------------ plans with bias and addend */

static const char *ends_name(int ends)
{
    static const char *const names[] = {"", "a bias", "an addend", "a bias and an addend"};

    return names[ends];
}

static void say_refused(const rp_cuda *cuda, const rp_cuda_conv_key *k, const char *way,
                        const char *why)
{
    RP_INFO("%s: cuDNN %zu has no %s for a convolution of %d to %d channels, %dx%d, with %s: %s",
            cuda->name, cudnnGetVersion(), way, k->c_in, k->c_out, k->h, k->w, ends_name(k->ends),
            why);
}

/* RP_E_ABSENT, said, where cuDNN cannot. A shortage of memory is a failure: it must not give one
 * rank other bits than the others have. */
static rp_status make_graph(rp_cuda *cuda, rp_cuda_convs *plan)
{
    rp_dnn_graph *g = &plan->graph;

    rp_cuda_conv_build(g, &plan->key);
    rp_dnn_compile(g, cuda->dnn, CONV_MAX_WORKSPACE);
    if (g->status == CUDNN_STATUS_SUCCESS) {
        plan->workspace_bytes = g->workspace_bytes;
        return RP_OK;
    }
    if (g->status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
        g->status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED) {
        return RP_DNN(cuda, g->status);
    }
    say_refused(cuda, &plan->key, "graph", g->message);
    rp_dnn_drop(g);
    return RP_E_ABSENT;
}

/* On top of a plain plan. Without an activation the call knows one algorithm only; whether it can
 * is found when it is run. */
static rp_status make_call(rp_cuda *cuda, rp_cuda_convs *plan)
{
    const rp_cuda_conv_key *k = &plan->key;

    if ((k->ends & RP_CUDA_ENDS_BIAS) == 0 ||
        plan->algorithm != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM) {
        say_refused(cuda, k, "call", "not with its algorithm, or not without a bias");
        return RP_E_ABSENT;
    }
    RP_TRY(RP_DNN(cuda, cudnnCreateTensorDescriptor(&plan->bias)));
    RP_TRY(RP_DNN(cuda, cudnnSetTensor4dDescriptor(plan->bias, CUDNN_TENSOR_NHWC,
                                                   CUDNN_DATA_BFLOAT16, 1, k->c_out, 1, 1)));
    RP_TRY(RP_DNN(cuda, cudnnCreateActivationDescriptor(&plan->identity)));
    return RP_DNN(cuda, cudnnSetActivationDescriptor(plan->identity, CUDNN_ACTIVATION_IDENTITY,
                                                     CUDNN_NOT_PROPAGATE_NAN, 0.0));
}

static rp_status make_plan(rp_cuda *cuda, rp_cuda_convs *plan)
{
    rp_status st = plan->key.ends != 0 ? make_graph(cuda, plan) : RP_E_ABSENT;

    if (st != RP_E_ABSENT) {
        plan->way = CONV_GRAPH;
        return st;
    }
    RP_TRY(make_plain(cuda, plan));
    st = plan->key.ends != 0 ? make_call(cuda, plan) : RP_E_ABSENT;
    plan->way = st == RP_OK ? CONV_CALL : CONV_PLAIN;
    return st == RP_E_ABSENT ? RP_OK : st;
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

static rp_status run_graph(rp_cuda *cuda, rp_cuda_convs *plan, const rp_cuda_conv_job *job)
{
    void *pointers[RP_DNN_POINTERS] = {
        [CONV_X] = job->x.data, [CONV_W] = job->w.data, [CONV_Y] = job->y.data};
    int n = CONV_REST;

    if ((plan->key.ends & RP_CUDA_ENDS_ADD) != 0) {
        pointers[n++] = job->add.data;
    }
    if ((plan->key.ends & RP_CUDA_ENDS_BIAS) != 0) {
        pointers[n++] = (void *)(uintptr_t)job->bias;
    }
    return RP_DNN(cuda, rp_dnn_run(&plan->graph, cuda->dnn, cuda->workspace.data, pointers));
}

/* *done: false, and a plain plan from now on, when cuDNN has no such kernel. */
static rp_status run_call(rp_cuda *cuda, rp_cuda_convs *plan, const rp_cuda_conv_job *job,
                          bool *done)
{
    const cudaError_t before = cudaPeekAtLastError();
    const size_t at = rp_cuda_whole_lines(plan->workspace_bytes);
    const rp_cuda_view add = (plan->key.ends & RP_CUDA_ENDS_ADD) != 0 ? job->add : job->y;
    const float one = 1.0f, share = add.data == job->y.data ? 0.0f : 1.0f;

    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->workspace, at + (size_t)plan->key.c_out * 2,
                                "workspace of a convolution"));
    const rp_cuda_view bias = {(char *)cuda->workspace.data + at, RP_BF16};
    rp_cuda_k_convert(cuda->stream, (rp_cuda_view){(void *)(uintptr_t)job->bias, RP_F32}, bias,
                      (size_t)plan->key.c_out);
    const cudnnStatus_t status = cudnnConvolutionBiasActivationForward(
        cuda->dnn, &one, plan->x, job->x.data, plan->w, job->w.data, plan->conv, plan->algorithm,
        cuda->workspace.data, plan->workspace_bytes, &share, plan->y, add.data, plan->bias,
        bias.data, plan->identity, plan->y, job->y.data);
    *done = status / 1000 != CUDNN_STATUS_NOT_SUPPORTED / 1000 &&
            status / 1000 != CUDNN_STATUS_BAD_PARAM / 1000;
    if (*done) {
        return RP_DNN(cuda, status);
    }
    if (before == cudaSuccess) {
        (void)cudaGetLastError(); /* of nobody's */
    }
    say_refused(cuda, &plan->key, "call", cudnnGetErrorString(status));
    plan->way = CONV_PLAIN;
    return RP_OK;
}

static rp_status run_plain(rp_cuda *cuda, const rp_cuda_convs *plan, const rp_cuda_conv_job *job)
{
    const float one = 1.0f, zero = 0.0f;

    return RP_DNN(cuda, cudnnConvolutionForward(cuda->dnn, &one, plan->x, job->x.data, plan->w,
                                                job->w.data, plan->conv, plan->algorithm,
                                                cuda->workspace.data, plan->workspace_bytes, &zero,
                                                plan->y, job->y.data));
}

rp_status rp_cuda_conv_run(rp_cuda *cuda, const rp_cuda_conv_job *job, bool *ended)
{
    rp_cuda_convs *plan = NULL;

    RP_TRY(find_plan(cuda, &job->key, &plan));
    if (plan->workspace_bytes > 0) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->workspace, plan->workspace_bytes,
                                    "workspace of a convolution"));
    }
    *ended = plan->way == CONV_GRAPH;
    if (plan->way == CONV_GRAPH) {
        return run_graph(cuda, plan, job);
    }
    if (plan->way == CONV_CALL) {
        RP_TRY(run_call(cuda, plan, job, ended));
    }
    return *ended ? RP_OK : run_plain(cuda, plan, job);
}
