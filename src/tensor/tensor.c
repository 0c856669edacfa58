/* tensor.c - element types and shapes. */
#include "tensor/tensor.h"

#include <assert.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[RP_N_DTYPES] = {
    [RP_F32] = {"F32", 4}, [RP_F16] = {"F16", 2}, [RP_BF16] = {"BF16", 2},
    [RP_I32] = {"I32", 4}, [RP_U8] = {"U8", 1},   [RP_F8_E4M3] = {"F8_E4M3", 1},
};

size_t rp_dtype_bytes(rp_dtype dtype)
{
    assert((unsigned)dtype < RP_N_DTYPES);
    return dtypes[dtype].bytes;
}

const char *rp_dtype_name(rp_dtype dtype)
{
    assert((unsigned)dtype < RP_N_DTYPES);
    return dtypes[dtype].name;
}

bool rp_dtype_is_float(rp_dtype dtype)
{
    return dtype == RP_F32 || dtype == RP_F16 || dtype == RP_BF16 || dtype == RP_F8_E4M3;
}

int64_t rp_tensor_elems(const rp_tensor *tensor)
{
    int64_t n = 1;

    for (int i = 0; i < tensor->n_dims; i++) {
        n *= tensor->dim[i];
    }
    return n;
}
