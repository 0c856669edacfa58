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

static float projection(const float *cond, const float *uncond, size_t n)
{
    double dot = 0, square = 0;

    for (size_t i = 0; i < n; i++) {
        dot += (double)cond[i] * uncond[i];
        square += (double)uncond[i] * uncond[i];
    }
    return (float)(dot / (square + 1e-8));
}

static void cfg_zero_star_merge(const rp_guide_params *params, const float *const *preds,
                                int n_branches, int c, int h, int w, float *out)
{
    if (n_branches == 1) {
        rp_guide_none.merge(params, preds, n_branches, c, h, w, out);
        return;
    }
    const size_t n_rows = (size_t)c * (size_t)h;
    const float factor = projection(preds[0], preds[1], n_rows * (size_t)w);

    for (size_t row = 0; row < n_rows; row++) {
        const size_t at = row * (size_t)w;
        rp_guide_cfg_row(params, factor, preds[0] + at, preds[1] + at, w, out + at);
    }
}

const rp_guider rp_guide_cfg_zero_star = {
    .name = "cfg_zero_star",
    .help = "CFG-Zero*: the negative prediction scaled to fit the positive one first, 2 units",
    .plan = rp_guide_cfg_plan,
    .merge = cfg_zero_star_merge,
};
