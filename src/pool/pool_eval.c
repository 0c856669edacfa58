/* pool_eval.c - rank 0's side of a wave: place, scatter, evaluate, gather. */
#include "pool/pool_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <string.h>

static rp_status check_wave(const rp_pool *pool, const rp_unit *units, int n_units)
{
    if (rp_ctrl_rank(pool->params.ctrl) != 0) {
        return RP_FAIL(RP_E_ARG, "rank %d cannot begin a wave", rp_ctrl_rank(pool->params.ctrl));
    }
    if (n_units < 0 || n_units > pool->n_units) {
        return RP_FAIL(RP_E_ARG, "wave of %d units, planned for at most %d", n_units,
                       pool->n_units);
    }
    for (int i = 0; i < n_units; i++) {
        if (units[i].input < 0 || units[i].input >= pool->n_inputs || !(units[i].cost > 0)) {
            return RP_FAIL(RP_E_ARG, "unit %d: input %d of %d, cost %g", i, (int)units[i].input,
                           pool->n_inputs, (double)units[i].cost);
        }
    }
    return RP_OK;
}

/* The message of one rank into pool->message, its inputs appended to pool->xfers [*n_xfers].
 * Returns the number of its units. */
static int announce(rp_pool *pool, int rank, rp_pool_head head, const rp_unit *units,
                    const unsigned char *inputs, int *n_xfers)
{
    int n_mine = 0;

    for (int i = 0; i < pool->n_inputs; i++) {
        pool->slot_of[i] = -1;
    }
    for (int i = 0; i < head.n_units; i++) {
        if (pool->rank_of[i] != rank) {
            continue;
        }
        const rp_pool_item item = {units[i], i};
        memcpy(pool->message + rp_pool_message_bytes(n_mine++), &item, sizeof(item));
        if (pool->slot_of[units[i].input] < 0) {
            pool->slot_of[units[i].input] = 0;
            /* only read: the transport's struct serves both directions */
            void *bytes = (void *)(inputs + (size_t)units[i].input * pool->in_bytes);
            pool->xfers[(*n_xfers)++] = (rp_xfer){rank, true, bytes, pool->in_bytes};
        }
    }
    head.n_mine = n_mine;
    memcpy(pool->message, &head, sizeof(head));
    return n_mine;
}

static rp_status scatter(rp_pool *pool, rp_pool_head head, const rp_unit *units, const void *inputs)
{
    rp_ctrl *ctrl = pool->params.ctrl;
    const double start = rp_clock_now();
    int n_xfers = 0;

    for (int rank = 1; rank < rp_ctrl_n_ranks(ctrl); rank++) {
        const int n = announce(pool, rank, head, units, inputs, &n_xfers);
        if (n > 0) {
            RP_TRY(rp_ctrl_send(ctrl, rank, pool->message, rp_pool_message_bytes(n)));
        }
    }
    pool->stats[0].wire_s += rp_clock_now() - start;
    return rp_pool_move(pool, n_xfers, &pool->stats[0]);
}

/* Receive every output of another rank right into its place. */
static rp_status start_gather(rp_pool *pool, int n_units, unsigned char *outputs)
{
    int n = 0;

    for (int rank = 1; rank < rp_ctrl_n_ranks(pool->params.ctrl); rank++) {
        for (int i = 0; i < n_units; i++) {
            if (pool->rank_of[i] == rank) {
                pool->xfers[n++] =
                    (rp_xfer){rank, false, outputs + (size_t)i * pool->out_bytes, pool->out_bytes};
            }
        }
    }
    return pool->params.xport->start(pool->xport, pool->xfers, n);
}

static void run_own(rp_pool *pool, rp_pool_head head, const rp_unit *units,
                    const unsigned char *inputs, unsigned char *outputs, rp_pool_reply *reply)
{
    int n = 0;

    for (int i = 0; i < head.n_units; i++) {
        if (pool->rank_of[i] == 0) {
            pool->tasks[n++] = (rp_pool_task){{units[i], i},
                                              inputs + (size_t)units[i].input * pool->in_bytes,
                                              outputs + (size_t)i * pool->out_bytes};
        }
    }
    /* Held like the errors of other ranks, so that a failed unit gives the same one line anywhere.
     */
    const double busy = pool->stats[0].busy_s;
    rp_log_hold(true);
    rp_pool_run(pool, &head, pool->tasks, n, &pool->stats[0], reply);
    rp_log_hold(false);
    pool->wave_busy[0] = pool->stats[0].busy_s - busy;
}

static bool has_units(const rp_pool *pool, int n_units, int rank)
{
    for (int i = 0; i < n_units; i++) {
        if (pool->rank_of[i] == rank) {
            return true;
        }
    }
    return false;
}

