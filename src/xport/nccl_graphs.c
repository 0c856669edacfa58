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

static void drop(rp_nccl_kept *kept)
{
    if (kept->exec != NULL) {
        (void)cudaGraphExecDestroy(kept->exec);
    }
    if (kept->graph != NULL) {
        (void)cudaGraphDestroy(kept->graph);
    }
    *kept = (rp_nccl_kept){0};
}

/* A free place, or the one that was not asked for the longest. */
static rp_nccl_kept *make_place(rp_nccl_graphs *graphs)
{
    rp_nccl_kept *oldest = &graphs->kept[0];

    if (graphs->n < RP_NCCL_GRAPHS) {
        return &graphs->kept[graphs->n++];
    }
    for (int i = 1; i < graphs->n; i++) {
        oldest = graphs->kept[i].last < oldest->last ? &graphs->kept[i] : oldest;
    }
    drop(oldest);
    return oldest;
}

static rp_nccl_kept *find(rp_nccl_graphs *graphs, const rp_xfer *xfers, int n)
{
    for (int i = 0; i < graphs->n; i++) {
        if (is_same(&graphs->kept[i], xfers, n)) {
            return &graphs->kept[i];
        }
    }
    return NULL;
}

rp_nccl_kept *rp_nccl_graphs_find(rp_nccl_graphs *graphs, const rp_xfer *xfers, int n)
{
    rp_nccl_kept *kept = n <= RP_NCCL_GRAPH_XFERS ? find(graphs, xfers, n) : NULL;

    if (kept == NULL && n <= RP_NCCL_GRAPH_XFERS) {
        kept = make_place(graphs);
        *kept = (rp_nccl_kept){.n = n};
        for (int i = 0; i < n; i++) {
            kept->xfers[i] = xfers[i];
        }
    }
    if (kept != NULL) {
        kept->seen++;
        kept->last = ++graphs->now;
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
        if (kept->graph != NULL) {
            (void)cudaGraphDestroy(kept->graph); /* it holds memory of NCCL's */
            kept->graph = NULL;
        }
    }
    return !kept->given_up;
}

void rp_nccl_graphs_drop(rp_nccl_graphs *graphs)
{
    for (int i = 0; i < graphs->n; i++) {
        drop(&graphs->kept[i]);
    }
    graphs->n = 0;
}

#endif
