/* backend_list.c - the backends of this build, best first. */
#include "tensor/tensor_ops.h"

#include "tensor/cpu/cpu.h"

const rp_backend_ops *const rp_backend_list[] = {
    &rp_backend_cpu,
    NULL,
};
