/*
 * wire_bench.c - how long the bytes of a wave are under way: from rank 0 to every other, and back.
 *
 *   mpirun -n RANKS wire_bench [--sizes MIB,...] [--repeat N] [--pause MICROSECONDS]
 *
 * The ways: rankpool's transports, bare or with the messages that the pool sends along, and NCCL
 * called plainly, each group waited for, or as two CUDA graphs. rankpool's payload is in no graph
 * (a unit is; scatter and gather lie between two of them), so these two stand beside plain calls
 * alone.
 *
 * Timed on rank 0, from the begin of the scatter until what was gathered may be read. One JSON line
 * for each way and size; `same`: every byte came back. Between two repeats rank 0 lets the others
 * get ready.
 */
#include "wire_device.h"

#include "base/check.h"
#include "base/clock.h"
#include "pool/pool_state.h"

#include <rankpool/rankpool.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIZES = 16, WARM_UP = 20 };

typedef struct {
    const char *name;
    const char *xport; /* NULL: plain NCCL */
    bool messages;     /* the announcement and the reply of a wave travel too */
    bool copies;       /* other ranks copy to their GPU and back, as units do */
    bool graph;
    bool calls; /* transport nccl without graphs */
} way;

static const way g_ways[] = {
    {.name = "nccl", .xport = "nccl"},
    {.name = "nccl, messages", .xport = "nccl", .messages = true},
    {.name = "nccl, calls", .xport = "nccl", .calls = true},
    {.name = "plain"},
    {.name = "mpi", .xport = "mpi"},
    {.name = "mpi, messages", .xport = "mpi", .messages = true},
    {.name = "mpi, messages, copies", .xport = "mpi", .messages = true, .copies = true},
    {.name = "plain, graph", .graph = true},
};

typedef struct {
    int repeat, pause_us, n_sizes;
    size_t sizes[MAX_SIZES];
} options;

typedef struct {
    rp_ctrl *ctrl;
    int rank, n, n_gpus; /* n transfers a direction: one with each other rank, or one with rank 0 */
    const way *way;
    const rp_xport_ops *ops;
    void *xport;
    wire_plain *plain;
    size_t n_bytes;        /* to each rank */
    bool on_device;        /* where `out` and `back` are */
    unsigned char *out;    /* [n][n_bytes] what rank 0 sends; elsewhere what came, and goes back */
    unsigned char *back;   /* rank 0: [n][n_bytes] */
    void *gpu;             /* for copies */
    rp_xfer *there, *here; /* [n] the scatter and the gather as this rank sees them */
} bench;

/* A rank that cannot go on ends all of them. */
static void check(const bench *b, rp_status st, const char *what)
{
    if (st != RP_OK) {
        (void)fprintf(stderr, "wire_bench: rank %d: %s: %s\n", b->rank, what, rp_status_text(st));
        rp_ctrl_abort(b->ctrl, 1);
        exit(1);
    }
}

/* ---- one repeat */

static rp_status move(const bench *b, const rp_xfer *xfers)
{
    bool done = false;

    RP_TRY(b->ops->start(b->xport, xfers, b->n));
    return b->ops->finish(b->xport, true, &done);
}

/* The pool's order, without a unit of rank 0's own between scatter and gather (pool_eval.c). */
static rp_status lead_xport(const bench *b)
{
    const unsigned char message[sizeof(rp_pool_head) + sizeof(rp_pool_item)] = {0};
    rp_pool_reply reply;
    bool done = false;

    for (int r = 1; r <= b->n && b->way->messages; r++) {
        RP_TRY(rp_ctrl_send(b->ctrl, r, message, sizeof(message)));
    }
    RP_TRY(move(b, b->there));
    RP_TRY(b->ops->start(b->xport, b->here, b->n));
    for (int r = 1; r <= b->n && b->way->messages; r++) {
        RP_TRY(rp_ctrl_wait_reply(b->ctrl, r, &reply, sizeof(reply)));
    }
    return b->ops->finish(b->xport, true, &done);
}

/* As pool_worker.c. */
static rp_status serve_xport(const bench *b)
{
    unsigned char message[sizeof(rp_pool_head) + sizeof(rp_pool_item)];
    const rp_pool_reply reply = {0};
    bool done = false;
    size_t n = 0;

    if (b->way->messages) {
        RP_TRY(rp_ctrl_recv(b->ctrl, message, sizeof(message), &n));
    }
    RP_TRY(move(b, b->there));
    if (b->way->copies) {
        RP_TRY(wire_copy(b->gpu, b->out, b->n_bytes));
        RP_TRY(wire_copy(b->out, b->gpu, b->n_bytes));
    }
    RP_TRY(b->ops->start(b->xport, b->here, b->n));
    if (b->way->messages) {
        RP_TRY(rp_ctrl_reply(b->ctrl, &reply, sizeof(reply)));
    }
    return b->ops->finish(b->xport, true, &done);
}

