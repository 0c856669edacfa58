/*
 * sample_dpmpp_2m.c - DPM-Solver++(2M): second order with one call a step, from the clean picture
 * that the step before predicted.
 *
 * Lu et al. 2022, arXiv:2211.01095, algorithm 2, for flow matching: x = (1 - s) x0 + s noise, so
 * alpha = 1 - s, lambda = log((1 - s) / s), and the prediction of x0 is x - s v. A step is
 *
 *     x(s1) = s1/s0 x(s0) + (1 - s1/s0) D        (alpha1 (1 - exp(-h)) = 1 - s1/s0, h = lambda1 -
 * lambda0) D     = x0 + h / (2 h_before) (x0 - x0_before)
 *
 * D = x0 (first order) in the first step, which has no step before; in the second when the first
 * began at s = 1, where h_before is infinite; and in the step to 0, where h is.
 */
#include "sample/sample_rows.h"

#include "base/check.h"

#include <math.h>

static double lambda(float sigma)
{
    return log((1.0 - sigma) / sigma);
}

/* Weight of (x0 - x0_before). Where a lambda is infinite, or levels are equal, it is none. */
static float extrapolation(const float *sigma, int step)
{
    if (step == 0) {
        return 0.0f;
    }
    const double h = lambda(sigma[step + 1]) - lambda(sigma[step]);
    const double h_before = lambda(sigma[step]) - lambda(sigma[step - 1]);
    const double weight = h / (2.0 * h_before);

    return isfinite(weight) ? (float)weight : 0.0f;
}

static rp_status dpmpp_2m_step(const rp_sample_state *state, int step, int first_eval)
{
    const float sigma = state->sigma[step], sigma_next = state->sigma[step + 1];
    const float keep = sigma > 0.0f ? sigma_next / sigma : 1.0f;
    const float extra = extrapolation(state->sigma, step);
    const rp_vec *vec = state->vec;
    const size_t n = state->n;
    float *clean = state->velocity, *before = state->work, *x = state->x;

    RP_TRY(state->denoise(state->arg, first_eval, x, clean));
    rp_vec_two(vec, clean, n, 1.0f, x, -sigma, clean); /* from here on not the velocity */
    rp_vec_two(vec, before, n, 1.0f, clean, -1.0f, before);
    rp_vec_two(vec, before, n, 1.0f, clean, extra, before); /* D */
    rp_vec_two(vec, x, n, keep, x, 1.0f - keep, before);
    rp_vec_copy(vec, before, n, clean);
    return RP_OK;
}

const rp_sampler rp_sample_dpmpp_2m = {
    .name = "dpmpp_2m",
    .help = "second order, 1 model call a step, remembers the step before",
    .n_work = 1,
    .plan = rp_sample_plan_one,
    .step = dpmpp_2m_step,
};
