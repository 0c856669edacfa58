/* schedule_list.c - all schedules; the first is the default. */
#include "sample/schedule.h"

#include "sample/sched.h"

#include <stddef.h>

const rp_schedule *const rp_schedule_list[] = {
    &rp_sched_flow,
    &rp_sched_karras,
    &rp_sched_exponential,
    NULL,
};
