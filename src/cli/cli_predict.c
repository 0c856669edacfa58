/* cli_predict.c - `rankpool predict`: a job on other numbers of ranks, computed and not run. */
#include "cli/cli_commands.h"
#include "cli/cli_log.h"
#include "cli/cli_predict_model.h"
#include "cli/cli_predict_report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COUNTS 64

typedef struct {
    rp_predict_job job;
    double ranks[MAX_COUNTS];
    int n_ranks;
} prediction;

/* ------------------------------------------------------------------ reading */

/* What a number may be. */
typedef struct {
    const char *name;
    double min, max;
    bool whole;
} number_rule;

/* "a,b,c" -> values [*n <= most]; *n stays 0 when the option was not given. */
static rp_status read_list(const rp_cli_args *args, number_rule rule, int most, double *values,
                           int *n)
{
    const char *at = rp_cli_args_get(args, rule.name);
    char *end = NULL;

    *n = 0;
    for (bool more = at != NULL; more; at = end + 1) {
        errno = 0;
        const double value = strtod(at, &end);
        more = *end == ',';
        if (end == at || (*end != '\0' && !more) || errno != 0 || *n == most ||
            !(value >= rule.min && value <= rule.max) || (rule.whole && value != floor(value))) {
            rp_cli_error("--%s %s is not allowed: %s%s, %g to %g", rule.name,
                         rp_cli_args_get(args, rule.name), most > 1 ? "one or more " : "",
                         most > 1
                             ? (rule.whole ? "whole numbers with commas" : "numbers with commas")
                         : rule.whole ? "a whole number"
                                      : "a number",
                         rule.min, rule.max);
            return RP_E_ARG;
        }
        values[(*n)++] = value;
    }
    return RP_OK;
}

/* One number into *out, which stays as it is when the option was not given. */
static rp_status read_number(const rp_cli_args *args, number_rule rule, double *out)
{
    double value = 0;
    int n = 0;
    const rp_status st = read_list(args, rule, 1, &value, &n);

    *out = n == 1 ? value : *out;
    return st;
}

static rp_status read_units(const rp_cli_args *args, rp_predict_job *job)
{
    double ms[RP_PREDICT_MAX_BRANCHES];
    double units = job->branches;
    int n = 0;
    rp_status st =
        read_number(args, (number_rule){"units", 1, RP_PREDICT_MAX_BRANCHES, true}, &units);

    if (st == RP_OK) {
        st = read_list(args, (number_rule){"unit-ms", 1e-6, 1e9, false}, RP_PREDICT_MAX_BRANCHES,
                       ms, &n);
    }
    if (st != RP_OK) {
        return st;
    }
    const bool has_times = n > 0 || (job->unit_ms[0] > 0 && (int)units == job->branches);
    if (!has_times || (n > 1 && rp_cli_args_get(args, "units") != NULL && n != (int)units)) {
        rp_cli_error(
            "--unit-ms is needed%s: one number for all units, or one for each of the %g units "
            "of an image",
            n > 1 ? " as often as --units says" : ", or --from a report with as many units", units);
        return RP_E_ARG;
    }
    job->branches = n > 1 ? n : (int)units;
    for (int b = 0; n > 0 && b < job->branches; b++) {
        job->unit_ms[b] = ms[n > 1 ? b : 0];
    }
    return RP_OK;
}

static rp_status read_size(const rp_cli_args *args, rp_predict_job *job)
{
    double width = 0, height = 0, channels = 16;
    const number_rule rules[] = {
        {"width", 8, 65536, true}, {"height", 8, 65536, true}, {"channels", 1, 4096, true}};
    double *const values[] = {&width, &height, &channels};

    for (int i = 0; i < 3; i++) {
        const rp_status st = read_number(args, rules[i], values[i]);
        if (st != RP_OK) {
            return st;
        }
    }
    if (job->bytes > 0 && width == 0 && height == 0 && rp_cli_args_get(args, "channels") == NULL) {
        return RP_OK; /* the report's */
    }
    width = width > 0 ? width : 1024;
    height = height > 0 ? height : 1024;
    job->bytes = 4 * channels * floor(width / 8) * floor(height / 8);
    job->picture_bytes = 3 * width * height;
    return RP_OK;
}

