/*
 * lost.c - for test_lost.sh: waves without end, until a rank goes.
 *
 *     lost FOLDER VICTIM kill|exit|segv|abort|term    VICTIM's end in the middle of its 20th wave
 *     lost FOLDER VICTIM unreachable                  VICTIM cannot reach rank 0 by TCP: goes on
 * without
 *
 * In FOLDER: `death`, the time of the end; `hook-R`, made by rank R's rp_ctrl_on_lost function.
 */
#include "plain_memory.h"

#include "base/clock.h"
#include "base/log.h"
#include "pool/pool.h"

#include <fcntl.h>
#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_UNITS = 16, N_BYTES = 100000, DEATH_AT = 20, MSG_STOP = 2 };

static const char *g_folder, *g_how;
static int g_victim;
static rp_ctrl *g_ctrl;

static void touch(const char *name, int rank)
{
    char path[600];

    (void)snprintf(path, sizeof(path), rank < 0 ? "%s/%s" : "%s/%s-%d", g_folder, name, rank);
    const int fd = open(path, O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void hook(void)
{
    touch("hook", rp_ctrl_rank(g_ctrl));
}

static void on_term(int signal_number)
{
    (void)signal_number;
    rp_ctrl_leaving();
}

static void end(void)
{
    touch("death", -1);
    if (strcmp(g_how, "kill") == 0) {
        (void)raise(SIGKILL);
    } else if (strcmp(g_how, "segv") == 0) {
        (void)raise(SIGSEGV);
    } else if (strcmp(g_how, "exit") == 0) {
        _exit(0);
    } else if (strcmp(g_how, "abort") == 0) {
        RP_ERROR("the device has fallen off the bus");
        rp_ctrl_abort(g_ctrl, 9);
    }
}

static rp_status eval_unit(void *arg, const rp_unit *unit, int eval, const void *in, void *out)
{
    (void)arg;
    (void)unit;
    if (eval == DEATH_AT && rp_ctrl_rank(g_ctrl) == g_victim) {
        end();
    }
    rp_clock_sleep_us(2000);
    memcpy(out, in, N_BYTES);
    return RP_OK;
}

static rp_status lead(rp_pool *pool, int n_waves)
{
    static unsigned char in[N_BYTES], out[N_UNITS][N_BYTES];
    const int32_t stop = MSG_STOP;
    rp_unit units[N_UNITS];
    rp_status st = RP_OK;

    for (int i = 0; i < N_UNITS; i++) {
        units[i] = (rp_unit){0, i, 1.0f};
    }
    for (int k = 0; k < n_waves && st == RP_OK; k++) {
        st = rp_pool_eval(pool, k, k, units, N_UNITS, in, out);
    }
    for (int r = 1; r < rp_ctrl_n_ranks(g_ctrl); r++) {
        (void)rp_ctrl_send(g_ctrl, r, &stop, sizeof(stop));
    }
    return st;
}

static rp_status serve(rp_pool *pool)
{
    static unsigned char message[RP_CTRL_MESSAGE_BYTES];

    for (;;) {
        size_t n = 0;
        int32_t kind = 0;
        if (rp_ctrl_recv(g_ctrl, message, sizeof(message), &n) != RP_OK) {
            return RP_E_MPI;
        }
        memcpy(&kind, message, sizeof(kind));
        if (kind == MSG_STOP) {
            return RP_OK;
        }
        if (rp_pool_serve_wave(pool, message, n) != RP_OK) {
            return RP_E_MPI;
        }
    }
}

/* MPI's connections are made, those of the watch cannot be: a network namespace without any
 * network. */
static int cut_off(void)
{
    int rank = 0;

    if (MPI_Init(NULL, NULL) != MPI_SUCCESS ||
        MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS) {
        return 1;
    }
    return rank == g_victim && unshare(CLONE_NEWNET) != 0;
}

int main(int argc, char **argv)
{
    rp_pool_params params = {.eval = eval_unit, .memory = plain_memory};
    rp_pool *pool = NULL;

    if (argc != 4) {
        return 2;
    }
    g_folder = argv[1];
    g_victim = atoi(argv[2]);
    g_how = argv[3];
    const bool unreachable = strcmp(g_how, "unreachable") == 0;
    if (unreachable && cut_off() != 0) {
        return 77;
    }
    if (strcmp(g_how, "term") == 0) {
        (void)signal(SIGTERM, on_term);
    }
    rp_ctrl_on_lost(hook);
    if (rp_ctrl_open(false, &g_ctrl) != RP_OK) {
        return 3;
    }
    params.ctrl = g_ctrl;
    rp_status st = rp_xport_choose("auto", g_ctrl, false, &params.xport);
    st = st == RP_OK ? rp_pool_open(&params, &pool) : st;
    st = st == RP_OK ? rp_pool_plan(pool, N_UNITS, 1, N_BYTES, N_BYTES) : st;
    if (st == RP_OK) {
        touch("open", rp_ctrl_rank(g_ctrl));
        st = rp_ctrl_rank(g_ctrl) == 0 ? lead(pool, unreachable ? 30 : 100000) : serve(pool);
    }
    rp_pool_close(pool);
    rp_ctrl_close(g_ctrl);
    if (unreachable) {
        (void)MPI_Finalize();
    }
    return st == RP_OK ? 0 : 4;
}
