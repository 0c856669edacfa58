/*
 * cuda_record.c - sequences of ops that repeat, as CUDA graphs.
 *
 * The first time that a key is met, its ops run plainly: plans are made, scratch grows. The second
 * time they are captured; from then on one launch replays them. Whatever frees memory drops all
 * graphs.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

#define MAX_SEQUENCES 64 /* shapes met; the one not used for longest makes room */

typedef struct {
    uint64_t key, used;
    cudaGraphExec_t exec; /* NULL: ran plainly once */
} sequence;

struct rp_cuda_graphs {
    sequence list[MAX_SEQUENCES];
    int n;
    uint64_t clock;
    sequence *recording; /* or NULL */
};

bool rp_cuda_recording(const rp_cuda *cuda)
{
    return cuda->graphs != NULL && cuda->graphs->recording != NULL;
}

static void end_sequence(sequence *s)
{
    if (s->exec != NULL) {
        (void)cudaGraphExecDestroy(s->exec);
    }
    *s = (sequence){0};
}

void rp_cuda_graphs_drop(rp_cuda *cuda)
{
    rp_cuda_graphs *graphs = cuda->graphs;

    if (graphs == NULL) {
        return;
    }
    if (graphs->recording != NULL) { /* an op failed midway; what was captured is of no use */
        cudaGraph_t graph = NULL;
        (void)cudaStreamEndCapture(cuda->stream, &graph);
        if (graph != NULL) {
            (void)cudaGraphDestroy(graph);
        }
        (void)cudaGetLastError();
    }
    if (graphs->n > 0) {
        (void)cudaStreamSynchronize(cuda->stream);
    }
    for (int i = 0; i < graphs->n; i++) {
        end_sequence(&graphs->list[i]);
    }
    free(graphs);
    cuda->graphs = NULL;
}

static sequence *find(rp_cuda_graphs *graphs, uint64_t key)
{
    for (int i = 0; i < graphs->n; i++) {
        if (graphs->list[i].key == key) {
            return &graphs->list[i];
        }
    }
    return NULL;
}

static void note_key(rp_cuda_graphs *graphs, uint64_t key)
{
    sequence *s = &graphs->list[0];

    if (graphs->n < MAX_SEQUENCES) {
        s = &graphs->list[graphs->n++];
    } else {
        for (int i = 1; i < graphs->n; i++) {
            s = graphs->list[i].used < s->used ? &graphs->list[i] : s;
        }
        end_sequence(s);
    }
    *s = (sequence){.key = key, .used = graphs->clock};
}

bool rp_cuda_replay(void *self, uint64_t key)
{
    rp_cuda *cuda = self;

    (void)cudaSetDevice(cuda->device);
    cuda->narrowed.t = 0; /* a sequence takes nothing from before it, and leaves nothing */
    if (cuda->graphs == NULL) {
        cuda->graphs = calloc(1, sizeof(*cuda->graphs));
        if (cuda->graphs == NULL) {
            return false; /* plain runs need no list */
        }
    }
    cuda->graphs->clock++;
    sequence *s = find(cuda->graphs, key);
    if (s == NULL) {
        note_key(cuda->graphs, key);
        return false;
    }
    s->used = cuda->graphs->clock;
    if (s->exec != NULL) {
        rp_cuda_keep(cuda, RP_CUDA(cuda, cudaGraphLaunch(s->exec, cuda->stream)));
        return true;
    }
    const rp_status st =
        RP_CUDA(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    rp_cuda_keep(cuda, st);
    cuda->graphs->recording = st == RP_OK ? s : NULL;
    return false;
}

static rp_status finish(rp_cuda *cuda, sequence *s)
{
    cudaGraph_t graph = NULL;

    cuda->graphs->recording = NULL;
    RP_TRY(RP_CUDA(cuda, cudaStreamEndCapture(cuda->stream, &graph)));
    const rp_status st = RP_CUDA(cuda, cudaGraphInstantiate(&s->exec, graph, 0));
    (void)cudaGraphDestroy(graph);
    RP_TRY(st);
    RP_TRY(RP_CUDA(cuda, cudaGraphUpload(s->exec, cuda->stream)));
    return RP_CUDA(cuda, cudaGraphLaunch(s->exec, cuda->stream));
}

void rp_cuda_recorded(void *self)
{
    rp_cuda *cuda = self;

    cuda->narrowed.t = 0;
    if (cuda->failed != RP_OK) { /* an op may be missing, and the plan or scratch that it makes:
                                    nobody may capture or replay that */
        rp_cuda_graphs_drop(cuda);
        return;
    }
    if (!rp_cuda_recording(cuda)) {
        return;
    }
    rp_cuda_keep(cuda, finish(cuda, cuda->graphs->recording));
}
