/* job_start.c - a job's sizes, names and first latents: what can be refused is refused here. */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/outfile.h"
#include "base/randn.h"
#include "weights/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes */

static rp_status check_side(const rp_job *job, const char *name, int *px, int *latent)
{
    const rp_pipeline *p = &job->pool->pipeline;
    const int scale = p->vae_info.scale;
    const int multiple = scale * p->denoiser_info.patch;
    const int largest = scale * p->denoiser_info.max_latent_size;

    if (*px == 0) {
        *px = scale * p->denoiser_info.native_size;
    }
    if (*px % multiple != 0 || *px > largest) {
        return RP_FAIL(RP_E_ARG, "%s %d is not allowed; model %s takes multiples of %d up to %d",
                       name, *px, rp_pipeline_name(p), multiple, largest);
    }
    *latent = *px / scale;
    return RP_OK;
}

/* cuDNN counts the elements of a picture in 32 bits; pictures as rows are cut into bands. */
static rp_status check_area(const rp_job *job)
{
    const rankpool *pool = job->pool;
    const size_t largest = (size_t)job->h * (size_t)job->w * pool->pipeline.vae_info.widest;

    if (largest <= INT32_MAX || !pool->device.on_device ||
        pool->backend.ops->picture_rows(pool->backend.self)) {
        return RP_OK;
    }
    return RP_FAIL(RP_E_ARG,
                   "width %d, height %d: the VAE's pictures would hold %zu numbers; with "
                   "--precision %s on a GPU "
                   "%d are allowed; use bf16, or a smaller size",
                   job->params.width, job->params.height, largest, pool->device.precision,
                   INT32_MAX);
}

/* ---- output names */

/* "a/heart.png" and image 3 of several -> "a/heart-0003.png". */
static char *numbered_name(const char *out, int image, int n_images)
{
    const char *dot = strrchr(out, '.');
    const char *slash = strrchr(out, '/');

    if (n_images == 1) {
        return strdup(out);
    }
    if (dot == NULL || (slash != NULL && dot < slash)) {
        dot = out + strlen(out);
    }
    return rp_mem_printf("%.*s-%04d%s", (int)(dot - out), out, image, dot);
}

static rp_status check_pictures(rp_job *job)
{
    const rp_job_params *p = &job->params;
    const size_t n = strlen(p->out);

    RP_TRY(rp_mem_new((size_t)p->images, sizeof(char *), "names", (void **)&job->files));
    if (n == 0) {
        return RP_OK;
    }
    if (n < 5 || strcmp(p->out + n - 4, ".png") != 0) {
        return RP_FAIL(RP_E_ARG, "out: '%s' is not allowed; a picture's name ends in .png", p->out);
    }
    for (int i = 0; i < p->images; i++) {
        job->files[i] = numbered_name(p->out, i, p->images);
        if (job->files[i] == NULL) {
            return RP_FAIL(RP_E_NOMEM, "no memory for a file name");
        }
        RP_TRY(rp_outfile_check(job->files[i], p->overwrite));
    }
    return RP_OK;
}

static bool same_name(const char *a, const char *b)
{
    while (strncmp(a, "./", 2) == 0) {
        a += 2;
    }
    while (strncmp(b, "./", 2) == 0) {
        b += 2;
    }
    return strcmp(a, b) == 0;
}

/* Of two outputs with one name the later would replace the other, and the checkpoint is removed at
 * the end. Latents may be written where they were read. */
