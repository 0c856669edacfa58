/*
 * topo.h - what this process may run on: cores, their names, the machine (hwloc).
 */
#ifndef RP_TOPO_H
#define RP_TOPO_H

#include <rankpool/status.h>

#include <stdint.h>

typedef struct {
    int n_cores;         /* cores with at least one hardware thread that this process may use */
    int n_threads;       /* hardware threads that it may use */
    int n_machine_cores; /* cores of the machine */
    int n_numa;          /* NUMA nodes of the machine */
    uint64_t mask_hash;  /* equal for processes with the same mask */
    char cores[96];      /* "0-3,8" hardware threads, by the system's numbers */
    char cpu[96];        /* processor model, "" if unknown */
} rp_topo;

/* Read the launcher's mask of this process and the machine. RP_E_UNSUP when hwloc cannot (logged). */
rp_status rp_topo_read(rp_topo *out);

/* Narrow this process to the cores near a PCI device ("0000:1b:00.0") and prefer their memory, within the
 * launcher's mask, and bring *topo up to date. Stays as it is where the machine does not tell, or where
 * no core of the mask is near. */
void rp_topo_bind_near(const char *pci, rp_topo *topo);

/* Threads for one of n_sharing ranks that share a mask of n_cores: at least 1. Pure. */
int rp_topo_threads(int n_cores, int n_sharing);

#endif
