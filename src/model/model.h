/*
 * model.h - the three kinds of network of a pipeline, as ops tables: denoiser, text encoder, VAE.
 *
 * A network is sized from its JSON config and bound to its weights by name; it calls tensor ops and
 * knows neither ranks nor devices. Adding one: model_<name>.c (or enc_, vae_) with a table, and one
 * line in model_list.c; its class name in model_index.json selects it.
 */
#ifndef RP_MODEL_H
#define RP_MODEL_H

#include "tensor/tensor_ops.h"

#include <rankpool/status.h>

#include <stdint.h>

/* What a network is opened from; borrowed, must outlive the network. */
typedef struct {
    const char *dir; /* the network's folder, for messages and files */
    rp_backend backend;
    bool random_weights; /* read the config only and draw the weights: for measuring */
    bool weights_come;   /* make room for the weights and leave it empty: another rank sends them */
} rp_model_source;

/* ------------------------------------------------------------- denoiser */

typedef struct {
    int latent_channels;
    int patch;           /* latent height and width must be multiples of this */
    int native_size;     /* latent height and width it was trained for (sample_size) */
    int cond_dim;        /* width of a condition's rows */
    int max_cond_tokens; /* most rows of a condition */
    int max_latent_size; /* largest latent height or width */
    int64_t n_params;
    size_t bytes_read; /* of its files, to open it */
} rp_denoiser_info;

/* One job's shape: everything that buffers and tables are sized from. */
typedef struct {
    int c, h, w;        /* latent */
    const float *sigma; /* [n_evals] noise level of every model call of the job, in order */
    int n_evals;
    int n_conds;    /* conditions 0 .. n_conds-1 */
    int max_tokens; /* longest condition */
} rp_denoiser_job;

/* Bytes of device memory, as computed from a config. */
typedef struct {
    size_t weights, buffers;
    int h, w; /* of a denoiser: the latent size that the buffers are for */
} rp_model_need;

typedef struct {
    const char *class_name; /* "Lumina2Transformer2DModel" */
    const char *help;

    /* RP_E_IO, RP_E_FORMAT, RP_E_UNSUP, RP_E_NOMEM (logged). */
    rp_status (*open)(const rp_model_source *source, void **self_out);
    void (*close)(void *self); /* NULL is allowed */
    void (*info)(const void *self, rp_denoiser_info *out);
    uint64_t (*fingerprint)(const void *self); /* of config and weights */

    /* What the network in `dir` would take in this precision (not AUTO), and begin() for a job of
     * this shape (h 0: the size it was trained for; c and sigma are not read). Reads the config
     * only: for saying what does not fit. */
    rp_status (*need)(const char *dir, rp_precision precision, const rp_denoiser_job *job,
                      rp_model_need *out);

    /* Size buffers and compute what depends on sigma alone (adaLN vectors of all evals). Everything
     * that predict() needs is allocated here; memory is kept and reused by the next job. */
    rp_status (*begin)(void *self, const rp_denoiser_job *job);

    /* Give condition `id` its rows: embeds [n_tokens, cond_dim], f32, host memory, copied. Computes
     * what depends on the condition alone (caption embedding, context refiner, rotary tables). */
    rp_status (*condition)(void *self, int id, const float *embeds, int n_tokens);

    /*
     * One unit: the velocity dx/dsigma of latents x at sigma[eval] under condition `cond`.
     *   x, velocity  [c, h, w], f32, backend memory; velocity must not alias x
     * The noise-free sample is x - sigma * velocity. Allocates nothing. Returns when the work is
     * queued: velocity is there after the backend's next sync().
     */
    rp_status (*predict)(void *self, int cond, int eval, const float *x, float *velocity);

    /* Release everything that begin() and condition() made, as if no job had run yet; weights stay.
     */
    void (*trim)(void *self);

    /* Relative cost of one unit under condition `cond` (tokens), for placement. */
    float (*cost)(const void *self, int n_tokens, int h, int w);
} rp_denoiser_ops;

/* --------------------------------------------------------- text encoder */

typedef struct {
    int dim;        /* width of the embedding it returns */
    int vocab;      /* token ids are below this */
    int max_tokens; /* positions it can count */
    size_t bytes_read;
} rp_encoder_info;

typedef struct {
    const char *class_name; /* "Gemma2Model" */
    const char *help;
    rp_status (*open)(const rp_model_source *source, void **self_out);
    void (*close)(void *self);
    void (*info)(const void *self, rp_encoder_info *out);
    uint64_t (*fingerprint)(const void *self);
    /* As a denoiser's need, with buffers for n_tokens. */
    rp_status (*need)(const char *dir, rp_precision precision, int n_tokens, rp_model_need *out);
    /*
     * embeds[n, dim] (f32, host memory) of n token ids. `softcap`: apply the config's attention
     * soft-capping (transformers' "eager" attention does, its default "sdpa" does not).
     * `layer`: hidden state to return, counted like Python: -2 is the pipeline's; 0 the embedding.
     * RP_E_ARG: id out of range, n < 1, n > max_tokens, no such layer.
     */
    rp_status (*encode)(void *self, const int32_t *ids, int n, int softcap, int layer,
                        float *embeds);
} rp_encoder_ops;

/* ------------------------------------------------------------------ vae */

typedef struct {
    int latent_channels;
    int scale;     /* picture pixels per latent pixel, 8 */
    size_t widest; /* numbers per latent pixel that the largest picture on the way holds */
    size_t bytes_read;
} rp_vae_info;

typedef struct {
    const char *class_name; /* "AutoencoderKL" */
    const char *help;
    rp_status (*open)(const rp_model_source *source, void **self_out);
    void (*close)(void *self);
    void (*info)(const void *self, rp_vae_info *out);
    uint64_t (*fingerprint)(const void *self);
    /* As a denoiser's need, with buffers for latents of h x w. */
    rp_status (*need)(const char *dir, rp_precision precision, int h, int w, rp_model_need *out);
    /* latents [c, h, w] as the denoiser left them (unscaled inside: x / scaling_factor +
     * shift_factor), f32
     * -> rgb [3, scale h, scale w], about -1 to 1, not clamped, f32
     * -> bytes [scale h, scale w, 3], clamped and rounded (the op to_bytes)
     * All in host memory; rgb or bytes may be NULL. */
    rp_status (*decode)(void *self, const float *latents, int h, int w, float *rgb, uint8_t *bytes);
} rp_vae_ops;

/* All networks of this build, each ended by NULL. */
extern const rp_denoiser_ops *const rp_denoiser_list[];
extern const rp_encoder_ops *const rp_encoder_list[];
extern const rp_vae_ops *const rp_vae_list[];

#endif