static rp_status once(const bench *b)
{
    if (b->way->xport != NULL) {
        return b->rank == 0 ? lead_xport(b) : serve_xport(b);
    }
    if (b->way->graph) {
        RP_TRY(wire_plain_replay(b->plain, 0));
        return wire_plain_replay(b->plain, 1);
    }
    RP_TRY(wire_plain_move(b->plain, b->there, b->n));
    return wire_plain_move(b->plain, b->here, b->n);
}

static void wait_us(int us)
{
    const double end = rp_clock_now() + 1e-6 * us;

    while (rp_clock_now() < end) {
    }
}

/* seconds [repeat], on rank 0. */
static void run(const bench *b, const options *o, double *seconds)
{
    for (int i = -WARM_UP; i < o->repeat; i++) {
        if (b->rank == 0) {
            wait_us(o->pause_us);
        }
        const double start = rp_clock_now();
        check(b, once(b), b->way->name);
        if (i >= 0) {
            seconds[i] = rp_clock_now() - start;
        }
    }
}

/* ---- buffers of one size */

static void list_transfers(bench *b)
{
    const bool lead = b->rank == 0;

    for (int i = 0; i < b->n; i++) {
        const int peer = lead ? i + 1 : 0;
        unsigned char *to = b->out + (size_t)i * b->n_bytes;
        unsigned char *from = lead ? b->back + (size_t)i * b->n_bytes : to;
        b->there[i] = (rp_xfer){peer, lead, to, b->n_bytes};
        b->here[i] = (rp_xfer){peer, !lead, from, b->n_bytes};
    }
}

/* What rank 0 sends, made on the host; the caller frees it. */
static unsigned char *pattern(const bench *b)
{
    const size_t n = (size_t)b->n * b->n_bytes;
    unsigned char *host = malloc(n);

    check(b, host != NULL ? RP_OK : RP_E_NOMEM, "memory");
    for (size_t i = 0; i < n; i++) {
        host[i] = (unsigned char)(i * 31 + i / 251 + 1);
    }
    return host;
}

static void open_buffers(bench *b, size_t n_bytes)
{
    const size_t total = (size_t)b->n * n_bytes;

    b->n_bytes = n_bytes;
    b->out = wire_alloc(b->on_device, total);
    b->back = wire_alloc(b->on_device, total);
    b->gpu = b->way->copies ? wire_alloc(true, n_bytes) : NULL;
    const bool ok = b->out != NULL && b->back != NULL && (b->gpu != NULL || !b->way->copies);
    check(b, ok ? RP_OK : RP_E_NOMEM, "buffers");
    unsigned char *host = pattern(b);
    if (b->rank == 0) {
        check(b, wire_copy(b->out, host, total), "buffers");
        memset(host, 0, total);
    }
    check(b, wire_copy(b->back, host, total), "buffers");
    free(host);
    list_transfers(b);
}

static void close_buffers(bench *b)
{
    wire_release(b->on_device, b->out);
    wire_release(b->on_device, b->back);
    if (b->gpu != NULL) {
        wire_release(true, b->gpu);
    }
}

/* Did what rank 0 sent come back? */
static bool is_same(const bench *b)
{
    const size_t total = (size_t)b->n * b->n_bytes;
    unsigned char *wanted = pattern(b), *got = malloc(total);

    check(b, got != NULL ? RP_OK : RP_E_NOMEM, "memory");
    check(b, wire_copy(got, b->back, total), "reading back");
    const bool same = memcmp(got, wanted, total) == 0;
    free(wanted);
    free(got);
    return same;
}

/* Each pair moves something before it may be recorded. */
static void record(const bench *b)
{
    check(b, wire_plain_move(b->plain, b->there, b->n), "plain");
    check(b, wire_plain_move(b->plain, b->here, b->n), "plain");
    check(b, wire_plain_record(b->plain, 0, b->there, b->n), "recording");
    check(b, wire_plain_record(b->plain, 1, b->here, b->n), "recording");
}

/* ---- one way */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The value that so many of a hundred do not exceed. */
static double percentile(const double *sorted, int n, int percent)
{
    const int at = (n * percent + 99) / 100 - 1;

    return sorted[at > 0 ? at : 0];
}

static bool report(const bench *b, const options *o, double *seconds)
{
    const bool same = is_same(b);

    qsort(seconds, (size_t)o->repeat, sizeof(*seconds), by_value);
    (void)printf("{\"section\": \"wire\", \"way\": \"%s\", \"ranks\": %d, \"gpus\": %d, "
                 "\"mib\": %g, \"repeat\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f, "
                 "\"min_us\": %.1f, \"max_us\": %.1f, \"same\": %s}\n",
                 b->way->name, b->n + 1, b->n_gpus, (double)b->n_bytes / (1 << 20), o->repeat,
                 1e6 * percentile(seconds, o->repeat, 50), 1e6 * percentile(seconds, o->repeat, 99),
                 1e6 * seconds[0], 1e6 * seconds[o->repeat - 1], same ? "true" : "false");
    (void)fflush(stdout);
    return same;
}

