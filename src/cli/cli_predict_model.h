/*
 * cli_predict_model.h - how long a step of a job takes on another number of ranks: a pure model.
 *
 * A wave is images x branches units. They are placed as the pool places them (longest first, each
 * to the rank that would finish first). Latents leave rank 0 one after the other, every rank
 * evaluates its units, predictions come back one after the other; then rank 0 works alone until the
 * next wave. After the last step the images are decoded in one more wave: latents out, pictures
 * back.
 */
#ifndef RP_CLI_PREDICT_MODEL_H
#define RP_CLI_PREDICT_MODEL_H

#include <rankpool/status.h>

#define RP_PREDICT_MAX_BRANCHES 8
#define RP_PREDICT_MAX_IMAGES   1024
#define RP_PREDICT_MAX_RANKS    4096

typedef struct {
    int images, branches;                    /* units of a wave: their product */
    double unit_ms[RP_PREDICT_MAX_BRANCHES]; /* one evaluation of each branch */
    double waves;                            /* model calls of a step; 1 for Euler */
    double root_ms;                          /* of a step, rank 0 alone: sampler and merging */
    double bytes;                            /* one image's latents; a prediction has as many */
    double decode_ms;                        /* one picture; 0: left out */
    double picture_bytes;                    /* of one picture */
    double latency_us;                       /* one way; 0: none */
    double gbit;                             /* rank 0's link, each way; 0: no limit */
    int cores;                               /* ranks that can compute at once; 0: all */
} rp_predict_job;

/* What keeps the speed-up below the number of ranks; the order of rp_predict_limit_name. */
typedef enum {
    RP_LIMIT_NONE,    /* nothing worth naming: more ranks go on paying */
    RP_LIMIT_UNITS,   /* fewer units than ranks */
    RP_LIMIT_UNEVEN,  /* units do not divide evenly over the ranks */
    RP_LIMIT_CORES,   /* more busy ranks than cores */
    RP_LIMIT_NETWORK, /* bytes over rank 0's link */
    RP_LIMIT_LATENCY, /* messages under way */
    RP_LIMIT_ROOT,    /* rank 0's own work */
    RP_N_LIMITS
} rp_predict_limit;

typedef struct {
    int ranks, busy_ranks;
    int most_units; /* of one rank in a wave */
    double step_ms;
    double decode_ms;            /* all images of the job */
    double speedup, efficiency;  /* against the same job on one rank; per rank */
    double lost_ms[RP_N_LIMITS]; /* of a step: what it would gain without that limit alone */
    rp_predict_limit limit;      /* the one that loses most, if it is 1 % of the step */
} rp_predict_result;

const char *rp_predict_limit_name(rp_predict_limit limit);

/* The job's values are the caller's to check: counts and times > 0, the rest >= 0. RP_E_NOMEM. */
rp_status rp_predict(const rp_predict_job *job, int n_ranks, rp_predict_result *out);

#endif
