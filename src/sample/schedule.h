/*
 * schedule.h - which noise levels a job steps through.
 *
 * A schedule turns the scheduler config of the pipeline, the number of steps and the latent's size into
 * sigma[steps + 1], falling from 1 (noise) to 0. Adding one: sched_<name>.c, one line in
 * schedule_list.c.
 */
#ifndef RP_SCHEDULE_H
#define RP_SCHEDULE_H

#include <rankpool/status.h>

#include <stdbool.h>

/* scheduler_config.json of FlowMatchEulerDiscreteScheduler, and what the job adds. */
typedef struct {
    float shift;               /* static: s -> shift s / (1 + (shift - 1) s) */
    bool use_dynamic_shifting; /* s -> time_shift(mu, 1, s), mu from the latent's size */
    bool exponential_shift;    /* time_shift_type: "exponential" (true) or "linear" */
    float base_shift, max_shift;
    int base_image_seq_len, max_image_seq_len;
    float shift_terminal;      /* 0: none */
    bool use_karras_sigmas, use_exponential_sigmas; /* as diffusers, after the shift */
    int num_train_timesteps;   /* 1000 */
    int image_seq_len;         /* what diffusers' Lumina2Pipeline gives calculate_shift: set by the job */
} rp_flow_config;

typedef struct {
    const char *name; /* as in --schedule */
    const char *help;
    /* sigma [n_steps + 1]; n_steps >= 1. Bit-equal to diffusers' scheduler.sigmas for "flow". */
    rp_status (*fill)(const rp_flow_config *config, int n_steps, float *sigma);
} rp_schedule;

/* Read `dir`/scheduler_config.json. RP_E_IO, RP_E_FORMAT; RP_E_UNSUP for a class or option that is not
 * implemented, with what is. */
rp_status rp_flow_config_read(const char *dir, rp_flow_config *out);

extern const rp_schedule *const rp_schedule_list[]; /* ended by NULL; the first is the default */

#endif
