/* cuda_backend.c - the table of the CUDA backend: open and close, waiting for the device. */
#include "tensor/cuda/cuda.h"

#include "tensor/cuda/cuda_ops.h"

#include "base/check.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

/* What scratch with the workspaces of cuBLASLt and cuDNN comes to, at the most that was seen: they
 * choose by the shapes of a job, and say nothing before it runs. */
#define SCRATCH_ROOM ((size_t)2000000000)

/* ---- what restart() renews */

static void close_handles(rp_cuda *cuda)
{
    rp_cuda_graphs_drop(cuda);
    rp_cuda_plans_drop(cuda);
    rp_cuda_sdpas_drop(cuda);
    rp_cuda_convs_drop(cuda);
    if (cuda->lt != NULL) {
        (void)cublasLtDestroy(cuda->lt);
    }
    if (cuda->dnn != NULL) {
        (void)cudnnDestroy(cuda->dnn);
    }
    if (cuda->stream != NULL) {
        (void)cudaStreamDestroy(cuda->stream);
    }
    rp_cuda_scratch_drop(cuda);
    cuda->lt = NULL;
    cuda->dnn = NULL;
    cuda->stream = NULL;
}

static rp_status open_handles(rp_cuda *cuda)
{
    RP_TRY(RP_CUDA(cuda, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking)));
    RP_TRY(RP_BLAS(cuda, cublasLtCreate(&cuda->lt)));
    RP_TRY(RP_DNN(cuda, cudnnCreate(&cuda->dnn)));
    return RP_DNN(cuda, cudnnSetStream(cuda->dnn, cuda->stream));
}

static rp_status cuda_restart(void *self)
{
    rp_cuda *cuda = self;

    (void)cudaSetDevice(cuda->device);
    RP_TRY(RP_CUDA(cuda, cudaDeviceSynchronize()));
    close_handles(cuda);
    return open_handles(cuda);
}

/* ---- open, close */

static void cuda_close(void *self)
{
    rp_cuda *cuda = self;

    if (cuda == NULL) {
        return;
    }
    (void)cudaSetDevice(cuda->device);
    close_handles(cuda);
    rp_cuda_blocks_drop(cuda);
    rp_cuda_arenas_drop(cuda);
    rp_cuda_uploader_drop(cuda);
    rp_cuda_marks_drop(cuda);
    (void)cudaFreeHost(cuda->flag);
    (void)cudaFreeHost(cuda->ids);
    (void)cudaGetLastError();
    free(cuda);
}

static rp_status open_device(rp_cuda *cuda, const rp_backend_params *params)
{
    struct cudaDeviceProp prop;
    void *flag = NULL;

    cuda->device = params->device;
    cuda->n_threads = params->n_threads;
    cuda->conv_elems = INT32_MAX; /* cuDNN counts in 32 bits */
    RP_TRY(RP_CUDA(cuda, cudaSetDevice(cuda->device)));
    RP_TRY(RP_CUDA(cuda, cudaGetDeviceProperties(&prop, cuda->device)));
    (void)snprintf(cuda->name, sizeof(cuda->name), "%.63s", prop.name);
    rp_cuda_uuid_text(&prop.uuid, cuda->id, sizeof(cuda->id));
    cuda->capability = 10 * prop.major + prop.minor;
    const rp_cuda_which which = {cuda->device, cuda->name, prop.major, prop.minor};
    RP_TRY(rp_cuda_need_kernels(cuda, &which));
    RP_TRY(rp_cuda_choose_act(&which, params->precision, &cuda->act));
    cuda->fp8 = rp_precision_is_fp8(params->precision);
    cuda->narrow_attention = params->precision == RP_PRECISION_FP8_ATTENTION;
    RP_TRY(RP_CUDA(cuda, cudaMallocHost(&flag, sizeof(*cuda->flag))));
    cuda->flag = flag;
    *cuda->flag = 0;
    return open_handles(cuda);
}

static rp_status cuda_open(const rp_backend_params *params, void **self_out)
{
    const int n = rp_cuda_n_devices();

    if (n == 0) {
        return RP_FAIL(RP_E_UNSUP, "backend cuda: %s", rp_cuda_why_not());
    }
    if (params->device < 0 || params->device >= n) {
        return RP_FAIL(RP_E_ARG, "backend cuda: GPU %d; this process sees 0 to %d", params->device,
                       n - 1);
    }
    rp_cuda *cuda = calloc(1, sizeof(*cuda));
    if (cuda == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the CUDA backend");
    }
    const rp_status st = open_device(cuda, params);
    if (st != RP_OK) {
        cuda_close(cuda);
        return st;
    }
    *self_out = cuda;
    return RP_OK;
}

static unsigned precisions_of(const rp_cuda *cuda)
{
    static const rp_precision all[] = {RP_PRECISION_F32, RP_PRECISION_BF16, RP_PRECISION_FP8,
                                       RP_PRECISION_FP8_ATTENTION};
    const rp_cuda_which which = {cuda->device, cuda->name, cuda->capability / 10,
                                 cuda->capability % 10};
    char why[RP_CUDA_WHY_BYTES];
    unsigned set = 0;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (rp_cuda_why_can_compute(&which, all[i], why, sizeof(why))) {
            set |= RP_PRECISION_BIT(all[i]);
        }
    }
    return set;
}

