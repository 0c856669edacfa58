/*
 * cli_progress.h - what a person sees while a job runs, and how the job is stopped.
 *
 * On a terminal one line that is redrawn, at most 20 times a second, and wiped at the end;
 * elsewhere a plain line every 5 s, so nothing for short jobs. The process has one terminal, hence
 * one bar.
 */
#ifndef RP_CLI_PROGRESS_H
#define RP_CLI_PROGRESS_H

#include <rankpool/rankpool.h>

#include <stdbool.h>

/* Monotonic seconds. */
double rp_cli_now(void);

/* Before a job. quiet: show nothing. label goes before the bar ("job 3 of 10") or is NULL; it is
 * copied. */
void rp_cli_progress_start(bool quiet, const char *label);

/* For rp_generate: draws, and cancels the job after a signal. */
rp_hooks rp_cli_progress_hooks(void);

/* Remove the bar from the terminal, if one is there. */
void rp_cli_progress_wipe(void);

/* The last step that was seen: "cancelled at step 12 of 30". */
void rp_cli_progress_last(int *step_out, int *n_steps_out);

/* From now on the first SIGINT or SIGTERM only asks for the end; the second acts as usual. */
void rp_cli_signals_catch(void);

/* SIGUSR1 asks for the end too, any number of times; a picture whose steps are all done is
 * finished. May be called before the pool is open. */
void rp_cli_signals_catch_usr1(void);

/* The signal that came, or 0; and the exit code that goes with it. */
int rp_cli_signal(void);
int rp_cli_signal_code(void);

#endif
