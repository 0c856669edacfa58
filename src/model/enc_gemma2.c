/*
 * enc_gemma2.c - the Gemma 2 text encoder (a causal language model read at a hidden layer).
 *
 * Source: Gemma Team, "Gemma 2", arXiv:2408.00118; the behaviour followed is that of transformers'
 * Gemma2Model in float32.
 */
#include "model/model_list.h"
#include "model/params.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_WIDTH = 65536,
    MAX_FFN = 262144,
    MAX_VOCAB = 1 << 22,
    MAX_LAYERS = 512,
    MAX_HEADS = 512,
    MAX_HEAD_DIM = 4096,
    MAX_POSITIONS = 1 << 20,
    REQUIRED = -1
};

typedef struct {
    rp_tensor norm_in, norm_attn, norm_ffn, norm_out; /* [hidden]; the stored w stands for 1 + w */
    rp_tensor q, k, v, o;
    rp_tensor gate, up, down;
    bool sliding; /* attention sees only the last `window` tokens */
} gemma2_layer;

typedef struct {
    int vocab, hidden, ffn, n_layers;
    int n_heads, n_kv_heads, head_dim;
    int max_tokens, window;
    float eps, softcap; /* softcap 0: the config has none */
    float attention_scale, theta;
} gemma2_config;

typedef struct {
    gemma2_config config;
    rp_backend backend;
    rp_params params;
    uint64_t fingerprint;
    rp_tensor embed; /* [vocab, hidden] */
    rp_tensor norm;  /* after the last layer */
    gemma2_layer *layer;

    /* backend memory for t tokens */
    rp_buffer rows, normed; /* [t, hidden] */
    rp_buffer qkv;          /* [t, (n_heads + 2 n_kv_heads) head_dim] */
    rp_buffer attended;     /* [t, n_heads head_dim] */
    rp_buffer branch;       /* [t, hidden] */
    rp_buffer gates, inner; /* [t, 2 ffn], [t, ffn] */
    rp_buffer cos, sin;     /* [t, head_dim / 2] */
} gemma2;

/* ----------------------------------------------------------------- config */

/* Rotary base: its own key in older files, inside rope_parameters or rope_scaling in newer ones. */
static float gemma2_config_theta(rp_config *file)
{
    static const struct {
        const char *group, *type, *old_type, *theta;
    } place[] = {
        {"rope_parameters", "rope_parameters.rope_type", "rope_parameters.type",
         "rope_parameters.rope_theta"},
        {"rope_scaling", "rope_scaling.rope_type", "rope_scaling.type", "rope_scaling.rope_theta"},
    };
    double theta = rp_config_real(file, "rope_theta", 1.0, 1e9, 10000.0);

    for (size_t i = 0; i < sizeof(place) / sizeof(place[0]); i++) {
        if (!rp_config_has(file, place[i].group)) {
            continue;
        }
        const char *type = rp_config_text(
            file, rp_config_has(file, place[i].type) ? place[i].type : place[i].old_type,
            "default");
        if (type != NULL && strcmp(type, "default") != 0) {
            rp_config_refuse(file, place[i].group, "type default");
        }
        theta = rp_config_real(file, place[i].theta, 1.0, 1e9, theta);
    }
    return (float)theta;
}

/* What other values would change in the arithmetic, and this encoder does not do. */
static void gemma2_config_fixed(rp_config *file)
{
    const char *type = rp_config_text(file, "model_type", "gemma2");
    const char *activation = rp_config_text(file, "hidden_activation", "gelu_pytorch_tanh");

    if (type != NULL && strcmp(type, "gemma2") != 0) {
        rp_config_refuse(file, "model_type", "gemma2");
    }
    if (activation != NULL && strcmp(activation, "gelu_pytorch_tanh") != 0) {
        rp_config_refuse(file, "hidden_activation", "gelu_pytorch_tanh");
    }
    if (rp_config_bool(file, "attention_bias", false)) {
        rp_config_refuse(file, "attention_bias", "false");
    }
    if (rp_config_bool(file, "use_bidirectional_attention", false)) {
        rp_config_refuse(file, "use_bidirectional_attention", "false");
    }
}

