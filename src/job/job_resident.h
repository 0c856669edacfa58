/*
 * job_resident.h - what stays on a rank from rp_open to rp_close, and the messages between ranks.
 */
#ifndef RP_JOB_RESIDENT_H
#define RP_JOB_RESIDENT_H

#include "base/trace.h"
#include "ctrl/ctrl.h"
#include "guide/guide.h"
#include "job/job_pipeline.h"
#include "job/job_timeline.h"
#include "model/params.h"
#include "pool/pool.h"
#include "tensor/tensor_ops.h"
#include "topo/topo.h"

#include <rankpool/rankpool.h>

/* Everything a rank needs to set its model up for a job; the same on all ranks. */
typedef struct {
    int32_t c, h, w; /* latent */
    int32_t n_evals, n_conds, n_images;
    int32_t trace_room; /* spans of a rank; 0: no trace */
    int32_t n_tokens[RP_GUIDE_BRANCHES];
    float *sigma;                   /* [n_evals] */
    float *embeds;                  /* conditions one after the other, [sum n_tokens, cond_dim] */
    size_t sigma_room, embeds_room; /* elements allocated; they grow only */
} rp_job_load;

/* Pictures that are decoded on all ranks (job_decode.c). Sizes are those of one picture. */
typedef struct {
    size_t latent_bytes, picture_bytes, slot_bytes;
    uint8_t *host; /* on_device: latents, then a slot, on their way to or from the device */
    size_t host_bytes;
    /* rank 0 */
    void *slots;    /* [images] where they arrive, while they are decoded */
    rp_buffer kept; /* on_device: what `slots` is, for the next job */
    const float *x; /* the job's, for its own units: [images, c, h, w] host memory, pictures, which
                       are done */
    uint8_t *const *rgb;
    bool *decoded;
    int least_alone; /* latents of this area and above rank 0 decodes alone; 0: none */
} rp_decode;

struct rankpool {
    rp_ctrl *ctrl;
    rp_topo topo;        /* the machine, and the launcher's mask */
    rp_topo_place place; /* what this rank has of it (job_bind.c) */
    bool show_ranks;     /* --bind print */
    int n_threads;
    rp_backend backend;
    rp_device_info device;
    const rp_xport_ops *xport;
    bool on_device; /* the payload stays in device memory; else it is host memory */
    rp_buffer loop; /* rank 0, on_device: the arrays of the sampling loop (job_loop.c) */
    rp_buffer unit_x, unit_velocity; /* one unit's, where the payload is host memory */
    rp_pipeline pipeline;
    rp_pool *pool;
    rp_job_load load;
    rp_decode decode;
    rp_timeline timeline; /* of this rank's units in the current job */
    int units_to_sync;    /* so many more, in which somebody may have to leave the device */
    rp_trace trace;       /* of this rank in the current job */
    double *clock_offset; /* rank 0, with a trace: [n_ranks] what to add to a rank's clock */
    double open_seconds, connect_seconds, share_seconds; /* all of opening; transport; weights */
    size_t weights_bytes;                                /* of the denoiser, on the device */
    int32_t *message;                                    /* receive buffer of a serving rank */
    size_t message_bytes;
    bool serving;     /* opened: the other ranks wait for messages, and need a STOP */
    rp_status failed; /* status that ended the pool, sent with STOP */
};

/* Messages of rank 0 (rp_ctrl_send); the first int32. RP_MSG_WAVE is the pool's. */
enum {
    RP_MSG_LOAD = 2, /* a job: header below, then broadcasts; ends in agreement */
    RP_MSG_RESET,    /* close the pool and open it again; ends in agreement */
    RP_MSG_INFO,     /* rp_info: a gather follows */
    RP_MSG_DECODE,   /* a wave of pictures may follow: get ready; a gather of who is */
    RP_MSG_TRACE,    /* gathers of spans follow, and tracing ends */
    RP_MSG_STOP      /* {RP_MSG_STOP, status}: serve returns that status */
};

/* Collective. See rp_open, rp_close, rp_serve. */
rp_status rp_resident_open(const rp_settings *settings, rankpool **out);
void rp_resident_close(rankpool *pool);
rp_status rp_resident_serve(rankpool *pool);

/* Rank 0: send the same message of n int32 to every other rank. */
rp_status rp_resident_tell(rankpool *pool, const int32_t *message, int n);

/* All ranks: close and open again what residency keeps: threads, buffers, connections, tables; not
 * the weights. Rank 0 calls rp_resident_reset, which tells the others. */
rp_status rp_resident_reset(rankpool *pool);
rp_status rp_resident_reopen(rankpool *pool);

/*
 * job_load.c. Rank 0: give pool->load to every rank and set all models up; other ranks: receive it
 * after RP_MSG_LOAD. Collective, ends in agreement. Rank 0 has filled pool->load (room by
 * rp_load_reserve).
 */
rp_status rp_load_send(rankpool *pool);
rp_status rp_load_receive(rankpool *pool);
rp_status rp_load_reserve(rp_job_load *load, size_t n_sigma, size_t n_embeds);
rp_denoiser_job rp_load_job(const rp_job_load *load); /* its shape */
/* Set the model and the pool's slots up from pool->load; also after a reset. Local. */
rp_status rp_load_apply(rankpool *pool);

/* job_decode.c. One unit of a wave of RP_EVAL_DECODE: latents `in` to slot `out`, both the pool's
 * kind of memory. RP_OK with a mark in the slot where memory is short. */
rp_status rp_decode_unit(rankpool *pool, const rp_unit *unit, const void *in, void *out);
/* A serving rank's part of RP_MSG_DECODE: opens the VAE if it is not, and plans that wave in place
 * of the job's own. What it cannot is in its answer, not in the status. RP_E_MPI. */
rp_status rp_decode_answer(rankpool *pool);

/* job_trace.c, when a job is loaded. Room for its spans, or no trace; local. RP_E_NOMEM. Then, with
 * a trace, collective: how far the ranks' clocks are from rank 0's. */
rp_status rp_trace_prepare(rankpool *pool);
rp_status rp_trace_align(rankpool *pool);
rp_status rp_trace_answer(rankpool *pool); /* a serving rank's part of RP_MSG_TRACE */

/* The text of rp_info; NULL pool: this build and machine only. */
char *rp_info_text(rankpool *pool);
rp_status rp_info_answer(rankpool *pool); /* a serving rank's part */
char *rp_ranks_text(rankpool *pool);      /* its table of the ranks alone; see rp_ranks */

#endif
