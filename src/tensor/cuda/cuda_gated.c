/*
 * cuda_gated.c - a gated pair of products: as one kernel (cuda_gated.cuh), or as the ops that it
 * stands for. That kernel of e4m3 writes its result as e4m3 in blocks and nothing else, so it is
 * for where only a product reads the result.
 *
 * Shapes, types, addresses and the device decide, so all ranks get the same bits.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "tensor/cuda/cuda_ops.h"

/* What the op was called with. */
typedef struct {
    const float *x;
    int t, k, d;
    const rp_tensor *w_gate, *w_up;
    bool feeds_linear;
    float *out;
} call;

/* In precision fp8 the next product may want the result of bf16 matrices in 8 bits: that is for
 * cuda_ops.c. */
static bool is_wide(const rp_cuda *cuda, const call *c)
{
    return !cuda->fp8 && c->w_gate->dtype == RP_BF16 && c->w_up->dtype == RP_BF16;
}

/* Long sums are for products that keep them exactly. */
static bool is_narrow(const rp_cuda *cuda, const call *c)
{
    return cuda->fp8 && c->feeds_linear && c->w_gate->dtype == RP_F8_E4M3 &&
           c->w_up->dtype == RP_F8_E4M3 && c->k < RP_CUDA_LONG_K;
}

static rp_cuda_gated job_of(const call *c, rp_cuda_view out)
{
    return (rp_cuda_gated){.dtype = c->w_gate->dtype,
                           .w_gate = c->w_gate->data,
                           .w_up = c->w_up->data,
                           .t = c->t,
                           .k = c->k,
                           .d = c->d,
                           .out = out.data};
}

static rp_status launch(rp_cuda *cuda, const rp_cuda_gated *g)
{
    const rp_cuda_gated_way way = rp_cuda_gated_choose(g);

    return RP_CUDA(cuda, rp_cuda_k_gated(cuda->stream, g, &way));
}

/* done: it took the job. */
static rp_status in_bf16(rp_cuda *cuda, const call *c, bool *done)
{
    const rp_cuda_view from = rp_cuda_at(cuda, c->x), to = rp_cuda_at(cuda, c->out);
    rp_cuda_gated g = job_of(c, to);

    g.x = from.data;
    if (from.dtype != RP_BF16 || to.dtype != RP_BF16 || !rp_cuda_gated_can(&g, cuda->capability)) {
        return RP_OK;
    }
    *done = true;
    return launch(cuda, &g);
}

/* The same in 8 bits, out in blocks. */
static rp_status in_e4m3(rp_cuda *cuda, const call *c, bool *done)
{
    const rp_cuda_narrowed before = cuda->narrowed; /* looking up addresses ends it */
    const rp_cuda_view from = rp_cuda_at(cuda, c->x), to = rp_cuda_at(cuda, c->out);
    rp_cuda_gated g = job_of(c, to);
    rp_cuda_narrow x;

    g.gate_scale = c->w_gate->scale;
    g.up_scale = c->w_up->scale;
    g.block_scale = rp_cuda_blocks_at(to.data, c->t, c->d).scale;
    if (to.dtype != RP_BF16 || !rp_cuda_gated_can(&g, cuda->capability)) {
        cuda->narrowed = before; /* nothing was written, so the product may have it */
        return RP_OK;
    }
    *done = true;
    RP_TRY(rp_cuda_narrow_x(cuda, &before, c->x, from, c->t, c->k, c->k, &x));
    g.x = x.data;
    g.x_scale = x.scale;
    RP_TRY(launch(cuda, &g));
    rp_cuda_narrow_blocks(cuda, c->out, c->t, c->d);
    return RP_OK;
}

void rp_cuda_gated_linear(void *self, const float *x, int t, int k, const rp_tensor *w_gate,
                          const rp_tensor *w_up, bool feeds_linear, float *room, float *out)
{
    const call c = {x, t, k, (int)w_gate->dim[0], w_gate, w_up, feeds_linear, out};
    const rp_tensor *const w[] = {w_gate, w_up};
    rp_status st = RP_OK;
    bool done = false;

    if (is_wide(self, &c)) {
        st = in_bf16(self, &c, &done);
    } else if (is_narrow(self, &c)) {
        st = in_e4m3(self, &c, &done);
    }
    rp_cuda_keep(self, st);
    if (!done) {
        rp_cuda_linear(self, x, t, k, k, w, 2, NULL, room);
        rp_cuda_swiglu(self, room, t, c.d, out);
    }
}
