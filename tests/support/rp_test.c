/* rp_test.c - what the tests share. */
#include "rp_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char g_last[2048];

double rpt_rel_l2(const float *got, const float *want, size_t n)
{
    double diff = 0, norm = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) {
            return INFINITY;
        }
        diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

void rpt_assert_close(const char *name, const float *got, const float *want, size_t n, double tolerance)
{
    const double error = rpt_rel_l2(got, want, n);

    if (getenv("RPT_VERBOSE") != NULL) {
        print_message("%s: relative L2 error %.3g (tolerance %.3g)\n", name, error, tolerance);
    }
    if (error > tolerance) {
        size_t worst = 0;
        for (size_t i = 0; i < n; i++) {
            if (!(fabsf(got[i] - want[i]) <= fabsf(got[worst] - want[worst]))) {
                worst = i;
            }
        }
        fail_msg("%s: relative L2 error %.3g > %.3g; worst [%zu] got %.9g, want %.9g", name, error,
                 tolerance, worst, (double)got[worst], (double)want[worst]);
    }
}

void rpt_fill(float *out, size_t n, unsigned seed)
{
    uint64_t s = seed * 0x9E3779B97F4A7C15ull + 1;

    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            s = s * 6364136223846793005ull + 1442695040888963407ull;
            sum += (float)(s >> 40) / 16777216.0f - 0.5f;
        }
        out[i] = sum * 1.7320508f;
    }
}

char *rpt_mkdir(void)
{
    const char *tmp = getenv("TMPDIR");
    char name[512];

    (void)snprintf(name, sizeof(name), "%s/rankpool-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(name));
    return strdup(name);
}

void rpt_rmdir(char *dir)
{
    char command[600];

    if (dir != NULL) {
        (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
        assert_int_equal(system(command), 0);
        free(dir);
    }
}

static void collect(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)snprintf(g_last, sizeof(g_last), "%s", line);
}

void rpt_log_collect(void)
{
    rp_set_log(collect, NULL);
}

const char *rpt_log_last(void)
{
    return g_last;
}

void rpt_log_clear(void)
{
    g_last[0] = '\0';
}
