/* cli_bench_print.c - the numbers of a measurement as text, Markdown and JSON. */
#include "cli/cli_bench.h"

#include "cli/cli_log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    double median, min, max;
} stats;

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts values[n] in place; n >= 1. */
static stats stats_of(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), compare_doubles);
    const double median = n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
    return (stats){median, values[0], values[n - 1]};
}

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

/* ---------------------------------------------------------------------- text */

static bool is_random(const rp_bench *b)
{
    return rp_cli_args_setting_on(b->settings, "random-weights");
}

/* "red heart" with the quotes, or what stands in for a prompt. */
static void print_prompt(const rp_bench *b)
{
    if (is_random(b)) {
        (void)printf("random weights, %s tokens", rp_settings_get(b->settings, "prompt-tokens"));
    } else {
        (void)printf("\"%s\"", rp_settings_get(b->settings, "prompt"));
    }
}

static void print_title(const rp_bench *b)
{
    const char *steps = rp_settings_get(b->settings, "steps");

    (void)printf("rankpool %s, ", rp_version());
    print_prompt(b);
    (void)printf(", %dx%d, %s step%s, guidance %s, %d image%s, %d rank%s; %d "
                 "warm-up, %d timed%s\n\n",
                 b->width, b->height, steps, plural(atoi(steps)),
                 rp_settings_get(b->settings, "guidance"), b->n_images, plural(b->n_images),
                 b->n_ranks, plural(b->n_ranks), b->warmup, b->repeat,
                 b->compare ? " of each residency, taking turns" : "");
}

/* What a job does beside its steps. */
static void print_rest(rp_bench_mode *mode)
{
    (void)printf("the rest  %.4g ms text, %.4g noise, %.4g loading, %.4g decoding, %.4g writing\n",
                 stats_of(mode->encode_ms, mode->n).median,
                 stats_of(mode->noise_ms, mode->n).median, stats_of(mode->load_ms, mode->n).median,
                 stats_of(mode->decode_ms, mode->n).median,
                 stats_of(mode->write_ms, mode->n).median);
}

/* On a GPU also what it consists of: files to the GPU, connecting, weights to the other ranks. */
static void print_start(const rp_bench *b)
{
    (void)printf("start-up  %8.3f s", b->open_seconds);
    if (b->share_gb > 0) {
        (void)printf("                    reading %.2f GB %.2f s", b->read_gb, b->read_seconds);
        if (b->n_ranks > 1) {
            (void)printf(", connecting %.2f s", b->connect_seconds);
        }
        if (b->share_seconds > 0) {
            (void)printf(", sending %.2f GB %.2f s", b->share_gb, b->share_seconds);
        }
    }
    (void)printf("\n\n");
}

static void print_medians(rp_bench *b)
{
    const stats rate = stats_of(b->modes[0].per_second, b->modes[0].n);
    const stats job = stats_of(b->modes[0].seconds, b->modes[0].n);

    (void)printf("            median      min      max\n");
    (void)printf("it/s      %8.2f %8.2f %8.2f   steps per second while sampling\n", rate.median,
                 rate.min, rate.max);
    (void)printf("ms/step   %8.2f %8.2f %8.2f\n", 1e3 / rate.median, 1e3 / rate.max,
                 1e3 / rate.min);
    (void)printf("s/job     %8.3f %8.3f %8.3f   prompt to picture\n", job.median, job.min, job.max);
    (void)printf("images/s  %8.3f %8.3f %8.3f\n", b->n_images / job.median, b->n_images / job.max,
                 b->n_images / job.min);
    print_rest(&b->modes[0]);
    print_start(b);
}

