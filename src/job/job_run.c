/* job_run.c - one job on rank 0, top to bottom. Read this file first. */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/safetensors.h"

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

static rp_status eval_wave(rp_job *job, int step, int eval, int n_units, const float *x)
{
    const rankpool *pool = job->pool;
    const rp_backend_ops *ops = pool->backend.ops;

    /* A transport sends what is there. Alone, units queue up behind the sampler's work; if that
     * could not be queued, no unit may be made to answer for it. */
    if (pool->on_device) {
        const bool sends = rp_ctrl_n_ranks(pool->ctrl) > 1;
        RP_TRY(sends ? rp_job_loop_sync(job, "merging and sampling")
                     : ops->peek(pool->backend.self));
    }
    return rp_pool_eval(pool->pool, step, eval, job->units, n_units, x, job->loop.preds);
}

static void merge_image(rp_job *job, int image, int n_branches, float *velocity)
{
    const float *preds[RP_GUIDE_BRANCHES];
    const rp_guide_merge merge = {
        .vec = &job->loop.vec,
        .preds = preds,
        .n_branches = n_branches,
        .c = job->c,
        .h = job->h,
        .w = job->w,
        .out = velocity + (size_t)image * job->n_elems,
        .room = job->loop.room,
    };

    for (int b = 0; b < n_branches; b++) {
        preds[b] = job->loop.preds + (size_t)(image * n_branches + b) * job->n_elems;
    }
    job->params.guider->merge(&job->params.guide, &merge);
}

static rp_status denoise(void *arg, int eval, const float *x, float *velocity)
{
    rp_job *job = arg;
    const int step = job->eval_step[eval];
    int n_branches = 0;

    if (job->params.residency == 's') {
        RP_TRY(rp_pool_settle(job->pool->pool));
        RP_TRY(rp_resident_reset(job->pool));
    }
    const int n_units = plan_wave(job, step, &n_branches);
    const rp_rank_stats before = own_stats(job);
    RP_TRY(eval_wave(job, step, eval, n_units, x));
    job->times.unit[eval] = seconds_per_unit(&before, own_stats(job));
    const double begin = rp_trace_begin(&job->pool->trace);
    for (int image = 0; image < job->params.images; image++) {
        merge_image(job, image, n_branches, velocity);
    }
    rp_trace_end(&job->pool->trace, begin, RP_TRACE_MERGE, (rp_trace_of){step, -1, -1, -1});
    return RP_OK;
}

/* ---- stages */

