/* job_report.c - a job's numbers, as JSON and one by one. */
#include "job/job.h"

#include "base/check.h"
#include "base/mem.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- medians */

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static rp_status median(const double *values, int n, double *out)
{
    double *sorted = NULL;

    *out = 0;
    if (n == 0) {
        return RP_OK;
    }
    RP_TRY(rp_mem_new((size_t)n, sizeof(*sorted), "times to sort", (void **)&sorted));
    memcpy(sorted, values, (size_t)n * sizeof(*sorted));
    qsort(sorted, (size_t)n, sizeof(*sorted), compare_doubles);
    *out = 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]);
    free(sorted);
    return RP_OK;
}

/* Of the device; a CPU computes between units too. */
static rp_status idle_times(rp_job *job)
{
    rp_timeline *t = &job->pool->timeline;
    double *const gaps = t->ms; /* free again once it is read */

    job->times.gpu_idle_median = job->times.gpu_idle_max = NAN;
    RP_TRY(rp_timeline_read(t, &job->pool->backend, job->eval_step));
    const int n = rp_timeline_gaps(t->units, t->n, gaps);
    if (n == 0 || !job->pool->device.on_device) {
        return RP_OK;
    }
    job->times.gpu_idle_max = gaps[0];
    for (int i = 1; i < n; i++) {
        job->times.gpu_idle_max = fmax(job->times.gpu_idle_max, gaps[i]);
    }
    return median(gaps, n, &job->times.gpu_idle_median);
}

rp_status rp_job_medians(rp_job *job)
{
    RP_TRY(idle_times(job));
    const int first = job->first_step; /* those before it were in an earlier run */
    RP_TRY(median(job->times.step + first, job->params.steps - first, &job->times.step_median));
    for (int i = first; i < first + 2 && i < job->params.steps; i++) {
        job->times.warm += fmax(0, job->times.step[i] - job->times.step_median);
    }
    return median(job->times.unit + job->first_eval, job->n_evals - job->first_eval,
                  &job->times.unit_median);
}

/* ---- JSON */

/* cJSON's Add... return NULL when out of memory; every result goes through here. */
static bool num(cJSON *to, const char *key, double value)
{
    return cJSON_AddNumberToObject(to, key, value) != NULL;
}

static bool add_times(cJSON *root, const rp_job *job)
{
    const rp_job_times *t = &job->times;

    return num(root, "open_seconds", job->pool->open_seconds) &&
           num(root, "encode_seconds", t->encode) && num(root, "noise_seconds", t->noise) &&
           num(root, "load_seconds", t->load) && num(root, "sample_seconds", t->sample) &&
           num(root, "decode_seconds", t->decode) && num(root, "decode_ranks", t->decode_ranks) &&
           num(root, "write_seconds", t->write) &&
           num(root, "steps_per_second", (job->params.steps - job->first_step) / t->sample) &&
           num(root, "step_ms", 1e3 * t->step_median) &&
           num(root, "unit_ms", 1e3 * t->unit_median) &&
           num(root, "images_per_second",
               job->params.images / (t->encode + t->noise + t->load + t->sample + t->decode));
}

/* Rank 0's device, what it took to get the weights there, and the scratch that its ops hold now. */
static bool add_device(cJSON *root, const rp_job *job)
{
    const rankpool *pool = job->pool;
    const double gb = (double)pool->weights_bytes * 1e-9;
    rp_device_info now;
    bool ok = cJSON_AddStringToObject(root, "precision", pool->device.precision) != NULL;

    if (!ok || !pool->device.on_device) {
        return ok;
    }
    pool->backend.ops->info(pool->backend.self, &now);
    ok = cJSON_AddStringToObject(root, "device", pool->device.name) != NULL &&
         num(root, "weights_gb", gb) && num(root, "scratch_gb", (double)now.bytes_scratch * 1e-9);
    if (ok && pool->share_seconds > 0) {
        ok = num(root, "share_seconds", pool->share_seconds) &&
             num(root, "share_gb_per_second", gb / pool->share_seconds);
    }
    return ok;
}

/* What opening and the first steps took. Without a device reading is only mapping. */
static bool add_start(cJSON *root, const rp_job *job)
{
    const rp_pipeline *p = &job->pool->pipeline;
    const double gb = (double)p->bytes_read * 1e-9;

    return num(root, "connect_seconds", job->pool->connect_seconds) &&
           num(root, "warm_seconds", job->times.warm) &&
           (!p->on_device ||
            (num(root, "read_gb", gb) && num(root, "read_seconds", p->read_seconds) &&
             num(root, "read_gb_per_second", gb / p->read_seconds)));
}

static bool add_idle(cJSON *root, const rp_job *job)
{
    if (isnan(job->times.gpu_idle_median)) {
        return true;
    }
    cJSON *idle = cJSON_AddObjectToObject(root, "gpu_idle_us");
    return idle != NULL && num(idle, "median", job->times.gpu_idle_median) &&
           num(idle, "max", job->times.gpu_idle_max);
}

static bool add_steps(cJSON *root, const rp_job *job)
{
    const int first = job->first_step;
    cJSON *steps = cJSON_CreateDoubleArray(job->times.step + first, job->params.steps - first);

    return steps != NULL && cJSON_AddItemToObject(root, "step_seconds", steps);
}

