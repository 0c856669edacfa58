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

void rp_guide_cfg_merge(const rp_guide_params *params, const rp_guide_merge *m, const float *factor)
{
    const rp_vec_rows rows = {
        .to = m->preds[0],
        .away = m->preds[1],
        .factor = factor,
        .scale = params->scale,
        .keep_length = params->renorm,
        .n_rows = (size_t)m->c * (size_t)m->h,
        .w = m->w,
    };
    m->vec->extrapolate(m->vec->self, &rows, m->out);
}

static void cfg_merge(const rp_guide_params *params, const rp_guide_merge *m)
{
    if (m->n_branches == 1) {
        rp_guide_none.merge(params, m);
        return;
    }
    rp_guide_cfg_merge(params, m, NULL);
}

const rp_guider rp_guide_cfg = {
    .name = "cfg",
    .help = "classifier-free guidance, 2 units",
    .plan = rp_guide_cfg_plan,
    .merge = cfg_merge,
};
