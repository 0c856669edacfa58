/* pool_speed.c - how fast each rank has been, and placements that use it. */
#include "pool/pool_speed.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* ---- one rank */

/* Sorts in place; n >= 1. Few values: by insertion, nothing is allocated. */
static double median(double *values, int n)
{
    for (int i = 1; i < n; i++) {
        const double value = values[i];
        int at = i;
        for (; at > 0 && values[at - 1] > value; at--) {
            values[at] = values[at - 1];
        }
        values[at] = value;
    }
    return 0.5 * (values[(n - 1) / 2] + values[n / 2]);
}

/* A rank that looked slow while its host was busy with something else would never get a unit again:
 * after a while its pace is forgotten, and it is tried like a new one. */
static void rest(rp_pace *pace)
{
    if (++pace->rest >= RP_SPEED_FORGET) {
        *pace = (rp_pace){.begun = pace->begun};
    }
}

void rp_pace_add(rp_pace *pace, double seconds, double cost)
{
    if (!(cost > 0)) {
        rest(pace);
        return;
    }
    pace->rest = 0;
    if (!pace->begun) {
        pace->begun = true;
        return;
    }
    pace->seconds[pace->next] = seconds / cost;
    pace->next = (pace->next + 1) % RP_SPEED_WAVES;
    pace->n += pace->n < RP_SPEED_WAVES;
}

double rp_pace_median(const rp_pace *pace)
{
    double sorted[RP_SPEED_WAVES];

    if (pace->n < RP_SPEED_KNOWN) {
        return 0;
    }
    memcpy(sorted, pace->seconds, sizeof(sorted));
    return median(sorted, pace->n);
}

/* ---- all ranks */

rp_status rp_speed_new(int n_ranks, rp_speed *out)
{
    const size_t n = (size_t)n_ranks;

    *out = (rp_speed){
        .n_ranks = n_ranks,
        .pace = calloc(n, sizeof(*out->pace)),
        .now = calloc(n, sizeof(*out->now)),
        .used = calloc(n, sizeof(*out->used)),
    };
    if (out->pace == NULL || out->now == NULL || out->used == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the speeds of %d ranks", n_ranks);
    }
    for (int r = 0; r < n_ranks; r++) {
        out->used[r] = 1;
    }
    return RP_OK;
}

void rp_speed_free(rp_speed *speed)
{
    free(speed->pace);
    free(speed->now);
    free(speed->used);
    *speed = (rp_speed){0};
}

/* Fills speed->now. Returns the fastest known pace, seconds per cost; 0 when none is known. */
static double measure(rp_speed *speed)
{
    double known[speed->n_ranks];
    int n = 0;

    for (int r = 0; r < speed->n_ranks; r++) {
        const double pace = rp_pace_median(&speed->pace[r]);
        speed->now[r] = pace > 0 ? 1 / pace : 0;
        if (pace > 0) {
            known[n++] = pace;
        }
    }
    if (n == 0) {
        return 0;
    }
    const double usual = median(known, n);
    for (int r = 0; r < speed->n_ranks; r++) {
        speed->now[r] = speed->now[r] > 0 ? speed->now[r] : 1 / usual;
    }
    return known[0];
}

/* When the last rank would be done. */
static double finish_of(const rp_speed *speed, const rp_unit *units, int n_units,
                        const int *rank_of)
{
    double load[speed->n_ranks];
    double last = 0;

    memset(load, 0, sizeof(load));
    for (int i = 0; i < n_units; i++) {
        const int r = rank_of[i];
        load[r] += units[i].cost / speed->now[r];
        last = load[r] > last ? load[r] : last;
    }
    return last;
}

static double cost_of(const rp_unit *units, int n_units)
{
    double cost = 0;

    for (int i = 0; i < n_units; i++) {
        cost += units[i].cost;
    }
    return cost;
}

void rp_speed_place(rp_speed *speed, const rp_unit *units, int n_units, int *rank_of, int *trial)
{
    rp_pool_assign(units, n_units, speed->used, speed->n_ranks, rank_of);
    if (speed->n_ranks == 1 ||
        measure(speed) * cost_of(units, n_units) < RP_SPEED_LEAST * n_units || n_units == 0) {
        return;
    }
    rp_pool_assign(units, n_units, speed->now, speed->n_ranks, trial);
    if (finish_of(speed, units, n_units, trial) <
        (1 - RP_SPEED_GAIN) * finish_of(speed, units, n_units, rank_of)) {
        memcpy(speed->used, speed->now, (size_t)speed->n_ranks * sizeof(*speed->used));
        memcpy(rank_of, trial, (size_t)n_units * sizeof(*rank_of));
    }
}

void rp_speed_learn(rp_speed *speed, const rp_unit *units, int n_units, const int *rank_of,
                    const double *busy)
{
    double cost[speed->n_ranks];

    memset(cost, 0, sizeof(cost));
    for (int i = 0; i < n_units; i++) {
        cost[rank_of[i]] += units[i].cost;
    }
    for (int r = 0; r < speed->n_ranks; r++) {
        rp_pace_add(&speed->pace[r], busy[r], cost[r]);
    }
}
