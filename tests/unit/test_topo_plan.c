/* test_topo_plan.c - the plan of every rank on recorded machines (tests/ref/make_topo.py). */
#include "rp_test.h"

#include "topo/topo.h"

#include <stdio.h>
#include <string.h>

#define MAX_RANKS 24

/* Ranks of one node and what the plan gave them. */
typedef struct {
    rp_topo_machine *machine;
    rp_topo_rank ranks[MAX_RANKS];
    rp_topo_place places[MAX_RANKS];
    int n;
} node;

static node *open_node(const char *name)
{
    static node g_node;
    char path[512];

    memset(&g_node, 0, sizeof(g_node));
    (void)snprintf(path, sizeof(path), "%s/topo/%s.xml", RP_TEST_DATA, name);
    assert_int_equal(rp_topo_open(path, &g_node.machine), RP_OK);
    return &g_node;
}

static void add_rank(node *nd, const char *mask, const char *pci)
{
    rp_topo_rank *rank = &nd->ranks[nd->n++];

    (void)snprintf(rank->mask, sizeof(rank->mask), "%s", mask);
    (void)snprintf(rank->pci, sizeof(rank->pci), "%s", pci);
}

static void make_plan(node *nd, bool bind)
{
    assert_int_equal(rp_topo_plan(nd->machine, nd->ranks, nd->n, bind, nd->places), RP_OK);
}

/* One rank's line of the plan, as "cpus|numa|nic|cores|threads|sharing". */
static void expect(const node *nd, int rank, const char *want)
{
    const rp_topo_place *p = &nd->places[rank];
    char got[RP_TOPO_SET_BYTES + 256];

    (void)snprintf(got, sizeof(got), "%.*s|%s|%s|%d|%d|%d", (int)sizeof(p->cpus) - 1, p->cpus,
                   p->numa, p->nic, p->n_cores, p->n_threads, p->n_sharing);
    if (strcmp(got, want) != 0) {
        print_error("rank %d\n", rank);
    }
    assert_string_equal(got, want);
    assert_int_equal(p->narrower, strcmp(p->cpus, nd->ranks[rank].mask) != 0);
}

static void close_node(node *nd)
{
    rp_topo_close(nd->machine);
}

/* ---- the four machines */

static void workstation_two_gpus_halve_the_package(void **state)
{
    (void)state;
    node *nd = open_node("workstation");

    add_rank(nd, "0-15", "0000:01:00.0");
    add_rank(nd, "0-15", "0000:02:00.0");
    make_plan(nd, true);
    expect(nd, 0, "0-3,8-11|0|eth0|4|8|1");
    expect(nd, 1, "4-7,12-15|0|eth0|4|8|1");
    close_node(nd);
}

static void workstation_one_rank_has_all_of_it(void **state)
{
    (void)state;
    node *nd = open_node("workstation");

    add_rank(nd, "0-15", "0000:02:00.0");
    make_plan(nd, true);
    expect(nd, 0, "0-15|0|eth0|8|16|1");
    close_node(nd);
}

static const char *const g_gpus[8] = {"0000:10:00.0", "0000:20:00.0", "0000:30:00.0",
                                      "0000:40:00.0", "0000:90:00.0", "0000:A0:00.0",
                                      "0000:b0:00.0", "0000:c0:00.0"};

static void two_sockets_eight_gpus_each_rank_near_its_own(void **state)
{
    (void)state;
    static const char *const want[8] = {"0-2,24-26|0|ib0|3|6|1",   "3-5,27-29|0|ib1|3|6|1",
                                        "6-8,30-32|0|ib2|3|6|1",   "9-11,33-35|0|ib3|3|6|1",
                                        "12-14,36-38|1|ib4|3|6|1", "15-17,39-41|1|ib5|3|6|1",
                                        "18-20,42-44|1|ib6|3|6|1", "21-23,45-47|1|ib7|3|6|1"};
    node *nd = open_node("gpus8");

    for (int r = 0; r < 8; r++) {
        add_rank(nd, "0-47", g_gpus[r]);
    }
    make_plan(nd, true);
    for (int r = 0; r < 8; r++) {
        expect(nd, r, want[r]);
        assert_false(rp_topo_is_short(nd->machine, &nd->places[r], 8));
    }
    close_node(nd);
}

/* mpirun --map-by ppr:N:node --bind-to none, devices in another order than the ranks. */
static void ranks_follow_their_devices(void **state)
{
    (void)state;
    node *nd = open_node("gpus8");

    add_rank(nd, "0-47", g_gpus[7]);
    add_rank(nd, "0-47", g_gpus[0]);
    add_rank(nd, "0-47", g_gpus[4]);
    make_plan(nd, true);
    expect(nd, 0, "12-17,36-41|1|ib7|6|12|1");
    expect(nd, 1, "0-11,24-35|0|ib0|12|24|1");
    expect(nd, 2, "18-23,42-47|1|ib4|6|12|1");
    close_node(nd);
}

