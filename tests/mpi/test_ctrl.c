/* test_ctrl.c - control between ranks; one rank is the solo implementation, more are MPI's. */
#include "mpi_test.h"

#include "base/clock.h"
#include "base/log.h"
#include "ctrl/ctrl_wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static rp_ctrl *g_ctrl;
static int g_rank, g_n;

/* Every line that rank 0 prints during an agreement. */
static char g_lines[8][RP_LOG_LINE_BYTES];
static int g_n_lines;

static void keep_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    if (g_n_lines < 8) {
        (void)snprintf(g_lines[g_n_lines++], sizeof(g_lines[0]), "%s", line);
    }
}

static void collect(void)
{
    g_n_lines = 0;
    rp_set_log(keep_line, NULL);
}

static void places_are_as_the_launcher_gave_them(void **state)
{
    (void)state;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *n = getenv("OMPI_COMM_WORLD_SIZE");
    char host[RP_CTRL_HOST_BYTES] = "";
    bool ok = true;

    assert_int_equal(gethostname(host, sizeof(host) - 1), 0);
    ok = g_rank == (rank != NULL ? atoi(rank) : 0) && g_n == (n != NULL ? atoi(n) : 1);
    ok = ok && rp_ctrl_n_local(g_ctrl) == g_n && rp_ctrl_local_rank(g_ctrl) == g_rank;
    ok = ok && rp_ctrl_node(g_ctrl, 0) == rp_ctrl_node(g_ctrl, g_n - 1);
    for (int r = 0; r < g_n; r++) {
        ok = ok && strcmp(rp_ctrl_host(g_ctrl, r), host) == 0;
    }
    ok = ok && strcmp(rp_ctrl_kind(g_ctrl), g_n == 1 ? "solo" : "mpi") == 0;
    ok = ok && (rp_ctrl_native(g_ctrl) == NULL) == (g_n == 1);
    mpt_assert_all(ok);
}

static void one_rank_never_starts_mpi(void **state)
{
    (void)state;
    int running = 0;

    assert_int_equal(MPI_Initialized(&running), MPI_SUCCESS);
    assert_int_equal(running != 0, g_n > 1);
}

static void bcast_gather_and_allgather_keep_rank_order(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 4096, 300000};
    bool ok = true;

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        const size_t n = sizes[s];
        unsigned char *mine = malloc(n + 1), *all = malloc(n * (size_t)g_n + 1);
        memset(mine, g_rank == 0 ? 77 : 0, n);
        ok = rp_ctrl_bcast(g_ctrl, mine, n) == RP_OK && ok;
        for (size_t i = 0; i < n; i++) {
            ok = ok && mine[i] == 77;
        }
        for (int to_all = 0; to_all < 2; to_all++) {
            memset(mine, 10 + g_rank, n);
            memset(all, 0, n * (size_t)g_n);
            ok = (to_all ? rp_ctrl_allgather(g_ctrl, mine, n, all)
                         : rp_ctrl_gather(g_ctrl, mine, n, g_rank == 0 ? all : NULL)) == RP_OK &&
                 ok;
            for (size_t i = 0; (to_all || g_rank == 0) && i < n * (size_t)g_n; i++) {
                ok = ok && all[i] == 10 + i / n;
            }
        }
        free(mine);
        free(all);
    }
    mpt_assert_all(ok);
}

static void messages_and_replies_keep_their_order_and_size(void **state)
{
    (void)state;
    static unsigned char bytes[RP_CTRL_MESSAGE_BYTES];
    bool ok = true;

    for (int k = 0; k < 20 && g_n > 1; k++) {
        const size_t n = k == 19 ? RP_CTRL_MESSAGE_BYTES : (size_t)k * 500;
        if (g_rank == 0) {
            for (int r = 1; r < g_n; r++) {
                memset(bytes, k + r, n);
                ok = rp_ctrl_send(g_ctrl, r, bytes, n) == RP_OK && ok;
            }
            for (int r = g_n - 1; r > 0; r--) {
                int answer = 0;
                ok = rp_ctrl_wait_reply(g_ctrl, r, &answer, sizeof(answer)) == RP_OK && ok;
                ok = answer == k * 100 + r && ok;
            }
        } else {
            const int answer = k * 100 + g_rank;
            size_t got = 99;
            ok = rp_ctrl_recv(g_ctrl, bytes, sizeof(bytes), &got) == RP_OK && ok;
            ok = got == n && ok;
            for (size_t i = 0; i < n; i++) {
                ok = ok && bytes[i] == (unsigned char)(k + g_rank);
            }
            ok = rp_ctrl_reply(g_ctrl, &answer, sizeof(answer)) == RP_OK && ok;
        }
    }
    mpt_assert_all(ok);
}

