/* nccl_graphs.c - groups of transfers as CUDA graphs. */
#ifdef RP_HAVE_NCCL

#include "xport/nccl_graphs.h"

static bool is_same(const rp_nccl_kept *kept, const rp_xfer *xfers, int n)
{
    bool same = kept->n == n;

    for (int i = 0; i < n && same; i++) {
        const rp_xfer *a = &kept->xfers[i], *b = &xfers[i];
        same = a->peer == b->peer && a->send == b->send && a->bytes == b->bytes &&
               a->n_bytes == b->n_bytes;
    }
    return same;
}

rp_nccl_kept *rp_nccl_graphs_find(rp_nccl_graphs *graphs, const rp_xfer *xfers, int n)
{
    for (int i = 0; i < graphs->n; i++) {
        if (is_same(&graphs->kept[i], xfers, n)) {
            graphs->kept[i].seen++;
            return &graphs->kept[i];
        }
    }
    if (n > RP_NCCL_GRAPH_XFERS || graphs->n == RP_NCCL_GRAPHS) {
        return NULL;
    }
    rp_nccl_kept *kept = &graphs->kept[graphs->n++];
    *kept = (rp_nccl_kept){.n = n, .seen = 1};
    for (int i = 0; i < n; i++) {
        kept->xfers[i] = xfers[i];
    }
    return kept;
}

bool rp_nccl_kept_is_due(const rp_nccl_kept *kept)
{
    return kept->seen > 1 && kept->exec == NULL && !kept->given_up;
}

/* Relaxed: NCCL works on the stream from a thread of its own. */
bool rp_nccl_kept_begin(rp_nccl_kept *kept, cudaStream_t stream)
{
    kept->given_up = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) != cudaSuccess;
    if (kept->given_up) {
        (void)cudaGetLastError();
    }
    return !kept->given_up;
}

bool rp_nccl_kept_end(rp_nccl_kept *kept, cudaStream_t stream)
{
    kept->given_up = cudaStreamEndCapture(stream, &kept->graph) != cudaSuccess ||
                     cudaGraphInstantiate(&kept->exec, kept->graph, 0) != cudaSuccess;
    if (kept->given_up) {
        (void)cudaGetLastError(); /* or the backend takes it for a failure of its own */
        kept->exec = NULL;
    }
    return !kept->given_up;
}

void rp_nccl_graphs_drop(rp_nccl_graphs *graphs)
{
    for (int i = 0; i < graphs->n; i++) {
        const rp_nccl_kept *kept = &graphs->kept[i];
        if (kept->exec != NULL) {
            (void)cudaGraphExecDestroy(kept->exec);
        }
        if (kept->graph != NULL) {
            (void)cudaGraphDestroy(kept->graph);
        }
    }
    graphs->n = 0;
}

#endif
