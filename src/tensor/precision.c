/* precision.c - names of the precisions, as --precision takes them. */
#include "tensor/tensor_ops.h"

#include <string.h>

static const char *const g_names[] = {
    [RP_PRECISION_AUTO] = "auto",
    [RP_PRECISION_F32] = "f32",
    [RP_PRECISION_BF16] = "bf16",
    [RP_PRECISION_FP8] = "fp8",
    [RP_PRECISION_FP8_ATTENTION] = "fp8-attention",
};

const char *rp_precision_name(rp_precision precision)
{
    return g_names[precision];
}

rp_precision rp_precision_named(const char *name)
{
    for (int p = RP_PRECISION_F32; p <= RP_PRECISION_FP8_ATTENTION; p++) {
        if (name != NULL && strcmp(name, g_names[p]) == 0) {
            return (rp_precision)p;
        }
    }
    return RP_PRECISION_AUTO;
}

bool rp_precision_is_fp8(rp_precision precision)
{
    return precision == RP_PRECISION_FP8 || precision == RP_PRECISION_FP8_ATTENTION;
}
