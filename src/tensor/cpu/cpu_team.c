/*
 * cpu_team.c - a few threads that share out numbered tasks.
 *
 * A run is published by storing its task count in `remaining`; a thread owns a task once it has
 * counted `remaining` down. The fields of the run are read only by owners of a task, and the caller
 * waits until all owned tasks are done before it returns, so they cannot change under an owner. A
 * thread that comes late finds nothing to own, and nobody waits for it.
 */
#include "tensor/cpu/cpu_team.h"

#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A pause takes 20 to 60 ns: some tens of microseconds, longer than the gap between two ops. */
#define SPINS 1000

typedef struct {
    rp_cpu_team *team;
    pthread_t id;
    int index;
} team_thread;

struct rp_cpu_team {
    _Alignas(64) atomic_int remaining; /* tasks that nobody owns yet */
    _Alignas(64) atomic_int done;      /* finished tasks of this run */
    _Alignas(64) atomic_int n_asleep;  /* threads at `work` or about to be */
    atomic_bool caller_asleep;
    atomic_bool stop;
    rp_cpu_task_fn fn;
    void *arg;
    int n_tasks;
    int n_started; /* threads besides the caller */
    pthread_mutex_t lock;
    pthread_cond_t work, all_done;
    team_thread *threads;
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The number of a task that is now ours, counted from the last; 0 for none. */
static int claim(rp_cpu_team *team)
{
    int left = atomic_load(&team->remaining);

    while (left > 0 && !atomic_compare_exchange_weak(&team->remaining, &left, left - 1)) {
    }
    return left;
}

/* Own and compute tasks until none is left. */
static void help(rp_cpu_team *team, int thread)
{
    int left;

    while ((left = claim(team)) > 0) {
        const int n_tasks = team->n_tasks;
        team->fn(team->arg, n_tasks - left, thread);
        /* After the last count the caller may return: only what outlives a run is touched below. */
        if (atomic_fetch_add(&team->done, 1) + 1 == n_tasks && atomic_load(&team->caller_asleep)) {
            (void)pthread_mutex_lock(&team->lock);
            (void)pthread_cond_signal(&team->all_done);
            (void)pthread_mutex_unlock(&team->lock);
        }
    }
}

static bool something_to_do(rp_cpu_team *team)
{
    return atomic_load(&team->remaining) > 0 || atomic_load(&team->stop);
}

static void wait_for_work(rp_cpu_team *team)
{
    for (int i = 0; i < SPINS; i++) {
        if (something_to_do(team)) {
            return;
        }
        relax();
    }
    (void)pthread_mutex_lock(&team->lock);
    /* The caller publishes, then reads n_asleep; we count ourselves, then look: one of us sees the
     * other. */
    atomic_fetch_add(&team->n_asleep, 1);
    while (!something_to_do(team)) {
        (void)pthread_cond_wait(&team->work, &team->lock);
    }
    atomic_fetch_sub(&team->n_asleep, 1);
    (void)pthread_mutex_unlock(&team->lock);
}

static void wait_for_tasks(rp_cpu_team *team)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&team->done) == team->n_tasks) {
            return;
        }
        relax();
    }
    (void)pthread_mutex_lock(&team->lock);
    atomic_store(&team->caller_asleep, true);
    while (atomic_load(&team->done) != team->n_tasks) {
        (void)pthread_cond_wait(&team->all_done, &team->lock);
    }
    atomic_store(&team->caller_asleep, false);
    (void)pthread_mutex_unlock(&team->lock);
}

static void wake(rp_cpu_team *team)
{
    if (atomic_load(&team->n_asleep) > 0) {
        (void)pthread_mutex_lock(&team->lock);
        (void)pthread_cond_broadcast(&team->work);
        (void)pthread_mutex_unlock(&team->lock);
    }
}

static void *thread_main(void *arg)
{
    const team_thread *me = arg;

    while (!atomic_load(&me->team->stop)) {
        help(me->team, me->index);
        wait_for_work(me->team);
    }
    return NULL;
}

/* Signals are the caller's business: the new thread takes none. */
static rp_status start(rp_cpu_team *team, int index)
{
    team_thread *thread = &team->threads[index - 1];
    sigset_t all, before;

    thread->team = team;
    thread->index = index;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&thread->id, NULL, thread_main, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        return RP_FAIL(RP_E_NOMEM, "cannot start compute thread %d: %s", index, strerror(error));
    }
    team->n_started++;
    return RP_OK;
}

rp_status rp_cpu_team_open(int n_threads, rp_cpu_team **team_out)
{
    void *team_mem = NULL, *threads_mem = NULL;

    rp_status st = rp_mem_new(1, sizeof(rp_cpu_team), "thread team", &team_mem);
    if (st != RP_OK) {
        return st;
    }
    rp_cpu_team *team = team_mem;
    (void)pthread_mutex_init(&team->lock, NULL);
    (void)pthread_cond_init(&team->work, NULL);
    (void)pthread_cond_init(&team->all_done, NULL);
    st = rp_mem_new((size_t)n_threads - 1, sizeof(team_thread), "thread team", &threads_mem);
    team->threads = threads_mem;
    for (int i = 1; st == RP_OK && i < n_threads; i++) {
        st = start(team, i);
    }
    if (st != RP_OK) {
        rp_cpu_team_close(team);
        return st;
    }
    *team_out = team;
    return RP_OK;
}

void rp_cpu_team_close(rp_cpu_team *team)
{
    if (team == NULL) {
        return;
    }
    atomic_store(&team->stop, true);
    wake(team);
    for (int i = 0; i < team->n_started; i++) {
        (void)pthread_join(team->threads[i].id, NULL);
    }
    (void)pthread_cond_destroy(&team->all_done);
    (void)pthread_cond_destroy(&team->work);
    (void)pthread_mutex_destroy(&team->lock);
    free(team->threads);
    free(team);
}

void rp_cpu_team_run(rp_cpu_team *team, rp_cpu_task_fn fn, void *arg, int n_tasks)
{
    if (team->n_started == 0 || n_tasks <= 1) {
        for (int i = 0; i < n_tasks; i++) {
            fn(arg, i, 0);
        }
        return;
    }
    team->fn = fn;
    team->arg = arg;
    team->n_tasks = n_tasks;
    atomic_store(&team->done, 0);
    atomic_store(&team->remaining, n_tasks);
    wake(team);
    help(team, 0);
    wait_for_tasks(team);
}
