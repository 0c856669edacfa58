/* cli_batch.c - `rankpool batch`: many jobs with the pool resident. */
#include "cli/cli_commands.h"
#include "cli/cli_jobs.h"
#include "cli/cli_log.h"
#include "cli/cli_progress.h"
#include "cli/cli_sheet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINES_NAMED 20 /* failed lines that the last line lists */

typedef struct {
    const rp_cli_args *args;
    const char *folder;
    bool stop_on_error, quiet;
    rp_cli_jobs jobs;
    rp_cli_sheet sheet;
    int n_pictures, cancel_code; /* cancel_code: of the signal that came, or 0 */
    double began;
} batch;

/* One level is made when it is missing; everything above has to be there. */
static rp_status open_folder(const char *folder)
{
    struct stat info;

    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        rp_cli_error("cannot make the output folder %s: %s", folder, strerror(errno));
        return RP_E_IO;
    }
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) {
        rp_cli_error("the output folder %s is not a folder", folder);
        return RP_E_IO;
    }
    if (access(folder, W_OK | X_OK) != 0) {
        rp_cli_error("cannot write to the output folder %s: %s", folder, strerror(errno));
        return RP_E_IO;
    }
    return RP_OK;
}

/* After these the pool still serves (rp_generate). */
static bool pool_is_usable(rp_status st)
{
    return st == RP_OK || st == RP_E_ARG || st == RP_E_IO || st == RP_E_EXISTS ||
           st == RP_E_FORMAT || st == RP_E_CANCEL;
}

static rp_status keep_result(batch *b, rankpool *pool, rp_cli_job *job, rp_result *result,
                             double seconds)
{
    job->state = RP_CLI_JOB_MADE;
    b->n_pictures += rp_result_n_images(result);
    rp_cli_print_made(pool, job->settings, result, seconds);
    const rp_status st = rp_cli_sheet_add(&b->sheet, result);
    rp_result_free(result);
    return st;
}

static rp_status run_job(batch *b, rankpool *pool, rp_cli_job *job, size_t number)
{
    const rp_hooks hooks = rp_cli_progress_hooks();
    rp_result *result = NULL;
    const double began = rp_cli_now();
    char label[64];

    if (!rp_cli_args_setting_on(job->settings, "overwrite") && rp_cli_job_is_made(job)) {
        /* by an earlier run of this batch */
        job->state = RP_CLI_JOB_KEPT;
        if (!b->quiet) {
            (void)printf("%s: kept, it exists\n", rp_settings_get(job->settings, "out"));
            (void)fflush(stdout);
        }
        return RP_OK;
    }
    (void)snprintf(label, sizeof(label), "job %zu of %zu", number, b->jobs.n);
    rp_cli_progress_start(b->quiet, label);
    rp_cli_log_line(b->jobs.file, job->line);
    rp_status st = rp_generate(pool, job->settings, &hooks, &result);
    rp_cli_progress_wipe();
    if (st == RP_E_CANCEL) {
        b->cancel_code = rp_cli_cancelled(job->settings);
    } else if (st != RP_OK) {
        job->state = RP_CLI_JOB_FAILED;
    }
    rp_cli_log_line(NULL, 0);
    return st == RP_OK ? keep_result(b, pool, job, result, rp_cli_now() - began) : st;
}

static void run_jobs(batch *b, rankpool *pool)
{
    for (size_t i = 0; i < b->jobs.n; i++) {
        if (rp_cli_signal() != 0) { /* between two jobs */
            b->cancel_code = rp_cli_signal_code();
            return;
        }
        if (b->jobs.jobs[i].state != RP_CLI_JOB_READY) {
            continue;
        }
        const rp_status st = run_job(b, pool, &b->jobs.jobs[i], i + 1);
        if (!pool_is_usable(st) || st == RP_E_CANCEL || (st != RP_OK && b->stop_on_error)) {
            return;
        }
    }
}

/* ------------------------------------------------------------------ summary */

static int count_state(const rp_cli_jobs *jobs, rp_cli_job_state state)
{
    int n = 0;

    for (size_t i = 0; i < jobs->n; i++) {
        n += jobs->jobs[i].state == state;
    }
    return n;
}

static void print_failed_lines(const rp_cli_jobs *jobs, int n_failed)
{
    int n = 0;

    (void)printf(" (line%s ", n_failed == 1 ? "" : "s");
    for (size_t i = 0; i < jobs->n && n < LINES_NAMED; i++) {
        if (jobs->jobs[i].state == RP_CLI_JOB_BAD || jobs->jobs[i].state == RP_CLI_JOB_FAILED) {
            (void)printf("%s%ld", n > 0 ? ", " : "", jobs->jobs[i].line);
            n++;
        }
    }
    if (n_failed > n) {
        (void)printf(" and %d more", n_failed - n);
    }
    (void)printf(")");
}

/* "made 10, kept 2, failed 3 (lines 4, 7, 9) in 12.3 s, 0.81 images/s, 2 ranks" */
static int print_summary(const batch *b, int n_ranks)
{
    const int made = count_state(&b->jobs, RP_CLI_JOB_MADE);
    const int kept = count_state(&b->jobs, RP_CLI_JOB_KEPT);
    const int not_run = count_state(&b->jobs, RP_CLI_JOB_READY);
    const int failed = (int)b->jobs.n - made - kept - not_run;
    const double since = rp_cli_now() - b->began;

    if (!b->quiet) {
        (void)printf("made %d, kept %d, failed %d", made, kept, failed);
        if (failed > 0) {
            print_failed_lines(&b->jobs, failed);
        }
        if (not_run > 0) {
            (void)printf(", not run %d", not_run);
        }
        (void)printf(" in %.1f s, %.2f images/s, %d %s\n", since, b->n_pictures / since, n_ranks,
                     n_ranks == 1 ? "rank" : "ranks");
        (void)fflush(stdout);
    }
    return failed > 0 || not_run > 0 ? RP_CLI_FAILED : RP_CLI_OK;
}

