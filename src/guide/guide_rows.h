/* guide_rows.h - the guiders, one row each, and what they share; only guide_*.c include this. */
#ifndef RP_GUIDE_ROWS_H
#define RP_GUIDE_ROWS_H

#include "guide/guide.h"

extern const rp_guider rp_guide_cfg, rp_guide_cfg_zero_star, rp_guide_none;

/* [positive, negative] while guidance is on, else [positive]; see rp_guider.plan. */
int rp_guide_cfg_plan(const rp_guide_params *params, int step, int n_steps, int *branches);

/*
 * The rule of cfg on two predictions, row by row as params->renorm asks for:
 *
 *     out = a + scale (cond - a),  a = factor uncond;   out *= |cond| / |out|
 *
 * factor: one float in the vectors' memory, NULL for 1. |out| = 0 leaves a row as it is.
 */
void rp_guide_cfg_merge(const rp_guide_params *params, const rp_guide_merge *m,
                        const float *factor);

#endif
