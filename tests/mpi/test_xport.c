/* test_xport.c - what every transport must do: each row of rp_xport_list, with any number of ranks.
 */
#include "mpi_test.h"

#include "base/clock.h"
#include "xport/xport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef RP_HAVE_NCCL
#include <cuda_runtime_api.h>
#endif

enum { MAX_XFERS = 64, N_GROUPS = 40 };
#define GUARD 64

static rp_ctrl *g_ctrl;
static bool g_has_gpu;

/* ---- a row's kind of memory; without a GPU its rows are passed over */

#ifdef RP_HAVE_NCCL
/* More ranks than GPUs: NCCL takes them for ranks of several hosts, and goes over sockets. */
static void share_gpu(int rank)
{
    static const char *const env[][2] = {{"NCCL_NET", "Socket"},       {"NCCL_IB_DISABLE", "1"},
                                         {"NCCL_SOCKET_IFNAME", "lo"}, {"NCCL_P2P_DISABLE", "1"},
                                         {"NCCL_SHM_DISABLE", "1"},    {"NCCL_MNNVL_ENABLE", "0"},
                                         {"NCCL_MAX_CTAS", "2"},       {"NCCL_RAS_ENABLE", "0"}};
    char host[32];

    (void)snprintf(host, sizeof(host), "rank%d", rank);
    (void)setenv("NCCL_HOSTID", host, 0);
    for (size_t i = 0; i < sizeof(env) / sizeof(env[0]); i++) {
        (void)setenv(env[i][0], env[i][1], 0);
    }
}

static void find_gpu(void)
{
    int n = 0;

    g_has_gpu = cudaGetDeviceCount(&n) == cudaSuccess && n > 0 &&
                cudaSetDevice(rp_ctrl_local_rank(g_ctrl) % n) == cudaSuccess;
    if (g_has_gpu && n < rp_ctrl_n_local(g_ctrl)) {
        share_gpu(rp_ctrl_rank(g_ctrl));
    }
    g_has_gpu = mpt_everywhere(g_has_gpu);
}

static void *mem_new(const rp_xport_ops *ops, const void *host, size_t n)
{
    void *mem = NULL;

    if (ops->on_device) {
        assert_int_equal(cudaMalloc(&mem, n), cudaSuccess);
        assert_int_equal(cudaMemcpy(mem, host, n, cudaMemcpyHostToDevice), cudaSuccess);
    } else {
        mem = malloc(n);
        memcpy(mem, host, n);
    }
    return mem;
}

/* Contents to host, and gone. */
static void mem_take(const rp_xport_ops *ops, void *host, void *mem, size_t n)
{
    if (ops->on_device) {
        assert_int_equal(cudaMemcpy(host, mem, n, cudaMemcpyDeviceToHost), cudaSuccess);
        assert_int_equal(cudaFree(mem), cudaSuccess);
    } else {
        memcpy(host, mem, n);
        free(mem);
    }
}
#else
static void find_gpu(void)
{
}

static void *mem_new(const rp_xport_ops *ops, const void *host, size_t n)
{
    void *mem = malloc(n);

    (void)ops;
    memcpy(mem, host, n);
    return mem;
}

static void mem_take(const rp_xport_ops *ops, void *host, void *mem, size_t n)
{
    (void)ops;
    memcpy(host, mem, n);
    free(mem);
}
#endif

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
static void build(const rp_xport_ops *ops, xfer_list *list, int group, bool to_peer)
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
            list->xfers[list->n] =
                (rp_xfer){rank == 0 ? peer : 0, sends, mem_new(ops, b, n + GUARD), n};
            free(b);
            list->peer[list->n] = peer;
            list->k[list->n++] = k;
        }
    }
}

