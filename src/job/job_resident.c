/* job_resident.c - open, serve and close what stays on a rank. */
#include "job/job_resident.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/outfile.h"
#include "job/job_build.h"
#include "job/job_device.h"
#include "job/job_room.h"
#include "job/job_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_MESSAGE_BYTES 4096

/* ---- one unit, as the pool sees it */

typedef struct {
    rankpool *pool;
    const rp_unit *unit;
    int eval, mark;
    const void *in;
    void *out;
} unit_work;

/* A unit in host memory goes to the device and back. */
static rp_status run_unit(void *arg)
{
    const unit_work *work = arg;
    rankpool *pool = work->pool;
    const rp_backend_ops *ops = pool->backend.ops;
    void *const be = pool->backend.self;
    const rp_pipeline *p = &pool->pipeline;
    const rp_job_load *load = &pool->load;
    const bool stage = pool->device.on_device && !pool->on_device;
    const float *x = stage ? pool->unit_x.data : work->in;
    float *velocity = stage ? pool->unit_velocity.data : work->out;
    const size_t n = (size_t)load->c * (size_t)load->h * (size_t)load->w;

    if (stage) {
        ops->put(be, pool->unit_x.data, work->in, n * sizeof(float));
    }
    RP_TRY(p->denoiser->predict(p->denoiser_self, work->unit->cond, work->eval, x, velocity));
    ops->check_finite(be, velocity, n);
    if (stage) {
        ops->get(be, work->out, velocity, n * sizeof(float));
    }
    rp_timeline_end(&pool->backend, work->mark);
    /* What is known at once is this unit's; the rest is known when it is waited for. */
    return pool->units_to_sync > 0 || ops->peek(be) != RP_OK ? ops->sync(be) : RP_OK;
}

/* Libraries allocate in a first step, so here too somebody may have to leave. Later units only
 * queue up: the device has the next one before it is through with this one. */
static rp_status eval_unit(void *arg, const rp_unit *unit, int eval, const void *in, void *out)
{
    rankpool *pool = arg;

    if (eval == RP_EVAL_DECODE) {
        return rp_decode_unit(pool, unit, in, out);
    }
    const int mark = rp_timeline_begin(&pool->timeline, &pool->backend, unit, eval);
    unit_work work = {pool, unit, eval, mark, in, out};

    RP_TRY(rp_room_run(&pool->pipeline, RP_ROOM_SAMPLE, run_unit, &work));
    pool->units_to_sync -= pool->units_to_sync > 0;
    return RP_OK;
}

static rp_status end_unit(void *arg, const rp_unit *unit, int eval)
{
    rankpool *pool = arg;

    (void)unit;
    (void)eval;
    return rp_timeline_wait(&pool->timeline, &pool->backend);
}

static rp_status open_pool(rankpool *pool)
{
    const rp_backend_ops *ops = pool->backend.ops;
    const rp_pool_params params = {
        .ctrl = pool->ctrl,
        .xport = pool->xport,
        .eval = eval_unit,
        .end = pool->device.on_device ? end_unit : NULL, /* a CPU is done when eval_unit returns */
        .arg = pool,
        .memory = {.alloc = pool->on_device ? ops->alloc : ops->alloc_host,
                   .release = pool->on_device ? ops->release : ops->release_host,
                   .self = pool->backend.self},
        .trace = &pool->trace,
    };
    return rp_pool_open(&params, &pool->pool);
}

/* ---- opening */

static rp_status choose_transport(const rp_settings *settings, rankpool *pool)
{
    const char *name = rp_settings_text(settings, RP_OPTION_TRANSPORT);

    /* NCCL refuses ranks that share a GPU, unless it is made to believe in several hosts. */
    if (strcmp(name, "auto") == 0 && rp_settings_on(settings, RP_OPTION_ALLOW_SHARED_GPU) &&
        pool->device.on_device && rp_ctrl_n_ranks(pool->ctrl) > 1) {
        name = "mpi";
    }
    RP_TRY(rp_xport_choose(name, pool->ctrl, pool->device.on_device, &pool->xport));
    pool->on_device =
        pool->device.on_device && (pool->xport->on_device || rp_ctrl_n_ranks(pool->ctrl) == 1);
    return RP_OK;
}

/* Read once, by rank 0, where the transport can send device memory to the others. */
static bool weights_come(const rankpool *pool)
{
    return pool->device.on_device && pool->xport->on_device && rp_ctrl_rank(pool->ctrl) > 0;
}

/* Each rank's own part of opening; no communication inside. */
static rp_status open_local(const rp_settings *settings, rankpool *pool)
{
    const rp_pipeline_options options = {
        .whole = rp_ctrl_rank(pool->ctrl) == 0,
        .random_weights = rp_settings_on(settings, RP_OPTION_RANDOM_WEIGHTS),
        .weights_come = weights_come(pool),
    };

    RP_TRY(rp_pipeline_open(rp_settings_text(settings, RP_OPTION_MODEL), pool->backend, &options,
                            &pool->pipeline));
    pool->pipeline.latents = &pool->loop;
    pool->pipeline.pictures = &pool->decode.kept;
    return RP_OK;
}