/* Schedule -> sigma [steps + 1], and the noise level of every model call -> pool->load.sigma. */
static rp_status fill_schedule(rp_job *job)
{
    const rp_job_params *p = &job->params;
    rp_flow_config flow = job->pool->pipeline.flow;
    const size_t steps = (size_t)p->steps;

    flow.image_seq_len = job->c; /* what diffusers' Lumina2Pipeline passes on: latents.shape[1] */
    if (p->shift > 0) {
        flow.shift = p->shift;
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

/* Conditions and noise levels to all ranks; buffers of the loop. */
static rp_status load_ranks(rp_job *job)
{
    const double begin = rp_clock_now();
    rp_job_load *load = &job->pool->load;
    const rp_pipeline *p = &job->pool->pipeline;
    const size_t n_units = (size_t)job->params.images * (size_t)load->n_conds;

    load->c = job->c;
    load->h = job->h;
    load->w = job->w;
    load->n_evals = job->n_evals;
    load->n_images = job->params.images;
    load->trace_room = rp_job_trace_room(job);
    for (int i = 0; i < load->n_conds; i++) {
        job->cost[i] = p->denoiser->cost(p->denoiser_self, load->n_tokens[i], job->h, job->w);
    }
    RP_TRY(rp_mem_new(n_units, sizeof(rp_unit), "units", (void **)&job->units));
    RP_TRY(rp_job_loop_open(job));
    RP_TRY(rp_load_send(job->pool));
    job->times.load = rp_clock_now() - begin;
    return RP_OK;
}

static rp_status show_latents(rp_job *job, int step)
{
    if (job->hooks != NULL && job->hooks->latents != NULL) {
        const int shape[4] = {job->params.images, job->c, job->h, job->w};
        RP_TRY(rp_job_loop_fetch(job));
        job->hooks->latents(job->hooks->arg, step, job->x, shape);
    }
    return RP_OK;
}

static rp_status sample(rp_job *job)
{
    const rp_sampler *sampler = job->params.sampler;
    const rp_sample_state state = {
        .x = job->loop.x,
        .n = (size_t)job->params.images * job->n_elems,
        .sigma = job->sigma,
        .n_steps = job->params.steps,
        .denoise = denoise,
        .arg = job,
        .velocity = job->loop.velocity,
        .work = job->loop.work,
        .vec = &job->loop.vec,
    };

    job->started = rp_clock_now();
    if (job->params.residency == 'j') {
        RP_TRY(rp_resident_reset(job->pool));
    }
    rp_job_loop_begin(job);
    RP_TRY(rp_checkpoint_restore(job));
    for (int step = job->first_step, eval = job->first_eval; step < job->params.steps; step++) {
        const double begin = rp_clock_now();
        job->step = step;
        RP_TRY(sampler->step(&state, step, eval));
        if (step + 1 == job->params.steps) {
            RP_TRY(rp_pool_settle(job->pool->pool));
        }
        rp_trace_end(&job->pool->trace, begin, RP_TRACE_SAMPLE, (rp_trace_of){step, -1, -1, -1});
        while (eval < job->n_evals && job->eval_step[eval] == step) {
            eval++;
        }
        job->times.step[step] = rp_clock_now() - begin;
        RP_TRY(show_latents(job, step));
        const rp_status st = rp_job_progress(job, "sample", step + 1);
        if (st == RP_E_CANCEL) {
            RP_TRY(rp_pool_settle(job->pool->pool));
            rp_checkpoint_save(job, step + 1);
        }
        RP_TRY(st);
    }
    RP_TRY(rp_job_loop_fetch(job));
    job->times.sample = rp_clock_now() - job->started;
    rp_pool_stats(job->pool->pool, job->stats);
    return rp_job_medians(job);
}

/* Told to end here, with all steps done and no file written, a job keeps its state too. */
static rp_status finish_pictures(rp_job *job)
{
    rp_status st = rp_job_decode(job); /* x     -> rgb [images][height, width, 3] bytes    */

    if (st == RP_OK) {
        st = rp_job_write(job); /* rgb   -> PNG files, latents, report              */
    }
    if (st == RP_E_CANCEL) {
        rp_checkpoint_save(job, job->params.steps);
    }
    return st;
}

static rp_status run_stages(rp_job *job)
{
    RP_TRY(rp_job_check(job));         /* sizes, names, inputs: refused before any work    */
    RP_TRY(rp_job_encode(job));        /* text  -> tokens -> conditions [tokens, dim]      */
    RP_TRY(fill_schedule(job));        /* steps -> sigma [steps + 1]                       */
    RP_TRY(rp_job_start_latents(job)); /* seed or file -> x [images, c, h, w]              */
    RP_TRY(load_ranks(job));           /* conditions and sigmas live on every rank         */
    RP_TRY(sample(job));               /* x: noise -> picture's latents, wave by wave      */
    return finish_pictures(job);       /* x     -> rgb bytes -> PNG files, latents, report */
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
    free(job->decoded);
    free(job->files);
    free(job->report);
    free(job->sigma);
    free(job->eval_step);
    free(job->times.step);
    free(job->times.unit);
    free(job->x);
    rp_job_loop_close(job);
    rp_safetensors_close(job->resume);
    free(job->units);
    free(job->stats);
}

/* The pool's timeline goes on with the next job. */
static rp_status copy_units(const rp_timeline *timeline, rp_timed_unit **out)
{
    const size_t n = (size_t)timeline->n;

    RP_TRY(rp_mem_new(n, sizeof(**out), "the times of units", (void **)out));
    if (n > 0) {
        memcpy(*out, timeline->units, n * sizeof(**out));
    }
    return RP_OK;
}

/* Pictures, report and numbers change hands; the rest goes with the job. */
static rp_status hand_over(rp_job *job, rp_result **out)
{
    rp_timed_unit *units = NULL;

    RP_TRY(copy_units(&job->pool->timeline, &units));
    rp_result *result = calloc(1, sizeof(*result));
    if (result == NULL) {
        free(units);
        return RP_FAIL(RP_E_NOMEM, "no memory for the result");
    }
    *result = (rp_result){
        .units = units,
        .n_units = job->pool->timeline.n,
        .n_images = job->params.images,
        .width = job->params.width,
        .height = job->params.height,
        .rgb = job->rgb,
        .report = job->report,
        .times = job->times,
        .open_seconds = job->pool->open_seconds,
        .read_seconds = job->pool->pipeline.read_seconds,
        .read_gb = (double)job->pool->pipeline.bytes_read * 1e-9,
        .connect_seconds = job->pool->connect_seconds,
        .share_seconds = job->pool->share_seconds,
        .share_gb = (double)job->pool->weights_bytes * 1e-9,
        .steps_per_second = (job->params.steps - job->first_step) / job->times.sample,
        .n_ranks = rp_ctrl_n_ranks(job->pool->ctrl),
        .stats = job->stats,
    };
    result->times.step = NULL;
    result->times.unit = NULL;
    job->rgb = NULL;
    job->report = NULL;
    job->stats = NULL;
    *out = result;
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
    free(result->units);
    free(result);
}

/* After these the other ranks are where they were: waiting for the next message. */
static bool still_serves(rp_status st)
{
    return st == RP_OK || st == RP_E_ARG || st == RP_E_IO || st == RP_E_EXISTS ||
           st == RP_E_FORMAT || st == RP_E_CANCEL;
}

rp_status rp_job_run(rankpool *pool, const rp_settings *settings, const rp_hooks *hooks,
                     rp_result **result_out)
{
    rp_job job = {.pool = pool, .settings = settings, .hooks = hooks};
    const double begin = rp_clock_now();
    rp_status st = rp_job_params_read(settings, &job.params);

    if (st == RP_OK) {
        st = rp_mem_new((size_t)rp_ctrl_n_ranks(pool->ctrl), sizeof(*job.stats), "statistics",
                        (void **)&job.stats);
    }
    if (st == RP_OK) {
        st = run_stages(&job);
    }
    if (st == RP_OK) {
        rp_checkpoint_remove(&job);
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
