/* test_pool.c - waves over ranks: same outputs for any number of them, one failure on all alike. */
#include "mpi_test.h"

#include "base/clock.h"
#include "base/log.h"
#include "pool/pool.h"
#include "pool/pool_speed.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_UNITS = 12, MAX_INPUTS = 4, IN_ELEMS = 5000, OUT_ELEMS = 4000, MSG_STOP = 2 };

static rp_ctrl *g_ctrl;
static int g_rank, g_n;

/* ---------------------------------------------------------------- counting allocations of our own
 * code */

extern char __executable_start, etext;
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *mem, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
static volatile int g_count, g_n_mallocs;

#ifndef RP_SANITIZED
/* MPI allocates as it likes; what counts is what this program (library code included) asks for. */
static void count_call(const char *caller)
{
    if (g_count && caller >= &__executable_start && caller < &etext) {
        g_n_mallocs++;
    }
}

#define REPLACED __attribute__((noinline, visibility("default")))

REPLACED void *malloc(size_t n)
{
    count_call(__builtin_return_address(0));
    return __libc_malloc(n);
}

REPLACED void *calloc(size_t n, size_t each)
{
    count_call(__builtin_return_address(0));
    return __libc_calloc(n, each);
}

REPLACED void *realloc(void *mem, size_t n)
{
    count_call(__builtin_return_address(0));
    return __libc_realloc(mem, n);
}

REPLACED void *aligned_alloc(size_t align, size_t n)
{
    count_call(__builtin_return_address(0));
    return __libc_memalign(align, n);
}
#endif

/* ---------------------------------------------------------------------------------------- a small
 * model */

static int g_fail_cond = -1, g_fail_eval = -1, g_fail_silently;
static unsigned g_busy_us, g_busy_us_decode; /* of a unit */

static void predict(const float *in, int cond, int eval, float *out)
{
    for (int i = 0; i < OUT_ELEMS; i++) {
        out[i] = in[i] * (float)(cond + 1) + in[IN_ELEMS - 1 - i] / (float)(eval + 3);
    }
}

static rp_status eval_unit(void *arg, const rp_unit *unit, int eval, const void *in, void *out)
{
    if (arg != &g_ctrl) {
        return RP_FAIL(RP_E_ARG, "wrong argument");
    }
    if (unit->cond == g_fail_cond && eval == g_fail_eval) {
        return g_fail_silently ? RP_E_MODEL
                               : RP_FAIL(RP_E_MODEL, "prediction is not finite at element %d", 17);
    }
    const unsigned busy_us = eval == RP_EVAL_DECODE ? g_busy_us_decode : g_busy_us;
    if (busy_us != 0) {
        rp_clock_sleep_us(busy_us);
    }
    predict(in, unit->cond, eval, out);
    return RP_OK;
}

static int g_n_slots;

static rp_status slot_alloc(void *self, size_t n_bytes, const char *what, void **out)
{
    (void)self;
    (void)what;
    *out = malloc(n_bytes);
    g_n_slots++;
    return *out != NULL ? RP_OK : RP_E_NOMEM;
}

static void slot_release(void *self, void *mem)
{
    (void)self;
    free(mem);
    g_n_slots--;
}

static rp_pool *open_pool(void)
{
    rp_pool_params params = {.ctrl = g_ctrl, .eval = eval_unit, .arg = &g_ctrl};
    rp_pool *pool = NULL;

    params.memory = (rp_pool_memory){slot_alloc, slot_release, NULL};
    if (rp_xport_choose("auto", g_ctrl, false, &params.xport) != RP_OK ||
        rp_pool_open(&params, &pool) != RP_OK) {
        return NULL;
    }
    return pool;
}

/* ----------------------------------------------------------------------------------- serving and
 * waves */

/* Ranks > 0: serve until rank 0 says stop. */
static rp_status serve(rp_pool *pool)
{
    static unsigned char message[RP_CTRL_MESSAGE_BYTES];

    for (;;) {
        size_t n = 0;
        int32_t kind = 0;
        if (rp_ctrl_recv(g_ctrl, message, sizeof(message), &n) != RP_OK || n < sizeof(kind)) {
            return RP_E_MPI;
        }
        memcpy(&kind, message, sizeof(kind));
        if (kind == MSG_STOP) {
            return RP_OK;
        }
        const rp_status st = rp_pool_serve_wave(pool, message, n);
        if (st != RP_OK) {
            return st;
        }
    }
}

