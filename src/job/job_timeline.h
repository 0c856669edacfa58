/*
 * job_timeline.h - when this rank's units began and ended on its device.
 *
 * Marks are set while the units run and read once, after the sampling: nothing waits for them.
 */
#ifndef RP_JOB_TIMELINE_H
#define RP_JOB_TIMELINE_H

#include "pool/pool.h"
#include "tensor/tensor_ops.h"

/* Units of a job that have marks; later ones go without. */
#define RP_TIMELINE_UNITS 4096

typedef struct {
    int32_t step, eval, image, cond; /* step: see rp_timeline_read */
    double begin_ms, end_ms;         /* since the first unit began */
} rp_timed_unit;

typedef struct {
    rp_timed_unit *units; /* [room] */
    double *ms;           /* [2 room] */
    int n, room;
    int n_ended; /* of those n have been waited for */
} rp_timeline;

/* Room for a job of so many units on this rank. Grows only. RP_E_NOMEM. */
rp_status rp_timeline_reserve(rp_timeline *t, const rp_backend *backend, size_t n_units);
void rp_timeline_free(rp_timeline *t);

/* Around the ops of one unit; begin returns what end takes. */
int rp_timeline_begin(rp_timeline *t, const rp_backend *backend, const rp_unit *unit, int eval);
void rp_timeline_end(const rp_backend *backend, int which);

/* Wait for the end of the first unit that has not been waited for; the failure known then. */
rp_status rp_timeline_wait(rp_timeline *t, const rp_backend *backend);

/* After sync: the times of all units, and the steps that their model calls belong to. */
rp_status rp_timeline_read(rp_timeline *t, const rp_backend *backend, const int *eval_step);

/* From the end of a unit to the begin of the next, in microseconds -> gaps [n - 1]; returns how
 * many. Left out are those behind units of the first step, where sequences are recorded. */
int rp_timeline_gaps(const rp_timed_unit *units, int n, double *gaps);

/* The units as a trace in Chrome's format, which Perfetto opens; NULL when out of memory. Free with
 * free(). */
char *rp_timeline_json(const rp_timed_unit *units, int n);

#endif
