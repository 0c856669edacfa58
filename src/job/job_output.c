/* job_output.c - everything that a job writes, and how far it is. */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/outfile.h"
#include "image/image.h"
#include "weights/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

rp_status rp_job_progress(const rp_job *job, const char *phase, int step)
{
    if (job->hooks == NULL || job->hooks->progress == NULL) {
        return RP_OK;
    }
    const double seconds = job->started > 0 ? rp_clock_now() - job->started : 0;
    const rp_progress progress = {
        .step = step,
        .n_steps = job->params.steps,
        .n_images = job->params.images,
        .seconds = seconds,
        .steps_per_second =
            step > job->first_step && seconds > 0 ? (step - job->first_step) / seconds : 0,
        .phase = phase,
    };
    return job->hooks->progress(job->hooks->arg, &progress) == 0 ? RP_OK : RP_E_CANCEL;
}

/* ---- writing */

/* Settings that make picture i again on its own: its seed, its size, one image. */
static char *picture_settings(const rp_job *job, int i)
{
    char fingerprint[24], number[3][24];
    const char *extra[] = {"rankpool",
                           RP_VERSION,
                           "model_name",
                           rp_pipeline_name(&job->pool->pipeline),
                           "model_fingerprint",
                           fingerprint,
                           NULL,
                           NULL,
                           NULL};
    rp_settings *s = rp_settings_copy(job->settings);
    char *json = NULL;

    (void)snprintf(fingerprint, sizeof(fingerprint), "%016" PRIx64,
                   job->pool->pipeline.fingerprint);
    (void)snprintf(number[0], sizeof(number[0]), "%" PRIu64, job->params.seed + (uint64_t)i);
    (void)snprintf(number[1], sizeof(number[1]), "%d", job->params.width);
    (void)snprintf(number[2], sizeof(number[2]), "%d", job->params.height);
    if (job->params.latents_in[0] != '\0') {
        extra[6] = "latents_file";
        extra[7] = job->params.latents_in;
    }
    if (s != NULL && rp_settings_set(s, "seed", number[0]) == RP_OK &&
        rp_settings_set(s, "width", number[1]) == RP_OK &&
        rp_settings_set(s, "height", number[2]) == RP_OK) {
        json = rp_settings_json(s, RP_OPT_PICTURE, extra);
    }
    rp_settings_free(s);
    return json;
}

/* The files of a job, out of those of its pictures that have one. */
static rp_status list_files(const rp_job *job, rp_image_file *files, int *n)
{
    for (int i = 0; i < job->params.images; i++) {
        if (job->files[i] == NULL) {
            continue;
        }
        files[*n] = (rp_image_file){job->files[i], job->rgb[i], picture_settings(job, i)};
        if (files[*n].settings == NULL) {
            return RP_FAIL(RP_E_NOMEM, "no memory for the settings of %s", job->files[i]);
        }
        (*n)++;
    }
    return RP_OK;
}

static rp_status write_pictures(const rp_job *job)
{
    rp_image_file *files = NULL;
    int n = 0;

    RP_TRY(rp_mem_new((size_t)job->params.images, sizeof(*files), "pictures", (void **)&files));
    rp_status st = list_files(job, files, &n);
    if (st == RP_OK) {
        st = rp_image_write_pngs(files, n, job->params.width, job->params.height,
                                 job->params.overwrite, job->pool->n_threads);
    }
    for (int i = 0; i < n; i++) {
        free((char *)(uintptr_t)files[i].settings);
    }
    free(files);
    return st;
}

static rp_status write_latents(const rp_job *job)
{
    const rp_named_tensor latents = {
        .name = "latents",
        .tensor = {.dtype = RP_F32,
                   .n_dims = 4,
                   .dim = {job->params.images, job->c, job->h, job->w},
                   .data = job->x},
    };
    if (job->params.latents_out[0] == '\0') {
        return RP_OK;
    }
    return rp_safetensors_write(job->params.latents_out, &latents, 1, NULL, job->params.overwrite);
}

static rp_status write_report(rp_job *job)
{
    rp_outfile *file = NULL;

    job->report = rp_job_report(job);
    if (job->report == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the report");
    }
    if (job->params.report[0] == '\0') {
        return RP_OK;
    }
    RP_TRY(rp_outfile_open(job->params.report, job->params.overwrite, &file));
    (void)fprintf(rp_outfile_stream(file), "%s\n", job->report);
    return rp_outfile_commit(file);
}

rp_status rp_job_write(rp_job *job)
{
    const double begin = rp_clock_now();

    RP_TRY(rp_job_progress(job, "write", job->params.steps));
    RP_TRY(write_pictures(job));
    RP_TRY(write_latents(job));
    RP_TRY(rp_job_trace_write(job));
    job->times.write = rp_clock_now() - begin;
    return write_report(job);
}