/* What a wave is made of: `rankpool predict` spreads the same over other numbers of ranks. */
static bool add_wave(cJSON *root, const rp_job *job)
{
    const int latents[] = {job->c, job->h, job->w};
    cJSON *shape = cJSON_CreateIntArray(latents, 3);
    cJSON *costs = cJSON_CreateFloatArray(job->cost, job->pool->load.n_conds);

    return shape != NULL && cJSON_AddItemToObject(root, "latents", shape) && costs != NULL &&
           cJSON_AddItemToObject(root, "unit_costs", costs);
}

static bool add_ranks(cJSON *root, const rp_job *job)
{
    cJSON *ranks = cJSON_AddArrayToObject(root, "ranks");
    bool ok = ranks != NULL;

    for (int r = 0; ok && r < rp_ctrl_n_ranks(job->pool->ctrl); r++) {
        cJSON *row = cJSON_CreateObject();
        ok = row != NULL && cJSON_AddItemToArray(ranks, row) && num(row, "rank", r) &&
             cJSON_AddStringToObject(row, "host", rp_ctrl_host(job->pool->ctrl, r)) != NULL &&
             num(row, "units", (double)job->stats[r].n_units) &&
             num(row, "unit_seconds", job->stats[r].unit_s) && /* NaN becomes null */
             num(row, "busy_seconds", job->stats[r].busy_s) &&
             num(row, "idle_seconds", job->stats[r].idle_s) &&
             num(row, "wire_seconds", job->stats[r].wire_s);
    }
    return ok;
}

static bool add_files(cJSON *root, const rp_job *job)
{
    cJSON *files = cJSON_AddArrayToObject(root, "files");
    bool ok = files != NULL;

    for (int i = 0; ok && i < job->params.images; i++) {
        if (job->files[i] != NULL) {
            cJSON *name = cJSON_CreateString(job->files[i]);
            ok = name != NULL && cJSON_AddItemToArray(files, name);
        }
    }
    return ok;
}

char *rp_job_report(const rp_job *job)
{
    char *settings = rp_settings_json(job->settings, 0, NULL);
    cJSON *root = cJSON_CreateObject();
    char *text = NULL;

    if (root != NULL && settings != NULL &&
        cJSON_AddStringToObject(root, "rankpool", RP_VERSION) != NULL &&
        cJSON_AddStringToObject(root, "model", job->pool->pipeline.dir) != NULL &&
        cJSON_AddRawToObject(root, "settings", settings) != NULL &&
        num(root, "width", job->params.width) && num(root, "height", job->params.height) &&
        num(root, "n_ranks", rp_ctrl_n_ranks(job->pool->ctrl)) &&
        num(root, "threads_per_rank", job->pool->n_threads) &&
        cJSON_AddStringToObject(root, "transport", job->pool->xport->name) != NULL &&
        cJSON_AddStringToObject(root, "backend", job->pool->backend.ops->name) != NULL &&
        add_device(root, job) && add_start(root, job) && add_times(root, job) &&
        add_idle(root, job) && add_steps(root, job) && add_wave(root, job) &&
        add_ranks(root, job) && add_files(root, job)) {
        text = cJSON_Print(root);
    }
    cJSON_Delete(root);
    free(settings);
    return text;
}

/* ---- one number by name */

static double rank_number(const rp_result *result, const char *name)
{
    int rank = 0, used = 0;

    if (sscanf(name, "rank%d.%n", &rank, &used) != 1 || used == 0 || rank < 0 ||
        rank >= result->n_ranks) {
        return NAN;
    }
    const rp_rank_stats *s = &result->stats[rank];
    const struct {
        const char *name;
        double value;
    } rows[] = {{"busy_seconds", s->busy_s},
                {"idle_seconds", s->idle_s},
                {"wire_seconds", s->wire_s},
                {"unit_seconds", s->unit_s},
                {"units", (double)s->n_units}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(name + used, rows[i].name) == 0) {
            return rows[i].value;
        }
    }
    return NAN;
}

double rp_result_number(const rp_result *result, const char *name)
{
    const struct {
        const char *name;
        double value;
    } rows[] = {{"sample_seconds", result->times.sample},
                {"steps_per_second", result->steps_per_second},
                {"total_seconds", result->times.total},
                {"step_ms", 1e3 * result->times.step_median},
                {"unit_ms", 1e3 * result->times.unit_median},
                {"gpu_idle_us", result->times.gpu_idle_median},
                {"gpu_idle_us_max", result->times.gpu_idle_max},
                {"encode_seconds", result->times.encode},
                {"noise_seconds", result->times.noise},
                {"load_seconds", result->times.load},
                {"decode_seconds", result->times.decode},
                {"write_seconds", result->times.write},
                {"open_seconds", result->open_seconds},
                {"read_seconds", result->read_seconds},
                {"read_gb", result->read_gb},
                {"connect_seconds", result->connect_seconds},
                {"share_seconds", result->share_seconds},
                {"share_gb", result->share_gb},
                {"warm_seconds", result->times.warm},
                {"n_ranks", result->n_ranks}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(name, rows[i].name) == 0) {
            return rows[i].value;
        }
    }
    return rank_number(result, name);
}
