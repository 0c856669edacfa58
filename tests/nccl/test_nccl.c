/* test_nccl.c - what transport nccl does when NCCL is slow, fails or hangs: a stand-in plays NCCL.
 */
#include "mpi_test.h"

#include "base/clock.h"
#include "base/log.h"
#include "nccl_standin.h"
#include "xport/xport.h"
#include "xport/xport_nccl.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BYTES = 100000, MAX_RANKS = 8 };

extern const rp_xport_ops rp_xport_nccl;

static const rp_xport_ops *const ops = &rp_xport_nccl;
static rp_ctrl *g_ctrl;
static int g_rank, g_n;
static char *g_bytes[MAX_RANKS]; /* on the device; rank 0 uses one a rank, the others [0] */

static int start_test(void **state)
{
    char text[8];

    (void)state;
    nccl_standin_reset();
    rp_xport_nccl_limits(5, 5);
    rpt_log_collect();
    rpt_log_clear();
    rp_log_take(text, sizeof(text));
    for (int r = 0; r < g_n; r++) {
        (void)cudaMalloc((void **)&g_bytes[r], N_BYTES);
    }
    return 0;
}

static int end_test(void **state)
{
    (void)state;
    for (int r = 0; r < g_n; r++) {
        (void)cudaFree(g_bytes[r]);
    }
    rp_set_log(NULL, NULL);
    return 0;
}

/* Nothing is left, and no call came when it must not. */
static bool all_released(void)
{
    return g_nccl.n_comms == 0 && g_nccl.n_streams == 0 && g_nccl.n_events == 0 &&
           g_nccl.n_blocks == g_n && g_nccl.n_misuse == 0;
}

/* Rank 0's byte to all others (out), or one of each to rank 0. */
static rp_status begin_group(void *self, bool out)
{
    rp_xfer xfers[MAX_RANKS];
    const int n = g_rank == 0 ? g_n - 1 : 1;
    const bool send = (g_rank == 0) == out;

    for (int i = 0; i < n; i++) {
        memset(g_bytes[i], send ? 'a' + g_rank + i : 0, N_BYTES);
        xfers[i] = (rp_xfer){g_rank == 0 ? i + 1 : 0, send, g_bytes[i], N_BYTES};
    }
    return ops->start(self, xfers, n);
}

static bool group_came(bool out)
{
    char want[N_BYTES];
    bool ok = true;

    for (int i = 0; i < (g_rank == 0 ? g_n - 1 : 1); i++) {
        memset(want, out ? 'a' + g_rank - 1 : 'a' + i + 1, N_BYTES);
        ok = ok && ((g_rank == 0) == out || memcmp(g_bytes[i], want, N_BYTES) == 0);
    }
    return ok;
}

static rp_status run_group(void *self, bool out)
{
    bool done = false;
    rp_status st = begin_group(self, out);

    if (st == RP_OK) {
        st = ops->finish(self, true, &done);
    }
    return st != RP_OK ? st : done && group_came(out) ? RP_OK : RP_E_FORMAT;
}

/* What the user reads: the verdict of all ranks, its line on rank 0. */
static bool told(rp_status mine, rp_status want, const char *const *words)
{
    bool ok = rp_ctrl_agree(g_ctrl, mine, "testing") == want;

    for (int i = 0; words[i] != NULL && g_rank == 0; i++) {
        if (strstr(rpt_log_last(), words[i]) == NULL) {
            print_error("no \"%s\" in \"%s\"\n", words[i], rpt_log_last());
            ok = false;
        }
    }
    return ok;
}

static void *open_now(void)
{
    void *self = NULL;

    mpt_assert_all(ops->open(g_ctrl, &self) == RP_OK);
    return self;
}

/* ---- no failure */

static void calls_in_progress_are_polled_until_their_work_is_on_the_stream(void **state)
{
    (void)state;
    g_nccl.polls = 7;
    void *self = open_now();
    bool ok = g_nccl.blocking == 0;

    for (int i = 0; i < 4 && g_n > 1; i++) {
        ok = run_group(self, i % 2 == 0) == RP_OK && ok;
    }
    ok = ops->broadcast(self, g_bytes[0], N_BYTES, 0) == RP_OK && ok;
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_early == 0 && g_nccl.n_aborts == 0 && all_released());
}