static rp_status read_rest(const rp_cli_args *args, rp_predict_job *job)
{
    double images = job->images, cores = 0;
    const number_rule rules[] = {{"images", 1, RP_PREDICT_MAX_IMAGES, true},
                                 {"waves", 0.01, 100, false},
                                 {"root-ms", 0, 1e9, false},
                                 {"decode-ms", 0, 1e9, false},
                                 {"latency-us", 0, 1e9, false},
                                 {"gbit", 0, 1e6, false},
                                 {"cores", 0, 1e6, true}};
    double *const values[] = {&images,          &job->waves, &job->root_ms, &job->decode_ms,
                              &job->latency_us, &job->gbit,  &cores};

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const rp_status st = read_number(args, rules[i], values[i]);
        if (st != RP_OK) {
            return st;
        }
    }
    job->images = (int)images;
    job->cores = (int)cores;
    return RP_OK;
}

static int read_all(const rp_cli_args *args, prediction *p)
{
    const char *from = rp_cli_args_get(args, "from");

    p->job = (rp_predict_job){.images = 1, .branches = 2, .waves = 1};
    if (read_list(args, (number_rule){"ranks", 1, RP_PREDICT_MAX_RANKS, true}, MAX_COUNTS, p->ranks,
                  &p->n_ranks) != RP_OK) {
        return RP_CLI_USAGE;
    }
    if (from != NULL && rp_predict_read_report(from, &p->job) != RP_OK) {
        return RP_CLI_FAILED;
    }
    const bool ok = read_units(args, &p->job) == RP_OK && read_size(args, &p->job) == RP_OK &&
                    read_rest(args, &p->job) == RP_OK;
    return ok ? RP_CLI_OK : RP_CLI_USAGE;
}

/* ----------------------------------------------------------------- printing */

static void print_units(const rp_predict_job *job)
{
    for (int b = 0; b < job->branches; b++) {
        (void)printf("%s%.4g", b > 0 ? ", " : "", job->unit_ms[b]);
    }
}

static void print_link(const rp_predict_job *job)
{
    (void)printf("latency %g us, rank 0's link ", job->latency_us);
    if (job->gbit > 0) {
        (void)printf("%g Gbit/s", job->gbit);
    } else {
        (void)printf("without limit");
    }
    if (job->cores > 0) {
        (void)printf(", %d core%s for all ranks", job->cores, job->cores == 1 ? "" : "s");
    }
}

static const char legend[] =
    "step ms     one step of all images; it/s steps a second\n"
    "speed-up    step ms of one rank / step ms;  efficiency: speed-up / ranks\n"
    "most units  of one rank in a wave;  busy: ranks that have any\n"
    "limit       what costs most, and how much of a step: units (fewer than ranks), uneven\n"
    "            (they do not divide by the ranks), cores, network (bytes over rank 0's link),\n"
    "            latency, root (rank 0's own work); - for less than 1 %\n";

static const char decode_legend[] =
    "decode ms   all images of a job, after its last step; each rank decodes its share\n";

static void print_head(const rp_predict_job *job, const rp_predict_result *one)
{
    const int units = job->images * job->branches;

    (void)printf("Predicted, not measured: %d image%s of %d unit%s (", job->images,
                 job->images == 1 ? "" : "s", job->branches, job->branches == 1 ? "" : "s");
    print_units(job);
    (void)printf(" ms each), %.4g wave%s a step, rank 0 alone %.3g ms a step,\n%.4g KiB of latents "
                 "and predictions each, ",
                 job->waves, job->waves == 1 ? "" : "s", job->root_ms, job->bytes / 1024);
    print_link(job);
    if (job->decode_ms > 0) {
        (void)printf(", decoding %.4g ms a picture", job->decode_ms);
    }
    (void)printf(".\nBase: one rank, %.2f ms a step (%.2f it/s).\n\n%s%s\n", one->step_ms,
                 1e3 / one->step_ms, legend, job->decode_ms > 0 ? decode_legend : "");
    (void)printf("%d image%s with %d unit%s: at most %d rank%s can be busy%s.\n\n", job->images,
                 job->images == 1 ? "" : "s", job->branches, job->branches == 1 ? "" : "s each",
                 units, units == 1 ? "" : "s",
                 units == 2 ? "; more images in flight use more" : "");
}