static void bad_messages_are_refused(void **state)
{
    (void)state;
    char byte[8] = {0};
    size_t got = 0;
    bool ok = true;

    collect();
    ok = rp_ctrl_send(g_ctrl, g_n, byte, 1) == RP_E_ARG && ok;
    ok = rp_ctrl_send(g_ctrl, -1, byte, 1) == RP_E_ARG && ok;
    ok = rp_ctrl_send(g_ctrl, g_rank, byte, 1) == RP_E_ARG && ok;
    if (g_n > 1) {
        ok = rp_ctrl_send(g_ctrl, g_rank == 0 ? 1 : 0, byte, RP_CTRL_MESSAGE_BYTES + 1) ==
                 RP_E_ARG &&
             ok;
        if (g_rank == 0) { /* longer than the room there is: dropped, and the next one is whole */
            ok = rp_ctrl_send(g_ctrl, 1, "too long", 8) == RP_OK &&
                 rp_ctrl_send(g_ctrl, 1, "fits", 4) == RP_OK && ok;
            ok = rp_ctrl_wait_reply(g_ctrl, 1, byte, 8) == RP_E_MPI && ok; /* shorter than said */
        } else if (g_rank == 1) {
            ok = rp_ctrl_recv(g_ctrl, byte, 4, &got) == RP_E_MPI && ok;
            ok = rp_ctrl_recv(g_ctrl, byte, 4, &got) == RP_OK && got == 4 &&
                 memcmp(byte, "fits", 4) == 0 && ok;
            ok = rp_ctrl_reply(g_ctrl, byte, 4) == RP_OK && ok;
        }
    } else {
        ok = rp_ctrl_recv(g_ctrl, byte, 4, &got) == RP_E_ARG && ok;
    }
    mpt_assert_all(ok);
    rp_set_log(NULL, NULL);
    char text[8];
    rp_log_take(text, sizeof(text));
}

/* Ranks of the bits in `failing` fail with `text` (%d: their rank); all must leave with `want`. */
static bool agree(unsigned failing, const char *text, rp_status want)
{
    rp_status mine = RP_OK;

    collect();
    if (failing >> g_rank & 1) {
        mine = (rp_status)(RP_E_ARG - g_rank);
        if (strchr(text, '%') != NULL) {
            RP_ERROR("cannot open model %d", g_rank);
        } else if (text[0] != '\0') {
            RP_ERROR("%s", text);
        }
    }
    const bool ok = rp_ctrl_agree(g_ctrl, mine, "opening the model") == want;
    rp_set_log(NULL, NULL);
    return ok && (g_rank == 0 || g_n_lines == 0);
}

static bool printed(int i, int rank, const char *text)
{
    char want[RP_LOG_LINE_BYTES];

    if (rank == 0) {
        (void)snprintf(want, sizeof(want), "%s", text);
    } else {
        (void)snprintf(want, sizeof(want), "rank %d on host %s: opening the model: %s", rank,
                       rp_ctrl_host(g_ctrl, rank), text);
    }
    return g_rank != 0 || (i < g_n_lines && strcmp(g_lines[i], want) == 0);
}

static bool n_printed(int n)
{
    return g_rank != 0 || g_n_lines == n;
}

static void agreement_gives_all_ranks_the_status_of_the_lowest_that_failed(void **state)
{
    (void)state;
    const unsigned all = (1u << g_n) - 1;
    char text[64];
    bool ok = agree(0, "", RP_OK) && n_printed(0);

    for (int r = 0; r < g_n; r++) { /* one fails: one line, with its own text */
        (void)snprintf(text, sizeof(text), "cannot open model %d", r);
        ok = agree(1u << r, "%d", (rp_status)(RP_E_ARG - r)) && n_printed(1) &&
             printed(0, r, text) && ok;
    }
    /* all fail alike: one line, rank 0's own */
    ok =
        agree(all, "no such file", RP_E_ARG) && n_printed(1) && printed(0, 0, "no such file") && ok;
    /* all fail differently: a line each, in rank order */
    ok = agree(all, "%d", RP_E_ARG) && n_printed(g_n) && ok;
    (void)snprintf(text, sizeof(text), "cannot open model %d", g_n - 1);
    ok = printed(g_n - 1, g_n - 1, text) && ok;
    if (g_n > 2) { /* all but rank 0 fail alike: one line, of the lowest */
        ok = agree(all & ~1u, "no such file", (rp_status)(RP_E_ARG - 1)) && n_printed(1) && ok;
        ok = printed(0, 1, "no such file") && ok;
    }
    if (g_n > 1) { /* a failure that logged nothing still has a line */
        ok = agree(2, "", (rp_status)(RP_E_ARG - 1)) && n_printed(1) && ok;
        ok = printed(0, 1, rp_status_text((rp_status)(RP_E_ARG - 1))) && ok;
    }
    ok = agree(0, "", RP_OK) && n_printed(0) && ok;
    mpt_assert_all(ok);
}

