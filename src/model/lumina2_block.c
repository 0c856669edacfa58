/* lumina2_block.c - one transformer block of the Lumina2 denoiser. */
#include "model/lumina2.h"

#include <math.h>

#define LUMINA2_QK_EPS 1e-5f /* of the query and key norms, whatever norm_eps says */

/* mem.normed[t - first] = attention over x, before its output projection */
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
    };

    ops->linear(self->backend.self, self->mem.normed.data, t, c->hidden, c->hidden, w, 3, NULL, q);
    ops->head_norm_rope(self->backend.self, q, t, c->n_heads, c->head_dim, stride, &block->norm_q,
                        LUMINA2_QK_EPS, RP_ROPE_PAIRS, cos, sin);
    ops->head_norm_rope(self->backend.self, k, t, c->n_kv_heads, c->head_dim, stride,
                        &block->norm_k, LUMINA2_QK_EPS, RP_ROPE_PAIRS, cos, sin);
    /* normed was read by linear() above: its room is free again */
    ops->attention(self->backend.self, &shape, q + (size_t)first * (size_t)stride, k, k + kv_dim,
                   self->mem.normed.data);
}

/* mem.branch[t] = w2(silu(w1 y) * w3 y), y = mem.normed[t] */
static void block_feed_forward(rp_lumina2 *self, const rp_lumina2_block *block, int t)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    const rp_tensor *const in[] = {&block->w1, &block->w3};
    const rp_tensor *const out[] = {&block->w2};

    ops->linear(self->backend.self, self->mem.normed.data, t, c->hidden, c->hidden, in, 2, NULL,
                self->mem.gates.data);
    ops->swiglu(self->backend.self, self->mem.gates.data, t, c->ffn, self->mem.inner.data);
    ops->linear(self->backend.self, self->mem.inner.data, t, c->ffn, c->ffn, out, 1, NULL,
                self->mem.branch.data);
}

void rp_lumina2_block_run(rp_lumina2 *self, const rp_lumina2_block *block, float *x, int t,
                          int first, const float *cos, const float *sin, const float *mod)
{
    const rp_backend_ops *ops = self->backend.ops;
    const int d = self->config.hidden;
    const float eps = self->config.norm_eps;
    const float *const scale_attn = mod;
    const float *const gate_attn = mod == NULL ? NULL : mod + d;
    const float *const scale_ffn = mod == NULL ? NULL : mod + 2 * d;
    const float *const gate_ffn = mod == NULL ? NULL : mod + 3 * d;
    const rp_tensor *const proj[] = {&block->o};
    const int n = t - first;
    float *const y = x + (size_t)first * (size_t)d;

    ops->rms_norm(self->backend.self, x, t, d, &block->norm1, 0.0f, eps, scale_attn,
                  self->mem.normed.data);
    block_attend(self, block, t, first, cos, sin);
    ops->linear(self->backend.self, self->mem.normed.data, n, d, d, proj, 1, NULL,
                self->mem.branch.data);
    ops->add_rms_norm(self->backend.self, y, self->mem.branch.data, n, d, &block->norm2, 0.0f, eps,
                      gate_attn);

    ops->rms_norm(self->backend.self, y, n, d, &block->ffn_norm1, 0.0f, eps, scale_ffn,
                  self->mem.normed.data);
    block_feed_forward(self, block, n);
    ops->add_rms_norm(self->backend.self, y, self->mem.branch.data, n, d, &block->ffn_norm2, 0.0f,
                      eps, gate_ffn);
}
