/* sample_list.c - all samplers; the first is the default. */
#include "sample/sample.h"

#include "sample/sample_rows.h"

#include <stddef.h>

const rp_sampler *const rp_sampler_list[] = {
    &rp_sample_euler, &rp_sample_heun, &rp_sample_midpoint, &rp_sample_dpmpp_2m, NULL,
};
