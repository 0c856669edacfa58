/* job_pipeline.c - a model folder, opened part by part. */
#include "job/job_pipeline.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/job_need.h"
#include "weights/config.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHIPPED "emoji-lumina2"

static bool is_folder(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* ---- the shipped model: seen from this library's own file, so that the build folder and an
 * installed prefix can be moved */

static bool try_dir(const char *base, const char *below, char *path, size_t n_bytes)
{
    return snprintf(path, n_bytes, "%s/%s", base, below) < (int)n_bytes && is_folder(path);
}

static bool find_from(const char *file, char *path, size_t n_bytes)
{
    static const char *const below[] = {"share/rankpool/models/" SHIPPED, "share/models/" SHIPPED};
    char base[PATH_MAX];

    if (realpath(file, base) == NULL) {
        return false;
    }
    for (int up = 0; up < 5; up++) { /* <prefix>/lib/<triplet>/x, <tree>/build/bin/x */
        char *slash = strrchr(base, '/');
        if (slash == NULL || slash == base) {
            return false;
        }
        *slash = '\0';
        for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
            if (try_dir(base, below[i], path, n_bytes)) {
                return true;
            }
        }
    }
    return false;
}

static rp_status find_shipped(char *path, size_t n_bytes)
{
    Dl_info info;

    if ((dladdr(rp_pipeline_name, &info) != 0 && info.dli_fname != NULL &&
         find_from(info.dli_fname, path, n_bytes)) ||
        find_from("/proc/self/exe", path, n_bytes)) {
        return RP_OK;
    }
    return RP_FAIL(RP_E_IO,
                   "the shipped model (%s) was not found beside this program; give --model DIR",
                   SHIPPED);
}

/* ---- classes */

static const char *class_of(const rp_config *index, const char *part)
{
    const char *name = rp_config_text_at(index, part, 1);

    return name != NULL ? name : "";
}

typedef struct {
    const char *class_name;
} class_row;

/* The row of `rows` whose class name is that of `part`. */
static rp_status find_class(const char *dir, const rp_config *index, const char *part,
                            const void *const *rows, const void **out)
{
    const char *wanted = class_of(index, part);
    char known[256] = "";

    for (size_t i = 0; rows[i] != NULL; i++) {
        const char *name = ((const class_row *)rows[i])->class_name;
        if (strcmp(name, wanted) == 0) {
            *out = rows[i];
            return RP_OK;
        }
        const size_t used = strlen(known);
        (void)snprintf(known + used, sizeof(known) - used, "%s%s", used > 0 ? ", " : "", name);
    }
    return RP_FAIL(RP_E_UNSUP, "%s/model_index.json: %s '%s' is not known; known: %s", dir, part,
                   wanted, known);
}

/* ---- parts */

/* The network in folder `part` of the pipeline; `come`: see rp_pipeline. */
static rp_status open_network(const rp_pipeline *p, const char *part, bool come,
                              rp_status (*open)(const rp_model_source *source, void **self_out),
                              void **self_out)
{
    char *dir = rp_mem_printf("%s/%s", p->dir, part);

    if (dir == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a path");
    }
    const rp_status st =
        open(&(rp_model_source){dir, p->backend, p->random_weights, come}, self_out);
    free(dir);
    return st;
}

static rp_status place_denoiser(void *pipeline)
{
    rp_pipeline *p = pipeline;

    return open_network(p, "transformer", p->weights_come, p->denoiser->open, &p->denoiser_self);
}

/* What is told about memory as long as there is no job. */
static const rp_denoiser_job g_usual = {.n_evals = 30, .n_conds = 2, .max_tokens = 256};

static rp_status open_denoiser(rp_pipeline *p)
{
    RP_TRY(rp_need_run(p, RP_ROOM_SAMPLE, &g_usual, 1, place_denoiser, p));
    p->denoiser_weights = p->backend.ops->weights_span(p->backend.self, &p->denoiser_bytes);
    p->denoiser->info(p->denoiser_self, &p->denoiser_info);
    p->fingerprint = p->denoiser->fingerprint(p->denoiser_self);
    return RP_OK;
}

