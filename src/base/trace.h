/*
 * trace.h - when this process did what: spans of time in an array of fixed size.
 *
 * Off (or NULL) it reads no clock and keeps nothing. Not thread-safe.
 */
#ifndef RP_TRACE_H
#define RP_TRACE_H

#include <rankpool/status.h>

#include <stddef.h>
#include <stdint.h>

typedef enum {
    RP_TRACE_SAMPLE, /* one step, with all that is in it */
    RP_TRACE_SCATTER,
    RP_TRACE_UNIT,
    RP_TRACE_GATHER,
    RP_TRACE_MERGE,
    RP_TRACE_DECODE, /* one image */
    RP_TRACE_WAIT,
    RP_N_TRACE
} rp_trace_what;

/* What a span belongs to; -1 where it belongs to none. */
typedef struct {
    int32_t step, unit, image, cond;
} rp_trace_of;

typedef struct {
    double begin, end; /* rp_clock_now of this process */
    int32_t what;
    rp_trace_of of;
    int32_t unused; /* travels: no hole in it */
} rp_span;

typedef struct {
    rp_span *spans; /* [capacity] */
    int capacity;
    int room, n; /* n <= room <= capacity */
    int lost;    /* spans that came when it was full */
    int on;
} rp_trace;

/* Forget all spans; have room for so many and be on, or be off for 0. Memory grows only.
 * RP_E_NOMEM. */
rp_status rp_trace_start(rp_trace *trace, int room);
void rp_trace_free(rp_trace *trace);

/* The clock; 0 when off. */
double rp_trace_begin(const rp_trace *trace);
/* A span from `begin` (0: none) to now. */
void rp_trace_end(rp_trace *trace, double begin, rp_trace_what what, rp_trace_of of);

/* "scatter", "unit" ... */
const char *rp_trace_name(int what);

#endif
