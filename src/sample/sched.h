/*
 * sched.h - what the schedules share. Only sched_*.c and schedule_list.c include this.
 */
#ifndef RP_SCHED_H
#define RP_SCHED_H

#include "sample/schedule.h"

extern const rp_schedule rp_sched_flow, rp_sched_karras, rp_sched_exponential;

/* The whole way from a config to sigma [n_steps + 1]; see rp_schedule.fill. */
rp_status rp_sched_flow_fill(const rp_flow_config *config, int n_steps, float *sigma);

/* Spread sigma [n_steps] anew between its first and its last value, 0 < last <= first. */
void rp_sched_karras_spread(int n_steps, float *sigma);
void rp_sched_exponential_spread(int n_steps, float *sigma);

/* numpy.linspace(first, last, n)[i] in double precision, with its rounding. */
double rp_sched_linspace(double first, double last, int n, int i);

#endif
