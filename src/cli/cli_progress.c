/* cli_progress.c - bar, plain lines, and the signals that end a job. */
#include "cli/cli_progress.h"

#include "cli/cli_args.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define REDRAW_SECONDS 0.05
#define PLAIN_SECONDS  5.0
#define BAR_CELLS      30
#define SAME_SECONDS   0.3

static struct {
    bool quiet, terminal, drawn;
    char label[64];
    double last; /* when something was shown, or the job began */
    int step, n_steps;
} g_progress;

static volatile sig_atomic_t g_signal;

double rp_cli_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void rp_cli_progress_start(bool quiet, const char *label)
{
    g_progress.quiet = quiet;
    g_progress.terminal = isatty(STDERR_FILENO) == 1;
    g_progress.step = 0;
    g_progress.n_steps = 0;
    g_progress.last = rp_cli_now() - (g_progress.terminal ? REDRAW_SECONDS : 0);
    (void)snprintf(g_progress.label, sizeof(g_progress.label), "%s%s", label != NULL ? label : "",
                   label != NULL ? "  " : "");
}

void rp_cli_progress_wipe(void)
{
    if (g_progress.drawn) {
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
        g_progress.drawn = false;
    }
}

void rp_cli_progress_last(int *step_out, int *n_steps_out)
{
    *step_out = g_progress.step;
    *n_steps_out = g_progress.n_steps;
}

/* "12/30 steps  24.3 it/s  0.7 s left" while sampling; "decode ..." in the other phases. */
static void describe(const rp_progress *p, char *text, size_t n_bytes)
{
    if (strcmp(p->phase, "sample") != 0) {
        (void)snprintf(text, n_bytes, "%d/%d steps  %s ...", p->step, p->n_steps, p->phase);
    } else if (p->steps_per_second > 0) {
        (void)snprintf(text, n_bytes, "%d/%d steps  %.1f it/s  %.1f s left", p->step, p->n_steps,
                       p->steps_per_second, (p->n_steps - p->step) / p->steps_per_second);
    } else {
        (void)snprintf(text, n_bytes, "%d/%d steps", p->step, p->n_steps);
    }
}

static int terminal_columns(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    return 80;
}

static void draw_bar(const rp_progress *p, const char *text)
{
    const int room = terminal_columns() - 1 - (int)strlen(g_progress.label);
    int cells = room - (int)strlen(text) - 3;
    char bar[BAR_CELLS + 1];

    cells = cells > BAR_CELLS ? BAR_CELLS : cells;
    const int whole = p->n_steps > 0 ? p->n_steps : 1;
    if (cells >= 5) {
        const int full = cells * p->step / whole;
        memset(bar, '#', (size_t)full);
        memset(bar + full, '-', (size_t)(cells - full));
        bar[cells] = '\0';
        (void)fprintf(stderr, "\r\033[K%s[%s] %s", g_progress.label, bar, text);
    } else { /* too narrow for a bar; a line that wraps could not be wiped */
        (void)fprintf(stderr, "\r\033[K%.*s", room > 0 ? room : 1, text);
    }
    (void)fflush(stderr);
    g_progress.drawn = true;
}

/* After SIGUSR1 the program is started again: what is nearly done is better done now. */
static bool is_over(const rp_progress *p)
{
    if (g_signal != SIGUSR1) {
        return g_signal != 0;
    }
    return strcmp(p->phase, "encode") == 0 ||
           (strcmp(p->phase, "sample") == 0 && p->step < p->n_steps);
}

static int on_progress(void *arg, const rp_progress *p)
{
    const double now = rp_cli_now();
    const double gap = g_progress.terminal ? REDRAW_SECONDS : PLAIN_SECONDS;
    char text[96];

    (void)arg;
    g_progress.step = p->step;
    g_progress.n_steps = p->n_steps;
    if (is_over(p)) {
        return 1;
    }
    if (!g_progress.quiet && now - g_progress.last >= gap) {
        g_progress.last = now;
        describe(p, text, sizeof(text));
        if (g_progress.terminal) {
            draw_bar(p, text);
        } else {
            (void)fprintf(stderr, "%s%s\n", g_progress.label, text);
        }
    }
    return 0;
}

rp_hooks rp_cli_progress_hooks(void)
{
    return (rp_hooks){.progress = on_progress};
}

/* ------------------------------------------------------------------ signals */

/* Launchers and `timeout` signal a process and then its whole group: what comes at once counts
 * once. */
static void on_signal(int number)
{
    static volatile double first;
    const double now = rp_cli_now(); /* clock_gettime may be called here */

    if (number == SIGUSR1) {
        g_signal = g_signal == 0 ? number : g_signal;
    } else if (g_signal == 0 || g_signal == SIGUSR1) {
        first = now;
        g_signal = number;
    } else if (now - first > SAME_SECONDS) {
        (void)signal(number, SIG_DFL);
        (void)raise(number);
    }
}

void rp_cli_signals_catch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    struct sigaction old, now = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        /* what the parent made us ignore (nohup, a shell's background jobs) stays ignored */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            (void)sigaction(numbers[i], &now, NULL);
        }
    }
}

void rp_cli_signals_catch_usr1(void)
{
    const struct sigaction now = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    (void)sigaction(SIGUSR1, &now, NULL);
}

int rp_cli_signal(void)
{
    return g_signal;
}

int rp_cli_signal_code(void)
{
    return g_signal == SIGUSR1 ? RP_CLI_REQUEUE : 128 + (g_signal != 0 ? g_signal : SIGINT);
}
