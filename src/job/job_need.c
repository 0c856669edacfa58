/* job_need.c - the sums behind "not enough GPU memory". */
#include "job/job_need.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    rp_precision precision;
} g_precisions[] = {
    {"f32", RP_PRECISION_F32}, {"bf16", RP_PRECISION_BF16}, {"fp8", RP_PRECISION_FP8}};

enum { N_PRECISIONS = sizeof(g_precisions) / sizeof(g_precisions[0]), FIT_BYTES = 200 };

typedef struct {
    const rp_pipeline *p;
    rp_device_info device;
    int precision; /* at present: row of g_precisions */
    rp_denoiser_job job;
    rp_denoiser_need need;
    size_t room;  /* for all of it, and for */
    size_t spare; /* scratch to come */
} shortage;

static bool need_of(const shortage *s, int precision, const rp_denoiser_job *job,
                    rp_denoiser_need *out)
{
    char *dir = rp_mem_printf("%s/transformer", s->p->dir);

    const bool ok = dir != NULL &&
                    s->p->denoiser->need(dir, g_precisions[precision].precision, job, out) == RP_OK;
    free(dir);
    return ok;
}

static bool fits(const shortage *s, int precision, const rp_denoiser_job *job, double *gb)
{
    rp_denoiser_need need;
    const bool ok =
        need_of(s, precision, job, &need) && need.weights + need.buffers + s->spare <= s->room;

    *gb = ok ? (double)(need.weights + need.buffers) * 1e-9 : 0;
    return ok;
}

/* Scratch that is not there yet. It comes with the first units, of the device's libraries, so what
 * fits without it would fail in the first step. An earlier job has shown how much it is; before
 * that the backend's own word counts: rather too much than too little. */
static size_t scratch_to_come(const shortage *s)
{
    const size_t known = s->p->scratch_known;
    const size_t all = known > 0 ? known : s->device.bytes_scratch_room;

    return all > s->device.bytes_scratch ? all - s->device.bytes_scratch : 0;
}

static bool measure(shortage *s)
{
    const rp_backend *backend = &s->p->backend;

    if (s->p->denoiser_self != NULL) {
        s->p->denoiser->trim(s->p->denoiser_self);
    }
    backend->ops->info(backend->self, &s->device);
    while (s->precision < N_PRECISIONS - 1 &&
           strcmp(g_precisions[s->precision].name, s->device.precision) != 0) {
        s->precision++;
    }
    if (!need_of(s, s->precision, &s->job, &s->need)) {
        return false;
    }
    s->job.h = s->need.h;
    s->job.w = s->need.w;
    s->room = s->device.bytes_free + (s->p->denoiser_self != NULL ? s->need.weights : 0);
    s->spare = scratch_to_come(s);
    return true;
}

/* ---- what would fit */

static void add(char *text, const char *more)
{
    const size_t used = strlen(text);

    (void)snprintf(text + used, FIT_BYTES - used, "%s%s", used > 0 ? ", " : "", more);
}

static void add_precisions(const shortage *s, char *text)
{
    char more[64];
    double gb = 0;

    for (int i = s->precision + 1; i < N_PRECISIONS; i++) {
        const bool computes =
            (s->device.precisions & RP_PRECISION_BIT(g_precisions[i].precision)) != 0;
        if (computes && fits(s, i, &s->job, &gb)) {
            (void)snprintf(more, sizeof(more), "--precision %s (%.3g GB)", g_precisions[i].name,
                           gb);
            add(text, more);
        }
    }
}

/* The largest of some smaller sizes; in pixels where this rank has the VAE's scale. */
static void add_size(const shortage *s, char *text)
{
    const int patch = s->p->denoiser_info.patch > 0 ? s->p->denoiser_info.patch : 1;
    const int scale = s->p->vae_info.scale;
    char more[96] = "a smaller --width and --height";
    double gb = 0;

    for (int eighths = 7; eighths > 0; eighths--) {
        rp_denoiser_job job = s->job;
        job.h = s->job.h * eighths / 8 / patch * patch;
        job.w = s->job.w * eighths / 8 / patch * patch;
        if (job.h > 0 && job.w > 0 && fits(s, s->precision, &job, &gb)) {
            if (scale > 0) {
                (void)snprintf(more, sizeof(more), "--width %d --height %d (%.3g GB)",
                               job.w * scale, job.h * scale, gb);
            }
            add(text, more);
            return;
        }
    }
}

void rp_need_explain(const rp_pipeline *p, const rp_denoiser_job *job, int n_images, char *text,
                     size_t n_bytes)
{
    shortage s = {.p = p, .job = *job};
    char fit[FIT_BYTES] = "", spare[64] = "";

    if (!measure(&s)) {
        return;
    }
    add_precisions(&s, fit);
    add_size(&s, fit);
    if (n_images > 1) {
        add(fit, "fewer --images");
    }
    if (s.spare > 0) {
        (void)snprintf(spare, sizeof(spare), " (%.3g GB more are left for scratch)",
                       (double)s.spare * 1e-9);
    }
    (void)snprintf(
        text, n_bytes,
        "not enough memory on %s: the transformer's weights take %.3g GB in %s%s, its "
        "buffers for latents of %d x %d %.3g GB, scratch so far %.3g GB; %.3g of %.3g GB are free. "
        "What would fit: %s%s",
        s.device.name, (double)s.need.weights * 1e-9, s.device.precision,
        p->denoiser_self != NULL ? " (they are there)" : "", s.job.w, s.job.h,
        (double)s.need.buffers * 1e-9, (double)s.device.bytes_scratch * 1e-9,
        (double)s.device.bytes_free * 1e-9, (double)s.device.bytes_total * 1e-9,
        fit[0] != '\0' ? fit : "nothing smaller of this model", spare);
}
