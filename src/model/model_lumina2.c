/* model_lumina2.c - the Lumina2 denoiser: its ops, what is computed per condition and per unit. */
#include "model/lumina2.h"
#include "model/model_list.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

#define LUMINA2_OUT_EPS 1e-6f /* of the last layer norm, fixed in the class */

/* ------------------------------------------------------------ open, close */

static rp_buffer *lumina2_buffer_at(rp_lumina2 *self, size_t i)
{
    rp_buffer *const all[] = {
        &self->mem.mod,          &self->mem.out_scale, &self->mem.time,      &self->mem.temb,
        &self->mem.caption,      &self->mem.cos,       &self->mem.sin,       &self->mem.rows,
        &self->mem.normed,       &self->mem.qkv,       &self->mem.branch,    &self->mem.gates,
        &self->mem.inner,        &self->mem.patches,   &self->mem.projected, &self->mem.now_x,
        &self->mem.now_velocity, &self->mem.now_mod,   &self->mem.now_scale, &self->mem.now_cos,
        &self->mem.now_sin,
    };

    return i < sizeof(all) / sizeof(all[0]) ? all[i] : NULL;
}

static void lumina2_trim(void *handle)
{
    rp_lumina2 *self = handle;

    for (size_t i = 0; lumina2_buffer_at(self, i) != NULL; i++) {
        rp_buffer_free(&self->backend, lumina2_buffer_at(self, i));
    }
    free(self->cond);
    free(self->host);
    self->cond = NULL;
    self->host = NULL;
    self->cond_room = 0;
    self->host_elems = 0;
    self->n_evals = 0;
    self->n_conds = 0;
}

static void lumina2_close(void *handle)
{
    rp_lumina2 *self = handle;

    if (self == NULL) {
        return;
    }
    lumina2_trim(self);
    rp_params_close(&self->params);
    free(self->block);
    free(self);
}

static rp_status lumina2_open(const rp_model_source *source, void **self_out)
{
    rp_status st = RP_OK;
    rp_lumina2 *self = NULL;
    void *mem = NULL;

    RP_TRY(rp_mem_new(1, sizeof(*self), "the denoiser", &mem));
    self = mem;
    self->backend = source->backend;
    RP_TRY_OUT(rp_lumina2_config_read(source->dir, &self->config, &self->fingerprint));

    const rp_lumina2_config *const c = &self->config;
    const size_t n_blocks = (size_t)(rp_lumina2_n_modulated(c) + c->n_refiners);
    RP_TRY_OUT(rp_mem_new(n_blocks, sizeof(*self->block), "the denoiser's blocks", &mem));
    self->block = mem;
    RP_TRY_OUT(rp_params_open(source, &self->params));
    rp_lumina2_config_bind(self);
    RP_TRY_OUT(rp_params_finish(&self->params));
    RP_TRY_OUT(
        self->backend.ops->reserve(self->backend.self, rp_lumina2_longest_row(c), 1, c->head_dim));

    self->n_params = rp_params_count(&self->params);
    self->fingerprint = self->fingerprint * 31 + rp_params_fingerprint(&self->params);
    *self_out = self;
    self = NULL;

out:
    lumina2_close(self);
    return st;
}

static void lumina2_info(const void *handle, rp_denoiser_info *out)
{
    const rp_lumina2 *self = handle;
    const rp_lumina2_config *c = &self->config;

    *out = (rp_denoiser_info){
        .latent_channels = c->channels,
        .patch = c->patch,
        .native_size = c->sample_size,
        .cond_dim = c->cond_dim,
        .max_cond_tokens = rp_lumina2_max_tokens(c),
        .max_latent_size = rp_lumina2_max_latent(c),
        .n_params = self->n_params,
        .bytes_read = self->params.n_read,
    };
}

static uint64_t lumina2_fingerprint(const void *handle)
{
    const rp_lumina2 *self = handle;

    return self->fingerprint;
}

/* -------------------------------------------------------------- condition */

/* Offset of condition id in mem.cos and mem.sin. */
static size_t lumina2_rope_at(const rp_lumina2 *self, int id)
{
    return (size_t)id * (size_t)(self->max_tokens + self->n_image) *
           ((size_t)self->config.head_dim / 2);
}

/* Offset of condition id in mem.caption. */
static size_t lumina2_caption_at(const rp_lumina2 *self, int id)
{
    return (size_t)id * (size_t)self->max_tokens * (size_t)self->config.hidden;
}

