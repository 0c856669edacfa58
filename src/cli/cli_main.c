/* cli_main.c - the command rankpool: which commands there are, and who runs. */
#include "cli/cli_args.h"
#include "cli/cli_commands.h"
#include "cli/cli_help.h"
#include "cli/cli_log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* One line a command; the order of `rankpool help`. */
const rp_cli_command *const rp_cli_commands[] = {
    &rp_cli_sample, &rp_cli_batch, &rp_cli_bench, &rp_cli_predict, &rp_cli_info, &rp_cli_list, NULL,
};

/* Every rank parses the same arguments; only the first speaks. */
static bool is_speaker(void)
{
    return rp_cli_args_rank_hint() == 0;
}

static int run_help(int argc, char **argv)
{
    if (argc > 2) {
        rp_cli_error("unexpected argument \"%s\": usage is rankpool help [COMMAND]", argv[2]);
        return RP_CLI_USAGE;
    }
    if (argc < 2) {
        if (is_speaker()) {
            rp_cli_help_overview(stdout);
        }
        return RP_CLI_OK;
    }
    const rp_cli_command *command = rp_cli_help_find_or_say(argv[1]);
    if (command == NULL) {
        return RP_CLI_USAGE;
    }
    if (is_speaker()) {
        rp_cli_help_command(stdout, command);
    }
    return RP_CLI_OK;
}

static int run_version(void)
{
    if (is_speaker()) {
        (void)printf("rankpool %s\n", rp_version());
    }
    return RP_CLI_OK;
}

static int run_command(const rp_cli_command *command, int argc, char **argv)
{
    rp_cli_args args;
    int code = RP_CLI_USAGE;

    const rp_status st = rp_cli_args_init(&args, command, argc, argv);
    if (st == RP_OK) {
        if (!args.help) {
            rp_cli_log_start(false); /* from here on the pool knows who speaks */
            code = command->run(&args);
        } else {
            if (is_speaker()) {
                rp_cli_help_command(stdout, command);
            }
            code = RP_CLI_OK;
        }
    } else if (st != RP_E_ARG && st != RP_E_ABSENT) { /* the picture of --from could not be read */
        code = RP_CLI_FAILED;
    }
    rp_cli_args_fini(&args);
    return code;
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        if (is_speaker()) {
            rp_cli_help_short(stderr);
        }
        return RP_CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        return run_version();
    }
    if (strcmp(name, "help") == 0) {
        return run_help(argc - 1, argv + 1);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return run_help(1, argv);
    }
    const rp_cli_command *command = rp_cli_help_find_or_say(name);
    return command == NULL ? RP_CLI_USAGE : run_command(command, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    (void)signal(SIGXFSZ, SIG_IGN); /* a file over `ulimit -f` is an error of write, with its name */
    rp_cli_log_start(!is_speaker());
    int code = run(argc, argv);

    /* what was printed must have arrived: `rankpool info > /full/disk` is a failure */
    if (fflush(stdout) != 0 && code == RP_CLI_OK) {
        rp_cli_error("cannot write to standard output: %s", strerror(errno));
        code = RP_CLI_FAILED;
    }
    return code;
}
