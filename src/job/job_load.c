/* job_load.c - a job's conditions and noise levels, on every rank once. */
#include "job/job_resident.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/job_need.h"

#include <stdlib.h>
#include <string.h>

/* What travels ahead of the arrays. */
typedef struct {
    int32_t c, h, w, n_evals, n_conds, n_images, trace_room;
    int32_t n_tokens[RP_GUIDE_BRANCHES];
} load_head;

static size_t embeds_elems(const rankpool *pool)
{
    size_t tokens = 0;

    for (int i = 0; i < pool->load.n_conds; i++) {
        tokens += (size_t)pool->load.n_tokens[i];
    }
    return tokens * (size_t)pool->pipeline.denoiser_info.cond_dim;
}

static rp_status grow(float **array, size_t *room, size_t n)
{
    if (n > *room) {
        free(*array);
        *array = NULL;
        *room = 0;
        RP_TRY(rp_mem_new(n, sizeof(float), "a job's conditions", (void **)array));
        *room = n;
    }
    return RP_OK;
}

rp_status rp_load_reserve(rp_job_load *load, size_t n_sigma, size_t n_embeds)
{
    RP_TRY(grow(&load->sigma, &load->sigma_room, n_sigma));
    return grow(&load->embeds, &load->embeds_room, n_embeds);
}

/* Device memory that a unit of host memory passes through. */
static rp_status grow_device(rankpool *pool, size_t n_latent)
{
    if (!pool->device.on_device || pool->on_device) {
        return RP_OK;
    }
    RP_TRY(rp_buffer_grow(&pool->backend, &pool->unit_x, n_latent, "latents of a unit"));
    return rp_buffer_grow(&pool->backend, &pool->unit_velocity, n_latent, "velocity of a unit");
}

/* For all units, in case that all come to this rank. */
static rp_status grow_timeline(rankpool *pool)
{
    const rp_job_load *load = &pool->load;
    const size_t n_units = (size_t)load->n_evals * (size_t)load->n_images * (size_t)load->n_conds;

    pool->timeline.n = pool->timeline.n_ended = 0;
    return rp_timeline_reserve(&pool->timeline, &pool->backend, n_units);
}

rp_denoiser_job rp_load_job(const rp_job_load *load)
{
    rp_denoiser_job job = {.c = load->c,
                           .h = load->h,
                           .w = load->w,
                           .sigma = load->sigma,
                           .n_evals = load->n_evals,
                           .n_conds = load->n_conds};

    for (int i = 0; i < load->n_conds; i++) {
        job.max_tokens = load->n_tokens[i] > job.max_tokens ? load->n_tokens[i] : job.max_tokens;
    }
    return job;
}

static rp_status apply(void *arg)
{
    rankpool *pool = arg;
    const rp_job_load *load = &pool->load;
    const rp_pipeline *p = &pool->pipeline;
    const size_t slot_bytes = (size_t)load->c * (size_t)load->h * (size_t)load->w * sizeof(float);
    const rp_denoiser_job job = rp_load_job(load);
    const float *embeds = load->embeds;

    RP_TRY(grow_device(pool, slot_bytes / sizeof(float)));
    RP_TRY(p->denoiser->begin(p->denoiser_self, &job));
    for (int i = 0; i < load->n_conds; i++) {
        RP_TRY(p->denoiser->condition(p->denoiser_self, i, embeds, load->n_tokens[i]));
        embeds += (size_t)load->n_tokens[i] * (size_t)p->denoiser_info.cond_dim;
    }
    RP_TRY(rp_pool_plan(pool->pool, load->n_images * load->n_conds, load->n_images, slot_bytes,
                        slot_bytes));
    pool->units_to_sync = load->n_images * load->n_conds;
    return pool->backend.ops->sync(pool->backend.self);
}

rp_status rp_load_apply(rankpool *pool)
{
    const rp_denoiser_job job = rp_load_job(&pool->load);
    const rp_status st =
        rp_need_run(&pool->pipeline, RP_ROOM_SAMPLE, &job, pool->load.n_images, apply, pool);

    rp_room_spare(&pool->pipeline);
    return st;
}

/* Room for the announcements of this job's waves. */
static rp_status grow_message(rankpool *pool)
{
    const size_t need = rp_pool_message_bytes(pool->load.n_images * pool->load.n_conds);

    if (need > pool->message_bytes) {
        void *grown = NULL;
        RP_TRY(rp_mem_new(need, 1, "messages", &grown)); /* without it STOP must still find room */
        free(pool->message);
        pool->message = grown;
        pool->message_bytes = need;
    }
    return RP_OK;
}

/* Both ends: the arrays travel only when every rank has room for them. */
static rp_status exchange(rankpool *pool)
{
    rp_job_load *load = &pool->load;
    load_head head = {load->c,       load->h,        load->w,          load->n_evals,
                      load->n_conds, load->n_images, load->trace_room, {0}};

    memcpy(head.n_tokens, load->n_tokens, sizeof(head.n_tokens));
    RP_TRY(rp_ctrl_bcast(pool->ctrl, &head, sizeof(head)));
    load->c = head.c;
    load->h = head.h;
    load->w = head.w;
    load->n_evals = head.n_evals;
    load->n_conds = head.n_conds;
    load->n_images = head.n_images;
    load->trace_room = head.trace_room;
    memcpy(load->n_tokens, head.n_tokens, sizeof(head.n_tokens));

    rp_status st = rp_load_reserve(load, (size_t)load->n_evals, embeds_elems(pool));
    if (st == RP_OK) {
        st = grow_message(pool);
    }
    if (st == RP_OK) {
        st = grow_timeline(pool);
    }
    if (st == RP_OK) {
        st = rp_trace_prepare(pool);
    }
    RP_TRY(rp_ctrl_agree(pool->ctrl, st, "making room for the job"));
    RP_TRY(rp_ctrl_bcast(pool->ctrl, load->sigma, (size_t)load->n_evals * sizeof(float)));
    RP_TRY(rp_ctrl_bcast(pool->ctrl, load->embeds, embeds_elems(pool) * sizeof(float)));
    RP_TRY(rp_ctrl_agree(pool->ctrl, rp_load_apply(pool), "setting the job up"));
    return load->trace_room > 0 ? rp_trace_align(pool) : RP_OK;
}

rp_status rp_load_send(rankpool *pool)
{
    RP_TRY(rp_resident_tell(pool, &(int32_t){RP_MSG_LOAD}, 1));
    return exchange(pool);
}

rp_status rp_load_receive(rankpool *pool)
{
    return exchange(pool);
}