/* RP_E_PEER only knows of another's failure. */
static bool is_worse(const rp_pool_reply *a, const rp_pool_reply *b)
{
    if (a->status == RP_OK || b->status == RP_OK ||
        (a->status == RP_E_PEER) != (b->status == RP_E_PEER)) {
        return a->status != RP_OK && (b->status == RP_OK || b->status == RP_E_PEER);
    }
    return a->failed < b->failed;
}

/* Wait until all have evaluated; keeps in *worst the failure of the lowest unit, in *rank_out its
 * rank. */
static rp_status collect_replies(rp_pool *pool, int n_units, rp_pool_reply *worst, int *rank_out)
{
    const double start = rp_clock_now();

    for (int rank = 1; rank < rp_ctrl_n_ranks(pool->params.ctrl); rank++) {
        rp_pool_reply reply;
        if (!has_units(pool, n_units, rank)) {
            continue;
        }
        RP_TRY(rp_ctrl_wait_reply(pool->params.ctrl, rank, &reply, sizeof(reply)));
        pool->wave_busy[rank] = reply.busy_s - pool->stats[rank].busy_s;
        pool->stats[rank].busy_s = reply.busy_s;
        pool->stats[rank].wire_s = reply.wire_s;
        pool->stats[rank].n_units = reply.n_units;
        if (is_worse(&reply, worst)) {
            *worst = reply;
            *rank_out = rank;
        }
    }
    pool->stats[0].idle_s += rp_clock_now() - start;
    return RP_OK;
}

static rp_status finish_gather(rp_pool *pool)
{
    const double start = rp_clock_now();
    bool done = false;

    RP_TRY(pool->params.xport->finish(pool->xport, true, &done));
    pool->wave_s = rp_clock_now();
    pool->stats[0].wire_s += pool->wave_s - start;
    return RP_OK;
}

/* One line about the failed unit that counts. */
static void tell(const rp_pool *pool, const rp_pool_reply *worst, int rank)
{
    const char *host = rp_ctrl_host(pool->params.ctrl, rank);
    const rp_unit *unit = &worst->unit;

    if (worst->eval == RP_EVAL_DECODE) {
        RP_ERROR("rank %d on host %s: decoding image %d: %s", rank, host, (int)unit->input,
                 worst->text);
        return;
    }
    RP_ERROR("rank %d on host %s: step %d, unit %d (image %d, condition %d): %s", rank, host,
             (int)worst->step, (int)worst->failed, (int)unit->input, (int)unit->cond, worst->text);
}

/* For the placements of the next waves. */
static void learn(rp_pool *pool, const rp_unit *units, int n_units)
{
    double cost = 0;

    for (int i = 0; i < n_units; i++) {
        cost += units[i].cost;
    }
    pool->unit_cost = n_units > 0 ? cost / n_units : 0;
    rp_speed_learn(&pool->speed, units, n_units, pool->rank_of, pool->wave_busy);
}

rp_status rp_pool_eval(rp_pool *pool, int step, int eval, const rp_unit *units, int n_units,
                       const void *inputs, void *outputs)
{
    const rp_pool_head head = {RP_MSG_WAVE, step, eval, n_units, pool->n_inputs, 0};
    rp_pool_reply worst = {.status = RP_OK, .failed = -1};
    int rank = 0;

    RP_TRY(check_wave(pool, units, n_units));
    rp_speed_place(&pool->speed, units, n_units, pool->rank_of, pool->trial);
    double begin = rp_trace_begin(pool->params.trace);
    RP_TRY(scatter(pool, head, units, inputs));
    rp_pool_trace(pool, begin, RP_TRACE_SCATTER, &head);
    RP_TRY(start_gather(pool, n_units, outputs));
    run_own(pool, head, units, inputs, outputs, &worst);
    begin = rp_trace_begin(pool->params.trace);
    RP_TRY(collect_replies(pool, n_units, &worst, &rank));
    rp_pool_trace(pool, begin, RP_TRACE_WAIT, &head);
    rp_log_hold(worst.status != RP_OK); /* a transfer that fails now has failed because of it */
    begin = rp_trace_begin(pool->params.trace);
    const rp_status st = finish_gather(pool);
    rp_pool_trace(pool, begin, RP_TRACE_GATHER, &head);
    rp_log_hold(false);
    if (worst.status != RP_OK && worst.status != RP_E_PEER) {
        tell(pool, &worst, rank);
        return (rp_status)worst.status;
    }
    RP_TRY(st);
    RP_TRY((rp_status)worst.status);
    if (eval != RP_EVAL_DECODE) {
        learn(pool, units, n_units);
    }
    return RP_OK;
}

rp_status rp_pool_settle(rp_pool *pool)
{
    rp_pool_reply reply;

    rp_log_hold(true);
    rp_pool_end(pool, &pool->stats[0], &reply);
    rp_log_hold(false);
    if (reply.status != RP_OK) {
        tell(pool, &reply, 0);
    }
    return (rp_status)reply.status;
}
