/*
 * pool_speed.h - how fast each rank has been, and placements that use it. Rank 0 only.
 *
 * A rank's pace is the moving median of seconds per cost over the last waves in which it had units.
 * Ranks that are about equal keep the placement of equal ranks: another one is taken only when it
 * promises to end the wave sooner by RP_SPEED_GAIN. Placement never changes a bit of the outputs.
 */
#ifndef RP_POOL_SPEED_H
#define RP_POOL_SPEED_H

#include "pool/pool.h"

#include <stdbool.h>

#define RP_SPEED_WAVES  9    /* in the median */
#define RP_SPEED_KNOWN  3    /* waves before a pace counts: one odd one among them does no harm */
#define RP_SPEED_FORGET 64   /* waves without a unit until a rank is tried again */
#define RP_SPEED_GAIN   0.05 /* of a wave's time; less is noise */
#define RP_SPEED_LEAST  1e-4 /* seconds of a unit; less tells of the scheduler, not the rank */

typedef struct {
    double seconds[RP_SPEED_WAVES]; /* per cost; a ring */
    int n, next;
    int rest;   /* waves without a unit since the last one with */
    bool begun; /* the first wave, in which plans are made and pages come, is not counted */
} rp_pace;

typedef struct {
    int n_ranks;
    rp_pace *pace; /* [n_ranks] */
    double *now;   /* [n_ranks] speeds as measured */
    double *used;  /* [n_ranks] speeds that placements are made with */
} rp_speed;

/* One wave: `seconds` for units of `cost` in all; cost 0: it had none. */
void rp_pace_add(rp_pace *pace, double seconds, double cost);
/* Seconds per cost; 0 while it is not known. */
double rp_pace_median(const rp_pace *pace);

/* RP_E_NOMEM. Free with rp_speed_free, also after a failure. */
rp_status rp_speed_new(int n_ranks, rp_speed *out);
void rp_speed_free(rp_speed *speed);

/* Place a wave: rank_of [n_units]; trial [n_units] is scratch. A rank of no known pace counts as
 * the median of the others. Allocates nothing. */
void rp_speed_place(rp_speed *speed, const rp_unit *units, int n_units, int *rank_of, int *trial);

/* What the ranks did in a wave placed as rank_of: busy [n_ranks] seconds. */
void rp_speed_learn(rp_speed *speed, const rp_unit *units, int n_units, const int *rank_of,
                    const double *busy);

#endif
