/*
 * log.h - one line per event, to stderr or to the caller's function.
 *
 * Lower case, exact cause, names and values: "cannot open x.png: No space left on device".
 *
 * A rank that serves holds its errors instead of printing them (rp_log_hold): rank 0 collects the
 * text with the status and prints one line that names host, rank, step and unit.
 */
#ifndef RP_LOG_H
#define RP_LOG_H

#include <rankpool/rankpool.h>

#include <stdbool.h>
#include <stddef.h>

#define RP_LOG_LINE_BYTES 1024

#if defined(__GNUC__)
#define RP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define RP_PRINTF(fmt, args)
#endif

/* Print one line, or keep it when errors are held. Never fails; long lines are cut. */
void rp_log(rp_log_level level, const char *format, ...) RP_PRINTF(2, 3);

#define RP_ERROR(...) rp_log(RP_LOG_ERROR, __VA_ARGS__)
#define RP_WARN(...)  rp_log(RP_LOG_WARN, __VA_ARGS__)
#define RP_INFO(...)  rp_log(RP_LOG_INFO, __VA_ARGS__)

/* Log an error and give its status, for `return RP_FAIL(RP_E_ARG, "steps %d ...", n);`. */
#define RP_FAIL(status, ...) (rp_log(RP_LOG_ERROR, __VA_ARGS__), (status))

/* Hide lines below errors (--quiet) when on. */
void rp_log_quiet(bool on);

/* Hold errors from now on (true), or print them again (false); returns what was set before.
 * Warnings and information of a rank that holds are dropped. */
bool rp_log_hold(bool on);

/* Hold errors of what may be tried again, whatever rp_log_hold says; other lines go on as they do.
 */
void rp_log_hold_errors(bool on);

/* The first error held since the last call or, if none was, the newest one printed since then; ""
 * for none. Copied into text[n_bytes] (cut to fit); clears both. */
void rp_log_take(char *text, size_t n_bytes);

/* Print one error at once, also while errors are held. */
void rp_log_now(const char *format, ...) RP_PRINTF(1, 2);

#endif
