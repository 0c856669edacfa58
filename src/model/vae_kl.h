/*
 * vae_kl.h - the parts of the decoder of an AutoencoderKL, shared by its files:
 *
 *   vae_kl.c          the ops: open, close, decode
 *   vae_kl_config.c   config.json and names of the parameters
 *
 * Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models",
 * arXiv:2112.10752; the behaviour followed is that of diffusers' AutoencoderKL.
 */
#ifndef RP_VAE_KL_H
#define RP_VAE_KL_H

#include "model/params.h"
#include "weights/config.h"

enum {
    RP_KL_MAX_BLOCKS = 8,
    RP_KL_MAX_RESNETS = 17, /* layers_per_block + 1 */
    RP_KL_RGB = 3
};

typedef struct {
    int c_in, c_out;
    rp_tensor norm1_w, norm1_b, conv1_w, conv1_b;
    rp_tensor norm2_w, norm2_b, conv2_w, conv2_b;
    rp_tensor skip_w, skip_b; /* 1x1, when c_in != c_out */
} rp_kl_resnet;

typedef struct {
    rp_kl_resnet resnet[RP_KL_MAX_RESNETS];
    rp_tensor up_w, up_b; /* after nearest-neighbour doubling; not in the last block */
} rp_kl_block;

typedef struct {
    rp_tensor norm_w, norm_b;
    rp_tensor q_w, q_b, k_w, k_b, v_w, v_b, o_w, o_b;
} rp_kl_attention;

typedef struct {
    int n_blocks, n_resnets;
    int channels[RP_KL_MAX_BLOCKS]; /* of the blocks in the decoder's order, widest first */
    int latent_channels, groups;
    bool attend, post_quant;
    float scaling, shift;
} rp_kl_config;

/* Host memory that a device reaches fast. */
typedef struct {
    void *mem;
    size_t n_bytes;
} rp_kl_host;

typedef struct {
    rp_kl_config config;
    rp_backend backend;
    rp_params params;
    uint64_t fingerprint;

    rp_tensor post_w, post_b; /* post_quant_conv, 1x1 */
    rp_tensor in_w, in_b;
    rp_kl_resnet mid[2];
    rp_kl_attention attention;
    rp_kl_block block[RP_KL_MAX_BLOCKS];
    rp_tensor norm_w, norm_b, out_w, out_b;

    /* three pictures [c, h, w]: the current one and two to work in, swapped as it goes */
    rp_buffer x, a, b;
    rp_buffer bytes;         /* [h, w, 3], 4 of them a float */
    rp_kl_host latents, out; /* f32 [latent_channels, h, w]; the bytes */
} rp_kl;

/* Read and check `file`, a config.json. RP_E_FORMAT. */
rp_status rp_kl_config_read(rp_config *file, rp_kl_config *c);

/* Bind all parameters by name. */
void rp_kl_bind(rp_kl *self);

#endif
