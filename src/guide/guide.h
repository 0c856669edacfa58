/*
 * guide.h - guidance: which predictions a step needs, and how to merge them into one.
 *
 * A guider never calls the model and never sees a rank: it says "evaluate these branches" (plan)
 * and later "here is the merged prediction" (merge). It computes on vectors (vec.h), in host or
 * device memory. Adding one: guide_<name>.c with a row, one line in guide_list.c.
 */
#ifndef RP_GUIDE_H
#define RP_GUIDE_H

#include "base/vec.h"

#include <rankpool/status.h>

#include <stdbool.h>

#define RP_GUIDE_BRANCHES 4

/* A branch is the index of the condition that it evaluates. */
enum { RP_BRANCH_POSITIVE = 0, RP_BRANCH_NEGATIVE = 1 };

typedef struct {
    float scale;       /* guidance scale; > 1 turns guidance on (diffusers) */
    bool renorm;       /* cfg_normalization */
    double truncation; /* cfg_trunc_ratio: guidance only while (step + 1) / n_steps <= this, in
                          double precision as in Python; 0.7 means the decimal fraction */
} rp_guide_params;

/* One image's predictions, all of it in the memory of vec. */
typedef struct {
    const rp_vec *vec;
    const float *const *preds; /* [n_branches] in the order of plan, each [c, h, w] */
    int n_branches;
    int c, h, w;
    float *out;  /* [c, h, w]; may be one of preds */
    float *room; /* [RP_VEC_ROOM] for sums */
} rp_guide_merge;

typedef struct {
    const char *name; /* as in --guider */
    const char *help;
    /* Branches of one step -> branches [RP_GUIDE_BRANCHES]; returns how many, at least 1. Pure. */
    int (*plan)(const rp_guide_params *params, int step, int n_steps, int *branches);
    /* preds -> out. f32. Allocates nothing and waits for nothing. */
    void (*merge)(const rp_guide_params *params, const rp_guide_merge *m);
} rp_guider;

extern const rp_guider *const rp_guider_list[]; /* ended by NULL; the first is the default */

#endif
