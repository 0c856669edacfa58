/*
 * cuda_conv.c - convolutions of one picture: [c, h, w] in f32, rows [h w, c] in bf16.
 *
 * A kernel of 1 is a matrix product. A kernel of 3 is cuDNN's; in bf16 its tensor cores read rows
 * without turning them first where both numbers of channels are multiples of 8, and for the few
 * others (3 colours) the picture is turned to [c, h, w] and back. Its algorithm comes from cuDNN's
 * model of the device, not from a measurement, so that every rank takes the same one in every run.
 * In bf16 the tensor cores compute; f32 is for checking and takes the algorithms that only multiply
 * and add, without TF32.
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
    int rows;  /* 1: [h w, c], filters [c_out, k, k, c_in] */
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

static cudnnTensorFormat_t format_of(const conv_key *k)
{
    return k->rows ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
}

static rp_status describe_tensor(rp_cuda *cuda, cudnnDataType_t type, const conv_key *k, int c,
                                 cudnnTensorDescriptor_t *out)
{
    const rp_status st = RP_DNN(cuda, cudnnCreateTensorDescriptor(out));

    if (st != RP_OK) {
        return st;
    }
    return RP_DNN(cuda, cudnnSetTensor4dDescriptor(*out, format_of(k), type, 1, c, k->h, k->w));
}