static rp_status gemma2_config_read(rp_config *file, gemma2_config *c)
{
    double scalar = 0.0;

    c->vocab = (int)rp_config_int(file, "vocab_size", 1, MAX_VOCAB, REQUIRED);
    c->hidden = (int)rp_config_int(file, "hidden_size", 1, MAX_WIDTH, REQUIRED);
    c->ffn = (int)rp_config_int(file, "intermediate_size", 1, MAX_FFN, REQUIRED);
    c->n_layers = (int)rp_config_int(file, "num_hidden_layers", 1, MAX_LAYERS, REQUIRED);
    c->n_heads = (int)rp_config_int(file, "num_attention_heads", 1, MAX_HEADS, REQUIRED);
    c->n_kv_heads = (int)rp_config_int(file, "num_key_value_heads", 1, MAX_HEADS, REQUIRED);
    c->head_dim = (int)rp_config_int(file, "head_dim", 2, MAX_HEAD_DIM, REQUIRED);
    c->max_tokens = (int)rp_config_int(file, "max_position_embeddings", 1, MAX_POSITIONS, REQUIRED);
    c->window = (int)rp_config_int(file, "sliding_window", 0, MAX_POSITIONS, 0);
    c->eps = (float)rp_config_real(file, "rms_norm_eps", 0.0, 1.0, 1e-6);
    c->softcap = (float)rp_config_real(file, "attn_logit_softcapping", 0.0, 1e6, 0.0);
    c->theta = gemma2_config_theta(file);
    /* 256 is the class's default */
    scalar = rp_config_real(file, "query_pre_attn_scalar", 1e-3, 1e6, 256.0);
    c->attention_scale = (float)(1.0 / sqrt(scalar));
    gemma2_config_fixed(file);
    if (c->n_kv_heads > 0 && c->n_heads % c->n_kv_heads != 0) {
        rp_config_refuse(file, "num_key_value_heads", "a divisor of num_attention_heads");
    }
    if (c->head_dim % 2 != 0) {
        rp_config_refuse(file, "head_dim", "an even number");
    }
    return rp_config_finish(file);
}

/* Which layers slide: a list in newer files; else the even ones, as the class counts. */
static rp_status gemma2_config_layers(rp_config *file, gemma2 *self)
{
    const gemma2_config *c = &self->config;
    const bool listed = rp_config_has(file, "layer_types");

    for (int i = 0; i < c->n_layers; i++) {
        const char *type = listed ? rp_config_text_at(file, "layer_types", i) : NULL;
        self->layer[i].sliding =
            listed ? type != NULL && strcmp(type, "sliding_attention") == 0 : i % 2 == 0;
        if (listed && !self->layer[i].sliding &&
            (type == NULL || strcmp(type, "full_attention") != 0)) {
            rp_config_refuse(file, "layer_types",
                             "sliding_attention or full_attention for each of num_hidden_layers");
            break;
        }
    }
    if (listed && rp_config_text_at(file, "layer_types", c->n_layers) != NULL) {
        rp_config_refuse(file, "layer_types", "as many entries as num_hidden_layers");
    }
    return rp_config_finish(file);
}

/* ------------------------------------------------------------ open, close */

static void gemma2_bind_layer(gemma2 *self, const char *prefix, int i)
{
    const gemma2_config *c = &self->config;
    rp_params *p = &self->params;
    gemma2_layer *l = &self->layer[i];
    const int d = c->hidden;
    const int q_dim = c->n_heads * c->head_dim;
    const int kv_dim = c->n_kv_heads * c->head_dim;

#define LAYER "%slayers.%d."
    rp_params_vector(p, &l->norm_in, d, LAYER "input_layernorm.weight", prefix, i);
    rp_params_vector(p, &l->norm_attn, d, LAYER "post_attention_layernorm.weight", prefix, i);
    rp_params_vector(p, &l->norm_ffn, d, LAYER "pre_feedforward_layernorm.weight", prefix, i);
    rp_params_vector(p, &l->norm_out, d, LAYER "post_feedforward_layernorm.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->q, q_dim, d, LAYER "self_attn.q_proj.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->k, kv_dim, d, LAYER "self_attn.k_proj.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->v, kv_dim, d, LAYER "self_attn.v_proj.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->o, d, q_dim, LAYER "self_attn.o_proj.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->gate, c->ffn, d, LAYER "mlp.gate_proj.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->up, c->ffn, d, LAYER "mlp.up_proj.weight", prefix, i);
    rp_params_matrix_narrow(p, &l->down, d, c->ffn, LAYER "mlp.down_proj.weight", prefix, i);
#undef LAYER
}

