/* enc_gemma2.c - the Gemma 2 text encoder (a causal language model read at a hidden layer). */
#include "model/gemma2.h"
#include "model/model_list.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------ open, close */

static void gemma2_close(void *handle)
{
    rp_gemma2 *self = handle;

    if (self == NULL) {
        return;
    }
    rp_buffer *const all[] = {&self->rows,     &self->normed, &self->qkv,
                              &self->attended, &self->branch, &self->gates,
                              &self->inner,    &self->cos,    &self->sin};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        rp_buffer_free(&self->backend, all[i]);
    }
    rp_params_close(&self->params);
    free(self->layer);
    free(self);
}

static rp_status gemma2_open(const rp_model_source *source, void **self_out)
{
    rp_status st = RP_OK;
    rp_config *file = NULL;
    rp_gemma2 *self = NULL;
    void *mem = NULL;

    RP_TRY(rp_mem_new(1, sizeof(*self), "the text encoder", &mem));
    self = mem;
    self->backend = source->backend;
    RP_TRY_OUT(rp_config_open(source->dir, "config.json", &file));
    RP_TRY_OUT(rp_gemma2_config_read(file, &self->config));
    RP_TRY_OUT(rp_mem_new((size_t)self->config.n_layers, sizeof(*self->layer),
                          "the text encoder's layers", &mem));
    self->layer = mem;
    RP_TRY_OUT(rp_gemma2_config_layers(file, self));
    RP_TRY_OUT(rp_params_open(source, &self->params));
    rp_gemma2_bind(self);
    RP_TRY_OUT(rp_params_finish(&self->params));

    self->fingerprint = rp_config_fingerprint(file) * 31 + rp_params_fingerprint(&self->params);
    *self_out = self;
    self = NULL;

out:
    rp_config_close(file);
    gemma2_close(self);
    return st;
}

static void gemma2_info(const void *handle, rp_encoder_info *out)
{
    const rp_gemma2 *self = handle;

    *out = (rp_encoder_info){
        .dim = self->config.hidden,
        .vocab = self->config.vocab,
        .max_tokens = self->config.max_tokens,
        .bytes_read = self->params.n_read,
    };
}

static uint64_t gemma2_fingerprint(const void *handle)
{
    const rp_gemma2 *self = handle;

    return self->fingerprint;
}

/* ----------------------------------------------------------------- encode */

static rp_status gemma2_check(const rp_gemma2_config *c, const int32_t *ids, int n, int *layer)
{
    const int wanted = *layer;

    if (n < 1 || n > c->max_tokens) {
        return RP_FAIL(RP_E_ARG, "text of %d tokens: the encoder takes 1 to %d", n, c->max_tokens);
    }
    if (wanted < -(c->n_layers + 1) || wanted > c->n_layers) {
        return RP_FAIL(RP_E_ARG, "hidden state %d: the encoder has %d to %d", wanted,
                       -(c->n_layers + 1), c->n_layers);
    }
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= c->vocab) {
            return RP_FAIL(RP_E_ARG, "token %d has id %d: the encoder knows 0 to %d", i,
                           (int)ids[i], c->vocab - 1);
        }
    }
    *layer = wanted < 0 ? wanted + c->n_layers + 1 : wanted;
    return RP_OK;
}

enum { N_WANTS = 9 };

/* All device memory that n tokens need. */
static void gemma2_list(rp_gemma2 *self, int n, rp_buffer_want out[N_WANTS])
{
    const rp_gemma2_config *c = &self->config;
    const size_t t = (size_t)n;
    const size_t q_dim = (size_t)c->n_heads * (size_t)c->head_dim;
    const size_t kv_dim = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    const size_t d = (size_t)c->hidden;
    const size_t half = (size_t)c->head_dim / 2;
    const rp_buffer_want want[] = {
        {&self->rows, t * d, "text states", false},
        {&self->normed, t * d, "normed text states", true},
        {&self->qkv, t * (q_dim + 2 * kv_dim), "text queries, keys and values", true},
        {&self->attended, t * q_dim, "attended text states", true},
        {&self->branch, t * d, "text branch outputs", true},
        {&self->gates, t * 2 * (size_t)c->ffn, "text feed-forward gates", true},
        {&self->inner, t * (size_t)c->ffn, "text feed-forward states", true},
        {&self->cos, t * half, "text rotary cosines", false},
        {&self->sin, t * half, "text rotary sines", false},
    };

    _Static_assert(sizeof(want) / sizeof(want[0]) == N_WANTS, "N_WANTS counts the rows above");
    memcpy(out, want, sizeof(want));
}

