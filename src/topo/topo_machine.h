/*
 * topo_machine.h - the inside of rp_topo_machine, for the files of this folder.
 */
#ifndef RP_TOPO_MACHINE_H
#define RP_TOPO_MACHINE_H

#include <hwloc.h>

struct rp_topo_machine {
    hwloc_topology_t hwloc;
};

/* Cores with a hardware thread in `set`, in hwloc's order: how many, and the first n_max of them in
 * `cores` (may be NULL). Hardware threads where the machine does not tell its cores. */
int rp_topo_cores(hwloc_topology_t topology, hwloc_const_bitmap_t set, hwloc_obj_t *cores,
                  int n_max);

#endif
