/* cuda_device.c - which devices there are and what they can, and failures in words. */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failures ---- */

static rp_status fail_of(const rp_cuda *cuda, bool no_memory, const char *text, const char *call)
{
    const size_t n_call = strcspn(call, "("); /* the function's name says enough */

    if (cuda == NULL || cuda->id[0] == '\0') { /* before it is known which GPU it is */
        return RP_FAIL(no_memory ? RP_E_NOMEM : RP_E_CUDA, "GPU %d: %.*s: %s",
                       cuda == NULL ? 0 : cuda->device, (int)n_call, call, text);
    }
    return RP_FAIL(no_memory ? RP_E_NOMEM : RP_E_CUDA, "GPU %d (%s, %s): %.*s: %s", cuda->device,
                   cuda->name, cuda->id, (int)n_call, call, text);
}

rp_status rp_cuda_check(const rp_cuda *cuda, cudaError_t code, const char *call)
{
    if (code == cudaSuccess) {
        return RP_OK;
    }
    (void)cudaGetLastError(); /* reported here, not again by the next sync */
    return fail_of(cuda, code == cudaErrorMemoryAllocation, cudaGetErrorString(code), call);
}

rp_status rp_cuda_check_blas(const rp_cuda *cuda, cublasStatus_t code, const char *call)
{
    return code == CUBLAS_STATUS_SUCCESS ? RP_OK
                                         : fail_of(cuda, code == CUBLAS_STATUS_ALLOC_FAILED,
                                                   cublasLtGetStatusString(code), call);
}

rp_status rp_cuda_check_dnn(const rp_cuda *cuda, cudnnStatus_t code, const char *call)
{
    const bool no_memory = code == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
                           code == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;

    return code == CUDNN_STATUS_SUCCESS ? RP_OK
                                        : fail_of(cuda, no_memory, cudnnGetErrorString(code), call);
}

void rp_cuda_keep(rp_cuda *cuda, rp_status status)
{
    if (cuda->failed == RP_OK) {
        cuda->failed = status;
    }
}

/* ---- devices ---- */

/* Devices, or 0 and the cause. */
static int count_devices(char *why, size_t n_why)
{
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    rp_cuda_count count = {
        .n = n,
        .error = code == cudaSuccess ? NULL : cudaGetErrorString(code),
        .driver_too_old = code == cudaErrorInsufficientDriver,
        .visible = getenv("CUDA_VISIBLE_DEVICES"),
    };

    (void)cudaDriverGetVersion(&count.driver);
    (void)cudaRuntimeGetVersion(&count.runtime);
    (void)cudaGetLastError();
    return rp_cuda_why_none(&count, why, n_why) ? n : 0;
}

int rp_cuda_n_devices(void)
{
    char why[RP_CUDA_WHY_BYTES];

    return count_devices(why, sizeof(why));
}

/* Device 0 is asked about: a rank alone takes it, and all ranks of a host must come to one answer.
 * By its number, for the device itself would need a context to say it, and that is for open(). */
static bool can_work(char *why, size_t n_why)
{
    struct cudaDeviceProp prop;

    if (count_devices(why, n_why) == 0) {
        return false;
    }
    const cudaError_t code = cudaGetDeviceProperties(&prop, 0);
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        (void)snprintf(why, n_why, "GPU 0: %s", cudaGetErrorString(code));
        return false;
    }
    const rp_cuda_which which = {0, prop.name, prop.major, prop.minor};
    if (!rp_cuda_why_can_run(RP_CUDA_ARCHITECTURES, &which)) {
        rp_cuda_why_no_kernels(&which, why, n_why);
        return false;
    }
    return true;
}

const char *rp_cuda_why_not(void)
{
    static char why[RP_CUDA_WHY_BYTES];

    (void)can_work(why, sizeof(why));
    return why;
}

bool rp_cuda_usable(void)
{
    char why[RP_CUDA_WHY_BYTES];

    return can_work(why, sizeof(why));
}

rp_status rp_cuda_need_kernels(const rp_cuda *cuda, const rp_cuda_which *which)
{
    const cudaError_t code = rp_cuda_k_probe();
    char why[RP_CUDA_WHY_BYTES];

    if (code != cudaErrorNoKernelImageForDevice && code != cudaErrorInvalidDeviceFunction &&
        code != cudaErrorUnsupportedPtxVersion) {
        return rp_cuda_check(cuda, code, "cudaFuncGetAttributes");
    }
    (void)cudaGetLastError();
    rp_cuda_why_no_kernels(which, why, sizeof(why));
    return RP_FAIL(RP_E_UNSUP, "backend cuda: %s", why);
}

rp_status rp_cuda_choose_act(const rp_cuda_which *which, rp_precision precision, rp_dtype *act_out)
{
    const rp_precision chosen = rp_cuda_why_precision(which, precision);
    char why[RP_CUDA_WHY_BYTES];

    if (!rp_cuda_why_can_compute(which, chosen, why, sizeof(why))) {
        return RP_FAIL(RP_E_UNSUP, "%s", why);
    }
    *act_out = chosen == RP_PRECISION_F32 ? RP_F32 : RP_BF16;
    return RP_OK;
}

void rp_cuda_uuid_text(const cudaUUID_t *uuid, char *out, size_t n_out)
{
    const unsigned char *b = (const unsigned char *)uuid->bytes;

    (void)snprintf(out, n_out,
                   "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                   b[14], b[15]);
}

void rp_cuda_pci(int device, char *out, size_t n_out)
{
    if (cudaDeviceGetPCIBusId(out, (int)n_out, device) != cudaSuccess) {
        (void)cudaGetLastError(); /* open() finds the same device, and says what is wrong */
        out[0] = '\0';
    }
}

void rp_cuda_info(void *self, rp_device_info *out)
{
    rp_cuda *cuda = self;

    *out = (rp_device_info){.on_device = true};
    (void)snprintf(out->name, sizeof(out->name), "%s", cuda->name);
    (void)snprintf(out->id, sizeof(out->id), "%s", cuda->id);
    (void)snprintf(out->precision, sizeof(out->precision), "%s",
                   cuda->narrow_attention ? rp_precision_name(RP_PRECISION_FP8_ATTENTION)
                   : cuda->fp8            ? "fp8"
                   : cuda->act == RP_BF16 ? "bf16"
                                          : "f32");
    rp_cuda_pci(cuda->device, out->pci, sizeof(out->pci));
    (void)cudaSetDevice(cuda->device); /* the next call asks the current one */
    (void)cudaMemGetInfo(&out->bytes_free, &out->bytes_total);
    out->bytes_scratch = rp_cuda_scratch_bytes(cuda);
}
