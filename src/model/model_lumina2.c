/* model_lumina2.c - the Lumina2 denoiser: what is computed per job, per condition and per unit. */
#include "model/lumina2.h"
#include "model/model_list.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define LUMINA2_OUT_EPS 1e-6f /* of the last layer norm, fixed in the class */

static int lumina2_n_modulated(const rp_lumina2_config *c)
{
    return c->n_refiners + c->n_layers;
}

static int lumina2_max_latent(const rp_lumina2_config *c)
{
    const int rows = c->axes_lens[1];
    const int cols = c->axes_lens[2];

    return c->patch * (rows < cols ? rows : cols);
}

static int lumina2_max_tokens(const rp_lumina2_config *c)
{
    return c->axes_lens[0] - 1; /* image tokens stand at the position after the last caption row */
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

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

/* Longest row that any weight matrix has. */
static int lumina2_longest_row(const rp_lumina2_config *c)
{
    const int patch_dim = c->patch * c->patch * c->channels;
    const int all[] = {c->hidden, c->ffn, c->cond_dim, patch_dim, RP_LUMINA2_TIME_DIM};
    int k = 0;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        k = all[i] > k ? all[i] : k;
    }
    return k;
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
    const size_t n_blocks = (size_t)(lumina2_n_modulated(c) + c->n_refiners);
    RP_TRY_OUT(rp_mem_new(n_blocks, sizeof(*self->block), "the denoiser's blocks", &mem));
    self->block = mem;
    RP_TRY_OUT(rp_params_open(source, &self->params));
    rp_lumina2_config_bind(self);
    RP_TRY_OUT(rp_params_finish(&self->params));
    RP_TRY_OUT(
        self->backend.ops->reserve(self->backend.self, lumina2_longest_row(c), 1, c->head_dim));

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
        .max_cond_tokens = lumina2_max_tokens(c),
        .max_latent_size = lumina2_max_latent(c),
        .n_params = self->n_params,
        .bytes_read = self->params.n_read,
    };
}

static uint64_t lumina2_fingerprint(const void *handle)
{
    const rp_lumina2 *self = handle;

    return self->fingerprint;
}

/* -------------------------------------------------------------------- job */

static rp_status lumina2_check_job(const rp_lumina2_config *c, const rp_denoiser_job *job)
{
    const int max_size = lumina2_max_latent(c);

    if (job->c != c->channels || job->h < 1 || job->w < 1 || job->h % c->patch != 0 ||
        job->w % c->patch != 0 || job->h > max_size || job->w > max_size) {
        return RP_FAIL(
            RP_E_ARG,
            "latents %d x %d x %d: the model takes %d channels, height and width multiples "
            "of %d up to %d",
            job->c, job->h, job->w, c->channels, c->patch, max_size);
    }
    if (job->n_evals < 1 || job->n_conds < 1 || job->max_tokens < 1 ||
        job->max_tokens > lumina2_max_tokens(c)) {
        return RP_FAIL(
            RP_E_ARG,
            "job of %d model calls, %d conditions, %d tokens: at least 1 each, and up to "
            "%d tokens",
            job->n_evals, job->n_conds, job->max_tokens, lumina2_max_tokens(c));
    }
    return RP_OK;
}

static rp_status lumina2_grow_host(rp_lumina2 *self, size_t n_elems)
{
    void *mem = NULL;

    if (n_elems <= self->host_elems) {
        return RP_OK;
    }
    free(self->host);
    self->host = NULL;
    self->host_elems = 0;
    RP_TRY(rp_mem_new(n_elems, sizeof(float), "the denoiser's tables", &mem));
    self->host = mem;
    self->host_elems = n_elems;
    return RP_OK;
}

static rp_status lumina2_grow_conds(rp_lumina2 *self, int n_conds)
{
    void *mem = NULL;

    if (n_conds > self->cond_room) {
        RP_TRY(rp_mem_new((size_t)n_conds, sizeof(*self->cond), "the job's conditions", &mem));
        free(self->cond);
        self->cond = mem;
        self->cond_room = n_conds;
    }
    for (int i = 0; i < n_conds; i++) {
        self->cond[i] = (rp_lumina2_cond){0};
    }
    return RP_OK;
}

typedef struct {
    rp_buffer *buffer;
    size_t n_elems;
    const char *what;
    bool act; /* input or output of products: the backend's own element type */
} lumina2_want;

