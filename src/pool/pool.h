/*
 * pool.h - the resident pool: place units on ranks, scatter, evaluate everywhere, gather.
 *
 * A unit is one model evaluation (one image, one condition, batch 1), or in a wave of its own one
 * picture to decode. The pool knows units and bytes, not models: evaluation is a function given at
 * open. Rank 0 holds inputs and outputs, and works too, while the others do. Between scatter and
 * gather no rank returns early: a failed evaluation travels in the reply, and all ranks leave with
 * the same status.
 */
#ifndef RP_POOL_H
#define RP_POOL_H

#include "base/trace.h"
#include "ctrl/ctrl.h"
#include "xport/xport.h"

#include <rankpool/status.h>

#include <stdint.h>

typedef struct {
    int32_t input; /* which input of the wave: the image */
    int32_t cond;  /* which condition, meaningful to the evaluation only */
    float cost;    /* relative, > 0 */
} rp_unit;

/* `eval` of a wave that is no model call: its units are images to decode. They are placed by what
 * is known of the ranks, but teach nothing about them: their cost is of another kind. */
enum { RP_EVAL_DECODE = -1 };

/* Evaluate one unit at model call `eval`: in [in_bytes] -> out [out_bytes], backend memory. It may
 * return when the work is queued, where there is a rp_unit_end_fn. */
typedef rp_status (*rp_unit_fn)(void *arg, const rp_unit *unit, int eval, const void *in,
                                void *out);

/* Wait for the unit that was begun first of those not waited for; its failure. Not called for units
 * of RP_EVAL_DECODE, nor for those that could not be begun. */
typedef rp_status (*rp_unit_end_fn)(void *arg, const rp_unit *unit, int eval);

/* Backend memory for the pool's slots. */
typedef struct {
    rp_status (*alloc)(void *self, size_t n_bytes, const char *what, void **out);
    void (*release)(void *self, void *mem);
    void *self;
} rp_pool_memory;

typedef struct {
    rp_ctrl *ctrl; /* borrowed */
    const rp_xport_ops *xport;
    rp_unit_fn eval;
    rp_unit_end_fn end; /* NULL: a unit is done when eval returns */
    void *arg;
    rp_pool_memory memory;
    rp_trace *trace; /* borrowed; NULL: none */
} rp_pool_params;

/* What one rank did since rp_pool_plan. busy: evaluating; wire: inside transfers; idle: waiting for
 * work or, on rank 0, for the others. unit: what an average unit of the last wave takes here by the
 * moving median since rp_pool_open, NaN while it is not known. */
typedef struct {
    double busy_s, wire_s, idle_s, unit_s;
    int64_t n_units;
} rp_rank_stats;

typedef struct rp_pool rp_pool;

/*
 * units -> ranks, a pure function. Longest unit first to the rank that would finish it first, ties
 * to the lower rank; speed [n_ranks] > 0, NULL for equal ones.  rank_of [n_units] Within 4/3 of the
 * best possible (Graham 1969, LPT).
 */
void rp_pool_assign(const rp_unit *units, int n_units, const double *speed, int n_ranks,
                    int *rank_of);

/* Collective. Connects the transport. RP_E_NOMEM, RP_E_MPI. Release with rp_pool_close. */
rp_status rp_pool_open(const rp_pool_params *params, rp_pool **out);
void rp_pool_close(rp_pool *pool); /* Collective. NULL is allowed */

/* Collective. Rank 0's n_bytes to the same place of all ranks, by the transport and in its kind of
 * memory. RP_E_MPI. */
rp_status rp_pool_broadcast(rp_pool *pool, void *bytes, size_t n_bytes);

/* Every rank, same values: slots for waves of up to n_units units over n_inputs inputs. Resets the
 * stats. Grows only; after it a wave allocates nothing. */
rp_status rp_pool_plan(rp_pool *pool, int n_units, int n_inputs, size_t in_bytes, size_t out_bytes);

/*
 * Rank 0: one wave. Ranks that were slower in the waves before get less (pool_speed.h).
 *   step    for messages, -1 for none;  eval  handed to the evaluation, or RP_EVAL_DECODE
 *   inputs  [n_inputs][in_bytes] contiguous;  outputs  [n_units][out_bytes] contiguous, in the
 * order of units whatever rank did them The status of the first failed unit, logged once with host,
 * rank, step and unit.
 */
rp_status rp_pool_eval(rp_pool *pool, int step, int eval, const rp_unit *units, int n_units,
                       const void *inputs, void *outputs);

/*
 * Rank 0, alone: its last unit may still run when rp_pool_eval returns, so that a device has the
 * next wave before it is through with this one; what reads the outputs is queued behind it. Waits
 * for that unit. Its failure, logged as by rp_pool_eval; the next rp_pool_eval may return it too.
 */
rp_status rp_pool_settle(rp_pool *pool);

/* Ranks > 0: serve one wave whose announcement (see RP_MSG_WAVE) was just received. Transport
 * failures only; a failed evaluation was reported to rank 0. RP_E_PEER when rank 0 knows why, or
 * hears of it as this rank did: it will end the pool. */
rp_status rp_pool_serve_wave(rp_pool *pool, const void *message, size_t n_bytes);

/* Bytes of the announcement of a wave of n units, for sizing receive buffers. Its first int32 is
 * RP_MSG_WAVE. */
enum { RP_MSG_WAVE = 1 };
size_t rp_pool_message_bytes(int n_units);

/* Stats of all ranks on rank 0: stats [n_ranks], from the replies; no communication. */
void rp_pool_stats(const rp_pool *pool, rp_rank_stats *stats);

#endif