static void print_ranks(const rp_bench *b)
{
    (void)printf("rank   busy   idle   wire   units  ms/unit\n");
    for (int r = 0; r < b->n_ranks; r++) {
        const rp_bench_rank *rank = &b->ranks[r];
        const double sum = rank->busy + rank->idle + rank->wire;
        const double percent = sum > 0 ? 100.0 / sum : 0;
        char ms[32] = "-"; /* too few steps, or pools opened again and again */
        if (rank->unit > 0) {
            (void)snprintf(ms, sizeof(ms), "%.2f", 1e3 * rank->unit);
        }
        (void)printf("%4d %5.1f%% %5.1f%% %5.1f%% %7.0f %8s\n", r, rank->busy * percent,
                     rank->idle * percent, rank->wire * percent, rank->units, ms);
    }
}

static void print_idle(rp_bench *b)
{
    rp_bench_mode *mode = &b->modes[0];

    if (mode->n_idle > 0) {
        (void)printf("\nGPU idle between units: median %.0f us, most %.0f us\n",
                     stats_of(mode->idle_us, mode->n_idle).median, mode->idle_us_max);
    }
}

static rp_bench_mode *find_mode(rp_bench *b, const char *name)
{
    for (int m = 0; m < b->n_modes; m++) {
        if (strcmp(b->modes[m].name, name) == 0) {
            return &b->modes[m];
        }
    }
    return NULL;
}

static void print_residency(rp_bench *b)
{
    rp_bench_mode *step = find_mode(b, "step");
    const double base = step != NULL ? stats_of(step->seconds, step->n).median : 0;

    (void)printf(
        "run:  the pool is opened once and kept for all jobs (as rankpool always does)\n"
        "job:  it is opened for every job and closed after it\n"
        "step: it is torn down and opened again at every step\n"
        "it/s is steps per second while sampling, seconds is a whole job from prompt to picture,\n"
        "the difference is that of the seconds.\n\n"
        "| residency | it/s (median) | seconds (median) | min..max | against step |\n"
        "| --- | --- | --- | --- | --- |\n");
    for (int m = 0; m < b->n_modes; m++) {
        const stats job = stats_of(b->modes[m].seconds, b->modes[m].n);
        const stats rate = stats_of(b->modes[m].per_second, b->modes[m].n);
        char difference[32] = "-";
        if (step != NULL) {
            (void)snprintf(difference, sizeof(difference), "%+.1f%%",
                           100 * (job.median / base - 1));
        }
        (void)printf("| %s | %.2f | %.3f | %.3f..%.3f | %s |\n", b->modes[m].name, rate.median,
                     job.median, job.min, job.max, difference);
    }
}

void rp_bench_print(rp_bench *b)
{
    print_title(b);
    if (b->compare) {
        print_residency(b);
    } else {
        print_medians(b);
        print_ranks(b);
        print_idle(b);
    }
}

/* ---------------------------------------------------------------------- JSON */

static void json_text(FILE *stream, const char *text)
{
    (void)fputc('"', stream);
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            (void)fprintf(stream, "\\%c", c);
        } else if (c < 0x20) {
            (void)fprintf(stream, "\\u%04x", c);
        } else {
            (void)fputc(c, stream);
        }
    }
    (void)fputc('"', stream);
}

static void json_mode(FILE *stream, rp_bench_mode *mode, int n_images)
{
    const stats rate = stats_of(mode->per_second, mode->n);
    const stats job = stats_of(mode->seconds, mode->n);

    (void)fprintf(
        stream,
        "    {\"residency\": \"%s\", \"jobs\": %d, \"images_per_second\": %.6g,\n"
        "     \"steps_per_second\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g},\n"
        "     \"job_seconds\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g},\n"
        "     \"step_ms\": %.6g, \"unit_ms\": %.6g, \"encode_ms\": %.6g, "
        "\"noise_ms\": %.6g, \"load_ms\": %.6g, \"decode_ms\": %.6g, \"write_ms\": %.6g",
        mode->name, mode->n, n_images / job.median, rate.median, rate.min, rate.max, job.median,
        job.min, job.max, stats_of(mode->step_ms, mode->n).median,
        stats_of(mode->unit_ms, mode->n).median, stats_of(mode->encode_ms, mode->n).median,
        stats_of(mode->noise_ms, mode->n).median, stats_of(mode->load_ms, mode->n).median,
        stats_of(mode->decode_ms, mode->n).median, stats_of(mode->write_ms, mode->n).median);
    if (mode->n_idle > 0) {
        (void)fprintf(stream, ",\n     \"gpu_idle_us\": {\"median\": %.6g, \"max\": %.6g}",
                      stats_of(mode->idle_us, mode->n_idle).median, mode->idle_us_max);
    }
    (void)fputc('}', stream);
}

