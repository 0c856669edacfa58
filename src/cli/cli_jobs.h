/*
 * cli_jobs.h - the lines of a batch, read and checked before the first job runs.
 *
 * One JSON object a line, keys as the options of `rankpool sample`; empty lines and lines that
 * begin with '#' are skipped. "out" (default: the line's number, "0007.png"), "latents-out",
 * "report", "trace" and "checkpoint" (default: the picture's name and ".checkpoint") are names
 * below the output folder, and no two lines may write the same file.
 */
#ifndef RP_CLI_JOBS_H
#define RP_CLI_JOBS_H

#include <rankpool/rankpool.h>

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    RP_CLI_JOB_BAD,
    RP_CLI_JOB_READY,
    RP_CLI_JOB_MADE,
    RP_CLI_JOB_KEPT,
    RP_CLI_JOB_FAILED
} rp_cli_job_state;

typedef struct {
    long line;             /* 1-based, in the file */
    rp_settings *settings; /* outputs below the folder; NULL when the line is bad */
    rp_cli_job_state state;
} rp_cli_job;

typedef struct {
    const char *file; /* how messages call it */
    rp_cli_job *jobs;
    size_t n, room;
    void *names; /* tree of the files that lines write */
} rp_cli_jobs;

/*
 * Read `path` ("-": standard input). Bad lines are reported as "FILE:LINE: reason" and stay in the
 * list as RP_CLI_JOB_BAD. defaults  settings that every line starts from folder    outputs go below
 * it RP_E_IO (cannot be read), RP_E_ARG (no job in it), RP_E_NOMEM; all logged. Free with _fini,
 * also after an error.
 */
rp_status rp_cli_jobs_init(rp_cli_jobs *jobs, const char *path, const rp_settings *defaults,
                           const char *folder);
/* Is every file of the job there, so that nothing is left to make? */
bool rp_cli_job_is_made(const rp_cli_job *job);

void rp_cli_jobs_fini(rp_cli_jobs *jobs);

#endif
