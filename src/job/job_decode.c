/*
 * job_decode.c - latents to pictures: several of them on all ranks, as one more wave of the pool,
 * else on rank 0.
 *
 * A unit of that wave is one picture. Its latents come in, a slot goes out: the picture's bytes
 * [height, width, 3], then one that says whether it was decoded, then nothing up to a multiple of
 * SLOT_ALIGN. A rank whose memory is too short for a picture leaves it to rank 0, and when a rank
 * cannot take part at all, rank 0 decodes alone: neither is an error of the job.
 */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/job_need.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_ALIGN 64 /* transfers want it */
#define WHY_BYTES  256

static size_t rounded(size_t n_bytes)
{
    return (n_bytes + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
}

/* ---- one picture */

typedef struct {
    const rankpool *pool;
    const float *x;
    uint8_t *rgb;
} decoding;

static rp_status decode(void *arg)
{
    const decoding *d = arg;
    const rp_pipeline *p = &d->pool->pipeline;
    const rp_job_load *load = &d->pool->load;

    return p->vae->decode(p->vae_self, d->x, load->h, load->w, NULL, d->rgb);
}

static rp_status decode_picture(rankpool *pool, const float *x, uint8_t *rgb)
{
    decoding what = {pool, x, rgb};

    if (rp_ctrl_rank(pool->ctrl) > 0) { /* rank 0 then takes the picture: nobody asks why */
        return rp_room_run(&pool->pipeline, RP_ROOM_DECODE, decode, &what);
    }
    const rp_denoiser_job job = rp_load_job(&pool->load);
    return rp_need_run(&pool->pipeline, RP_ROOM_DECODE, &job, pool->load.n_images, decode, &what);
}

/* Rank 0's pictures need no slot. */
static rp_status decode_own(rankpool *pool, int image)
{
    const rp_decode *d = &pool->decode;
    const size_t n = d->latent_bytes / sizeof(float);

    RP_TRY(decode_picture(pool, d->x + (size_t)image * n, d->rgb[image]));
    d->decoded[image] = true;
    return RP_OK;
}

static rp_status decode_to_slot(rankpool *pool, const float *x, uint8_t *slot)
{
    char text[RP_LOG_LINE_BYTES];
    rp_status st = decode_picture(pool, x, slot);

    slot[pool->decode.picture_bytes] = st == RP_OK;
    if (st == RP_E_NOMEM) {
        rp_log_take(text, sizeof(text)); /* nor is it that of a later unit */
        st = RP_OK;
    }
    return st;
}

rp_status rp_decode_unit(rankpool *pool, const rp_unit *unit, const void *in, void *out)
{
    const rp_backend_ops *ops = pool->backend.ops;
    const rp_decode *d = &pool->decode;

    if (rp_ctrl_rank(pool->ctrl) == 0) {
        return decode_own(pool, unit->input);
    }
    if (!pool->on_device) {
        return decode_to_slot(pool, in, out);
    }
    uint8_t *const slot = d->host + rounded(d->latent_bytes);
    ops->get(pool->backend.self, d->host, in, d->latent_bytes);
    RP_TRY(ops->sync(pool->backend.self));
    RP_TRY(decode_to_slot(pool, (const float *)d->host, slot));
    ops->put(pool->backend.self, out, slot, d->slot_bytes);
    return ops->sync(pool->backend.self);
}

/* ---- getting ready, on every rank */

static void measure(rankpool *pool)
{
    const rp_job_load *load = &pool->load;
    const size_t scale = (size_t)pool->pipeline.vae_info.scale;
    const size_t area = (size_t)load->h * (size_t)load->w;

    pool->decode.latent_bytes = (size_t)load->c * area * sizeof(float);
    pool->decode.picture_bytes = 3 * area * scale * scale;
    pool->decode.slot_bytes = rounded(pool->decode.picture_bytes + 1);
}

/* What a slot and latents of device memory pass through. */
static rp_status grow_host(rankpool *pool)
{
    const rp_backend *backend = &pool->backend;
    rp_decode *d = &pool->decode;
    const size_t n_bytes = rounded(d->latent_bytes) + d->slot_bytes;
    void *mem = NULL;

    if (!pool->on_device || n_bytes <= d->host_bytes) {
        return RP_OK;
    }
    backend->ops->release_host(backend->self, d->host);
    d->host = NULL;
    d->host_bytes = 0;
    RP_TRY(backend->ops->alloc_host(backend->self, n_bytes, "a picture", &mem));
    d->host = mem;
    d->host_bytes = n_bytes;
    return RP_OK;
}

/* Rank 0: where the other ranks' slots arrive. On the device they stay for the next job, like the
 * arrays of job_loop.c. */
static rp_status grow_slots(rankpool *pool)
{
    const rp_backend *backend = &pool->backend;
    rp_decode *d = &pool->decode;
    const size_t n_bytes = (size_t)pool->load.n_images * d->slot_bytes;

    if (rp_ctrl_rank(pool->ctrl) > 0) {
        return RP_OK;
    }
    if (pool->on_device) {
        RP_TRY(rp_buffer_grow(backend, &d->kept, n_bytes / sizeof(float), "pictures"));
        d->slots = d->kept.data;
        return RP_OK;
    }
    return d->slots != NULL
               ? RP_OK /* this is another try */
               : backend->ops->alloc_host(backend->self, n_bytes, "pictures", &d->slots);
}

static void release_slots(rankpool *pool)
{
    if (!pool->on_device) {
        pool->backend.ops->release_host(pool->backend.self, pool->decode.slots);
    }
    pool->decode.slots = NULL;
}

static rp_status grow(void *arg)
{
    rankpool *pool = arg;
    const rp_decode *d = &pool->decode;
    const int n = pool->load.n_images;

    measure(pool);
    RP_TRY(grow_host(pool));
    RP_TRY(grow_slots(pool));
    RP_TRY(rp_pool_plan(pool->pool, n, n, d->latent_bytes, d->slot_bytes));
    return pool->backend.ops->sync(pool->backend.self);
}

/* One rank's answer. */
typedef struct {
    uint64_t vae; /* its fingerprint */
    int32_t status;
    int32_t unused; /* travels: no hole in it */
    char why[WHY_BYTES];
} readiness;

static void get_ready(rankpool *pool, readiness *mine)
{
    char why[RP_LOG_LINE_BYTES];

    rp_log_take(why, sizeof(why)); /* an older error is not this one's */
    rp_log_hold_errors(true);
    const rp_status st = rp_room_try(&pool->pipeline, RP_ROOM_DECODE, grow, pool, why);
    rp_log_hold_errors(false);
    if (why[0] == '\0') {
        rp_log_take(why, sizeof(why)); /* without a device it went to the log */
    }
    memset(mine, 0, sizeof(*mine));
    mine->vae = pool->pipeline.vae_fingerprint;
    mine->status = (int32_t)st;
    if (st != RP_OK) {
        (void)snprintf(mine->why, sizeof(mine->why), "%.*s", WHY_BYTES - 1,
                       why[0] != '\0' ? why : rp_status_text(st));
    }
}

rp_status rp_decode_answer(rankpool *pool)
{
    readiness mine;

    get_ready(pool, &mine);
    return rp_ctrl_gather(pool->ctrl, &mine, sizeof(mine), NULL);
}

/* ---- rank 0 */

/* Not for pictures of this size: a rank that tries gives up memory that it uses. */
static void stay_alone(rp_job *job, bool whatever_size)
{
    job->pool->decode.least_alone = whatever_size ? 1 : job->h * job->w;
}

static bool all_can(rp_job *job, const readiness *all)
{
    const rp_ctrl *ctrl = job->pool->ctrl;

    for (int r = 0; r < rp_ctrl_n_ranks(ctrl); r++) {
        const bool is_other = all[r].status == RP_OK && all[r].vae != all[0].vae;
        if (all[r].status != RP_OK || is_other) {
            RP_WARN("rank %d on host %s cannot decode: %s; rank 0 decodes all pictures%s", r,
                    rp_ctrl_host(ctrl, r), is_other ? "its VAE is not that of rank 0" : all[r].why,
                    all[r].status == RP_E_NOMEM ? " of this size" : "");
            stay_alone(job, all[r].status != RP_E_NOMEM);
            return false;
        }
    }
    return true;
}

static rp_status run_wave(rp_job *job)
{
    rankpool *pool = job->pool;
    rp_decode *d = &pool->decode;
    const int n = job->params.images;
    const float *x = pool->on_device ? job->loop.x : job->x;

    for (int i = 0; i < n; i++) {
        job->units[i] = (rp_unit){.input = i, .cond = 0, .cost = 1};
    }
    d->x = job->x;
    d->rgb = job->rgb;
    d->decoded = job->decoded;
    return rp_pool_eval(pool->pool, -1, RP_EVAL_DECODE, job->units, n, x, d->slots);
}

/* The other ranks' pictures, out of their slots. */
static rp_status collect(rp_job *job)
{
    const rankpool *pool = job->pool;
    const rp_decode *d = &pool->decode;
    int n_left = 0;

    for (int i = 0; i < job->params.images; i++) {
        const uint8_t *slot = (const uint8_t *)d->slots + (size_t)i * d->slot_bytes;
        if (job->decoded[i]) {
            continue;
        }
        if (pool->on_device) {
            pool->backend.ops->get(pool->backend.self, d->host, slot, d->slot_bytes);
            RP_TRY(pool->backend.ops->sync(pool->backend.self));
            slot = d->host;
        }
        job->decoded[i] = slot[d->picture_bytes] != 0;
        if (job->decoded[i]) {
            memcpy(job->rgb[i], slot, d->picture_bytes);
        }
        n_left += !job->decoded[i];
    }
    if (n_left > 0) {
        RP_INFO("memory of other ranks was too short to decode %d of %d pictures: rank 0 does it, "
                "and from now on all of this size",
                n_left, job->params.images);
        stay_alone(job, false);
    }
    return RP_OK;
}

static rp_status decode_together(rp_job *job)
{
    rankpool *pool = job->pool;
    readiness mine, *all = NULL;
    rp_status st = RP_OK;

    RP_TRY(rp_mem_new((size_t)rp_ctrl_n_ranks(pool->ctrl), sizeof(*all), "ranks", (void **)&all));
    RP_TRY_OUT(rp_resident_tell(pool, &(int32_t){RP_MSG_DECODE}, 1));
    get_ready(pool, &mine);
    RP_TRY_OUT(rp_ctrl_gather(pool->ctrl, &mine, sizeof(mine), all));
    if (all_can(job, all)) {
        RP_TRY_OUT(run_wave(job));
        RP_TRY_OUT(collect(job));
        job->times.decode_ranks = rp_ctrl_n_ranks(pool->ctrl);
    }
out:
    release_slots(pool);
    free(all);
    return st;
}

/* A transport counts a slot's bytes as int. */
static bool can_share(const rp_job *job)
{
    const size_t n_px = (size_t)job->params.width * (size_t)job->params.height;
    const int least = job->pool->decode.least_alone;

    return job->params.images > 1 && rp_ctrl_n_ranks(job->pool->ctrl) > 1 &&
           rounded(3 * n_px + 1) <= INT32_MAX && (least == 0 || job->h * job->w < least);
}

static rp_status make_room(rp_job *job)
{
    const size_t n = (size_t)job->params.images;
    const size_t n_px = (size_t)job->params.width * (size_t)job->params.height;

    RP_TRY(rp_mem_new(n, sizeof(uint8_t *), "pictures", (void **)&job->rgb));
    RP_TRY(rp_mem_new(n, sizeof(bool), "pictures", (void **)&job->decoded));
    for (size_t i = 0; i < n; i++) {
        RP_TRY(rp_mem_new(3 * n_px, 1, "a picture", (void **)&job->rgb[i]));
    }
    return RP_OK;
}

/* On rank 0, outside a wave; told as in one. */
static rp_status decode_here(rp_job *job, int image)
{
    const float *x = job->x + (size_t)image * job->n_elems;
    const bool held = rp_job_listen();
    const rp_status st = decode_picture(job->pool, x, job->rgb[image]);

    return rp_job_tell(job, held, st, "decoding image %d", image);
}

rp_status rp_job_decode(rp_job *job)
{
    const double begin = rp_clock_now();

    RP_TRY(rp_job_progress(job, "decode", job->params.steps));
    RP_TRY(make_room(job));
    job->times.decode_ranks = 1;
    if (can_share(job)) {
        RP_TRY(decode_together(job));
    }
    for (int i = 0; i < job->params.images; i++) {
        if (!job->decoded[i]) {
            RP_TRY(rp_job_progress(job, "decode", job->params.steps)); /* it may be told to end */
            const double before = rp_trace_begin(&job->pool->trace);
            RP_TRY(decode_here(job, i));
            rp_trace_end(&job->pool->trace, before, RP_TRACE_DECODE, (rp_trace_of){-1, -1, i, -1});
        }
    }
    job->times.decode = rp_clock_now() - begin;
    return RP_OK;
}
