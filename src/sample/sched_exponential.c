/*
 * sched_exponential.c - noise levels evenly spaced in log(sigma).
 */
#include "sample/sched.h"

#include <math.h>

void rp_sched_exponential_spread(int n_steps, float *sigma)
{
    const double high = log(sigma[0]), low = log(sigma[n_steps - 1]);

    for (int i = 0; i < n_steps; i++) {
        sigma[i] = (float)exp(rp_sched_linspace(high, low, n_steps, i));
    }
}

static rp_status exponential_fill(const rp_flow_config *config, int n_steps, float *sigma)
{
    rp_flow_config forced = *config;

    forced.use_karras_sigmas = false;
    forced.use_exponential_sigmas = true;
    return rp_sched_flow_fill(&forced, n_steps, sigma);
}

const rp_schedule rp_sched_exponential = {
    .name = "exponential",
    .help = "between the same ends, evenly spaced in log(sigma)",
    .fill = exponential_fill,
};
