/* cli_bench.c - `rankpool bench`: medians over equal jobs, and what keeping the pool is worth. */
#include "cli/cli_bench.h"

#include "cli/cli_commands.h"
#include "cli/cli_log.h"
#include "cli/cli_progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const g_modes[] = {"run", "job", "step"};

/* ------------------------------------------------------------------ settings */

/* "run,job,step", one of them, or "all". */
static rp_status read_modes(rp_bench *b, const char *text)
{
    if (text == NULL || strcmp(text, "all") == 0) {
        b->compare = text != NULL;
        b->n_modes = text != NULL ? 3 : 1;
        for (int i = 0; i < b->n_modes; i++) {
            b->modes[i].name = text != NULL ? g_modes[i] : NULL;
        }
        return RP_OK;
    }
    b->compare = true;
    for (const char *at = text; b->n_modes < RP_BENCH_MAX_MODES; at += 1) {
        const size_t n = strcspn(at, ",");
        const char *mode = NULL;
        for (size_t i = 0; i < sizeof(g_modes) / sizeof(g_modes[0]); i++) {
            mode = strlen(g_modes[i]) == n && strncmp(g_modes[i], at, n) == 0 ? g_modes[i] : mode;
        }
        for (int i = 0; i < b->n_modes; i++) {
            mode = b->modes[i].name == mode ? NULL : mode; /* twice the same */
        }
        if (mode == NULL) {
            break;
        }
        b->modes[b->n_modes++].name = mode;
        at += n;
        if (*at == '\0') {
            return RP_OK;
        }
    }
    rp_cli_error(
        "--residency %s is not allowed: all, or run, job, step with commas between, each once",
        text);
    return RP_E_ARG;
}

/* A value that nobody chose. */
static rp_status set_default(rp_settings *settings, const rp_cli_args *args, const char *name,
                             const char *value)
{
    const char *now = rp_settings_get(settings, name);

    if (rp_cli_args_given(args, name) || (strcmp(name, "out") != 0 && now[0] != '\0')) {
        return RP_OK;
    }
    return rp_settings_set(settings, name, value);
}

/* Jobs of a measurement leave no pictures unless asked to. */
static rp_status prepare_settings(rp_bench *b)
{
    const rp_status st = set_default(b->settings, b->args, "prompt", "red heart");

    if (st != RP_OK ||
        rp_settings_set(b->settings, "checkpoint", "") != RP_OK) { /* each job is whole */
        return st != RP_OK ? st : RP_E_NOMEM;
    }
    return set_default(b->settings, b->args, "out", "");
}

/* ----------------------------------------------------------------------- run */

static double rank_number(const rp_result *result, int rank, const char *what)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "rank%d.%s", rank, what);
    const double value = rp_result_number(result, name);
    return isfinite(value) ? value : 0.0;
}

static void keep_idle(rp_bench_mode *mode, const rp_result *result)
{
    const double median = rp_result_number(result, "gpu_idle_us");
    const double most = rp_result_number(result, "gpu_idle_us_max");

    if (isfinite(median)) {
        mode->idle_us[mode->n_idle++] = median;
        mode->idle_us_max = most > mode->idle_us_max ? most : mode->idle_us_max;
    }
}

static rp_status keep_timeline(rp_bench *b, const rp_result *result)
{
    if (rp_cli_args_get(b->args, "timeline") == NULL) {
        return RP_OK;
    }
    rp_free(b->timeline);
    b->timeline = rp_result_timeline(result);
    if (b->timeline == NULL) {
        rp_cli_error("no memory for the timeline");
        return RP_E_NOMEM;
    }
    return RP_OK;
}

static void keep_start(rp_bench *b, const rp_result *result)
{
    b->read_seconds = rp_result_number(result, "read_seconds");
    b->read_gb = rp_result_number(result, "read_gb");
    b->connect_seconds = rp_result_number(result, "connect_seconds");
    b->share_seconds = rp_result_number(result, "share_seconds");
    b->share_gb = rp_result_number(result, "share_gb");
}

