/* vae_kl_config.c - config.json of an AutoencoderKL and the names of its decoder's parameters. */
#include "model/vae_kl.h"

#include "base/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CHANNELS = 8192, MAX_LATENT_CHANNELS = 256, REQUIRED = -1 };

static void kl_config_types(rp_config *file, const char *key, const char *allowed, int n)
{
    if (!rp_config_has(file, key)) {
        rp_config_refuse(file, key, allowed);
        return;
    }
    for (int i = 0; i <= n; i++) {
        const char *type = rp_config_text_at(file, key, i);
        if (i < n ? type == NULL || strcmp(type, allowed) != 0 : type != NULL) {
            rp_config_refuse(file, key, allowed);
            return;
        }
    }
}

static void kl_config_fixed(rp_config *file, int n_blocks)
{
    const char *activation = rp_config_text(file, "act_fn", "silu");
    const char *name = rp_config_text(file, "_class_name", "AutoencoderKL");

    kl_config_types(file, "down_block_types", "DownEncoderBlock2D", n_blocks);
    kl_config_types(file, "up_block_types", "UpDecoderBlock2D", n_blocks);
    if (activation != NULL && strcmp(activation, "silu") != 0) {
        rp_config_refuse(file, "act_fn", "silu");
    }
    if (name != NULL && strcmp(name, "AutoencoderKL") != 0) {
        rp_config_refuse(file, "_class_name", "AutoencoderKL");
    }
    if (rp_config_has(file, "latents_mean")) {
        rp_config_refuse(file, "latents_mean", "null");
    }
    if (rp_config_has(file, "latents_std")) {
        rp_config_refuse(file, "latents_std", "null");
    }
    (void)rp_config_int(file, "out_channels", RP_KL_RGB, RP_KL_RGB, RP_KL_RGB);
}

rp_status rp_kl_config_read(rp_config *file, rp_kl_config *c)
{
    int64_t channels[RP_KL_MAX_BLOCKS] = {0};

    c->n_blocks =
        rp_config_ints(file, "block_out_channels", -RP_KL_MAX_BLOCKS, 1, MAX_CHANNELS, channels);
    c->n_resnets =
        1 + (int)rp_config_int(file, "layers_per_block", 1, RP_KL_MAX_RESNETS - 1, REQUIRED);
    c->latent_channels =
        (int)rp_config_int(file, "latent_channels", 1, MAX_LATENT_CHANNELS, REQUIRED);
    c->groups = (int)rp_config_int(file, "norm_num_groups", 1, MAX_CHANNELS, REQUIRED);
    c->attend = rp_config_bool(file, "mid_block_add_attention", true);
    c->post_quant = rp_config_bool(file, "use_post_quant_conv", true);
    c->scaling = (float)rp_config_real(file, "scaling_factor", 1e-6, 1e6, NAN);
    c->shift = (float)rp_config_real(file, "shift_factor", -1e6, 1e6, 0.0);
    RP_TRY(rp_config_finish(file));

    if (c->n_blocks < 1) {
        rp_config_refuse(file, "block_out_channels", "1 to 8 numbers");
    }
    kl_config_fixed(file, c->n_blocks);
    for (int i = 0; i < c->n_blocks; i++) {
        c->channels[i] = (int)channels[c->n_blocks - 1 - i];
        if (c->channels[i] % c->groups != 0) {
            rp_config_refuse(file, "norm_num_groups", "a divisor of all block_out_channels");
        }
    }
    return rp_config_finish(file);
}

/* ------------------------------------------------------------------- bind */

static void kl_bind_resnet(rp_params *p, rp_kl_resnet *r, int c_in, int c_out, const char *at)
{
    r->c_in = c_in;
    r->c_out = c_out;
    rp_params_vector(p, &r->norm1_w, c_in, "%s.norm1.weight", at);
    rp_params_vector(p, &r->norm1_b, c_in, "%s.norm1.bias", at);
    rp_params_conv(p, &r->conv1_w, c_out, c_in, 3, "%s.conv1.weight", at);
    rp_params_vector(p, &r->conv1_b, c_out, "%s.conv1.bias", at);
    rp_params_vector(p, &r->norm2_w, c_out, "%s.norm2.weight", at);
    rp_params_vector(p, &r->norm2_b, c_out, "%s.norm2.bias", at);
    rp_params_conv(p, &r->conv2_w, c_out, c_out, 3, "%s.conv2.weight", at);
    rp_params_vector(p, &r->conv2_b, c_out, "%s.conv2.bias", at);
    if (c_in != c_out) {
        rp_params_conv(p, &r->skip_w, c_out, c_in, 1, "%s.conv_shortcut.weight", at);
        rp_params_vector(p, &r->skip_b, c_out, "%s.conv_shortcut.bias", at);
    }
}

