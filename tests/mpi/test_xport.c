/* test_xport.c - what every transport must do: each row of rp_xport_list, with any number of ranks.
 */
#include "mpi_test.h"

#include "base/clock.h"
#include "xport/xport.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_XFERS = 64, N_GROUPS = 40 };
#define GUARD 64

static rp_ctrl *g_ctrl;

/* Deterministic sizes: both ends work out the same list without a word. */
static size_t size_of(int group, int peer, int k)
{
    static const size_t sizes[] = {1, 3u << 20, 17, 4096, 65536, 5, 300001, 64, 1u << 20, 2};

    return sizes[(size_t)(group * 7 + peer * 3 + k) % (sizeof(sizes) / sizeof(sizes[0]))];
}

/* 0 to 3 transfers a rank; some ranks are skipped in some groups. */
static int n_for(int group, int peer)
{
    return (group + 2 * peer) % 4;
}

static unsigned char pattern(int group, int peer, int k, size_t i, bool to_peer)
{
    return (unsigned char)(i * 31 + i / 251 + (size_t)(group * 101 + peer * 57 + k * 13 + to_peer));
}

static void fill(unsigned char *bytes, size_t n, int group, int peer, int k, bool to_peer)
{
    for (size_t i = 0; i < n; i++) {
        bytes[i] = pattern(group, peer, k, i, to_peer);
    }
}

static bool matches(const unsigned char *bytes, size_t n, int group, int peer, int k, bool to_peer)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != pattern(group, peer, k, i, to_peer)) {
            return false;
        }
    }
    for (size_t i = n; i < n + GUARD; i++) { /* nothing is written behind the end */
        if (bytes[i] != 0xA5) {
            return false;
        }
    }
    return true;
}

typedef struct {
    rp_xfer xfers[MAX_XFERS];
    int peer[MAX_XFERS], k[MAX_XFERS];
    int n;
} xfer_list;

/* This rank's transfers of a group in one direction. */
static void build(xfer_list *list, int group, bool to_peer)
{
    const int rank = rp_ctrl_rank(g_ctrl), n_ranks = rp_ctrl_n_ranks(g_ctrl);

    list->n = 0;
    for (int peer = 1; peer < n_ranks; peer++) {
        if (rank != 0 && rank != peer) {
            continue;
        }
        for (int k = 0; k < n_for(group, peer); k++) {
            const size_t n = size_of(group, peer, k);
            const bool sends = (rank == 0) == to_peer;
            unsigned char *b = malloc(n + GUARD);
            memset(b, 0xA5, n + GUARD);
            if (sends) {
                fill(b, n, group, peer, k, to_peer);
            }
            list->xfers[list->n] = (rp_xfer){rank == 0 ? peer : 0, sends, b, n};
            list->peer[list->n] = peer;
            list->k[list->n++] = k;
        }
    }
}

static bool check_and_free(xfer_list *list, int group, bool to_peer)
{
    bool ok = true;

    for (int i = 0; i < list->n; i++) {
        const rp_xfer *x = &list->xfers[i];
        ok = ok && matches(x->bytes, x->n_bytes, group, list->peer[i], list->k[i], to_peer);
        free(x->bytes);
    }
    return ok;
}

static bool finish_polling(const rp_xport_ops *ops, void *self)
{
    bool done = false;

    for (int i = 0; i < 1000000 && !done; i++) {
        if (ops->finish(self, false, &done) != RP_OK) {
            return false;
        }
        if (!done) {
            rp_clock_sleep_us(20);
        }
    }
    return done;
}

static bool one_group(const rp_xport_ops *ops, void *self, int group, bool to_peer)
{
    static xfer_list list;
    bool done = false;
    bool ok = true;

    build(&list, group, to_peer);
    ok = ops->start(self, list.xfers, list.n) == RP_OK && ok;
    if (group % 3 == 0) {
        ok = finish_polling(ops, self) && ok;
    } else {
        ok = ops->finish(self, true, &done) == RP_OK && done && ok;
    }
    return check_and_free(&list, group, to_peer) && ok;
}

static void *open_row(const rp_xport_ops *ops)
{
    void *self = NULL;
    const bool ok = ops->open(g_ctrl, &self) == RP_OK;

    mpt_assert_all(ok);
    return self;
}

#define FOR_EACH_ROW(ops)                                                                          \
    for (int row = 0; rp_xport_list[row] != NULL; row++)                                           \
        for (const rp_xport_ops *ops = rp_xport_list[row]; ops != NULL && ops->usable(g_ctrl);     \
             ops = NULL)

static void every_slot_of_every_row_is_filled(void **state)
{
    (void)state;
    for (int i = 0; rp_xport_list[i] != NULL; i++) {
        const rp_xport_ops *ops = rp_xport_list[i];
        assert_true(ops->name != NULL && ops->help != NULL && ops->usable != NULL &&
                    ops->open != NULL);
        assert_true(ops->start != NULL && ops->finish != NULL && ops->reserve != NULL);
        assert_non_null(ops->close);
    }
}

static void bytes_arrive_out_and_back_in_many_groups(void **state)
{
    (void)state;
    FOR_EACH_ROW(ops)
    {
        void *self = open_row(ops);
        bool ok = ops->reserve(self, MAX_XFERS) == RP_OK;
        for (int group = 0; group < N_GROUPS; group++) {
            ok = one_group(ops, self, group, true) && ok;
            ok = one_group(ops, self, group, false) && ok;
        }
        mpt_assert_all(ok);
        ops->close(self);
    }
}

