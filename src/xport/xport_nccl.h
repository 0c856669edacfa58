/* xport_nccl.h - how long transport nccl waits before it gives up. */
#ifndef RP_XPORT_NCCL_H
#define RP_XPORT_NCCL_H

#include <stdbool.h>

/*
 * For transports opened from now on; 0: as it is by default.
 *   open_s   until all ranks are connected, and then for each pair (60)
 *   group_s  for one group of transfers, or one piece of a broadcast (300). Not for what another
 *            rank sends to rank 0: it waits there for units of all ranks, however long they take,
 *            and hears rank 0's alarm. A rank that dies is noticed at once by control; this is for
 *            a GPU or a network that hangs.
 */
void rp_xport_nccl_limits(double open_s, double group_s);

/* For transports opened from now on: are groups that repeat launched as CUDA graphs? They are by
 * default; false is for measuring what that is worth. */
void rp_xport_nccl_graphs(bool on);

#endif