static rp_status describe_filter(rp_cuda *cuda, cudnnDataType_t type, const conv_key *k,
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

bool rp_cuda_picture_rows(void *self)
{
    const rp_cuda *cuda = self;

    return cuda->act == RP_BF16;
}

/* Can cuDNN take rows as they are? */
static bool takes_rows(const rp_cuda *cuda, int c_out, int c_in)
{
    return cuda->act == RP_BF16 && c_out % 8 == 0 && c_in % 8 == 0;
}

rp_status rp_cuda_turn_filter(rp_cuda *cuda, const rp_tensor *filter)
{
    const int c_out = (int)filter->dim[0], c_in = (int)filter->dim[1], kernel = (int)filter->dim[2];
    const rp_cuda_view to = rp_cuda_weight_view(filter);
    const size_t n_bytes = (size_t)rp_tensor_elems(filter) * rp_dtype_bytes(filter->dtype);

    if (filter->n_dims != 4 || kernel == 1 || !takes_rows(cuda, c_out, c_in)) {
        return RP_OK;
    }
    const rp_status st =
        rp_cuda_scratch_grow(cuda, &cuda->scores, n_bytes, "a filter being turned");
    if (st != RP_OK) {
        return st;
    }
    const rp_cuda_view from = {cuda->scores.data, to.dtype};
    rp_cuda_k_convert(cuda->stream, to, from, (size_t)rp_tensor_elems(filter));
    rp_cuda_k_filter_rows(cuda->stream, from, c_out, c_in, kernel, to);
    return RP_OK;
}

/* out[h w, c_out] = x w^T of rows, or out[c_out, h w] = w x. */
static rp_status run_product(rp_cuda *cuda, const conv_job *job, bool rows)
{
    const int hw = job->key.h * job->key.w;
    const int c_in = job->key.c_in, c_out = job->key.c_out;
    const rp_cuda_gemm_shape of_rows = {.m = hw,
                                        .n = c_out,
                                        .k = c_in,
                                        .batch = 1,
                                        .lda = c_in,
                                        .ldb = c_in,
                                        .ldd = c_out,
                                        .b_transposed = true,
                                        .alpha = 1.0f};
    const rp_cuda_gemm_shape of_planes = {.m = c_out,
                                          .n = hw,
                                          .k = c_in,
                                          .batch = 1,
                                          .lda = c_in,
                                          .ldb = hw,
                                          .ldd = hw,
                                          .b_transposed = false,
                                          .alpha = 1.0f};

    return rows ? rp_cuda_gemm(cuda, &of_rows, job->x, job->w, job->y)
                : rp_cuda_gemm(cuda, &of_planes, job->w, job->x, job->y);
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

/* cuDNN reads 16 bytes at a time. */
static bool aligned(rp_cuda_view v)
{
    return (uintptr_t)v.data % 16 == 0;
}

/* x in the type of the weight and aligned: as it is or, copied, in the cast scratch. */
static rp_status as_weight(rp_cuda *cuda, size_t n, rp_dtype dtype, rp_cuda_view *x)
{
    if (x->dtype == dtype && aligned(*x)) {
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

/* What lies in the scores' scratch, one after the other: the doubled input, the input turned to
 * planes, the output as cuDNN writes it. */
typedef struct {
    bool doubled, turned, aside;
    size_t x_bytes, y_bytes;
} conv_layout;

static conv_layout layout_of(const rp_conv_shape *s, const conv_job *job, bool rows)
{
    const size_t hw = (size_t)job->key.h * (size_t)job->key.w;
    const size_t elem = rp_dtype_bytes(job->w.dtype);
    conv_layout l = {.doubled = s->upsample == 2,
                     .turned = rows && !job->key.rows && s->kernel != 1};

    l.aside = s->kernel != 1 && (l.turned || job->y.dtype != job->w.dtype || !aligned(job->y));
    l.x_bytes = ((size_t)s->c_in * hw * elem + 255) / 256 * 256;
    l.y_bytes = (size_t)s->c_out * hw * elem;
    return l;
}

/* job->x and job->y follow to the scratch where they need it. */
static rp_status lay_out(rp_cuda *cuda, const rp_conv_shape *s, conv_job *job, bool rows)
{
    const conv_layout l = layout_of(s, job, rows);
    const size_t x_bytes = (l.doubled ? l.x_bytes : 0) + (l.turned ? l.x_bytes : 0);
    const rp_status st = rp_cuda_scratch_grow(
        cuda, &cuda->scores, x_bytes + (l.aside ? l.y_bytes : 0), "scratch of a convolution");

    if (st != RP_OK) {
        return st;
    }
    char *at = cuda->scores.data;
    if (l.doubled) {
        const rp_cuda_view doubled = {at, job->w.dtype};
        (rows ? rp_cuda_k_upsample_rows : rp_cuda_k_upsample)(cuda->stream, job->x, s->c_in, s->h,
                                                              s->w, doubled);
        job->x = doubled;
        at += l.x_bytes;
    }
    if (l.turned) {
        const rp_cuda_view planes = {at, job->w.dtype};
        rp_cuda_k_transpose(cuda->stream, job->x, job->key.h * job->key.w, s->c_in, planes);
        job->x = planes;
        at += l.x_bytes;
    }
    if (l.aside) {
        job->y = (rp_cuda_view){at, job->w.dtype};
    }
    return RP_OK;
}

static void add_bias(rp_cuda *cuda, rp_cuda_view y, int c, size_t hw, const float *bias, bool rows)
{
    if (rows) {
        rp_cuda_k_add_bias(cuda->stream, y, (int)hw, c, c, bias);
    } else {
        rp_cuda_k_add_channel_bias(cuda->stream, y, c, hw, bias);
    }
}

static rp_status conv2d(rp_cuda *cuda, const rp_conv_shape *s, const float *x, const rp_tensor *w,
                        const rp_tensor *bias, float *out)
{
    const bool rows = rp_cuda_picture_rows(cuda);
    const rp_cuda_view wanted = rp_cuda_at(cuda, out);
    conv_job job = {
        .key = {s->c_in, s->c_out, s->h * s->upsample, s->w * s->upsample, s->kernel, (int)w->dtype,
                takes_rows(cuda, s->c_out, s->c_in)},
        .x = rp_cuda_at(cuda, x),
        .w = rp_cuda_weight_view(w),
        .y = wanted,
    };
    const size_t hw = (size_t)job.key.h * (size_t)job.key.w;

    rp_status st = as_weight(cuda, (size_t)s->c_in * (size_t)s->h * (size_t)s->w, w->dtype, &job.x);
    if (st == RP_OK) {
        st = lay_out(cuda, s, &job, rows);
    }
    if (st == RP_OK) {
        st = s->kernel == 1 ? run_product(cuda, &job, rows) : run_conv(cuda, &job);
    }
    if (st != RP_OK) {
        return st;
    }
    if (rows && !job.key.rows && s->kernel != 1) {
        rp_cuda_k_transpose(cuda->stream, job.y, s->c_out, (int)hw, wanted);
    } else if (job.y.data != wanted.data) {
        rp_cuda_k_convert(cuda->stream, job.y, wanted, (size_t)s->c_out * hw);
    }
    if (bias != NULL) {
        add_bias(cuda, wanted, s->c_out, hw, bias->data, rows);
    }
    return RP_OK;
}

void rp_cuda_conv2d(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                    const rp_tensor *bias, float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_keep(cuda, conv2d(cuda, shape, x, w, bias, out));
}
