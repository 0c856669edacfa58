/*
 * cuda_conv_graph.c - a convolution with its bias and addend as one graph of cuDNN's operations.
 */
#include "tensor/cuda/cuda_conv.h"

/* [1, c, h, w] that lies as rows. */
static cudnnBackendDescriptor_t picture(rp_dnn_graph *g, rp_dnn_place place, cudnnDataType_t type,
                                        int c, int h, int w)
{
    const int64_t dim[4] = {1, c, h, w};
    const int64_t stride[4] = {(int64_t)h * w * c, 1, (int64_t)w * c, c};

    return rp_dnn_tensor(g, place, type, dim, stride);
}

static cudnnBackendDescriptor_t filter(rp_dnn_graph *g, const rp_cuda_conv_key *k)
{
    const int64_t dim[4] = {k->c_out, k->c_in, k->kernel, k->kernel};
    const int64_t stride[4] = {(int64_t)k->kernel * k->kernel * k->c_in, 1,
                               (int64_t)k->kernel * k->c_in, k->c_in};

    return rp_dnn_tensor(g, RP_DNN_MEMORY, CUDNN_DATA_BFLOAT16, dim, stride);
}

static void add_conv(rp_dnn_graph *g, const rp_cuda_conv_key *k, cudnnBackendDescriptor_t x,
                     cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t n_dims = 2, ones[2] = {1, 1}, pads[2] = {k->kernel / 2, k->kernel / 2};
    const float one = 1.0f, zero = 0.0f;
    cudnnBackendDescriptor_t kind = rp_dnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n_dims);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, ones);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    rp_dnn_set(g, kind, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    rp_dnn_finish(g, kind);

    cudnnBackendDescriptor_t op =
        rp_dnn_make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, kind);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    rp_dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    rp_dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    rp_dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    rp_dnn_add(g, op);
}

void rp_cuda_conv_build(rp_dnn_graph *g, const rp_cuda_conv_key *k)
{
    const cudnnDataType_t bf16 = CUDNN_DATA_BFLOAT16, f32 = CUDNN_DATA_FLOAT;
    const bool with_bias = (k->ends & RP_CUDA_ENDS_BIAS) != 0;
    cudnnBackendDescriptor_t x = picture(g, RP_DNN_MEMORY, bf16, k->c_in, k->h, k->w);
    cudnnBackendDescriptor_t w = filter(g, k);
    cudnnBackendDescriptor_t y = picture(g, RP_DNN_MEMORY, bf16, k->c_out, k->h, k->w);
    cudnnBackendDescriptor_t sums = picture(g, RP_DNN_VIRTUAL, f32, k->c_out, k->h, k->w);

    g->repeatable = true;
    add_conv(g, k, x, w, sums);
    if ((k->ends & RP_CUDA_ENDS_ADD) != 0) {
        cudnnBackendDescriptor_t add = picture(g, RP_DNN_MEMORY, bf16, k->c_out, k->h, k->w);
        cudnnBackendDescriptor_t both =
            with_bias ? picture(g, RP_DNN_VIRTUAL, f32, k->c_out, k->h, k->w) : y;
        rp_dnn_pointwise(g, CUDNN_POINTWISE_ADD, sums, add, both);
        sums = both;
    }
    if (with_bias) {
        cudnnBackendDescriptor_t bias = picture(g, RP_DNN_MEMORY, f32, k->c_out, 1, 1);
        rp_dnn_pointwise(g, CUDNN_POINTWISE_ADD, sums, bias, y);
    }
}
