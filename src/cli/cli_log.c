/* cli_log.c - lines to stderr. The library serialises its calls, and this command's own come from
 * the main thread alone. */
#include "cli/cli_log.h"

#include "cli/cli_progress.h"

#include <rankpool/rankpool.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#define LINE_BYTES 1200

static struct {
    bool mute;
    pthread_t main_thread;
    const char *file; /* of the job line that is being read or run, or NULL */
    long line;
} g_cli_log;

static void log_line(void *arg, rp_log_level level, const char *text)
{
    static const char *const words[] = {"error: ", "warning: ", ""};

    (void)arg;
    if (g_cli_log.mute) {
        return;
    }
    rp_cli_progress_wipe();
    /* a lost rank, told by the library's thread, is no fault of the line */
    if (g_cli_log.file != NULL && pthread_equal(pthread_self(), g_cli_log.main_thread)) {
        (void)fprintf(stderr, "%s:%ld: %s%s\n", g_cli_log.file, g_cli_log.line,
                      level == RP_LOG_ERROR ? "" : words[level], text);
    } else {
        (void)fprintf(stderr, "rankpool: %s%s\n", words[level], text);
    }
}

void rp_cli_log_start(bool mute)
{
    g_cli_log.mute = mute;
    g_cli_log.main_thread = pthread_self();
    rp_set_log(log_line, NULL);
}

void rp_cli_error(const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_line(NULL, RP_LOG_ERROR, text);
}

void rp_cli_warn(const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_line(NULL, RP_LOG_WARN, text);
}

void rp_cli_log_line(const char *file, long line)
{
    g_cli_log.line = line;
    g_cli_log.file = file;
}
