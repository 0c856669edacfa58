/* cli_commands.h - the commands, one file each, and what two of them share. */
#ifndef RP_CLI_COMMANDS_H
#define RP_CLI_COMMANDS_H

#include "cli/cli_args.h"

extern const rp_cli_command rp_cli_sample;
extern const rp_cli_command rp_cli_batch;
extern const rp_cli_command rp_cli_bench;
extern const rp_cli_command rp_cli_predict;
extern const rp_cli_command rp_cli_info;
extern const rp_cli_command rp_cli_list;

/*
 * Open the pool; ranks > 0 serve until rank 0 closes, rank 0 runs `work` and closes. Returns the
 * exit code: that of `work` on rank 0. SIGINT and SIGTERM are caught from the moment the pool is
 * open, SIGUSR1 from the beginning. arg         handed on opened_out  NULL, or set when the pool
 * opened
 */
int rp_cli_with_pool(const rp_cli_args *args, int (*work)(rankpool *pool, void *arg), void *arg,
                     bool *opened_out);

/* The table of the ranks to stderr, before the first job: unless quiet, and where there is
 * something to tell (rp_ranks). */
void rp_cli_print_ranks(rankpool *pool, const rp_settings *settings);

/* "heart.png: 128x128, 30 steps, seed 0, 1.23 s, 24.4 it/s, 2 ranks" to stdout.
 *   seconds  of the whole job */
void rp_cli_print_made(const rankpool *pool, const rp_settings *job, const rp_result *result,
                       double seconds);

/* "cancelled at step 12 of 30; ..." to stderr, with the checkpoint of `job` if there is one.
 * Returns the exit code. */
int rp_cli_cancelled(const rp_settings *job);

/* Could FILE be made here and now? Refuses what exists unless overwrite, and folders that are not
 * there or not writable. RP_E_EXISTS, RP_E_IO (logged). */
rp_status rp_cli_check_output(const char *path, bool overwrite);

#endif