static void lumina2_put_rope(rp_lumina2 *self, int id, int n_tokens)
{
    const rp_lumina2_config *c = &self->config;
    const size_t n = (size_t)(n_tokens + self->n_image) * ((size_t)c->head_dim / 2);
    const size_t at = lumina2_rope_at(self, id);
    float *const cos = self->host;
    float *const sin = self->host + n;

    rp_lumina2_tables_rope(c, n_tokens, self->h / c->patch, self->w / c->patch, cos, sin);
    self->backend.ops->put(self->backend.self, self->mem.cos.data + at, cos, n * sizeof(float));
    self->backend.ops->put(self->backend.self, self->mem.sin.data + at, sin, n * sizeof(float));
}

static rp_status lumina2_condition(void *handle, int id, const float *embeds, int n_tokens)
{
    rp_lumina2 *self = handle;
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const rp_tensor *const cap[] = {&self->cap_w};

    if (id < 0 || id >= self->n_conds || n_tokens < 1 || n_tokens > self->max_tokens) {
        return RP_FAIL(RP_E_ARG,
                       "condition %d of %d tokens: the job has conditions 0 to %d of 1 to %d", id,
                       n_tokens, self->n_conds - 1, self->max_tokens);
    }
    float *const caption = self->mem.caption.data + lumina2_caption_at(self, id);
    const float *const cos = self->mem.cos.data + lumina2_rope_at(self, id);
    const float *const sin = self->mem.sin.data + lumina2_rope_at(self, id);
    const size_t n_bytes = (size_t)n_tokens * (size_t)c->cond_dim * sizeof(float);

    self->cond[id].n_tokens = 0;
    lumina2_put_rope(self, id, n_tokens);
    ops->put(be, self->mem.rows.data, embeds, n_bytes);
    ops->rms_norm(be, self->mem.rows.data, n_tokens, c->cond_dim, &self->cap_norm, 0.0f,
                  c->norm_eps, NULL, self->mem.normed.data, false); /* cap_w is not narrow */
    ops->linear(be, self->mem.normed.data, n_tokens, c->cond_dim, c->cond_dim, cap, 1, &self->cap_b,
                caption);
    rp_lumina2_blocks_run(self, rp_lumina2_n_modulated(c), c->n_refiners, caption, n_tokens, 0, cos,
                          sin, NULL);
    RP_TRY(ops->sync(be));
    self->cond[id].n_tokens = n_tokens;
    return RP_OK;
}

/* ---------------------------------------------------------------- predict */

/* Patches of the latents -> image rows after the noise refiner. */
static void lumina2_embed_image(rp_lumina2 *self, int n_tokens, float *image)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    const int patch_dim = c->patch * c->patch * c->channels;
    const size_t at = (size_t)n_tokens * ((size_t)c->head_dim / 2);
    const rp_tensor *const w[] = {&self->x_w};

    ops->patchify(self->backend.self, self->mem.now_x.data, c->channels, self->h, self->w, c->patch,
                  self->mem.patches.data);
    ops->linear(self->backend.self, self->mem.patches.data, self->n_image, patch_dim, patch_dim, w,
                1, &self->x_b, image);
    rp_lumina2_blocks_run(self, 0, c->n_refiners, image, self->n_image, 0,
                          self->mem.now_cos.data + at, self->mem.now_sin.data + at,
                          self->mem.now_mod.data);
}

/* Image rows after the last layer -> velocity. */
static void lumina2_project(rp_lumina2 *self, const float *image)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    const rp_tensor *const w[] = {&self->out_w};

    ops->layer_norm(self->backend.self, image, self->n_image, c->hidden, LUMINA2_OUT_EPS,
                    self->mem.now_scale.data, self->mem.normed.data);
    ops->linear(self->backend.self, self->mem.normed.data, self->n_image, c->hidden, c->hidden, w,
                1, &self->out_b, self->mem.projected.data);
    /* the network was trained on image - noise; velocity is noise - image */
    ops->unpatchify(self->backend.self, self->mem.projected.data, c->channels, self->h, self->w,
                    c->patch, -1.0f, self->mem.now_velocity.data);
}