/* Ranks that only know that another one failed do not drown the one that knows why. */
static void agreement_passes_over_ranks_that_only_know_of_a_peer(void **state)
{
    (void)state;
    const int last = g_n - 1;

    collect();
    if (g_rank == last) {
        RP_ERROR("no route to host");
    }
    bool ok =
        rp_ctrl_agree(g_ctrl, g_rank == last ? RP_E_IO : RP_E_PEER, "opening the model") == RP_E_IO;
    ok = n_printed(1) && printed(0, last, "no route to host") && ok;
    rp_set_log(NULL, NULL);
    mpt_assert_all(ok);
}

/* What was told once is not told again as the text of a later failure. */
static void an_old_error_is_not_the_text_of_a_new_one(void **state)
{
    (void)state;
    bool ok = agree(1u << (g_n - 1), "%d", (rp_status)(RP_E_ARG - g_n + 1));

    ok = agree(g_n > 1 ? 2 : 1, "", (rp_status)(g_n > 1 ? RP_E_ARG - 1 : RP_E_ARG)) && ok;
    if (g_n > 1) {
        ok = printed(0, 1, rp_status_text((rp_status)(RP_E_ARG - 1))) && ok;
    }
    mpt_assert_all(ok);
}

static double cpu_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void wait_half_a_second(bool own_cores)
{
    const double start = cpu_s();
    char byte = 0;
    bool ok = true;

    rp_ctrl_wait_own_cores(own_cores);
    if (g_rank == 0) {
        rp_clock_sleep_us(500000);
    }
    ok = rp_ctrl_bcast(g_ctrl, &byte, 1) == RP_OK;
    if (g_rank > 0) {
        const double used = cpu_s() - start;
        print_message("rank %d: %.1f ms of CPU in 500 ms of waiting%s\n", g_rank, used * 1e3,
                      own_cores ? " on cores of its own" : "");
        ok = used < 0.2 && ok; /* polling without sleep would take all 500 */
    }
    rp_ctrl_wait_own_cores(false);
    mpt_assert_all(ok);
}

/* A rank that waits must leave the core to one that works: well under a tenth of it. */
static void waiting_costs_little_cpu(void **state)
{
    (void)state;
    if (g_n == 1) {
        skip();
    }
    wait_half_a_second(false);
    wait_half_a_second(true);
}

static void opening_and_closing_again_works(void **state)
{
    (void)state;
    bool ok = true;

    for (int i = 0; i < 5; i++) { /* inside the first one, whose MPI stays up */
        rp_ctrl *second = NULL;
        ok = rp_ctrl_open(false, &second) == RP_OK && ok;
        ok = second != NULL && rp_ctrl_n_ranks(second) == g_n && ok;
        ok = rp_ctrl_agree(second, RP_OK, "testing") == RP_OK && ok;
        rp_ctrl_close(second);
    }
    rp_log_hold(g_rank > 0); /* closing the inner one let go of it */
    mpt_assert_all(ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_as_the_launcher_gave_them),
        cmocka_unit_test(one_rank_never_starts_mpi),
        cmocka_unit_test(bcast_gather_and_allgather_keep_rank_order),
        cmocka_unit_test(messages_and_replies_keep_their_order_and_size),
        cmocka_unit_test(bad_messages_are_refused),
        cmocka_unit_test(agreement_gives_all_ranks_the_status_of_the_lowest_that_failed),
        cmocka_unit_test(agreement_passes_over_ranks_that_only_know_of_a_peer),
        cmocka_unit_test(an_old_error_is_not_the_text_of_a_new_one),
        cmocka_unit_test(waiting_costs_little_cpu),
        cmocka_unit_test(opening_and_closing_again_works),
    };

    if (rp_ctrl_open(false, &g_ctrl) != RP_OK) {
        return 1;
    }
    g_rank = rp_ctrl_rank(g_ctrl);
    g_n = rp_ctrl_n_ranks(g_ctrl);
    const int failed = cmocka_run_group_tests_name("ctrl", tests, NULL, NULL);
    rp_ctrl_close(g_ctrl);
    return failed;
}