static void stop_serving(void)
{
    const int32_t kind = MSG_STOP;

    for (int r = 1; r < g_n; r++) {
        (void)rp_ctrl_send(g_ctrl, r, &kind, sizeof(kind));
    }
}

static float g_in[MAX_INPUTS][IN_ELEMS], g_out[MAX_UNITS][OUT_ELEMS];

/* n units over n_inputs images, in an order that is not that of the images. */
static void make_units(rp_unit *units, int n, int n_inputs)
{
    for (int i = 0; i < n; i++) {
        units[i] =
            (rp_unit){.input = (i * 3 + 1) % n_inputs, .cond = i, .cost = 1.0f + (float)(i % 3)};
    }
}

/* Rank 0: one wave whose outputs are right to the last bit. */
static bool right_wave(rp_pool *pool, int n, int n_inputs, int eval)
{
    static float want[OUT_ELEMS];
    rp_unit units[MAX_UNITS] = {0};

    make_units(units, n, n_inputs);
    memset(g_out, 0, sizeof(g_out));
    if (rp_pool_eval(pool, eval, eval, units, n, g_in, g_out) != RP_OK) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        predict(g_in[units[i].input], units[i].cond, eval, want);
        if (memcmp(want, g_out[i], sizeof(want)) != 0) {
            return false;
        }
    }
    for (size_t i = (size_t)n * OUT_ELEMS; i < (size_t)MAX_UNITS * OUT_ELEMS; i++) {
        if ((&g_out[0][0])[i] != 0) {
            return false; /* written behind the last output */
        }
    }
    return true;
}

static bool plan(rp_pool *pool, int n, int n_inputs)
{
    return rp_pool_plan(pool, n, n_inputs, sizeof(g_in[0]), sizeof(g_out[0])) == RP_OK;
}

static void outputs_are_the_same_whatever_rank_made_them(void **state)
{
    (void)state;
    rp_pool *pool = open_pool();
    bool ok = pool != NULL;

    mpt_assert_all(ok);
    for (int n_inputs = 1; n_inputs <= MAX_INPUTS; n_inputs++) {
        ok = plan(pool, MAX_UNITS, n_inputs) && ok;
        mpt_assert_all(ok);
        if (g_rank == 0) {
            for (int n = 0; n <= MAX_UNITS; n++) { /* n < ranks: some are idle */
                ok = right_wave(pool, n, n_inputs, 10 * n_inputs + n) && ok;
            }
            stop_serving();
        } else {
            ok = serve(pool) == RP_OK && ok;
        }
    }
    rp_pool_close(pool);
    mpt_assert_all(ok && g_n_slots == 0);
}

static char g_lines[4][RP_LOG_LINE_BYTES];
static int g_n_lines;

static void keep_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    if (g_n_lines < 4) {
        (void)snprintf(g_lines[g_n_lines], sizeof(g_lines[0]), "%s", line);
    }
    g_n_lines++;
}

static bool one_line(int rank, int step, int unit, int image, const char *text)
{
    char want[RP_LOG_LINE_BYTES];

    (void)snprintf(want, sizeof(want),
                   "rank %d on host %s: step %d, unit %d (image %d, condition %d): %s", rank,
                   rp_ctrl_host(g_ctrl, rank), step, unit, image, unit, text);
    const bool ok = g_n_lines == 1 && strcmp(g_lines[0], want) == 0;
    if (!ok) {
        print_message("%d lines, got \"%s\", want \"%s\"\n", g_n_lines, g_lines[0], want);
    }
    return ok;
}

/* Unit u of equal cost runs on rank u % n: fail there, at one step of three. */
static bool fail_at(rp_pool *pool, int u, bool silently)
{
    static const char *const text = "prediction is not finite at element 17";
    rp_unit units[MAX_UNITS];
    bool ok = true;

    for (int i = 0; i < MAX_UNITS; i++) {
        units[i] = (rp_unit){.input = i % 2, .cond = i, .cost = 1.0f};
    }
    for (int step = 0; step < 3 && g_rank == 0; step++) {
        g_n_lines = 0;
        const rp_status st = rp_pool_eval(pool, step + 4, step, units, MAX_UNITS, g_in, g_out);
        if (step != g_fail_eval) {
            ok = st == RP_OK && g_n_lines == 0 && ok;
        } else {
            ok = st == RP_E_MODEL &&
                 one_line(u % g_n, step + 4, u, u % 2,
                          silently ? rp_status_text(RP_E_MODEL) : text) &&
                 ok;
        }
    }
    if (g_rank == 0) {
        stop_serving();
    } else {
        ok = serve(pool) == RP_OK && g_n_lines == 0 && ok;
    }
    return ok;
}

