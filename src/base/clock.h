/* clock.h - monotonic time. */
#ifndef RP_CLOCK_H
#define RP_CLOCK_H

/* Seconds since some fixed point of this machine; never goes back. Thread-safe, no error. */
double rp_clock_now(void);

/* Sleep, at least this long. */
void rp_clock_sleep_us(unsigned us);

#endif
