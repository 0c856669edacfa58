/* wire_host.c - wire_device.h in a build without CUDA. */
#include "wire_device.h"

#include <stdlib.h>
#include <string.h>

int wire_bind(int local_rank)
{
    (void)local_rank;
    return 0;
}

void *wire_alloc(bool on_device, size_t n_bytes)
{
    return on_device ? NULL : malloc(n_bytes);
}

void wire_release(bool on_device, void *memory)
{
    (void)on_device;
    free(memory);
}

rp_status wire_copy(void *to, const void *from, size_t n_bytes)
{
    memcpy(to, from, n_bytes);
    return RP_OK;
}

rp_status wire_plain_open(rp_ctrl *ctrl, wire_plain **out)
{
    (void)ctrl;
    *out = NULL;
    return RP_E_UNSUP;
}

void wire_plain_close(wire_plain *plain)
{
    (void)plain;
}

rp_status wire_plain_move(wire_plain *plain, const rp_xfer *xfers, int n)
{
    (void)plain;
    (void)xfers;
    (void)n;
    return RP_E_UNSUP;
}

rp_status wire_plain_record(wire_plain *plain, int which, const rp_xfer *xfers, int n)
{
    (void)which;
    return wire_plain_move(plain, xfers, n);
}

void wire_nccl_graphs(bool on)
{
    (void)on;
}

rp_status wire_plain_replay(wire_plain *plain, int which)
{
    (void)which;
    return wire_plain_move(plain, NULL, 0);
}
