/* lumina2_config.c - config.json of a Lumina2Transformer2DModel and the names of its parameters. */
#include "model/lumina2.h"

#include "base/check.h"
#include "weights/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_HIDDEN = 32768,
    MAX_LAYERS = 512,
    MAX_REFINERS = 64,
    MAX_HEADS = 512,
    MAX_FFN = 262144,
    MAX_CHANNELS = 256,
    MAX_PATCH = 16,
    MAX_POSITIONS = 16384,
    MAX_TEMB = 1024, /* the class caps the timestep embedding's width there */
    REQUIRED = -1
};

static int config_size(rp_config *file, const char *key, int max, int fallback)
{
    return (int)rp_config_int(file, key, 1, max, fallback);
}

/* Inner width: the multiplier cuts 4 hidden, then it is rounded up to a multiple of multiple_of. */
static int config_ffn(rp_config *file, int hidden)
{
    const double multiplier = rp_config_real(file, "ffn_dim_multiplier", 1e-3, 64.0, 1.0);
    const int64_t multiple_of = rp_config_int(file, "multiple_of", 1, 65536, REQUIRED);
    const int64_t wanted = (int64_t)(multiplier * (4.0 * hidden));
    int64_t ffn = 0;

    if (multiple_of < 1) {
        return 1; /* the error is kept by the getter */
    }
    ffn = (wanted + multiple_of - 1) / multiple_of * multiple_of;
    if (ffn < 1 || ffn > MAX_FFN) {
        rp_config_refuse(file, "ffn_dim_multiplier", "a feed-forward width of 1 to 262144");
        return 1;
    }
    return (int)ffn;
}

static void config_heads(rp_config *file, rp_lumina2_config *c)
{
    int64_t dim[3] = {0};
    int64_t len[3] = {0};

    c->n_heads = config_size(file, "num_attention_heads", MAX_HEADS, REQUIRED);
    c->n_kv_heads = config_size(file, "num_kv_heads", MAX_HEADS, c->n_heads);
    if (c->n_heads < 1 || c->n_kv_heads < 1) {
        return;
    }
    if (c->hidden % c->n_heads != 0) {
        rp_config_refuse(file, "num_attention_heads", "a divisor of hidden_size");
        return;
    }
    if (c->n_heads % c->n_kv_heads != 0) {
        rp_config_refuse(file, "num_kv_heads", "a divisor of num_attention_heads");
        return;
    }
    c->head_dim = c->hidden / c->n_heads;
    if (rp_config_ints(file, "axes_dim_rope", 3, 2, MAX_HIDDEN, dim) != 3 ||
        rp_config_ints(file, "axes_lens", 3, 2, MAX_POSITIONS, len) != 3) {
        return;
    }
    if (dim[0] + dim[1] + dim[2] != c->head_dim || dim[0] % 2 + dim[1] % 2 + dim[2] % 2 != 0) {
        rp_config_refuse(file, "axes_dim_rope",
                         "three even numbers that add up to hidden_size / num_attention_heads");
    }
    for (int i = 0; i < 3; i++) {
        c->axes_dim[i] = (int)dim[i];
        c->axes_lens[i] = (int)len[i];
    }
}

static void config_fixed(rp_config *file, const rp_lumina2_config *c)
{
    const char *name = rp_config_text(file, "_class_name", "Lumina2Transformer2DModel");

    if (name != NULL && strcmp(name, "Lumina2Transformer2DModel") != 0) {
        rp_config_refuse(file, "_class_name", "Lumina2Transformer2DModel");
    }
    (void)rp_config_real(file, "scaling_factor", 1.0, 1.0, 1.0);
    (void)rp_config_int(file, "out_channels", c->channels, c->channels, c->channels);
}

rp_status rp_lumina2_config_read(const char *dir, rp_lumina2_config *out, uint64_t *fingerprint_out)
{
    rp_status st = RP_OK;
    rp_config *file = NULL;
    rp_lumina2_config c = {0};

    RP_TRY(rp_config_open(dir, "config.json", &file));
    c.hidden = config_size(file, "hidden_size", MAX_HIDDEN, REQUIRED);
    c.n_layers = config_size(file, "num_layers", MAX_LAYERS, REQUIRED);
    c.n_refiners = (int)rp_config_int(file, "num_refiner_layers", 0, MAX_REFINERS, REQUIRED);
    c.channels = config_size(file, "in_channels", MAX_CHANNELS, REQUIRED);
    c.patch = config_size(file, "patch_size", MAX_PATCH, REQUIRED);
    c.sample_size = config_size(file, "sample_size", MAX_POSITIONS, REQUIRED);
    c.cond_dim = config_size(file, "cap_feat_dim", MAX_HIDDEN, REQUIRED);
    c.norm_eps = (float)rp_config_real(file, "norm_eps", 0.0, 1.0, 1e-5);
    c.temb_dim = c.hidden < MAX_TEMB ? c.hidden : MAX_TEMB;
    config_heads(file, &c);
    c.ffn = config_ffn(file, c.hidden);
    config_fixed(file, &c);
    RP_TRY_OUT(rp_config_finish(file));

    *fingerprint_out = rp_config_fingerprint(file);
    *out = c;

out:
    rp_config_close(file);
    return st;
}

