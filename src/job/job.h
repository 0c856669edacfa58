/*
 * job.h - one job on rank 0: its state, and the stages that job_run.c calls in order.
 */
#ifndef RP_JOB_H
#define RP_JOB_H

#include "base/log.h"
#include "job/job_resident.h"
#include "job/job_settings.h"

#include <rankpool/rankpool.h>

/* Measured on rank 0, seconds. */
typedef struct {
    double encode, noise, load, sample, decode, write, total;
    int decode_ranks; /* among how many the pictures were spread */
    double *step;     /* [n_steps] */
    double *unit;     /* [n_evals] of one unit on rank 0, the mean of its units in that wave */
    double step_median, unit_median;
    double warm; /* what the first two steps took more than the median: plans, recording */
    double gpu_idle_median,
        gpu_idle_max; /* microseconds between two units of rank 0; NaN where not measured */
} rp_job_times;

/* The arrays of the sampling loop, all in the memory of vec. */
typedef struct {
    rp_vec vec;
    float *x;        /* [images, c, h, w] */
    float *velocity; /* [images, c, h, w] merged prediction */
    float *work;     /* the sampler's history */
    float *preds;    /* [units, c, h, w] of one wave */
    float *room;     /* [RP_VEC_ROOM] for the guider's sums */
    void *memory;    /* all of them, where it is host memory */
} rp_job_loop;

typedef struct {
    rankpool *pool;
    const rp_settings *settings;
    rp_job_params params;
    const rp_hooks *hooks; /* or NULL */

    int c, h, w;    /* latent */
    size_t n_elems; /* of one image's latents */
    float *sigma;   /* [steps + 1] */
    int *eval_step; /* [n_evals] the step that each model call belongs to */
    int n_evals, eval_done;
    int first_step, first_eval;    /* where sampling begins: 0, or as the checkpoint says */
    int step;                      /* that is being sampled */
    struct rp_safetensors *resume; /* the checkpoint, or NULL */
    bool checkpoint_is_ours;       /* the file there is one that rankpool may replace and remove */

    float *x; /* [images, c, h, w] host memory: before and after the loop */
    rp_job_loop loop;
    rp_unit *units;
    float cost[RP_GUIDE_BRANCHES];
    rp_sample_state sampler;

    uint8_t **rgb; /* [images] pictures [height, width, 3] */
    bool *decoded; /* [images] rgb has it */
    char **files;  /* [images] output names, NULL entries when none is written */
    char *report;
    double started; /* clock at the first step */
    rp_job_times times;
    rp_rank_stats *stats; /* [n_ranks] */
    double pool_busy_base;
} rp_job;

struct rp_result {
    int n_images, width, height;
    uint8_t **rgb;
    char *report;
    rp_job_times times; /* step and unit are NULL here */
    double open_seconds, steps_per_second;
    double read_seconds, read_gb, connect_seconds, share_seconds, share_gb; /* of opening */
    int n_ranks;
    rp_rank_stats *stats;
    rp_timed_unit *units; /* [n_units] of rank 0 */
    int n_units;
};

/* job_run.c: everything, top to bottom. See rp_generate. */
rp_status rp_job_run(rankpool *pool, const rp_settings *settings, const rp_hooks *hooks,
                     rp_result **result_out);

/* job_start.c: sizes, output names and inputs checked before any work; latents from seed or file.
 */
rp_status rp_job_check(rp_job *job);
rp_status rp_job_start_latents(rp_job *job);
/* job_prompt.c: prompt and negative prompt -> pool->load.embeds */
rp_status rp_job_encode(rp_job *job);
/* job_loop.c: memory of the loop, for which others leave the device (job_room.h); x into it and
 * history cleared; x back to job->x. */
rp_status rp_job_loop_open(rp_job *job);
void rp_job_loop_close(rp_job *job);
void rp_job_loop_begin(rp_job *job);
rp_status rp_job_loop_fetch(rp_job *job);

/* job_tell.c: from listen() on errors are kept; tell() gives one out with rank 0's host and where
 * it was, printf-style, when st is a failure, and returns st. */
bool rp_job_listen(void);
rp_status rp_job_tell(const rp_job *job, bool held, rp_status st, const char *format, ...)
    RP_PRINTF(4, 5);

/* Wait for what rank 0 itself has queued on its device: merging, sampling, a copy. A failure is
 * told with host and step, as those of units are. */
rp_status rp_job_loop_sync(const rp_job *job, const char *doing);
/* job_checkpoint.c: look for the checkpoint that the settings name, before any work, and refuse a
 * name that cannot be written (RP_E_IO, RP_E_ARG: another file of the job, RP_E_FORMAT: no
 * checkpoint); put its state into the loop and set first_step and first_eval; save the state after
 * `step` steps, or warn that it could not be saved; remove the file of a job that is done. */
rp_status rp_checkpoint_find(rp_job *job);
rp_status rp_checkpoint_restore(rp_job *job);
void rp_checkpoint_save(rp_job *job, int step);
void rp_checkpoint_remove(const rp_job *job);
/* job_decode.c: decode to job->rgb, several pictures on all ranks. */
rp_status rp_job_decode(rp_job *job);
/* job_output.c: write pictures, latents, report. */
rp_status rp_job_write(rp_job *job);
/* job_trace.c: room for this job's spans, 0 when no trace is asked for; the spans of all ranks to
 * the file that is asked for. */
int rp_job_trace_room(const rp_job *job);
rp_status rp_job_trace_write(rp_job *job);
/* job_report.c: medians of the times that were kept, once sampling is over. RP_E_NOMEM. */
rp_status rp_job_medians(rp_job *job);
/* The report as JSON text; NULL when out of memory. Free with free(). */
char *rp_job_report(const rp_job *job);

/* Tell the caller where the job is; RP_E_CANCEL when it wants to stop. */
rp_status rp_job_progress(const rp_job *job, const char *phase, int step);

#endif
