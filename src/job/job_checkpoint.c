/*
 * job_checkpoint.c - the state of a job that was ended early, and the next run that goes on from
 * it.
 *
 * A safetensors file: 'latents' [images, c, h, w] as the last whole step left them, 'history'
 * [n_work * images, c, h, w] what the sampler keeps between steps. Metadata: "rankpool_checkpoint"
 * is the number of steps done, "job" everything that the picture depends on. Both arrays are copied
 * bit by bit, so the picture is the one of an undisturbed run.
 */
#include "job/job.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/outfile.h"
#include "weights/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK "rankpool_checkpoint"

static size_t latents_elems(const rp_job *job)
{
    return (size_t)job->params.images * job->n_elems;
}

static size_t history_elems(const rp_job *job)
{
    return (size_t)job->params.sampler->n_work * latents_elems(job);
}

/* Two jobs with the same text make the same picture. Free with free(). */
static char *job_text(const rp_job *job)
{
    const rankpool *pool = job->pool;
    char model[24], shape[64];
    const char *extra[] = {"rankpool",   RP_VERSION,
                           "model",      model,
                           "shape",      shape,
                           "backend",    pool->backend.ops->name,
                           "precision",  pool->device.precision,
                           "latents_in", job->params.latents_in,
                           NULL};

    (void)snprintf(model, sizeof(model), "%016" PRIx64, pool->pipeline.fingerprint);
    (void)snprintf(shape, sizeof(shape), "%d %d %d %d", job->params.images, job->c, job->h, job->w);
    return rp_settings_json(job->settings, RP_OPT_PICTURE, extra);
}

/* ---- going on */

static rp_status check_tensor(const rp_job *job, const char *name, int n, rp_tensor *out)
{
    const int64_t want[4] = {n, job->c, job->h, job->w};

    if (rp_safetensors_find(job->resume, name, out) != RP_OK || out->dtype != RP_F32 ||
        out->n_dims != 4 || memcmp(out->dim, want, sizeof(want)) != 0) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: tensor '%s' is not that of this checkpoint's job; remove the file",
                       job->params.checkpoint, name);
    }
    return RP_OK;
}

static rp_status read_step(rp_job *job)
{
    const char *text = rp_safetensors_metadata(job->resume, MARK);
    const int n = job->params.images;
    rp_tensor tensor;

    if (text == NULL) {
        return RP_FAIL(RP_E_FORMAT,
                       "checkpoint: %s is another file than a checkpoint; it is left alone",
                       job->params.checkpoint);
    }
    job->checkpoint_is_ours = true;
    char *own = job_text(job);
    const char *other = rp_safetensors_metadata(job->resume, "job");
    const bool same = own != NULL && other != NULL && strcmp(own, other) == 0;
    free(own);
    if (!same) {
        RP_WARN("%s is the checkpoint of other settings or of another version; starting over",
                job->params.checkpoint);
        return RP_OK;
    }
    job->first_step = atoi(text);
    if (job->first_step < 1 || job->first_step > job->params.steps) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: step '%.20s' is not one of this checkpoint's job; remove the file",
                       job->params.checkpoint, text);
    }
    RP_TRY(check_tensor(job, "latents", n, &tensor));
    return history_elems(job) == 0
               ? RP_OK
               : check_tensor(job, "history", n * job->params.sampler->n_work, &tensor);
}

/* Nobody looks at a checkpoint before the job is told to end, and then it is too late for another
 * name. So a file is begun beside it and removed: permissions do not tell of every file system. */
static rp_status check_writable(const char *path)
{
    rp_outfile *file = NULL;

    RP_TRY(rp_outfile_open(path, 1, &file));
    rp_outfile_abandon(file);
    return RP_OK;
}