/* A network that left the device and comes back is the one that it was. */
static rp_status check_same(const rp_pipeline *p, const char *part, uint64_t now, uint64_t *first)
{
    if (*first != 0 && *first != now) {
        return RP_FAIL(RP_E_FORMAT, "%s/%s has changed since the pool was opened", p->dir, part);
    }
    *first = now;
    return RP_OK;
}

rp_status rp_pipeline_open_encoder(rp_pipeline *p)
{
    if (p->encoder_self != NULL) {
        return RP_OK;
    }
    RP_TRY(open_network(p, "text_encoder", false, p->encoder->open, &p->encoder_self));
    p->encoder->info(p->encoder_self, &p->encoder_info);
    const rp_status st = check_same(p, "text_encoder", p->encoder->fingerprint(p->encoder_self),
                                    &p->encoder_fingerprint);
    if (st != RP_OK) {
        rp_pipeline_close_encoder(p);
    }
    return st;
}

static rp_status find_vae(const rp_config *index, rp_pipeline *p)
{
    const void *row = NULL;

    RP_TRY(find_class(p->dir, index, "vae", (const void *const *)rp_vae_list, &row));
    p->vae = row;
    return RP_OK;
}

/* A rank that is not `whole` has not looked until it decodes. */
static rp_status look_for_vae(rp_pipeline *p)
{
    rp_config *index = NULL;

    RP_TRY(rp_config_open(p->dir, "model_index.json", &index));
    const rp_status st = find_vae(index, p);
    rp_config_close(index);
    return st;
}

rp_status rp_pipeline_open_vae(rp_pipeline *p)
{
    if (p->vae_self != NULL) {
        return RP_OK;
    }
    if (p->vae == NULL) {
        RP_TRY(look_for_vae(p));
    }
    RP_TRY(open_network(p, "vae", false, p->vae->open, &p->vae_self));
    p->vae->info(p->vae_self, &p->vae_info);
    const rp_status st =
        check_same(p, "vae", p->vae->fingerprint(p->vae_self), &p->vae_fingerprint);
    if (st != RP_OK) {
        rp_pipeline_close_vae(p);
    }
    return st;
}

void rp_pipeline_close_encoder(rp_pipeline *p)
{
    if (p->encoder_self != NULL) {
        p->encoder->close(p->encoder_self);
    }
    p->encoder_self = NULL;
}

void rp_pipeline_close_vae(rp_pipeline *p)
{
    if (p->vae_self != NULL) {
        p->vae->close(p->vae_self);
    }
    p->vae_self = NULL;
}

/* Here already, so that what is wrong with them is said before any work. */
static rp_status open_guests(rp_pipeline *p)
{
    RP_TRY(rp_need_run(p, RP_ROOM_ENCODE, &g_usual, 1, NULL, NULL));
    return rp_need_run(p, RP_ROOM_DECODE, &g_usual, 1, NULL, NULL);
}

/* All of them before any is opened: what does not fit is told with what the others take. */
static rp_status find_networks(const rp_config *index, rp_pipeline *p)
{
    const void *row = NULL;

    RP_TRY(find_class(p->dir, index, "transformer", (const void *const *)rp_denoiser_list, &row));
    p->denoiser = row;
    if (!p->whole) {
        return RP_OK;
    }
    RP_TRY(find_class(p->dir, index, "text_encoder", (const void *const *)rp_encoder_list, &row));
    p->encoder = row;
    return find_vae(index, p);
}

static rp_status open_text_and_noise(rp_pipeline *p)
{
    char *tokenizer = rp_mem_printf("%s/tokenizer", p->dir);
    char *scheduler = rp_mem_printf("%s/scheduler", p->dir);
    rp_status st = RP_OK;

    if (tokenizer == NULL || scheduler == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for a path");
        goto out;
    }
    if (!p->random_weights) {
        RP_TRY_OUT(rp_tokenizer_open(tokenizer, &p->tokenizer));
    }
    RP_TRY_OUT(rp_flow_config_read(scheduler, &p->flow));
out:
    free(tokenizer);
    free(scheduler);
    return st;
}

