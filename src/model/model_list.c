/* model_list.c - the registries of networks: one line each. */
#include "model/model_list.h"

const rp_denoiser_ops *const rp_denoiser_list[] = {&rp_model_lumina2, NULL};

const rp_encoder_ops *const rp_encoder_list[] = {&rp_enc_gemma2, NULL};

const rp_vae_ops *const rp_vae_list[] = {&rp_vae_kl, NULL};
