/*
 * guide_cfg_zero_star.c - CFG-Zero*: Fan et al. 2025, arXiv:2503.18886, without the zeroed first
 * steps.
 *
 * The negative prediction is scaled by its projection on the positive one before the usual rule:
 *
 *     out = a + scale (cond - a),  a = uncond <cond, uncond> / (|uncond|^2 + 1e-8)
 *
 * over all elements of one image. Renormalisation is applied afterwards if it is on; the paper has
 * none.
 */
#include "guide/guide_rows.h"

#include <stddef.h>

static void cfg_zero_star_merge(const rp_guide_params *params, const rp_guide_merge *m)
{
    const size_t n = (size_t)m->c * (size_t)m->h * (size_t)m->w;

    if (m->n_branches == 1) {
        rp_guide_none.merge(params, m);
        return;
    }
    m->vec->project(m->vec->self, m->preds[0], m->preds[1], n, m->room);
    rp_guide_cfg_merge(params, m, m->room);
}

const rp_guider rp_guide_cfg_zero_star = {
    .name = "cfg_zero_star",
    .help = "CFG-Zero*: the negative prediction scaled to fit the positive one first, 2 units",
    .plan = rp_guide_cfg_plan,
    .merge = cfg_zero_star_merge,
};
