/* test_cpu_team.c - every task is computed once, in any number of threads, awake or asleep. */
#include "rp_test.h"

#include "base/clock.h"
#include "tensor/cpu/cpu_team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define MAX_TASKS   300
#define MAX_THREADS 5

typedef struct {
    int n_threads;
    int times[MAX_TASKS]; /* plain on purpose: a task belongs to one thread, and run() orders the
                             rest */
    atomic_int inside[MAX_THREADS];
    atomic_bool shared; /* two tasks at once with one thread number */
    unsigned sleep_us;
} work;

static void count(void *arg, int task, int thread)
{
    work *w = arg;

    if (thread < 0 || thread >= w->n_threads || atomic_fetch_add(&w->inside[thread], 1) != 0) {
        atomic_store(&w->shared, true);
        return;
    }
    w->times[task]++;
    if (w->sleep_us > 0) {
        rp_clock_sleep_us(w->sleep_us);
    }
    atomic_fetch_sub(&w->inside[thread], 1);
}

static void run_and_check(rp_cpu_team *team, work *w, int n_tasks)
{
    memset(w->times, 0, sizeof(w->times));
    rp_cpu_team_run(team, count, w, n_tasks);
    for (int i = 0; i < MAX_TASKS; i++) {
        assert_int_equal(w->times[i], i < n_tasks);
    }
    assert_true(!atomic_load(&w->shared));
}

static void every_task_runs_once(void **state)
{
    (void)state;
    static const int n_tasks[] = {0, 1, 2, 3, 7, 64, 300};

    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        rp_cpu_team *team = NULL;
        work w = {.n_threads = n_threads};
        assert_int_equal(rp_cpu_team_open(n_threads, &team), RP_OK);
        for (int i = 0; i < 2000; i++) {
            run_and_check(team, &w, n_tasks[i % 7]);
        }
        rp_cpu_team_close(team);
    }
    rp_cpu_team_close(NULL);
}

/* Pauses between runs put the threads to sleep, long tasks the caller. */
static void sleepers_wake(void **state)
{
    (void)state;
    rp_cpu_team *team = NULL;
    work w = {.n_threads = 3, .sleep_us = 500};

    assert_int_equal(rp_cpu_team_open(3, &team), RP_OK);
    for (int i = 0; i < 20; i++) {
        rp_clock_sleep_us(3000);
        run_and_check(team, &w, 2 + i % 4);
    }
    rp_clock_sleep_us(3000);
    rp_cpu_team_close(team);
}

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t both;
    int n;
} meeting;

/* Returns only when two tasks are inside at the same time. */
static void meet(void *arg, int task, int thread)
{
    meeting *m = arg;

    (void)task;
    (void)thread;
    (void)pthread_mutex_lock(&m->lock);
    m->n++;
    (void)pthread_cond_broadcast(&m->both);
    while (m->n < 2) {
        (void)pthread_cond_wait(&m->both, &m->lock);
    }
    (void)pthread_mutex_unlock(&m->lock);
}

static void tasks_run_at_the_same_time(void **state)
{
    (void)state;
    rp_cpu_team *team = NULL;
    meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

    assert_int_equal(rp_cpu_team_open(2, &team), RP_OK);
    rp_clock_sleep_us(20000); /* the other thread is asleep by now */
    rp_cpu_team_run(team, meet, &m, 2);
    assert_int_equal(m.n, 2);
    rp_cpu_team_close(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(sleepers_wake),
        cmocka_unit_test(tasks_run_at_the_same_time),
    };
    return cmocka_run_group_tests_name("cpu_team", tests, NULL, NULL);
}
