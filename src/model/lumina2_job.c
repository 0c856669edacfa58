/* lumina2_job.c - a job of the Lumina2 denoiser: checked, its memory, its adaLN vectors. */
#include "model/lumina2.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static rp_status lumina2_check_job(const rp_lumina2_config *c, const rp_denoiser_job *job)
{
    const int max_size = rp_lumina2_max_latent(c);

    if (job->c != c->channels || job->h < 1 || job->w < 1 || job->h % c->patch != 0 ||
        job->w % c->patch != 0 || job->h > max_size || job->w > max_size) {
        return RP_FAIL(
            RP_E_ARG,
            "latents %d x %d x %d: the model takes %d channels, height and width multiples "
            "of %d up to %d",
            job->c, job->h, job->w, c->channels, c->patch, max_size);
    }
    if (job->n_evals < 1 || job->n_conds < 1 || job->max_tokens < 1 ||
        job->max_tokens > rp_lumina2_max_tokens(c)) {
        return RP_FAIL(
            RP_E_ARG,
            "job of %d model calls, %d conditions, %d tokens: at least 1 each, and up to "
            "%d tokens",
            job->n_evals, job->n_conds, job->max_tokens, rp_lumina2_max_tokens(c));
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

enum { N_WANTS = 21 };

/* All device memory that a job needs. */
static void lumina2_list(rp_lumina2 *self, const rp_denoiser_job *job, rp_buffer_want out[N_WANTS])
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
    const rp_buffer_want want[] = {
        {&self->mem.mod, (size_t)rp_lumina2_n_modulated(c) * evals * 4 * d, "adaLN vectors", false},
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
        {&self->mem.now_mod, (size_t)rp_lumina2_n_modulated(c) * 4 * d, "adaLN vectors", false},
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
    rp_buffer_want want[N_WANTS];

    lumina2_list(self, job, want);
    RP_TRY(rp_buffers_grow(&self->backend, want, N_WANTS));
    RP_TRY(lumina2_grow_host(self, larger((size_t)job->n_evals * RP_LUMINA2_TIME_DIM, rope)));
    RP_TRY(lumina2_grow_conds(self, job->n_conds));
    return self->backend.ops->reserve(self->backend.self, rp_lumina2_longest_row(c), t,
                                      c->head_dim);
}

rp_status rp_lumina2_need(const char *dir, rp_precision precision, const rp_denoiser_job *job,
                          rp_model_need *out)
{
    rp_lumina2 self = {.params.random = true}; /* shapes only */
    uint64_t fingerprint = 0;
    rp_buffer_want want[N_WANTS];
    void *mem = NULL;

    RP_TRY(rp_lumina2_config_read(dir, &self.config, &fingerprint));
    const size_t n_blocks = (size_t)(rp_lumina2_n_modulated(&self.config) + self.config.n_refiners);
    RP_TRY(rp_mem_new(n_blocks, sizeof(*self.block), "the denoiser's blocks", &mem));
    self.block = mem;
    rp_lumina2_config_bind(&self);
    const rp_status st = self.params.status;
    rp_denoiser_job sized = *job;
    sized.c = self.config.channels;
    sized.h = job->h > 0 ? job->h : self.config.sample_size;
    sized.w = job->h > 0 ? job->w : self.config.sample_size;
    *out = (rp_model_need){
        .weights = rp_params_bytes(&self.params, precision), .h = sized.h, .w = sized.w};
    lumina2_list(&self, &sized, want);
    out->buffers = rp_buffers_bytes(want, N_WANTS, precision);
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

    for (int i = 0; i < rp_lumina2_n_modulated(c); i++) {
        const rp_tensor *const w[] = {&self->block[i].mod_w};
        ops->linear(be, silu_temb, n, c->temb_dim, c->temb_dim, w, 1, &self->block[i].mod_b,
                    self->mem.mod.data + (size_t)i * (size_t)n * 4 * (size_t)c->hidden);
    }
    ops->linear(be, silu_temb, n, c->temb_dim, c->temb_dim, out_mod, 1, &self->out_mod_b,
                self->mem.out_scale.data);
    return ops->sync(be);
}

rp_status rp_lumina2_begin(void *handle, const rp_denoiser_job *job)
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
