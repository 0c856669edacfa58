/* pool_open.c - open, plan and close a pool. */
#include "pool/pool_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t rp_pool_message_bytes(int n_units)
{
    return sizeof(rp_pool_head) + (size_t)n_units * sizeof(rp_pool_item);
}

static void free_pool(rp_pool *pool)
{
    rp_speed_free(&pool->speed);
    free(pool->wave_busy);
    free(pool->stats);
    free(pool);
}

static rp_status new_pool(const rp_pool_params *params, rp_pool **out)
{
    const int n_ranks = rp_ctrl_n_ranks(params->ctrl);
    rp_pool *pool = calloc(1, sizeof(*pool));

    if (pool == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the pool");
    }
    pool->params = *params;
    pool->stats = calloc((size_t)n_ranks, sizeof(*pool->stats));
    pool->wave_busy = calloc((size_t)n_ranks, sizeof(*pool->wave_busy));
    rp_status st = rp_speed_new(n_ranks, &pool->speed);
    if (st == RP_OK && (pool->stats == NULL || pool->wave_busy == NULL)) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for the pool");
    }
    if (st != RP_OK) {
        free_pool(pool);
        return st;
    }
    *out = pool;
    return RP_OK;
}

rp_status rp_pool_open(const rp_pool_params *params, rp_pool **out)
{
    rp_pool *pool = NULL;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_ctrl_agree(params->ctrl, new_pool(params, &pool), "opening the pool"));
    st = params->xport->open(params->ctrl, &pool->xport);
    pool->connected = st == RP_OK;
    RP_TRY_OUT(rp_ctrl_agree(params->ctrl, st, "connecting the pool"));

    *out = pool;
    pool = NULL;

out:
    rp_pool_close(pool);
    return st;
}

static void release_slots(rp_pool *pool)
{
    const rp_pool_memory *memory = &pool->params.memory;

    if (pool->in != NULL) {
        memory->release(memory->self, pool->in);
    }
    if (pool->out != NULL) {
        memory->release(memory->self, pool->out);
    }
    pool->in = pool->out = NULL;
    pool->in_room = pool->out_room = 0;
}

static void free_tables(rp_pool *pool)
{
    free(pool->rank_of);
    free(pool->trial);
    free(pool->slot_of);
    free(pool->xfers);
    free(pool->tasks);
    free(pool->message);
    pool->rank_of = pool->trial = pool->slot_of = NULL;
    pool->xfers = NULL;
    pool->tasks = NULL;
    pool->message = NULL;
    pool->capacity = pool->inputs_capacity = 0;
}

void rp_pool_close(rp_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    if (pool->connected) {
        pool->params.xport->close(pool->xport);
    }
    release_slots(pool);
    free_tables(pool);
    free_pool(pool);
}

rp_status rp_pool_broadcast(rp_pool *pool, void *bytes, size_t n_bytes)
{
    return pool->params.xport->broadcast(pool->xport, bytes, n_bytes, 0);
}

static rp_status check_plan(int n_units, int n_inputs, size_t in_bytes, size_t out_bytes)
{
    const int most = (int)((RP_CTRL_MESSAGE_BYTES - sizeof(rp_pool_head)) / sizeof(rp_pool_item));

    if (n_units < 1 || n_units > most) {
        return RP_FAIL(RP_E_ARG, "waves of %d units, allowed: 1 to %d", n_units, most);
    }
    if (n_inputs < 1 || in_bytes == 0 || out_bytes == 0) {
        return RP_FAIL(RP_E_ARG, "waves over %d inputs of %zu bytes, outputs of %zu: none may be 0",
                       n_inputs, in_bytes, out_bytes);
    }
    if (in_bytes > SIZE_MAX / (size_t)n_inputs || out_bytes > SIZE_MAX / (size_t)n_units) {
        return RP_FAIL(RP_E_NOMEM,
                       "waves of %d units over %d inputs of %zu bytes do not fit any memory",
                       n_units, n_inputs, in_bytes);
    }
    return RP_OK;
}

