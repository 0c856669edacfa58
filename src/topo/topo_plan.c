/* topo_plan.c - which cores each rank of a node gets. */
#include "topo/topo_plan.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "topo/topo_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A rank while it is planned for. */
typedef struct {
    hwloc_bitmap_t mask, near, cpus;
    hwloc_obj_t device; /* PCI device, NULL: none that the topology knows */
    int order;          /* of the device: first hardware thread of its locality */
    int n_sharing;
} seat;

typedef struct {
    hwloc_topology_t topology;
    seat *seats;
    int n;
    hwloc_obj_t *cores; /* room for all of the machine */
    int n_cores;
} plan;

/* ---- sets of cores */

int rp_topo_cores(hwloc_topology_t topology, hwloc_const_bitmap_t set, hwloc_obj_t *cores,
                  int n_max)
{
    const bool known = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0;
    const hwloc_obj_type_t type = known ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    hwloc_obj_t core = NULL;
    int n = 0;

    while ((core = hwloc_get_next_obj_by_type(topology, type, core)) != NULL) {
        if (hwloc_bitmap_intersects(core->cpuset, set)) {
            if (cores != NULL && n < n_max) {
                cores[n] = core;
            }
            n++;
        }
    }
    return n;
}

/* Hardware threads of the smallest of n_ranks shares of `set`, 0 if there are fewer cores than
 * ranks. */
static int least_share(const plan *p, hwloc_const_bitmap_t set, int n_ranks)
{
    const int n_cores = rp_topo_cores(p->topology, set, NULL, 0);

    return n_cores == 0 ? 0 : n_cores / n_ranks * (hwloc_bitmap_weight(set) / n_cores);
}

static bool same_mask(const plan *p, int a, int b)
{
    return hwloc_bitmap_isequal(p->seats[a].mask, p->seats[b].mask) != 0;
}

/* Does b want the very cores that a wants? */
static bool same_cores(const plan *p, int a, int b)
{
    return same_mask(p, a, b) && hwloc_bitmap_isequal(p->seats[a].near, p->seats[b].near) != 0;
}

static int count_same(const plan *p, int rank, bool (*same)(const plan *, int, int))
{
    int n = 0;

    for (int i = 0; i < p->n; i++) {
        n += same(p, rank, i);
    }
    return n;
}

/* ---- what each rank wants */

static void find_device(plan *p, seat *s, const char *pci)
{
    hwloc_obj_t place = NULL;

    if (pci[0] != '\0') {
        s->device = hwloc_get_pcidev_by_busidstring(p->topology, pci);
    }
    if (s->device != NULL) {
        place = hwloc_get_non_io_ancestor_obj(p->topology, s->device);
    }
    if (place != NULL && place->cpuset != NULL) {
        s->order = hwloc_bitmap_first(place->cpuset);
        (void)hwloc_bitmap_and(s->near, s->mask, place->cpuset);
    }
    if (hwloc_bitmap_iszero(s->near)) {
        (void)hwloc_bitmap_copy(s->near, s->mask);
    }
}

static rp_status open_seat(plan *p, seat *s, const rp_topo_rank *rank)
{
    s->mask = hwloc_bitmap_alloc();
    s->near = hwloc_bitmap_alloc();
    s->cpus = hwloc_bitmap_alloc();
    if (s->mask == NULL || s->near == NULL || s->cpus == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the plan of the ranks' cores");
    }
    if (hwloc_bitmap_list_sscanf(s->mask, rank->mask) != 0) {
        hwloc_bitmap_zero(s->mask);
    }
    (void)hwloc_bitmap_and(s->mask, s->mask, hwloc_topology_get_topology_cpuset(p->topology));
    find_device(p, s, rank->pci);
    return RP_OK;
}

/* Of the ranks with this one's mask: can all stay near their devices? Not if that leaves one with
 * too little that would have more without, nor if what they want overlaps in part. */