/* The denoiser's weights from rank 0's device to the others'. */
static rp_status share_weights(rankpool *pool)
{
    const rp_pipeline *p = &pool->pipeline;
    const double start = rp_clock_now();

    pool->weights_bytes = p->denoiser_bytes;
    if (!pool->xport->on_device || rp_ctrl_n_ranks(pool->ctrl) == 1) {
        return RP_OK;
    }
    RP_TRY(rp_pool_broadcast(pool->pool, p->denoiser_weights, p->denoiser_bytes));
    pool->share_seconds = rp_clock_now() - start;
    return RP_OK;
}

/* What must be the same everywhere for the same bits and for messages to mean the same. */
typedef struct {
    uint8_t build[RP_BUILD_ID_BYTES];
    uint64_t model;
} identity;

static rp_status compare_ranks(rankpool *pool)
{
    const int n_ranks = rp_ctrl_n_ranks(pool->ctrl);
    identity mine = {.model = pool->pipeline.fingerprint};
    identity *all = NULL;

    rp_build_id(mine.build);
    RP_TRY(rp_mem_new((size_t)n_ranks, sizeof(*all), "identities", (void **)&all));
    rp_status st = rp_ctrl_allgather(pool->ctrl, &mine, sizeof(mine), all);
    for (int r = 1; st == RP_OK && r < n_ranks; r++) {
        const bool other_build = memcmp(all[r].build, all[0].build, sizeof(mine.build)) != 0;
        if (other_build || all[r].model != all[0].model) {
            st = other_build ? RP_E_UNSUP : RP_E_FORMAT;
            if (rp_ctrl_rank(pool->ctrl) == 0) {
                RP_ERROR("rank %d on host %s has another %s than rank 0 on host %s: %s", r,
                         rp_ctrl_host(pool->ctrl, r), other_build ? "build of rankpool" : "model",
                         rp_ctrl_host(pool->ctrl, 0),
                         other_build ? "start the same program on all hosts"
                                     : "give all ranks the same --model folder");
            }
        }
    }
    free(all);
    return st;
}

/* Collective from here on: every early return is taken by all ranks alike. */
static rp_status open_together(const rp_settings *settings, rankpool *pool)
{
    rp_ctrl *ctrl = pool->ctrl;
    rp_job_params params;

    RP_TRY(rp_ctrl_agree(ctrl, rp_job_params_read(settings, &params), "reading the settings"));
    RP_TRY(rp_device_open(settings, pool));
    RP_TRY(rp_ctrl_agree(ctrl, choose_transport(settings, pool), "choosing the transport"));
    RP_TRY(rp_xport_agree(ctrl, pool->xport));
    RP_TRY(rp_ctrl_agree(ctrl, open_local(settings, pool), "opening the model"));
    RP_TRY(compare_ranks(pool));
    const rp_status st = rp_mem_new(FIRST_MESSAGE_BYTES, 1, "messages", (void **)&pool->message);
    pool->message_bytes = st == RP_OK ? FIRST_MESSAGE_BYTES : 0;
    RP_TRY(rp_ctrl_agree(ctrl, st, "making room for messages"));
    const double start = rp_clock_now();
    RP_TRY(open_pool(pool));
    pool->connect_seconds = rp_clock_now() - start;
    return rp_ctrl_agree(ctrl, share_weights(pool), "sharing the weights");
}

rp_status rp_resident_open(const rp_settings *settings, rankpool **out)
{
    const double start = rp_clock_now();
    const bool force_mpi = strcmp(rp_settings_text(settings, RP_OPTION_TRANSPORT), "mpi") == 0;
    rankpool *pool = calloc(1, sizeof(*pool));

    if (pool == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the pool");
    }
    rp_log_quiet(rp_settings_on(settings, RP_OPTION_QUIET));
    rp_status st = rp_ctrl_open(force_mpi, &pool->ctrl);
    if (st == RP_OK) {
        rp_ctrl_on_lost(rp_outfile_unlink_pending);
        st = open_together(settings, pool);
    }
    if (st != RP_OK) {
        pool->failed = st;
        rp_resident_close(pool);
        return st;
    }
    pool->open_seconds = rp_clock_now() - start;
    pool->serving = true;
    *out = pool;
    return RP_OK;
}

/* ---- closing */

