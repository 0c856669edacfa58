/*
 * sched_karras.c - noise levels evenly spaced in sigma^(1/7): Karras et al. 2022, arXiv:2206.00364,
 * eq. 5.
 */
#include "sample/sched.h"

#include <math.h>

#define RHO 7.0

void rp_sched_karras_spread(int n_steps, float *sigma)
{
    const double high = pow(sigma[0], 1.0 / RHO), low = pow(sigma[n_steps - 1], 1.0 / RHO);

    for (int i = 0; i < n_steps; i++) {
        const double ramp = rp_sched_linspace(0.0, 1.0, n_steps, i);
        sigma[i] = (float)pow(high + ramp * (low - high), RHO);
    }
}

static rp_status karras_fill(const rp_flow_config *config, int n_steps, float *sigma)
{
    rp_flow_config forced = *config;

    forced.use_karras_sigmas = true;
    forced.use_exponential_sigmas = false;
    return rp_sched_flow_fill(&forced, n_steps, sigma);
}

const rp_schedule rp_sched_karras = {
    .name = "karras",
    .help = "between the same ends, evenly spaced in sigma^(1/7)",
    .fill = karras_fill,
};
