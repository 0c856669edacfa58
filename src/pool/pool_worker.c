/* pool_worker.c - evaluating units, and the side of a wave on ranks > 0. */
#include "pool/pool_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

void rp_pool_trace(const rp_pool *pool, double begin, rp_trace_what what, const rp_pool_head *head)
{
    rp_trace_end(pool->params.trace, begin, what, (rp_trace_of){head->step, -1, -1, -1});
}

/* The failure of a unit goes into the reply, in place of one that is there. */
static void keep_failure(rp_pool_reply *reply, rp_status st, const rp_pool_begun *unit)
{
    if (st == RP_OK) {
        return;
    }
    reply->status = (int32_t)st;
    reply->failed = unit->item.index;
    reply->unit = unit->item.unit;
    reply->step = unit->step;
    reply->eval = unit->eval;
    rp_log_take(reply->text, sizeof(reply->text));
    if (reply->text[0] == '\0') {
        (void)snprintf(reply->text, sizeof(reply->text), "%s", rp_status_text(st));
    }
}

static void trace_unit(const rp_pool *pool, const rp_pool_begun *u)
{
    const rp_unit *unit = &u->item.unit;

    if (u->eval == RP_EVAL_DECODE) {
        rp_trace_end(pool->params.trace, u->begin, RP_TRACE_DECODE,
                     (rp_trace_of){-1, -1, unit->input, -1});
    } else {
        rp_trace_end(pool->params.trace, u->begin, RP_TRACE_UNIT,
                     (rp_trace_of){u->step, u->item.index, unit->input, unit->cond});
    }
}

static bool must_be_waited_for(const rp_pool *pool, int eval)
{
    return pool->params.end != NULL && eval != RP_EVAL_DECODE;
}

static void end_unit(rp_pool *pool, rp_rank_stats *stats, rp_pool_reply *reply)
{
    const rp_pool_begun u = pool->begun;
    rp_status st = RP_OK;

    if (!u.is) {
        return;
    }
    pool->begun.is = false;
    if (must_be_waited_for(pool, u.eval)) {
        st = pool->params.end(pool->params.arg, &u.item.unit, u.eval);
    }
    trace_unit(pool, &u);
    stats->n_units += st == RP_OK;
    keep_failure(reply, st, &u);
}

/* Begin it, and end the one before; the failure of the earlier one counts. */
static void begin_unit(rp_pool *pool, const rp_pool_head *head, const rp_pool_task *task,
                       rp_rank_stats *stats, rp_pool_reply *reply)
{
    rp_pool_begun u = {.is = true,
                       .step = head->step,
                       .eval = head->eval,
                       .item = task->item,
                       .begin = rp_trace_begin(pool->params.trace)};
    const rp_status st =
        pool->params.eval(pool->params.arg, &u.item.unit, head->eval, task->in, task->out);

    keep_failure(reply, st, &u);
    if (pool->begun.is) {
        end_unit(pool, stats, reply);
        u.begin = rp_trace_begin(pool->params.trace); /* spans of a rank do not overlap */
    }
    if (reply->status != RP_OK) {
        return;
    }
    pool->begun = u;
    if (!must_be_waited_for(pool, head->eval)) {
        end_unit(pool, stats, reply);
    }
}

static void begin_reply(rp_pool_reply *reply)
{
    rp_log_take(reply->text, sizeof(reply->text)); /* an older error is not this unit's */
    *reply = (rp_pool_reply){.status = RP_OK, .failed = -1};
}

void rp_pool_run(rp_pool *pool, const rp_pool_head *head, const rp_pool_task *tasks, int n,
                 rp_rank_stats *stats, rp_pool_reply *reply)
{
    const double start = rp_clock_now();
    const bool alone = rp_ctrl_n_ranks(pool->params.ctrl) == 1;

    begin_reply(reply);
    for (int i = 0; i < n && reply->status == RP_OK; i++) {
        begin_unit(pool, head, &tasks[i], stats, reply);
    }
    if (!alone) {
        end_unit(pool, stats, reply);
    }
    stats->busy_s += rp_clock_now() - start;
}

void rp_pool_end(rp_pool *pool, rp_rank_stats *stats, rp_pool_reply *reply)
{
    const double start = rp_clock_now();

    begin_reply(reply);
    end_unit(pool, stats, reply);
    stats->busy_s += rp_clock_now() - start;
}

rp_status rp_pool_move(const rp_pool *pool, int n, rp_rank_stats *stats)
{
    const rp_xport_ops *xport = pool->params.xport;
    const double start = rp_clock_now();
    bool done = false;

    RP_TRY(xport->start(pool->xport, pool->xfers, n));
    RP_TRY(xport->finish(pool->xport, true, &done));
    stats->wire_s += rp_clock_now() - start;
    return RP_OK;
}