static void free_parts(rankpool *pool)
{
    rp_pool_close(pool->pool);
    rp_pipeline_close(&pool->pipeline);
    if (pool->backend.ops != NULL) {
        rp_buffer *const buffers[] = {&pool->loop, &pool->unit_x, &pool->unit_velocity,
                                      &pool->decode.kept};
        for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
            rp_buffer_free(&pool->backend, buffers[i]);
        }
        pool->backend.ops->release_host(pool->backend.self, pool->decode.host);
        pool->backend.ops->close(pool->backend.self);
    }
    rp_timeline_free(&pool->timeline);
    rp_trace_free(&pool->trace);
    free(pool->clock_offset);
    free(pool->load.sigma);
    free(pool->load.embeds);
    free(pool->message);
    rp_ctrl_close(pool->ctrl);
    free(pool);
}

void rp_resident_close(rankpool *pool)
{
    if (pool == NULL) {
        return;
    }
    /* Not pool->pool: it is gone after a reset that failed, and they wait all the same. */
    if (pool->serving && rp_ctrl_rank(pool->ctrl) == 0) {
        (void)rp_resident_tell(pool, (int32_t[]){RP_MSG_STOP, (int32_t)pool->failed}, 2);
    }
    free_parts(pool);
}

rp_status rp_resident_tell(rankpool *pool, const int32_t *message, int n)
{
    for (int r = 1; r < rp_ctrl_n_ranks(pool->ctrl); r++) {
        RP_TRY(rp_ctrl_send(pool->ctrl, r, message, (size_t)n * sizeof(*message)));
    }
    return RP_OK;
}

/* ---- residency for comparison: everything but the weights goes and comes back */

rp_status rp_resident_reopen(rankpool *pool)
{
    const rp_pipeline *p = &pool->pipeline;

    rp_pool_close(pool->pool);
    pool->pool = NULL;
    p->denoiser->trim(p->denoiser_self);
    rp_status st = pool->backend.ops->restart(pool->backend.self);
    RP_TRY(rp_ctrl_agree(pool->ctrl, st, "opening the backend again"));
    RP_TRY(open_pool(pool));
    if (pool->load.n_conds == 0) { /* no job was loaded yet */
        return RP_OK;
    }
    return rp_ctrl_agree(pool->ctrl, rp_load_apply(pool), "setting the job up again");
}

rp_status rp_resident_reset(rankpool *pool)
{
    RP_TRY(rp_resident_tell(pool, &(int32_t){RP_MSG_RESET}, 1));
    return rp_resident_reopen(pool);
}

/* ---- serving */

static rp_status serve_one(rankpool *pool, size_t n_bytes, bool *stop)
{
    switch (pool->message[0]) {
    case RP_MSG_WAVE:
        return rp_pool_serve_wave(pool->pool, pool->message, n_bytes);
    case RP_MSG_LOAD:
        return rp_load_receive(pool);
    case RP_MSG_RESET:
        return rp_resident_reopen(pool);
    case RP_MSG_INFO:
        return rp_info_answer(pool);
    case RP_MSG_DECODE:
        return rp_decode_answer(pool);
    case RP_MSG_TRACE:
        return rp_trace_answer(pool);
    case RP_MSG_STOP:
        *stop = true;
        return (rp_status)pool->message[1];
    default:
        return RP_FAIL(RP_E_MPI, "message %d from rank 0 is not known", (int)pool->message[0]);
    }
}

/* What rank 0 agreed to or was told of ends in its STOP; so does what it hears of by itself,
 * another rank's failure. Anything else would leave rank 0 waiting for this rank. */
static bool ends_the_job(int32_t message, rp_status st)
{
    return st == RP_E_MPI || (st == RP_E_CUDA && message == RP_MSG_WAVE);
}

rp_status rp_resident_serve(rankpool *pool)
{
    rp_status st = RP_OK;
    bool stop = false;

    if (rp_ctrl_rank(pool->ctrl) == 0) {
        return RP_FAIL(RP_E_ARG, "rank 0 generates; only other ranks serve");
    }
    while (!stop) {
        size_t n_bytes = 0;
        const double begin = rp_trace_begin(&pool->trace);
        st = rp_ctrl_recv(pool->ctrl, pool->message, pool->message_bytes, &n_bytes);
        rp_trace_end(&pool->trace, begin, RP_TRACE_WAIT, (rp_trace_of){-1, -1, -1, -1});
        if (st == RP_OK && n_bytes >= sizeof(int32_t)) {
            st = serve_one(pool, n_bytes, &stop);
        }
        if (!stop && ends_the_job(pool->message[0], st)) {
            char text[RP_LOG_LINE_BYTES];
            rp_log_hold(false);
            rp_log_take(text, sizeof(text));
            RP_ERROR("rank %d on host %s cannot go on: %s", rp_ctrl_rank(pool->ctrl),
                     rp_ctrl_host(pool->ctrl, rp_ctrl_rank(pool->ctrl)), text);
            rp_ctrl_abort(pool->ctrl, 1);
            return st;
        }
    }
    return st;
}