/* A group that comes back is called twice, then launched; the bytes are today's. */
static void groups_that_repeat_are_launched_as_graphs(void **state)
{
    (void)state;
    g_nccl.polls = 3;
    void *self = open_now();
    const int before = g_nccl.n_launches;
    bool ok = true;

    for (int i = 0; i < 10 && g_n > 1; i++) {
        ok = run_group(self, i % 2 == 0) == RP_OK && ok;
    }
    ok = ok && g_nccl.n_launches - before == (g_n > 1 ? 8 : 0);
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_early == 0 && g_nccl.n_graphs == 0 && all_released());
}

/* More groups than are kept: the oldest graphs go, and all bytes come. */
static void the_oldest_graphs_make_room(void **state)
{
    (void)state;
    enum { SIZES = 20, ROUNDS = 4 };
    void *self = open_now();
    bool ok = true, done = false;

    for (int i = 0; i < SIZES * ROUNDS && g_n > 1 && ok; i++) {
        const size_t size = (size_t)(1 + (i < SIZES * 2 ? i % SIZES : i % 3)); /* then only three */
        rp_xfer xfers[MAX_RANKS];
        for (int r = 0; r < (g_rank == 0 ? g_n - 1 : 1); r++) {
            memset(g_bytes[r], g_rank == 0 ? i : -1, size);
            xfers[r] = (rp_xfer){g_rank == 0 ? r + 1 : 0, g_rank == 0, g_bytes[r], size};
        }
        ok = ops->start(self, xfers, g_rank == 0 ? g_n - 1 : 1) == RP_OK &&
             ops->finish(self, true, &done) == RP_OK && done && g_bytes[0][size - 1] == (char)i;
    }
    /* Of 20 in turns none is found again; of the last 40 groups each is called twice at most. */
    ok = ok && (g_n == 1 || g_nccl.n_launches >= SIZES * 2 - 3);
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_graphs == 0 && all_released());
}

static void without_graphs_all_groups_are_called(void **state)
{
    (void)state;
    rp_xport_nccl_graphs(false);
    void *self = open_now();
    bool ok = true;

    rp_xport_nccl_graphs(true);
    for (int i = 0; i < 8 && g_n > 1; i++) {
        ok = run_group(self, i % 2 == 0) == RP_OK && ok;
    }
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_launches == 0 && all_released());
}

static void groups_that_cannot_be_captured_are_called(void **state)
{
    (void)state;
    bool ok = true;

    for (int how = 1; how <= 2; how++) {
        g_nccl.no_capture = how;
        void *self = open_now();
        for (int i = 0; i < 8 && g_n > 1; i++) {
            ok = run_group(self, i % 2 == 0) == RP_OK && ok;
        }
        ok = cudaGetLastError() == cudaSuccess && ok;
        ops->close(self);
    }
    mpt_assert_all(ok && g_nccl.n_launches == 0 && g_nccl.n_graphs == 0 && all_released());
}

/* Graphs are launched by then. */
static void an_error_of_a_graph_ends_the_group_on_all_ranks(void **state)
{
    (void)state;
    static const char *const words[] = {"NCCL failed between rank ", NULL};
    void *self = open_now();
    rp_status st = RP_OK;

    for (int i = 0; i < 6 && g_n > 1 && st == RP_OK; i++) {
        st = run_group(self, i % 2 == 0);
    }
    g_nccl.fail_group = g_rank == g_n - 1 ? g_nccl.n_groups + 1 : 0;
    if (g_n > 1 && st == RP_OK) {
        st = run_group(self, true);
    }
    const bool ok = g_n == 1 || told(st, RP_E_CUDA, words);
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_graphs == 0 && all_released());
}

/* The deadline falls into the second call of a group, whose work is being captured. */
static void an_abort_ends_an_open_capture(void **state)
{
    (void)state;
    static const char *const words[] = {"NCCL failed between rank ", NULL};
    void *self = NULL;
    rp_status st = RP_OK;

    if (g_n < 2) {
        skip();
    }
    self = open_now();
    st = run_group(self, true);
    g_nccl.fail_group = g_rank == g_n - 1 ? g_nccl.n_groups + 1 : 0;
    if (st == RP_OK) {
        st = run_group(self, true);
    }
    const bool ok = told(st, RP_E_CUDA, words);
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_graphs == 0 && all_released());
}

