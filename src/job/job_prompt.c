/* job_prompt.c - prompts to conditions, as diffusers' Lumina2Pipeline.encode_prompt. */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/job_need.h"

#include <xxhash.h>

#include <stdlib.h>
#include <string.h>

#define JOIN " <Prompt Start> "

/* Tokens that both the transformer's positions and the text encoder's can count. */
static int token_limit(const rp_job *job)
{
    const rp_pipeline *p = &job->pool->pipeline;
    int limit = p->random_weights ? job->params.prompt_tokens : job->params.max_tokens;

    limit = p->denoiser_info.max_cond_tokens < limit ? p->denoiser_info.max_cond_tokens : limit;
    return p->encoder_info.max_tokens < limit ? p->encoder_info.max_tokens : limit;
}

#define CUT_SHOWN_BYTES 160

/* Bytes of the text to show: at most CUT_SHOWN_BYTES, whole characters. */
static int shown_bytes(const char *text)
{
    size_t n = strlen(text);

    if (n > CUT_SHOWN_BYTES) {
        n = CUT_SHOWN_BYTES;
        while (n > 0 && ((unsigned char)text[n] & 0xC0u) == 0x80u) {
            n--;
        }
    }
    return (int)n;
}

/* Random weights understand no text: a prompt is then so many ids that look like one, the same in
 * every run. `what` sets prompt and negative prompt apart. */
static rp_status make_up(const rp_job *job, const char *what, int32_t *ids, int limit, int *n_out)
{
    const uint32_t vocab = (uint32_t)job->pool->pipeline.encoder_info.vocab;

    if (job->params.prompt_tokens > limit) {
        return RP_FAIL(RP_E_ARG, "prompt-tokens: %d is not allowed; model %s takes up to %d",
                       job->params.prompt_tokens, rp_pipeline_name(&job->pool->pipeline), limit);
    }
    for (int i = 0; i < limit; i++) {
        ids[i] = (int32_t)(XXH32(what, strlen(what), (XXH32_hash_t)i) % vocab);
    }
    *n_out = limit;
    return RP_OK;
}

/* ids [limit] of one text; a warning says what was cut. */
static rp_status tokenize(const rp_job *job, const char *what, const char *text, int32_t *ids,
                          int limit, int *n_out)
{
    char *cut = NULL;
    int n_all = 0;

    if (job->pool->pipeline.random_weights) {
        return make_up(job, what, ids, limit, n_out);
    }
    RP_TRY(
        rp_tokenizer_encode(job->pool->pipeline.tokenizer, text, ids, limit, n_out, &n_all, &cut));
    if (n_all > *n_out) {
        const int n = shown_bytes(cut);
        RP_WARN("the %s has %d tokens, %d are used; cut: '%.*s'%s", what, n_all, *n_out, n, cut,
                cut[n] != '\0' ? " ..." : "");
    }
    free(cut);
    if (*n_out == 0) {
        return RP_FAIL(RP_E_ARG, "the %s gives no tokens: this tokenizer has no <bos>", what);
    }
    return RP_OK;
}

typedef struct {
    const rp_job *job;
    const int32_t *ids;
    int n;
    float *out;
} encoding;

static rp_status encode(void *arg)
{
    const encoding *e = arg;
    const rp_pipeline *p = &e->job->pool->pipeline;

    return p->encoder->encode(p->encoder_self, e->ids, e->n, e->job->params.softcap, -2, e->out);
}

/* One condition's rows after those that are there already. */
static rp_status append_condition(rp_job *job, const int32_t *ids, int n, size_t *used)
{
    rp_job_load *load = &job->pool->load;
    rp_pipeline *p = &job->pool->pipeline;
    encoding e = {job, ids, n, load->embeds + *used * (size_t)p->encoder_info.dim};
    const rp_denoiser_job shape = {.h = job->h,
                                   .w = job->w,
                                   .n_evals = job->params.steps,
                                   .n_conds = RP_GUIDE_BRANCHES,
                                   .max_tokens = n};

    RP_TRY(rp_need_run(p, RP_ROOM_ENCODE, &shape, job->params.images, encode, &e));
    load->n_tokens[load->n_conds++] = n;
    *used += (size_t)n;
    return RP_OK;
}

static bool is_guided(const rp_job *job)
{
    int branches[RP_GUIDE_BRANCHES];

    for (int step = 0; step < job->params.steps; step++) {
        if (job->params.guider->plan(&job->params.guide, step, job->params.steps, branches) > 1) {
            return true;
        }
    }
    return false;
}

/* The system prompt goes before the prompt only; the negative prompt stands alone (diffusers). */
static char *whole_prompt(const rp_job_params *p)
{
    if (p->system_prompt[0] == '\0') {
        return strdup(p->prompt);
    }
    return rp_mem_printf("%s" JOIN "%s", p->system_prompt, p->prompt);
}

rp_status rp_job_encode(rp_job *job)
{
    const double begin = rp_clock_now();
    const int limit = token_limit(job);
    rp_job_load *load = &job->pool->load;
    char *prompt = whole_prompt(&job->params);
    int32_t *ids = NULL;
    int n_positive = 0, n_negative = 0;
    size_t used = 0;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_job_progress(job, "encode", 0));
    RP_TRY_OUT(rp_mem_new(2 * (size_t)limit, sizeof(*ids), "tokens", (void **)&ids));
    if (prompt == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for the prompt");
        goto out;
    }
    RP_TRY_OUT(tokenize(job, "prompt", prompt, ids, limit, &n_positive));
    if (is_guided(job)) {
        RP_TRY_OUT(tokenize(job, "negative prompt", job->params.negative, ids + limit, limit,
                            &n_negative));
    }
    RP_TRY_OUT(rp_load_reserve(
        load, 0, (size_t)(n_positive + n_negative) * (size_t)job->pool->pipeline.encoder_info.dim));
    load->n_conds = 0;
    RP_TRY_OUT(append_condition(job, ids, n_positive, &used));
    if (n_negative > 0) {
        RP_TRY_OUT(append_condition(job, ids + limit, n_negative, &used));
    }
    job->times.encode = rp_clock_now() - begin;
out:
    free(prompt);
    free(ids);
    return st;
}
