/*
 * cpu_team.h - a few threads that share out numbered tasks.
 *
 * A run is short (tens of microseconds) and runs follow each other closely, so an idle thread
 * watches for the next run for some microseconds before it sleeps. Which thread computes a task is
 * left open; the task alone determines what is computed.
 */
#ifndef RP_CPU_TEAM_H
#define RP_CPU_TEAM_H

#include <rankpool/status.h>

typedef struct rp_cpu_team rp_cpu_team;

/* One task; 0 <= task < n_tasks, 0 <= thread < n_threads (0 is the caller), for scratch. */
typedef void (*rp_cpu_task_fn)(void *arg, int task, int thread);

/* n_threads >= 1 counts the caller: 1 starts no thread. RP_E_NOMEM: a thread cannot be started. */
rp_status rp_cpu_team_open(int n_threads, rp_cpu_team **team_out);

/* Ends the threads. NULL is allowed. */
void rp_cpu_team_close(rp_cpu_team *team);

/* Compute tasks 0 .. n_tasks-1, the caller among the threads; returns when all are done. All memory
 * written by the tasks is visible to the caller, and the other way round. From one thread at a
 * time, never from a task. Allocates nothing, cannot fail. */
void rp_cpu_team_run(rp_cpu_team *team, rp_cpu_task_fn fn, void *arg, int n_tasks);

#endif