/* Rank 0 can wait for outputs while it still works, and a rank sends when it likes. */
static void receives_may_be_posted_long_before_the_bytes_come(void **state)
{
    (void)state;
    FOR_EACH_ROW(ops)
    {
        void *self = open_row(ops);
        xfer_list list;
        bool done = false, ok = true;
        if (rp_ctrl_rank(g_ctrl) != 0) {
            rp_clock_sleep_us(20000);
        }
        build(&list, 3, false);
        ok = ops->start(self, list.xfers, list.n) == RP_OK;
        if (rp_ctrl_rank(g_ctrl) == 0) {
            ok = ops->finish(self, false, &done) == RP_OK && done == (list.n == 0) && ok;
        }
        ok = ops->finish(self, true, &done) == RP_OK && done && ok;
        ok = check_and_free(&list, 3, false) && ok;
        mpt_assert_all(ok);
        ops->close(self);
    }
}

static void an_empty_group_is_done_at_once(void **state)
{
    (void)state;
    FOR_EACH_ROW(ops)
    {
        void *self = open_row(ops);
        bool done = false;
        bool ok = ops->start(self, NULL, 0) == RP_OK;
        ok = ops->finish(self, false, &done) == RP_OK && done && ok;
        mpt_assert_all(ok);
        ops->close(self);
    }
}

static void bad_transfers_are_refused_and_leave_the_transport_usable(void **state)
{
    (void)state;
    rpt_log_collect();
    FOR_EACH_ROW(ops)
    {
        const int n_ranks = rp_ctrl_n_ranks(g_ctrl), peer = rp_ctrl_rank(g_ctrl) == 0 ? 1 : 0;
        void *self = open_row(ops);
        char byte = 0;
        const rp_xfer bad[] = {{n_ranks, true, &byte, 1},
                               {-1, true, &byte, 1},
                               {rp_ctrl_rank(g_ctrl), true, &byte, 1},
                               {peer, true, NULL, 1},
                               {peer, true, &byte, 0}};
        bool ok = true;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            ok = ops->start(self, &bad[i], 1) == RP_E_ARG && ok;
        }
        ok = one_group(ops, self, 1, true) && ok;
        mpt_assert_all(ok);
        ops->close(self);
    }
    rp_set_log(NULL, NULL);
}

/* Both ends list the same sizes; when they do not, the receiver says so instead of going on. */
static void a_message_of_another_size_is_an_error(void **state)
{
    (void)state;
    if (rp_ctrl_n_ranks(g_ctrl) < 2) {
        skip();
    }
    rpt_log_collect();
    FOR_EACH_ROW(ops)
    {
        static const size_t sent[] = {10, 30};
        void *self = open_row(ops);
        char bytes[64] = {0};
        bool ok = true;
        for (int i = 0; i < 2; i++) {
            bool done = false;
            if (rp_ctrl_rank(g_ctrl) == 0) {
                const rp_xfer x = {1, true, bytes, sent[i]};
                ok = ops->start(self, &x, 1) == RP_OK && ok;
                ok = ops->finish(self, true, &done) == RP_OK && ok;
            } else if (rp_ctrl_rank(g_ctrl) == 1) {
                const rp_xfer x = {0, false, bytes, 20};
                ok = ops->start(self, &x, 1) == RP_OK && ok;
                ok = ops->finish(self, true, &done) == RP_E_MPI && ok;
            }
        }
        ok = one_group(ops, self, 2, true) && ok;
        mpt_assert_all(ok);
        ops->close(self);
    }
    rp_set_log(NULL, NULL);
}

static void choose_takes_names_and_says_what_there_is(void **state)
{
    (void)state;
    const rp_xport_ops *ops = NULL;
    const bool one = rp_ctrl_n_ranks(g_ctrl) == 1;

    rpt_log_collect();
    assert_int_equal(rp_xport_choose("auto", g_ctrl, &ops), RP_OK);
    assert_string_equal(ops->name, one ? "local" : "mpi");
    assert_int_equal(rp_xport_choose("mpi", g_ctrl, &ops), RP_OK);
    assert_string_equal(ops->name, "mpi");
    ops = NULL;
    assert_int_equal(rp_xport_choose("pigeon", g_ctrl, &ops), RP_E_ARG);
    assert_null(ops);
    if (rp_ctrl_rank(g_ctrl) == 0) {
        assert_string_equal(rpt_log_last(),
                            "no transport \"pigeon\" in this build; it has auto, local, mpi");
    }
    assert_int_equal(rp_xport_choose("local", g_ctrl, &ops), one ? RP_OK : RP_E_UNSUP);
    rp_set_log(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_of_every_row_is_filled),
        cmocka_unit_test(bytes_arrive_out_and_back_in_many_groups),
        cmocka_unit_test(receives_may_be_posted_long_before_the_bytes_come),
        cmocka_unit_test(an_empty_group_is_done_at_once),
        cmocka_unit_test(bad_transfers_are_refused_and_leave_the_transport_usable),
        cmocka_unit_test(a_message_of_another_size_is_an_error),
        cmocka_unit_test(choose_takes_names_and_says_what_there_is),
    };

    if (rp_ctrl_open(true, &g_ctrl) != RP_OK) {
        return 1;
    }
    const int failed = cmocka_run_group_tests_name("xport", tests, NULL, NULL);
    rp_ctrl_close(g_ctrl);
    return failed;
}
