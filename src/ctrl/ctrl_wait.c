/* ctrl_wait.c - spin, then yield, then sleep. */
#include "ctrl/ctrl_wait.h"

#include "base/clock.h"

#include <sched.h>
#include <sys/prctl.h>

#define SPIN_S       50e-6
#define YIELD_S      1e-3
#define SLEEP_MIN_US 20u
#define SLEEP_MAX_US 200u
#define SLACK_NS     1000ul

void rp_ctrl_wait_pause(rp_ctrl_wait *wait)
{
    if (wait->sleep_us != 0) {
        rp_clock_sleep_us(wait->sleep_us);
        wait->sleep_us += wait->sleep_us / 4;
        wait->sleep_us = wait->sleep_us < SLEEP_MAX_US ? wait->sleep_us : SLEEP_MAX_US;
        return;
    }
    const double now = rp_clock_now();
    if (wait->start_s < 0) {
        wait->start_s = now;
    }
    if (now - wait->start_s > YIELD_S) {
        wait->sleep_us = SLEEP_MIN_US;
    } else if (now - wait->start_s > SPIN_S) {
        (void)sched_yield();
    }
}

void rp_ctrl_wait_sharpen(void)
{
    (void)prctl(PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0);
}