/* The backend looks for failed launches of its own with cudaGetLastError. */
static void looking_leaves_no_error_behind(void **state)
{
    (void)state;
    void *self = open_now();
    bool ok = true, done = false;

    if (g_n > 1 && g_rank == 0) { /* the others are not there yet */
        ok = begin_group(self, false) == RP_OK && ops->finish(self, false, &done) == RP_OK && !done;
        ok = ops->finish(self, false, &done) == RP_OK && !done && ok;
    }
    ok = cudaGetLastError() == cudaSuccess && ok;
    ok = mpt_everywhere(ok);
    if (g_n > 1 && g_rank != 0) {
        ok = begin_group(self, false) == RP_OK && ok;
    }
    ok = ops->finish(self, true, &done) == RP_OK && done && ok;
    ok = cudaGetLastError() == cudaSuccess && ok;
    ops->close(self);
    mpt_assert_all(ok && all_released());
}

static void receives_alone_take_nothing_from_the_gpu_before_finish(void **state)
{
    (void)state;
    void *self = open_now();
    const int before = g_nccl.n_groups;
    bool ok = true, done = false;

    if (g_n > 1) {
        ok = begin_group(self, false) == RP_OK;
        ok = g_nccl.n_groups == before + (g_rank != 0) && ok;
        ok = ops->finish(self, true, &done) == RP_OK && done && group_came(false) && ok;
        ok = g_nccl.n_groups == before + 1 && ok;
    }
    ops->close(self);
    mpt_assert_all(ok && all_released());
}

/* ---- failures in a group */

/* One failed rank is enough: all leave soon, all abort once, then the transport only closes. */
static bool fails_everywhere(void *self, double least_s, double most_s, const char *const *words)
{
    const double start = rp_clock_now();
    const rp_status st = run_group(self, true);
    const double took = rp_clock_now() - start;
    bool done = false;
    bool ok = st != RP_OK && took >= least_s && took < most_s && g_nccl.n_aborts == 1;

    if (!ok) {
        print_error("rank %d: status %d after %.2f s, %d aborts\n", g_rank, (int)st, took,
                    g_nccl.n_aborts);
    }
    ok = told(st, RP_E_CUDA, words) && ok;
    ok = begin_group(self, true) == RP_E_CUDA && ok;
    ok = ops->finish(self, true, &done) == RP_E_CUDA && !done && ok;
    ok = ops->broadcast(self, g_bytes[0], 1, 0) == RP_E_CUDA && ok;
    ops->close(self);
    return ok && all_released();
}

static void an_asynchronous_error_ends_the_group_on_all_ranks(void **state)
{
    (void)state;
    if (g_n < 2) {
        skip();
    }
    for (int culprit = 0; culprit < g_n; culprit++) {
        char who[RP_CTRL_HOST_BYTES + 64];
        (void)snprintf(who, sizeof(who), "NCCL failed between rank %d on host %s and ", culprit,
                       rp_ctrl_host(g_ctrl, culprit));
        const char *const words[] = {who, culprit == 0 ? "1" : "rank 0 on host ",
                                     "unhandled system error: the network card is gone", NULL};
        nccl_standin_reset();
        void *self = open_now();
        g_nccl.fail_group = g_rank == culprit ? g_nccl.n_groups + 1 : 0;
        g_nccl.hang_group = g_rank == culprit ? 0 : g_nccl.n_groups + 1; /* hears no RST either */
        mpt_assert_all(fails_everywhere(self, 0, 4, words));
    }
}

static void a_group_that_hangs_ends_at_the_deadline(void **state)
{
    (void)state;
    const char *const words[] = {"NCCL failed between rank ", "no end after 1 s", NULL};

    if (g_n < 2) {
        skip();
    }
    rp_xport_nccl_limits(5, 1);
    void *self = open_now();
    g_nccl.hang_group = g_nccl.n_groups + 1;
    mpt_assert_all(fails_everywhere(self, 0.8, 4, words));
}

