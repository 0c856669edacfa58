/* cli_sample.c - `rankpool sample`: one job; and what the commands that run jobs share. */
#include "cli/cli_commands.h"
#include "cli/cli_log.h"
#include "cli/cli_progress.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------- shared */

int rp_cli_with_pool(const rp_cli_args *args, int (*work)(rankpool *pool, void *arg), void *arg,
                     bool *opened_out)
{
    rankpool *pool = NULL;
    int code = RP_CLI_FAILED;

    rp_cli_signals_catch_usr1(); /* on all ranks: launchers pass it to each */
    if (rp_open(args->settings, &pool) != RP_OK) {
        return RP_CLI_FAILED;
    }
    if (opened_out != NULL) {
        *opened_out = true;
    }
    rp_cli_signals_catch();
    if (rp_rank(pool) == 0) {
        code = work(pool, arg);
    } else {
        code = rp_serve(pool) == RP_OK ? RP_CLI_OK : RP_CLI_FAILED;
    }
    rp_close(pool);
    return code;
}

void rp_cli_print_ranks(rankpool *pool, const rp_settings *settings)
{
    char *text = rp_cli_args_setting_on(settings, "quiet") ? NULL : rp_ranks(pool);

    if (text != NULL) {
        (void)fputs(text, stderr);
    }
    rp_free(text);
}

void rp_cli_print_made(const rankpool *pool, const rp_settings *job, const rp_result *result,
                       double seconds)
{
    const int n_images = rp_result_n_images(result), n_ranks = rp_n_ranks(pool);
    const char *out = rp_settings_get(job, "out"), *steps = rp_settings_get(job, "steps");
    int width = 0, height = 0;

    if (rp_cli_args_setting_on(job, "quiet")) {
        return;
    }
    (void)rp_result_rgb(result, 0, &width, &height);
    (void)printf("%s: ", out[0] != '\0' ? out : "(no file)");
    if (n_images != 1) {
        (void)printf("%d pictures, ", n_images);
    }
    (void)printf("%dx%d, %s step%s, seed %s, %.2f s, %.1f it/s, %d rank%s\n", width, height, steps,
                 strcmp(steps, "1") == 0 ? "" : "s", rp_settings_get(job, "seed"), seconds,
                 rp_result_number(result, "steps_per_second"), n_ranks, n_ranks == 1 ? "" : "s");
    (void)fflush(stdout);
}

int rp_cli_cancelled(const rp_settings *job)
{
    int step = 0, n_steps = 0;
    const char *checkpoint = rp_settings_get(job, "checkpoint");

    rp_cli_progress_last(&step, &n_steps);
    if (checkpoint[0] != '\0' && access(checkpoint, F_OK) == 0) {
        rp_cli_error("cancelled at step %d of %d; the next start goes on from %s", step, n_steps,
                     checkpoint);
    } else {
        rp_cli_error("cancelled at step %d of %d; nothing was written", step, n_steps);
    }
    return rp_cli_signal_code();
}

rp_status rp_cli_check_output(const char *path, bool overwrite)
{
    char copy[PATH_MAX];

    if (path[0] == '\0' || strlen(path) >= sizeof(copy)) {
        rp_cli_error("'%.60s' cannot be the name of a file", path);
        return RP_E_IO;
    }
    if (!overwrite && access(path, F_OK) == 0) {
        rp_cli_error("%s exists and is kept; --overwrite replaces it", path);
        return RP_E_EXISTS;
    }
    (void)strcpy(copy, path);
    const char *folder = dirname(copy);
    if (access(folder, W_OK | X_OK) != 0) {
        rp_cli_error("cannot write %s: folder %s: %s", path, folder, strerror(errno));
        return RP_E_IO;
    }
    return RP_OK;
}

/* ------------------------------------------------------------------- sample */

static int sample_work(rankpool *pool, void *arg)
{
    const rp_cli_args *args = arg;
    const rp_hooks hooks = rp_cli_progress_hooks();
    rp_result *result = NULL;
    const double began = rp_cli_now();

    rp_cli_print_ranks(pool, args->settings);
    rp_cli_progress_start(rp_cli_args_setting_on(args->settings, "quiet"), NULL);
    const rp_status st = rp_generate(pool, args->settings, &hooks, &result);
    rp_cli_progress_wipe();
    if (st == RP_E_CANCEL) {
        return rp_cli_cancelled(args->settings);
    }
    if (st != RP_OK) {
        return RP_CLI_FAILED;
    }
    rp_cli_print_made(pool, args->settings, result, rp_cli_now() - began);
    rp_result_free(result);
    return RP_CLI_OK;
}

static int sample_run(const rp_cli_args *args)
{
    return rp_cli_with_pool(args, sample_work, (void *)args, NULL);
}

static const rp_cli_option sample_options[] = {
    {"from", "FILE.png", "", "",
     "take the settings of a picture that rankpool wrote; options on the command line win", false},
    {0},
};

static const char *const sample_examples[] = {
    "a picture, into rankpool.png",
    "rankpool sample --prompt \"red heart\"",
    "four pictures, seeds 7 to 10, on two ranks: heart-0000.png to heart-0003.png",
    "mpirun -n 2 rankpool sample --prompt \"red heart\" --images 4 --seed 7 --out heart.png",
    "the same picture again, and the same with another seed",
    "rankpool sample --from heart.png --seed 8 --out heart8.png",
    "faster: guidance off, fewer steps",
    "rankpool sample --prompt pizza --guidance 1 --steps 12 --overwrite",
    "keep the latents and where the time went",
    "rankpool sample --prompt sun --latents-out sun.safetensors --report sun.json",
    "what every rank did when, to be looked at in ui.perfetto.dev",
    "mpirun -n 2 rankpool sample --prompt sun --trace trace.json",
    "another model, in diffusers' layout",
    "rankpool sample --model ~/Lumina-Image-2.0 --prompt \"a lighthouse at dusk\"",
    NULL,
};

const rp_cli_command rp_cli_sample = {
    .name = "sample",
    .summary = "make one picture, or several of one prompt",
    .usage = "[options]",
    .about =
        "Makes the pictures of one job and writes them as PNG, with the settings inside. Files "
        "appear whole or not at all; what exists is kept unless --overwrite.\n"
        "Ctrl-C (or SIGTERM) ends the job at the next step; nothing is written then but the state, "
        "with --checkpoint: the same command goes on from it and makes the same picture. SIGUSR1 "
        "does "
        "so with exit code 85, \"start me again\".",
    .examples = sample_examples,
    .options = sample_options,
    .rows = RP_CLI_ROWS_ALL,
    .run = sample_run,
};
