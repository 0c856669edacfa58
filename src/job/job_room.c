/* job_room.c - who leaves the device when its memory is short, and what is given back then. */
#include "job/job_room.h"

#include "base/check.h"
#include "base/log.h"

/* Kernels, workspaces and graphs of a first step take this share of a device: 0.5 GB of 24. */
#define SPARE_SHARE 48

static size_t bytes_free(const rp_pipeline *p, size_t *total)
{
    rp_device_info info;

    p->backend.ops->info(p->backend.self, &info);
    if (total != NULL) {
        *total = info.bytes_total;
    }
    return info.bytes_free;
}

/* ---- leaving */

typedef struct {
    const char *what, *come, *need; /* "text encoder", "it comes" back for the next "prompt" */
    void (*leave)(rp_pipeline *p);  /* nothing to do when it is not there */
} guest;

static void leave_buffers(rp_pipeline *p)
{
    p->denoiser->trim(p->denoiser_self);
}

static void leave_latents(rp_pipeline *p)
{
    if (p->latents != NULL) {
        rp_buffer_free(&p->backend, p->latents);
    }
}

static void leave_pictures(rp_pipeline *p)
{
    if (p->pictures != NULL) {
        rp_buffer_free(&p->backend, p->pictures);
    }
}

static const guest g_encoder = {"text encoder", "it comes", "prompt", rp_pipeline_close_encoder};
static const guest g_vae = {"VAE", "it comes", "picture", rp_pipeline_close_vae};
static const guest g_buffers = {"transformer's buffers", "they come", "job", leave_buffers};
static const guest g_latents = {"latents of the last job", "room comes", "job", leave_latents};
static const guest g_pictures = {"pictures of the last job", "room comes", "pictures",
                                 leave_pictures};

/* One after the other, until something was freed; first who is cheap to bring back. Between jobs
 * nobody needs arrays, and then and after the last step nobody what the denoiser computes in. */
static const guest *const g_leaves[][5] = {
    [RP_ROOM_ENCODE] = {&g_pictures, &g_latents, &g_vae, &g_buffers, NULL},
    [RP_ROOM_SAMPLE] = {&g_pictures, &g_encoder, &g_vae, NULL},
    [RP_ROOM_DECODE] = {&g_encoder, &g_buffers, NULL},
};

/* Also from within a wave, where rank 0 holds its lines; other ranks have none. */
static void say_left(const rp_pipeline *p, const guest *g, double gb)
{
    const bool held = rp_log_hold(!p->whole);

    RP_INFO("the %s left the GPU (%.2g GB): memory is short; %s back for the next %s", g->what, gb,
            g->come, g->need);
    (void)rp_log_hold(held);
}

static bool make_room(rp_pipeline *p, rp_room_use use)
{
    for (int i = 0; g_leaves[use][i] != NULL; i++) {
        const guest *g = g_leaves[use][i];
        const size_t before = bytes_free(p, NULL);
        g->leave(p);
        const size_t after = bytes_free(p, NULL);
        if (after > before) {
            say_left(p, g, (double)(after - before) * 1e-9);
            return true;
        }
    }
    return false;
}

/* What earlier units have made, for job_need.c. */
static void note_scratch(rp_pipeline *p)
{
    rp_device_info info;

    p->backend.ops->info(p->backend.self, &info);
    if (p->has_sampled && info.bytes_scratch > p->scratch_known) {
        p->scratch_known = info.bytes_scratch;
    }
}

/* When nobody is left to go. The next units allocate again and are recorded again, so not as long
 * as somebody can leave, and not in rp_room_spare: the same job would pay for it each time. */
static bool trim(rp_pipeline *p)
{
    const size_t before = bytes_free(p, NULL);

    note_scratch(p);
    p->backend.ops->trim(p->backend.self);
    const size_t after = bytes_free(p, NULL);
    if (after <= before) {
        return false;
    }
    const bool held = rp_log_hold(!p->whole); /* rank 0 alone prints */
    RP_INFO("the GPU's scratch was given back (%.2g GB): memory is short; the next units make it "
            "again",
            (double)(after - before) * 1e-9);
    (void)rp_log_hold(held);
    return true;
}

/* ---- trying */

static rp_status try_once(rp_pipeline *p, rp_room_use use, rp_room_fn work, void *arg)
{
    if (use == RP_ROOM_ENCODE) {
        RP_TRY(rp_pipeline_open_encoder(p));
    } else if (use == RP_ROOM_DECODE) {
        RP_TRY(rp_pipeline_open_vae(p));
    }
    return work != NULL ? work(arg) : RP_OK;
}

/* Scratch last, and once: what the try after that has made is its own. */
static bool can_try_again(rp_pipeline *p, rp_room_use use, bool *trimmed)
{
    if (make_room(p, use)) {
        return true;
    }
    if (*trimmed) {
        return false;
    }
    *trimmed = trim(p);
    return *trimmed;
}

rp_status rp_room_try(rp_pipeline *p, rp_room_use use, rp_room_fn work, void *arg, char *text)
{
    rp_status st = RP_OK;
    bool trimmed = false;

    text[0] = '\0';
    if (!p->on_device) {
        return try_once(p, use, work, arg);
    }
    rp_log_take(text, RP_LOG_LINE_BYTES); /* an older error is not this one's */
    do {
        rp_log_hold_errors(true);
        st = try_once(p, use, work, arg);
        rp_log_hold_errors(false);
        rp_log_take(text, RP_LOG_LINE_BYTES);
    } while (st == RP_E_NOMEM && can_try_again(p, use, &trimmed));
    return st;
}

rp_status rp_room_run(rp_pipeline *p, rp_room_use use, rp_room_fn work, void *arg)
{
    char text[RP_LOG_LINE_BYTES];

    if (!p->on_device) {
        return try_once(p, use, work, arg);
    }
    const rp_status st = rp_room_try(p, use, work, arg, text);
    if (st != RP_OK && text[0] != '\0') {
        RP_ERROR("%s", text);
    }
    return st;
}

void rp_room_spare(rp_pipeline *p)
{
    size_t total = 0;

    p->has_sampled = true;
    while (p->on_device && bytes_free(p, &total) < total / SPARE_SHARE &&
           make_room(p, RP_ROOM_SAMPLE)) {
    }
}
