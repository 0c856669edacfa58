/*
 * cli_log.h - one place for lines to stderr: they wipe the progress bar first, and carry the job
 * line that they belong to.
 */
#ifndef RP_CLI_LOG_H
#define RP_CLI_LOG_H

#include <stdbool.h>

/* Take over the library's log. mute: say nothing at all (ranks > 0 before the pool knows them). */
void rp_cli_log_start(bool mute);

/* "rankpool: error: ..." */
void rp_cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "rankpool: warning: ..." */
void rp_cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From now on lines begin with "FILE:LINE: " in place of "rankpool: "; NULL ends that. */
void rp_cli_log_line(const char *file, long line);

#endif
