/*
 * cuda_weights.c - weights on the device.
 *
 * Vectors (norms, biases) are kept in f32, matrices in the type that products are computed with.
 * The weights of one network lie in one arena in the order of their binding, so that q, k and v are
 * one matrix to rp_cuda_linear(). An arena goes when its last weight is released.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

#define ALIGNMENT 256 /* of each weight; q, k and v of the usual widths leave no gap */

struct rp_cuda_arena {
    char *data;
    size_t n_bytes, n_used;
    int n_weights;
    rp_cuda_arena *next;
};

static rp_dtype dtype_of(const rp_cuda *cuda, const rp_tensor *shape)
{
    return shape->n_dims < 2 ? RP_F32 : cuda->act;
}

static size_t room_of(const rp_cuda *cuda, const rp_tensor *shape)
{
    const size_t n = (size_t)rp_tensor_elems(shape) * rp_dtype_bytes(dtype_of(cuda, shape));

    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static rp_status add_arena(rp_cuda *cuda, size_t n_bytes)
{
    rp_cuda_arena *arena = calloc(1, sizeof(*arena));
    void *mem = NULL;

    if (arena == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a list of weights");
    }
    const rp_status st = rp_cuda_malloc(cuda, n_bytes, "a network's weights", &mem);
    if (st != RP_OK) {
        free(arena);
        return st;
    }
    *arena = (rp_cuda_arena){.data = mem, .n_bytes = n_bytes, .next = cuda->arenas};
    cuda->arenas = arena;
    return RP_OK;
}

/* Arenas that were made room for and never filled (a network that failed to open). */
static void drop_empty(rp_cuda *cuda)
{
    for (rp_cuda_arena **at = &cuda->arenas; *at != NULL;) {
        rp_cuda_arena *arena = *at;
        if (arena->n_weights > 0) {
            at = &arena->next;
            continue;
        }
        *at = arena->next;
        (void)cudaFree(arena->data);
        free(arena);
    }
}

rp_status rp_cuda_weights_begin(void *self, rp_tensor *const *host, size_t n)
{
    rp_cuda *cuda = self;
    size_t n_bytes = 0;

    for (size_t i = 0; i < n; i++) {
        n_bytes += room_of(cuda, host[i]);
    }
    drop_empty(cuda);
    return n_bytes == 0 ? RP_OK : add_arena(cuda, n_bytes);
}

/* Room for one weight in the newest arena; *out has its shape and place, and no contents yet. */
static rp_status place(rp_cuda *cuda, const rp_tensor *shape, rp_tensor *out)
{
    const size_t room = room_of(cuda, shape);

    if (cuda->arenas == NULL || cuda->arenas->n_bytes - cuda->arenas->n_used < room) {
        RP_TRY(add_arena(cuda, room > 0 ? room : ALIGNMENT));
    }
    rp_cuda_arena *arena = cuda->arenas;
    *out = *shape;
    out->dtype = dtype_of(cuda, shape);
    out->data = arena->data + arena->n_used;
    arena->n_used += room;
    arena->n_weights++;
    return RP_OK;
}

void *rp_cuda_weights_span(void *self, size_t *n_bytes)
{
    const rp_cuda *cuda = self;

    *n_bytes = cuda->arenas == NULL ? 0 : cuda->arenas->n_used;
    return cuda->arenas == NULL ? NULL : cuda->arenas->data;
}

rp_status rp_cuda_weight_place(void *self, const rp_tensor *host, rp_tensor *out)
{
    return place(self, host, out);
}

static const rp_cuda_arena *arena_of(const rp_cuda *cuda, const rp_tensor *weight)
{
    const char *at = weight->data;
    const rp_cuda_arena *arena = cuda->arenas;

    while (arena != NULL && (at < arena->data || at >= arena->data + arena->n_bytes)) {
        arena = arena->next;
    }
    return arena;
}

bool rp_cuda_same_arena(const rp_cuda *cuda, const rp_tensor *a, const rp_tensor *b)
{
    return arena_of(cuda, a) == arena_of(cuda, b);
}

/* Bytes of the file as they are, then changed on the device where the type is another. */
static rp_status fill_from(rp_cuda *cuda, const rp_tensor *host, const rp_tensor *weight)
{
    const size_t n = (size_t)rp_tensor_elems(host);
    const size_t n_bytes = n * rp_dtype_bytes(host->dtype);
    void *to = (void *)(uintptr_t)weight->data;

    if (host->dtype != weight->dtype) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, n_bytes, "conversion of weights"));
        to = cuda->cast.data;
    }
    RP_TRY(RP_CUDA(cuda,
                   cudaMemcpyAsync(to, host->data, n_bytes, cudaMemcpyHostToDevice, cuda->stream)));
    if (host->dtype != weight->dtype) {
        rp_cuda_k_convert(cuda->stream, (rp_cuda_view){to, host->dtype},
                          rp_cuda_weight_view(weight), n);
    }
    return RP_CUDA(cuda, cudaGetLastError());
}

rp_status rp_cuda_weight(void *self, const rp_tensor *host, rp_tensor *out)
{
    rp_cuda *cuda = self;
    rp_tensor weight;

    if (host->dtype != RP_F32 && host->dtype != RP_F16 && host->dtype != RP_BF16) {
        return RP_FAIL(RP_E_UNSUP, "weight of type %s; F32, F16 and BF16 are supported",
                       rp_dtype_name(host->dtype));
    }
    RP_TRY(place(cuda, host, &weight));
    const rp_status st = fill_from(cuda, host, &weight);
    if (st != RP_OK) {
        rp_cuda_weight_release(cuda, &weight);
        return st;
    }
    *out = weight;
    return RP_OK;
}

rp_status rp_cuda_weight_fill(void *self, const rp_tensor *shape, uint64_t seed, float std,
                              rp_tensor *out)
{
    rp_cuda *cuda = self;

    RP_TRY(place(cuda, shape, out));
    rp_cuda_k_fill(cuda->stream, rp_cuda_weight_view(out), (size_t)rp_tensor_elems(out), seed, std);
    return RP_CUDA(cuda, cudaGetLastError());
}

void rp_cuda_weight_release(void *self, rp_tensor *weight)
{
    rp_cuda *cuda = self;
    const char *at = weight->data;

    for (rp_cuda_arena **link = &cuda->arenas; at != NULL && *link != NULL; link = &(*link)->next) {
        rp_cuda_arena *arena = *link;
        if (at < arena->data || at >= arena->data + arena->n_bytes) {
            continue;
        }
        if (--arena->n_weights == 0) {
            rp_cuda_graphs_drop(cuda);
            *link = arena->next;
            (void)cudaFree(arena->data);
            free(arena);
        }
        break;
    }
    weight->data = NULL;
}

void rp_cuda_arenas_drop(rp_cuda *cuda)
{
    while (cuda->arenas != NULL) {
        rp_cuda_arena *arena = cuda->arenas;
        cuda->arenas = arena->next;
        (void)cudaFree(arena->data);
        free(arena);
    }
}