static void a_peer_that_does_not_come_ends_at_the_deadline(void **state)
{
    (void)state;
    const char *const words[] = {"no end after 1 s", NULL};
    bool ok = true;

    if (g_n < 2) {
        skip();
    }
    rp_xport_nccl_limits(5, 1);
    void *self = open_now();
    if (g_rank == g_n - 1) { /* never in the group; close finds out that all is given up */
        ok = told(RP_OK, RP_E_CUDA, words);
    } else { /* small sends may be over without the peer */
        const rp_status st = run_group(self, false);
        ok = g_rank == 0 ? st == RP_E_CUDA : st == RP_OK || st == RP_E_PEER;
        ok = told(st, RP_E_CUDA, words) && ok;
    }
    ops->close(self);
    mpt_assert_all(ok && g_nccl.n_aborts == 1 && all_released());
}

/* Rank 0 gathers when its own units are done, and others wait for it longer than for a network. */
static void outputs_wait_for_a_late_rank_0(void **state)
{
    (void)state;
    enum { LARGE = 30000000 }; /* what no buffer takes */
    rp_xfer xfers[MAX_RANKS];
    char *bytes[MAX_RANKS] = {NULL};
    const int n = g_rank == 0 ? g_n - 1 : 1;
    bool done = false;

    if (g_n < 2) {
        skip();
    }
    rp_xport_nccl_limits(5, 0.5);
    void *self = open_now();
    for (int i = 0; i < n; i++) {
        (void)cudaMalloc((void **)&bytes[i], LARGE);
        memset(bytes[i], 'a' + g_rank, LARGE);
        xfers[i] = (rp_xfer){g_rank == 0 ? i + 1 : 0, g_rank != 0, bytes[i], LARGE};
    }
    if (g_rank == 0) {
        rp_clock_sleep_us(1500000);
    }
    bool ok = ops->start(self, xfers, n) == RP_OK && ops->finish(self, true, &done) == RP_OK;
    for (int i = 0; i < n; i++) {
        ok = ok && bytes[i][LARGE - 1] == (g_rank == 0 ? 'a' + i + 1 : 'a' + g_rank);
        (void)cudaFree(bytes[i]);
    }
    ops->close(self);
    mpt_assert_all(ok && done && g_nccl.n_aborts == 0 && all_released());
}

static void an_abort_that_hangs_is_left_behind(void **state)
{
    (void)state;
    const char *const words[] = {NULL};

    if (g_n < 2) {
        skip();
    }
    rp_xport_nccl_limits(0.6, 0.5);
    void *self = open_now();
    g_nccl.hang_group = g_nccl.n_groups + 1;
    g_nccl.abort_s = 5;
    const double start = rp_clock_now();
    const rp_status st = run_group(self, true);
    bool ok = st != RP_OK && rp_clock_now() - start < 4;
    ok = told(st, RP_E_CUDA, words) && ok;
    ops->close(self);
    ok = mpt_everywhere(ok);
    rp_clock_sleep_us(5000000); /* the stand-in's memory is still used until then */
    assert_true(ok && g_nccl.n_comms == 0 && g_nccl.n_misuse == 0);
    nccl_standin_reset();
    g_nccl.n_streams = g_nccl.n_events = 0; /* left on purpose, with the 2 bytes for warming up */
    g_nccl.n_blocks = g_n;
}

/* ---- failures while opening */

static bool open_fails(double most_s, const char *const *words)
{
    void *self = NULL;
    const double start = rp_clock_now();
    const rp_status st = ops->open(g_ctrl, &self);
    const double took = rp_clock_now() - start;
    bool ok = st != RP_OK && self == NULL && took < most_s;

    if (!ok) {
        print_error("rank %d: open gives %d after %.2f s\n", g_rank, (int)st, took);
    }
    ok = told(st, RP_E_CUDA, words) && ok;
    return ok && all_released();
}

static void a_rank_that_cannot_connect_names_pair_interface_and_the_way_out(void **state)
{
    (void)state;
    for (int culprit = 0; culprit < g_n; culprit++) {
        char who[RP_CTRL_HOST_BYTES + 64];
        (void)snprintf(who, sizeof(who), "NCCL 2.28.9 cannot connect rank %d on host %s with ",
                       culprit, rp_ctrl_host(g_ctrl, culprit));
        const char *const words[] = {who,
                                     culprit > 0 ? "rank 0 on host " : " over",
                                     "interface lo (127.0.0.1)",
                                     "NCCL_SOCKET_IFNAME not set",
                                     "unhandled system error: no route to host",
                                     "--transport mpi",
                                     NULL};
        nccl_standin_reset();
        g_nccl.polls = 3;
        g_nccl.init_fails = g_rank == culprit ? ncclSystemError : ncclSuccess;
        mpt_assert_all(open_fails(4, words));
    }
}