static void print_titles(const rp_predict_job *job)
{
    const bool decodes = job->decode_ms > 0;

    (void)printf(
        "| ranks | busy | most units | step ms | it/s | speed-up | efficiency |%s limit |\n"
        "| --- | --- | --- | --- | --- | --- | --- |%s --- |\n",
        decodes ? " decode ms |" : "", decodes ? " --- |" : "");
}

static void print_row(const rp_predict_result *r)
{
    (void)printf("| %d | %d | %d | %.2f | %.2f | %.2f | %.1f %% | ", r->ranks, r->busy_ranks,
                 r->most_units, r->step_ms, 1e3 / r->step_ms, r->speedup, 100 * r->efficiency);
    if (r->decode_ms > 0) {
        (void)printf("%.2f | ", r->decode_ms);
    }
    if (r->limit == RP_LIMIT_NONE) {
        (void)printf("- |\n");
    } else {
        (void)printf("%s, %.0f %% |\n", rp_predict_limit_name(r->limit),
                     100 * r->lost_ms[r->limit] / r->step_ms);
    }
}

static void print_json_row(const rp_predict_result *r)
{
    (void)printf("{\"ranks\": %d, \"busy_ranks\": %d, \"most_units\": %d, \"step_ms\": %.6g, "
                 "\"speedup\": %.6g, \"efficiency\": %.6g, \"decode_ms\": %.6g, "
                 "\"limit\": \"%s\", \"lost_ms\": {",
                 r->ranks, r->busy_ranks, r->most_units, r->step_ms, r->speedup, r->efficiency,
                 r->decode_ms,
                 r->limit == RP_LIMIT_NONE ? "none" : rp_predict_limit_name(r->limit));
    for (int k = RP_LIMIT_NONE + 1; k < RP_N_LIMITS; k++) {
        (void)printf("%s\"%s\": %.6g", k > RP_LIMIT_NONE + 1 ? ", " : "",
                     rp_predict_limit_name((rp_predict_limit)k), r->lost_ms[k]);
    }
    (void)printf("}}");
}

static void print_json_head(const rp_predict_job *job, const rp_predict_result *one)
{
    (void)printf("{\"images\": %d, \"unit_ms\": [", job->images);
    print_units(job);
    (void)printf("], \"waves\": %.6g, \"root_ms\": %.6g, \"decode_ms\": %.6g, \"bytes\": %.0f,\n"
                 " \"latency_us\": %g, \"gbit\": %g, \"cores\": %d, \"base_step_ms\": %.6g, "
                 "\"base_decode_ms\": %.6g, \"predictions\": [\n",
                 job->waves, job->root_ms, job->decode_ms, job->bytes, job->latency_us, job->gbit,
                 job->cores, one->step_ms, one->decode_ms);
}

static rp_status print_rows(const prediction *p, bool json)
{
    for (int i = 0; i < p->n_ranks; i++) {
        rp_predict_result row;
        const rp_status st = rp_predict(&p->job, (int)p->ranks[i], &row);
        if (st != RP_OK) {
            return st;
        }
        if (json) {
            print_json_row(&row);
            (void)printf("%s\n", i + 1 < p->n_ranks ? "," : "]}");
        } else {
            print_row(&row);
        }
    }
    return RP_OK;
}

