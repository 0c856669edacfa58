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
#include "model/params.h"
#include "sample/schedule.h"
#include "text/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char *dir;           /* absolute, or as given */
    rp_backend backend;  /* borrowed */
    bool on_device;      /* weights take memory of a device */
    bool whole;          /* see rp_pipeline_options */
    bool random_weights; /* drawn, not read; prompts are then made up too */
    bool weights_come;   /* the denoiser's weights are placed, not read: another rank sends them */
    void
        *denoiser_weights; /* all of them, where the backend keeps them; NULL for the CPU's files */
    size_t denoiser_bytes;
    double read_seconds; /* opening all networks, until their weights were there */
    size_t bytes_read;   /* of files, for it */
    const rp_denoiser_ops *denoiser;
    void *denoiser_self;
    rp_denoiser_info denoiser_info;
    /* where `whole` only, the VAE also on ranks that have decoded; encoder and VAE may have left
     * the device (job_room.h): then self is NULL */
    const rp_encoder_ops *encoder;
    void *encoder_self;
    rp_encoder_info encoder_info;
    const rp_vae_ops *vae;
    void *vae_self;
    rp_vae_info vae_info;
    uint64_t encoder_fingerprint, vae_fingerprint;
    rp_tokenizer *tokenizer; /* NULL with random weights */
    rp_flow_config flow;
    uint64_t fingerprint; /* of the denoiser: the same on all ranks */
    bool has_sampled;     /* a job came as far as that */
    size_t scratch_known; /* by units, the most that was given back since; 0: never */
    /* What a job samples in, and where other ranks' pictures arrive, kept for the next job;
     * borrowed, NULL where there are none. */
    rp_buffer *latents, *pictures;
} rp_pipeline;

/* How to open one. */
typedef struct {
    bool whole;          /* also text encoder, VAE, tokenizer and scheduler (rank 0) */
    bool random_weights; /* of the folder only the JSON configs are read */
    bool weights_come;   /* see rp_pipeline */
} rp_pipeline_options;

/* Open `dir`; "" finds the shipped model (beside the build folder or under the installed prefix).
 * RP_E_IO, RP_E_FORMAT, RP_E_UNSUP, RP_E_NOMEM, logged with what is known. Release with
 * rp_pipeline_close, also after an error. */
rp_status rp_pipeline_open(const char *dir, rp_backend backend, const rp_pipeline_options *options,
                           rp_pipeline *out);
void rp_pipeline_close(rp_pipeline *pipeline);

/* Open the encoder (where `whole`) or the VAE if it is not; close it if it is open. By job_room.c.
 */
rp_status rp_pipeline_open_encoder(rp_pipeline *pipeline);
rp_status rp_pipeline_open_vae(rp_pipeline *pipeline);
void rp_pipeline_close_encoder(rp_pipeline *pipeline);
void rp_pipeline_close_vae(rp_pipeline *pipeline);

/* Last component of the folder, for people. Borrowed. */
const char *rp_pipeline_name(const rp_pipeline *pipeline);

#endif
