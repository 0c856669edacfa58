/* xport_list.c - the transports of this build, best first. */
#include "xport/xport.h"

#include "base/check.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

extern const rp_xport_ops rp_xport_local;
extern const rp_xport_ops rp_xport_mpi;
extern const rp_xport_ops rp_xport_nccl;

const rp_xport_ops *const rp_xport_list[] = {
    &rp_xport_local,
#if defined(RP_HAVE_NCCL) && defined(RP_HAVE_MPI)
    &rp_xport_nccl,
#endif
#ifdef RP_HAVE_MPI
    &rp_xport_mpi,
#endif
    NULL,
};

static rp_status unknown(const char *name)
{
    char known[256] = "auto";
    size_t n = strlen(known);

    for (int i = 0; rp_xport_list[i] != NULL && n < sizeof(known); i++) {
        n += (size_t)snprintf(known + n, sizeof(known) - n, ", %s", rp_xport_list[i]->name);
    }
    return RP_FAIL(RP_E_ARG, "no transport \"%s\" in this build; it has %s", name, known);
}

rp_status rp_xport_choose(const char *name, const rp_ctrl *ctrl, bool on_device,
                          const rp_xport_ops **out)
{
    const bool any = strcmp(name, "auto") == 0;
    const int n_ranks = rp_ctrl_n_ranks(ctrl);

    for (int i = 0; rp_xport_list[i] != NULL; i++) {
        const rp_xport_ops *row = rp_xport_list[i];
        const bool can = row->usable(ctrl) && (on_device || !row->on_device);
        if (!any && strcmp(name, row->name) != 0) {
            continue;
        }
        if (can || n_ranks == 1) { /* one rank sends nothing: any name will do */
            *out = can ? row : &rp_xport_local;
            return RP_OK;
        }
        if (!any && row->on_device && !on_device) {
            return RP_FAIL(RP_E_UNSUP,
                           "transport %s (%s): this pool computes on the CPU; use --transport mpi",
                           name, row->help);
        }
        if (!any) {
            return RP_FAIL(RP_E_UNSUP, "transport %s (%s) cannot serve %d rank%s over %s control",
                           name, row->help, n_ranks, n_ranks == 1 ? "" : "s", rp_ctrl_kind(ctrl));
        }
    }
    return any ? RP_FAIL(RP_E_UNSUP, "no transport of this build can serve %d ranks", n_ranks)
               : unknown(name);
}

rp_status rp_xport_agree(rp_ctrl *ctrl, const rp_xport_ops *mine)
{
    char first[32] = "";
    rp_status st = RP_OK;

    (void)snprintf(first, sizeof(first), "%s", mine->name);
    RP_TRY(rp_ctrl_bcast(ctrl, first, sizeof(first)));
    if (strcmp(first, mine->name) != 0) {
        st = RP_FAIL(RP_E_UNSUP,
                     "it takes transport %s, rank 0 takes %s; give all ranks the same --transport "
                     "(or RANKPOOL_TRANSPORT)",
                     mine->name, first);
    }
    return rp_ctrl_agree(ctrl, st, "comparing transports");
}