rp_status rp_checkpoint_find(rp_job *job)
{
    const char *path = job->params.checkpoint;

    if (path[0] == '\0') {
        return RP_OK;
    }
    RP_TRY(check_writable(path));
    if (access(path, F_OK) != 0) {
        return RP_OK;
    }
    RP_TRY(rp_safetensors_open(path, &job->resume));
    return read_step(job);
}

static void put(const rp_job *job, float *to, const rp_tensor *from)
{
    const rp_backend *backend = &job->pool->backend;
    const size_t n_bytes = (size_t)rp_tensor_elems(from) * sizeof(float);

    if (job->pool->on_device) {
        backend->ops->put(backend->self, to, from->data, n_bytes);
    } else {
        memcpy(to, from->data, n_bytes);
    }
}

rp_status rp_checkpoint_restore(rp_job *job)
{
    const rp_backend *backend = &job->pool->backend;
    rp_tensor tensor;
    rp_status st = RP_OK;

    if (job->first_step == 0) {
        return RP_OK;
    }
    RP_TRY(rp_safetensors_find(job->resume, "latents", &tensor));
    put(job, job->loop.x, &tensor);
    if (history_elems(job) > 0) {
        RP_TRY(rp_safetensors_find(job->resume, "history", &tensor));
        put(job, job->loop.work, &tensor);
    }
    if (job->pool->on_device) {
        st = backend->ops->sync(backend->self); /* the file is read until here */
    }
    while (job->first_eval < job->n_evals && job->eval_step[job->first_eval] < job->first_step) {
        job->first_eval++;
    }
    RP_INFO("going on from step %d of %d", job->first_step, job->params.steps);
    return st;
}

/* ---- leaving off */

/* The sampler's history in host memory: `room` where it has to be fetched. */
static rp_status fetch_history(const rp_job *job, float **room, const float **out)
{
    const rp_backend *backend = &job->pool->backend;
    const size_t n = history_elems(job);

    *out = job->loop.work;
    if (!job->pool->on_device || n == 0) {
        return RP_OK;
    }
    RP_TRY(rp_mem_new(n, sizeof(float), "a checkpoint", (void **)room));
    backend->ops->get(backend->self, *room, job->loop.work, n * sizeof(float));
    *out = *room;
    return backend->ops->sync(backend->self);
}

static rp_status save(rp_job *job, int step, const char *text)
{
    const int n = job->params.images, n_history = n * job->params.sampler->n_work;
    const float *history = NULL;
    float *room = NULL;
    char number[16];
    const char *metadata[] = {MARK, number, "job", text, NULL};
    rp_status st = RP_OK;

    (void)snprintf(number, sizeof(number), "%d", step);
    RP_TRY_OUT(rp_job_loop_fetch(job));
    RP_TRY_OUT(fetch_history(job, &room, &history));
    const rp_named_tensor tensors[] = {
        {"latents",
         {.dtype = RP_F32, .n_dims = 4, .dim = {n, job->c, job->h, job->w}, .data = job->x}},
        {"history",
         {.dtype = RP_F32,
          .n_dims = 4,
          .dim = {n_history, job->c, job->h, job->w},
          .data = history}}};
    RP_TRY_OUT(rp_safetensors_write(job->params.checkpoint, tensors, n_history > 0 ? 2 : 1,
                                    metadata, job->checkpoint_is_ours));
out:
    free(room);
    return st;
}

void rp_checkpoint_save(rp_job *job, int step)
{
    if (job->params.checkpoint[0] == '\0') {
        return;
    }
    char *text = job_text(job);
    if (text == NULL || save(job, step, text) != RP_OK) {
        RP_WARN("no checkpoint in %s: this job will start over", job->params.checkpoint);
    }
    free(text);
}

void rp_checkpoint_remove(const rp_job *job)
{
    if (job->checkpoint_is_ours && unlink(job->params.checkpoint) != 0 && errno != ENOENT) {
        RP_WARN("cannot remove the checkpoint %s: %s", job->params.checkpoint, strerror(errno));
    }
}
