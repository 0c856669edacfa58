/* job_device.c - which backend and device a rank computes on, and whether that fits the others. */
#include "job/job_device.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "ctrl/ctrl_wait.h"
#include "job/job_bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one rank's choice */

static rp_precision precision_of(const rp_settings *settings)
{
    return rp_precision_named(rp_settings_text(settings, RP_OPTION_PRECISION));
}

/* The named row, or the first that can work; rank 0 says why a better one cannot. */
static rp_status choose_row(const char *name, bool talk, const rp_backend_ops **out)
{
    for (const rp_backend_ops *const *row = rp_backend_list; *row != NULL; row++) {
        const bool any = strcmp(name, "auto") == 0;
        if (!any && strcmp(name, (*row)->name) != 0) {
            continue;
        }
        if ((*row)->usable()) {
            *out = *row;
            return RP_OK;
        }
        if (!any) {
            return RP_FAIL(RP_E_UNSUP,
                           "backend %s cannot work here: %s (--backend auto takes what works)",
                           name, (*row)->why_not());
        }
        if (talk) {
            RP_INFO("not computing on %s: %s", (*row)->name, (*row)->why_not());
        }
    }
    return RP_FAIL(RP_E_UNSUP, "no backend works on this machine");
}

/* A table with a hole would crash in the middle of a job. Its slots are pointers. */
static rp_status check_table(const rp_backend_ops *row)
{
    for (size_t i = 0; i < sizeof(*row) / sizeof(void *); i++) {
        void *slot = NULL;
        memcpy(&slot, (const char *)row + i * sizeof(slot), sizeof(slot));
        if (slot == NULL) {
            return RP_FAIL(RP_E_UNSUP, "backend %s lacks an op (slot %zu of its table)", row->name,
                           i);
        }
    }
    return RP_OK;
}

int rp_device_index(int local_rank, int n_devices)
{
    return local_rank % n_devices;
}

/* Which row, and which of its devices: one per rank of the host. */
typedef struct {
    const rp_backend_ops *row;
    int device;
    char pci[16];
} selection;

static rp_status select_device(const rp_settings *settings, const rankpool *pool, selection *out)
{
    const char *name = rp_settings_text(settings, RP_OPTION_BACKEND);

    RP_TRY(choose_row(name, rp_ctrl_rank(pool->ctrl) == 0, &out->row));
    RP_TRY(check_table(out->row));
    out->device = rp_device_index(rp_ctrl_local_rank(pool->ctrl), out->row->n_devices());
    out->row->pci(out->device, out->pci, sizeof(out->pci));
    return RP_OK;
}

static rp_status open_backend(const rp_settings *settings, const selection *selected,
                              rankpool *pool)
{
    const rp_backend_params params = {
        .n_threads = pool->n_threads,
        .device = selected->device,
        .precision = precision_of(settings),
    };

    RP_TRY(selected->row->open(&params, &pool->backend.self));
    pool->backend.ops = selected->row;
    pool->backend.ops->info(pool->backend.self, &pool->device);
    rp_ctrl_wait_own_cores(pool->device.on_device && rp_topo_own_cores(&pool->place));
    return RP_OK;
}

/* ---- all ranks' choices side by side */

typedef struct {
    char backend[16];
    rp_device_info device;
    bool may_share;
    int32_t n_devices; /* that this rank sees, */
    char visible[80];  /* with this CUDA_VISIBLE_DEVICES; "" where it is not set */
} choice;

static rp_status refuse_mix(const rankpool *pool, const choice *all, int r)
{
    if (rp_ctrl_rank(pool->ctrl) == 0) {
        RP_ERROR("rank %d on host %s computes on %s in %s, rank 0 on host %s on %s in %s; give all "
                 "ranks the same --backend and --precision",
                 r, rp_ctrl_host(pool->ctrl, r), all[r].backend, all[r].device.precision,
                 rp_ctrl_host(pool->ctrl, 0), all[0].backend, all[0].device.precision);
    }
    return RP_E_UNSUP;
}

/* A list ends at its first bad entry: "0,abc" is one GPU, and nothing else says so. */
static rp_status refuse_shared(const rankpool *pool, const choice *all, int first, int second)
{
    char seen[160] = "";

    if (all[second].visible[0] != '\0') {
        (void)snprintf(seen, sizeof(seen), " (of CUDA_VISIBLE_DEVICES=\"%s\" rank %d sees %d)",
                       all[second].visible, second, (int)all[second].n_devices);
    }
    if (rp_ctrl_rank(pool->ctrl) == 0) {
        RP_ERROR("ranks %d and %d on host %s have the same GPU (%s, %s)%s; start one rank per GPU, "
                 "or allow it with --allow-shared-gpu",
                 first, second, rp_ctrl_host(pool->ctrl, first), all[first].device.name,
                 all[first].device.id, seen);
    }
    return RP_E_UNSUP;
}

/* Does rank r's device fit those of the ranks before it? */
static rp_status check_choice(const rankpool *pool, const choice *all, int r)
{
    if (strcmp(all[r].backend, all[0].backend) != 0 ||
        strcmp(all[r].device.precision, all[0].device.precision) != 0) {
        return refuse_mix(pool, all, r);
    }
    /* rank 0's word: all ranks must come to the same answer */
    for (int before = 0; before < r && !all[0].may_share && all[r].device.id[0] != '\0'; before++) {
        if (strcmp(all[r].device.id, all[before].device.id) == 0) {
            return refuse_shared(pool, all, before, r);
        }
    }
    if (rp_ctrl_rank(pool->ctrl) == 0 && strcmp(all[r].device.name, all[0].device.name) != 0) {
        RP_WARN("rank %d on host %s has a %s, rank 0 a %s: pictures may differ in their last bits "
                "from those "
                "of one kind of GPU",
                r, rp_ctrl_host(pool->ctrl, r), all[r].device.name, all[0].device.name);
    }
    return RP_OK;
}

static rp_status compare_choices(rankpool *pool, bool may_share)
{
    const int n_ranks = rp_ctrl_n_ranks(pool->ctrl);
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    choice mine = {.device = pool->device, .may_share = may_share};
    choice *all = NULL;

    mine.n_devices = pool->backend.ops->n_devices();
    (void)snprintf(mine.visible, sizeof(mine.visible), "%.79s", visible != NULL ? visible : "");
    strncpy(mine.backend, pool->backend.ops->name, sizeof(mine.backend) - 1);
    RP_TRY(rp_mem_new((size_t)n_ranks, sizeof(*all), "devices of the ranks", (void **)&all));
    rp_status st = rp_ctrl_allgather(pool->ctrl, &mine, sizeof(mine), all);
    for (int r = 1; r < n_ranks && st == RP_OK; r++) {
        st = check_choice(pool, all, r);
    }
    free(all);
    return st;
}

rp_status rp_device_open(const rp_settings *settings, rankpool *pool)
{
    selection mine = {0};

    RP_TRY(rp_ctrl_agree(pool->ctrl, select_device(settings, pool, &mine), "opening the backend"));
    RP_TRY(rp_bind(settings, mine.pci, pool));
    RP_TRY(rp_ctrl_agree(pool->ctrl, open_backend(settings, &mine, pool), "opening the backend"));
    return compare_choices(pool, rp_settings_on(settings, RP_OPTION_ALLOW_SHARED_GPU));
}
