/* cuda_ops.c - ops that are one kernel of ours: addresses looked up, kernel launched. */
#include "tensor/cuda/cuda_ops.h"

#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <string.h>

/* A launch that was refused names its op here; a kernel that fails later is found by sync(). */
static void launched(rp_cuda *cuda, const char *op)
{
    rp_cuda_keep(cuda, rp_cuda_check(cuda, cudaPeekAtLastError(), op));
}

/* Vectors of weights are f32 on the device. */
static const float *vector_of(const rp_tensor *w)
{
    return w == NULL ? NULL : w->data;
}

void rp_cuda_check_finite(void *self, const float *x, size_t n)
{
    rp_cuda *cuda = self;

    rp_cuda_k_check_finite(cuda->stream, rp_cuda_at(cuda, x).data, n, cuda->flag);
    launched(cuda, "check_finite");
}

/* Vectors of latents come from alloc(): they are where their addresses say. */
void rp_cuda_combine(void *self, float *out, size_t n, int n_terms, const float *coef,
                     const float *const *in)
{
    rp_cuda *cuda = self;

    if (n_terms < 0 || n_terms > RP_VEC_TERMS) {
        rp_cuda_keep(cuda, RP_FAIL(RP_E_ARG, "combine: %d terms; 0 to %d", n_terms, RP_VEC_TERMS));
        return;
    }
    rp_cuda_k_combine(cuda->stream, out, n, n_terms, coef, in);
    launched(cuda, "combine");
}

void rp_cuda_project(void *self, const float *a, const float *b, size_t n, float *room)
{
    rp_cuda *cuda = self;

    rp_cuda_k_project(cuda->stream, a, b, n, room);
    launched(cuda, "project");
}

void rp_cuda_extrapolate(void *self, const rp_vec_rows *rows, float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_k_extrapolate(cuda->stream, rows, out);
    launched(cuda, "extrapolate");
}

/* The kernel reads the ids from pinned host memory, which must not change before it has run. */
static rp_status place_ids(rp_cuda *cuda, const int32_t *ids, int t)
{
    RP_TRY(RP_CUDA(cuda, cudaStreamSynchronize(cuda->stream)));
    if (t > cuda->n_ids) {
        void *mem = NULL;
        RP_TRY(RP_CUDA(cuda, cudaMallocHost(&mem, (size_t)t * sizeof(*ids))));
        (void)cudaFreeHost(cuda->ids);
        cuda->ids = mem;
        cuda->n_ids = t;
    }
    memcpy(cuda->ids, ids, (size_t)t * sizeof(*ids));
    return RP_OK;
}

void rp_cuda_embed(void *self, const rp_tensor *table, const int32_t *ids, int t, float scale,
                   float *out)
{
    rp_cuda *cuda = self;
    const rp_status st = t > 0 ? place_ids(cuda, ids, t) : RP_OK;

    rp_cuda_keep(cuda, st);
    if (st == RP_OK && t > 0) {
        rp_cuda_k_embed(cuda->stream, rp_cuda_weight_view(table), cuda->ids, t, (int)table->dim[1],
                        scale, rp_cuda_at(cuda, out));
        launched(cuda, "embed");
    }
}

/* Where a norm writes out[t, d]. */
typedef struct {
    rp_cuda_view to;
    rp_cuda_narrow also;
    bool only; /* as e4m3 and nowhere else */
} norm_out;

/* Whether rows are in e4m3 only must not depend on the room that there happens to be: made here. */
static rp_status begin_norm(rp_cuda *cuda, const float *out, int t, int d, bool feeds_linear,
                            norm_out *rows)
{
    rows->to = rp_cuda_at(cuda, out);
    rows->only = feeds_linear && rp_cuda_narrow_can(cuda, rows->to, t, d);
    if (rows->only) {
        return rp_cuda_narrow_room(cuda, t, d, &rows->also);
    }
    rows->also = rp_cuda_narrow_for(cuda, rows->to, t, d);
    return RP_OK;
}

static void end_norm(rp_cuda *cuda, const norm_out *rows, const float *out, int t, int d)
{
    if (rows->only) {
        rp_cuda_narrow_only(cuda, out, t, d);
    } else {
        rp_cuda_narrow_done(cuda, rows->also, out, t, d);
    }
}

void rp_cuda_rms_norm(void *self, const float *x, int t, int d, const rp_tensor *w, float shift,
                      float eps, const float *scale, float *out, bool feeds_linear)
{
    rp_cuda *cuda = self;
    norm_out rows;
    const rp_status st = begin_norm(cuda, out, t, d, feeds_linear, &rows);

    rp_cuda_keep(cuda, st);
    if (st == RP_OK) {
        rp_cuda_k_rms_norm(cuda->stream, rp_cuda_at(cuda, x), t, d, vector_of(w), shift, eps, scale,
                           rows.to, rows.also, rows.only);
        launched(cuda, "rms_norm");
        end_norm(cuda, &rows, out, t, d);
    }
}

void rp_cuda_add_rms_norm(void *self, float *x, const float *y, int t, int d, const rp_tensor *w,
                          float shift, float eps, const float *gate)
{
    rp_cuda *cuda = self;

    rp_cuda_k_add_rms_norm(cuda->stream, rp_cuda_at(cuda, x), rp_cuda_at(cuda, y), t, d,
                           vector_of(w), shift, eps, gate);
    launched(cuda, "add_rms_norm");
}

