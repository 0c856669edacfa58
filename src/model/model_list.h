/* model_list.h - the tables behind the registries in model.h; one line for each network. */
#ifndef RP_MODEL_LIST_H
#define RP_MODEL_LIST_H

#include "model/model.h"

extern const rp_denoiser_ops rp_model_lumina2;
extern const rp_encoder_ops rp_enc_gemma2;
extern const rp_vae_ops rp_vae_kl;

#endif