enum { N_WANTS = 21 };

/* All device memory that a job needs. */
static void lumina2_list(rp_lumina2 *self, const rp_denoiser_job *job, lumina2_want out[N_WANTS])
{
    const rp_lumina2_config *c = &self->config;
    const size_t image = (size_t)(job->h / c->patch) * (size_t)(job->w / c->patch);
    const size_t t = (size_t)job->max_tokens + image;
    const size_t evals = (size_t)job->n_evals;
    const size_t conds = (size_t)job->n_conds;
    const size_t d = (size_t)c->hidden;
    const size_t wide = larger(d, (size_t)c->cond_dim);
    const size_t half = (size_t)c->head_dim / 2;
    const size_t qkv = (size_t)(c->n_heads + 2 * c->n_kv_heads) * (size_t)c->head_dim;
    const size_t temb = (size_t)c->temb_dim;
    const size_t patch_dim = (size_t)c->patch * (size_t)c->patch * (size_t)c->channels;
    const size_t latent = (size_t)job->c * (size_t)job->h * (size_t)job->w;
    const lumina2_want want[] = {
        {&self->mem.mod, (size_t)lumina2_n_modulated(c) * evals * 4 * d, "adaLN vectors", false},
        {&self->mem.out_scale, evals * d, "output scales", false},
        {&self->mem.time, evals * larger(RP_LUMINA2_TIME_DIM, temb), "timestep table", false},
        {&self->mem.temb, evals * temb, "timestep embeddings", false},
        {&self->mem.caption, conds * (size_t)job->max_tokens * d, "refined captions", false},
        {&self->mem.cos, conds * t * half, "rotary cosines", false},
        {&self->mem.sin, conds * t * half, "rotary sines", false},
        {&self->mem.rows, t * wide, "hidden states", false},
        {&self->mem.normed, t * wide, "normed states", true},
        {&self->mem.qkv, t * qkv, "queries, keys and values", true},
        {&self->mem.branch, t * d, "branch outputs", true},
        {&self->mem.gates, t * 2 * (size_t)c->ffn, "feed-forward gates", true},
        {&self->mem.inner, t * (size_t)c->ffn, "feed-forward states", true},
        {&self->mem.patches, image * patch_dim, "patches", true},
        {&self->mem.projected, image * patch_dim, "projected patches", false},
        {&self->mem.now_x, latent, "latents of a unit", false},
        {&self->mem.now_velocity, latent, "velocity of a unit", false},
        {&self->mem.now_mod, (size_t)lumina2_n_modulated(c) * 4 * d, "adaLN vectors", false},
        {&self->mem.now_scale, d, "output scale", false},
        {&self->mem.now_cos, t * half, "rotary cosines", false},
        {&self->mem.now_sin, t * half, "rotary sines", false},
    };

    _Static_assert(sizeof(want) / sizeof(want[0]) == N_WANTS, "N_WANTS counts the rows above");
    memcpy(out, want, sizeof(want));
}

static int lumina2_rows(const rp_lumina2_config *c, const rp_denoiser_job *job)
{
    return job->max_tokens + (job->h / c->patch) * (job->w / c->patch);
}

/* Here and now. */
static rp_status lumina2_grow(rp_lumina2 *self, const rp_denoiser_job *job)
{
    const rp_lumina2_config *c = &self->config;
    const int t = lumina2_rows(c, job);
    const size_t rope = 2 * (size_t)t * ((size_t)c->head_dim / 2);
    lumina2_want want[N_WANTS];

    lumina2_list(self, job, want);
    for (size_t i = 0; i < N_WANTS; i++) {
        RP_TRY((want[i].act ? rp_buffer_grow_act : rp_buffer_grow)(&self->backend, want[i].buffer,
                                                                   want[i].n_elems, want[i].what));
    }
    RP_TRY(lumina2_grow_host(self, larger((size_t)job->n_evals * RP_LUMINA2_TIME_DIM, rope)));
    RP_TRY(lumina2_grow_conds(self, job->n_conds));
    return self->backend.ops->reserve(self->backend.self, lumina2_longest_row(c), t, c->head_dim);
}