static rp_status check_own_names(const rp_job *job)
{
    const rp_job_params *p = &job->params;
    const struct {
        const char *key, *path;
        bool is_input;
    } own[] = {{"checkpoint", p->checkpoint, false},
               {"latents-in", p->latents_in, true},
               {"latents-out", p->latents_out, false},
               {"report", p->report, false},
               {"trace", p->trace, false}};
    const int n_own = (int)(sizeof(own) / sizeof(own[0]));

    for (int i = 0; i < n_own; i++) {
        for (int j = i + 1; j < n_own + p->images; j++) {
            const char *const other = j < n_own ? own[j].path : job->files[j - n_own];
            if (!own[i].is_input && own[i].path[0] != '\0' && other != NULL &&
                same_name(own[i].path, other)) {
                return RP_FAIL(RP_E_ARG,
                               "%s: %s is another file of this job; give it a name of its own",
                               own[i].key, own[i].path);
            }
        }
    }
    return RP_OK;
}

rp_status rp_job_check(rp_job *job)
{
    rp_job_params *p = &job->params;

    RP_TRY(check_side(job, "width", &p->width, &job->w));
    RP_TRY(check_side(job, "height", &p->height, &job->h));
    RP_TRY(check_area(job));
    job->c = job->pool->pipeline.denoiser_info.latent_channels;
    job->n_elems = (size_t)job->c * (size_t)job->h * (size_t)job->w;
    RP_TRY(check_pictures(job));
    if (p->latents_out[0] != '\0') {
        RP_TRY(rp_outfile_check(p->latents_out, p->overwrite));
    }
    if (p->report[0] != '\0') {
        RP_TRY(rp_outfile_check(p->report, p->overwrite));
    }
    if (p->trace[0] != '\0') {
        RP_TRY(rp_outfile_check(p->trace, p->overwrite));
    }
    RP_TRY(check_own_names(job));
    return rp_checkpoint_find(job);
}

/* ---- latents */

static rp_status check_latents(const rp_job *job, const rp_tensor *t)
{
    const int64_t want[4] = {job->params.images, job->c, job->h, job->w};
    const int skip = t->n_dims == 3 && job->params.images == 1; /* [c, h, w] of one image */
    bool fits = t->dtype == RP_F32 && t->n_dims == 4 - skip;

    for (int i = 0; fits && i < t->n_dims; i++) {
        fits = t->dim[i] == want[i + skip];
    }
    if (!fits) {
        return RP_FAIL(
            RP_E_FORMAT,
            "%s: tensor 'latents' must be F32 [%d, %d, %d, %d] (images, channels, height, "
            "width) for this job",
            job->params.latents_in, job->params.images, job->c, job->h, job->w);
    }
    for (int64_t i = 0; i < rp_tensor_elems(t); i++) {
        if (!isfinite(((const float *)t->data)[i])) {
            return RP_FAIL(RP_E_FORMAT, "%s: element %lld of 'latents' is not finite",
                           job->params.latents_in, (long long)i);
        }
    }
    return RP_OK;
}

static rp_status read_latents(rp_job *job)
{
    rp_safetensors *file = NULL;
    rp_tensor tensor;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_safetensors_open(job->params.latents_in, &file));
    if (rp_safetensors_find(file, "latents", &tensor) != RP_OK) {
        st = RP_FAIL(RP_E_FORMAT, "%s holds no tensor 'latents'", job->params.latents_in);
        goto out;
    }
    RP_TRY_OUT(check_latents(job, &tensor));
    memcpy(job->x, tensor.data, (size_t)rp_tensor_elems(&tensor) * sizeof(float));
out:
    rp_safetensors_close(file);
    return st;
}

rp_status rp_job_start_latents(rp_job *job)
{
    const double begin = rp_clock_now();
    const int n = job->params.images;

    RP_TRY(rp_mem_new((size_t)n * job->n_elems, sizeof(float), "latents", (void **)&job->x));
    if (job->params.latents_in[0] != '\0') {
        RP_TRY(read_latents(job));
        job->times.noise = rp_clock_now() - begin;
        return RP_OK;
    }
    for (int i = 0; i < n; i++) {
        rp_randn(job->params.seed + (uint64_t)i, job->x + (size_t)i * job->n_elems, job->n_elems);
    }
    job->times.noise = rp_clock_now() - begin;
    return RP_OK;
}
