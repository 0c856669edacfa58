/*
 * ctrl_wait.h - how to wait for something that must be polled.
 *
 * Spin for 50 us (a message that is already under way), then give the core away between looks, then
 * sleep 20 us growing to 200 us. A rank without work costs 4 to 12 % of a core (what looking at MPI
 * costs) and answers within a fifth of a millisecond; a rank that computes on the same core is not
 * disturbed. A rank with cores of its own stays awake longer.
 */
#ifndef RP_CTRL_WAIT_H
#define RP_CTRL_WAIT_H

#include <stdbool.h>

typedef struct {
    double start_s; /* of the first pause; < 0 before it */
} rp_ctrl_wait;

/* #define-d as a value: rp_ctrl_wait wait = RP_CTRL_WAIT_INIT; while (!done())
 * rp_ctrl_wait_pause(&wait); */
#define RP_CTRL_WAIT_INIT                                                                          \
    {                                                                                              \
        .start_s = -1.0                                                                            \
    }

/* Wait a little, longer from call to call. Cannot fail. */
void rp_ctrl_wait_pause(rp_ctrl_wait *wait);

/* How long the next pause of a wait that began waited_s ago sleeps, in microseconds; 0: not at all,
 * it spins or yields. Pure, but for the call below. */
unsigned rp_ctrl_wait_sleep_us(double waited_s);

/* For the whole process, before or between waits: do this rank's computations leave its cores free,
 * and are there enough for all ranks that may run on them? Then it yields for 5 ms instead of 1,
 * and its sleeps grow slower. false at the start. */
void rp_ctrl_wait_own_cores(bool own);

/* Once per process: let short sleeps of this thread be short (the kernel adds 50 us by default). */
void rp_ctrl_wait_sharpen(void);

#endif
