/* ctrl_watch.c - notices that a rank has gone and ends this process. */
#include "ctrl/ctrl_watch.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ctrl/ctrl_ops.h"
#include "ctrl/ctrl_star.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a rank may say over its connection before it ends. */
enum { SAY_LOST = 'L', SAY_ABORT = 'A' };
#define LAUNCHER_US 200000u /* for the launcher, or rank 0, to end this rank first */
#define ABORT_US    1000000u

struct rp_ctrl_watch {
    const rp_ctrl *ctrl;
    int n;                /* connections: n_ranks on rank 0, else 1 */
    int *fds;             /* [n_ranks]; -1 for none */
    struct pollfd *polls; /* [n + 1], the last one wakes the thread */
    int wake;
    pthread_t thread;
    bool running;
    atomic_bool ignore;
};

static void (*_Atomic g_on_lost)(void);
static atomic_bool g_leaving;

void rp_ctrl_on_lost(void (*fn)(void))
{
    atomic_store(&g_on_lost, fn);
}

void rp_ctrl_leaving(void)
{
    atomic_store(&g_leaving, true);
}

static void say(const rp_ctrl_watch *watch, char what)
{
    for (int i = 0; i < watch->n; i++) {
        if (watch->fds[i] >= 0) {
            (void)send(watch->fds[i], &what, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
}

static void clean_up(void)
{
    void (*const on_lost)(void) = atomic_load(&g_on_lost);

    if (on_lost != NULL) {
        on_lost();
    }
}

/* Rank 0 tells the user and the others. */
_Noreturn static void lost_rank(const rp_ctrl_watch *watch, int rank)
{
    const rp_ctrl_peer *peer = &watch->ctrl->peers[rank];

    /* The launcher, which has noticed too, may send SIGTERM in these very milliseconds. */
    (void)signal(SIGTERM, SIG_IGN);
    clean_up();
    if (!atomic_load(&g_leaving)) {
        rp_log_now(
            "rank %d (host %s, pid %d) has gone; the job ends here, finished pictures are kept",
            rank, peer->host, (int)peer->pid);
    }
    say(watch, SAY_LOST);
    _exit(RP_CTRL_EXIT_LOST);
}

/* One rank of each node speaks: rank 0 cannot, and nobody knows who else is left. */
_Noreturn static void lost_root(const rp_ctrl_watch *watch)
{
    const rp_ctrl *ctrl = watch->ctrl;
    const rp_ctrl_peer *root = &ctrl->peers[0];
    const int speaker = ctrl->place.node == root->node ? 1 : 0; /* local rank */

    clean_up();
    rp_clock_sleep_us(LAUNCHER_US);
    if (ctrl->place.local_rank == speaker && !atomic_load(&g_leaving)) {
        rp_log_now("lost contact to rank 0 (host %s, pid %d); the job ends here, finished pictures "
                   "are kept",
                   root->host, (int)root->pid);
    }
    _exit(RP_CTRL_EXIT_LOST);
}

static void look(rp_ctrl_watch *watch, int i)
{
    char what = 0;
    const ssize_t n = recv(watch->fds[i], &what, 1, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (atomic_load(&watch->ignore)) {
        watch->polls[i].fd = -1; /* poll passes over it */
        return;
    }
    if (n == 1 && what == SAY_ABORT) {
        if (watch->ctrl->place.rank == 0) {
            say(watch, SAY_ABORT);
        }
        clean_up();
        rp_clock_sleep_us(ABORT_US); /* the launcher gives the exit code that was asked for */
        _exit(RP_CTRL_EXIT_LOST);
    }
    if (n == 1 && what == SAY_LOST) {
        clean_up();
        _exit(RP_CTRL_EXIT_LOST);
    }
    if (watch->ctrl->place.rank == 0) {
        lost_rank(watch, i);
    }
    lost_root(watch);
}

static void *watch_main(void *arg)
{
    rp_ctrl_watch *watch = arg;

    for (;;) {
        if (poll(watch->polls, (nfds_t)watch->n + 1, -1) < 0) {
            continue;
        }
        if (watch->polls[watch->n].revents != 0) {
            return NULL;
        }
        for (int i = 0; i < watch->n; i++) {
            if (watch->polls[i].revents != 0) {
                look(watch, i);
            }
        }
    }
}

/* Without any signal: those belong to the threads of the program. */
static rp_status start_thread(rp_ctrl_watch *watch)
{
    sigset_t all, old;

    for (int i = 0; i < watch->n; i++) {
        watch->polls[i] = (struct pollfd){.fd = watch->fds[i], .events = POLLIN};
    }
    watch->polls[watch->n] = (struct pollfd){.fd = watch->wake, .events = POLLIN};
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    const int error = pthread_create(&watch->thread, NULL, watch_main, watch);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error != 0) {
        return RP_FAIL(RP_E_NOMEM, "cannot start the thread that watches the ranks: %s",
                       strerror(error));
    }
    watch->running = true;
    return RP_OK;
}

static rp_status new_watch(const rp_ctrl *ctrl, rp_ctrl_watch **out)
{
    const size_t n_ranks = (size_t)ctrl->place.n_ranks;
    rp_ctrl_watch *watch = calloc(1, sizeof(*watch));

    if (watch == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for watching the ranks");
    }
    watch->ctrl = ctrl;
    watch->n = ctrl->place.rank == 0 ? ctrl->place.n_ranks : 1;
    watch->wake = eventfd(0, EFD_CLOEXEC);
    watch->fds = malloc(n_ranks * sizeof(*watch->fds));
    watch->polls = calloc((size_t)watch->n + 1, sizeof(*watch->polls));
    if (watch->fds != NULL) {
        memset(watch->fds, -1, n_ranks * sizeof(*watch->fds));
    }
    if (watch->wake < 0 || watch->fds == NULL || watch->polls == NULL) {
        rp_ctrl_watch_close(watch);
        return RP_FAIL(RP_E_NOMEM, "no memory or file handles for watching %zu ranks", n_ranks);
    }
    *out = watch;
    return RP_OK;
}

rp_status rp_ctrl_watch_open(rp_ctrl *ctrl, rp_ctrl_watch **out)
{
    rp_ctrl_watch *watch = NULL;
    rp_status st = RP_OK;
    int missing = -1;

    if (ctrl->place.n_ranks == 1) {
        *out = NULL;
        return RP_OK;
    }
    RP_TRY_OUT(rp_ctrl_agree(ctrl, new_watch(ctrl, &watch), "watching the ranks"));
    RP_TRY_OUT(rp_ctrl_star_open(ctrl, watch->fds));
    RP_TRY_OUT(rp_ctrl_star_missing(ctrl, watch->fds, &missing));
    if (missing >= 0) {
        if (ctrl->place.rank == 0) {
            RP_WARN(
                "rank %d on host %s cannot reach rank 0 on host %s over TCP: if a rank dies, the "
                "others may wait for it forever",
                missing, ctrl->peers[missing].host, ctrl->peers[0].host);
        }
        goto out;
    }
    st = rp_ctrl_agree(ctrl, start_thread(watch), "watching the ranks");
    if (st != RP_OK) {
        rp_ctrl_watch_ignore(watch);
        (void)ctrl->ops->barrier(ctrl->self); /* no end of a connection before all ignore it */
        goto out;
    }
    *out = watch;
    watch = NULL;

out:
    rp_ctrl_watch_close(watch);
    return st;
}

void rp_ctrl_watch_ignore(rp_ctrl_watch *watch)
{
    if (watch != NULL) {
        atomic_store(&watch->ignore, true);
    }
}

void rp_ctrl_watch_abort(rp_ctrl_watch *watch)
{
    if (watch != NULL) {
        rp_ctrl_watch_ignore(watch);
        say(watch, SAY_ABORT);
    }
}

void rp_ctrl_watch_close(rp_ctrl_watch *watch)
{
    const uint64_t one = 1;

    if (watch == NULL) {
        return;
    }
    if (watch->running) {
        if (write(watch->wake, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
            RP_WARN("cannot wake the thread that watches the ranks: %s", strerror(errno));
        }
        (void)pthread_join(watch->thread, NULL);
    }
    for (int i = 0; watch->fds != NULL && i < watch->n; i++) {
        if (watch->fds[i] >= 0) {
            (void)close(watch->fds[i]);
        }
    }
    if (watch->wake >= 0) {
        (void)close(watch->wake);
    }
    free(watch->fds);
    free(watch->polls);
    free(watch);
}