static void keep_numbers(rp_bench *b, rp_bench_mode *mode, const rp_result *result, double seconds)
{
    const double per_second = rp_result_number(result, "steps_per_second");

    mode->seconds[mode->n] = seconds;
    mode->per_second[mode->n] = isfinite(per_second) ? per_second : 0.0;
    mode->step_ms[mode->n] = rp_result_number(result, "step_ms");
    mode->unit_ms[mode->n] = rp_result_number(result, "unit_ms");
    mode->encode_ms[mode->n] = 1e3 * rp_result_number(result, "encode_seconds");
    mode->noise_ms[mode->n] = 1e3 * rp_result_number(result, "noise_seconds");
    mode->load_ms[mode->n] = 1e3 * rp_result_number(result, "load_seconds");
    mode->decode_ms[mode->n] = 1e3 * rp_result_number(result, "decode_seconds");
    mode->write_ms[mode->n] = 1e3 * rp_result_number(result, "write_seconds");
    keep_idle(mode, result);
    keep_start(b, result);
    mode->n++;
    b->n_images = rp_result_n_images(result);
    (void)rp_result_rgb(result, 0, &b->width, &b->height);
    for (int r = 0; r < b->n_ranks; r++) {
        b->ranks[r].busy += rank_number(result, r, "busy_seconds");
        b->ranks[r].idle += rank_number(result, r, "idle_seconds");
        b->ranks[r].wire += rank_number(result, r, "wire_seconds");
        b->ranks[r].units += rank_number(result, r, "units");
        b->ranks[r].unit = rank_number(result, r, "unit_seconds");
    }
}

static rp_status run_one(rp_bench *b, rankpool *pool, rp_bench_mode *mode, bool timed)
{
    const rp_hooks hooks = rp_cli_progress_hooks();
    rp_result *result = NULL;
    char label[64];

    if (mode->name != NULL) {
        const rp_status st = rp_settings_set(b->settings, "residency", mode->name);
        if (st != RP_OK) {
            return st;
        }
    }
    (void)snprintf(label, sizeof(label), "%s%s%s", mode->name != NULL ? mode->name : "",
                   mode->name != NULL ? " " : "", timed ? "timed" : "warm-up");
    rp_cli_progress_start(b->quiet, label);
    const double began = rp_cli_now();
    rp_status st = rp_generate(pool, b->settings, &hooks, &result);
    const double ended = rp_cli_now();
    rp_cli_progress_wipe();
    if (st == RP_OK && timed) {
        keep_numbers(b, mode, result, ended - began);
        st = keep_timeline(b, result);
    }
    rp_result_free(result);
    /* the first job refuses what exists; the next ones write the same names again */
    return st == RP_OK ? rp_settings_set(b->settings, "overwrite", "on") : st;
}

/* Modes take turns, so that a machine that gets slower does so for all of them. */
static rp_status run_all(rp_bench *b, rankpool *pool)
{
    for (int i = 0; i < b->warmup + b->repeat; i++) {
        for (int m = 0; m < b->n_modes; m++) {
            const rp_status st = run_one(b, pool, &b->modes[m], i >= b->warmup);
            if (st != RP_OK) {
                return st;
            }
        }
    }
    return RP_OK;
}

/* Refused before the measurement, not after it. */
static rp_status check_outputs(const rp_bench *b)
{
    static const char *const options[] = {"json", "timeline"};
    const bool overwrite = rp_cli_args_setting_on(b->args->settings, "overwrite");
    rp_status st = RP_OK;

    for (int i = 0; st == RP_OK && i < 2; i++) {
        const char *path = rp_cli_args_get(b->args, options[i]);
        st = path != NULL ? rp_cli_check_output(path, overwrite) : RP_OK;
    }
    return st;
}

static rp_status write_outputs(rp_bench *b)
{
    const char *json = rp_cli_args_get(b->args, "json");
    const char *timeline = rp_cli_args_get(b->args, "timeline");
    const rp_status st = json != NULL ? rp_bench_write_json(b, json) : RP_OK;

    return st == RP_OK && timeline != NULL ? rp_bench_write_timeline(b, timeline) : st;
}

