/*
 * job_loop.c - the arrays of the sampling loop: in device memory where the payload stays there,
 * else in host memory.
 *
 * On the device they are the pool's and stay for the next job; releasing them would forget the
 * recorded sequences.
 */
#include "job/job.h"

#include "base/check.h"
#include "job/job_room.h"

#define WHAT "latents and predictions"

static size_t total_of(const rp_job *job, size_t n)
{
    const int n_vectors = 2 + job->pool->load.n_conds + job->params.sampler->n_work;

    return RP_VEC_ROOM + n * (size_t)n_vectors;
}

/* Room for sums comes first: it wants the best alignment. */
static float *take(float **at, size_t n)
{
    float *const here = *at;

    *at += n;
    return here;
}

static void divide(rp_job *job, float *at, size_t n)
{
    rp_job_loop *loop = &job->loop;

    loop->room = take(&at, RP_VEC_ROOM);
    loop->x = take(&at, n);
    loop->velocity = take(&at, n);
    loop->preds = take(&at, n * (size_t)job->pool->load.n_conds);
    loop->work = take(&at, n * (size_t)job->params.sampler->n_work);
}

/* A device may load a kernel when it is first called, which takes time and memory: now, not between
 * two units. */
static rp_status warm_up(const rp_job_loop *loop, const rp_job *job, size_t n)
{
    const rp_backend *backend = &job->pool->backend;
    const rp_vec *vec = &loop->vec;
    const rp_vec_rows rows = {.to = loop->preds,
                              .away = loop->preds,
                              .factor = loop->room,
                              .keep_length = true,
                              .n_rows = (size_t)job->c * (size_t)job->h,
                              .w = job->w};

    vec->combine(vec->self, loop->preds, n, 0, NULL, NULL);
    rp_vec_copy(vec, loop->velocity, n, loop->preds);
    rp_vec_two(vec, loop->velocity, n, 1.0f, loop->velocity, 1.0f, loop->preds);
    vec->project(vec->self, loop->preds, loop->preds, job->n_elems, loop->room);
    vec->extrapolate(vec->self, &rows, loop->velocity);
    return backend->ops->sync(backend->self);
}

static rp_status open_on_device(void *arg)
{
    rp_job *job = arg;
    rankpool *pool = job->pool;
    const rp_backend_ops *ops = pool->backend.ops;
    const size_t n = (size_t)job->params.images * job->n_elems;

    RP_TRY(rp_buffer_grow(&pool->backend, &pool->loop, total_of(job, n), WHAT));
    job->loop.vec = (rp_vec){ops->combine, ops->project, ops->extrapolate, pool->backend.self};
    divide(job, pool->loop.data, n);
    return warm_up(&job->loop, job, n);
}

rp_status rp_job_loop_open(rp_job *job)
{
    rankpool *pool = job->pool;
    const rp_backend *backend = &pool->backend;
    const size_t n = (size_t)job->params.images * job->n_elems;

    if (pool->on_device) {
        return rp_room_run(&pool->pipeline, RP_ROOM_SAMPLE, open_on_device, job);
    }
    /* it may travel to and from a device */
    RP_TRY(backend->ops->alloc_host(backend->self, total_of(job, n) * sizeof(float), WHAT,
                                    &job->loop.memory));
    job->loop.vec = rp_vec_host;
    divide(job, job->loop.memory, n);
    return RP_OK;
}

void rp_job_loop_close(rp_job *job)
{
    const rp_backend *backend = &job->pool->backend;

    backend->ops->release_host(backend->self, job->loop.memory);
    job->loop.memory = NULL;
}

void rp_job_loop_begin(rp_job *job)
{
    const rankpool *pool = job->pool;
    const rp_backend_ops *ops = pool->backend.ops;
    const size_t n = (size_t)job->params.images * job->n_elems;
    const rp_vec *vec = &job->loop.vec;

    if (pool->on_device) {
        ops->put(pool->backend.self, job->loop.x, job->x, n * sizeof(float));
    } else {
        rp_vec_copy(vec, job->loop.x, n, job->x);
    }
    /* on the device it holds the history of the job before */
    vec->combine(vec->self, job->loop.work, n * (size_t)job->params.sampler->n_work, 0, NULL, NULL);
}

rp_status rp_job_loop_sync(const rp_job *job, const char *doing)
{
    const rp_backend *backend = &job->pool->backend;
    const bool held = rp_job_listen();
    const rp_status st = backend->ops->sync(backend->self);

    return rp_job_tell(job, held, st, "step %d, %s", job->step, doing);
}

rp_status rp_job_loop_fetch(rp_job *job)
{
    const rankpool *pool = job->pool;
    const rp_backend *backend = &pool->backend;
    const size_t n = (size_t)job->params.images * job->n_elems;

    if (!pool->on_device) {
        rp_vec_copy(&rp_vec_host, job->x, n, job->loop.x);
        return RP_OK;
    }
    RP_TRY(rp_pool_settle(pool->pool)); /* its unit answers for itself */
    backend->ops->get(backend->self, job->x, job->loop.x, n * sizeof(float));
    return rp_job_loop_sync(job, "fetching the latents");
}
