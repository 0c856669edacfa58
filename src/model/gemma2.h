/*
 * gemma2.h - the parts of the Gemma 2 text encoder, shared by its files:
 *
 *   enc_gemma2.c      the ops: open, close, encode
 *   gemma2_config.c   config.json and names of the parameters
 *
 * Source: Gemma Team, "Gemma 2", arXiv:2408.00118; the behaviour followed is that of transformers'
 * Gemma2Model in float32.
 */
#ifndef RP_GEMMA2_H
#define RP_GEMMA2_H

#include "model/params.h"
#include "weights/config.h"

typedef struct {
    rp_tensor norm_in, norm_attn, norm_ffn, norm_out; /* [hidden]; the stored w stands for 1 + w */
    rp_tensor q, k, v, o;
    rp_tensor gate, up, down;
    bool sliding; /* attention sees only the last `window` tokens */
} rp_gemma2_layer;

typedef struct {
    int vocab, hidden, ffn, n_layers;
    int n_heads, n_kv_heads, head_dim;
    int max_tokens, window;
    float eps, softcap; /* softcap 0: the config has none */
    float attention_scale, theta;
} rp_gemma2_config;

typedef struct {
    rp_gemma2_config config;
    rp_backend backend;
    rp_params params;
    uint64_t fingerprint;
    rp_tensor embed; /* [vocab, hidden] */
    rp_tensor norm;  /* after the last layer */
    rp_gemma2_layer *layer;

    /* backend memory for t tokens */
    rp_buffer rows, normed; /* [t, hidden] */
    rp_buffer qkv;          /* [t, (n_heads + 2 n_kv_heads) head_dim] */
    rp_buffer attended;     /* [t, n_heads head_dim] */
    rp_buffer branch;       /* [t, hidden] */
    rp_buffer gates, inner; /* [t, 2 ffn], [t, ffn] */
    rp_buffer cos, sin;     /* [t, head_dim / 2] */
} rp_gemma2;

/* Read and check `file`, a config.json. RP_E_FORMAT. */
rp_status rp_gemma2_config_read(rp_config *file, rp_gemma2_config *c);

/* Which layers slide: a list in newer files; else the even ones, as the class counts. self->layer
 * has room for all layers. RP_E_FORMAT. */
rp_status rp_gemma2_config_layers(rp_config *file, rp_gemma2 *self);

/* Bind all parameters by name. */
void rp_gemma2_bind(rp_gemma2 *self);

#endif
