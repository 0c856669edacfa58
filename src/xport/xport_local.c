/* xport_local.c - the one-rank transport: nobody to send to, so a group is always empty. */
#include "xport/xport.h"

#include "base/log.h"

static bool local_usable(const rp_ctrl *ctrl)
{
    return rp_ctrl_n_ranks(ctrl) == 1;
}

static rp_status local_open(rp_ctrl *ctrl, void **self_out)
{
    (void)ctrl;
    *self_out = NULL;
    return RP_OK;
}

static rp_status local_start(void *self, const rp_xfer *xfers, int n)
{
    (void)self;
    (void)xfers;
    return n == 0 ? RP_OK : RP_FAIL(RP_E_ARG, "%d transfers on transport local, which has none", n);
}

static rp_status local_finish(void *self, bool block, bool *done)
{
    (void)self;
    (void)block;
    *done = true;
    return RP_OK;
}

static rp_status local_broadcast(void *self, void *bytes, size_t n_bytes, int root)
{
    (void)self;
    (void)bytes;
    (void)n_bytes;
    return root == 0 ? RP_OK : RP_FAIL(RP_E_ARG, "broadcast from rank %d of 1", root);
}

static rp_status local_reserve(void *self, int n)
{
    (void)self;
    (void)n;
    return RP_OK;
}

static void local_close(void *self)
{
    (void)self;
}

const rp_xport_ops rp_xport_local = {
    .name = "local",
    .help = "one rank, nothing to send",
    .usable = local_usable,
    .open = local_open,
    .start = local_start,
    .finish = local_finish,
    .broadcast = local_broadcast,
    .reserve = local_reserve,
    .close = local_close,
};
