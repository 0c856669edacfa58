/*
 * job_pipeline.h - a model folder in diffusers' pipeline layout, opened.
 *
 *   model_index.json                 class names; they choose rows of model/model.h
 *   transformer/ text_encoder/ vae/  networks
 *   tokenizer/ scheduler/            text and noise levels
 */
#ifndef RP_JOB_PIPELINE_H
#define RP_JOB_PIPELINE_H

#include "model/model.h"
#include "sample/schedule.h"
#include "text/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char *dir;                  /* absolute, or as given */
    rp_backend backend;         /* borrowed */
    const rp_denoiser_ops *denoiser;
    void *denoiser_self;
    rp_denoiser_info denoiser_info;
    /* on rank 0 only: */
    const rp_encoder_ops *encoder;
    void *encoder_self;
    rp_encoder_info encoder_info;
    const rp_vae_ops *vae;
    void *vae_self;
    rp_vae_info vae_info;
    rp_tokenizer *tokenizer;
    rp_flow_config flow;
    uint64_t fingerprint;       /* of the denoiser: the same on all ranks */
} rp_pipeline;

/* Open `dir`; "" finds the shipped model (beside the build folder or under the installed prefix).
 * `whole`: also text encoder, VAE, tokenizer and scheduler (rank 0). RP_E_IO, RP_E_FORMAT, RP_E_UNSUP,
 * RP_E_NOMEM, logged with what is known. Release with rp_pipeline_close, also after an error. */
rp_status rp_pipeline_open(const char *dir, rp_backend backend, bool whole, rp_pipeline *out);
void rp_pipeline_close(rp_pipeline *pipeline);

/* Last component of the folder, for people. Borrowed. */
const char *rp_pipeline_name(const rp_pipeline *pipeline);

#endif
