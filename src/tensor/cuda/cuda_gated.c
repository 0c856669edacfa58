/*
 * cuda_gated.c - a gated pair of products: as one kernel (cuda_gated.cu), or as the ops that it
 * stands for.
 *
 * Shapes, types, addresses and the device decide, so all ranks get the same bits.
 */
#include "tensor/cuda/cuda.h"

#include "tensor/cuda/cuda_ops.h"

/* Matrices of 8 bits, or whose product the next one may want in 8 bits, are for cuda_linear.c and
 * cuda_narrow.c. */
static bool is_wide(const rp_cuda *cuda, const rp_tensor *w_gate, const rp_tensor *w_up)
{
    return !cuda->fp8 && w_gate->dtype == RP_BF16 && w_up->dtype == RP_BF16 &&
           w_gate->dim[0] == w_up->dim[0];
}

/* Did it take the job? */
static bool in_one(rp_cuda *cuda, const float *x, int t, int k, const rp_tensor *w_gate,
                   const rp_tensor *w_up, float *out)
{
    const rp_cuda_view from = rp_cuda_at(cuda, x), to = rp_cuda_at(cuda, out);
    const rp_cuda_gated g = {.x = from.data,
                             .w_gate = w_gate->data,
                             .w_up = w_up->data,
                             .t = t,
                             .k = k,
                             .d = (int)w_gate->dim[0],
                             .out = to.data};

    if (from.dtype != RP_BF16 || to.dtype != RP_BF16 || !rp_cuda_gated_can(&g, cuda->capability)) {
        return false;
    }
    const rp_cuda_gated_way way = rp_cuda_gated_choose(&g);
    rp_cuda_keep(cuda, RP_CUDA(cuda, rp_cuda_k_gated(cuda->stream, &g, &way)));
    return true;
}

void rp_cuda_gated_linear(void *self, const float *x, int t, int k, const rp_tensor *w_gate,
                          const rp_tensor *w_up, float *room, float *out)
{
    const rp_tensor *const w[] = {w_gate, w_up};

    /* Looking up addresses ends what the op before has left in 8 bits: not before a product that
     * may want it. */
    if (is_wide(self, w_gate, w_up) && in_one(self, x, t, k, w_gate, w_up, out)) {
        return;
    }
    rp_cuda_linear(self, x, t, k, k, w, 2, NULL, room);
    rp_cuda_swiglu(self, room, t, (int)w_gate->dim[0], out);
}
