/*
 * ctrl_wait.h - how to wait for something that must be polled.
 *
 * Spin for 50 us (a message that is already under way), then give the core away between looks, then
 * sleep 20 us growing to 200 us. A rank without work costs 4 to 12 % of a core (what looking at MPI
 * costs) and answers within a fifth of a millisecond; a rank that computes on the same core is not
 * disturbed.
 */
#ifndef RP_CTRL_WAIT_H
#define RP_CTRL_WAIT_H

typedef struct {
    double start_s;
    unsigned sleep_us;
} rp_ctrl_wait;

/* #define-d as a value: rp_ctrl_wait wait = RP_CTRL_WAIT_INIT; while (!done())
 * rp_ctrl_wait_pause(&wait); */
#define RP_CTRL_WAIT_INIT                                                                          \
    {                                                                                              \
        .start_s = -1.0, .sleep_us = 0                                                             \
    }

/* Wait a little, longer from call to call. Cannot fail. */
void rp_ctrl_wait_pause(rp_ctrl_wait *wait);

/* Once per process: let short sleeps of this thread be short (the kernel adds 50 us by default). */
void rp_ctrl_wait_sharpen(void);

#endif
