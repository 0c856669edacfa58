/*
 * wire_device.h - what wire_bench.c needs of a GPU: memory, and the same transfers by plain NCCL
 * calls.
 *
 * wire_cuda.c where the build has CUDA, wire_host.c elsewhere: no GPU, no plain transfers.
 */
#ifndef RP_WIRE_DEVICE_H
#define RP_WIRE_DEVICE_H

#include "xport/xport.h"

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>

/* Binds this thread to the GPU of a rank of its host. How many GPUs there are, 0: none. */
int wire_bind(int local_rank);

/* Memory of the GPU, or of the host: pinned where there is a GPU, as the pool's. NULL: there is
 * none. */
void *wire_alloc(bool on_device, size_t n_bytes);
void wire_release(bool on_device, void *memory);

/* Between any two kinds of memory, waited for. */
rp_status wire_copy(void *to, const void *from, size_t n_bytes);

/* Does transport nccl, opened from now on, launch groups that repeat as CUDA graphs? */
void wire_nccl_graphs(bool on);

/* A communicator of its own, whose calls block. */
typedef struct wire_plain wire_plain;

/* Collective. RP_E_UNSUP without CUDA, RP_E_CUDA (logged). */
rp_status wire_plain_open(rp_ctrl *ctrl, wire_plain **out);
void wire_plain_close(wire_plain *plain); /* Collective. NULL is allowed */

/* One group of sends or receives, waited for. RP_E_CUDA (logged). */
rp_status wire_plain_move(wire_plain *plain, const rp_xfer *xfers, int n);

/* The same group as a CUDA graph in place `which` (0 or 1), taking that of the one before. Every
 * pair has moved bytes already. RP_E_CUDA (logged). */
rp_status wire_plain_record(wire_plain *plain, int which, const rp_xfer *xfers, int n);
rp_status wire_plain_replay(wire_plain *plain, int which); /* waited for */

#endif
