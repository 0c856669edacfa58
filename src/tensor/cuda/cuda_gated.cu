/*
 * cuda_gated.cu - out[t, d] = silu(x w_gate^T) * (x w_up^T) in one kernel, for compute capability
 * 9.0.
 *
 * Two products share x, and what they give is needed once, element by element: so it never leaves
 * the registers. A block makes tiles of 128 rows and 128 columns of out. Its sums are 128 x 256: of
 * the columns of w_gate first, then of the same columns of w_up, which lie one after the other in
 * shared memory as if they were one matrix. In wgmma's layout of sums, gate and up of an element
 * are then in one thread, 64 registers apart.
 *
 * One warpgroup has one thread that loads (TMA, a ring of STAGES pieces of 64 of k), two others
 * multiply, 64 rows each, and turn their sums into out (TMA again). Blocks stay, one on each
 * multiprocessor, and take tiles by their number: the next tile is loaded while one is finished.
 *
 * A piece may be loaded over when `empty` says that both have read it; it may be read when `full`
 * says that all of it is there.
 */
#include "tensor/cuda/cuda_device.cuh"
#include "tensor/cuda/cuda_hopper.cuh"

#include <cudaTypedefs.h>

#define TILE_ROWS 128
#define TILE_COLS 128
#define TILE_K    64
#define STAGES    4

#define WARPGROUP    128
#define N_CONSUMERS  2
#define N_THREADS    ((N_CONSUMERS + 1) * WARPGROUP)
#define STORE_ROWS   (TILE_ROWS / N_CONSUMERS)
#define STORE_COLS   64 /* as wide as the swizzle */
#define ELEM_BYTES   2
#define X_BYTES      (TILE_ROWS * TILE_K * ELEM_BYTES)
#define W_BYTES      (TILE_COLS * TILE_K * ELEM_BYTES)
#define STAGE_BYTES  (X_BYTES + 2 * W_BYTES)
#define STORE_BYTES  (STORE_ROWS * STORE_COLS * ELEM_BYTES)
#define OUT_BYTES    (TILE_ROWS * TILE_COLS * ELEM_BYTES)
#define TILE_ALIGN   1024
#define SHARED_BYTES (STAGES * STAGE_BYTES + OUT_BYTES + 2 * STAGES * 8 + TILE_ALIGN)

/* Named barriers; 0 is __syncthreads. */
enum { BAR_STORE = 1, BAR_LEAD = BAR_STORE + N_CONSUMERS };

typedef struct {
    int n_k;            /* pieces of k */
    int n_rows, n_cols; /* of tiles */
    int group_rows;     /* how tiles are counted: column by column within so many rows of them */
    int lead;           /* pieces that the first consumer is ahead of the second; 0: nobody cares */
} gated_job;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

typedef struct {
    int row, col; /* of its first element */
} gated_tile;

/* Neighbours share weights, and a group's rows of x stay in the L2 cache while weights go by. */
__device__ static gated_tile tile_of(const gated_job &job, int tile)
{
    const int per_group = job.group_rows * job.n_cols;
    const int group = tile / per_group;
    const int first = group * job.group_rows;
    const int rows = min(job.group_rows, job.n_rows - first);
    const int i = tile - group * per_group;

    return {(first + i % rows) * TILE_ROWS, i / rows * TILE_COLS};
}

/* Where things lie in shared memory. */
struct gated_room {
    uint32_t stages, out, full, empty;

    __device__ explicit gated_room(const void *shared)
    {
        stages = (rp_shared_at(shared) + TILE_ALIGN - 1) / TILE_ALIGN * TILE_ALIGN;
        out = stages + STAGES * STAGE_BYTES;
        full = out + OUT_BYTES;
        empty = full + STAGES * 8;
    }
};

/* The ring as one of its users goes round: phases of its barriers alternate. */
struct gated_ring {
    int stage = 0;
    uint32_t phase = 0;

