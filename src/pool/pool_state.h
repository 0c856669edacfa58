/* pool_state.h - what the two sides of a wave share: an open pool, the messages, evaluating units.
 */
#ifndef RP_POOL_STATE_H
#define RP_POOL_STATE_H

#include "pool/pool.h"
#include "pool/pool_speed.h"

#include <stdbool.h>

/* Rank 0 -> a rank with units: this head, then its n_mine units in the order of the wave. The rank
 * gets the inputs that these units need, each once, in the order in which the units name them
 * first. */
typedef struct {
    int32_t kind; /* RP_MSG_WAVE */
    int32_t step, eval;
    int32_t n_units, n_inputs; /* of the wave */
    int32_t n_mine;
} rp_pool_head;

typedef struct {
    rp_unit unit;
    int32_t index; /* in the wave */
} rp_pool_item;

/* The rank's answer, after the last unit is evaluated: the outputs are on their way. The numbers
 * are sums since rp_pool_plan. */
typedef struct {
    int32_t status;
    int32_t failed; /* index of the unit that failed first, -1 for none */
    int32_t step, eval;
    rp_unit unit;   /* that one, and the wave that it belongs to */
    int32_t unused; /* travels: no hole in it */
    int64_t n_units;
    double busy_s, wire_s;
    char text[RP_CTRL_TEXT_BYTES]; /* why */
} rp_pool_reply;

/* One unit of this rank, ready to be evaluated. */
typedef struct {
    rp_pool_item item;
    const void *in;
    void *out;
} rp_pool_task;

/* A unit that was begun and has not been waited for. */
typedef struct {
    bool is;
    int32_t step, eval;
    rp_pool_item item;
    double begin; /* for the trace */
} rp_pool_begun;

struct rp_pool {
    rp_pool_params params;
    void *xport; /* self of params.xport */
    bool connected;

    int n_units, n_inputs; /* as planned */
    size_t in_bytes, out_bytes;
    double plan_s, wave_s; /* when planned; end of the last wave */
    rp_rank_stats *stats;  /* [n_ranks] on rank 0; elsewhere only stats[0] is used, for this rank */

    /* Rank 0, from open to close: a pace is per cost, whatever the shape. */
    rp_pool_begun begun;
    rp_speed speed;
    double *wave_busy; /* [n_ranks] of the last wave */
    double unit_cost;  /* mean of the last wave's units */

    /* [capacity] units; rank 0 also sends from `message` */
    int capacity, inputs_capacity;
    int *rank_of, *trial, *slot_of; /* [capacity] twice, [inputs_capacity] */
    rp_xfer *xfers;
    rp_pool_task *tasks;
    unsigned char *message;

    /* Slots of ranks > 0; rank 0 works in the caller's arrays. */
    void *in, *out;
    size_t in_room, out_room;
};

/* Evaluate tasks of a wave in order and stop at the first failure, whose text is kept, not printed.
 * Each is begun before the one before it is waited for; the last one, when this rank is alone, is
 * left to the next wave. Fills the reply but for its sums; counts into stats. */
void rp_pool_run(rp_pool *pool, const rp_pool_head *head, const rp_pool_task *tasks, int n,
                 rp_rank_stats *stats, rp_pool_reply *reply);

/* Wait for the unit that was begun last, if any; as rp_pool_run. */
void rp_pool_end(rp_pool *pool, rp_rank_stats *stats, rp_pool_reply *reply);

/* A span of the wave from `begin` to now. */
void rp_pool_trace(const rp_pool *pool, double begin, rp_trace_what what, const rp_pool_head *head);

/* One whole group, its time counted into stats->wire_s. */
rp_status rp_pool_move(const rp_pool *pool, int n, rp_rank_stats *stats);

#endif