static void cuda_info(void *self, rp_device_info *out)
{
    rp_cuda_info(self, out);
    out->precisions = precisions_of(self);
    out->bytes_scratch_room = SCRATCH_ROOM;
}

/* Scratch grows in the first, plain run of a sequence. */
static rp_status cuda_reserve(void *self, int k_max, int n_kv_max, int head_dim_max)
{
    (void)self;
    (void)k_max;
    (void)n_kv_max;
    (void)head_dim_max;
    return RP_OK;
}

/* Sequences first: scratch addresses are inside them. Plans stay, as the handles do: what they need
 * of the workspace is asked for in every run. */
static void cuda_trim(void *self)
{
    rp_cuda *cuda = self;

    (void)cudaSetDevice(cuda->device);
    rp_cuda_graphs_drop(cuda);
    rp_cuda_keep(cuda, RP_CUDA(cuda, cudaStreamSynchronize(cuda->stream)));
    rp_cuda_scratch_drop(cuda);
}

/* A device error comes before a number that is not finite: it is the cause. */
static rp_status take_failure(rp_cuda *cuda)
{
    rp_cuda_keep(cuda, rp_cuda_check(cuda, cudaGetLastError(), "kernels"));
    if (*cuda->flag != 0) {
        *cuda->flag = 0;
        if (cuda->failed == RP_OK) {
            cuda->failed =
                RP_FAIL(RP_E_MODEL, "the prediction is not finite (latents or weights too large?)");
        }
    }
    const rp_status st = cuda->failed;
    cuda->failed = RP_OK;
    return st;
}

static rp_status cuda_sync(void *self)
{
    rp_cuda *cuda = self;

    (void)cudaSetDevice(cuda->device);
    rp_cuda_keep(cuda, RP_CUDA(cuda, cudaStreamSynchronize(cuda->stream)));
    rp_cuda_uploader_drop(cuda);
    return take_failure(cuda);
}

static rp_status cuda_wait(void *self, int index)
{
    rp_cuda *cuda = self;

    if (index < 0 || index >= cuda->n_marks) {
        return cuda_sync(self);
    }
    (void)cudaSetDevice(cuda->device);
    rp_cuda_keep(cuda, RP_CUDA(cuda, cudaEventSynchronize(cuda->marks[index])));
    return take_failure(cuda);
}

static rp_status cuda_peek(void *self)
{
    return ((const rp_cuda *)self)->failed;
}

const rp_backend_ops rp_backend_cuda = {
    .name = "cuda",
    .help = "one NVIDIA GPU per rank",
    .usable = rp_cuda_usable,
    .n_devices = rp_cuda_n_devices,
    .why_not = rp_cuda_why_not,
    .pci = rp_cuda_pci,
    .info = cuda_info,
    .open = cuda_open,
    .close = cuda_close,
    .restart = cuda_restart,
    .reserve = cuda_reserve,
    .trim = cuda_trim,
    .alloc = rp_cuda_alloc,
    .alloc_act = rp_cuda_alloc_act,
    .release = rp_cuda_release,
    .alloc_host = rp_cuda_alloc_host,
    .release_host = rp_cuda_release_host,
    .put = rp_cuda_put,
    .get = rp_cuda_get,
    .copy = rp_cuda_copy,
    .weights_begin = rp_cuda_weights_begin,
    .weights_span = rp_cuda_weights_span,
    .weight_place = rp_cuda_weight_place,
    .weight = rp_cuda_weight,
    .weight_release = rp_cuda_weight_release,
    .weight_fill = rp_cuda_weight_fill,
    .sync = cuda_sync,
    .peek = cuda_peek,
    .replay = rp_cuda_replay,
    .recorded = rp_cuda_recorded,
    .check_finite = rp_cuda_check_finite,
    .copy_rows = rp_cuda_copy_rows,
    .combine = rp_cuda_combine,
    .project = rp_cuda_project,
    .extrapolate = rp_cuda_extrapolate,
    .marks_reserve = rp_cuda_marks_reserve,
    .mark = rp_cuda_mark,
    .wait = cuda_wait,
    .marks_read = rp_cuda_marks_read,
    .embed = rp_cuda_embed,
    .linear = rp_cuda_linear,
    .gated_linear = rp_cuda_gated_linear,
    .attention = rp_cuda_attention,
    .rms_norm = rp_cuda_rms_norm,
    .add_rms_norm = rp_cuda_add_rms_norm,
    .add_rms_norm_rms_norm = rp_cuda_add_rms_norm_rms_norm,
    .layer_norm = rp_cuda_layer_norm,
    .head_norm_rope = rp_cuda_head_norm_rope,
    .swiglu = rp_cuda_swiglu,
    .geglu = rp_cuda_geglu,
    .silu = rp_cuda_silu,
    .add = rp_cuda_add,
    .patchify = rp_cuda_patchify,
    .unpatchify = rp_cuda_unpatchify,
    .picture_rows = rp_cuda_picture_rows,
    .conv2d = rp_cuda_conv2d,
    .group_norm = rp_cuda_group_norm,
    .transpose = rp_cuda_transpose,
    .to_bytes = rp_cuda_to_bytes,
};
