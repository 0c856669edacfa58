/* job_tell.c - what fails on rank 0 outside of units is told as the pool tells of units. */
#include "job/job.h"

#include "base/check.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

bool rp_job_listen(void)
{
    char text[RP_LOG_LINE_BYTES];

    rp_log_take(text, sizeof(text)); /* an older error is not this one's */
    return rp_log_hold(true);
}

rp_status rp_job_tell(const rp_job *job, bool held, rp_status st, const char *format, ...)
{
    char text[RP_LOG_LINE_BYTES], where[128];
    va_list args;

    (void)rp_log_hold(held);
    rp_log_take(text, sizeof(text));
    if (st != RP_OK && text[0] != '\0') {
        va_start(args, format);
        (void)vsnprintf(where, sizeof(where), format, args);
        va_end(args);
        RP_ERROR("rank 0 on host %s: %s: %s", rp_ctrl_host(job->pool->ctrl, 0), where, text);
    }
    return st;
}
