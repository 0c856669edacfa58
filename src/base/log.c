/* log.c - one line per event. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    rp_log_fn fn;
    void *arg;
    bool quiet, hold;
    bool hold_errors;                /* other lines are printed */
    char held[RP_LOG_LINE_BYTES];    /* first error that was not printed */
    char printed[RP_LOG_LINE_BYTES]; /* newest error that was */
} g_log = {.lock = PTHREAD_MUTEX_INITIALIZER};

void rp_set_log(rp_log_fn fn, void *arg)
{
    (void)pthread_mutex_lock(&g_log.lock);
    g_log.fn = fn;
    g_log.arg = arg;
    (void)pthread_mutex_unlock(&g_log.lock);
}

void rp_log_quiet(bool on)
{
    g_log.quiet = on;
}

bool rp_log_hold(bool on)
{
    const bool was = g_log.hold;

    g_log.hold = on;
    return was;
}

void rp_log_hold_errors(bool on)
{
    g_log.hold_errors = on;
}

void rp_log_take(char *text, size_t n_bytes)
{
    (void)pthread_mutex_lock(&g_log.lock);
    (void)snprintf(text, n_bytes, "%s", g_log.held[0] != '\0' ? g_log.held : g_log.printed);
    g_log.held[0] = '\0';
    g_log.printed[0] = '\0';
    (void)pthread_mutex_unlock(&g_log.lock);
}

static void print_line(rp_log_level level, const char *line)
{
    static const char *const prefix[] = {"error: ", "warning: ", ""};

    if (g_log.fn != NULL) {
        g_log.fn(g_log.arg, level, line);
    } else {
        (void)fprintf(stderr, "rankpool: %s%s\n", prefix[level], line);
    }
}

void rp_log(rp_log_level level, const char *format, ...)
{
    char line[RP_LOG_LINE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);

    (void)pthread_mutex_lock(&g_log.lock);
    if (g_log.hold || (g_log.hold_errors && level == RP_LOG_ERROR)) {
        if (level == RP_LOG_ERROR && g_log.held[0] == '\0') {
            memcpy(g_log.held, line, sizeof(line));
        }
    } else if (level == RP_LOG_ERROR || !g_log.quiet) {
        if (level == RP_LOG_ERROR) {
            memcpy(g_log.printed, line, sizeof(line));
        }
        print_line(level, line);
    }
    (void)pthread_mutex_unlock(&g_log.lock);
}

void rp_log_now(const char *format, ...)
{
    char line[RP_LOG_LINE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);

    (void)pthread_mutex_lock(&g_log.lock);
    print_line(RP_LOG_ERROR, line);
    (void)pthread_mutex_unlock(&g_log.lock);
}
