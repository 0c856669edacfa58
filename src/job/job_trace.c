/*
 * job_trace.c - what all ranks did during a job, on one clock, as a trace in Chrome's JSON format.
 *
 * Every rank keeps its spans in memory; they come to rank 0 after the pictures are decoded.
 */
#include "job/job.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/outfile.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

#define PINGS     8         /* the quickest one counts */
#define MOST_ROOM (1 << 18) /* spans of a rank, 12 MB */

int rp_job_trace_room(const rp_job *job)
{
    const rp_job_params *p = &job->params;

    if (p->trace[0] == '\0') {
        return 0;
    }
    /* a wave: units, scatter, gather, merge, and waiting for it and for a RESET before it */
    const double wave = (double)p->images * job->pool->load.n_conds + 5;
    /* and one more, of pictures: they are decoded, by rank 0 again where others could not */
    const double room = wave * job->n_evals + p->steps + p->images + 24;
    return room < MOST_ROOM ? (int)room : MOST_ROOM;
}

/* ---- one clock */

/* Rank 0: the other clock was read between begin and end, most likely in the middle. */
static rp_status ping(rp_ctrl *ctrl, int rank, double *offset)
{
    double least = 0;

    for (int i = 0; i < PINGS; i++) {
        double theirs = 0;
        const double begin = rp_clock_now();
        RP_TRY(rp_ctrl_send(ctrl, rank, &(int32_t){RP_MSG_TRACE}, sizeof(int32_t)));
        RP_TRY(rp_ctrl_wait_reply(ctrl, rank, &theirs, sizeof(theirs)));
        const double end = rp_clock_now();
        if (i == 0 || end - begin < least) {
            least = end - begin;
            *offset = 0.5 * (begin + end) - theirs;
        }
    }
    return RP_OK;
}

static rp_status answer_pings(rp_ctrl *ctrl)
{
    for (int i = 0; i < PINGS; i++) {
        int32_t message = 0;
        size_t n_bytes = 0;
        RP_TRY(rp_ctrl_recv(ctrl, &message, sizeof(message), &n_bytes));
        const double now = rp_clock_now();
        RP_TRY(rp_ctrl_reply(ctrl, &now, sizeof(now)));
    }
    return RP_OK;
}

rp_status rp_trace_prepare(rankpool *pool)
{
    const size_t n = (size_t)rp_ctrl_n_ranks(pool->ctrl);

    if (pool->load.trace_room > 0 && pool->clock_offset == NULL) {
        RP_TRY(rp_mem_new(n, sizeof(double), "a trace", (void **)&pool->clock_offset));
    }
    return rp_trace_start(&pool->trace, pool->load.trace_room);
}

rp_status rp_trace_align(rankpool *pool)
{
    const int n_ranks = rp_ctrl_n_ranks(pool->ctrl);

    if (rp_ctrl_rank(pool->ctrl) > 0) {
        return answer_pings(pool->ctrl);
    }
    for (int r = 1; r < n_ranks; r++) {
        RP_TRY(ping(pool->ctrl, r, &pool->clock_offset[r]));
    }
    return RP_OK;
}

/* ---- all spans to rank 0 */

/* The spans of one rank; all have the same room. */
typedef struct {
    int32_t n, lost;
} span_count;

/* counts and spans: NULL but on rank 0. */
static rp_status gather(rankpool *pool, span_count *counts, rp_span *spans)
{
    const rp_trace *t = &pool->trace;
    const span_count mine = {t->n, t->lost};
    const size_t n_bytes = (size_t)pool->load.trace_room * sizeof(*spans);

    RP_TRY(rp_ctrl_gather(pool->ctrl, &mine, sizeof(mine), counts));
    return rp_ctrl_gather(pool->ctrl, t->spans, n_bytes, spans);
}

rp_status rp_trace_answer(rankpool *pool)
{
    const rp_status st = gather(pool, NULL, NULL);

    pool->trace.on = 0;
    return st;
}

/* ---- JSON */

typedef struct {
    FILE *out;
    const rankpool *pool;
    const span_count *counts;
    const rp_span *spans; /* [n_ranks][room] */
    double start;         /* of the first span of all, on rank 0's clock */
} trace_text;

static const rp_span *spans_of(const trace_text *t, int rank)
{
    return t->spans + (size_t)rank * (size_t)t->pool->load.trace_room;
}

static double first_begin(const trace_text *t)
{
    double first = 0;
    bool any = false;

    for (int r = 0; r < rp_ctrl_n_ranks(t->pool->ctrl); r++) {
        for (int i = 0; i < t->counts[r].n; i++) {
            const double begin = spans_of(t, r)[i].begin + t->pool->clock_offset[r];
            first = any && first < begin ? first : begin;
            any = true;
        }
    }
    return first;
}