static rp_status grow_tables(rp_pool *pool, int n_units, int n_inputs)
{
    const int units = n_units > pool->capacity ? n_units : pool->capacity;
    const int inputs = n_inputs > pool->inputs_capacity ? n_inputs : pool->inputs_capacity;

    if (units == pool->capacity && inputs == pool->inputs_capacity) {
        return RP_OK;
    }
    free_tables(pool);
    pool->rank_of = calloc((size_t)units, sizeof(*pool->rank_of));
    pool->trial = calloc((size_t)units, sizeof(*pool->trial));
    pool->slot_of = calloc((size_t)inputs, sizeof(*pool->slot_of));
    pool->xfers = calloc((size_t)units, sizeof(*pool->xfers));
    pool->tasks = calloc((size_t)units, sizeof(*pool->tasks));
    pool->message = calloc(1, rp_pool_message_bytes(units));
    if (pool->rank_of == NULL || pool->trial == NULL || pool->slot_of == NULL ||
        pool->xfers == NULL || pool->tasks == NULL || pool->message == NULL) {
        free_tables(pool);
        return RP_FAIL(RP_E_NOMEM, "no memory for waves of %d units", units);
    }
    pool->capacity = units;
    pool->inputs_capacity = inputs;
    return RP_OK;
}

static rp_status grow_slot(rp_pool *pool, size_t n_bytes, const char *what, void **slot,
                           size_t *room)
{
    const rp_pool_memory *memory = &pool->params.memory;

    if (n_bytes <= *room) {
        return RP_OK;
    }
    if (*slot != NULL) {
        memory->release(memory->self, *slot);
    }
    *slot = NULL;
    *room = 0;
    RP_TRY(memory->alloc(memory->self, n_bytes, what, slot));
    *room = n_bytes;
    return RP_OK;
}

rp_status rp_pool_plan(rp_pool *pool, int n_units, int n_inputs, size_t in_bytes, size_t out_bytes)
{
    RP_TRY(check_plan(n_units, n_inputs, in_bytes, out_bytes));
    pool->n_units = 0;      /* no waves if this fails half way */
    pool->begun.is = false; /* of a job that failed */
    RP_TRY(grow_tables(pool, n_units, n_inputs));
    RP_TRY(pool->params.xport->reserve(pool->xport, n_units));
    if (rp_ctrl_rank(pool->params.ctrl) > 0) {
        /* Which units come here is known only wave by wave: room for all of them. */
        RP_TRY(grow_slot(pool, (size_t)n_inputs * in_bytes, "inputs of the pool", &pool->in,
                         &pool->in_room));
        RP_TRY(grow_slot(pool, (size_t)n_units * out_bytes, "outputs of the pool", &pool->out,
                         &pool->out_room));
    }
    pool->n_units = n_units;
    pool->n_inputs = n_inputs;
    pool->in_bytes = in_bytes;
    pool->out_bytes = out_bytes;
    pool->plan_s = pool->wave_s = rp_clock_now();
    memset(pool->stats, 0, (size_t)rp_ctrl_n_ranks(pool->params.ctrl) * sizeof(*pool->stats));
    return RP_OK;
}

void rp_pool_stats(const rp_pool *pool, rp_rank_stats *stats)
{
    const int n_ranks = rp_ctrl_n_ranks(pool->params.ctrl);

    assert(rp_ctrl_rank(pool->params.ctrl) == 0);
    for (int r = 0; r < n_ranks; r++) {
        const double pace = rp_pace_median(&pool->speed.pace[r]);
        stats[r] = pool->stats[r];
        stats[r].unit_s = pace > 0 ? pace * pool->unit_cost : NAN;
        if (r > 0) {
            /* From the plan to the end of the last wave, a rank that was neither of these waited.
             */
            const double rest = pool->wave_s - pool->plan_s - stats[r].busy_s - stats[r].wire_s;
            stats[r].idle_s = rest > 0 ? rest : 0;
        }
    }
}