static void a_failed_unit_is_told_once_with_host_rank_step_and_unit(void **state)
{
    (void)state;
    rp_pool *pool = open_pool();
    bool ok = pool != NULL && plan(pool, MAX_UNITS, 2);

    mpt_assert_all(ok);
    rp_set_log(keep_line, NULL);
    g_fail_eval = 1;
    for (int u = 0; u < MAX_UNITS; u++) {
        g_n_lines = 0;
        g_fail_cond = u;
        g_fail_silently = u == 1;
        ok = fail_at(pool, u, g_fail_silently) && ok;
    }
    g_fail_cond = -1;
    rp_set_log(NULL, NULL);
    /* what rank 0 has returned is agreed on by the job; all leave with it and nothing is said twice
     */
    ok = rp_ctrl_agree(g_ctrl, g_rank == 0 ? RP_E_MODEL : RP_OK, "sampling") == RP_E_MODEL && ok;
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

static void a_failed_decode_is_told_by_its_image(void **state)
{
    (void)state;
    rp_pool *pool = open_pool();
    const int last = g_n - 1; /* rank, and the image that it gets */
    bool ok = pool != NULL && plan(pool, MAX_UNITS, MAX_INPUTS);
    char want[RP_LOG_LINE_BYTES];

    mpt_assert_all(ok);
    (void)snprintf(want, sizeof(want),
                   "rank %d on host %s: decoding image %d: prediction is not finite at element 17",
                   last, rp_ctrl_host(g_ctrl, last), last);
    g_n_lines = 0;
    g_fail_silently = 0;
    g_fail_cond = last;
    g_fail_eval = RP_EVAL_DECODE;
    rp_set_log(keep_line, NULL);
    if (g_rank == 0) {
        rp_unit units[MAX_INPUTS];
        for (int i = 0; i < MAX_INPUTS; i++) {
            units[i] = (rp_unit){.input = i, .cond = i, .cost = 1};
        }
        ok = rp_pool_eval(pool, -1, RP_EVAL_DECODE, units, MAX_INPUTS, g_in, g_out) == RP_E_MODEL &&
             g_n_lines == 1 && strcmp(g_lines[0], want) == 0;
        stop_serving();
    } else {
        ok = serve(pool) == RP_OK && g_n_lines == 0;
    }
    rp_set_log(NULL, NULL);
    g_fail_cond = -1;
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

/* All fail: the line is about the first unit, whichever rank had it. */
static rp_status always_fails(void *arg, const rp_unit *unit, int eval, const void *in, void *out)
{
    (void)arg;
    (void)eval;
    (void)in;
    (void)out;
    return RP_FAIL(RP_E_NOMEM, "no memory for condition %d", (int)unit->cond);
}

static void of_several_failures_the_first_unit_is_told(void **state)
{
    (void)state;
    rp_pool_params params = {.ctrl = g_ctrl, .eval = always_fails, .arg = NULL};
    rp_pool *pool = NULL;
    bool ok = true;

    params.memory = (rp_pool_memory){slot_alloc, slot_release, NULL};
    ok = rp_xport_choose("auto", g_ctrl, false, &params.xport) == RP_OK &&
         rp_pool_open(&params, &pool) == RP_OK;
    ok = ok && plan(pool, 4, 1);
    mpt_assert_all(ok);
    g_n_lines = 0;
    rp_set_log(keep_line, NULL);
    if (g_rank == 0) {
        /* the longest is placed first, on rank 0; so unit 0 is on the last rank of the first round
         */
        rp_unit units[4];
        for (int i = 0; i < 4; i++) {
            units[i] = (rp_unit){.input = 0, .cond = i, .cost = (float)(i + 1)};
        }
        int rank_of[4];
        rp_pool_assign(units, 4, NULL, g_n, rank_of);
        ok = rp_pool_eval(pool, 7, 0, units, 4, g_in, g_out) == RP_E_NOMEM;
        ok = one_line(rank_of[0], 7, 0, 0, "no memory for condition 0") && ok;
        stop_serving();
    } else {
        ok = serve(pool) == RP_OK && g_n_lines == 0;
    }
    rp_set_log(NULL, NULL);
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

static void waves_allocate_nothing(void **state)
{
    (void)state;
    rp_pool *pool = open_pool();
    bool ok = pool != NULL && plan(pool, MAX_UNITS, MAX_INPUTS);

    mpt_assert_all(ok);
    g_n_mallocs = 0;
    g_count = 1;
    if (g_rank == 0) {
        for (int n = 1; n <= MAX_UNITS; n++) {
            ok = right_wave(pool, n, MAX_INPUTS, n) && ok;
        }
        stop_serving();
    } else {
        ok = serve(pool) == RP_OK && ok;
    }
    g_count = 0;
    ok = g_n_mallocs == 0 && ok;
#ifndef RP_SANITIZED
    g_count = 1; /* and the count does count */
    void *volatile mem = malloc(1);
    g_count = 0;
    free(mem);
    ok = g_n_mallocs > 0 && ok;
#endif
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

static void stats_add_up(void **state)
{
    (void)state;
    enum { WAVES = 5, US = 2000 };
    rp_pool *pool = open_pool();
    bool ok = pool != NULL && plan(pool, MAX_UNITS, MAX_INPUTS);
    rp_rank_stats stats[16];

    mpt_assert_all(ok && g_n <= 16);
    g_busy_us = US;
    const double start = rp_clock_now();
    if (g_rank == 0) {
        int64_t n_units = 0;
        for (int i = 0; i < WAVES; i++) {
            ok = right_wave(pool, MAX_UNITS, MAX_INPUTS, i) && ok;
        }
        const double all = rp_clock_now() - start;
        stop_serving();
        rp_pool_stats(pool, stats);
        for (int r = 0; r < g_n; r++) {
            const double sum = stats[r].busy_s + stats[r].wire_s + stats[r].idle_s;
            print_message(
                "%d ranks, rank %d: %2d units, busy %.1f, wire %.2f, idle %.1f of %.1f ms\n", g_n,
                r, (int)stats[r].n_units, stats[r].busy_s * 1e3, stats[r].wire_s * 1e3,
                stats[r].idle_s * 1e3, all * 1e3);
            n_units += stats[r].n_units;
            ok = stats[r].busy_s >= (double)stats[r].n_units * US * 1e-6 && ok;
            ok = stats[r].wire_s >= 0 && stats[r].idle_s >= 0 && ok;
            ok = sum <= all + 2e-3 && sum >= 0.8 * all && ok;
        }
        ok = n_units == WAVES * MAX_UNITS && ok;
    } else {
        ok = serve(pool) == RP_OK && ok;
    }
    g_busy_us = 0;
    ok = plan(pool, 1, 1) && ok; /* counts begin anew; a rank without units was idle all along */
    mpt_assert_all(ok);
    if (g_rank == 0) {
        ok = right_wave(pool, 1, 1, 0);
        stop_serving();
        rp_pool_stats(pool, stats);
        int n_units = 0; /* which rank has it depends on how fast they were before */
        for (int r = 0; r < g_n; r++) {
            n_units += (int)stats[r].n_units;
            ok = (stats[r].n_units == 1 || (stats[r].busy_s < 1e-3 && stats[r].idle_s > 0)) && ok;
        }
        ok = n_units == 1 && ok;
    } else {
        ok = serve(pool) == RP_OK;
    }
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

/* The least that the slowest share can be, in units of time of a fast rank, by trying: rank 1 takes
 * two for a unit, the others one. */
static int best_makespan(int n_units, int n_ranks)
{
    for (int t = 1;; t++) {
        if (n_ranks * t - (n_ranks > 1 ? t - t / 2 : 0) >= n_units) {
            return t;
        }
    }
}

/* Rank 0: one wave of equal units with the right outputs; how long the slowest share was. */
static int wave_makespan(rp_pool *pool, int eval, bool *ok)
{
    static float want[OUT_ELEMS];
    rp_unit units[MAX_UNITS];
    rp_rank_stats before[16], after[16];
    int longest = 0;

    for (int i = 0; i < MAX_UNITS; i++) {
        units[i] = (rp_unit){.input = i % MAX_INPUTS, .cond = i, .cost = 3.0f};
    }
    rp_pool_stats(pool, before);
    *ok = rp_pool_eval(pool, eval, eval, units, MAX_UNITS, g_in, g_out) == RP_OK && *ok;
    rp_pool_stats(pool, after);
    for (int i = 0; i < MAX_UNITS; i++) {
        predict(g_in[units[i].input], i, eval, want);
        *ok = memcmp(want, g_out[i], sizeof(want)) == 0 && *ok;
    }
    for (int r = 0; r < g_n; r++) {
        const int n = (int)(after[r].n_units - before[r].n_units) * (r == 1 ? 2 : 1);
        longest = n > longest ? n : longest;
    }
    return longest;
}

/* How the units are shared is looked at, not the clock: until it is right in three waves one after
 * the other. */
static void a_rank_half_as_fast_gets_half_as_much(void **state)
{
    (void)state;
    enum { WAVES = 60, US = 4000 };
    rp_pool *pool = open_pool();
    bool ok = pool != NULL && plan(pool, MAX_UNITS, MAX_INPUTS);
    rp_rank_stats stats[16];
    int first = 0, last = 0, n_right = 0, n_waves = 1;

    mpt_assert_all(ok && g_n <= 16);
    g_busy_us = g_rank == 1 ? 2 * US : US;
    if (g_rank == 0) {
        first = wave_makespan(pool, 0, &ok);
        for (; n_waves < WAVES && n_right < 3; n_waves++) {
            last = wave_makespan(pool, n_waves, &ok);
            n_right = last <= 1.1 * best_makespan(MAX_UNITS, g_n) ? n_right + 1 : 0;
        }
        stop_serving();
        rp_pool_stats(pool, stats);
        print_message("%d ranks: longest share %d, after %d waves %d; best %d\n", g_n, first,
                      n_waves, last, best_makespan(MAX_UNITS, g_n));
        ok = n_right == 3 && (g_n == 1 || first > last) && ok;
        ok = (stats[0].unit_s >= US * 1e-6 || g_n == 1) && ok; /* alone it is right at once */
    } else {
        ok = serve(pool) == RP_OK && ok;
    }
    g_busy_us = 0;
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

/* One wave of `n` equal units; the paces after it. */
static bool wave_of(rp_pool *pool, int eval, int n, rp_rank_stats *after)
{
    rp_unit units[MAX_UNITS];

    for (int i = 0; i < n; i++) {
        units[i] = (rp_unit){.input = i % MAX_INPUTS, .cond = i, .cost = 1.0f};
    }
    const bool ok = rp_pool_eval(pool, eval, eval, units, n, g_in, g_out) == RP_OK;
    rp_pool_stats(pool, after);
    return ok;
}

/* Units of a decode take ten times as long here, and a rank that has none of them is none the less
 * known. */
static void decoding_teaches_nothing_about_the_ranks(void **state)
{
    (void)state;
    enum { SAMPLED = 8, DECODED = RP_SPEED_FORGET + 1 };
    rp_pool *pool = open_pool();
    bool ok = pool != NULL && plan(pool, MAX_UNITS, MAX_INPUTS);
    rp_rank_stats before[16], after[16];

    mpt_assert_all(ok && g_n <= 16);
    g_busy_us = 500;
    g_busy_us_decode = 5000;
    if (g_rank == 0) {
        for (int i = 0; i < SAMPLED; i++) {
            ok = wave_of(pool, i, MAX_UNITS, before) && ok;
        }
        for (int i = 0; i < DECODED; i++) {
            ok = wave_of(pool, RP_EVAL_DECODE, i == 0 ? MAX_UNITS : 1, after) && ok;
        }
        for (int r = 0; r < g_n; r++) {
            ok = before[r].unit_s > 0 && after[r].unit_s == before[r].unit_s && ok;
        }
        ok = after[0].n_units > before[0].n_units && ok;
        stop_serving();
    } else {
        ok = serve(pool) == RP_OK && ok;
    }
    g_busy_us = g_busy_us_decode = 0;
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

static void bad_plans_and_waves_are_refused(void **state)
{
    (void)state;
    rp_pool *pool = open_pool();
    bool ok = pool != NULL;
    rp_unit units[3] = {{0, 0, 1.0f}, {0, 1, 1.0f}, {0, 2, 1.0f}};

    mpt_assert_all(ok);
    rp_set_log(keep_line, NULL);
    ok = rp_pool_plan(pool, 0, 1, 4, 4) == RP_E_ARG && rp_pool_plan(pool, 1, 0, 4, 4) == RP_E_ARG;
    ok = rp_pool_plan(pool, 1, 1, 0, 4) == RP_E_ARG && rp_pool_plan(pool, 1, 1, 4, 0) == RP_E_ARG &&
         ok;
    ok = rp_pool_plan(pool, 100000, 1, 4, 4) == RP_E_ARG && ok;
    ok = rp_pool_plan(pool, 2, 3, SIZE_MAX / 2, 4) == RP_E_NOMEM && ok;
    if (g_rank == 0) {
        ok = rp_pool_eval(pool, 0, 0, units, 1, g_in, g_out) == RP_E_ARG && ok; /* no plan */
    }
    ok = plan(pool, 2, 2) && ok;
    if (g_rank == 0) {
        ok = rp_pool_eval(pool, 0, 0, units, 3, g_in, g_out) == RP_E_ARG && ok;
        units[1].input = 2;
        ok = rp_pool_eval(pool, 0, 0, units, 2, g_in, g_out) == RP_E_ARG && ok;
        units[1].input = -1;
        ok = rp_pool_eval(pool, 0, 0, units, 2, g_in, g_out) == RP_E_ARG && ok;
        units[1] = (rp_unit){0, 0, 0.0f};
        ok = rp_pool_eval(pool, 0, 0, units, 2, g_in, g_out) == RP_E_ARG && ok;
        ok = right_wave(pool, 2, 2, 1) && ok; /* no rank heard of the bad ones */
        stop_serving();
    } else {
        const int32_t junk[64] = {RP_MSG_WAVE, 0, 0, 2, 2, 50};
        ok = rp_pool_eval(pool, 0, 0, units, 1, g_in, g_out) == RP_E_ARG && ok;
        ok = rp_pool_serve_wave(pool, junk, 4) == RP_E_MPI && ok;
        ok = rp_pool_serve_wave(pool, junk, sizeof(junk)) == RP_E_MPI && ok;
        ok = serve(pool) == RP_OK && ok;
        char text[8];
        rp_log_take(text, sizeof(text));
    }
    rp_set_log(NULL, NULL);
    rp_pool_close(pool);
    mpt_assert_all(ok);
}

/* 0 under the sanitizers, which count for themselves. */
static size_t bytes_in_use(void)
{
#ifdef RP_SANITIZED
    return 0;
#else
    return mallinfo2().uordblks;
#endif
}

/* The number that MPI gives to a new communicator: those of freed ones come again. */
static int next_handle(void)
{
    MPI_Comm comm = MPI_COMM_NULL;
    int handle = 0;

    if (g_n > 1 && MPI_Comm_dup(MPI_COMM_WORLD, &comm) == MPI_SUCCESS) {
        handle = MPI_Comm_c2f(comm);
        (void)MPI_Comm_free(&comm);
    }
    return handle;
}

static void opening_a_hundred_times_leaks_nothing(void **state)
{
    (void)state;
    int first_handle = 0;
    size_t first_bytes = 0;
    bool ok = true;

    for (int i = 0; i < 120; i++) {
        rp_pool *pool = open_pool();
        ok = pool != NULL && plan(pool, MAX_UNITS, MAX_INPUTS) && ok;
        rp_pool_close(pool);
        if (i == 19) { /* MPI's own tables have grown by now */
            first_handle = next_handle();
            first_bytes = bytes_in_use();
        }
    }
    const size_t more = bytes_in_use() > first_bytes ? bytes_in_use() - first_bytes : 0;
    if (more > 0) {
        print_message("rank %d: %zu bytes more after 100 pools\n", g_rank, more);
    }
    ok = next_handle() == first_handle && g_n_slots == 0 && ok;
    mpt_assert_all(ok && more < 20000); /* a pool's tables alone are over 1 KB */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_the_same_whatever_rank_made_them),
        cmocka_unit_test(a_failed_unit_is_told_once_with_host_rank_step_and_unit),
        cmocka_unit_test(a_failed_decode_is_told_by_its_image),
        cmocka_unit_test(of_several_failures_the_first_unit_is_told),
        cmocka_unit_test(waves_allocate_nothing),
        cmocka_unit_test(stats_add_up),
        cmocka_unit_test(a_rank_half_as_fast_gets_half_as_much),
        cmocka_unit_test(decoding_teaches_nothing_about_the_ranks),
        cmocka_unit_test(bad_plans_and_waves_are_refused),
        cmocka_unit_test(opening_a_hundred_times_leaks_nothing),
    };

    if (rp_ctrl_open(false, &g_ctrl) != RP_OK) {
        return 1;
    }
    g_rank = rp_ctrl_rank(g_ctrl);
    g_n = rp_ctrl_n_ranks(g_ctrl);
    rpt_fill(&g_in[0][0], (size_t)MAX_INPUTS * IN_ELEMS, 5);
    const int failed = cmocka_run_group_tests_name("pool", tests, NULL, NULL);
    rp_ctrl_close(g_ctrl);
    return failed;
}