static const rp_xport_ops *find_xport(const char *name)
{
    for (int i = 0; name != NULL && rp_xport_list[i] != NULL; i++) {
        if (strcmp(rp_xport_list[i]->name, name) == 0) {
            return rp_xport_list[i];
        }
    }
    return NULL;
}

/* The same answer on all ranks: it comes from the build and from whether all have a GPU. */
static bool open_way(bench *b, const way *w)
{
    b->way = w;
    b->ops = find_xport(w->xport);
    b->on_device = w->xport == NULL || (b->ops != NULL && b->ops->on_device);
    if ((w->xport != NULL && b->ops == NULL) || ((b->on_device || w->copies) && b->n_gpus == 0)) {
        return false;
    }
    if (w->xport != NULL) {
        wire_nccl_graphs(!w->calls);
        check(b, b->ops->open(b->ctrl, &b->xport), w->name);
        check(b, b->ops->reserve(b->xport, b->n), w->name);
        return true;
    }
    check(b, wire_plain_open(b->ctrl, &b->plain), w->name);
    return true;
}

static void close_way(bench *b)
{
    if (b->way->xport != NULL) {
        b->ops->close(b->xport);
    } else {
        wire_plain_close(b->plain);
    }
}

static bool measure(bench *b, const way *w, const options *o, double *seconds)
{
    bool same = true;

    if (!open_way(b, w)) {
        return true;
    }
    for (int i = 0; i < o->n_sizes; i++) {
        open_buffers(b, o->sizes[i]);
        if (w->graph) {
            record(b);
        }
        run(b, o, seconds);
        same = (b->rank != 0 || report(b, o, seconds)) && same;
        close_buffers(b);
    }
    close_way(b);
    return same;
}

/* ---- program */

static bool read_sizes(options *o, const char *text)
{
    o->n_sizes = 0;
    for (const char *at = text; o->n_sizes < MAX_SIZES; at++) {
        char *end = NULL;
        const double mib = strtod(at, &end);
        if (end == at || !(mib > 0) || mib > 1024 || (*end != ',' && *end != '\0')) {
            return false;
        }
        o->sizes[o->n_sizes++] = (size_t)(mib * (1 << 20));
        at = end;
        if (*end == '\0') {
            return true;
        }
    }
    return false;
}

static bool read_options(options *o, int argc, char **argv)
{
    bool ok = read_sizes(o, "0.5,1,2,4");

    for (int i = 1; i + 1 < argc && ok; i += 2) {
        if (strcmp(argv[i], "--sizes") == 0) {
            ok = read_sizes(o, argv[i + 1]);
        } else if (strcmp(argv[i], "--repeat") == 0) {
            o->repeat = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--pause") == 0) {
            o->pause_us = atoi(argv[i + 1]);
        } else {
            ok = false;
        }
    }
    return ok && argc % 2 == 1 && o->repeat >= 1 && o->pause_us >= 0;
}

static void open_bench(bench *b)
{
    if (rp_ctrl_open(false, &b->ctrl) != RP_OK) {
        exit(1);
    }
    b->rank = rp_ctrl_rank(b->ctrl);
    const int n_ranks = rp_ctrl_n_ranks(b->ctrl);
    if (n_ranks < 2) {
        (void)fprintf(stderr, "wire_bench: needs two ranks: mpirun -n 2 wire_bench\n");
        rp_ctrl_close(b->ctrl);
        exit(2);
    }
    const int mine = wire_bind(rp_ctrl_local_rank(b->ctrl));
    int *all = calloc((size_t)n_ranks, sizeof(*all));
    b->n = b->rank == 0 ? n_ranks - 1 : 1;
    b->there = calloc((size_t)b->n, sizeof(*b->there));
    b->here = calloc((size_t)b->n, sizeof(*b->here));
    check(b, all != NULL && b->there != NULL && b->here != NULL ? RP_OK : RP_E_NOMEM, "memory");
    check(b, rp_ctrl_allgather(b->ctrl, &mine, sizeof(mine), all), "GPUs");
    b->n_gpus = mine;
    for (int r = 0; r < n_ranks; r++) {
        b->n_gpus = all[r] < b->n_gpus ? all[r] : b->n_gpus;
    }
    free(all);
}

int main(int argc, char **argv)
{
    options o = {.repeat = 300, .pause_us = 100};
    bench b = {0};
    bool same = true;

    if (!read_options(&o, argc, argv)) {
        (void)fprintf(stderr, "usage: wire_bench [--sizes MIB,...] [--repeat N] [--pause US]\n");
        return 2;
    }
    open_bench(&b);
    double *seconds = calloc((size_t)o.repeat, sizeof(*seconds));
    check(&b, seconds != NULL ? RP_OK : RP_E_NOMEM, "memory");
    for (size_t i = 0; i < sizeof(g_ways) / sizeof(g_ways[0]); i++) {
        same = measure(&b, &g_ways[i], &o, seconds) && same;
    }
    free(seconds);
    free(b.there);
    free(b.here);
    rp_ctrl_close(b.ctrl);
    return same ? 0 : 1;
}
