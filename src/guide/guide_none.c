/* guide_none.c - no guidance: the positive prediction as it is. */
#include "guide/guide_rows.h"

#include <stddef.h>
#include <string.h>

static int none_plan(const rp_guide_params *params, int step, int n_steps, int *branches)
{
    (void)params;
    (void)step;
    (void)n_steps;
    branches[0] = RP_BRANCH_POSITIVE;
    return 1;
}

static void none_merge(const rp_guide_params *params, const float *const *preds, int n_branches,
                       int c, int h, int w, float *out)
{
    (void)params;
    (void)n_branches;
    if (out != preds[0]) {
        memcpy(out, preds[0], sizeof(*out) * (size_t)c * (size_t)h * (size_t)w);
    }
}

const rp_guider rp_guide_none = {
    .name = "none",
    .help = "the prompt's prediction as it is, 1 unit",
    .plan = none_plan,
    .merge = none_merge,
};
