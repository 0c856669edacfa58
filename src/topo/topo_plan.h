/*
 * topo_plan.h - which cores each rank of a node gets. A pure function of the machine, the masks
 * that the launcher gave and the devices: every rank of a node computes the same plan and takes its
 * own line of it.
 *
 *   - A rank never leaves its mask. Ranks with different masks do not concern each other.
 *   - A rank's cores are those near its device (the cores of its PCI device's NUMA node or
 * package), or the whole mask: without a device, where the topology does not know it, or where no
 * core is near.
 *   - Ranks with the same mask and the same near cores split them: whole cores, contiguous in
 * hwloc's order, so neighbours share caches; shares differ by one core at most.
 *   - If being near leaves some rank under 3 hardware threads (compute, communication, watch) and
 * the whole mask shared out would give it more, all ranks of that mask split the mask, in the order
 * of their devices.
 *   - More ranks than cores: nobody is bound, the system's scheduler does better.
 */
#ifndef RP_TOPO_PLAN_H
#define RP_TOPO_PLAN_H

#include <rankpool/status.h>

#include <stdbool.h>

#define RP_TOPO_SET_BYTES 1024
#define RP_TOPO_LEAST     3 /* hardware threads a rank should have */

typedef struct rp_topo_machine rp_topo_machine;

/* One rank of the node. */
typedef struct {
    char
        mask[RP_TOPO_SET_BYTES]; /* hardware threads the launcher gave it, "0-3,8"; "": not known */
    char pci[16];                /* of its device, "0000:1b:00.0"; "" for none */
} rp_topo_rank;

/* What it gets. */
typedef struct {
    char cpus[RP_TOPO_SET_BYTES]; /* hardware threads, "0-3,8"; "" only if the mask is not known */
    char numa[32];                /* their NUMA nodes, "0" or "0-1" */
    char nic[32];                 /* nearest to the device or the cores, "mlx5_0"; "" for none */
    int n_cores, n_threads;       /* in cpus */
    int n_sharing; /* ranks that have the same cpus: 1, or more where nobody is bound */
    int n_near;    /* ranks that may run on one of cpus: itself, those that share them whole or in
                      part, and those of which nothing is known */
    bool narrower; /* than the mask: there is something to bind */
} rp_topo_place;

/* bind: false leaves every rank its mask. places [n], in the order of the ranks. RP_E_NOMEM. */
rp_status rp_topo_plan(const rp_topo_machine *machine, const rp_topo_rank *ranks, int n, bool bind,
                       rp_topo_place *places);

/* Did the launcher's mask leave a rank under RP_TOPO_LEAST hardware threads, on a machine that has
 * as many for each of its n ranks? */
bool rp_topo_is_short(const rp_topo_machine *machine, const rp_topo_place *place, int n);

/* Has a rank RP_TOPO_LEAST hardware threads for each rank that may run on its own? Then it may wait
 * awake. Pure. */
bool rp_topo_own_cores(const rp_topo_place *place);

/* Threads for one of n_sharing ranks that share n_cores: at least 1. Pure. */
int rp_topo_threads(int n_cores, int n_sharing);

#endif