static void an_interface_that_was_asked_for_is_named(void **state)
{
    (void)state;
    const char *const words[] = {"over no interface, NCCL_SOCKET_IFNAME eth77",
                                 "internal error: no socket interface found", "--transport mpi",
                                 NULL};

    (void)setenv("NCCL_SOCKET_IFNAME", "eth77", 1);
    g_nccl.id_fails = g_rank == 0 ? ncclInternalError : ncclSuccess;
    const bool ok = open_fails(4, words);
    (void)unsetenv("NCCL_SOCKET_IFNAME");
    mpt_assert_all(ok);
}

static void connecting_that_never_ends_is_given_up(void **state)
{
    (void)state;
    const char *const words[] = {"cannot connect rank ", "no end after 1 s", "--transport mpi",
                                 NULL};

    rp_xport_nccl_limits(1, 5);
    g_nccl.init_hangs = g_rank == g_n - 1;
    mpt_assert_all(open_fails(4, words));
}

static void a_pair_that_fails_in_warming_up_fails_all(void **state)
{
    (void)state;
    char who[2 * RP_CTRL_HOST_BYTES + 64];
    const int last = g_n - 1;
    const char *const words[] = {who, "the network card is gone", "--transport mpi", NULL};

    if (g_n < 2) {
        skip();
    }
    (void)snprintf(who, sizeof(who), "cannot connect rank %d on host %s with rank 0 on host %s",
                   last, rp_ctrl_host(g_ctrl, last), rp_ctrl_host(g_ctrl, 0));
    g_nccl.fail_group = g_rank == last ? 1 : 0;
    mpt_assert_all(open_fails(4, words));
}

/* After any of these a new transport opens and works. */
static void a_new_transport_works_after_a_failed_one(void **state)
{
    (void)state;
    const char *const words[] = {NULL};

    g_nccl.init_fails = g_rank == g_n - 1 ? ncclRemoteError : ncclSuccess;
    bool ok = open_fails(4, words);
    nccl_standin_reset();
    void *self = open_now();
    ok = (g_n == 1 || run_group(self, true) == RP_OK) && ok;
    ops->close(self);
    mpt_assert_all(ok && all_released());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start_test, end_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_in_progress_are_polled_until_their_work_is_on_the_stream),
        TEST(groups_that_repeat_are_launched_as_graphs),
        TEST(groups_that_cannot_be_captured_are_called),
        TEST(without_graphs_all_groups_are_called),
        TEST(the_oldest_graphs_make_room),
        TEST(an_error_of_a_graph_ends_the_group_on_all_ranks),
        TEST(an_abort_ends_an_open_capture),
        TEST(looking_leaves_no_error_behind),
        TEST(receives_alone_take_nothing_from_the_gpu_before_finish),
        TEST(an_asynchronous_error_ends_the_group_on_all_ranks),
        TEST(a_group_that_hangs_ends_at_the_deadline),
        TEST(a_peer_that_does_not_come_ends_at_the_deadline),
        TEST(outputs_wait_for_a_late_rank_0),
        TEST(a_rank_that_cannot_connect_names_pair_interface_and_the_way_out),
        TEST(an_interface_that_was_asked_for_is_named),
        TEST(connecting_that_never_ends_is_given_up),
        TEST(a_pair_that_fails_in_warming_up_fails_all),
        TEST(a_new_transport_works_after_a_failed_one),
        TEST(an_abort_that_hangs_is_left_behind),
    };

    if (rp_ctrl_open(true, &g_ctrl) != RP_OK) {
        return 1;
    }
    g_rank = rp_ctrl_rank(g_ctrl);
    g_n = rp_ctrl_n_ranks(g_ctrl);
    const int failed = cmocka_run_group_tests_name("nccl", tests, NULL, NULL);
    rp_ctrl_close(g_ctrl);
    return failed;
}