int rp_lumina2_n_modulated(const rp_lumina2_config *c)
{
    return c->n_refiners + c->n_layers;
}

int rp_lumina2_max_latent(const rp_lumina2_config *c)
{
    const int rows = c->axes_lens[1];
    const int cols = c->axes_lens[2];

    return c->patch * (rows < cols ? rows : cols);
}

int rp_lumina2_max_tokens(const rp_lumina2_config *c)
{
    return c->axes_lens[0] - 1; /* image tokens stand at the position after the last caption row */
}

int rp_lumina2_longest_row(const rp_lumina2_config *c)
{
    const int patch_dim = c->patch * c->patch * c->channels;
    const int all[] = {c->hidden, c->ffn, c->cond_dim, patch_dim, RP_LUMINA2_TIME_DIM};
    int k = 0;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        k = all[i] > k ? all[i] : k;
    }
    return k;
}

static void config_bind_block(rp_lumina2 *self, rp_lumina2_block *b, const char *group, int i,
                              bool modulated)
{
    const rp_lumina2_config *c = &self->config;
    rp_params *p = &self->params;
    const int d = c->hidden;
    const int kv_dim = c->n_kv_heads * c->head_dim;
    char at[64];

    (void)snprintf(at, sizeof(at), "%s.%d", group, i);
    if (modulated) {
        rp_params_matrix(p, &b->mod_w, 4 * d, c->temb_dim, "%s.norm1.linear.weight", at);
        rp_params_vector(p, &b->mod_b, 4 * d, "%s.norm1.linear.bias", at);
    }
    rp_params_vector(p, &b->norm1, d, modulated ? "%s.norm1.norm.weight" : "%s.norm1.weight", at);
    rp_params_vector(p, &b->norm2, d, "%s.norm2.weight", at);
    rp_params_vector(p, &b->ffn_norm1, d, "%s.ffn_norm1.weight", at);
    rp_params_vector(p, &b->ffn_norm2, d, "%s.ffn_norm2.weight", at);
    rp_params_matrix_narrow(p, &b->q, d, d, "%s.attn.to_q.weight", at);
    rp_params_matrix_narrow(p, &b->k, kv_dim, d, "%s.attn.to_k.weight", at);
    rp_params_matrix_narrow(p, &b->v, kv_dim, d, "%s.attn.to_v.weight", at);
    rp_params_matrix_narrow(p, &b->o, d, d, "%s.attn.to_out.0.weight", at);
    rp_params_vector(p, &b->norm_q, c->head_dim, "%s.attn.norm_q.weight", at);
    rp_params_vector(p, &b->norm_k, c->head_dim, "%s.attn.norm_k.weight", at);
    rp_params_matrix_narrow(p, &b->w1, c->ffn, d, "%s.feed_forward.linear_1.weight", at);
    rp_params_matrix_narrow(p, &b->w3, c->ffn, d, "%s.feed_forward.linear_3.weight", at);
    rp_params_matrix_narrow(p, &b->w2, d, c->ffn, "%s.feed_forward.linear_2.weight", at);
}

void rp_lumina2_config_bind(rp_lumina2 *self)
{
    const rp_lumina2_config *c = &self->config;
    rp_params *p = &self->params;
    rp_lumina2_block *block = self->block;
    const int d = c->hidden;
    const int patch_dim = c->patch * c->patch * c->channels;

    rp_params_matrix(p, &self->x_w, d, patch_dim, "x_embedder.weight");
    rp_params_vector(p, &self->x_b, d, "x_embedder.bias");
#define TIME "time_caption_embed.timestep_embedder."
    rp_params_matrix(p, &self->time1_w, c->temb_dim, RP_LUMINA2_TIME_DIM, TIME "linear_1.weight");
    rp_params_vector(p, &self->time1_b, c->temb_dim, TIME "linear_1.bias");
    rp_params_matrix(p, &self->time2_w, c->temb_dim, c->temb_dim, TIME "linear_2.weight");
    rp_params_vector(p, &self->time2_b, c->temb_dim, TIME "linear_2.bias");
#undef TIME
#define CAPTION "time_caption_embed.caption_embedder."
    rp_params_vector(p, &self->cap_norm, c->cond_dim, CAPTION "0.weight");
    rp_params_matrix(p, &self->cap_w, d, c->cond_dim, CAPTION "1.weight");
    rp_params_vector(p, &self->cap_b, d, CAPTION "1.bias");
#undef CAPTION
    rp_params_matrix(p, &self->out_mod_w, d, c->temb_dim, "norm_out.linear_1.weight");
    rp_params_vector(p, &self->out_mod_b, d, "norm_out.linear_1.bias");
    rp_params_matrix(p, &self->out_w, patch_dim, d, "norm_out.linear_2.weight");
    rp_params_vector(p, &self->out_b, patch_dim, "norm_out.linear_2.bias");

    for (int i = 0; i < c->n_refiners; i++) {
        config_bind_block(self, block++, "noise_refiner", i, true);
    }
    for (int i = 0; i < c->n_layers; i++) {
        config_bind_block(self, block++, "layers", i, true);
    }
    for (int i = 0; i < c->n_refiners; i++) {
        config_bind_block(self, block++, "context_refiner", i, false);
    }
}
