/* topo.c - what this process may run on. */
#include "topo/topo.h"

#include "base/log.h"

#include <hwloc.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a, enough to tell masks apart. */
static uint64_t hash_text(const char *text)
{
    uint64_t hash = 14695981039346656037ull;

    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
    }
    return hash;
}

static void describe(hwloc_topology_t topology, hwloc_const_cpuset_t mask, rp_topo *out)
{
    const char *cpu = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), "CPUModel");
    hwloc_obj_t pkg = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);

    if (cpu == NULL && pkg != NULL) {
        cpu = hwloc_obj_get_info_by_name(pkg, "CPUModel");
    }
    (void)snprintf(out->cpu, sizeof(out->cpu), "%s", cpu != NULL ? cpu : "");
    (void)hwloc_bitmap_list_snprintf(out->cores, sizeof(out->cores), mask);
    char *text     = NULL;
    out->mask_hash = hwloc_bitmap_asprintf(&text, mask) >= 0 ? hash_text(text) : 0;
    free(text);
    out->n_cores         = hwloc_get_nbobjs_inside_cpuset_by_type(topology, mask, HWLOC_OBJ_CORE);
    out->n_threads       = hwloc_get_nbobjs_inside_cpuset_by_type(topology, mask, HWLOC_OBJ_PU);
    out->n_machine_cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    out->n_numa          = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    if (out->n_cores < 1) { /* a mask of single hardware threads holds no whole core */
        out->n_cores = out->n_threads > 0 ? out->n_threads : 1;
    }
}

rp_status rp_topo_read(rp_topo *out)
{
    hwloc_topology_t topology = NULL;
    hwloc_cpuset_t mask       = NULL;
    rp_status st              = RP_OK;

    if (hwloc_topology_init(&topology) != 0 || hwloc_topology_load(topology) != 0) {
        st = RP_FAIL(RP_E_UNSUP, "hwloc cannot read this machine's topology");
        goto out;
    }
    mask = hwloc_bitmap_alloc();
    if (mask == NULL || hwloc_get_cpubind(topology, mask, HWLOC_CPUBIND_PROCESS) != 0) {
        st = RP_FAIL(RP_E_UNSUP, "hwloc cannot read this process's binding");
        goto out;
    }
    (void)hwloc_bitmap_and(mask, mask, hwloc_topology_get_complete_cpuset(topology));
    memset(out, 0, sizeof(*out));
    describe(topology, mask, out);
out:
    hwloc_bitmap_free(mask);
    if (topology != NULL) {
        hwloc_topology_destroy(topology);
    }
    return st;
}

/* The mask's cores near the device; false when that is all of them, or none. */
static bool near_cores(hwloc_topology_t topology, const char *pci, hwloc_bitmap_t near)
{
    hwloc_obj_t device = hwloc_get_pcidev_by_busidstring(topology, pci);
    hwloc_obj_t place  = device == NULL ? NULL : hwloc_get_non_io_ancestor_obj(topology, device);
    hwloc_bitmap_t mask = hwloc_bitmap_alloc();
    bool narrower       = false;

    if (place != NULL && place->cpuset != NULL && mask != NULL &&
        hwloc_get_cpubind(topology, mask, HWLOC_CPUBIND_PROCESS) == 0) {
        (void)hwloc_bitmap_and(near, mask, place->cpuset);
        narrower = !hwloc_bitmap_iszero(near) && !hwloc_bitmap_isequal(near, mask);
    }
    hwloc_bitmap_free(mask);
    return narrower;
}

void rp_topo_bind_near(const char *pci, rp_topo *topo)
{
    hwloc_topology_t topology = NULL;
    hwloc_bitmap_t near       = hwloc_bitmap_alloc();

    if (near == NULL || hwloc_topology_init(&topology) != 0) {
        hwloc_bitmap_free(near);
        return;
    }
    (void)hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(topology) == 0 && near_cores(topology, pci, near) &&
        hwloc_set_cpubind(topology, near, HWLOC_CPUBIND_PROCESS) == 0) {
        (void)hwloc_set_membind(topology, near, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_PROCESS);
        rp_topo bound = *topo;
        if (rp_topo_read(&bound) == RP_OK) {
            *topo = bound;
        }
    }
    hwloc_topology_destroy(topology);
    hwloc_bitmap_free(near);
}

int rp_topo_threads(int n_cores, int n_sharing)
{
    const int share = n_sharing > 0 ? n_cores / n_sharing : n_cores;

    return share > 0 ? share : 1;
}
