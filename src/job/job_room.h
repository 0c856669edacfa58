/*
 * job_room.h - device memory that is short. Text encoder (rank 0) and VAE (ranks that decode) work
 * once per job, so they leave when something else needs their room, and come back when they are
 * needed again; so do the arrays that rank 0 keeps from job to job. When nobody can leave any more,
 * the backend gives back its scratch. Rank 0 alone says so.
 *
 * With room for all nothing ever leaves. On the CPU weights are mapped files: the same.
 */
#ifndef RP_JOB_ROOM_H
#define RP_JOB_ROOM_H

#include "job/job_pipeline.h"

/* What the memory is wanted for, and so who stays. */
typedef enum {
    RP_ROOM_ENCODE, /* the encoder, opened first if it is not there */
    RP_ROOM_SAMPLE, /* the denoiser with its buffers */
    RP_ROOM_DECODE, /* the VAE, opened first if it is not there */
} rp_room_use;

typedef rp_status (*rp_room_fn)(void *arg);

/* work(arg), again after each RP_E_NOMEM as long as somebody can leave, and once more when the
 * backend's trim() has given something back: it must be able to begin anew. Errors of tries that
 * were repeated are not logged. NULL work: only open what must be there.
 */
rp_status rp_room_run(rp_pipeline *pipeline, rp_room_use use, rp_room_fn work, void *arg);

/* The same, with the error in text[RP_LOG_LINE_BYTES] instead of the log ("" where it was logged:
 * no device). */
rp_status rp_room_try(rp_pipeline *pipeline, rp_room_use use, rp_room_fn work, void *arg,
                      char *text);

/* Before sampling: room for what the first units allocate inside the device's libraries. */
void rp_room_spare(rp_pipeline *pipeline);

#endif
