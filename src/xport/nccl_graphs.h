/*
 * nccl_graphs.h - groups of transfers as CUDA graphs, to be launched again without a call of NCCL.
 *
 * A call on a communicator that does not block costs NCCL a thread, 200 us and at times 2 ms; the
 * launch of a graph costs 10 us. The groups of a job repeat themselves in every step. A group seen
 * for the first time is called; the second time it is called while the stream is captured; from
 * then on its graph is launched. A group that CUDA cannot capture is called every time; an error of
 * NCCL while it is captured ends the transport, as any other.
 */
#ifndef RP_NCCL_GRAPHS_H
#define RP_NCCL_GRAPHS_H

#include "xport/xport.h"

#include <cuda_runtime_api.h>
#include <stdint.h>

enum { RP_NCCL_GRAPHS = 16, RP_NCCL_GRAPH_XFERS = 64 };

typedef struct {
    int n, seen;
    uint64_t last; /* when it was last asked for */
    bool given_up; /* it could not be captured */
    rp_xfer xfers[RP_NCCL_GRAPH_XFERS];
    cudaGraph_t graph;
    cudaGraphExec_t exec; /* NULL until it was captured */
} rp_nccl_kept;

typedef struct {
    int n;
    uint64_t now; /* counts what was asked for */
    rp_nccl_kept kept[RP_NCCL_GRAPHS];
} rp_nccl_graphs;

/* What is known of this group, now seen once more; NULL where nothing is kept of it, as it is too
 * long. When all places are taken, the group that was not asked for the longest goes. Call it while
 * nothing is under way. */
rp_nccl_kept *rp_nccl_graphs_find(rp_nccl_graphs *graphs, const rp_xfer *xfers, int n);

/* Is this the time to capture it? */
bool rp_nccl_kept_is_due(const rp_nccl_kept *kept);

/* Around the calls of a group: its work goes into the graph, nothing runs. False: it cannot, call
 * it as it is. */
bool rp_nccl_kept_begin(rp_nccl_kept *kept, cudaStream_t stream);
bool rp_nccl_kept_end(rp_nccl_kept *kept, cudaStream_t stream);

/* Forget all graphs, while their communicator is there. What runs of them is freed when it ends. */
void rp_nccl_graphs_drop(rp_nccl_graphs *graphs);

#endif
