/* trace.c - when this process did what. */
#include "base/trace.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>

rp_status rp_trace_start(rp_trace *t, int room)
{
    t->on = 0;
    t->n = t->lost = 0;
    if (room > t->capacity) {
        rp_trace_free(t);
        RP_TRY(rp_mem_new((size_t)room, sizeof(*t->spans), "a trace", (void **)&t->spans));
        t->capacity = room;
    }
    t->room = room;
    t->on = room > 0;
    return RP_OK;
}

void rp_trace_free(rp_trace *t)
{
    free(t->spans);
    *t = (rp_trace){0};
}

double rp_trace_begin(const rp_trace *t)
{
    return t != NULL && t->on ? rp_clock_now() : 0;
}

void rp_trace_end(rp_trace *t, double begin, rp_trace_what what, rp_trace_of of)
{
    if (t == NULL || !t->on || !(begin > 0)) {
        return;
    }
    if (t->n == t->room) {
        t->lost++;
        return;
    }
    t->spans[t->n++] =
        (rp_span){.begin = begin, .end = rp_clock_now(), .what = (int32_t)what, .of = of};
}

const char *rp_trace_name(int what)
{
    static const char *const names[RP_N_TRACE] = {
        [RP_TRACE_SAMPLE] = "sample", [RP_TRACE_SCATTER] = "scatter", [RP_TRACE_UNIT] = "unit",
        [RP_TRACE_GATHER] = "gather", [RP_TRACE_MERGE] = "merge",     [RP_TRACE_DECODE] = "decode",
        [RP_TRACE_WAIT] = "wait",
    };

    return what >= 0 && what < RP_N_TRACE ? names[what] : "unknown";
}
