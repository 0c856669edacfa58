/*
 * cuda_memory.c - allocations and what their addresses mean, copies, scratch.
 *
 * An f32 block is addressed by its device pointers. A bf16 block is addressed like floats: its base
 * is a range of addresses that nothing is mapped to, 4 bytes a float, and the elements lie
 * elsewhere on the device, 2 bytes each. A stray access from the host then faults instead of
 * reading nonsense.
 */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- blocks ---- */

/* The first block whose base is above p, as an index. */
static int upper_bound(const rp_cuda *cuda, const char *p)
{
    int low = 0, high = cuda->n_blocks;

    while (low < high) {
        const int middle = (low + high) / 2;
        if (cuda->blocks[middle].base <= p) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

rp_cuda_view rp_cuda_at(rp_cuda *cuda, const void *p)
{
    const char *at = p;
    const int i = upper_bound(cuda, at) - 1;

    cuda->narrowed.t = 0;
    if (i >= 0 && at < cuda->blocks[i].base + cuda->blocks[i].n_bytes) {
        const rp_cuda_block *b = &cuda->blocks[i];
        const size_t distance = (size_t)(at - b->base);
        return (rp_cuda_view){b->data + (b->dtype == RP_BF16 ? distance / 2 : distance), b->dtype};
    }
    return (rp_cuda_view){(void *)(uintptr_t)p, RP_F32};
}

static rp_status insert_block(rp_cuda *cuda, rp_cuda_block block)
{
    if (cuda->n_blocks == cuda->blocks_room) {
        const int room = cuda->blocks_room == 0 ? 64 : 2 * cuda->blocks_room;
        rp_cuda_block *grown = realloc(cuda->blocks, (size_t)room * sizeof(*grown));
        if (grown == NULL) {
            return RP_FAIL(RP_E_NOMEM, "no memory for a list of %d GPU blocks", room);
        }
        cuda->blocks = grown;
        cuda->blocks_room = room;
    }
    const int at = upper_bound(cuda, block.base);
    memmove(cuda->blocks + at + 1, cuda->blocks + at,
            (size_t)(cuda->n_blocks - at) * sizeof(*cuda->blocks));
    cuda->blocks[at] = block;
    cuda->n_blocks++;
    return RP_OK;
}

static void free_block(const rp_cuda_block *block)
{
    (void)cudaFree(block->data);
    if (block->base != block->data && block->base != NULL) {
        (void)munmap(block->base, block->n_bytes);
    }
}

void rp_cuda_release(void *self, void *mem)
{
    rp_cuda *cuda = self;
    const int i = mem == NULL ? -1 : upper_bound(cuda, mem) - 1;

    if (i < 0 || cuda->blocks[i].base != mem) {
        return;
    }
    rp_cuda_graphs_drop(cuda);
    cuda->narrowed.t = 0;
    free_block(&cuda->blocks[i]);
    cuda->n_blocks--;
    memmove(cuda->blocks + i, cuda->blocks + i + 1,
            (size_t)(cuda->n_blocks - i) * sizeof(*cuda->blocks));
}

void rp_cuda_blocks_drop(rp_cuda *cuda)
{
    for (int i = 0; i < cuda->n_blocks; i++) {
        free_block(&cuda->blocks[i]);
    }
    free(cuda->blocks);
    cuda->blocks = NULL;
    cuda->n_blocks = 0;
    cuda->blocks_room = 0;
}

/* ---- allocation ---- */

rp_status rp_cuda_malloc(rp_cuda *cuda, size_t n_bytes, const char *what, void **out)
{
    size_t n_free = 0, total = 0;
    void *mem = NULL;

    if (rp_cuda_recording(cuda)) {
        return RP_FAIL(RP_E_ARG, "%s: memory is asked for while a sequence is recorded", what);
    }
    (void)cudaSetDevice(cuda->device);
    const cudaError_t code = cudaMalloc(&mem, n_bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&n_free, &total);
        return RP_FAIL(RP_E_NOMEM, "GPU %d (%s): %s needs %.2f GB, %.2f of %.2f GB are free",
                       cuda->device, cuda->name, what, (double)n_bytes * 1e-9,
                       (double)n_free * 1e-9, (double)total * 1e-9);
    }
    RP_TRY(rp_cuda_check(cuda, code, "cudaMalloc"));
    const rp_status st = RP_CUDA(cuda, cudaMemsetAsync(mem, 0, n_bytes, cuda->stream));
    if (st != RP_OK) {
        (void)cudaFree(mem);
        return st;
    }
    *out = mem;
    return RP_OK;
}

static rp_status add_block(rp_cuda *cuda, rp_cuda_block block, void **out)
{
    const rp_status st = insert_block(cuda, block);

    if (st != RP_OK) {
        free_block(&block);
        return st;
    }
    *out = block.base;
    return RP_OK;
}

rp_status rp_cuda_alloc(void *self, size_t n_bytes, const char *what, void **out)
{
    void *mem = NULL;

    if (n_bytes == 0) {
        *out = NULL;
        return RP_OK;
    }
    RP_TRY(rp_cuda_malloc(self, n_bytes, what, &mem));
    return add_block(self, (rp_cuda_block){mem, mem, n_bytes, RP_F32}, out);
}

rp_status rp_cuda_alloc_act(void *self, size_t n_elems, const char *what, void **out)
{
    rp_cuda *cuda = self;
    rp_cuda_block block = {.n_bytes = n_elems * sizeof(float), .dtype = RP_BF16};
    void *mem = NULL;

    if (n_elems > SIZE_MAX / sizeof(float)) {
        return RP_FAIL(RP_E_NOMEM, "%s: %zu elements are more than memory can hold", what, n_elems);
    }
    if (cuda->act == RP_F32 || n_elems == 0) {
        return rp_cuda_alloc(self, n_elems * sizeof(float), what, out);
    }
    RP_TRY(rp_cuda_malloc(cuda, n_elems * 2, what, &mem));
    block.data = mem;
    void *const range =
        mmap(NULL, block.n_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) {
        free_block(&block);
        return RP_FAIL(RP_E_NOMEM, "%s: no %zu bytes of addresses", what, block.n_bytes);
    }
    block.base = range;
    return add_block(cuda, block, out);
}

/* Pinned: the GPU reads and writes it without a stop in between. */
rp_status rp_cuda_alloc_host(void *self, size_t n_bytes, const char *what, void **out)
{
    const rp_cuda *cuda = self;
    void *mem = NULL;

    if (n_bytes == 0) {
        *out = NULL;
        return RP_OK;
    }
    (void)cudaSetDevice(cuda->device);
    const cudaError_t code = cudaMallocHost(&mem, n_bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return RP_FAIL(RP_E_NOMEM, "%s: no %zu bytes of pinned host memory", what, n_bytes);
    }
    RP_TRY(rp_cuda_check(cuda, code, "cudaMallocHost"));
    memset(mem, 0, n_bytes);
    *out = mem;
    return RP_OK;
}

void rp_cuda_release_host(void *self, void *mem)
{
    (void)self;
    (void)cudaFreeHost(mem); /* waits for what still uses it */
}

rp_status rp_cuda_scratch_grow(rp_cuda *cuda, rp_cuda_scratch *scratch, size_t n_bytes,
                               const char *what)
{
    void *mem = NULL;

    if (n_bytes <= scratch->n_bytes) {
        return RP_OK;
    }
    RP_TRY(rp_cuda_malloc(cuda, n_bytes, what, &mem));
    rp_cuda_graphs_drop(cuda); /* they hold the old address */
    (void)cudaStreamSynchronize(cuda->stream);
    (void)cudaFree(scratch->data);
    *scratch = (rp_cuda_scratch){mem, n_bytes};
    return RP_OK;
}

/* The i-th of all scratch, NULL behind the last. */
static rp_cuda_scratch *scratch_at(rp_cuda *cuda, size_t i)
{
    rp_cuda_scratch *const all[] = {&cuda->workspace, &cuda->cast, &cuda->scores, &cuda->narrow,
                                    &cuda->heads};

    return i < sizeof(all) / sizeof(all[0]) ? all[i] : NULL;
}

size_t rp_cuda_scratch_bytes(rp_cuda *cuda)
{
    size_t sum = 0;

    for (size_t i = 0; scratch_at(cuda, i) != NULL; i++) {
        sum += scratch_at(cuda, i)->n_bytes;
    }
    return sum;
}

void rp_cuda_scratch_drop(rp_cuda *cuda)
{
    for (size_t i = 0; scratch_at(cuda, i) != NULL; i++) {
        (void)cudaFree(scratch_at(cuda, i)->data);
        *scratch_at(cuda, i) = (rp_cuda_scratch){0};
    }
    cuda->narrowed.t = 0; /* its rows are gone */
}

/* ---- copies ---- */

/* f32 room on the device for what goes to or comes from a bf16 block. */
static float *staging(rp_cuda *cuda, size_t n_bytes)
{
    const rp_status st =
        rp_cuda_scratch_grow(cuda, &cuda->cast, n_bytes, "copies to and from bf16");

    rp_cuda_keep(cuda, st);
    return st == RP_OK ? cuda->cast.data : NULL;
}

void rp_cuda_put(void *self, void *dst, const void *host, size_t n_bytes)
{
    rp_cuda *cuda = self;
    const rp_cuda_view to = rp_cuda_at(cuda, dst);
    float *const stage = to.dtype == RP_F32 ? to.data : staging(cuda, n_bytes);

    if (stage == NULL || n_bytes == 0) {
        return;
    }
    (void)cudaSetDevice(cuda->device);
    rp_cuda_keep(cuda, RP_CUDA(cuda, cudaMemcpyAsync(stage, host, n_bytes, cudaMemcpyHostToDevice,
                                                     cuda->stream)));
    if (to.dtype != RP_F32) {
        rp_cuda_k_convert(cuda->stream, (rp_cuda_view){stage, RP_F32}, to, n_bytes / sizeof(float));
    }
}

void rp_cuda_get(void *self, void *host, const void *src, size_t n_bytes)
{
    rp_cuda *cuda = self;
    const rp_cuda_view from = rp_cuda_at(cuda, src);
    float *const stage = from.dtype == RP_F32 ? from.data : staging(cuda, n_bytes);

    if (stage == NULL || n_bytes == 0) {
        return;
    }
    (void)cudaSetDevice(cuda->device);
    if (from.dtype != RP_F32) {
        rp_cuda_k_convert(cuda->stream, from, (rp_cuda_view){stage, RP_F32},
                          n_bytes / sizeof(float));
    }
    rp_cuda_keep(cuda, RP_CUDA(cuda, cudaMemcpyAsync(host, stage, n_bytes, cudaMemcpyDeviceToHost,
                                                     cuda->stream)));
}

void rp_cuda_copy(void *self, void *dst, const void *src, size_t n_bytes)
{
    rp_cuda *cuda = self;
    const rp_cuda_view to = rp_cuda_at(cuda, dst);
    const rp_cuda_view from = rp_cuda_at(cuda, src);
    const size_t n = n_bytes / sizeof(float);

    if (n_bytes == 0) {
        return;
    }
    if (to.dtype != from.dtype) {
        rp_cuda_k_convert(cuda->stream, from, to, n);
        return;
    }
    rp_cuda_keep(cuda, RP_CUDA(cuda, cudaMemcpyAsync(to.data, from.data,
                                                     to.dtype == RP_F32 ? n_bytes : 2 * n,
                                                     cudaMemcpyDeviceToDevice, cuda->stream)));
}

void rp_cuda_copy_rows(void *self, float *dst, size_t dst_stride, const float *src,
                       size_t src_stride, int n_rows, int n_cols)
{
    rp_cuda *cuda = self;

    if (n_rows > 0 && n_cols > 0) {
        rp_cuda_keep(cuda,
                     RP_CUDA(cuda, cudaMemcpy2DAsync(dst, dst_stride * sizeof(float), src,
                                                     src_stride * sizeof(float),
                                                     (size_t)n_cols * sizeof(float), (size_t)n_rows,
                                                     cudaMemcpyDeviceToDevice, cuda->stream)));
    }
}