/* A process is a host, by its lowest rank. */
static int pid_of(const rankpool *pool, int rank)
{
    int r = 0;

    while (strcmp(rp_ctrl_host(pool->ctrl, r), rp_ctrl_host(pool->ctrl, rank)) != 0) {
        r++;
    }
    return r;
}

static void print_name(const trace_text *t, const char *what, int rank, const char *name)
{
    cJSON *text = cJSON_CreateString(name);
    char *escaped = text != NULL ? cJSON_PrintUnformatted(text) : NULL;

    (void)fprintf(
        t->out,
        "{\"name\": \"%s\", \"ph\": \"M\", \"pid\": %d, \"tid\": %d, \"args\": {\"name\": %s}},\n",
        what, pid_of(t->pool, rank), rank, escaped != NULL ? escaped : "\"\"");
    free(escaped);
    cJSON_Delete(text);
}

static void print_args(FILE *out, const rp_trace_of *of)
{
    const struct {
        const char *name;
        int32_t value;
    } args[] = {
        {"step", of->step}, {"unit", of->unit}, {"image", of->image}, {"condition", of->cond}};
    const char *comma = "";

    (void)fprintf(out, ", \"args\": {");
    for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++) {
        if (args[i].value >= 0) {
            (void)fprintf(out, "%s\"%s\": %d", comma, args[i].name, (int)args[i].value);
            comma = ", ";
        }
    }
    (void)fprintf(out, "}}");
}

static void print_rank(const trace_text *t, int rank)
{
    const double shift = t->pool->clock_offset[rank] - t->start;
    const char *name = NULL;

    for (int i = 0; i < t->counts[rank].n; i++) {
        const rp_span *s = &spans_of(t, rank)[i];
        name = rp_trace_name(s->what);
        (void)fprintf(
            t->out,
            ",\n{\"name\": \"%s\", \"cat\": \"%s\", \"ph\": \"X\", \"pid\": %d, \"tid\": %d, "
            "\"ts\": %.3f, \"dur\": %.3f",
            name, name, pid_of(t->pool, rank), rank, 1e6 * (s->begin + shift),
            1e6 * (s->end - s->begin));
        print_args(t->out, &s->of);
    }
}

static void print_all(const trace_text *t)
{
    const int n_ranks = rp_ctrl_n_ranks(t->pool->ctrl);

    (void)fprintf(t->out, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
    for (int r = 0; r < n_ranks; r++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "rank %d", r);
        print_name(t, "process_name", r, rp_ctrl_host(t->pool->ctrl, r));
        print_name(t, "thread_name", r, name);
    }
    (void)fprintf(t->out, "{\"name\": \"rankpool\", \"ph\": \"M\", \"pid\": 0, \"tid\": 0}");
    for (int r = 0; r < n_ranks; r++) {
        print_rank(t, r);
    }
    (void)fprintf(t->out, "\n]}\n");
}

/* ---- the file */

static rp_status write_file(const rp_job *job, trace_text *text)
{
    rp_outfile *file = NULL;

    text->start = first_begin(text);
    RP_TRY(rp_outfile_open(job->params.trace, job->params.overwrite, &file));
    text->out = rp_outfile_stream(file);
    print_all(text);
    return rp_outfile_commit(file);
}

static void warn_of_lost(const rankpool *pool, const span_count *counts)
{
    for (int r = 0; r < rp_ctrl_n_ranks(pool->ctrl); r++) {
        if (counts[r].lost > 0) {
            RP_WARN("the trace lacks the last %d spans of rank %d: it has room for %d of a rank",
                    (int)counts[r].lost, r, (int)pool->load.trace_room);
        }
    }
}

rp_status rp_job_trace_write(rp_job *job)
{
    rankpool *pool = job->pool;
    const size_t n = (size_t)rp_ctrl_n_ranks(pool->ctrl);
    span_count *counts = NULL;
    rp_span *spans = NULL;
    rp_status st = RP_OK;

    if (!pool->trace.on) {
        return RP_OK;
    }
    pool->trace.on = 0;
    RP_TRY_OUT(rp_mem_new(n, sizeof(*counts), "a trace", (void **)&counts));
    RP_TRY_OUT(
        rp_mem_new(n * (size_t)pool->load.trace_room, sizeof(*spans), "a trace", (void **)&spans));
    RP_TRY_OUT(rp_resident_tell(pool, &(int32_t){RP_MSG_TRACE}, 1));
    RP_TRY_OUT(gather(pool, counts, spans));
    warn_of_lost(pool, counts);
    st = write_file(job, &(trace_text){.pool = pool, .counts = counts, .spans = spans});
out:
    free(counts);
    free(spans);
    return st;
}
