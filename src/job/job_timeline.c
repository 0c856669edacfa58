/* job_timeline.c - when this rank's units ran: marks, gaps between units, a trace for people. */
#include "job/job_timeline.h"

#include "base/check.h"
#include "base/mem.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>

/* ---- marks: unit i has 2 i and 2 i + 1 */

void rp_timeline_free(rp_timeline *t)
{
    free(t->units);
    free(t->ms);
    *t = (rp_timeline){0};
}

rp_status rp_timeline_reserve(rp_timeline *t, const rp_backend *backend, size_t n_units)
{
    const int room = n_units < RP_TIMELINE_UNITS ? (int)n_units : RP_TIMELINE_UNITS;
    rp_timeline grown = {.room = room};

    if (room <= t->room) {
        return RP_OK;
    }
    rp_status st = RP_OK;
    RP_TRY_OUT(rp_mem_new((size_t)room, sizeof(*t->units), "a timeline", (void **)&grown.units));
    RP_TRY_OUT(rp_mem_new(2 * (size_t)room, sizeof(*t->ms), "a timeline", (void **)&grown.ms));
    RP_TRY_OUT(backend->ops->marks_reserve(backend->self, 2 * room));
    rp_timeline_free(t);
    *t = grown;
    return RP_OK;
out:
    rp_timeline_free(&grown);
    return st;
}

int rp_timeline_begin(rp_timeline *t, const rp_backend *backend, const rp_unit *unit, int eval)
{
    if (t->n >= t->room) {
        return -1;
    }
    t->units[t->n] = (rp_timed_unit){.eval = eval, .image = unit->input, .cond = unit->cond};
    backend->ops->mark(backend->self, 2 * t->n);
    return t->n++;
}

void rp_timeline_end(const rp_backend *backend, int which)
{
    if (which >= 0) {
        backend->ops->mark(backend->self, 2 * which + 1);
    }
}

rp_status rp_timeline_wait(rp_timeline *t, const rp_backend *backend)
{
    /* units without marks: for everything */
    const int mark = t->n_ended < t->n ? 2 * t->n_ended++ + 1 : -1;

    return backend->ops->wait(backend->self, mark);
}

rp_status rp_timeline_read(rp_timeline *t, const rp_backend *backend, const int *eval_step)
{
    RP_TRY(backend->ops->marks_read(backend->self, 2 * t->n, t->ms));
    for (int i = 0; i < t->n; i++) {
        t->units[i].step = eval_step[t->units[i].eval];
        t->units[i].begin_ms = t->ms[2 * i];
        t->units[i].end_ms = t->ms[2 * i + 1];
    }
    return RP_OK;
}

/* ---- gaps */

int rp_timeline_gaps(const rp_timed_unit *units, int n, double *gaps)
{
    int n_gaps = 0;

    for (int i = 1; i < n; i++) {
        if (units[i - 1].step > 0) {
            gaps[n_gaps++] = 1e3 * (units[i].begin_ms - units[i - 1].end_ms);
        }
    }
    return n_gaps;
}

/* ---- JSON */

static bool num(cJSON *to, const char *key, double value)
{
    return cJSON_AddNumberToObject(to, key, value) != NULL;
}

/* {"name", "ph", "pid": 0, "tid": 0} in the list; NULL when out of memory. */
static cJSON *add_event(cJSON *list, const char *name, const char *phase)
{
    cJSON *event = cJSON_CreateObject();

    if (event == NULL || !cJSON_AddItemToArray(list, event)) {
        cJSON_Delete(event);
        return NULL;
    }
    const bool ok = cJSON_AddStringToObject(event, "name", name) != NULL &&
                    cJSON_AddStringToObject(event, "ph", phase) != NULL && num(event, "pid", 0) &&
                    num(event, "tid", 0);
    return ok ? event : NULL;
}

static bool add_title(cJSON *list)
{
    cJSON *event = add_event(list, "process_name", "M");
    cJSON *args = event != NULL ? cJSON_AddObjectToObject(event, "args") : NULL;

    return args != NULL && cJSON_AddStringToObject(args, "name", "rank 0") != NULL;
}

static bool add_unit(cJSON *list, const rp_timed_unit *u)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "image %d, condition %d", (int)u->image, (int)u->cond);
    cJSON *event = add_event(list, name, "X");
    if (event == NULL || !num(event, "ts", 1e3 * u->begin_ms) ||
        !num(event, "dur", 1e3 * (u->end_ms - u->begin_ms))) {
        return false;
    }
    cJSON *args = cJSON_AddObjectToObject(event, "args");
    return args != NULL && num(args, "step", u->step) && num(args, "call", u->eval);
}

char *rp_timeline_json(const rp_timed_unit *units, int n)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *list = root != NULL ? cJSON_AddArrayToObject(root, "traceEvents") : NULL;
    bool ok = list != NULL && cJSON_AddStringToObject(root, "displayTimeUnit", "ms") != NULL &&
              add_title(list);

    for (int i = 0; ok && i < n; i++) {
        ok = add_unit(list, &units[i]);
    }
    char *text = ok ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    return text;
}
