/* gemma2_config.c - config.json of a Gemma2Model and the names of its parameters. */
#include "model/gemma2.h"

#include <math.h>
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

rp_status rp_gemma2_config_read(rp_config *file, rp_gemma2_config *c)
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

rp_status rp_gemma2_config_layers(rp_config *file, rp_gemma2 *self)
{
    const rp_gemma2_config *c = &self->config;
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

/* ------------------------------------------------------------------- bind */

static void gemma2_bind_layer(rp_gemma2 *self, const char *prefix, int i)
{
    const rp_gemma2_config *c = &self->config;
    rp_params *p = &self->params;
    rp_gemma2_layer *l = &self->layer[i];
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

void rp_gemma2_bind(rp_gemma2 *self)
{
    const rp_gemma2_config *c = &self->config;
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