static rp_status gemma2_need(const char *dir, rp_precision precision, int n_tokens,
                             rp_model_need *out)
{
    rp_gemma2 self = {.params.random = true}; /* shapes only */
    rp_config *file = NULL;
    rp_buffer_want want[N_WANTS];
    void *mem = NULL;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_config_open(dir, "config.json", &file));
    RP_TRY_OUT(rp_gemma2_config_read(file, &self.config));
    RP_TRY_OUT(rp_mem_new((size_t)self.config.n_layers, sizeof(*self.layer),
                          "the text encoder's layers", &mem));
    self.layer = mem;
    rp_gemma2_bind(&self);
    RP_TRY_OUT(self.params.status);
    *out = (rp_model_need){.weights = rp_params_bytes(&self.params, precision)};
    gemma2_list(&self, n_tokens, want);
    out->buffers = rp_buffers_bytes(want, N_WANTS, precision);
out:
    rp_params_close(&self.params);
    free(self.layer);
    rp_config_close(file);
    return st;
}

static rp_status gemma2_grow(rp_gemma2 *self, int n)
{
    const rp_gemma2_config *c = &self->config;
    const int q_dim = c->n_heads * c->head_dim;
    const int wide = c->hidden > c->ffn ? c->hidden : c->ffn;
    rp_buffer_want want[N_WANTS];

    gemma2_list(self, n, want);
    RP_TRY(rp_buffers_grow(&self->backend, want, N_WANTS));
    return self->backend.ops->reserve(self->backend.self, wide > q_dim ? wide : q_dim, n,
                                      c->head_dim);
}

/* Rotary tables of positions 0 to n-1, in float throughout, as the reference computes them. */
static rp_status gemma2_put_rope(rp_gemma2 *self, int n)
{
    rp_status st = RP_OK;
    const rp_gemma2_config *c = &self->config;
    const size_t half = (size_t)c->head_dim / 2;
    const size_t n_elems = (size_t)n * half;
    void *mem = NULL;

    RP_TRY(rp_mem_new(2 * n_elems, sizeof(float), "text rotary tables", &mem));
    float *const cos = mem;
    float *const sin = cos + n_elems;
    for (size_t i = 0; i < n_elems; i++) {
        const float exponent = (float)(2 * (i % half)) / (float)c->head_dim;
        const float angle = (float)(i / half) * (1.0f / powf(c->theta, exponent));
        cos[i] = cosf(angle);
        sin[i] = sinf(angle);
    }
    self->backend.ops->put(self->backend.self, self->cos.data, cos, n_elems * sizeof(float));
    self->backend.ops->put(self->backend.self, self->sin.data, sin, n_elems * sizeof(float));
    st = self->backend.ops->sync(self->backend.self); /* before the host copy goes */
    free(mem);
    return st;
}

