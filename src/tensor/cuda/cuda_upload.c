/*
 * cuda_upload.c - weights from a mapped file to the device, through two pieces of pinned memory.
 *
 * Threads copy the file's pages into one piece while the GPU takes the other. (A copy from pageable
 * memory is staged by the driver on the calling thread alone, at that thread's speed.) A piece is
 * written again only when the event after its last copy has passed.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)32 << 20)
#define SHARE_BYTES ((size_t)1 << 20)   /* of one thread, at least: less is not worth starting it */
#define SMALL_BYTES ((size_t)256 << 10) /* alone, it is not worth pinning memory for */
#define ALIGNMENT   ((size_t)256)
#define MAX_THREADS 8

typedef struct {
    char *bytes;
    size_t n_used;
    cudaEvent_t taken; /* the GPU has what was in it */
} piece;

struct rp_cuda_uploader {
    piece pieces[2];
    int now; /* the one that is being filled */
};

/* ---- pinned memory ---- */

void rp_cuda_uploader_drop(rp_cuda *cuda)
{
    rp_cuda_uploader *up = cuda->uploader;

    cuda->uploader = NULL;
    for (int i = 0; up != NULL && i < 2; i++) {
        (void)cudaFreeHost(up->pieces[i].bytes); /* waits for what still uses it */
        if (up->pieces[i].taken != NULL) {
            (void)cudaEventDestroy(up->pieces[i].taken);
        }
    }
    free(up);
}

/* False when there is no pinned memory to be had: copies are then slower, not wrong. */
static bool open_uploader(rp_cuda *cuda)
{
    rp_cuda_uploader *up = calloc(1, sizeof(*up));
    bool ok = up != NULL;

    cuda->uploader = up;
    for (int i = 0; ok && i < 2; i++) {
        void *bytes = NULL;
        ok = cudaMallocHost(&bytes, PIECE_BYTES) == cudaSuccess &&
             cudaEventCreateWithFlags(&up->pieces[i].taken, cudaEventDisableTiming) == cudaSuccess;
        up->pieces[i].bytes = bytes;
    }
    if (!ok) {
        (void)cudaGetLastError();
        rp_cuda_uploader_drop(cuda);
    }
    return ok;
}

/* ---- host to host, on several threads ---- */

typedef struct {
    char *to;
    const char *from;
    size_t n_bytes;
} share;

static void *copy_share(void *arg)
{
    const share *s = arg;

    memcpy(s->to, s->from, s->n_bytes);
    return NULL;
}

static void copy_host(int n_threads, char *to, const char *from, size_t n_bytes)
{
    pthread_t thread[MAX_THREADS];
    bool started[MAX_THREADS] = {false};
    share shares[MAX_THREADS];
    const size_t wanted = n_bytes / SHARE_BYTES;
    const int most = n_threads < MAX_THREADS ? n_threads : MAX_THREADS;
    const int n = wanted > (size_t)most ? most : wanted > 0 ? (int)wanted : 1;

    for (int i = 0; i < n; i++) {
        const size_t begin = n_bytes / (size_t)n * (size_t)i;
        const size_t end = i == n - 1 ? n_bytes : n_bytes / (size_t)n * (size_t)(i + 1);
        shares[i] = (share){to + begin, from + begin, end - begin};
        started[i] = i > 0 && pthread_create(&thread[i], NULL, copy_share, &shares[i]) == 0;
    }
    for (int i = 0; i < n; i++) {
        if (started[i]) {
            (void)pthread_join(thread[i], NULL);
        } else {
            (void)copy_share(&shares[i]);
        }
    }
}

/* ---- upload ---- */

/* A piece with room: the present one, or the other as soon as the GPU has what was in it. */
static rp_status next_piece(rp_cuda *cuda, piece **out)
{
    rp_cuda_uploader *up = cuda->uploader;
    piece *p = &up->pieces[up->now];

    if (p->n_used == PIECE_BYTES) {
        RP_TRY(RP_CUDA(cuda, cudaEventRecord(p->taken, cuda->stream)));
        up->now = 1 - up->now;
        p = &up->pieces[up->now];
        RP_TRY(RP_CUDA(cuda, cudaEventSynchronize(p->taken))); /* at once if never recorded */
        p->n_used = 0;
    }
    *out = p;
    return RP_OK;
}

static rp_status upload_part(rp_cuda *cuda, char *dst, const char *host, size_t n_bytes,
                             size_t *n_done)
{
    piece *p = NULL;

    RP_TRY(next_piece(cuda, &p));
    const size_t room = PIECE_BYTES - p->n_used;
    const size_t n = n_bytes < room ? n_bytes : room;
    char *const at = p->bytes + p->n_used;
    copy_host(cuda->n_threads, at, host, n);
    RP_TRY(RP_CUDA(cuda, cudaMemcpyAsync(dst, at, n, cudaMemcpyHostToDevice, cuda->stream)));
    p->n_used += (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; /* PIECE_BYTES is a multiple */
    *n_done = n;
    return RP_OK;
}

rp_status rp_cuda_upload(rp_cuda *cuda, void *dst, const void *host, size_t n_bytes)
{
    (void)cudaSetDevice(cuda->device);
    if (cuda->uploader == NULL && (n_bytes < SMALL_BYTES || !open_uploader(cuda))) {
        return RP_CUDA(cuda,
                       cudaMemcpyAsync(dst, host, n_bytes, cudaMemcpyHostToDevice, cuda->stream));
    }
    for (size_t at = 0, n = 0; at < n_bytes; at += n) {
        RP_TRY(upload_part(cuda, (char *)dst + at, (const char *)host + at, n_bytes - at, &n));
    }
    return RP_OK;
}