static bool check_and_free(const rp_xport_ops *ops, xfer_list *list, int group, bool to_peer)
{
    bool ok = true;

    for (int i = 0; i < list->n; i++) {
        const rp_xfer *x = &list->xfers[i];
        unsigned char *b = malloc(x->n_bytes + GUARD);
        mem_take(ops, b, x->bytes, x->n_bytes + GUARD);
        ok = ok && matches(b, x->n_bytes, group, list->peer[i], list->k[i], to_peer);
        free(b);
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

    build(ops, &list, group, to_peer);
    ok = ops->start(self, list.xfers, list.n) == RP_OK && ok;
    if (group % 3 == 0) {
        ok = finish_polling(ops, self) && ok;
    } else {
        ok = ops->finish(self, true, &done) == RP_OK && done && ok;
    }
    return check_and_free(ops, &list, group, to_peer) && ok;
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
        for (const rp_xport_ops *ops = rp_xport_list[row];                                         \
             ops != NULL && ops->usable(g_ctrl) && (g_has_gpu || !ops->on_device); ops = NULL)

static void every_slot_of_every_row_is_filled(void **state)
{
    (void)state;
    for (int i = 0; rp_xport_list[i] != NULL; i++) {
        const rp_xport_ops *ops = rp_xport_list[i];
        assert_true(ops->name != NULL && ops->help != NULL && ops->usable != NULL &&
                    ops->open != NULL);
        assert_true(ops->start != NULL && ops->finish != NULL && ops->reserve != NULL);
        assert_true(ops->broadcast != NULL && ops->close != NULL);
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
        build(ops, &list, 3, false);
        ok = ops->start(self, list.xfers, list.n) == RP_OK;
        if (rp_ctrl_rank(g_ctrl) == 0) {
            ok = ops->finish(self, false, &done) == RP_OK && done == (list.n == 0) && ok;
        }
        ok = ops->finish(self, true, &done) == RP_OK && done && ok;
        ok = check_and_free(ops, &list, 3, false) && ok;
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

static bool one_broadcast(const rp_xport_ops *ops, void *self, size_t n, int root)
{
    unsigned char *host = malloc(n + GUARD);

    memset(host, 0xA5, n + GUARD);
    if (rp_ctrl_rank(g_ctrl) == root) {
        fill(host, n, 5, root, 1, true);
    }
    void *mem = mem_new(ops, host, n + GUARD);
    const bool st_ok = ops->broadcast(self, mem, n, root) == RP_OK;
    mem_take(ops, host, mem, n + GUARD);
    const bool same = matches(host, n, 5, root, 1, true);
    free(host);
    return st_ok && same;
}

static void a_broadcast_reaches_all_from_any_rank(void **state)
{
    (void)state;
    rpt_log_collect();
    FOR_EACH_ROW(ops)
    {
        static const size_t sizes[] = {1, 5000, (3u << 20) + 1};
        const int n_ranks = rp_ctrl_n_ranks(g_ctrl);
        void *self = open_row(ops);
        bool ok = ops->broadcast(self, NULL, 0, 0) == RP_OK;
        ok = ops->broadcast(self, NULL, 0, n_ranks) == RP_E_ARG && ok;
        ok = ops->broadcast(self, NULL, 0, -1) == RP_E_ARG && ok;
        for (int root = 0; root < n_ranks; root++) {
            for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                ok = (n_ranks == 1 || one_broadcast(ops, self, sizes[i], root)) && ok;
            }
        }
        ok = one_group(ops, self, 1, true) && ok;
        mpt_assert_all(ok);
        ops->close(self);
    }
    rp_set_log(NULL, NULL);
}

/* Both ends list the same sizes; when they do not, the receiver of host memory says so instead of
 * going on. */
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
        for (int i = 0; i < 2 && !ops->on_device; i++) {
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

#ifdef RP_HAVE_NCCL
#define NCCL_OR_MPI "nccl"
#define NCCL_TOO    "nccl, "
#else
#define NCCL_OR_MPI "mpi"
#define NCCL_TOO    ""
#endif

static void choose_takes_names_and_says_what_there_is(void **state)
{
    (void)state;
    const rp_xport_ops *ops = NULL;
    const bool one = rp_ctrl_n_ranks(g_ctrl) == 1;

    rpt_log_collect();
    assert_int_equal(rp_xport_choose("auto", g_ctrl, false, &ops), RP_OK);
    assert_string_equal(ops->name, one ? "local" : "mpi");
    assert_int_equal(rp_xport_choose("auto", g_ctrl, true, &ops), RP_OK);
    assert_string_equal(ops->name, one ? "local" : NCCL_OR_MPI);
    for (int on_device = 0; on_device < 2; on_device++) {
        assert_int_equal(rp_xport_choose("mpi", g_ctrl, on_device, &ops), RP_OK);
        assert_string_equal(ops->name, "mpi");
    }
    ops = NULL;
    assert_int_equal(rp_xport_choose("pigeon", g_ctrl, false, &ops), RP_E_ARG);
    assert_null(ops);
    if (rp_ctrl_rank(g_ctrl) == 0) {
        assert_string_equal(rpt_log_last(), "no transport \"pigeon\" in this build; it has auto, "
                                            "local, " NCCL_TOO "mpi");
    }
    assert_int_equal(rp_xport_choose("local", g_ctrl, false, &ops), one ? RP_OK : RP_E_UNSUP);
    assert_int_equal(rp_xport_choose("nccl", g_ctrl, false, &ops), NCCL_TOO[0] == '\0' ? RP_E_ARG
                                                                   : one               ? RP_OK
                                                                         : RP_E_UNSUP);
    assert_true(!one || strcmp(ops->name, "local") == 0);
    rp_set_log(NULL, NULL);
}

static void ranks_with_different_transports_are_told_so(void **state)
{
    (void)state;
    const int n = rp_ctrl_n_ranks(g_ctrl), rank = rp_ctrl_rank(g_ctrl);
    const rp_xport_ops *const usual = rp_xport_list[0];
    rp_xport_ops other = *usual;
    bool ok = true;

    other.name = "pigeon";
    rpt_log_collect();
    ok = rp_xport_agree(g_ctrl, usual) == RP_OK;
    ok = rp_xport_agree(g_ctrl, rank == n - 1 ? &other : usual) == (n > 1 ? RP_E_UNSUP : RP_OK) &&
         ok;
    if (rank == 0 && n > 1) {
        ok =
            strstr(rpt_log_last(), "it takes transport pigeon, rank 0 takes local; ") != NULL && ok;
        ok = strstr(rpt_log_last(), "--transport") != NULL && ok;
    }
    rp_set_log(NULL, NULL);
    mpt_assert_all(ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_of_every_row_is_filled),
        cmocka_unit_test(bytes_arrive_out_and_back_in_many_groups),
        cmocka_unit_test(receives_may_be_posted_long_before_the_bytes_come),
        cmocka_unit_test(an_empty_group_is_done_at_once),
        cmocka_unit_test(bad_transfers_are_refused_and_leave_the_transport_usable),
        cmocka_unit_test(a_broadcast_reaches_all_from_any_rank),
        cmocka_unit_test(a_message_of_another_size_is_an_error),
        cmocka_unit_test(choose_takes_names_and_says_what_there_is),
        cmocka_unit_test(ranks_with_different_transports_are_told_so),
    };

    if (rp_ctrl_open(true, &g_ctrl) != RP_OK) {
        return 1;
    }
    find_gpu();
    const int failed = cmocka_run_group_tests_name("xport", tests, NULL, NULL);
    rp_ctrl_close(g_ctrl);
    return failed;
}
