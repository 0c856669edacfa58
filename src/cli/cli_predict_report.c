/* cli_predict_report.c - read what `rankpool sample --report` wrote. */
#include "cli/cli_predict_report.h"

#include "cli/cli_log.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES                                                                                  \
    ((size_t)16 << 20) /* step_seconds of 1000 steps and 4096 ranks are under 1 MiB                \
                        */

/* Sums over the ranks. */
typedef struct {
    double units, busy, own; /* own: rank 0's time in waves */
} rank_sums;

/* The whole file with a NUL behind it, or NULL. */
static char *read_text(const char *path)
{
    FILE *stream = fopen(path, "rb");
    char *text = stream != NULL ? calloc(1, MAX_BYTES + 1) : NULL;
    bool ok = text != NULL;

    if (ok) {
        ok = fread(text, 1, MAX_BYTES + 1, stream) <= MAX_BYTES && ferror(stream) == 0;
        text[MAX_BYTES] = '\0';
    }
    if (!ok) {
        rp_cli_error("cannot read %s: %s", path, errno != 0 ? strerror(errno) : "it is too large");
        free(text);
        text = NULL;
    }
    if (stream != NULL) {
        (void)fclose(stream);
    }
    return text;
}

/* A number >= 0, else NaN: no sum with it passes as one. */
static double number(const cJSON *from, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(from, key);

    return cJSON_IsNumber(item) && item->valuedouble >= 0 ? item->valuedouble : NAN;
}

static const char *text(const cJSON *from, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(from, key);

    return cJSON_IsString(item) ? item->valuestring : "";
}

static rank_sums sum_ranks(const cJSON *ranks)
{
    rank_sums sum = {0, 0, 0};
    const cJSON *rank = NULL;

    cJSON_ArrayForEach(rank, ranks)
    {
        const double busy = number(rank, "busy_seconds");
        sum.units += number(rank, "units");
        sum.busy += busy;
        if (number(rank, "rank") == 0) {
            sum.own = busy + number(rank, "idle_seconds") + number(rank, "wire_seconds");
        }
    }
    return sum;
}

static double sum_of(const cJSON *array)
{
    double sum = 0;
    const cJSON *item = NULL;

    cJSON_ArrayForEach(item, array)
    {
        sum += cJSON_IsNumber(item) ? item->valuedouble : NAN;
    }
    return sum;
}

static double product_of(const cJSON *array)
{
    double product = 1;
    const cJSON *item = NULL;

    cJSON_ArrayForEach(item, array)
    {
        product *= cJSON_IsNumber(item) ? item->valuedouble : NAN;
    }
    return product;
}

/* One unit of each branch: the mean over all, parted as their costs are. */
static void part_units(const cJSON *costs, double mean_ms, rp_predict_job *job)
{
    const double mean_cost = sum_of(costs) / job->branches;

    for (int b = 0; b < job->branches; b++) {
        job->unit_ms[b] = mean_ms * cJSON_GetArrayItem(costs, b)->valuedouble / mean_cost;
    }
}

static void fill_times(const cJSON *root, rp_predict_job *job)
{
    const rank_sums sums = sum_ranks(cJSON_GetObjectItemCaseSensitive(root, "ranks"));
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(root, "step_seconds");
    const double steps = cJSON_GetArraySize(seconds); /* not settings.steps: a job may be resumed */
    const bool alone = number(root, "n_ranks") == 1;
    const double wave = (double)job->images * job->branches;
    const double mean = alone ? number(root, "unit_ms") : 1e3 * sums.busy / sums.units;

    part_units(cJSON_GetObjectItemCaseSensitive(root, "unit_costs"), mean, job);
    job->waves = sums.units / (steps * wave);
    job->root_ms = alone ? number(root, "step_ms") - job->waves * wave * mean
                         : 1e3 * (sum_of(seconds) - sums.own) / steps;
    job->decode_ms =
        1e3 * number(root, "decode_seconds") / ceil(job->images / number(root, "decode_ranks"));
    job->root_ms = job->root_ms < 0 ? 0 : job->root_ms; /* medians of both need not fit */
}

static bool is_whole(double value, double max)
{
    return value >= 1 && value <= max && floor(value) == value;
}

static bool is_time(double value)
{
    return isfinite(value) && value > 0;
}

/* A number that was missing made one of these NaN or infinite. */
static bool are_times(const rp_predict_job *job)
{
    bool ok = is_time(job->waves) && is_time(job->bytes) && is_time(1 + job->root_ms) &&
              is_time(1 + job->decode_ms) && is_time(job->picture_bytes);

    for (int b = 0; b < job->branches; b++) {
        ok = ok && is_time(job->unit_ms[b]);
    }
    return ok;
}

static rp_status fill(const char *path, const cJSON *root, rp_predict_job *job)
{
    const cJSON *settings = cJSON_GetObjectItemCaseSensitive(root, "settings");
    const cJSON *latents = cJSON_GetObjectItemCaseSensitive(root, "latents");
    const int branches = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "unit_costs"));
    const double images = number(settings, "images");

    if (!is_whole(images, RP_PREDICT_MAX_IMAGES) || !is_whole(branches, RP_PREDICT_MAX_BRANCHES) ||
        cJSON_GetArraySize(latents) != 3) {
        rp_cli_error("%s is no report that this version of rankpool wrote (--report)", path);
        return RP_E_FORMAT;
    }
    if (number(settings, "guidance-truncation") != 1 ||
        strcmp(text(settings, "residency"), "run") != 0) {
        rp_cli_error("%s: a job with guidance-truncation below 1 or another residency than run has "
                     "unequal steps, and is not predicted",
                     path);
        return RP_E_ARG;
    }
    job->images = (int)images;
    job->branches = branches;
    job->bytes = 4 * product_of(latents);
    job->picture_bytes = 3 * number(root, "width") * number(root, "height");
    fill_times(root, job);
    if (!are_times(job)) {
        rp_cli_error("%s: times are missing in this report", path);
        return RP_E_FORMAT;
    }
    return RP_OK;
}

rp_status rp_predict_read_report(const char *path, rp_predict_job *job)
{
    rp_predict_job read = *job;

    errno = 0;
    char *bytes = read_text(path);
    if (bytes == NULL) {
        return RP_E_IO;
    }
    cJSON *root = cJSON_Parse(bytes);
    rp_status st = root != NULL ? fill(path, root, &read) : RP_E_FORMAT;
    if (root == NULL) {
        rp_cli_error("%s is not JSON", path);
    }
    if (st == RP_OK) {
        *job = read;
    }
    cJSON_Delete(root);
    free(bytes);
    return st;
}
