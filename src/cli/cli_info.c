/* cli_info.c - `rankpool info`: what this build and this machine have, and what each rank got. */
#include "cli/cli_commands.h"
#include "cli/cli_log.h"

#include <stdio.h>

/* Rank 0; the others serve and answer. pool may be NULL. */
static int print_info(rankpool *pool, void *unused)
{
    char *text = rp_info(pool);

    (void)unused;
    if (text == NULL) {
        rp_cli_error("the text about this build could not be made");
        return RP_CLI_FAILED;
    }
    (void)fputs(text, stdout);
    rp_free(text);
    return RP_CLI_OK;
}

/* A pool that does not open (no model, say) is when information is needed most. */
static int info_run(const rp_cli_args *args)
{
    const bool first = rp_cli_args_rank_hint() == 0;

    if (rp_cli_args_on(args, "no-pool")) {
        return first ? print_info(NULL, NULL) : RP_CLI_OK;
    }
    bool opened = false;
    const int code = rp_cli_with_pool(args, print_info, NULL, &opened);
    if (!opened && first) {
        (void)print_info(NULL, NULL);
    }
    return code;
}

static const rp_cli_option info_options[] = {
    {"no-pool", "", "off", "on|off", "do not open the pool: only the build and this machine", true},
    {0},
};

static const char *const info_examples[] = {
    "this build, this machine, the shipped model",
    "rankpool info",
    "without opening a model",
    "rankpool info --no-pool",
    "what each of four ranks is bound to",
    "mpirun -n 4 rankpool info",
    "the same for another model and two threads a rank",
    "mpirun -n 4 rankpool info --model ~/Lumina-Image-2.0 --threads 2",
    NULL,
};

const rp_cli_command rp_cli_info = {
    .name = "info",
    .summary = "what this build and this machine have, and what each rank is bound to",
    .usage = "[options]",
    .about = "Opens the pool as a job would and prints what it found. When the pool does not open, "
             "the reason and what is known without it are printed, and the exit code is 1.",
    .examples = info_examples,
    .options = info_options,
    .rows = RP_CLI_ROWS_PER_RUN,
    .run = info_run,
};
