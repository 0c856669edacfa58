/* job_run.c - one job on rank 0, top to bottom. Read this file first. */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- the sampler's view of everything below it: plan, spread, merge */

static int plan_wave(rp_job *job, int step, int *n_branches)
{
    int branches[RP_GUIDE_BRANCHES];
    int n_units = 0;

    *n_branches = job->params.guider->plan(&job->params.guide, step, job->params.steps, branches);
    for (int image = 0; image < job->params.images; image++) {
        for (int b = 0; b < *n_branches; b++) {
            job->units[n_units++] =
                (rp_unit){.input = image, .cond = branches[b], .cost = job->cost[branches[b]]};
        }
    }
    return n_units;
}

static rp_rank_stats own_stats(rp_job *job)
{
    rp_pool_stats(job->pool->pool, job->stats);
    return job->stats[0];
}

static double seconds_per_unit(const rp_rank_stats *before, rp_rank_stats after)
{
    const int64_t n = after.n_units - before->n_units;

    return n > 0 ? (after.busy_s - before->busy_s) / (double)n : 0;
}

/* A wave over host arrays, or over their copies on the device. */
static rp_status eval_wave(rp_job *job, int step, int eval, int n_units, const float *x)
{
    rankpool *pool            = job->pool;
    const rp_backend_ops *ops = pool->backend.ops;
    const size_t n_x          = (size_t)job->params.images * job->n_elems * sizeof(float);
    const size_t n_preds      = (size_t)n_units * job->n_elems * sizeof(float);

    if (!pool->on_device) {
        return rp_pool_eval(pool->pool, step, eval, job->units, n_units, x, job->preds);
    }
    ops->put(pool->backend.self, pool->wave_x.data, x, n_x);
    RP_TRY(ops->sync(pool->backend.self)); /* a transport sends what is there */
    RP_TRY(rp_pool_eval(pool->pool, step, eval, job->units, n_units, pool->wave_x.data,
                        pool->wave_preds.data));
    ops->get(pool->backend.self, job->preds, pool->wave_preds.data, n_preds);
    return ops->sync(pool->backend.self);
}

static rp_status denoise(void *arg, int eval, const float *x, float *velocity)
{
    rp_job *job    = arg;
    const int step = job->eval_step[eval];
    int n_branches = 0;

    if (job->params.residency == 's') {
        RP_TRY(rp_resident_reset(job->pool));
    }
    const int n_units          = plan_wave(job, step, &n_branches);
    const rp_rank_stats before = own_stats(job);
    RP_TRY(eval_wave(job, step, eval, n_units, x));
    job->times.unit[eval] = seconds_per_unit(&before, own_stats(job));
    for (int image = 0; image < job->params.images; image++) {
        const float *preds[RP_GUIDE_BRANCHES];
        for (int b = 0; b < n_branches; b++) {
            preds[b] = job->preds + (size_t)(image * n_branches + b) * job->n_elems;
        }
        job->params.guider->merge(&job->params.guide, preds, n_branches, job->c, job->h, job->w,
                                  velocity + (size_t)image * job->n_elems);
    }
    return RP_OK;
}

/* ---- stages */

/* Schedule -> sigma [steps + 1], and the noise level of every model call -> pool->load.sigma. */
static rp_status fill_schedule(rp_job *job)
{
    const rp_job_params *p = &job->params;
    rp_flow_config flow    = job->pool->pipeline.flow;
    const size_t steps     = (size_t)p->steps;

    flow.image_seq_len = job->c; /* what diffusers' Lumina2Pipeline passes on: latents.shape[1] */
    if (p->shift > 0) {
        flow.shift                = p->shift;
        flow.use_dynamic_shifting = false;
    }
    RP_TRY(rp_mem_new(steps + 1, sizeof(float), "noise levels", (void **)&job->sigma));
    RP_TRY(rp_mem_new(3 * steps, sizeof(int), "noise levels", (void **)&job->eval_step));
    RP_TRY(rp_mem_new(steps, sizeof(double), "step times", (void **)&job->times.step));
    RP_TRY(rp_mem_new(3 * steps, sizeof(double), "unit times", (void **)&job->times.unit));
    RP_TRY(p->schedule->fill(&flow, p->steps, job->sigma));
    RP_TRY(rp_load_reserve(&job->pool->load, 3 * steps, 0));
    job->n_evals = p->sampler->plan(job->sigma, p->steps, job->pool->load.sigma, job->eval_step);
    return RP_OK;
}

/* Host memory that travels to and from the device. */
static rp_status host_new(const rp_job *job, size_t n_elems, const char *what, float **out)
{
    const rp_backend *backend = &job->pool->backend;
    void *mem                 = NULL;

    RP_TRY(backend->ops->alloc_host(backend->self, n_elems * sizeof(float), what, &mem));
    *out = mem;
    return RP_OK;
}

/* Conditions and noise levels to all ranks; buffers of the loop. */
static rp_status load_ranks(rp_job *job)
{
    rp_job_load *load        = &job->pool->load;
    const rp_pipeline *p     = &job->pool->pipeline;
    const size_t n_images    = (size_t)job->params.images;
    const size_t n_units     = n_images * (size_t)load->n_conds;
    const size_t n_work      = (size_t)job->params.sampler->n_work;

    load->c        = job->c;
    load->h        = job->h;
    load->w        = job->w;
    load->n_evals  = job->n_evals;
    load->n_images = job->params.images;
    for (int i = 0; i < load->n_conds; i++) {
        job->cost[i] = p->denoiser->cost(p->denoiser_self, load->n_tokens[i], job->h, job->w);
    }
    RP_TRY(rp_mem_new(n_units, sizeof(rp_unit), "units", (void **)&job->units));
    RP_TRY(host_new(job, n_units * job->n_elems, "predictions", &job->preds));
    RP_TRY(rp_mem_new(n_images * job->n_elems, sizeof(float), "velocity", (void **)&job->velocity));
    RP_TRY(rp_mem_new(n_images * job->n_elems * n_work, sizeof(float), "sampler history",
                      (void **)&job->work));
    return rp_load_send(job->pool);
}