static void slurm_masks_of_one_task_are_kept(void **state)
{
    (void)state;
    static const char *const masks[4] = {"0-3", "4-7", "8-11", "12-15"};
    static const char *const gpus[4] = {"0000:21:00.0", "0000:22:00.0", "0000:a1:00.0",
                                        "0000:a2:00.0"};
    static const char *const want[4] = {"0-3|0|eth0|4|4|1", "4-7|0|eth0|4|4|1", "8-11|1|eth1|4|4|1",
                                        "12-15|1|eth1|4|4|1"};
    node *nd = open_node("slurm");

    for (int r = 0; r < 4; r++) {
        add_rank(nd, masks[r], gpus[r]);
    }
    make_plan(nd, true);
    for (int r = 0; r < 4; r++) {
        expect(nd, r, want[r]);
    }
    close_node(nd);
}

/* Tasks whose mask lies over both sockets, or on the wrong one. */
static void slurm_masks_are_narrowed_where_three_threads_are_left(void **state)
{
    (void)state;
    node *nd = open_node("slurm");

    add_rank(nd, "0-2,8", "0000:21:00.0");
    add_rank(nd, "3-4,9-10", "0000:22:00.0");
    add_rank(nd, "5-7", "0000:a1:00.0");
    add_rank(nd, "11-15", "0000:a2:00.0");
    make_plan(nd, true);
    expect(nd, 0, "0-2|0|eth0|3|3|1");
    expect(nd, 1, "3-4,9-10|0-1|eth0|4|4|1");
    expect(nd, 2, "5-7|0|eth1|3|3|1");
    expect(nd, 3, "11-15|1|eth1|5|5|1");
    close_node(nd);
}

static void without_pci_ranks_split_the_cores_by_locality(void **state)
{
    (void)state;
    static const char *const want[4] = {"0-1,8-9|0||2|4|1", "2-3,10-11|0||2|4|1",
                                        "4-5,12-13|1||2|4|1", "6-7,14-15|1||2|4|1"};
    node *nd = open_node("plain");

    for (int r = 0; r < 4; r++) {
        add_rank(nd, "0-15", r % 2 == 0 ? "0000:01:00.0" : ""); /* a device nobody knows, or none */
    }
    make_plan(nd, true);
    for (int r = 0; r < 4; r++) {
        expect(nd, r, want[r]);
    }
    close_node(nd);
}

/* ---- rules */

static void shares_differ_by_one_core(void **state)
{
    (void)state;
    node *nd = open_node("plain");

    for (int r = 0; r < 3; r++) {
        add_rank(nd, "0-15", "");
    }
    make_plan(nd, true);
    expect(nd, 0, "0-1,8-9|0||2|4|1");
    expect(nd, 1, "2-4,10-12|0-1||3|6|1");
    expect(nd, 2, "5-7,13-15|1||3|6|1");
    close_node(nd);
}

static void cpu_ranks_see_the_card_of_their_socket(void **state)
{
    (void)state;
    node *nd = open_node("slurm");

    add_rank(nd, "0-15", "");
    add_rank(nd, "0-15", "");
    make_plan(nd, true);
    expect(nd, 0, "0-7|0|eth0|8|8|1");
    expect(nd, 1, "8-15|1|eth1|8|8|1");
    close_node(nd);
}

/* Four of five ranks want socket 0: 2 hardware threads each, where the machine has 3 for each. */
static void a_socket_too_small_for_its_ranks_is_left_for_the_mask(void **state)
{
    (void)state;
    static const char *const want[5] = {"0-2|0|eth0|3|3|1", "3-5|0|eth0|3|3|1",
                                        "6-8|0-1|eth0|3|3|1", "12-15|1|eth1|4|4|1",
                                        "9-11|1|eth0|3|3|1"};
    node *nd = open_node("slurm");

    for (int r = 0; r < 5; r++) {
        add_rank(nd, "0-15", r == 3 ? "0000:a1:00.0" : "0000:21:00.0");
    }
    make_plan(nd, true);
    for (int r = 0; r < 5; r++) {
        expect(nd, r, want[r]);
    }
    close_node(nd);
}

static void more_ranks_than_cores_are_not_bound(void **state)
{
    (void)state;
    node *nd = open_node("plain");

    for (int r = 0; r < 9; r++) {
        add_rank(nd, "0-15", "");
    }
    make_plan(nd, true);
    for (int r = 0; r < 9; r++) {
        expect(nd, r, "0-15|0-1||8|16|9");
        assert_int_equal(rp_topo_threads(nd->places[r].n_cores, nd->places[r].n_sharing), 1);
    }
    close_node(nd);
}

