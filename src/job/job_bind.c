/* job_bind.c - this rank's place on its node: cores, memory, threads. */
#include "job/job_bind.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ranks of one node: what each brings, what the plan gives it. */
typedef struct {
    rp_topo_machine *machine;
    rp_topo_rank *ranks;   /* of all nodes, then of this one alone */
    rp_topo_place *places; /* [n] */
    int n, me;
} node;

static rp_status look_around(const char *pci, rankpool *pool, node *nd)
{
    const size_t n_ranks = (size_t)rp_ctrl_n_ranks(pool->ctrl);

    RP_TRY(rp_topo_open(NULL, &nd->machine));
    RP_TRY(rp_topo_read(nd->machine, &pool->topo));
    RP_TRY(rp_mem_new(n_ranks, sizeof(*nd->places), "places of the ranks", (void **)&nd->places));
    RP_TRY(rp_mem_new(n_ranks + 1, sizeof(*nd->ranks), "masks of the ranks", (void **)&nd->ranks));
    rp_topo_rank *mine = &nd->ranks[n_ranks]; /* out of the way of the others' */
    memcpy(mine->mask, pool->topo.mask, sizeof(mine->mask));
    (void)snprintf(mine->pci, sizeof(mine->pci), "%s", pci);
    return RP_OK;
}

static rp_status meet_neighbours(const rankpool *pool, node *nd)
{
    const int n_ranks = rp_ctrl_n_ranks(pool->ctrl);
    const int me = rp_ctrl_rank(pool->ctrl);

    RP_TRY(rp_ctrl_allgather(pool->ctrl, &nd->ranks[n_ranks], sizeof(*nd->ranks), nd->ranks));
    for (int r = 0; r < n_ranks; r++) {
        if (rp_ctrl_node(pool->ctrl, r) == rp_ctrl_node(pool->ctrl, me)) {
            nd->me = r == me ? nd->n : nd->me;
            nd->ranks[nd->n++] = nd->ranks[r];
        }
    }
    return RP_OK;
}

/* mpirun gives each of two ranks one core, unless told otherwise. */
static void warn_of_short(const rankpool *pool, const node *nd)
{
    const rp_topo_place *mine = &nd->places[nd->me];

    if (nd->ranks[nd->me].pci[0] != '\0' && rp_topo_is_short(nd->machine, mine, nd->n) &&
        rp_ctrl_rank(pool->ctrl) == 0) {
        RP_WARN("rank 0 may run on hardware thread%s %.40s only, on a GPU it should have %d: "
                "start with mpirun --bind-to none, or srun --cpus-per-task",
                mine->n_threads == 1 ? "" : "s", mine->cpus, RP_TOPO_LEAST);
    }
}

/* --threads may ask for more than a rank's share of the cores; threads on top of each other would
 * wait for each other, so such a rank keeps its mask. With a device its threads only copy. */
static rp_status take_place(const rp_settings *settings, rankpool *pool, node *nd)
{
    const bool bind = strcmp(rp_settings_text(settings, RP_OPTION_BIND), "none") != 0;
    const long threads = rp_settings_int(settings, RP_OPTION_THREADS, 0);
    rp_topo_place *mine = &nd->places[nd->me];

    RP_TRY(rp_topo_plan(nd->machine, nd->ranks, nd->n, bind, nd->places));
    if (mine->narrower && threads > mine->n_cores && nd->ranks[nd->me].pci[0] == '\0') {
        RP_TRY(rp_topo_plan(nd->machine, nd->ranks, nd->n, false, nd->places));
    }
    warn_of_short(pool, nd);
    if (bind) {
        rp_topo_bind(nd->machine, mine);
    }
    pool->show_ranks = strcmp(rp_settings_text(settings, RP_OPTION_BIND), "print") == 0;
    pool->place = *mine;
    pool->n_threads = threads > 0         ? (int)threads
                      : mine->n_cores > 0 ? rp_topo_threads(mine->n_cores, mine->n_sharing)
                                          : rp_topo_threads(pool->topo.n_cores, nd->n);
    return RP_OK;
}

rp_status rp_bind(const rp_settings *settings, const char *pci, rankpool *pool)
{
    node nd = {0};
    rp_status st = rp_ctrl_agree(pool->ctrl, look_around(pci, pool, &nd), "reading the topology");

    if (st == RP_OK) {
        st = meet_neighbours(pool, &nd);
    }
    if (st == RP_OK) {
        st = rp_ctrl_agree(pool->ctrl, take_place(settings, pool, &nd), "binding");
    }
    rp_topo_close(nd.machine);
    free(nd.ranks);
    free(nd.places);
    return st;
}
