/* topo.c - the machine as hwloc sees it, and this process on it. */
#include "topo/topo.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "topo/topo_machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the machine */

/* Start graphics and GPU libraries, or read what Linux tells by itself. */
static void leave_out_plugins(hwloc_topology_t topology)
{
    static const char *const names[] = {"pci", "gl", "opencl", "cuda", "nvml", "rsmi", "levelzero"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                            names[i]);
    }
}

static rp_status load(rp_topo_machine *machine, const char *xml)
{
    if (hwloc_topology_init(&machine->hwloc) != 0) {
        machine->hwloc = NULL;
        return RP_FAIL(RP_E_NOMEM, "hwloc cannot start");
    }
    if (xml != NULL && hwloc_topology_set_xml(machine->hwloc, xml) != 0) {
        return RP_FAIL(RP_E_UNSUP, "hwloc cannot read %s", xml);
    }
    leave_out_plugins(machine->hwloc);
    /* Whole, not what a cgroup leaves of it: all ranks of a node plan on the same machine. */
    (void)hwloc_topology_set_flags(machine->hwloc, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    (void)hwloc_topology_set_io_types_filter(machine->hwloc, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(machine->hwloc) != 0) {
        return RP_FAIL(RP_E_UNSUP, "hwloc cannot read %s",
                       xml != NULL ? xml : "this machine's topology");
    }
    return RP_OK;
}

rp_status rp_topo_open(const char *xml, rp_topo_machine **out)
{
    void *mem = NULL;

    RP_TRY(rp_mem_new(1, sizeof(rp_topo_machine), "topology", &mem));
    const rp_status st = load(mem, xml);
    if (st != RP_OK) {
        rp_topo_close(mem);
        return st;
    }
    *out = mem;
    return RP_OK;
}

void rp_topo_close(rp_topo_machine *machine)
{
    if (machine != NULL && machine->hwloc != NULL) {
        hwloc_topology_destroy(machine->hwloc);
    }
    free(machine);
}

/* ---- this process */

static void describe(hwloc_topology_t topology, hwloc_const_cpuset_t mask, rp_topo *out)
{
    const char *cpu = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), "CPUModel");
    hwloc_obj_t pkg = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);

    if (cpu == NULL && pkg != NULL) {
        cpu = hwloc_obj_get_info_by_name(pkg, "CPUModel");
    }
    (void)snprintf(out->cpu, sizeof(out->cpu), "%s", cpu != NULL ? cpu : "");
    if (hwloc_bitmap_list_snprintf(out->mask, sizeof(out->mask), mask) >= (int)sizeof(out->mask)) {
        out->mask[0] = '\0';
    }
    out->n_cores = rp_topo_cores(topology, mask, NULL, 0);
    out->n_machine_cores =
        rp_topo_cores(topology, hwloc_topology_get_topology_cpuset(topology), NULL, 0);
    out->n_numa = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
}

rp_status rp_topo_read(const rp_topo_machine *machine, rp_topo *out)
{
    hwloc_cpuset_t mask = hwloc_bitmap_alloc();
    rp_status st = RP_OK;

    memset(out, 0, sizeof(*out));
    if (mask == NULL || hwloc_get_cpubind(machine->hwloc, mask, HWLOC_CPUBIND_PROCESS) != 0) {
        st = RP_FAIL(RP_E_UNSUP, "hwloc cannot read this process's binding");
    } else {
        (void)hwloc_bitmap_and(mask, mask, hwloc_topology_get_topology_cpuset(machine->hwloc));
        describe(machine->hwloc, mask, out);
    }
    hwloc_bitmap_free(mask);
    return st;
}

/* Linux prefers the node: what does not fit goes elsewhere. Over several nodes memory is near
 * already, where it is touched first. */
static void prefer_memory(hwloc_topology_t topology, hwloc_const_cpuset_t cpus)
{
    hwloc_nodeset_t nodes = hwloc_bitmap_alloc();

    if (nodes != NULL && hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) > 1) {
        hwloc_cpuset_to_nodeset(topology, cpus, nodes);
        if (hwloc_bitmap_weight(nodes) == 1) {
            (void)hwloc_set_membind(topology, nodes, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_BYNODESET);
        }
    }
    hwloc_bitmap_free(nodes);
}

void rp_topo_bind(const rp_topo_machine *machine, const rp_topo_place *place)
{
    hwloc_cpuset_t cpus = hwloc_bitmap_alloc();

    if (cpus == NULL || hwloc_bitmap_list_sscanf(cpus, place->cpus) != 0 ||
        hwloc_bitmap_iszero(cpus)) {
        hwloc_bitmap_free(cpus);
        return;
    }
    if (place->narrower && hwloc_set_cpubind(machine->hwloc, cpus, HWLOC_CPUBIND_PROCESS) != 0) {
        RP_WARN("cannot bind to hardware threads %.80s: %s", place->cpus, strerror(errno));
    } else {
        prefer_memory(machine->hwloc, cpus);
    }
    hwloc_bitmap_free(cpus);
}

int rp_topo_threads(int n_cores, int n_sharing)
{
    const int share = n_sharing > 0 ? n_cores / n_sharing : n_cores;

    return share > 0 ? share : 1;
}