static bool near_is_fair(const plan *p, int rank)
{
    const seat *const seats = p->seats;
    const int whole = least_share(p, seats[rank].mask, count_same(p, rank, same_mask));

    for (int i = 0; i < p->n; i++) {
        const int share = least_share(p, seats[i].near, count_same(p, i, same_cores));
        if (same_mask(p, rank, i) && (share == 0 || (share < RP_TOPO_LEAST && share < whole))) {
            return false;
        }
        for (int k = 0; same_mask(p, rank, i) && k < i; k++) {
            if (same_mask(p, rank, k) && !same_cores(p, i, k) &&
                hwloc_bitmap_intersects(seats[i].near, seats[k].near)) {
                return false;
            }
        }
    }
    return true;
}

static void widen_unfair(plan *p)
{
    for (int first = 0; first < p->n; first++) {
        bool seen = false;
        for (int i = 0; i < first; i++) {
            seen = seen || same_mask(p, i, first);
        }
        if (seen || near_is_fair(p, first)) {
            continue;
        }
        for (int i = first; i < p->n; i++) {
            if (same_mask(p, i, first)) {
                (void)hwloc_bitmap_copy(p->seats[i].near, p->seats[i].mask);
            }
        }
    }
}

/* ---- who gets what */

/* This rank's number among those that want the same cores: by device, then by rank. */
static int turn_of(const plan *p, int rank)
{
    int turn = 0;

    for (int i = 0; i < p->n; i++) {
        const int before = p->seats[i].order - p->seats[rank].order;
        turn += same_cores(p, rank, i) && (before < 0 || (before == 0 && i < rank));
    }
    return turn;
}

static void share_out(plan *p, int rank)
{
    seat *s = &p->seats[rank];
    const int n_ranks = count_same(p, rank, same_cores);
    const int n_cores = rp_topo_cores(p->topology, s->near, p->cores, p->n_cores);
    const int turn = turn_of(p, rank);

    s->n_sharing = 1;
    if (n_cores < n_ranks) { /* more ranks than cores: they stay as they are */
        s->n_sharing = n_ranks;
        (void)hwloc_bitmap_copy(s->cpus, s->mask);
        return;
    }
    for (int c = turn * n_cores / n_ranks; c < (turn + 1) * n_cores / n_ranks; c++) {
        (void)hwloc_bitmap_or(s->cpus, s->cpus, p->cores[c]->cpuset);
    }
    (void)hwloc_bitmap_and(s->cpus, s->cpus, s->near); /* a mask may hold half a core */
}

static void keep_masks(plan *p)
{
    for (int i = 0; i < p->n; i++) {
        p->seats[i].n_sharing = count_same(p, i, same_mask);
        (void)hwloc_bitmap_copy(p->seats[i].cpus, p->seats[i].mask);
    }
}

/* Masks may overlap in part, so also of ranks that the plan keeps apart otherwise. */
static int count_near(const plan *p, int rank)
{
    int n = 1;

    for (int i = 0; i < p->n; i++) {
        n += i != rank && (hwloc_bitmap_iszero(p->seats[i].cpus) ||
                           hwloc_bitmap_intersects(p->seats[i].cpus, p->seats[rank].cpus));
    }
    return n;
}

/* ---- the nearest network card: for people, NCCL looks for its own */

static bool is_fabric(hwloc_obj_t dev)
{
    return dev->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
}

static bool is_card(hwloc_obj_t dev, bool fabric)
{
    const bool net = dev->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK;
    bool on_pci = false;

    for (hwloc_obj_t o = dev; o != NULL && !on_pci; o = o->parent) {
        on_pci = o->type == HWLOC_OBJ_PCI_DEVICE; /* loopback and bridges are not */
    }
    return on_pci && (fabric ? is_fabric(dev) : net);
}

/* Steps from the machine down to what both have in common: more is nearer. */
static int depth_in_common(hwloc_obj_t a, hwloc_obj_t b)
{
    hwloc_obj_t common = NULL;
    int depth = 0;

    for (hwloc_obj_t x = a; x != NULL && common == NULL; x = x->parent) {
        for (hwloc_obj_t y = b; y != NULL && common == NULL; y = y->parent) {
            common = x == y ? x : NULL;
        }
    }
    for (; common != NULL && common->parent != NULL; common = common->parent) {
        depth++;
    }
    return depth;
}