static void a_mask_of_one_core_or_half_a_core_is_kept(void **state)
{
    (void)state;
    node *nd = open_node("gpus8");

    add_rank(nd, "5,29", g_gpus[0]);
    add_rank(nd, "30", g_gpus[4]); /* far from its device */
    add_rank(nd, "7", "");
    add_rank(nd, "7", "");
    make_plan(nd, true);
    expect(nd, 0, "5,29|0|ib0|1|2|1");
    expect(nd, 1, "30|0|ib4|1|1|1");
    expect(nd, 2, "7|0|ib0|1|1|2");
    expect(nd, 3, "7|0|ib0|1|1|2");
    assert_true(rp_topo_is_short(nd->machine, &nd->places[0], 16));
    assert_false(rp_topo_is_short(nd->machine, &nd->places[0], 17)); /* the machine has no more */
    close_node(nd);
}

/* One device is known, the other is not: what they want overlaps, so both split the mask. */
static void wishes_that_overlap_in_part_are_given_up(void **state)
{
    (void)state;
    node *nd = open_node("gpus8");

    add_rank(nd, "0-47", g_gpus[4]);
    add_rank(nd, "0-47", "0000:ff:00.0");
    make_plan(nd, true);
    expect(nd, 0, "12-23,36-47|1|ib4|12|24|1");
    expect(nd, 1, "0-11,24-35|0|ib0|12|24|1");
    close_node(nd);
}

static void two_ranks_of_one_gpu_split_its_cores(void **state)
{
    (void)state;
    node *nd = open_node("gpus8");

    add_rank(nd, "0-47", g_gpus[5]);
    add_rank(nd, "0-47", g_gpus[5]);
    make_plan(nd, true);
    expect(nd, 0, "12-17,36-41|1|ib5|6|12|1");
    expect(nd, 1, "18-23,42-47|1|ib5|6|12|1");
    close_node(nd);
}

static void bind_none_leaves_the_masks(void **state)
{
    (void)state;
    node *nd = open_node("gpus8");

    add_rank(nd, "0-47", g_gpus[0]);
    add_rank(nd, "0-47", g_gpus[7]);
    add_rank(nd, "0-3", g_gpus[7]);
    make_plan(nd, false);
    expect(nd, 0, "0-47|0-1|ib0|24|48|2");
    expect(nd, 1, "0-47|0-1|ib7|24|48|2");
    expect(nd, 2, "0-3|0|ib7|4|4|1");
    close_node(nd);
}

/* How many ranks may run on a rank's cores, and whether these count as its own. */
static void expect_near(const node *nd, int rank, int n_near, bool own)
{
    const rp_topo_place *p = &nd->places[rank];

    if (p->n_near != n_near || rp_topo_own_cores(p) != own) {
        fail_msg("rank %d on %s: %d ranks near, own %d; expected %d, %d", rank, p->cpus, p->n_near,
                 rp_topo_own_cores(p), n_near, own);
    }
}

static void masks_that_overlap_in_part_are_shared(void **state)
{
    (void)state;
    static const struct {
        const char *mask;
        int n_near;
        bool own;
    } rows[] = {
        {"0-3", 2, false},   /* one thread in common with the next: 4 for two ranks */
        {"3-8", 2, true},    /* 6 are enough for two */
        {"9-11", 1, true},   /* nobody else's */
        {"12-14", 3, false}, /* the next one's too, and inside the one after that */
        {"12-14", 3, false}, {"12-20", 3, true}, {"21-22", 1, false}, /* its own, and too few */
    };
    node *nd = open_node("gpus8");

    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        add_rank(nd, rows[r].mask, "");
    }
    make_plan(nd, false);
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        expect_near(nd, (int)r, rows[r].n_near, rows[r].own);
    }
    close_node(nd);
}

/* What counts is where ranks may run in the end: bound, those of one mask keep apart. */
static void bound_ranks_share_with_those_of_other_masks_only(void **state)
{
    (void)state;
    node *nd = open_node("gpus8");

    add_rank(nd, "0-11", ""); /* gets 0-5 */
    add_rank(nd, "0-11", ""); /* gets 6-11 */
    add_rank(nd, "10-15", "");
    make_plan(nd, true);
    expect(nd, 0, "0-5|0|ib0|6|6|1");
    expect(nd, 1, "6-11|0|ib0|6|6|1");
    expect_near(nd, 0, 1, true);
    expect_near(nd, 1, 2, true);
    expect_near(nd, 2, 2, true);
    make_plan(nd, false);
    expect_near(nd, 0, 3, true);
    expect_near(nd, 2, 3, false);
    add_rank(nd, "", ""); /* may be anywhere */
    make_plan(nd, true);
    expect_near(nd, 0, 2, true);
    expect_near(nd, 1, 3, false);
    expect_near(nd, 3, 1, false); /* no cores that it knows */
    close_node(nd);
}

