/* cli_predict_model.c - place a wave, play it, ask what was lost to what. */
#include "cli/cli_predict_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORTH_NAMING 0.01  /* of a step */
#define EAGER_BYTES  65536 /* Open MPI over TCP: what is longer is announced and asked for first */

typedef struct {
    double load_ms; /* its evaluations */
    double back_ms; /* when its predictions reach rank 0's link */
    int units, inputs;
} rank_load;

typedef struct {
    rank_load *ranks;
    int *rank_of; /* [branches][images] */
    double *sorted;
    int n_ranks;
} wave;

const char *rp_predict_limit_name(rp_predict_limit limit)
{
    static const char *const names[RP_N_LIMITS] = {"-",       "units",   "uneven", "cores",
                                                   "network", "latency", "root"};

    return names[limit];
}

/* ---------------------------------------------------------------- placement */

static int compare_loads(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int next_branch(const rp_predict_job *job, const int *done)
{
    int best = -1;

    for (int b = 0; b < job->branches; b++) {
        if (!done[b] && (best < 0 || job->unit_ms[b] > job->unit_ms[best])) {
            best = b;
        }
    }
    return best;
}

static int first_free(const wave *w)
{
    int best = 0;

    for (int r = 1; r < w->n_ranks; r++) {
        best = w->ranks[r].load_ms < w->ranks[best].load_ms ? r : best;
    }
    return best;
}

/* An image's latents go to a rank once, however many of its units are there. */
static void give(const rp_predict_job *job, wave *w, const int *done, int branch, int image)
{
    const int rank = first_free(w);
    int is_new = 1;

    for (int b = 0; b < job->branches; b++) {
        is_new = is_new && !(done[b] && w->rank_of[b * job->images + image] == rank);
    }
    w->rank_of[branch * job->images + image] = rank;
    w->ranks[rank].load_ms += job->unit_ms[branch];
    w->ranks[rank].units++;
    w->ranks[rank].inputs += is_new;
}

/* As rp_pool_assign places units on equal ranks. */
static void place(const rp_predict_job *job, wave *w)
{
    int done[RP_PREDICT_MAX_BRANCHES] = {0};

    for (int k = 0; k < job->branches; k++) {
        const int branch = next_branch(job, done);
        for (int image = 0; image < job->images; image++) {
            give(job, w, done, branch, image);
        }
        done[branch] = 1;
    }
}

static double longest(const wave *w)
{
    double most = 0;

    for (int r = 0; r < w->n_ranks; r++) {
        most = fmax(most, w->ranks[r].load_ms);
    }
    return most;
}

/* By what factor the last rank is later when `cores` are shared fairly by all that still compute.
 */
static double slowdown(wave *w, int cores)
{
    double now = 0, before = 0;

    for (int r = 0; r < w->n_ranks; r++) {
        w->sorted[r] = w->ranks[r].load_ms;
    }
    qsort(w->sorted, (size_t)w->n_ranks, sizeof(*w->sorted), compare_loads);
    for (int r = 0; r < w->n_ranks; r++) {
        now += (w->sorted[r] - before) * fmax(1, (double)(w->n_ranks - r) / cores);
        before = w->sorted[r];
    }
    return now / before;
}

/* ------------------------------------------------------------------- a wave */

static int compare_backs(const void *a, const void *b)
{
    return compare_loads(&((const rank_load *)a)->back_ms, &((const rank_load *)b)->back_ms);
}

static double link_ms(const rp_predict_job *job, double bytes)
{
    return job->gbit > 0 ? bytes * 8e-6 / job->gbit : 0;
}

static double way_ms(const rp_predict_job *job, double bytes)
{
    return job->latency_us * 1e-3 * (bytes > EAGER_BYTES ? 3 : 1);
}

/* Rank 0 begins when all latents are out; the other ranks as theirs arrive. `back`: bytes that come
 * back of a unit. */
static double play(const rp_predict_job *job, double back, const wave *w, double factor,
                   rank_load *order)
{
    const double ways = way_ms(job, job->bytes) + way_ms(job, back);
    double link = 0, end = 0;
    int n = 0;

    for (int r = 1; r < w->n_ranks; r++) {
        if (w->ranks[r].units > 0) {
            link += w->ranks[r].inputs * link_ms(job, job->bytes);
            order[n] = w->ranks[r];
            order[n].back_ms = link + factor * w->ranks[r].load_ms + ways;
            n++;
        }
    }
    end = link + factor * w->ranks[0].load_ms;
    qsort(order, (size_t)n, sizeof(*order), compare_backs);
    link = 0;
    for (int i = 0; i < n; i++) {
        link = fmax(link, order[i].back_ms) + order[i].units * link_ms(job, back);
    }
    return fmax(end, link);
}

/* ------------------------------------------------------------------ a result */

static double work_ms(const rp_predict_job *job)
{
    double sum = 0;

    for (int b = 0; b < job->branches; b++) {
        sum += job->images * job->unit_ms[b];
    }
    return sum;
}

static double without(rp_predict_job job, rp_predict_limit limit, const wave *w, double factor,
                      rank_load *order)
{
    job.gbit = limit == RP_LIMIT_NETWORK ? 0 : job.gbit;
    job.latency_us = limit == RP_LIMIT_LATENCY ? 0 : job.latency_us;
    return play(&job, job.bytes, w, limit == RP_LIMIT_CORES ? 1 : factor, order);
}

static void find_limit(rp_predict_result *out)
{
    double most = WORTH_NAMING * out->step_ms;

    out->limit = RP_LIMIT_NONE;
    for (int k = RP_LIMIT_NONE + 1; k < RP_N_LIMITS; k++) {
        if (out->lost_ms[k] > most) {
            most = out->lost_ms[k];
            out->limit = (rp_predict_limit)k;
        }
    }
}

static void fill(const rp_predict_job *job, wave *w, rank_load *order, rp_predict_result *out)
{
    const double factor = job->cores > 0 ? slowdown(w, job->cores) : 1;
    const double wave_ms = play(job, job->bytes, w, factor, order);
    const double one = job->waves * work_ms(job) + job->root_ms;
    const int is_short = w->n_ranks > job->images * job->branches;

    *out = (rp_predict_result){.ranks = w->n_ranks, .step_ms = job->waves * wave_ms + job->root_ms};
    for (int r = 0; r < w->n_ranks; r++) {
        out->busy_ranks += w->ranks[r].units > 0;
        out->most_units = w->ranks[r].units > out->most_units ? w->ranks[r].units : out->most_units;
    }
    out->speedup = one / out->step_ms;
    out->efficiency = out->speedup / w->n_ranks;
    for (int k = RP_LIMIT_CORES; k <= RP_LIMIT_LATENCY; k++) {
        out->lost_ms[k] =
            job->waves * (wave_ms - without(*job, (rp_predict_limit)k, w, factor, order));
    }
    out->lost_ms[is_short ? RP_LIMIT_UNITS : RP_LIMIT_UNEVEN] =
        job->waves * (longest(w) - work_ms(job) / w->n_ranks);
    out->lost_ms[RP_LIMIT_ROOT] = job->root_ms * (1 - 1.0 / w->n_ranks);
    find_limit(out);
}

/* As long as one wave of one unit an image. */
static double decode_all(const rp_predict_job *job, wave *w, rank_load *order)
{
    rp_predict_job pictures = *job;

    if (!(job->decode_ms > 0)) {
        return 0;
    }
    pictures.branches = 1;
    pictures.unit_ms[0] = job->decode_ms;
    memset(w->ranks, 0, (size_t)w->n_ranks * sizeof(*w->ranks));
    place(&pictures, w);
    const double factor = job->cores > 0 ? slowdown(w, job->cores) : 1;
    return play(&pictures, job->picture_bytes, w, factor, order);
}

rp_status rp_predict(const rp_predict_job *job, int n_ranks, rp_predict_result *out)
{
    const size_t n = (size_t)n_ranks;
    const size_t n_units = (size_t)job->images * (size_t)job->branches;
    wave w = {.n_ranks = n_ranks};
    rank_load *order = calloc(n, sizeof(*order));
    rp_status st = RP_E_NOMEM;

    w.ranks = calloc(n, sizeof(*w.ranks));
    w.rank_of = calloc(n_units, sizeof(*w.rank_of));
    w.sorted = calloc(n, sizeof(*w.sorted));
    if (order != NULL && w.ranks != NULL && w.rank_of != NULL && w.sorted != NULL) {
        place(job, &w);
        fill(job, &w, order, out);
        out->decode_ms = decode_all(job, &w, order);
        st = RP_OK;
    }
    free(order);
    free(w.ranks);
    free(w.rank_of);
    free(w.sorted);
    return st;
}