    __device__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* One thread of each block. */
__device__ static void load_tiles(const gated_room &room, const gated_job &job,
                                  const CUtensorMap *x, const CUtensorMap *w_gate,
                                  const CUtensorMap *w_up)
{
    gated_ring ring;

    for (int tile = blockIdx.x; tile < job.n_rows * job.n_cols; tile += gridDim.x) {
        const gated_tile at = tile_of(job, tile);
        for (int i = 0; i < job.n_k; i++, ring.next()) {
            const uint32_t full = room.full + ring.stage * 8;
            const uint32_t to = room.stages + ring.stage * STAGE_BYTES;
            rp_mbar_wait(room.empty + ring.stage * 8, ring.phase ^ 1);
            rp_mbar_expect(full, STAGE_BYTES);
            rp_tma_load(to, x, i * TILE_K, at.row, full);
            rp_tma_load(to + X_BYTES, w_gate, i * TILE_K, at.col, full);
            rp_tma_load(to + X_BYTES + W_BYTES, w_up, i * TILE_K, at.col, full);
        }
    }
}

/* This warp has read the piece. */
__device__ static void release(uint32_t empty, int lane)
{
    if (lane == 0) {
        rp_mbar_arrive(empty);
    }
}

/* sums[64, 256] = 64 rows of x times the tile's rows of both weights */
__device__ static void multiply(const gated_room &room, const gated_job &job, int which, int lane,
                                gated_ring &ring, float (&sums)[128])
{
    uint32_t before = 0;

    for (int i = 0; i < job.n_k; i++, ring.next()) {
        const uint32_t from = room.stages + ring.stage * STAGE_BYTES;
        const uint64_t x = rp_wgmma_operand(from + which * (X_BYTES / N_CONSUMERS));
        const uint64_t w = rp_wgmma_operand(from + X_BYTES);
        rp_mbar_wait(room.full + ring.stage * 8, ring.phase);
        rp_wgmma_fence();
#pragma unroll
        for (int j = 0; j < TILE_K / 16; j++) {
            rp_wgmma_m64n256k16(sums, x + 2 * j, w + 2 * j, i > 0 || j > 0);
        }
        rp_wgmma_commit();
        rp_wgmma_wait<1>(); /* so the piece before this one was read */
        if (i > 0) {
            release(before, lane);
        }
        before = room.empty + ring.stage * 8;
        if (which == 0 && i == job.lead - 1) {
            rp_named_arrive(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
    }
    rp_wgmma_wait<0>();
    release(before, lane);
    rp_wgmma_pin(sums);
}

__device__ static float power_of_two(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

__device__ static float reciprocal(float x)
{
    float y;

    asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* silu(gate) * up of two neighbours, rounded; infinite powers end as zeros */
__device__ static uint32_t gated_pair(const float *gate, const float *up)
{
    float y[2];

#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float grown = power_of_two(-1.4426950408889634f * gate[i]); /* e^-gate */
        y[i] = gate[i] * reciprocal(1.0f + grown) * up[i];
    }
    const __nv_bfloat162 two = __floats2bfloat162_rn(y[0], y[1]);
    return *reinterpret_cast<const uint32_t *>(&two);
}

/* 64 rows of out, by way of this warpgroup's part of shared memory; row and col in elements. */
__device__ static void store(uint32_t to, const CUtensorMap *out, int row, int col, int which,
                             const float (&sums)[128])
{
    const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;
    const int swizzle = lane % 8; /* of the row that this lane gives the address of */
    const uint32_t own = to + (thread / RP_WARP * 16 + lane % 16) * (STORE_COLS * ELEM_BYTES);

    if (thread == 0) {
        rp_tma_store_wait_read();
    }
    rp_named_sync(BAR_STORE + which, WARPGROUP);
#pragma unroll
    for (int j = 0; j < TILE_COLS / 8; j += 2) { /* 16 columns, 8 of them by lanes 16 and up */
        const float *gate = sums + 4 * j, *up = gate + 64;
        const int piece = (j % 8 + lane / 16) ^ swizzle;
        rp_store_tiles(own + j / 8 * STORE_BYTES + piece * 16, gated_pair(gate, up),
                       gated_pair(gate + 2, up + 2), gated_pair(gate + 4, up + 4),
                       gated_pair(gate + 6, up + 6));
    }
    rp_fence_async();
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    if (thread == 0) {
        rp_tma_store(out, col, row, to);
        rp_tma_store(out, col + STORE_COLS, row, to + STORE_BYTES);
        rp_tma_store_commit();
    }
}

/* A warpgroup, `which` of the two. */
__device__ static void make_tiles(const gated_room &room, const gated_job &job, int which,
                                  const CUtensorMap *out)
{
    const int lane = threadIdx.x % RP_WARP;
    const uint32_t to = room.out + which * (OUT_BYTES / N_CONSUMERS);
    gated_ring ring;
    float sums[128];

    for (int tile = blockIdx.x; tile < job.n_rows * job.n_cols; tile += gridDim.x) {
        const gated_tile at = tile_of(job, tile);
        if (which == 1 && job.lead > 0) {
            rp_named_sync(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
        multiply(room, job, which, lane, ring, sums);
        store(to, out, at.row + which * STORE_ROWS, at.col, which, sums);
    }
    if (threadIdx.x % WARPGROUP == 0) {
        rp_tma_store_wait_read();
    }
}

__device__ static void make_barriers(const gated_room &room)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            rp_mbar_init(room.full + i * 8, 1);
            rp_mbar_init(room.empty + i * 8, N_CONSUMERS * WARPGROUP / RP_WARP);
        }
        rp_mbar_init_done();
    }
}

#endif

/* One block on a multiprocessor: 225 KiB of shared memory, 168 registers a thread at the start,
 * of which the loading warpgroup gives most to the others. */
__global__ void __launch_bounds__(N_THREADS, 1)
    gated(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w_gate,
          const __grid_constant__ CUtensorMap w_up, const __grid_constant__ CUtensorMap out,
          gated_job job)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char shared[];
    const gated_room room(shared);
    const int warpgroup = __shfl_sync(RP_ALL, threadIdx.x / WARPGROUP, 0);

    make_barriers(room);
    __syncthreads();
    if (warpgroup == 0) {
        rp_fewer_registers<40>();
        if (threadIdx.x == 0) {
            rp_tma_prefetch_map(&x);
            rp_tma_prefetch_map(&w_gate);
            rp_tma_prefetch_map(&w_up);
            load_tiles(room, job, &x, &w_gate, &w_up);
        }
        __syncwarp();
    } else {
        rp_more_registers<232>();
        make_tiles(room, job, warpgroup - 1, &out);
    }
#endif
}

/* ---- host ---- */

/* The driver's function, found by the runtime: the program need not be linked with the driver. */
static cudaError_t find_encode(PFN_cuTensorMapEncodeTiled_v12000 *out)
{
    cudaDriverEntryPointQueryResult result;
    void *function = NULL;
    const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &result);

    if (code != cudaSuccess) {
        return code;
    }
    *out = (PFN_cuTensorMapEncodeTiled_v12000)function;
    return function != NULL ? cudaSuccess : cudaErrorSymbolNotFound;
}

/* A bf16 matrix [rows, cols] moved in boxes of box_rows x 64. */
static bool encode(PFN_cuTensorMapEncodeTiled_v12000 fn, CUtensorMap *map, const void *data,
                   int rows, int cols, int box_rows)
{
    const cuuint64_t dims[2] = {(cuuint64_t)cols, (cuuint64_t)rows};
    const cuuint64_t strides[1] = {(cuuint64_t)cols * ELEM_BYTES};
    const cuuint32_t box[2] = {TILE_K, (cuuint32_t)box_rows};
    const cuuint32_t steps[2] = {1, 1};

    return fn(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void *>(data), dims, strides,
              box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool rp_cuda_gated_can(const rp_cuda_gated *g, int capability)
{
#if defined(RP_CUDA_SM90A)
    const bool wide = rp_wide(g->x) && rp_wide(g->w_gate) && rp_wide(g->w_up) && rp_wide(g->out);

    return capability == 90 && wide && g->t >= RP_CUDA_GATED_ROWS && g->d > 0 &&
           g->d % TILE_COLS == 0 && g->k > 0 && g->k % TILE_K == 0;
#else
    (void)g;
    (void)capability;
    return false;
#endif
}

rp_cuda_gated_way rp_cuda_gated_choose(const rp_cuda_gated *g)
{
    const size_t in_cache = (size_t)12 << 20; /* of x, beside the weights that go by */
    const size_t n_rows = rp_ceil_div((size_t)g->t, TILE_ROWS);
    const size_t fit = in_cache / ((size_t)g->k * TILE_ROWS * ELEM_BYTES);
    const size_t n_groups = rp_ceil_div(n_rows, fit > 0 ? fit : 1);

    return {.group_rows = (int)rp_ceil_div(n_rows, n_groups), .lead = 1};
}

cudaError_t rp_cuda_k_gated(cudaStream_t stream, const rp_cuda_gated *g,
                            const rp_cuda_gated_way *way)
{
    const int n_rows = (int)rp_ceil_div((size_t)g->t, TILE_ROWS);
    const int n_cols = g->d / TILE_COLS;
    const int n_k = g->k / TILE_K;
    /* With fewer pieces than the ring has, the first consumer could be a whole tile ahead. */
    const gated_job job = {n_k, n_rows, n_cols, way->group_rows, n_k >= STAGES ? way->lead : 0};
    PFN_cuTensorMapEncodeTiled_v12000 fn = NULL;
    CUtensorMap x, w_gate, w_up, out;
    int device = 0, n_sms = 0;
    cudaError_t code = find_encode(&fn);

    if (code != cudaSuccess) {
        return code;
    }
    if (!encode(fn, &x, g->x, g->t, g->k, TILE_ROWS) ||
        !encode(fn, &w_gate, g->w_gate, g->d, g->k, TILE_COLS) ||
        !encode(fn, &w_up, g->w_up, g->d, g->k, TILE_COLS) ||
        !encode(fn, &out, g->out, g->t, g->d, STORE_ROWS)) {
        return cudaErrorInvalidValue;
    }
    code = cudaFuncSetAttribute(gated, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
    if (code != cudaSuccess) {
        return code;
    }
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, device);
    const int n_blocks = n_rows * n_cols < n_sms ? n_rows * n_cols : n_sms;
    gated<<<(unsigned)n_blocks, N_THREADS, SHARED_BYTES, stream>>>(x, w_gate, w_up, out, job);
    return cudaPeekAtLastError();
}