/* All that differs from unit to unit, to the places that the ops of lumina2_compute read. */
static void lumina2_place(rp_lumina2 *self, int cond, int eval, const float *x)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const int n_tokens = self->cond[cond].n_tokens;
    const size_t d = (size_t)c->hidden;
    const size_t evals = (size_t)self->n_evals;
    const size_t half = (size_t)c->head_dim / 2;
    const size_t n_rope = (size_t)(n_tokens + self->n_image) * half * sizeof(float);
    const size_t n_latent = (size_t)c->channels * (size_t)self->h * (size_t)self->w * sizeof(float);

    ops->copy(be, self->mem.now_x.data, x, n_latent);
    ops->copy_rows(be, self->mem.now_mod.data, 4 * d, self->mem.mod.data + (size_t)eval * 4 * d,
                   evals * 4 * d, rp_lumina2_n_modulated(c), 4 * c->hidden);
    ops->copy(be, self->mem.now_scale.data, self->mem.out_scale.data + (size_t)eval * d,
              d * sizeof(float));
    ops->copy(be, self->mem.now_cos.data, self->mem.cos.data + lumina2_rope_at(self, cond), n_rope);
    ops->copy(be, self->mem.now_sin.data, self->mem.sin.data + lumina2_rope_at(self, cond), n_rope);
    ops->copy(be, self->mem.rows.data, self->mem.caption.data + lumina2_caption_at(self, cond),
              (size_t)n_tokens * d * sizeof(float));
}

/* now_x -> now_velocity; the same sequence of ops on the same memory for each number of tokens. */
static void lumina2_compute(rp_lumina2 *self, int n_tokens)
{
    const rp_lumina2_config *c = &self->config;
    float *const rows = self->mem.rows.data; /* [caption | image] */
    float *const image = rows + (size_t)n_tokens * (size_t)c->hidden;
    const size_t skipped = (size_t)c->n_refiners * 4 * (size_t)c->hidden;

    lumina2_embed_image(self, n_tokens, image);
    /* nothing reads the caption after the last layer */
    rp_lumina2_blocks_run(self, c->n_refiners, c->n_layers, rows, n_tokens + self->n_image,
                          n_tokens, self->mem.now_cos.data, self->mem.now_sin.data,
                          self->mem.now_mod.data + skipped);
    lumina2_project(self, image);
}

/* Names the sequence of lumina2_compute: this denoiser, this shape. */
static uint64_t lumina2_key(const rp_lumina2 *self, int n_tokens)
{
    const uint64_t parts[] = {(uint64_t)(uintptr_t)self, (uint64_t)n_tokens, (uint64_t)self->h,
                              (uint64_t)self->w};
    uint64_t key = 14695981039346656037ull; /* FNV-1a */

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        key = (key ^ parts[i]) * 1099511628211ull;
    }
    return key;
}

static rp_status lumina2_predict(void *handle, int cond, int eval, const float *x, float *velocity)
{
    rp_lumina2 *self = handle;
    const rp_backend_ops *ops = self->backend.ops;

    if (eval < 0 || eval >= self->n_evals || cond < 0 || cond >= self->n_conds ||
        self->cond[cond].n_tokens == 0) {
        return RP_FAIL(RP_E_ARG, "unit of condition %d, model call %d: the job has %d, %d", cond,
                       eval, self->n_conds, self->n_evals);
    }
    lumina2_place(self, cond, eval, x);
    if (!ops->replay(self->backend.self, lumina2_key(self, self->cond[cond].n_tokens))) {
        lumina2_compute(self, self->cond[cond].n_tokens);
        ops->recorded(self->backend.self);
    }
    ops->copy(self->backend.self, velocity, self->mem.now_velocity.data,
              (size_t)self->config.channels * (size_t)self->h * (size_t)self->w * sizeof(float));
    return RP_OK;
}

/* Floating-point operations of one unit, in thousand millions. */
static float lumina2_cost(const void *handle, int n_tokens, int h, int w)
{
    const rp_lumina2 *self = handle;
    const rp_lumina2_config *c = &self->config;
    const double d = c->hidden;
    const double kv_dim = (double)c->n_kv_heads * c->head_dim;
    const double per_row = 2.0 * d * (2.0 * d + 2.0 * kv_dim + 3.0 * c->ffn);
    const double image = (double)(h / c->patch) * (w / c->patch);
    const double t = n_tokens + image;
    const double linear = per_row * (c->n_layers * t + c->n_refiners * image);
    const double attention = 4.0 * d * (c->n_layers * t * t + c->n_refiners * image * image);

    return (float)((linear + attention) * 1e-9);
}

const rp_denoiser_ops rp_model_lumina2 = {
    .class_name = "Lumina2Transformer2DModel",
    .help = "Lumina-Image 2.0: one stream of caption and image tokens, flow matching",
    .open = lumina2_open,
    .close = lumina2_close,
    .info = lumina2_info,
    .fingerprint = lumina2_fingerprint,
    .need = rp_lumina2_need,
    .begin = rp_lumina2_begin,
    .condition = lumina2_condition,
    .predict = lumina2_predict,
    .trim = lumina2_trim,
    .cost = lumina2_cost,
};
