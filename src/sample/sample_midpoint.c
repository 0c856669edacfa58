/*
 * sample_midpoint.c - x(s1) = x(s0) + (s1 - s0) v(x + (sm - s0) v(x, s0), sm), sm = (s0 + s1) / 2.
 *
 * Second order, two calls a step: the solver of the Lumina-Image 2.0 repository
 * (github.com/Alpha-VLLM/Lumina-Image-2.0, transport, "midpoint" of torchdiffeq).
 */
#include "sample/sample_rows.h"

#include "base/check.h"

static float middle(const float *sigma, int step)
{
    return 0.5f * (sigma[step] + sigma[step + 1]);
}

static int midpoint_plan(const float *sigma, int n_steps, float *eval_sigma, int *eval_step)
{
    for (int i = 0; i < n_steps; i++) {
        if (eval_sigma != NULL) {
            eval_sigma[2 * i] = sigma[i];
            eval_sigma[2 * i + 1] = middle(sigma, i);
        }
        if (eval_step != NULL) {
            eval_step[2 * i] = eval_step[2 * i + 1] = i;
        }
    }
    return 2 * n_steps;
}

static rp_status midpoint_step(const rp_sample_state *state, int step, int first_eval)
{
    const float dt = state->sigma[step + 1] - state->sigma[step];
    const float to_middle = middle(state->sigma, step) - state->sigma[step];
    const size_t n = state->n;
    float *velocity = state->velocity, *ahead = state->work;

    RP_TRY(state->denoise(state->arg, first_eval, state->x, velocity));
    rp_vec_two(state->vec, ahead, n, 1.0f, state->x, to_middle, velocity);
    RP_TRY(state->denoise(state->arg, first_eval + 1, ahead, velocity));
    rp_vec_two(state->vec, state->x, n, 1.0f, state->x, dt, velocity);
    return RP_OK;
}

const rp_sampler rp_sample_midpoint = {
    .name = "midpoint",
    .help = "second order, 2 model calls a step",
    .n_work = 1,
    .plan = midpoint_plan,
    .step = midpoint_step,
};