static void find_nic(const plan *p, const seat *s, char *text, size_t n_text)
{
    hwloc_obj_t from =
        s->device != NULL ? s->device : hwloc_get_obj_covering_cpuset(p->topology, s->cpus);
    bool fabric = false;
    int best = -1;

    text[0] = '\0';
    for (hwloc_obj_t dev = NULL; (dev = hwloc_get_next_osdev(p->topology, dev)) != NULL;) {
        fabric = fabric || is_card(dev, true); /* where there are fast ones, only these count */
    }
    for (hwloc_obj_t dev = NULL; (dev = hwloc_get_next_osdev(p->topology, dev)) != NULL;) {
        const int depth = from != NULL && is_card(dev, fabric) ? depth_in_common(from, dev) : -1;
        if (depth > best) {
            best = depth;
            (void)snprintf(text, n_text, "%s", dev->name != NULL ? dev->name : "");
        }
    }
}

/* ---- the plan */

static void write_place(const plan *p, const seat *s, rp_topo_place *out)
{
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();

    memset(out, 0, sizeof(*out));
    out->n_sharing = s->n_sharing;
    out->narrower = !hwloc_bitmap_isequal(s->cpus, s->mask);
    if (hwloc_bitmap_list_snprintf(out->cpus, sizeof(out->cpus), s->cpus) >=
        (int)sizeof(out->cpus)) {
        out->cpus[0] = '\0'; /* cut it would be another set */
        out->narrower = false;
    }
    out->n_cores = rp_topo_cores(p->topology, s->cpus, NULL, 0);
    out->n_threads = hwloc_bitmap_weight(s->cpus);
    if (nodes != NULL) {
        hwloc_cpuset_to_nodeset(p->topology, s->cpus, nodes);
        (void)hwloc_bitmap_list_snprintf(out->numa, sizeof(out->numa), nodes);
    }
    hwloc_bitmap_free(nodes);
    find_nic(p, s, out->nic, sizeof(out->nic));
}

static rp_status open_plan(plan *p, const rp_topo_rank *ranks)
{
    p->n_cores = hwloc_get_nbobjs_by_type(p->topology, HWLOC_OBJ_PU);
    RP_TRY(rp_mem_new((size_t)p->n, sizeof(*p->seats), "ranks of the node", (void **)&p->seats));
    RP_TRY(rp_mem_new((size_t)p->n_cores, sizeof(hwloc_obj_t), "cores of the node",
                      (void **)&p->cores));
    for (int i = 0; i < p->n; i++) {
        RP_TRY(open_seat(p, &p->seats[i], &ranks[i]));
    }
    return RP_OK;
}

static void close_plan(plan *p)
{
    for (int i = 0; p->seats != NULL && i < p->n; i++) {
        hwloc_bitmap_free(p->seats[i].mask);
        hwloc_bitmap_free(p->seats[i].near);
        hwloc_bitmap_free(p->seats[i].cpus);
    }
    free(p->seats);
    free(p->cores);
}

rp_status rp_topo_plan(const rp_topo_machine *machine, const rp_topo_rank *ranks, int n, bool bind,
                       rp_topo_place *places)
{
    plan p = {.topology = machine->hwloc, .n = n};
    const rp_status st = open_plan(&p, ranks);

    if (st == RP_OK && bind) {
        widen_unfair(&p);
        for (int i = 0; i < n; i++) {
            share_out(&p, i);
        }
    } else if (st == RP_OK) {
        keep_masks(&p);
    }
    for (int i = 0; st == RP_OK && i < n; i++) {
        write_place(&p, &p.seats[i], &places[i]);
        places[i].n_near = count_near(&p, i);
    }
    close_plan(&p);
    return st;
}

bool rp_topo_own_cores(const rp_topo_place *place)
{
    return place->n_threads >= RP_TOPO_LEAST * place->n_near;
}

bool rp_topo_is_short(const rp_topo_machine *machine, const rp_topo_place *place, int n)
{
    const int n_threads = hwloc_get_nbobjs_by_type(machine->hwloc, HWLOC_OBJ_PU);

    return place->n_threads < RP_TOPO_LEAST && n_threads >= RP_TOPO_LEAST * n;
}