void rp_cuda_add_rms_norm_rms_norm(void *self, float *x, const float *y, int t, int d,
                                   const rp_tensor *w, float shift, float eps, const float *gate,
                                   const rp_tensor *w2, const float *scale2, float *out,
                                   bool feeds_linear)
{
    rp_cuda *cuda = self;
    norm_out rows;
    const rp_status st = begin_norm(cuda, out, t, d, feeds_linear, &rows);

    rp_cuda_keep(cuda, st);
    if (st == RP_OK) {
        rp_cuda_k_add_rms_norm_rms_norm(cuda->stream, rp_cuda_at(cuda, x), rp_cuda_at(cuda, y), t,
                                        d, vector_of(w), shift, eps, gate, vector_of(w2), scale2,
                                        rows.to, rows.also, rows.only);
        launched(cuda, "add_rms_norm_rms_norm");
        end_norm(cuda, &rows, out, t, d);
    }
}

void rp_cuda_layer_norm(void *self, const float *x, int t, int d, float eps, const float *scale,
                        float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_k_layer_norm(cuda->stream, rp_cuda_at(cuda, x), t, d, eps, scale,
                         rp_cuda_at(cuda, out));
    launched(cuda, "layer_norm");
}

void rp_cuda_head_norm_rope(void *self, const rp_rope_shape *shape, float *x, const rp_tensor *w_q,
                            const rp_tensor *w_k, const float *cos, const float *sin)
{
    rp_cuda *cuda = self;

    rp_cuda_k_head_norm_rope(cuda->stream, shape, rp_cuda_at(cuda, x), vector_of(w_q),
                             vector_of(w_k), cos, sin);
    launched(cuda, "head_norm_rope");
}

void rp_cuda_swiglu(void *self, const float *ab, int t, int d, float *out)
{
    rp_cuda *cuda = self;
    const rp_cuda_view from = rp_cuda_at(cuda, ab), to = rp_cuda_at(cuda, out);
    const rp_cuda_narrow also = rp_cuda_narrow_for(cuda, to, t, d);

    if (also.data != NULL) {
        rp_cuda_k_swiglu_narrow(cuda->stream, from, t, d, to, also);
    } else {
        rp_cuda_k_swiglu(cuda->stream, from, t, d, to);
    }
    launched(cuda, "swiglu");
    rp_cuda_narrow_done(cuda, also, out, t, d);
}

void rp_cuda_geglu(void *self, const float *ab, int t, int d, float *out)
{
    rp_cuda *cuda = self;
    const rp_cuda_view from = rp_cuda_at(cuda, ab), to = rp_cuda_at(cuda, out);
    const rp_cuda_narrow also = rp_cuda_narrow_for(cuda, to, t, d);

    if (also.data != NULL) {
        rp_cuda_k_geglu_narrow(cuda->stream, from, t, d, to, also);
    } else {
        rp_cuda_k_geglu(cuda->stream, from, t, d, to);
    }
    launched(cuda, "geglu");
    rp_cuda_narrow_done(cuda, also, out, t, d);
}

void rp_cuda_silu(void *self, const float *x, size_t n, float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_k_silu(cuda->stream, rp_cuda_at(cuda, x), n, rp_cuda_at(cuda, out));
    launched(cuda, "silu");
}

void rp_cuda_add(void *self, float *x, const float *y, size_t n)
{
    rp_cuda *cuda = self;

    rp_cuda_k_add(cuda->stream, rp_cuda_at(cuda, x), rp_cuda_at(cuda, y), n);
    launched(cuda, "add");
}

void rp_cuda_patchify(void *self, const float *x, int c, int h, int w, int p, float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_k_patchify(cuda->stream, rp_cuda_at(cuda, x), c, h, w, p, rp_cuda_at(cuda, out));
    launched(cuda, "patchify");
}

void rp_cuda_unpatchify(void *self, const float *tokens, int c, int h, int w, int p, float sign,
                        float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_k_unpatchify(cuda->stream, rp_cuda_at(cuda, tokens), c, h, w, p, sign,
                         rp_cuda_at(cuda, out));
    launched(cuda, "unpatchify");
}

void rp_cuda_group_norm(void *self, const float *x, int c, int hw, int groups, const rp_tensor *w,
                        const rp_tensor *b, float eps, bool silu, float *out)
{
    rp_cuda *cuda = self;
    const bool rows = rp_cuda_picture_rows(cuda);
    const size_t n =
        rows ? rp_cuda_group_rows_floats(c, groups) : rp_cuda_group_norm_floats(groups);
    const rp_status st =
        rp_cuda_scratch_grow(cuda, &cuda->scores, n * sizeof(float), "sums of a group norm");

    rp_cuda_keep(cuda, st);
    if (st == RP_OK) {
        (rows ? rp_cuda_k_group_norm_rows : rp_cuda_k_group_norm)(
            cuda->stream, rp_cuda_at(cuda, x), c, hw, groups, vector_of(w), vector_of(b), eps, silu,
            cuda->scores.data, rp_cuda_at(cuda, out));
        launched(cuda, "group_norm");
    }
}

void rp_cuda_transpose(void *self, const float *x, int rows, int cols, float *out)
{
    rp_cuda *cuda = self;

    rp_cuda_k_transpose(cuda->stream, rp_cuda_at(cuda, x), rows, cols, rp_cuda_at(cuda, out));
    launched(cuda, "transpose");
}

void rp_cuda_to_bytes(void *self, const float *x, size_t hw, uint8_t *bytes)
{
    rp_cuda *cuda = self;

    rp_cuda_k_to_bytes(cuda->stream, rp_cuda_at(cuda, x), hw, rp_cuda_picture_rows(cuda),
                       rp_cuda_at(cuda, bytes).data);
    launched(cuda, "to_bytes");
}
