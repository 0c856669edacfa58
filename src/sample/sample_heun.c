/*
 * sample_heun.c - the trapezoid rule: x(s1) = x(s0) + (s1 - s0) / 2 (v(x, s0) + v(x + (s1 - s0) v,
 * s1)).
 *
 * Second order, two calls a step; the step to 0 is Euler's, since models are not trained at 0
 * (Karras et al. 2022, arXiv:2206.00364, algorithm 1).
 */
#include "sample/sample_rows.h"

#include "base/check.h"

static int heun_plan(const float *sigma, int n_steps, float *eval_sigma, int *eval_step)
{
    int count = 0;

    for (int i = 0; i < n_steps; i++) {
        const int n_evals = sigma[i + 1] > 0.0f ? 2 : 1;
        for (int k = 0; k < n_evals; k++, count++) {
            if (eval_sigma != NULL) {
                eval_sigma[count] = sigma[i + k];
            }
            if (eval_step != NULL) {
                eval_step[count] = i;
            }
        }
    }
    return count;
}

/* x changes after the last call only, so that a failed step can be done again. */
static rp_status heun_step(const rp_sample_state *state, int step, int first_eval)
{
    const float dt = state->sigma[step + 1] - state->sigma[step], half = 0.5f * dt;
    const size_t n = state->n;
    float *begin = state->work, *ahead = begin + n, *end = state->velocity;

    RP_TRY(state->denoise(state->arg, first_eval, state->x, begin));
    if (!(state->sigma[step + 1] > 0.0f)) {
        rp_vec_two(state->vec, state->x, n, 1.0f, state->x, dt, begin);
        return RP_OK;
    }
    rp_vec_two(state->vec, ahead, n, 1.0f, state->x, dt, begin);
    RP_TRY(state->denoise(state->arg, first_eval + 1, ahead, end));
    rp_vec_two(state->vec, end, n, 1.0f, begin, 1.0f, end);
    rp_vec_two(state->vec, state->x, n, 1.0f, state->x, half, end);
    return RP_OK;
}

const rp_sampler rp_sample_heun = {
    .name = "heun",
    .help = "second order, 2 model calls a step (1 in the last)",
    .n_work = 2,
    .plan = heun_plan,
    .step = heun_step,
};
