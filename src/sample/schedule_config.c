/*
 * schedule_config.c - scheduler_config.json: read, check, refuse what is not implemented.
 */
#include "sample/schedule.h"

#include "base/check.h"
#include "base/log.h"
#include "weights/config.h"

#include <math.h>
#include <string.h>

#define CLASS "FlowMatchEulerDiscreteScheduler"

static rp_status check_supported(rp_config *config, const char *dir)
{
    static const char *const off[] = {"use_beta_sigmas", "invert_sigmas", "stochastic_sampling"};
    const char *class_name = rp_config_text(config, "_class_name", NULL);

    if (class_name[0] != '\0' && strcmp(class_name, CLASS) != 0) {
        return RP_FAIL(RP_E_UNSUP, "%s: scheduler is %s; supported: " CLASS, dir, class_name);
    }
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        if (rp_config_bool(config, off[i], false)) {
            return RP_FAIL(RP_E_UNSUP, "%s: scheduler has %s true; only false is supported", dir,
                           off[i]);
        }
    }
    return RP_OK;
}

static void read_shift(rp_config *config, rp_flow_config *out)
{
    const char *type = rp_config_text(config, "time_shift_type", "exponential");

    /* defaults: diffusers' constructor */
    out->shift = rp_config_real(config, "shift", 1e-3, 1e3, 1.0);
    out->use_dynamic_shifting = rp_config_bool(config, "use_dynamic_shifting", false);
    out->exponential_shift = strcmp(type, "linear") != 0;
    out->base_shift = rp_config_real(config, "base_shift", -20, 20, 0.5);
    out->max_shift = rp_config_real(config, "max_shift", -20, 20, 1.15);
    out->base_image_seq_len = (int)rp_config_int(config, "base_image_seq_len", 1, 1 << 24, 256);
    out->max_image_seq_len = (int)rp_config_int(config, "max_image_seq_len", 1, 1 << 24, 4096);
    out->shift_terminal = rp_config_real(config, "shift_terminal", 0, 0.999, 0);
    if (strcmp(type, "linear") != 0 && strcmp(type, "exponential") != 0) {
        rp_config_refuse(config, "time_shift_type", "\"exponential\" or \"linear\"");
    }
    if (out->max_image_seq_len == out->base_image_seq_len) {
        rp_config_refuse(config, "max_image_seq_len", "another number than base_image_seq_len");
    }
}

rp_status rp_flow_config_read(const char *dir, rp_flow_config *out)
{
    rp_status st = RP_OK;
    rp_config *config = NULL;
    rp_flow_config flow = {0};

    RP_TRY_OUT(rp_config_open(dir, "scheduler_config.json", &config));
    RP_TRY_OUT(check_supported(config, dir));
    read_shift(config, &flow);
    flow.use_karras_sigmas = rp_config_bool(config, "use_karras_sigmas", false);
    flow.use_exponential_sigmas = rp_config_bool(config, "use_exponential_sigmas", false);
    flow.num_train_timesteps = (int)rp_config_int(config, "num_train_timesteps", 1, 1 << 20, 1000);
    if (flow.use_karras_sigmas && flow.use_exponential_sigmas) {
        rp_config_refuse(config, "use_karras_sigmas", "false when use_exponential_sigmas is true");
    }
    RP_TRY_OUT(rp_config_finish(config));
    *out = flow;

out:
    rp_config_close(config);
    return st;
}
