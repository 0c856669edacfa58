/* guide_rows.h - the guiders, one row each, and what they share; only guide_*.c include this. */
#ifndef RP_GUIDE_ROWS_H
#define RP_GUIDE_ROWS_H

#include "guide/guide.h"

extern const rp_guider rp_guide_cfg, rp_guide_cfg_zero_star, rp_guide_none;

/* [positive, negative] while guidance is on, else [positive]; see rp_guider.plan. */
int rp_guide_cfg_plan(const rp_guide_params *params, int step, int n_steps, int *branches);

/*
 * One row of the latents, guided and, if params->renorm, brought back to the length of cond:
 *
 *     out = a + scale (cond - a),  a = uncond_factor uncond;   out *= |cond| / |out|
 *
 * Arrays [w], out may be cond or uncond. |out| = 0 leaves the row as it is.
 */
void rp_guide_cfg_row(const rp_guide_params *params, float uncond_factor, const float *cond,
                      const float *uncond, int w, float *out);

#endif
