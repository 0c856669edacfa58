/* guide_none.c - no guidance: the positive prediction as it is. */
#include "guide/guide_rows.h"

#include <stddef.h>

static int none_plan(const rp_guide_params *params, int step, int n_steps, int *branches)
{
    (void)params;
    (void)step;
    (void)n_steps;
    branches[0] = RP_BRANCH_POSITIVE;
    return 1;
}

static void none_merge(const rp_guide_params *params, const rp_guide_merge *m)
{
    (void)params;
    if (m->out != m->preds[0]) {
        rp_vec_copy(m->vec, m->out, (size_t)m->c * (size_t)m->h * (size_t)m->w, m->preds[0]);
    }
}

const rp_guider rp_guide_none = {
    .name = "none",
    .help = "the prompt's prediction as it is, 1 unit",
    .plan = none_plan,
    .merge = none_merge,
};