static void gemma2_bind(gemma2 *self)
{
    const gemma2_config *c = &self->config;
    rp_params *p = &self->params;
    /* files of the causal language model carry a prefix and an output head */
    const char *prefix = rp_weights_has(p->file, "model.embed_tokens.weight") ? "model." : "";

    rp_weights_ignore(p->file, "lm_head.");
    rp_params_matrix(p, &self->embed, c->vocab, c->hidden, "%sembed_tokens.weight", prefix);
    rp_params_vector(p, &self->norm, c->hidden, "%snorm.weight", prefix);
    for (int i = 0; i < c->n_layers; i++) {
        gemma2_bind_layer(self, prefix, i);
    }
}

static void gemma2_close(void *handle)
{
    gemma2 *self = handle;

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
    gemma2 *self = NULL;
    void *mem = NULL;

    RP_TRY(rp_mem_new(1, sizeof(*self), "the text encoder", &mem));
    self = mem;
    self->backend = source->backend;
    RP_TRY_OUT(rp_config_open(source->dir, "config.json", &file));
    RP_TRY_OUT(gemma2_config_read(file, &self->config));
    RP_TRY_OUT(rp_mem_new((size_t)self->config.n_layers, sizeof(*self->layer),
                          "the text encoder's layers", &mem));
    self->layer = mem;
    RP_TRY_OUT(gemma2_config_layers(file, self));
    RP_TRY_OUT(rp_params_open(source, &self->params));
    gemma2_bind(self);
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
    const gemma2 *self = handle;

    *out = (rp_encoder_info){
        .dim = self->config.hidden,
        .vocab = self->config.vocab,
        .max_tokens = self->config.max_tokens,
        .bytes_read = self->params.n_read,
    };
}

static uint64_t gemma2_fingerprint(const void *handle)
{
    const gemma2 *self = handle;

    return self->fingerprint;
}

/* ----------------------------------------------------------------- encode */

static rp_status gemma2_check(const gemma2_config *c, const int32_t *ids, int n, int *layer)
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

static rp_status gemma2_grow(gemma2 *self, int n)
{
    const gemma2_config *c = &self->config;
    const size_t t = (size_t)n;
    const size_t q_dim = (size_t)c->n_heads * (size_t)c->head_dim;
    const size_t kv_dim = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    const size_t d = (size_t)c->hidden;
    const size_t half = (size_t)c->head_dim / 2;
    const struct {
        rp_buffer *buffer;
        size_t n_elems;
        const char *what;
        bool act; /* input or output of products: the backend's own element type */
    } want[] = {
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
    int k_max = c->hidden > c->ffn ? c->hidden : c->ffn;

    k_max = (size_t)k_max > q_dim ? k_max : (int)q_dim;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        RP_TRY((want[i].act ? rp_buffer_grow_act : rp_buffer_grow)(&self->backend, want[i].buffer,
                                                                   want[i].n_elems, want[i].what));
    }
    return self->backend.ops->reserve(self->backend.self, k_max, n, c->head_dim);
}

/* Rotary tables of positions 0 to n-1, in float throughout, as the reference computes them. */
static rp_status gemma2_put_rope(gemma2 *self, int n)
{
    rp_status st = RP_OK;
    const gemma2_config *c = &self->config;
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
static void gemma2_attend(gemma2 *self, const gemma2_layer *l, int n, bool softcap)
{
    const gemma2_config *c = &self->config;
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
static void gemma2_feed_forward(gemma2 *self, const gemma2_layer *l, int n)
{
    const gemma2_config *c = &self->config;
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
    gemma2 *self = handle;
    const gemma2_config *c = &self->config;
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
    .encode = gemma2_encode,
};
