/*
 * sample_euler.c - x(s1) = x(s0) + (s1 - s0) v(x, s0). First order, one call a step.
 *
 * float32 in the order of diffusers' FlowMatchEulerDiscreteScheduler.step.
 */
#include "sample/sample_rows.h"

#include "base/check.h"

int rp_sample_plan_one(const float *sigma, int n_steps, float *eval_sigma, int *eval_step)
{
    for (int i = 0; i < n_steps; i++) {
        if (eval_sigma != NULL) {
            eval_sigma[i] = sigma[i];
        }
        if (eval_step != NULL) {
            eval_step[i] = i;
        }
    }
    return n_steps;
}

static rp_status euler_step(const rp_sample_state *state, int step, int first_eval)
{
    const float dt = state->sigma[step + 1] - state->sigma[step];
    float *velocity = state->velocity;

    RP_TRY(state->denoise(state->arg, first_eval, state->x, velocity));
    rp_vec_two(state->vec, state->x, state->n, 1.0f, state->x, dt, velocity);
    return RP_OK;
}

const rp_sampler rp_sample_euler = {
    .name = "euler",
    .help = "first order, 1 model call a step",
    .n_work = 0,
    .plan = rp_sample_plan_one,
    .step = euler_step,
};
