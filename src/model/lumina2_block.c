/* lumina2_block.c - the transformer blocks of the Lumina2 denoiser. */
#include "model/lumina2.h"

#include <math.h>

#define LUMINA2_QK_EPS 1e-5f /* of the query and key norms, whatever norm_eps says */

/* mem.normed[t - first] = attention over x, for its output projection, which must come next */
static void block_attend(rp_lumina2 *self, const rp_lumina2_block *block, int t, int first,
                         const float *cos, const float *sin)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    const int q_dim = c->n_heads * c->head_dim;
    const int kv_dim = c->n_kv_heads * c->head_dim;
    const int stride = q_dim + 2 * kv_dim;
    const rp_tensor *const w[] = {&block->q, &block->k, &block->v};
    float *const q = self->mem.qkv.data;
    float *const k = q + q_dim;
    const rp_rope_shape rope = {
        .t = t,
        .n_q = c->n_heads,
        .n_k = c->n_kv_heads,
        .head_dim = c->head_dim,
        .row_stride = stride,
        .eps = LUMINA2_QK_EPS,
        .kind = RP_ROPE_PAIRS,
    };
    const rp_attention_shape shape = {
        .n_q = t - first,
        .n_kv = t,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .q_stride = stride,
        .k_stride = stride,
        .v_stride = stride,
        .out_stride = q_dim,
        .scale = (float)(1.0 / sqrt(c->head_dim)),
        .feeds_linear = true,
    };

    ops->linear(self->backend.self, self->mem.normed.data, t, c->hidden, c->hidden, w, 3, NULL, q);
    ops->head_norm_rope(self->backend.self, &rope, q, &block->norm_q, &block->norm_k, cos, sin);
    /* normed was read by linear() above: its room is free again */
    ops->attention(self->backend.self, &shape, q + (size_t)first * (size_t)stride, k, k + kv_dim,
                   self->mem.normed.data);
}

/* mem.branch[t] = w2(silu(w1 y) * w3 y), y = mem.normed[t] */
static void block_feed_forward(rp_lumina2 *self, const rp_lumina2_block *block, int t)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    const rp_tensor *const out[] = {&block->w2};

    ops->gated_linear(self->backend.self, self->mem.normed.data, t, c->hidden, &block->w1,
                      &block->w3, true, self->mem.gates.data, self->mem.inner.data);
    ops->linear(self->backend.self, self->mem.inner.data, t, c->ffn, c->ffn, out, 1, NULL,
                self->mem.branch.data);
}

/* x[n] += gate * norm(branch), then mem.normed = what the next block, if any, starts from. */
static void block_close(rp_lumina2 *self, const rp_lumina2_block *block, const float *mod,
                        const rp_lumina2_block *next, const float *next_mod, float *x, int n)
{
    const rp_backend_ops *ops = self->backend.ops;
    const int d = self->config.hidden;
    const float eps = self->config.norm_eps;
    const float *const gate = mod == NULL ? NULL : mod + 3 * d;

    if (next == NULL) {
        ops->add_rms_norm(self->backend.self, x, self->mem.branch.data, n, d, &block->ffn_norm2,
                          0.0f, eps, gate);
    } else {
        ops->add_rms_norm_rms_norm(self->backend.self, x, self->mem.branch.data, n, d,
                                   &block->ffn_norm2, 0.0f, eps, gate, &next->norm1, next_mod,
                                   self->mem.normed.data, true);
    }
}

void rp_lumina2_blocks_run(rp_lumina2 *self, int first, int n, float *x, int t, int skip,
                           const float *cos, const float *sin, const float *mod)
{
    const rp_backend_ops *ops = self->backend.ops;
    const int d = self->config.hidden;
    const float eps = self->config.norm_eps;
    const rp_lumina2_block *block = self->block + first;

    if (n > 0) {
        ops->rms_norm(self->backend.self, x, t, d, &block->norm1, 0.0f, eps, mod,
                      self->mem.normed.data, true);
    }
    for (int i = 0; i < n; i++, block++) {
        const bool last = i == n - 1;
        const int from = last ? skip : 0;
        const rp_tensor *const proj[] = {&block->o};
        const float *const m = mod == NULL ? NULL : mod + (size_t)i * 4 * (size_t)d;
        float *const y = x + (size_t)from * (size_t)d;

        block_attend(self, block, t, from, cos, sin);
        ops->linear(self->backend.self, self->mem.normed.data, t - from, d, d, proj, 1, NULL,
                    self->mem.branch.data);
        ops->add_rms_norm_rms_norm(self->backend.self, y, self->mem.branch.data, t - from, d,
                                   &block->norm2, 0.0f, eps, m == NULL ? NULL : m + d,
                                   &block->ffn_norm1, m == NULL ? NULL : m + 2 * d,
                                   self->mem.normed.data, true);
        block_feed_forward(self, block, t - from);
        block_close(self, block, m, last ? NULL : block + 1, m == NULL ? NULL : m + 4 * d, y,
                    t - from);
    }
}
