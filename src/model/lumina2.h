/*
 * lumina2.h - the parts of the Lumina2 denoiser (a NextDiT), shared by its files:
 *
 *   model_lumina2.c    the ops: open, close, condition, predict
 *   lumina2_job.c      the ops: need, begin
 *   lumina2_config.c   config.json, what follows from it, and names of the parameters
 *   lumina2_block.c    one transformer block
 *   lumina2_tables.c   rotary and timestep tables, in host memory
 *
 * Source: Qin et al., "Lumina-Image 2.0", arXiv:2503.21758; the behaviour followed is that of
 * diffusers' Lumina2Transformer2DModel.
 */
#ifndef RP_LUMINA2_H
#define RP_LUMINA2_H

#include "model/model.h"
#include "model/params.h"

#define RP_LUMINA2_TIME_DIM                                                                        \
    256 /* width of the sinusoidal timestep embedding, fixed in the class                          \
         */

typedef struct {
    int hidden;               /* d */
    int n_layers, n_refiners; /* joint layers; noise refiners, and as many context refiners */
    int n_heads, n_kv_heads, head_dim;
    int ffn; /* inner width of the feed-forward part */
    int channels, patch, sample_size;
    int cond_dim;     /* width of a caption row */
    int temb_dim;     /* width of the timestep embedding: min(hidden, 1024) */
    int axes_dim[3];  /* elements of a head turned by caption index, row, column */
    int axes_lens[3]; /* positions that each axis can count */
    float norm_eps;
} rp_lumina2_config;

/* One transformer block. */
typedef struct {
    rp_tensor mod_w, mod_b;                       /* adaLN; unset in a context refiner */
    rp_tensor norm1, norm2, ffn_norm1, ffn_norm2; /* [hidden] */
    rp_tensor q, k, v, o, norm_q, norm_k;
    rp_tensor w1, w2, w3; /* w2(silu(w1 x) * w3 x) */
} rp_lumina2_block;

/* A condition of the job, given. */
typedef struct {
    int n_tokens; /* 0: not given yet */
} rp_lumina2_cond;

typedef struct {
    rp_lumina2_config config;
    rp_backend backend;
    rp_params params;
    uint64_t fingerprint;
    int64_t n_params;

    /* parameters */
    rp_tensor x_w, x_b; /* x_embedder */
    rp_tensor time1_w, time1_b, time2_w, time2_b;
    rp_tensor cap_norm, cap_w, cap_b;             /* caption embedder */
    rp_tensor out_mod_w, out_mod_b, out_w, out_b; /* norm_out */
    rp_lumina2_block *block; /* noise refiners, joint layers, context refiners */

    /* the job; n_evals 0 before the first begin() */
    int h, w, n_image; /* latent size, image tokens */
    int n_evals, n_conds, max_tokens;
    rp_lumina2_cond *cond; /* [n_conds] */
    int cond_room;

    /* host memory, growing */
    float *host;
    size_t host_elems;

    /* backend memory; t = max_tokens + n_image rows */
    struct {
        rp_buffer mod;       /* [noise refiners + layers, n_evals, 4 hidden] */
        rp_buffer out_scale; /* [n_evals, hidden] */
        rp_buffer time;      /* [n_evals, TIME_DIM], then temb, while begin() runs */
        rp_buffer temb;      /* [n_evals, temb_dim] */
        rp_buffer caption;   /* [n_conds, max_tokens, hidden] after the context refiner */
        rp_buffer cos, sin;  /* [n_conds, t, head_dim / 2] caption rows, then image rows */
        rp_buffer rows;      /* [t, max(hidden, cond_dim)] a residual stream */
        rp_buffer normed;    /* [t, max(hidden, cond_dim)] input of a linear */
        rp_buffer qkv;       /* [t, (n_heads + 2 n_kv_heads) head_dim] */
        rp_buffer branch;    /* [t, hidden] what a block adds */
        rp_buffer gates;     /* [t, 2 ffn] */
        rp_buffer inner;     /* [t, ffn] */
        rp_buffer patches;   /* [n_image, patch patch channels] */
        rp_buffer projected; /* the same, after the last layer */

        /* What a unit reads and writes, in places that never change, so that its ops can be
         * recorded once: the latents, the vectors of its noise level, the tables of its caption. */
        rp_buffer now_x, now_velocity; /* [c, h, w] */
        rp_buffer now_mod;             /* [noise refiners + layers, 4 hidden] */
        rp_buffer now_scale;           /* [hidden] */
        rp_buffer now_cos, now_sin;    /* [t, head_dim / 2] */
    } mem;
} rp_lumina2;

/* Read and check dir/config.json; *fingerprint_out is its checksum. RP_E_IO, RP_E_FORMAT. */
rp_status rp_lumina2_config_read(const char *dir, rp_lumina2_config *out,
                                 uint64_t *fingerprint_out);

/* Blocks with adaLN: noise refiners and joint layers, in this order the first in self->block. */
int rp_lumina2_n_modulated(const rp_lumina2_config *config);

/* Largest height or width of latents, and most rows of a caption, that the axes can count. */
int rp_lumina2_max_latent(const rp_lumina2_config *config);
int rp_lumina2_max_tokens(const rp_lumina2_config *config);

/* Longest row that any weight matrix has. */
int rp_lumina2_longest_row(const rp_lumina2_config *config);

/* Bind all parameters by name; self->block has room for all blocks. */
void rp_lumina2_config_bind(rp_lumina2 *self);

/* The ops need and begin; see model.h. */
rp_status rp_lumina2_need(const char *dir, rp_precision precision, const rp_denoiser_job *job,
                          rp_model_need *out);
rp_status rp_lumina2_begin(void *handle, const rp_denoiser_job *job);

/*
 * Blocks first to first + n - 1 in place on x[t, hidden], one after the other.
 *   skip      rows that the last of them reads and does not bring up to date
 *   cos, sin  [t, head_dim / 2]
 *   mod       [n, 4 hidden]: scale and gate of attention, scale and gate of the feed-forward part;
 * NULL for context refiners
 */
void rp_lumina2_blocks_run(rp_lumina2 *self, int first, int n, float *x, int t, int skip,
                           const float *cos, const float *sin, const float *mod);

/*
 * Rotary table of [caption | image]: caption row i is at (i, 0, 0), the image token in row r and
 * column c at (n_tokens, r, c). Angles are computed in double, cos and sin [n_tokens + rows cols,
 * head_dim/2] stored in float.
 */
void rp_lumina2_tables_rope(const rp_lumina2_config *config, int n_tokens, int rows, int cols,
                            float *cos_out, float *sin_out);

/* out[RP_LUMINA2_TIME_DIM] = [cos | sin] of t * 10000^(-i / 128), t = 1 - sigma as the pipeline
 * rounds it. */
void rp_lumina2_tables_time(float sigma, float *out);

#endif