static rp_status print_all(const prediction *p, bool json)
{
    rp_predict_result one;
    rp_status st = rp_predict(&p->job, 1, &one);

    if (st == RP_OK && json) {
        print_json_head(&p->job, &one);
    } else if (st == RP_OK) {
        print_head(&p->job, &one);
        print_titles(&p->job);
    }
    st = st == RP_OK ? print_rows(p, json) : st;
    if (st != RP_OK) {
        rp_cli_error("out of memory for a prediction");
    }
    return st;
}

static int predict_run(const rp_cli_args *args)
{
    prediction p;

    if (rp_cli_args_rank_hint() != 0) {
        return RP_CLI_OK;
    }
    const int code = read_all(args, &p);
    if (code != RP_CLI_OK) {
        return code;
    }
    return print_all(&p, rp_cli_args_on(args, "json")) == RP_OK ? RP_CLI_OK : RP_CLI_FAILED;
}

static const rp_cli_option predict_options[] = {
    {"ranks", "LIST", "1,2,4,8,16,32,64,128,256,512,1024", "1 to 4096, with commas",
     "numbers of ranks", false},
    {"from", "REPORT.json", "", "",
     "take images, units, times and sizes from a job's --report, best of one rank; options win",
     false},
    {"unit-ms", "LIST", "", "", "milliseconds of one model evaluation, or of each unit with commas",
     false},
    {"units", "N", "", "1 to 8", "units of an image; default: 2, as plain guidance has", false},
    {"images", "N", "", "1 to 1024", "images in flight; default: 1", false},
    {"waves", "X", "", "0.01 to 100", "model calls of a step; default: 1, as euler has", false},
    {"root-ms", "X", "", "", "what rank 0 does alone in a step; default: 0", false},
    {"decode-ms", "X", "", "", "decoding one picture; default: left out", false},
    {"width", "PX", "", "8 to 65536", "size of an image; default: 1024", false},
    {"height", "PX", "", "8 to 65536", "likewise", false},
    {"channels", "N", "", "1 to 4096", "of the latents, an eighth as wide and high; default: 16",
     false},
    {"latency-us", "L", "0", "", "microseconds of a message, one way", false},
    {"gbit", "B", "0", "", "Gbit/s of rank 0's link, each way; 0: no limit", false},
    {"cores", "N", "0", "",
     "how many ranks can compute at once, all hosts together; more share them; 0: all", false},
    {"json", "", "off", "on|off", "print JSON", true},
    {0},
};

static const char *const predict_examples[] = {
    "one image with plain guidance: two units, and no use for a third rank",
    "rankpool predict --unit-ms 41",
    "64 images in flight, over 10 Gbit/s Ethernet",
    "rankpool predict --unit-ms 41 --images 64 --latency-us 30 --gbit 10",
    "measure one rank, predict others",
    "rankpool sample --threads 1 --images 4 --report one.json; rankpool predict --from one.json",
    "four ranks on two cores",
    "rankpool predict --from one.json --ranks 1,2,4 --cores 2",
    "eight pictures of 27 ms each to decode",
    "rankpool predict --unit-ms 39 --images 8 --decode-ms 27 --ranks 1,2,4,8",
    "two unequal units, for a program to read",
    "rankpool predict --unit-ms 16,10 --width 128 --height 128 --json",
    NULL,
};

const rp_cli_command rp_cli_predict = {
    .name = "predict",
    .summary = "step time, speed-up and what limits it on other numbers of ranks, without running",
    .usage = "[options]",
    .about =
        "Places the units of a step on the ranks as the pool does, then adds up: latents leave "
        "rank 0 one after the other, ranks compute, predictions come back one after the other, "
        "rank 0 works alone. With the time of a decode, the pictures are spread in the same way: "
        "latents out, pictures back. Equal ranks are assumed; encoding and start-up are left "
        "out. Messages over 64 KiB count three latencies (TCP: announced, asked for, sent).",
    .examples = predict_examples,
    .options = predict_options,
    .rows = RP_CLI_ROWS_NONE,
    .run = predict_run,
};
