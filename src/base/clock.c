/* clock.c - monotonic time. */
#include "base/clock.h"

#include <time.h>

double rp_clock_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void rp_clock_sleep_us(unsigned us)
{
    const struct timespec t = {.tv_sec = us / 1000000u, .tv_nsec = (long)(us % 1000000u) * 1000L};

    (void)nanosleep(&t, NULL);
}
