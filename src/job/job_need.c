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

enum {
    N_PRECISIONS = sizeof(g_precisions) / sizeof(g_precisions[0]),
    FIT_BYTES = 200,
    GUESTS_BYTES = 160
};

static const char *const g_parts[] = {
    [RP_ROOM_ENCODE] = "text encoder",
    [RP_ROOM_SAMPLE] = "transformer",
    [RP_ROOM_DECODE] = "VAE",
};

typedef struct {
    rp_model_need denoiser, encoder, vae; /* the latter two 0 where they never come */
} needs;

typedef struct {
    const rp_pipeline *p;
    rp_room_use use;
    rp_device_info device;
    int precision; /* at present: row of g_precisions */
    rp_denoiser_job job;
    needs need;
    size_t room;  /* for all of it, and for */
    size_t spare; /* scratch to come */
} shortage;

/* ---- what each part takes */

static rp_status need_in(const shortage *s, const char *part, rp_precision precision,
                         const rp_denoiser_job *job, needs *out)
{
    const rp_pipeline *p = s->p;
    char *dir = rp_mem_printf("%s/%s", p->dir, part);
    rp_status st = RP_E_NOMEM;

    if (dir != NULL && strcmp(part, "transformer") == 0) {
        st = p->denoiser->need(dir, precision, job, &out->denoiser);
    } else if (dir != NULL && strcmp(part, "text_encoder") == 0) {
        st = p->encoder->need(dir, precision, job->max_tokens, &out->encoder);
    } else if (dir != NULL) {
        st = p->vae->need(dir, precision, out->denoiser.h, out->denoiser.w, &out->vae);
    }
    free(dir);
    return st;
}

/* Other ranks than rank 0 need no encoder, and leave a picture to it rather than fail. */
static bool need_of(const shortage *s, int precision, const rp_denoiser_job *job, needs *out)
{
    const rp_precision as = g_precisions[precision].precision;

    *out = (needs){0};
    return need_in(s, "transformer", as, job, out) == RP_OK &&
           (!s->p->whole || (need_in(s, "text_encoder", as, job, out) == RP_OK &&
                             need_in(s, "vae", as, job, out) == RP_OK));
}

/* Of the largest moment: see rp_need_explain. */
static size_t most_of(const needs *n)
{
    size_t beside = n->denoiser.buffers;

    beside = n->encoder.weights + n->encoder.buffers > beside
                 ? n->encoder.weights + n->encoder.buffers
                 : beside;
    beside = n->vae.weights + n->vae.buffers > beside ? n->vae.weights + n->vae.buffers : beside;
    return n->denoiser.weights + beside;
}

static bool fits(const shortage *s, int precision, const rp_denoiser_job *job, double *gb)
{
    needs need;
    const bool ok = need_of(s, precision, job, &need) && most_of(&need) + s->spare <= s->room;

    *gb = ok ? (double)most_of(&need) * 1e-9 : 0;
    return ok;
}

/* ---- what there is */

/* Scratch that is not there yet. It comes with the first units, of the device's libraries, so what
 * fits without it would fail in the first step. An earlier job has shown how much it is; before
 * that the backend's own word counts: rather too much than too little. */
static size_t scratch_to_come(const shortage *s)
{
    const size_t known = s->p->scratch_known;
    const size_t all = known > 0 ? known : s->device.bytes_scratch_room;

    return all > s->device.bytes_scratch ? all - s->device.bytes_scratch : 0;
}

/* All leave but the transformer's weights. */
static void clear(rp_pipeline *p)
{
    rp_pipeline_close_encoder(p);
    rp_pipeline_close_vae(p);
    if (p->denoiser_self != NULL) {
        p->denoiser->trim(p->denoiser_self);
    }
}

static bool measure(shortage *s)
{
    const rp_backend *backend = &s->p->backend;

    backend->ops->info(backend->self, &s->device);
    while (s->precision < N_PRECISIONS - 1 &&
           strcmp(g_precisions[s->precision].name, s->device.precision) != 0) {
        s->precision++;
    }
    if (!need_of(s, s->precision, &s->job, &s->need)) {
        return false;
    }
    s->job.h = s->need.denoiser.h;
    s->job.w = s->need.denoiser.w;
    s->room = s->device.bytes_free + (s->p->denoiser_self != NULL ? s->need.denoiser.weights : 0);
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

/* The text encoder does not know how large the picture is to be, or how many. */
static void add_all(const shortage *s, int n_images, char *text)
{
    add_precisions(s, text);
    if (s->use != RP_ROOM_ENCODE) {
        add_size(s, text);
    }
    if (s->use == RP_ROOM_SAMPLE && n_images > 1) {
        add(text, "fewer --images");
    }
    if (text[0] == '\0') {
        add(text, "nothing smaller of this model");
    }
    if (s->spare > 0) {
        const size_t used = strlen(text);
        (void)snprintf(text + used, FIT_BYTES - used, " (with %.3g GB left for scratch)",
                       (double)s->spare * 1e-9);
    }
}

/* ---- the line */

static void tell_guests(const needs *n, char *text)
{
    (void)snprintf(text, GUESTS_BYTES,
                   ", or instead the text encoder's weights %.3g GB and buffers %.3g "
                   "GB, or the VAE's %.3g and %.3g GB",
                   (double)n->encoder.weights * 1e-9, (double)n->encoder.buffers * 1e-9,
                   (double)n->vae.weights * 1e-9, (double)n->vae.buffers * 1e-9);
}

void rp_need_explain(rp_pipeline *p, rp_room_use use, const rp_denoiser_job *job, int n_images,
                     char *text, size_t n_bytes)
{
    shortage s = {.p = p, .use = use, .job = *job};
    char fit[FIT_BYTES] = "", guests[GUESTS_BYTES] = "";

    clear(p);
    if (!measure(&s)) {
        return;
    }
    add_all(&s, n_images, fit);
    if (p->whole) {
        tell_guests(&s.need, guests);
    }
    (void)snprintf(text, n_bytes,
                   "not enough memory on %s for the %s: the transformer's weights take %.3g GB in "
                   "%s%s, its buffers for latents of %d x %d %.3g GB%s, scratch so far %.3g GB; "
                   "%.3g of %.3g GB are free. What would fit: %s",
                   s.device.name, g_parts[use], (double)s.need.denoiser.weights * 1e-9,
                   s.device.precision, p->denoiser_self != NULL ? " (they are there)" : "", s.job.w,
                   s.job.h, (double)s.need.denoiser.buffers * 1e-9, guests,
                   (double)s.device.bytes_scratch * 1e-9, (double)s.device.bytes_free * 1e-9,
                   (double)s.device.bytes_total * 1e-9, fit);
}

rp_status rp_need_run(rp_pipeline *p, rp_room_use use, const rp_denoiser_job *job, int n_images,
                      rp_room_fn work, void *arg)
{
    char text[RP_LOG_LINE_BYTES];
    const rp_status st = rp_room_try(p, use, work, arg, text);

    if (st == RP_E_NOMEM && p->on_device) {
        rp_need_explain(p, use, job, n_images, text, sizeof(text));
    }
    if (st != RP_OK && text[0] != '\0') {
        RP_ERROR("%s", text);
    }
    return st;
}
