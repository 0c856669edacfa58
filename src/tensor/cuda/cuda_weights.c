/*
 * cuda_weights.c - weights on the device.
 *
 * Vectors (norms, biases) are kept in f32, matrices in the type that products are computed with.
 * The weights of one network lie in one arena in the order of their binding, so that q, k and v are
 * one matrix to rp_cuda_linear(). An arena goes when its last weight is released.
 *
 * In precision fp8, weights that are `narrow` are kept as e4m3 with a scale for each row. The
 * scales of an arena's weights lie in the same order behind all weights: where weights are
 * neighbours, so are their scales.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

#define CONVERT_ELEMS ((size_t)16 << 20)
#define ALIGNMENT     256 /* of each weight; q, k and v of the usual widths leave no gap */

struct rp_cuda_arena {
    char *data;
    size_t n_bytes;
    size_t n_used;       /* by weights, from the start */
    size_t scales_begin; /* here weights end, and scales begin */
    size_t n_scales;     /* bytes used by scales */
    int n_weights;
    rp_cuda_arena *next;
};

/* Products of e4m3 take rows and columns by 16. */
static rp_dtype dtype_of(const rp_cuda *cuda, const rp_tensor *shape)
{
    if (cuda->fp8 && shape->narrow && shape->n_dims == 2 && shape->dim[0] % 16 == 0 &&
        shape->dim[1] % 16 == 0) {
        return RP_F8_E4M3;
    }
    return shape->n_dims < 2 ? RP_F32 : cuda->act;
}

static size_t scale_room_of(const rp_cuda *cuda, const rp_tensor *shape)
{
    return dtype_of(cuda, shape) == RP_F8_E4M3 ? (size_t)shape->dim[0] * sizeof(float) : 0;
}

static size_t room_of(const rp_cuda *cuda, const rp_tensor *shape)
{
    const size_t n = (size_t)rp_tensor_elems(shape) * rp_dtype_bytes(dtype_of(cuda, shape));

    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static rp_status add_arena(rp_cuda *cuda, size_t for_weights, size_t for_scales)
{
    const size_t n_bytes = for_weights + for_scales;
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
    *arena = (rp_cuda_arena){
        .data = mem, .n_bytes = n_bytes, .scales_begin = for_weights, .next = cuda->arenas};
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
    size_t for_weights = 0, for_scales = 0;

    for (size_t i = 0; i < n; i++) {
        for_weights += room_of(cuda, host[i]);
        for_scales += scale_room_of(cuda, host[i]);
    }
    drop_empty(cuda);
    return for_weights == 0 ? RP_OK : add_arena(cuda, for_weights, for_scales);
}

static bool has_room(const rp_cuda_arena *arena, size_t room, size_t scale_room)
{
    return arena->scales_begin - arena->n_used >= room &&
           arena->n_bytes - arena->scales_begin - arena->n_scales >= scale_room;
}

/* Room for one weight in the newest arena; *out has its shape and place, and no contents yet. */
static rp_status place(rp_cuda *cuda, const rp_tensor *shape, rp_tensor *out)
{
    const size_t room = room_of(cuda, shape), scale_room = scale_room_of(cuda, shape);

    if (cuda->arenas == NULL || !has_room(cuda->arenas, room, scale_room)) {
        RP_TRY(add_arena(cuda, room > 0 ? room : ALIGNMENT, scale_room));
    }
    rp_cuda_arena *arena = cuda->arenas;
    *out = *shape;
    out->dtype = dtype_of(cuda, shape);
    out->data = arena->data + arena->n_used;
    out->n_scales = scale_room > 0 ? shape->dim[0] : 0;
    out->scale = scale_room > 0
                     ? (float *)(void *)(arena->data + arena->scales_begin + arena->n_scales)
                     : NULL;
    arena->n_used += room;
    arena->n_scales += scale_room;
    arena->n_weights++;
    return RP_OK;
}

void *rp_cuda_weights_span(void *self, size_t *n_bytes)
{
    const rp_cuda *cuda = self;
    const rp_cuda_arena *arena = cuda->arenas;

    *n_bytes = arena == NULL          ? 0
               : arena->n_scales == 0 ? arena->n_used
                                      : arena->scales_begin + arena->n_scales;
    return arena == NULL ? NULL : arena->data;
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

static int64_t rows_of(const rp_tensor *weight)
{
    return weight->n_dims > 0 ? weight->dim[0] : 1;
}

static rp_cuda_narrow narrow_of(const rp_tensor *weight)
{
    return (rp_cuda_narrow){(uint8_t *)(uintptr_t)weight->data, (float *)(uintptr_t)weight->scale};
}

/* bf16 (or what the file has) on the device -> e4m3 */
static void narrow_weight(rp_cuda *cuda, rp_cuda_view wide, const rp_tensor *weight)
{
    const int k = (int)weight->dim[1];

    rp_cuda_k_quantize_rows(cuda->stream, wide, (int)weight->dim[0], k, k, narrow_of(weight));
}

/* A file's e4m3: kept as it is, or multiplied out where the weight is of another type. */
static rp_status fill_from_e4m3(rp_cuda *cuda, const rp_tensor *host, const rp_tensor *weight)
{
    const size_t n = (size_t)rp_tensor_elems(host), rows = (size_t)rows_of(host);
    const size_t n_bytes = (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    rp_cuda_narrow to = narrow_of(weight);

    if (weight->dtype != RP_F8_E4M3) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, n_bytes + rows * sizeof(float),
                                    "conversion of weights"));
        to =
            (rp_cuda_narrow){cuda->cast.data, (float *)(void *)((char *)cuda->cast.data + n_bytes)};
    }
    RP_TRY(rp_cuda_upload(cuda, to.data, host->data, n));
    if (host->n_scales > 1) {
        RP_TRY(rp_cuda_upload(cuda, to.scale, host->scale, rows * sizeof(float)));
    } else {
        rp_cuda_k_set(cuda->stream, to.scale, rows, host->n_scales == 1 ? host->scale[0] : 1.0f);
    }
    if (weight->dtype != RP_F8_E4M3) {
        rp_cuda_k_dequantize_rows(cuda->stream, to, rows, n / rows, rp_cuda_weight_view(weight));
    }
    return RP_CUDA(cuda, cudaGetLastError());
}

