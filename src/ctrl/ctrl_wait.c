/* ctrl_wait.c - spin, then yield, then sleep. */
#include "ctrl/ctrl_wait.h"

#include "base/clock.h"

#include <sched.h>
#include <sys/prctl.h>

#define SPIN_S       50e-6
#define SLEEP_MIN_US 20.0
#define SLEEP_MAX_US 200.0
#define SLACK_NS     1000ul

/*
 * When sleeping begins, and how a sleep grows with the time already slept away: its share of that
 * is also the most that an answer is late, as a share of the wait.
 *
 * Shared cores: 200 us after 1.8 ms. A unit on a CPU takes tens of milliseconds of all cores, and
 * every look of a rank that waits takes some microseconds of them.
 *
 * Own cores: nobody else wants them, and a wave on GPUs is short: of a step of 42 ms, 200 us at
 * each of its two waits are 1 %. Merging, a sampler's step and messages take less than 5 ms, so
 * they are waited for awake; a rank that waits for another one's unit of 40 ms sleeps 200 us only
 * at its end (0.5 %). Without work a pool is as cheap as on shared cores.
 */
typedef struct {
    double yield_s, share;
} patience;

static const patience g_shared = {1e-3, 1.0 / 4}, g_own = {5e-3, 1.0 / 200};
static const patience *g_patience = &g_shared;

void rp_ctrl_wait_own_cores(bool own)
{
    g_patience = own ? &g_own : &g_shared;
}

unsigned rp_ctrl_wait_sleep_us(double waited_s)
{
    const double slept_s = waited_s - g_patience->yield_s;
    const double us = SLEEP_MIN_US + slept_s * 1e6 * g_patience->share;

    if (slept_s <= 0) {
        return 0;
    }
    return (unsigned)(us < SLEEP_MAX_US ? us : SLEEP_MAX_US);
}

void rp_ctrl_wait_pause(rp_ctrl_wait *wait)
{
    const double now = rp_clock_now();

    if (wait->start_s < 0) {
        wait->start_s = now;
    }
    const unsigned us = rp_ctrl_wait_sleep_us(now - wait->start_s);
    if (us > 0) {
        rp_clock_sleep_us(us);
    } else if (now - wait->start_s > SPIN_S) {
        (void)sched_yield();
    }
}

void rp_ctrl_wait_sharpen(void)
{
    (void)prctl(PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0);
}
