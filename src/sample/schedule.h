/*
 * schedule.h - which noise levels a job steps through.
 *
 * A schedule turns the scheduler config of the pipeline, the number of steps and the latent's size
 * into sigma[steps + 1], falling from 1 (noise) to 0. Adding one: sched_<name>.c, one line in
 * schedule_list.c.
 */
#ifndef RP_SCHEDULE_H
#define RP_SCHEDULE_H

#include <rankpool/status.h>

#include <stdbool.h>

/* scheduler_config.json of FlowMatchEulerDiscreteScheduler, and what the job adds. */
typedef struct {
    double shift;              /* static: s -> shift s / (1 + (shift - 1) s); > 0 */
    bool use_dynamic_shifting; /* s -> time_shift(mu, 1, s), mu from the latent's size */
    bool exponential_shift;    /* time_shift_type: "exponential" (true) or "linear" */
    double base_shift, max_shift;
    int base_image_seq_len, max_image_seq_len;
    double shift_terminal;                          /* 0: none */
    bool use_karras_sigmas, use_exponential_sigmas; /* as diffusers, after the shift */
    int num_train_timesteps;                        /* 1000 */
    /* What Lumina2Pipeline gives calculate_shift, set by the job (0 from rp_flow_config_read): it
     * passes latents.shape[1], which for its latents [images, c, h, w] is c, the number of latent
     * channels (16), and not a number of tokens. So mu does not change with the picture's size. */
    int image_seq_len;
} rp_flow_config;

typedef struct {
    const char *name; /* as in --schedule */
    const char *help;
    /* sigma [n_steps + 1]; n_steps >= 1. Bit-equal to diffusers' scheduler.sigmas for
     * sigmas=np.linspace(1, 1 / n_steps, n_steps). RP_E_ARG (logged): n_steps < 1, or the config
     * leads to levels that do not fall from 1 to 0 (shift_terminal with one step, linear shift with
     * mu <= 0). */
    rp_status (*fill)(const rp_flow_config *config, int n_steps, float *sigma);
} rp_schedule;

/* Read `dir`/scheduler_config.json. RP_E_IO, RP_E_FORMAT; RP_E_UNSUP for a class or option that
 * rankpool does not have; the log names those it has. */
rp_status rp_flow_config_read(const char *dir, rp_flow_config *out);

extern const rp_schedule *const rp_schedule_list[]; /* ended by NULL; the first is the default */

#endif