/* Elements of another type, changed on the device. Piece by piece: the scratch stays, and a whole
 * embedding table would be as large as a network. */
static rp_status convert_from(rp_cuda *cuda, const rp_tensor *host, const rp_tensor *weight)
{
    const size_t n = (size_t)rp_tensor_elems(host);
    const size_t from = rp_dtype_bytes(host->dtype), to = rp_dtype_bytes(weight->dtype);
    const size_t most = n < CONVERT_ELEMS ? n : CONVERT_ELEMS;

    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, most * from, "conversion of weights"));
    for (size_t i = 0; i < n; i += most) {
        const size_t n_now = n - i < most ? n - i : most;
        char *const out = (char *)(uintptr_t)weight->data + i * to;
        RP_TRY(rp_cuda_upload(cuda, cuda->cast.data, (const char *)host->data + i * from,
                              n_now * from));
        rp_cuda_k_convert(cuda->stream, (rp_cuda_view){cuda->cast.data, host->dtype},
                          (rp_cuda_view){out, weight->dtype}, n_now);
    }
    return RP_OK;
}

/* A file's wider elements, made e4m3 on the device. */
static rp_status narrow_from(rp_cuda *cuda, const rp_tensor *host, const rp_tensor *weight)
{
    const size_t n_bytes = (size_t)rp_tensor_elems(host) * rp_dtype_bytes(host->dtype);

    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, n_bytes, "conversion of weights"));
    RP_TRY(rp_cuda_upload(cuda, cuda->cast.data, host->data, n_bytes));
    narrow_weight(cuda, (rp_cuda_view){cuda->cast.data, host->dtype}, weight);
    return RP_OK;
}

static rp_status fill_from(rp_cuda *cuda, const rp_tensor *host, const rp_tensor *weight)
{
    const size_t n_bytes = (size_t)rp_tensor_elems(host) * rp_dtype_bytes(host->dtype);

    if (host->dtype == RP_F8_E4M3) {
        RP_TRY(fill_from_e4m3(cuda, host, weight));
    } else if (weight->dtype == RP_F8_E4M3) {
        RP_TRY(narrow_from(cuda, host, weight));
    } else if (host->dtype != weight->dtype) {
        RP_TRY(convert_from(cuda, host, weight));
    } else {
        RP_TRY(rp_cuda_upload(cuda, (void *)(uintptr_t)weight->data, host->data, n_bytes));
    }
    return RP_CUDA(cuda, cudaGetLastError());
}

rp_status rp_cuda_weight(void *self, const rp_tensor *host, rp_tensor *out)
{
    rp_cuda *cuda = self;
    rp_tensor weight;

    if (!rp_dtype_is_float(host->dtype)) {
        return RP_FAIL(RP_E_UNSUP, "weight of type %s; F32, F16, BF16 and F8_E4M3 are supported",
                       rp_dtype_name(host->dtype));
    }
    RP_TRY(place(cuda, host, &weight));
    rp_status st = fill_from(cuda, host, &weight);
    if (st == RP_OK) {
        st = rp_cuda_turn_filter(cuda, &weight);
    }
    if (st != RP_OK) {
        rp_cuda_weight_release(cuda, &weight);
        return st;
    }
    *out = weight;
    return RP_OK;
}

/* The same numbers whether they are then kept as bf16 or as e4m3. */
static rp_status draw(rp_cuda *cuda, uint64_t seed, float std, const rp_tensor *weight)
{
    const size_t n = (size_t)rp_tensor_elems(weight);
    rp_cuda_view to = rp_cuda_weight_view(weight);

    if (weight->dtype == RP_F8_E4M3) {
        RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, n * rp_dtype_bytes(RP_BF16),
                                    "conversion of weights"));
        to = (rp_cuda_view){cuda->cast.data, RP_BF16};
    }
    rp_cuda_k_fill(cuda->stream, to, n, seed, std);
    if (weight->dtype == RP_F8_E4M3) {
        narrow_weight(cuda, to, weight);
    }
    return RP_CUDA(cuda, cudaGetLastError());
}

rp_status rp_cuda_weight_fill(void *self, const rp_tensor *shape, uint64_t seed, float std,
                              rp_tensor *out)
{
    rp_cuda *cuda = self;
    rp_tensor weight;

    RP_TRY(place(cuda, shape, &weight));
    const rp_status st = draw(cuda, seed, std, &weight);
    if (st != RP_OK) {
        rp_cuda_weight_release(cuda, &weight);
        return st;
    }
    *out = weight;
    return RP_OK;
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
    weight->scale = NULL;
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