/* Rank 0, from the moment the pool is open. */
static int bench_work(rankpool *pool, void *arg)
{
    rp_bench *b = arg;

    b->open_seconds = rp_cli_now() - b->began;
    b->n_ranks = rp_n_ranks(pool);
    b->ranks = calloc((size_t)b->n_ranks, sizeof(*b->ranks));
    if (b->ranks == NULL) {
        rp_cli_error("no memory for the numbers of %d ranks", b->n_ranks);
        return RP_CLI_FAILED;
    }
    if (check_outputs(b) != RP_OK) {
        return RP_CLI_FAILED;
    }
    rp_cli_print_ranks(pool, b->settings);
    const rp_status st = run_all(b, pool);
    if (st == RP_E_CANCEL) {
        return rp_cli_cancelled(b->settings);
    }
    if (st != RP_OK) {
        return RP_CLI_FAILED;
    }
    rp_bench_print(b);
    return write_outputs(b) == RP_OK ? RP_CLI_OK : RP_CLI_FAILED;
}

static int bench_run(const rp_cli_args *args)
{
    rp_bench b = {.args = args, .quiet = rp_cli_args_setting_on(args->settings, "quiet")};
    int code = RP_CLI_USAGE;

    if (rp_cli_args_number(args, "repeat", 1, RP_BENCH_MAX_REPEAT, &b.repeat) != RP_OK ||
        rp_cli_args_number(args, "warmup", 0, RP_BENCH_MAX_REPEAT, &b.warmup) != RP_OK ||
        read_modes(&b, rp_cli_args_get(args, "residency")) != RP_OK) {
        return RP_CLI_USAGE;
    }
    b.settings = rp_settings_copy(args->settings);
    if (b.settings == NULL) {
        rp_cli_error("no memory for the settings of a job");
        return RP_CLI_FAILED;
    }
    if (prepare_settings(&b) == RP_OK) {
        b.began = rp_cli_now();
        code = rp_cli_with_pool(args, bench_work, &b, NULL);
    }
    rp_settings_free(b.settings);
    free(b.ranks);
    rp_free(b.timeline);
    return code;
}

static const rp_cli_option bench_options[] = {
    {"repeat", "N", "5", "1 to 1000", "timed jobs", false},
    {"warmup", "N", "1", "0 to 1000", "jobs before them that are not counted", false},
    {"residency", "LIST", "", "all, or run, job, step with commas",
     "compare how long the pool is kept: for the whole run, opened for every job, or torn down and "
     "opened again at every step; prints a Markdown table",
     false},
    {"json", "FILE.json", "", "", "write the numbers", false},
    {"timeline", "FILE.json", "", "",
     "write when rank 0's units of the last timed job ran, as a trace that Perfetto opens "
     "(ui.perfetto.dev)",
     false},
    {0},
};

static const char *const bench_examples[] = {
    "how fast is one rank, and how fast are two?",
    "rankpool bench --threads 1; mpirun -n 2 rankpool bench --threads 1",
    "eight pictures in flight, ten timed jobs, numbers into a file",
    "mpirun -n 2 rankpool bench --images 8 --repeat 10 --json two.json",
    "when does the GPU wait? the units of the last job, to be looked at in ui.perfetto.dev",
    "rankpool bench --repeat 2 --timeline units.json",
    "what keeping the pool is worth",
    "mpirun -n 2 rankpool bench --residency all --repeat 3",
    "two of the three, few steps",
    "rankpool bench --residency run,job --steps 8",
    "a model of full size without its weights: a folder with the JSON configs is enough",
    "rankpool bench --model share/models/lumina-image-2.0-config --random-weights",
    NULL,
};

const rp_cli_command rp_cli_bench = {
    .name = "bench",
    .summary = "measure: medians over equal jobs, time per rank, what a resident pool is worth",
    .usage = "[options]",
    .about =
        "Runs one job again and again (default: \"red heart\", 30 steps) and prints medians with "
        "the "
        "least and the most: steps per second and time per step (sampling alone), seconds per job "
        "and images per second (prompt to picture), what a job does beside its steps (text, noise, "
        "loading the ranks, decoding, writing), start-up, and for every rank the share of time "
        "busy, idle and on the wire, and its units; on a GPU also how long it waits between two "
        "units. "
        "Writes no picture unless --out is given.",
    .examples = bench_examples,
    .options = bench_options,
    .rows = RP_CLI_ROWS_ALL,
    .refused = "checkpoint",
    .refused_why = "every job of a measurement is a whole one",
    .own_group = "measuring", /* RP_GROUP_BENCH of the library's table */
    .run = bench_run,
};