/* A mask that could not be written down: nothing is known, nothing is bound. */
static void an_unknown_mask_is_not_bound(void **state)
{
    (void)state;
    node *nd = open_node("plain");

    add_rank(nd, "", "");
    make_plan(nd, true);
    assert_string_equal(nd->places[0].cpus, "");
    assert_false(nd->places[0].narrower);
    assert_int_equal(rp_topo_threads(nd->places[0].n_cores, nd->places[0].n_sharing), 1);
    close_node(nd);
}

static void a_file_that_is_no_topology_is_refused(void **state)
{
    (void)state;
    rp_topo_machine *machine = NULL;

    rpt_log_collect();
    assert_int_equal(rp_topo_open(RP_TEST_DATA "/guide.json", &machine), RP_E_UNSUP);
    assert_non_null(strstr(rpt_log_last(), "guide.json"));
    assert_null(machine);
}

/* The machine that runs this test: at least one core, and a plan within the mask. */
static void this_machine_has_a_plan(void **state)
{
    (void)state;
    rp_topo_machine *machine = NULL;
    rp_topo topo;
    rp_topo_rank rank = {.pci = ""};
    rp_topo_place place;

    assert_int_equal(rp_topo_open(NULL, &machine), RP_OK);
    assert_int_equal(rp_topo_read(machine, &topo), RP_OK);
    memcpy(rank.mask, topo.mask, sizeof(rank.mask));
    assert_int_equal(rp_topo_plan(machine, &rank, 1, true, &place), RP_OK);
    assert_string_equal(place.cpus, topo.mask);
    assert_int_equal(place.n_cores, topo.n_cores);
    assert_in_range(topo.n_cores, 1, topo.n_machine_cores);
    rp_topo_close(machine);
}

/* Two ranks would halve this machine; this process takes the second's place. */
static void binding_is_what_the_plan_says(void **state)
{
    (void)state;
    rp_topo_machine *machine = NULL;
    rp_topo before, after;
    rp_topo_rank ranks[2] = {0};
    rp_topo_place places[2];

    assert_int_equal(rp_topo_open(NULL, &machine), RP_OK);
    assert_int_equal(rp_topo_read(machine, &before), RP_OK);
    memcpy(ranks[0].mask, before.mask, sizeof(before.mask));
    memcpy(ranks[1].mask, before.mask, sizeof(before.mask));
    assert_int_equal(rp_topo_plan(machine, ranks, 2, true, places), RP_OK);
    rp_topo_bind(machine, &places[1]);
    assert_int_equal(rp_topo_read(machine, &after), RP_OK);
    assert_string_equal(after.mask, places[1].cpus);
    assert_int_equal(places[1].narrower, before.n_cores > 1);
    rp_topo_close(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workstation_two_gpus_halve_the_package),
        cmocka_unit_test(workstation_one_rank_has_all_of_it),
        cmocka_unit_test(two_sockets_eight_gpus_each_rank_near_its_own),
        cmocka_unit_test(ranks_follow_their_devices),
        cmocka_unit_test(slurm_masks_of_one_task_are_kept),
        cmocka_unit_test(slurm_masks_are_narrowed_where_three_threads_are_left),
        cmocka_unit_test(without_pci_ranks_split_the_cores_by_locality),
        cmocka_unit_test(shares_differ_by_one_core),
        cmocka_unit_test(cpu_ranks_see_the_card_of_their_socket),
        cmocka_unit_test(a_socket_too_small_for_its_ranks_is_left_for_the_mask),
        cmocka_unit_test(more_ranks_than_cores_are_not_bound),
        cmocka_unit_test(a_mask_of_one_core_or_half_a_core_is_kept),
        cmocka_unit_test(wishes_that_overlap_in_part_are_given_up),
        cmocka_unit_test(two_ranks_of_one_gpu_split_its_cores),
        cmocka_unit_test(bind_none_leaves_the_masks),
        cmocka_unit_test(masks_that_overlap_in_part_are_shared),
        cmocka_unit_test(bound_ranks_share_with_those_of_other_masks_only),
        cmocka_unit_test(an_unknown_mask_is_not_bound),
        cmocka_unit_test(a_file_that_is_no_topology_is_refused),
        cmocka_unit_test(this_machine_has_a_plan),
        cmocka_unit_test(binding_is_what_the_plan_says),
    };

    return cmocka_run_group_tests_name("topo_plan", tests, NULL, NULL);
}