static void json_ranks(FILE *stream, const rp_bench *b)
{
    for (int r = 0; r < b->n_ranks; r++) {
        const rp_bench_rank *rank = &b->ranks[r];
        (void)fprintf(
            stream,
            "    {\"busy_seconds\": %.6g, \"idle_seconds\": %.6g, \"wire_seconds\": %.6g, "
            "\"units\": %.0f, \"unit_seconds\": %.6g}%s\n",
            rank->busy, rank->idle, rank->wire, rank->units, rank->unit,
            r + 1 < b->n_ranks ? "," : "");
    }
}

static void json_all(FILE *stream, rp_bench *b)
{
    (void)fprintf(stream, "{\n  \"version\": \"%s\",\n  \"prompt\": ", rp_version());
    json_text(stream, rp_settings_get(b->settings, "prompt"));
    (void)fprintf(
        stream,
        ",\n  \"width\": %d, \"height\": %d, \"steps\": %s, \"guidance\": %s, \"images\": %d,\n"
        "  \"random_weights\": %s, \"prompt_tokens\": %s,\n"
        "  \"n_ranks\": %d, \"repeat\": %d, \"warmup\": %d, \"open_seconds\": %.6g,\n"
        "  \"runs\": [\n",
        b->width, b->height, rp_settings_get(b->settings, "steps"),
        rp_settings_get(b->settings, "guidance"), b->n_images, is_random(b) ? "true" : "false",
        is_random(b) ? rp_settings_get(b->settings, "prompt-tokens") : "null", b->n_ranks,
        b->repeat, b->warmup, b->open_seconds);
    for (int m = 0; m < b->n_modes; m++) {
        if (b->modes[m].name == NULL) {
            b->modes[m].name = rp_settings_get(b->settings, "residency");
        }
        json_mode(stream, &b->modes[m], b->n_images);
        (void)fprintf(stream, "%s\n", m + 1 < b->n_modes ? "," : "");
    }
    (void)fprintf(stream, "  ],\n  \"ranks\": [\n");
    json_ranks(stream, b);
    (void)fprintf(stream, "  ]\n}\n");
}

static void timeline_all(FILE *stream, rp_bench *b)
{
    (void)fprintf(stream, "%s\n", b->timeline);
}

static rp_status write_whole(rp_bench *b, const char *path, void (*fill)(FILE *, rp_bench *))
{
    char part[PATH_MAX];

    (void)snprintf(part, sizeof(part), "%s.%ld.part", path, (long)getpid());
    FILE *stream = fopen(part, "w");
    bool ok = stream != NULL;
    if (ok) {
        fill(stream, b);
        ok = fflush(stream) == 0 && fsync(fileno(stream)) == 0;
    }
    const int cause = errno; /* of the first failure: fclose may set another */
    if (stream != NULL && fclose(stream) != 0) {
        ok = false;
    }
    if (!ok || rename(part, path) != 0) {
        rp_cli_error("cannot write %s: %s", path, strerror(ok ? errno : cause));
        (void)unlink(part);
        return RP_E_IO;
    }
    return RP_OK;
}

rp_status rp_bench_write_json(rp_bench *b, const char *path)
{
    return write_whole(b, path, json_all);
}

rp_status rp_bench_write_timeline(rp_bench *b, const char *path)
{
    return write_whole(b, path, timeline_all);
}
