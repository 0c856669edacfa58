/* guide_list.c - all guiders; the first is the default. */
#include "guide/guide.h"

#include "guide/guide_rows.h"

#include <stddef.h>

const rp_guider *const rp_guider_list[] = {
    &rp_guide_cfg,
    &rp_guide_cfg_zero_star,
    &rp_guide_none,
    NULL,
};