static void show_latents(const rp_job *job, int step)
{
    if (job->hooks != NULL && job->hooks->latents != NULL) {
        const int shape[4] = {job->params.images, job->c, job->h, job->w};
        job->hooks->latents(job->hooks->arg, step, job->x, shape);
    }
}

static rp_status sample(rp_job *job)
{
    const rp_sampler *sampler   = job->params.sampler;
    const rp_sample_state state = {
        .x       = job->x,
        .n       = (size_t)job->params.images * job->n_elems,
        .sigma   = job->sigma,
        .n_steps = job->params.steps,
        .denoise = denoise,
        .arg     = job,
        .velocity = job->velocity,
        .work    = job->work,
    };

    job->started = rp_clock_now();
    if (job->params.residency == 'j') {
        RP_TRY(rp_resident_reset(job->pool));
    }
    for (int step = 0, eval = 0; step < job->params.steps; step++) {
        const double begin = rp_clock_now();
        RP_TRY(sampler->step(&state, step, eval));
        while (eval < job->n_evals && job->eval_step[eval] == step) {
            eval++;
        }
        job->times.step[step] = rp_clock_now() - begin;
        job->times.sample     = rp_clock_now() - job->started;
        show_latents(job, step);
        RP_TRY(rp_job_progress(job, "sample", step + 1));
    }
    rp_pool_stats(job->pool->pool, job->stats);
    return rp_job_medians(job);
}

static rp_status run_stages(rp_job *job)
{
    RP_TRY(rp_job_check(job));         /* sizes, names, inputs: refused before any work    */
    RP_TRY(rp_job_encode(job));        /* text  -> tokens -> conditions [tokens, dim]      */
    RP_TRY(fill_schedule(job));        /* steps -> sigma [steps + 1]                       */
    RP_TRY(rp_job_start_latents(job)); /* seed or file -> x [images, c, h, w]              */
    RP_TRY(load_ranks(job));           /* conditions and sigmas live on every rank         */
    RP_TRY(sample(job));               /* x: noise -> picture's latents, wave by wave      */
    RP_TRY(rp_job_decode(job));        /* x     -> rgb [images][height, width, 3] bytes    */
    return rp_job_write(job);          /* rgb   -> PNG files, latents, report              */
}

/* ---- one job's memory */

static void free_job(rp_job *job)
{
    for (int i = 0; i < job->params.images; i++) {
        if (job->rgb != NULL) {
            free(job->rgb[i]);
        }
        if (job->files != NULL) {
            free(job->files[i]);
        }
    }
    free(job->rgb);
    free(job->files);
    free(job->report);
    free(job->sigma);
    free(job->eval_step);
    free(job->times.step);
    free(job->times.unit);
    free(job->x);
    free(job->work);
    free(job->velocity);
    job->pool->backend.ops->release_host(job->pool->backend.self, job->preds);
    free(job->units);
    free(job->stats);
}

/* Pictures, report and numbers change hands; the rest goes with the job. */
static rp_status hand_over(rp_job *job, rp_result **out)
{
    rp_result *result = calloc(1, sizeof(*result));

    if (result == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the result");
    }
    *result = (rp_result){
        .n_images         = job->params.images,
        .width            = job->params.width,
        .height           = job->params.height,
        .rgb              = job->rgb,
        .report           = job->report,
        .times            = job->times,
        .open_seconds     = job->pool->open_seconds,
        .steps_per_second = job->params.steps / job->times.sample,
        .n_ranks          = rp_ctrl_n_ranks(job->pool->ctrl),
        .stats            = job->stats,
    };
    result->times.step = NULL;
    result->times.unit = NULL;
    job->rgb           = NULL;
    job->report        = NULL;
    job->stats         = NULL;
    *out               = result;
    return RP_OK;
}

void rp_result_free(rp_result *result)
{
    if (result == NULL) {
        return;
    }
    for (int i = 0; i < result->n_images; i++) {
        free(result->rgb[i]);
    }
    free(result->rgb);
    free(result->report);
    free(result->stats);
    free(result);
}

/* After these the other ranks are where they were: waiting for the next message. */
static bool still_serves(rp_status st)
{
    return st == RP_OK || st == RP_E_ARG || st == RP_E_IO || st == RP_E_EXISTS || st == RP_E_FORMAT ||
           st == RP_E_CANCEL;
}

rp_status rp_job_run(rankpool *pool, const rp_settings *settings, const rp_hooks *hooks,
                     rp_result **result_out)
{
    rp_job job         = {.pool = pool, .settings = settings, .hooks = hooks};
    const double begin = rp_clock_now();
    rp_status st       = rp_job_params_read(settings, &job.params);

    if (st == RP_OK) {
        st = rp_mem_new((size_t)rp_ctrl_n_ranks(pool->ctrl), sizeof(*job.stats), "statistics",
                        (void **)&job.stats);
    }
    if (st == RP_OK) {
        st = run_stages(&job);
    }
    job.times.total = rp_clock_now() - begin;
    if (st == RP_OK && result_out != NULL) {
        st = hand_over(&job, result_out);
    }
    if (!still_serves(st)) {
        pool->failed = st;
    }
    free_job(&job);
    return st;
}
