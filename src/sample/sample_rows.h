/* sample_rows.h - the samplers, one row each; only sample_*.c include this. */
#ifndef RP_SAMPLE_ROWS_H
#define RP_SAMPLE_ROWS_H

#include "sample/sample.h"

extern const rp_sampler rp_sample_euler, rp_sample_heun, rp_sample_midpoint, rp_sample_dpmpp_2m;

/* One call a step, at the level where the step begins; see rp_sampler.plan. */
int rp_sample_plan_one(const float *sigma, int n_steps, float *eval_sigma, int *eval_step);

#endif