static void kl_bind_attention(rp_params *p, rp_kl_attention *a, int c)
{
#define ATTENTION "decoder.mid_block.attentions.0."
    rp_params_vector(p, &a->norm_w, c, ATTENTION "group_norm.weight");
    rp_params_vector(p, &a->norm_b, c, ATTENTION "group_norm.bias");
    rp_params_matrix(p, &a->q_w, c, c, ATTENTION "to_q.weight");
    rp_params_vector(p, &a->q_b, c, ATTENTION "to_q.bias");
    rp_params_matrix(p, &a->k_w, c, c, ATTENTION "to_k.weight");
    rp_params_vector(p, &a->k_b, c, ATTENTION "to_k.bias");
    rp_params_matrix(p, &a->v_w, c, c, ATTENTION "to_v.weight");
    rp_params_vector(p, &a->v_b, c, ATTENTION "to_v.bias");
    rp_params_matrix(p, &a->o_w, c, c, ATTENTION "to_out.0.weight");
    rp_params_vector(p, &a->o_b, c, ATTENTION "to_out.0.bias");
#undef ATTENTION
}

static void kl_bind_block(rp_kl *self, int i)
{
    const rp_kl_config *c = &self->config;
    rp_params *p = &self->params;
    const int c_out = c->channels[i];
    char at[64];

    for (int j = 0; j < c->n_resnets; j++) {
        const int c_in = j == 0 && i > 0 ? c->channels[i - 1] : c_out;
        (void)snprintf(at, sizeof(at), "decoder.up_blocks.%d.resnets.%d", i, j);
        kl_bind_resnet(p, &self->block[i].resnet[j], c_in, c_out, at);
    }
    if (i < c->n_blocks - 1) {
        (void)snprintf(at, sizeof(at), "decoder.up_blocks.%d.upsamplers.0.conv", i);
        rp_params_conv(p, &self->block[i].up_w, c_out, c_out, 3, "%s.weight", at);
        rp_params_vector(p, &self->block[i].up_b, c_out, "%s.bias", at);
    }
}

void rp_kl_bind(rp_kl *self)
{
    const rp_kl_config *c = &self->config;
    rp_params *p = &self->params;
    const int wide = c->channels[0];
    const int last = c->channels[c->n_blocks - 1];

    rp_weights_ignore(p->file, "encoder.");
    rp_weights_ignore(p->file, "quant_conv.");
    if (c->post_quant) {
        rp_params_conv(p, &self->post_w, c->latent_channels, c->latent_channels, 1,
                       "post_quant_conv.weight");
        rp_params_vector(p, &self->post_b, c->latent_channels, "post_quant_conv.bias");
    }
    rp_params_conv(p, &self->in_w, wide, c->latent_channels, 3, "decoder.conv_in.weight");
    rp_params_vector(p, &self->in_b, wide, "decoder.conv_in.bias");
    kl_bind_resnet(p, &self->mid[0], wide, wide, "decoder.mid_block.resnets.0");
    kl_bind_resnet(p, &self->mid[1], wide, wide, "decoder.mid_block.resnets.1");
    if (c->attend) {
        kl_bind_attention(p, &self->attention, wide);
    }
    for (int i = 0; i < c->n_blocks; i++) {
        kl_bind_block(self, i);
    }
    rp_params_vector(p, &self->norm_w, last, "decoder.conv_norm_out.weight");
    rp_params_vector(p, &self->norm_b, last, "decoder.conv_norm_out.bias");
    rp_params_conv(p, &self->out_w, RP_KL_RGB, last, 3, "decoder.conv_out.weight");
    rp_params_vector(p, &self->out_b, RP_KL_RGB, "decoder.conv_out.bias");
}
