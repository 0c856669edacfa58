/* job_pipeline.c - a model folder, opened part by part. */
#include "job/job_pipeline.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
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

/* ---- the shipped model: seen from this library's own file, so that the build folder and an installed
 *      prefix can be moved */

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
    return RP_FAIL(RP_E_IO, "the shipped model (%s) was not found beside this program; give --model DIR",
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
    char known[256]    = "";

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

static rp_status open_denoiser(const rp_config *index, rp_pipeline *p)
{
    const void *row = NULL;
    char *dir       = rp_mem_printf("%s/transformer", p->dir);

    if (dir == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a path");
    }
    rp_status st = find_class(p->dir, index, "transformer", (const void *const *)rp_denoiser_list, &row);
    if (st == RP_OK) {
        p->denoiser = row;
        st = p->denoiser->open(
            &(rp_model_source){dir, p->backend, p->random_weights, p->weights_come}, &p->denoiser_self);
    }
    if (st == RP_OK) {
        p->denoiser_weights = p->backend.ops->weights_span(p->backend.self, &p->denoiser_bytes);
        p->denoiser->info(p->denoiser_self, &p->denoiser_info);
        p->fingerprint = p->denoiser->fingerprint(p->denoiser_self);
    }
    free(dir);
    return st;
}

static rp_status open_encoder(const rp_config *index, rp_pipeline *p)
{
    const void *row = NULL;
    char *dir       = rp_mem_printf("%s/text_encoder", p->dir);

    if (dir == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a path");
    }
    rp_status st = find_class(p->dir, index, "text_encoder", (const void *const *)rp_encoder_list, &row);
    if (st == RP_OK) {
        p->encoder = row;
        st = p->encoder->open(&(rp_model_source){dir, p->backend, p->random_weights, false}, &p->encoder_self);
    }
    if (st == RP_OK) {
        p->encoder->info(p->encoder_self, &p->encoder_info);
    }
    free(dir);
    return st;
}

static rp_status open_vae(const rp_config *index, rp_pipeline *p)
{
    const void *row = NULL;
    char *dir       = rp_mem_printf("%s/vae", p->dir);

    if (dir == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a path");
    }
    rp_status st = find_class(p->dir, index, "vae", (const void *const *)rp_vae_list, &row);
    if (st == RP_OK) {
        p->vae = row;
        st     = p->vae->open(&(rp_model_source){dir, p->backend, p->random_weights, false}, &p->vae_self);
    }
    if (st == RP_OK) {
        p->vae->info(p->vae_self, &p->vae_info);
    }
    free(dir);
    return st;
}

static rp_status open_text_and_noise(rp_pipeline *p)
{
    char *tokenizer = rp_mem_printf("%s/tokenizer", p->dir);
    char *scheduler = rp_mem_printf("%s/scheduler", p->dir);
    rp_status st    = RP_OK;

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
        return RP_FAIL(RP_E_FORMAT, "%s: the text encoder gives %d numbers a token, the transformer takes %d",
                       p->dir, p->encoder_info.dim, p->denoiser_info.cond_dim);
    }
    if (p->vae_info.latent_channels != p->denoiser_info.latent_channels) {
        return RP_FAIL(RP_E_FORMAT, "%s: the VAE has %d latent channels, the transformer %d", p->dir,
                       p->vae_info.latent_channels, p->denoiser_info.latent_channels);
    }
    if (p->tokenizer != NULL && rp_tokenizer_vocab(p->tokenizer) > p->encoder_info.vocab) {
        return RP_FAIL(RP_E_FORMAT, "%s: the tokenizer has %d pieces, the text encoder %d", p->dir,
                       rp_tokenizer_vocab(p->tokenizer), p->encoder_info.vocab);
    }
    return RP_OK;
}

static rp_status open_parts(rp_config *index, bool whole, rp_pipeline *p)
{
    const char *name = rp_config_text(index, "_class_name", "");

    if (strcmp(name, "Lumina2Pipeline") != 0 &&
        strcmp(name, "Lumina2Text2ImgPipeline") != 0) { /* its first name */
        return RP_FAIL(RP_E_UNSUP, "%s: pipeline '%s' is not known; known: Lumina2Pipeline", p->dir,
                       name);
    }
    RP_TRY(open_denoiser(index, p));
    if (whole) {
        RP_TRY(open_encoder(index, p));
        RP_TRY(open_vae(index, p));
        RP_TRY(open_text_and_noise(p));
        RP_TRY(check_fit(p));
    }
    return RP_OK;
}

rp_status rp_pipeline_open(const char *dir, rp_backend backend, const rp_pipeline_options *options,
                           rp_pipeline *out)
{
    char shipped[PATH_MAX] = "";
    rp_config *index       = NULL;
    rp_status st           = RP_OK;

    memset(out, 0, sizeof(*out));
    if (dir[0] == '\0') {
        RP_TRY(find_shipped(shipped, sizeof(shipped)));
        dir = shipped;
    }
    if (!is_folder(dir)) {
        return RP_FAIL(RP_E_IO, "model folder %s: %s", dir,
                       errno != 0 && access(dir, F_OK) != 0 ? strerror(errno) : "not a folder");
    }
    out->backend        = backend;
    out->random_weights = options->random_weights;
    out->weights_come   = options->weights_come;
    out->dir            = strdup(dir);
    if (out->dir == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a path");
    }
    RP_TRY_OUT(rp_config_open(dir, "model_index.json", &index));
    RP_TRY_OUT(open_parts(index, options->whole, out));
out:
    rp_config_close(index);
    return st;
}

void rp_pipeline_close(rp_pipeline *p)
{
    rp_tokenizer_close(p->tokenizer);
    if (p->vae != NULL) {
        p->vae->close(p->vae_self);
    }
    if (p->encoder != NULL) {
        p->encoder->close(p->encoder_self);
    }
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
