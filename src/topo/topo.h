/*
 * topo.h - the machine (hwloc), what this process may run on, and binding it to what topo_plan.h
 * says.
 */
#ifndef RP_TOPO_H
#define RP_TOPO_H

#include "topo/topo_plan.h"

#include <rankpool/status.h>

typedef struct {
    int n_cores;                  /* cores with a hardware thread that this process may use */
    int n_machine_cores;          /* cores of the machine */
    int n_numa;                   /* NUMA nodes of the machine */
    char mask[RP_TOPO_SET_BYTES]; /* "0-3,8" hardware threads that it may use; "" if too many to
                                     write */
    char cpu[96];                 /* processor model, "" if unknown */
} rp_topo;

/* This machine, or the one of an hwloc XML file (2.x) when `xml` is not NULL. RP_E_UNSUP when hwloc
 * cannot read it (logged). Close it with rp_topo_close (NULL is allowed). */
rp_status rp_topo_open(const char *xml, rp_topo_machine **out);
void rp_topo_close(rp_topo_machine *machine);

/* The launcher's mask of this process. RP_E_UNSUP when hwloc cannot tell (logged). */
rp_status rp_topo_read(const rp_topo_machine *machine, rp_topo *out);

/* Bind this process, with the threads it has and will have, to the hardware threads of `place`, and
 * prefer the memory of their NUMA node if it is one. A machine that refuses is told of by a
 * warning. */
void rp_topo_bind(const rp_topo_machine *machine, const rp_topo_place *place);

#endif
