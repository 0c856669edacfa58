/*
 * sched_flow.c - the noise levels of a flow-matching pipeline, as its scheduler_config.json asks
 * for.
 *
 *     linspace(1, 1/n) -> shift (static or dynamic) -> stretch to the terminal -> karras |
 * exponential -> 0
 *
 * Source: diffusers, schedulers/scheduling_flow_match_euler_discrete.py (set_timesteps) and
 * pipelines/lumina2/pipeline_lumina2.py (calculate_shift). There arrays are float32 and settings
 * Python floats: every setting is worked out in double, rounded to float32 once, and meets the
 * array there. The order of operations below is theirs; it decides the last bit.
 */
#include "sample/sched.h"

#include "base/check.h"
#include "base/log.h"

#include <math.h>
#include <stddef.h>

double rp_sched_linspace(double first, double last, int n, int i)
{
    if (n == 1) {
        return first;
    }
    return i == n - 1 ? last : (double)i * ((last - first) / (n - 1)) + first;
}

/* s -> shift s / (1 + (shift - 1) s): Esser et al. 2024, arXiv:2403.03206, eq. 23. */
static void shift_static(double shift, int n_steps, float *sigma)
{
    const float factor = (float)shift, less_one = (float)(shift - 1.0);

    for (int i = 0; i < n_steps; i++) {
        sigma[i] = factor * sigma[i] / (1.0f + less_one * sigma[i]);
    }
}

/* s -> m / (m + 1/s - 1), m = exp(mu) or mu; mu is linear in the length of the sequence. */
static rp_status shift_dynamic(const rp_flow_config *config, int n_steps, float *sigma)
{
    const double slope = (config->max_shift - config->base_shift) /
                         (config->max_image_seq_len - config->base_image_seq_len);
    const double offset = config->base_shift - slope * config->base_image_seq_len;
    const double mu = config->image_seq_len * slope + offset;
    const float m = (float)(config->exponential_shift ? exp(mu) : mu);

    if (!(m > 0.0f) || !isfinite(m)) {
        return RP_FAIL(
            RP_E_ARG,
            "scheduler: shift of the noise levels is %g for a sequence of %d; it must be > 0",
            (double)m, config->image_seq_len);
    }
    for (int i = 0; i < n_steps; i++) {
        sigma[i] = m / (m + (1.0f / sigma[i] - 1.0f));
    }
    return RP_OK;
}

/* Stretch 1 - s so that the last level is shift_terminal. */
static rp_status stretch(double shift_terminal, int n_steps, float *sigma)
{
    const float last = 1.0f - sigma[n_steps - 1];
    const float factor = last / (float)(1.0 - shift_terminal);

    if (!(last > 0.0f)) {
        return RP_FAIL(RP_E_ARG, "scheduler: shift_terminal %g needs at least 2 steps, not %d",
                       shift_terminal, n_steps);
    }
    for (int i = 0; i < n_steps; i++) {
        sigma[i] = 1.0f - (1.0f - sigma[i]) / factor;
    }
    return RP_OK;
}

rp_status rp_sched_flow_fill(const rp_flow_config *config, int n_steps, float *sigma)
{
    if (n_steps < 1) {
        return RP_FAIL(RP_E_ARG, "%d steps; at least 1 is needed", n_steps);
    }
    for (int i = 0; i < n_steps; i++) {
        sigma[i] = (float)rp_sched_linspace(1.0, 1.0 / n_steps, n_steps, i);
    }
    if (config->use_dynamic_shifting) {
        RP_TRY(shift_dynamic(config, n_steps, sigma));
    } else {
        shift_static(config->shift, n_steps, sigma);
    }
    if (config->shift_terminal > 0) {
        RP_TRY(stretch(config->shift_terminal, n_steps, sigma));
    }
    if (config->use_karras_sigmas) {
        rp_sched_karras_spread(n_steps, sigma);
    } else if (config->use_exponential_sigmas) {
        rp_sched_exponential_spread(n_steps, sigma);
    }
    sigma[n_steps] = 0.0f;
    return RP_OK;
}

const rp_schedule rp_sched_flow = {
    .name = "flow",
    .help = "as the pipeline's scheduler config says",
    .fill = rp_sched_flow_fill,
};
