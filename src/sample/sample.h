/*
 * sample.h - samplers: from predictions to the next latents.
 *
 * A sampler knows one function, `denoise`; it does not know guidance, models or ranks. Before the
 * job starts it says at which noise levels it will ask (plan), so that a model can prepare for all
 * of them. It computes on vectors (vec.h), which are in host or in device memory. Adding one:
 * sample_<name>.c with a row, one line in sample_list.c.
 */
#ifndef RP_SAMPLE_H
#define RP_SAMPLE_H

#include "base/vec.h"

#include <rankpool/status.h>

#include <stddef.h>

/* Velocity dx/dsigma of all latents x [n] at the eval-th planned noise level -> velocity [n]. */
typedef rp_status (*rp_denoise_fn)(void *arg, int eval, const float *x, float *velocity);

typedef struct {
    float *x; /* [n] latents of all images, updated in place */
    size_t n;
    const float *sigma; /* [n_steps + 1] */
    int n_steps;
    rp_denoise_fn denoise;
    void *arg;
    float *velocity;   /* [n] room for one prediction */
    float *work;       /* [n_work * n] kept between steps (history), zero before the first */
    const rp_vec *vec; /* arithmetic on all of these but sigma, in their memory */
} rp_sample_state;

typedef struct {
    const char *name; /* as in --sampler */
    const char *help;
    int n_work; /* how many buffers of the latents' size it needs */

    /* Noise levels of all model calls, in order: eval_sigma [count] and the step each belongs to,
     * eval_step [count] (either may be NULL). Returns count, at most 3 n_steps. */
    int (*plan)(const float *sigma, int n_steps, float *eval_sigma, int *eval_step);

    /* Do step `step`: x from sigma[step] to sigma[step + 1]. first_eval: index of its first model
     * call in the plan. Allocates nothing. Passes on what denoise returns. */
    rp_status (*step)(const rp_sample_state *state, int step, int first_eval);
} rp_sampler;

extern const rp_sampler *const rp_sampler_list[]; /* ended by NULL; the first is the default */

#endif