static rp_status read_head(const rp_pool *pool, const void *message, size_t n_bytes,
                           rp_pool_head *head)
{
    if (n_bytes < sizeof(*head)) {
        return RP_FAIL(RP_E_MPI, "announcement of a wave has %zu bytes", n_bytes);
    }
    memcpy(head, message, sizeof(*head));
    if (head->kind != RP_MSG_WAVE || head->n_units > pool->n_units ||
        head->n_inputs != pool->n_inputs || head->n_mine < 1 || head->n_mine > head->n_units ||
        n_bytes != rp_pool_message_bytes(head->n_mine)) {
        return RP_FAIL(
            RP_E_MPI,
            "announcement of a wave: kind %d, %zu bytes for %d of %d units over %d inputs, "
            "planned for %d over %d",
            (int)head->kind, n_bytes, (int)head->n_mine, (int)head->n_units, (int)head->n_inputs,
            pool->n_units, pool->n_inputs);
    }
    return RP_OK;
}

/* The tasks of this rank: which slot holds the input of each, and the transfers that fill the
 * slots. */
static rp_status read_items(rp_pool *pool, const unsigned char *message, int n_mine, int *n_xfers)
{
    unsigned char *const in = pool->in;
    unsigned char *const out = pool->out;

    for (int i = 0; i < pool->n_inputs; i++) {
        pool->slot_of[i] = -1;
    }
    *n_xfers = 0;
    for (int k = 0; k < n_mine; k++) {
        rp_pool_item item;
        memcpy(&item, message + rp_pool_message_bytes(k), sizeof(item));
        const int input = item.unit.input;
        if (input < 0 || input >= pool->n_inputs) {
            return RP_FAIL(RP_E_MPI, "announcement of a wave: input %d of %d", input,
                           pool->n_inputs);
        }
        if (pool->slot_of[input] < 0) {
            void *slot = in + (size_t)*n_xfers * pool->in_bytes;
            pool->slot_of[input] = *n_xfers;
            pool->xfers[(*n_xfers)++] = (rp_xfer){0, false, slot, pool->in_bytes};
        }
        pool->tasks[k] = (rp_pool_task){item, in + (size_t)pool->slot_of[input] * pool->in_bytes,
                                        out + (size_t)k * pool->out_bytes};
    }
    return RP_OK;
}

/* Outputs to rank 0, after a failure too: the other end waits for all of them. The reply goes
 * before they are through, so that rank 0 can tell waiting for this rank from waiting for the wire;
 * the time of this transfer is in the next reply. */
static rp_status send_outputs(rp_pool *pool, int n_mine, rp_pool_reply *reply)
{
    const rp_xport_ops *xport = pool->params.xport;
    rp_rank_stats *stats = &pool->stats[0];
    const double start = rp_clock_now();
    bool done = false;

    for (int k = 0; k < n_mine; k++) {
        pool->xfers[k] = (rp_xfer){0, true, pool->tasks[k].out, pool->out_bytes};
    }
    const rp_status st = xport->start(pool->xport, pool->xfers, n_mine);
    reply->n_units = stats->n_units;
    reply->busy_s = stats->busy_s;
    reply->wire_s = stats->wire_s;
    /* Also when it did not start, as on a device that has failed: rank 0 waits for replies. */
    RP_TRY(rp_ctrl_reply(pool->params.ctrl, reply, sizeof(*reply)));
    RP_TRY(st);
    RP_TRY(xport->finish(pool->xport, true, &done));
    stats->wire_s += rp_clock_now() - start;
    return RP_OK;
}

/* Inputs to their slots. When another rank's failure ends the transfer, rank 0 gets its reply all
 * the same, and does not wait. */
static rp_status fetch_inputs(rp_pool *pool, int n_xfers)
{
    const rp_status st = rp_pool_move(pool, n_xfers, &pool->stats[0]);

    if (st == RP_E_PEER) {
        const rp_pool_reply reply = {.status = (int32_t)st, .failed = pool->tasks[0].item.index};
        RP_TRY(rp_ctrl_reply(pool->params.ctrl, &reply, sizeof(reply)));
    }
    return st;
}

rp_status rp_pool_serve_wave(rp_pool *pool, const void *message, size_t n_bytes)
{
    rp_pool_head head;
    rp_pool_reply reply = {0};
    int n_xfers = 0;

    RP_TRY(read_head(pool, message, n_bytes, &head));
    RP_TRY(read_items(pool, message, head.n_mine, &n_xfers));
    double begin = rp_trace_begin(pool->params.trace);
    RP_TRY(fetch_inputs(pool, n_xfers));
    rp_pool_trace(pool, begin, RP_TRACE_SCATTER, &head);
    rp_pool_run(pool, &head, pool->tasks, head.n_mine, &pool->stats[0], &reply);

    begin = rp_trace_begin(pool->params.trace);
    const rp_status st = send_outputs(pool, head.n_mine, &reply);
    rp_pool_trace(pool, begin, RP_TRACE_GATHER, &head);
    if (st == RP_E_CUDA && reply.status == RP_E_CUDA) {
        /* Rank 0 knows why this rank's device does nothing any more, and ends the pool. */
        rp_log_take(reply.text, sizeof(reply.text));
        return RP_E_PEER;
    }
    return st;
}