/* Parts that are each fine can still not belong together. */
static rp_status check_fit(const rp_pipeline *p)
{
    if (p->encoder_info.dim != p->denoiser_info.cond_dim) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: the text encoder gives %d numbers a token, the transformer takes %d",
                       p->dir, p->encoder_info.dim, p->denoiser_info.cond_dim);
    }
    if (p->vae_info.latent_channels != p->denoiser_info.latent_channels) {
        return RP_FAIL(RP_E_FORMAT, "%s: the VAE has %d latent channels, the transformer %d",
                       p->dir, p->vae_info.latent_channels, p->denoiser_info.latent_channels);
    }
    if (p->tokenizer != NULL && rp_tokenizer_vocab(p->tokenizer) > p->encoder_info.vocab) {
        return RP_FAIL(RP_E_FORMAT, "%s: the tokenizer has %d pieces, the text encoder %d", p->dir,
                       rp_tokenizer_vocab(p->tokenizer), p->encoder_info.vocab);
    }
    return RP_OK;
}

static rp_status open_networks(const rp_config *index, rp_pipeline *p)
{
    const double start = rp_clock_now();

    RP_TRY(find_networks(index, p));
    RP_TRY(open_denoiser(p));
    if (p->whole) {
        RP_TRY(open_guests(p));
    }
    RP_TRY(p->backend.ops->sync(p->backend.self)); /* the weights are there */
    p->read_seconds = rp_clock_now() - start;
    p->bytes_read =
        p->denoiser_info.bytes_read + p->encoder_info.bytes_read + p->vae_info.bytes_read;
    return RP_OK;
}

static rp_status open_parts(rp_config *index, rp_pipeline *p)
{
    const char *name = rp_config_text(index, "_class_name", "");

    if (strcmp(name, "Lumina2Pipeline") != 0 &&
        strcmp(name, "Lumina2Text2ImgPipeline") != 0) { /* its first name */
        return RP_FAIL(RP_E_UNSUP, "%s: pipeline '%s' is not known; known: Lumina2Pipeline", p->dir,
                       name);
    }
    RP_TRY(open_networks(index, p));
    if (p->whole) {
        RP_TRY(open_text_and_noise(p));
        RP_TRY(check_fit(p));
    }
    return RP_OK;
}

rp_status rp_pipeline_open(const char *dir, rp_backend backend, const rp_pipeline_options *options,
                           rp_pipeline *out)
{
    char shipped[PATH_MAX] = "";
    rp_device_info device;
    rp_config *index = NULL;
    rp_status st = RP_OK;

    memset(out, 0, sizeof(*out));
    if (dir[0] == '\0') {
        RP_TRY(find_shipped(shipped, sizeof(shipped)));
        dir = shipped;
    }
    if (!is_folder(dir)) {
        return RP_FAIL(RP_E_IO, "model folder %s: %s", dir,
                       errno != 0 && access(dir, F_OK) != 0 ? strerror(errno) : "not a folder");
    }
    backend.ops->info(backend.self, &device);
    out->backend = backend;
    out->on_device = device.on_device;
    out->whole = options->whole;
    out->random_weights = options->random_weights;
    out->weights_come = options->weights_come;
    out->dir = strdup(dir);
    if (out->dir == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a path");
    }
    RP_TRY_OUT(rp_config_open(dir, "model_index.json", &index));
    RP_TRY_OUT(open_parts(index, out));
out:
    rp_config_close(index);
    return st;
}

void rp_pipeline_close(rp_pipeline *p)
{
    rp_tokenizer_close(p->tokenizer);
    rp_pipeline_close_vae(p);
    rp_pipeline_close_encoder(p);
    if (p->denoiser != NULL) {
        p->denoiser->close(p->denoiser_self);
    }
    free(p->dir);
    memset(p, 0, sizeof(*p));
}

const char *rp_pipeline_name(const rp_pipeline *pipeline)
{
    const char *slash = strrchr(pipeline->dir, '/');

    return slash != NULL && slash[1] != '\0' ? slash + 1 : pipeline->dir;
}
