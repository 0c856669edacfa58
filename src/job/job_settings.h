/*
 * job_settings.h - settings with their values read: what a job works with.
 */
#ifndef RP_JOB_SETTINGS_H
#define RP_JOB_SETTINGS_H

#include "guide/guide.h"
#include "job/job_options.h"
#include "sample/sample.h"
#include "sample/schedule.h"

#include <stdint.h>

struct rp_settings {
    char *text[RP_N_OPTIONS];     /* every value as text, checked when it was set */
    char *env_error;              /* what was wrong with the environment, or NULL */
    uint64_t picture_fingerprint; /* of the model that made the picture of set_png; 0: none */
};

/* Typed values; text is borrowed from the settings. */
typedef struct {
    const char *prompt, *negative, *system_prompt;
    const char *out, *latents_in, *latents_out, *report, *trace, *checkpoint;
    uint64_t seed;
    int images, width, height; /* width, height: 0 for the model's own */
    int steps, max_tokens, prompt_tokens;
    bool overwrite, softcap;
    double shift; /* 0: as the config says */
    rp_guide_params guide;
    const rp_guider *guider;
    const rp_sampler *sampler;
    const rp_schedule *schedule;
    char residency; /* 'r' run, 'j' job, 's' step */
} rp_job_params;

/* All values as a job reads them. RP_E_ARG when the environment was bad (logged). */
rp_status rp_job_params_read(const rp_settings *settings, rp_job_params *out);

/* One value; "" when not set. Borrowed. */
const char *rp_settings_text(const rp_settings *settings, rp_option_id id);
long rp_settings_int(const rp_settings *settings, rp_option_id id, long unset);
bool rp_settings_on(const rp_settings *settings, rp_option_id id);

/* JSON text {"name": value, ...} of all options with `flag` (0: all), numbers as numbers. `extra`
 * is put in front, pairs key, text, ..., NULL. Free with free(); NULL when out of memory. */
char *rp_settings_json(const rp_settings *settings, int flag, const char *const *extra);

#endif