static rp_status lumina2_need(const char *dir, rp_precision precision, const rp_denoiser_job *job,
                              rp_denoiser_need *out)
{
    rp_lumina2 self = {.params.random = true}; /* shapes only */
    uint64_t fingerprint = 0;
    lumina2_want want[N_WANTS];
    void *mem = NULL;

    RP_TRY(rp_lumina2_config_read(dir, &self.config, &fingerprint));
    const size_t n_blocks = (size_t)(lumina2_n_modulated(&self.config) + self.config.n_refiners);
    RP_TRY(rp_mem_new(n_blocks, sizeof(*self.block), "the denoiser's blocks", &mem));
    self.block = mem;
    rp_lumina2_config_bind(&self);
    const rp_status st = self.params.status;
    rp_denoiser_job sized = *job;
    sized.c = self.config.channels;
    sized.h = job->h > 0 ? job->h : self.config.sample_size;
    sized.w = job->h > 0 ? job->w : self.config.sample_size;
    *out = (rp_denoiser_need){
        .weights = rp_params_bytes(&self.params, precision), .h = sized.h, .w = sized.w};
    lumina2_list(&self, &sized, want);
    for (size_t i = 0; i < N_WANTS; i++) {
        out->buffers += want[i].n_elems * (want[i].act && precision != RP_PRECISION_F32 ? 2 : 4);
    }
    rp_params_close(&self.params);
    free(self.block);
    return st;
}

/* adaLN vectors of all modulated blocks at all noise levels. */
static rp_status lumina2_modulate(rp_lumina2 *self, const rp_denoiser_job *job)
{
    const rp_lumina2_config *c = &self->config;
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const int n = job->n_evals;
    const size_t temb_elems = (size_t)n * (size_t)c->temb_dim;
    const rp_tensor *const time1[] = {&self->time1_w};
    const rp_tensor *const time2[] = {&self->time2_w};
    const rp_tensor *const out_mod[] = {&self->out_mod_w};
    float *const silu_temb = self->mem.time.data; /* its table is used up by then */

    for (int i = 0; i < n; i++) {
        rp_lumina2_tables_time(job->sigma[i], self->host + (size_t)i * RP_LUMINA2_TIME_DIM);
    }
    ops->put(be, self->mem.time.data, self->host, (size_t)n * RP_LUMINA2_TIME_DIM * sizeof(float));
    ops->linear(be, self->mem.time.data, n, RP_LUMINA2_TIME_DIM, RP_LUMINA2_TIME_DIM, time1, 1,
                &self->time1_b, self->mem.temb.data);
    ops->silu(be, self->mem.temb.data, temb_elems, self->mem.temb.data);
    ops->linear(be, self->mem.temb.data, n, c->temb_dim, c->temb_dim, time2, 1, &self->time2_b,
                silu_temb);
    ops->silu(be, silu_temb, temb_elems, silu_temb);

    for (int i = 0; i < lumina2_n_modulated(c); i++) {
        const rp_tensor *const w[] = {&self->block[i].mod_w};
        ops->linear(be, silu_temb, n, c->temb_dim, c->temb_dim, w, 1, &self->block[i].mod_b,
                    self->mem.mod.data + (size_t)i * (size_t)n * 4 * (size_t)c->hidden);
    }
    ops->linear(be, silu_temb, n, c->temb_dim, c->temb_dim, out_mod, 1, &self->out_mod_b,
                self->mem.out_scale.data);
    return ops->sync(be);
}

static rp_status lumina2_begin(void *handle, const rp_denoiser_job *job)
{
    rp_lumina2 *self = handle;

    self->n_evals = 0; /* until all is ready */
    self->n_conds = 0;
    RP_TRY(lumina2_check_job(&self->config, job));
    RP_TRY(lumina2_grow(self, job));
    RP_TRY(lumina2_modulate(self, job));
    self->h = job->h;
    self->w = job->w;
    self->n_image = (job->h / self->config.patch) * (job->w / self->config.patch);
    self->max_tokens = job->max_tokens;
    self->n_conds = job->n_conds;
    self->n_evals = job->n_evals;
    return RP_OK;
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
    rp_lumina2_blocks_run(self, lumina2_n_modulated(c), c->n_refiners, caption, n_tokens, 0, cos,
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
                   evals * 4 * d, lumina2_n_modulated(c), 4 * c->hidden);
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
    .need = lumina2_need,
    .begin = lumina2_begin,
    .condition = lumina2_condition,
    .predict = lumina2_predict,
    .trim = lumina2_trim,
    .cost = lumina2_cost,
};
