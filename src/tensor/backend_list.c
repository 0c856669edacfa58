/* backend_list.c - the backends of this build, best first. */
#include "tensor/tensor_ops.h"

#include "tensor/cpu/cpu.h"

#ifdef RP_HAVE_CUDA
extern const rp_backend_ops rp_backend_cuda;
#endif

const rp_backend_ops *const rp_backend_list[] = {
#ifdef RP_HAVE_CUDA
    &rp_backend_cuda,
#endif
    &rp_backend_cpu,
    NULL,
};