/* rows += norm(attention(norm(rows))) */
static void gemma2_attend(rp_gemma2 *self, const rp_gemma2_layer *l, int n, bool softcap)
{
    const rp_gemma2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const int q_dim = c->n_heads * c->head_dim;
    const int kv_dim = c->n_kv_heads * c->head_dim;
    const int stride = q_dim + 2 * kv_dim;
    float *const q = self->qkv.data;
    float *const k = q + q_dim;
    const rp_tensor *const in[] = {&l->q, &l->k, &l->v};
    const rp_tensor *const out[] = {&l->o};
    const rp_rope_shape rope = {
        .t = n,
        .n_q = c->n_heads,
        .n_k = c->n_kv_heads,
        .head_dim = c->head_dim,
        .row_stride = stride,
        .kind = RP_ROPE_HALVES,
    };
    const rp_attention_shape shape = {
        .n_q = n,
        .n_kv = n,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .q_stride = stride,
        .k_stride = stride,
        .v_stride = stride,
        .out_stride = q_dim,
        .scale = c->attention_scale,
        .softcap = softcap ? c->softcap : 0.0f,
        .causal = true,
        .window = l->sliding ? c->window : 0,
    };

    ops->rms_norm(be, self->rows.data, n, c->hidden, &l->norm_in, 1.0f, c->eps, NULL,
                  self->normed.data, true);
    ops->linear(be, self->normed.data, n, c->hidden, c->hidden, in, 3, NULL, q);
    ops->head_norm_rope(be, &rope, q, NULL, NULL, self->cos.data, self->sin.data);
    ops->attention(be, &shape, q, k, k + kv_dim, self->attended.data);
    ops->linear(be, self->attended.data, n, q_dim, q_dim, out, 1, NULL, self->branch.data);
    ops->add_rms_norm(be, self->rows.data, self->branch.data, n, c->hidden, &l->norm_attn, 1.0f,
                      c->eps, NULL);
}

/* rows += norm(down(gelu(gate y) * up y)), y = norm(rows) */
static void gemma2_feed_forward(rp_gemma2 *self, const rp_gemma2_layer *l, int n)
{
    const rp_gemma2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const rp_tensor *const in[] = {&l->gate, &l->up};
    const rp_tensor *const out[] = {&l->down};

    ops->rms_norm(be, self->rows.data, n, c->hidden, &l->norm_ffn, 1.0f, c->eps, NULL,
                  self->normed.data, true);
    ops->linear(be, self->normed.data, n, c->hidden, c->hidden, in, 2, NULL, self->gates.data);
    ops->geglu(be, self->gates.data, n, c->ffn, self->inner.data);
    ops->linear(be, self->inner.data, n, c->ffn, c->ffn, out, 1, NULL, self->branch.data);
    ops->add_rms_norm(be, self->rows.data, self->branch.data, n, c->hidden, &l->norm_out, 1.0f,
                      c->eps, NULL);
}

static rp_status gemma2_encode(void *handle, const int32_t *ids, int n, int softcap, int layer,
                               float *embeds)
{
    rp_gemma2 *self = handle;
    const rp_gemma2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    const size_t n_bytes = (size_t)n * (size_t)c->hidden * sizeof(float);

    RP_TRY(gemma2_check(c, ids, n, &layer));
    RP_TRY(gemma2_grow(self, n));
    RP_TRY(gemma2_put_rope(self, n));
    ops->embed(self->backend.self, &self->embed, ids, n, (float)sqrt(c->hidden), self->rows.data);
    /* hidden state i is the input of layer i, so the layers from there on are not needed */
    for (int i = 0; i < layer; i++) {
        gemma2_attend(self, &self->layer[i], n, softcap != 0);
        gemma2_feed_forward(self, &self->layer[i], n);
    }
    if (layer == c->n_layers) {
        ops->rms_norm(self->backend.self, self->rows.data, n, c->hidden, &self->norm, 1.0f, c->eps,
                      NULL, self->rows.data, false);
    }
    ops->get(self->backend.self, embeds, self->rows.data, n_bytes);
    return ops->sync(self->backend.self);
}

const rp_encoder_ops rp_enc_gemma2 = {
    .class_name = "Gemma2Model",
    .help = "Gemma 2: causal transformer, read at a hidden layer",
    .open = gemma2_open,
    .close = gemma2_close,
    .info = gemma2_info,
    .fingerprint = gemma2_fingerprint,
    .need = gemma2_need,
    .encode = gemma2_encode,
};