/* ---------------------------------------------------------------------- run */

/* Rank 0. The batch is read with the pool open: when it is unusable, closing sends the others home.
 */
static int batch_work(rankpool *pool, void *arg)
{
    batch *b = arg;

    b->began = rp_cli_now();
    rp_status st = open_folder(b->folder);
    if (st == RP_OK) {
        st = rp_cli_jobs_init(&b->jobs, b->args->words[0], b->args->settings, b->folder);
    }
    if (st == RP_OK) {
        st = rp_cli_sheet_check(&b->sheet, &b->jobs);
    }
    if (st != RP_OK) {
        return RP_CLI_FAILED;
    }
    if (!b->stop_on_error || count_state(&b->jobs, RP_CLI_JOB_BAD) == 0) {
        rp_cli_print_ranks(pool, b->args->settings);
        run_jobs(b, pool);
    }
    const int n_made = count_state(&b->jobs, RP_CLI_JOB_MADE);
    st = rp_cli_sheet_write(&b->sheet, (int)b->jobs.n - n_made);
    const int code = print_summary(b, rp_n_ranks(pool));
    if (b->cancel_code != 0) {
        return b->cancel_code;
    }
    return st == RP_OK ? code : RP_CLI_FAILED;
}

static int batch_run(const rp_cli_args *args)
{
    batch b = {
        .args = args,
        .folder = rp_cli_args_get(args, "out-dir"),
        .stop_on_error = rp_cli_args_on(args, "stop-on-error"),
        .quiet = rp_cli_args_setting_on(args->settings, "quiet"),
        .sheet = {.path = rp_cli_args_get(args, "sheet")},
    };

    b.sheet.overwrite = rp_cli_args_setting_on(args->settings, "overwrite");
    if (rp_cli_args_number(args, "columns", 1, 1000, &b.sheet.columns) != RP_OK) {
        return RP_CLI_USAGE;
    }
    if (b.folder == NULL || b.folder[0] == '\0') {
        rp_cli_error(
            "--out-dir is missing: usage is rankpool batch JOBS.jsonl --out-dir DIR [options]");
        return RP_CLI_USAGE;
    }
    const int code = rp_cli_with_pool(args, batch_work, &b, NULL);
    rp_cli_sheet_fini(&b.sheet);
    rp_cli_jobs_fini(&b.jobs);
    return code;
}

static const rp_cli_option batch_options[] = {
    {"out-dir", "DIR", "", "", "where all outputs go; made when it is missing", false},
    {"sheet", "FILE.png", "", "", "write all pictures side by side too; they must have one size",
     false},
    {"columns", "N", "8", "1 to 1000", "pictures in a row of the sheet", false},
    {"stop-on-error", "", "off", "on|off",
     "end at the first job that fails; run none if a line is bad", true},
    {0},
};

static const char *const batch_examples[] = {
    "jobs.jsonl: a line a job, with the keys of `rankpool sample`",
    "printf '{\"prompt\": \"sun\"}\\n{\"prompt\": \"pizza\", \"seed\": 3}\\n' > jobs.jsonl",
    "pictures/0001.png and pictures/0002.png, on two ranks, with 20 steps where a line says "
    "nothing",
    "mpirun -n 2 rankpool batch jobs.jsonl --out-dir pictures --steps 20",
    "go on after an interruption: what exists is kept",
    "rankpool batch jobs.jsonl --out-dir pictures",
    "an overview of all pictures, four in a row",
    "rankpool batch jobs.jsonl --out-dir pictures --sheet all.png --columns 4",
    "jobs from another program",
    "make-jobs | rankpool batch - --out-dir pictures",
    NULL,
};

const rp_cli_command rp_cli_batch = {
    .name = "batch",
    .summary = "make the jobs of a file, one JSON object a line, with the pool resident",
    .usage = "JOBS.jsonl --out-dir DIR [options]",
    .about =
        "Reads jobs from JOBS.jsonl (- for standard input), one JSON object a line with the keys "
        "of `rankpool sample`; options on this command line are the defaults of every line. "
        "Empty lines and lines that begin with # are skipped.\n"
        "All lines are checked before the first job runs. A bad line is reported as "
        "JOBS.jsonl:LINE: reason; the good ones are made. \"out\" of a line is a name below DIR, "
        "by default the line's number (0007.png); two lines cannot write the same file. "
        "\"latents-out\", \"report\" and \"trace\" go below DIR too.\n"
        "A job whose files all exist is kept, counted and not made again, unless --overwrite. The "
        "exit code is 1 if a line was bad or a job failed.\n"
        "SIGUSR1, SIGTERM or Ctrl-C end the batch at the next step, and the job in work leaves its "
        "state in OUT.checkpoint; the same command goes on from there. After SIGUSR1 the exit code "
        "is 85, \"start me again\".",
    .examples = batch_examples,
    .options = batch_options,
    .rows = RP_CLI_ROWS_ALL,
    .refused = "out",
    .refused_why = "\"out\" of a job line names its file, --out-dir the folder",
    .n_words_min = 1,
    .n_words_max = 1,
    .word = "the batch",
    .run = batch_run,
};
