/*
 * guide_cfg.c - classifier-free guidance: Ho & Salimans 2022, arXiv:2207.12598, eq. 6, with
 * scale = 1 + w.
 *
 *     out = uncond + scale (cond - uncond)
 *
 * and, if asked for, every row [w] of every channel brought back to the length that it has in cond.
 * When guidance is on, the order of operations and the axis of the norm are those of diffusers'
 * Lumina2Pipeline. There a row of zeros becomes NaN (0/0); here it stays zero.
 */
#include "guide/guide_rows.h"

#include <math.h>
#include <stddef.h>

int rp_guide_cfg_plan(const rp_guide_params *params, int step, int n_steps, int *branches)
{
    const double done = (double)(step + 1) / n_steps;

    branches[0] = RP_BRANCH_POSITIVE;
    if (!(params->scale > 1.0f) || done > params->truncation) {
        return 1;
    }
    branches[1] = RP_BRANCH_NEGATIVE;
    return 2;
}

void rp_guide_cfg_row(const rp_guide_params *params, float uncond_factor, const float *cond,
                      const float *uncond, int w, float *out)
{
    double cond_sum = 0, out_sum = 0; /* double: the sum does not depend on the order */

    for (int i = 0; i < w; i++) {
        const float from = uncond[i] * uncond_factor;
        const float guided = from + params->scale * (cond[i] - from);
        cond_sum += (double)cond[i] * cond[i];
        out_sum += (double)guided * guided;
        out[i] = guided;
    }
    if (params->renorm && out_sum > 0) {
        const float ratio = (float)sqrt(cond_sum) / (float)sqrt(out_sum);
        for (int i = 0; i < w; i++) {
            out[i] = out[i] * ratio;
        }
    }
}

static void cfg_merge(const rp_guide_params *params, const float *const *preds, int n_branches,
                      int c, int h, int w, float *out)
{
    if (n_branches == 1) {
        rp_guide_none.merge(params, preds, n_branches, c, h, w, out);
        return;
    }
    for (size_t row = 0; row < (size_t)c * (size_t)h; row++) {
        const size_t at = row * (size_t)w;
        rp_guide_cfg_row(params, 1.0f, preds[0] + at, preds[1] + at, w, out + at);
    }
}

const rp_guider rp_guide_cfg = {
    .name = "cfg",
    .help = "classifier-free guidance, 2 units",
    .plan = rp_guide_cfg_plan,
    .merge = cfg_merge,
};
