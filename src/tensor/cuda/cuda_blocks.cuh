/*
 * cuda_blocks.cuh - d[m, n] = a[m, k] w[n, k]^T for compute capability 9.0, both in e4m3: a with a
 * scale for each 128 of a row, w with one for each row; d in bf16.
 *
 * How blocks, loading and storing work: cuda_tiles.cuh. A tile has 128 rows and 192 columns, so
 * that 2304 columns are 12 tiles. A warpgroup keeps two sets of 64 x 192 sums. Those of 128 of k,
 * which wgmma makes with fewer bits than f32 has, are multiplied by the scales of their rows and
 * added to the others, in f32; those scales are loaded with the piece. Meanwhile the other
 * warpgroup multiplies, so that the tensor cores have work. The scales of w come last.
 */
#ifndef RP_CUDA_BLOCKS_CUH
#define RP_CUDA_BLOCKS_CUH

#include "tensor/cuda/cuda_hopper_192.cuh"
#include "tensor/cuda/cuda_tiles.cuh"

#define TILE_COLS    192
#define STAGES       4
#define A_BYTES      (TILE_ROWS * K_BYTES)
#define W_BYTES      (TILE_COLS * K_BYTES)
#define STAGE_BYTES  (A_BYTES + W_BYTES)
#define SCALE_BYTES  (TILE_ROWS * (int)sizeof(float)) /* of a stage too, but elsewhere */
#define OUT_BYTES    (TILE_ROWS * TILE_COLS * 2)
#define SHARED_BYTES (STAGES * (STAGE_BYTES + SCALE_BYTES + 2 * 8) + OUT_BYTES + TILE_ALIGN)

typedef struct {
    int n_k; /* pieces of k */
    rp_tile_order order;
    int lead; /* pieces that the first consumer is ahead of the second; 0: nobody cares */
    int n;
    const float *a_scale, *w_scale; /* [n_k][rows of all tiles], [n] */
} down_job;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Where things lie in shared memory. */
struct down_room {
    uint32_t stages, out, scales, full, empty;

    __device__ explicit down_room(const void *shared)
    {
        stages = (rp_shared_at(shared) + TILE_ALIGN - 1) / TILE_ALIGN * TILE_ALIGN;
        out = stages + STAGES * STAGE_BYTES;
        scales = out + OUT_BYTES;
        full = scales + STAGES * SCALE_BYTES;
        empty = full + STAGES * 8;
    }
};

/* One thread of each block. */
__device__ static void load_tiles(const down_room &room, const down_job &job, const CUtensorMap *a,
                                  const CUtensorMap *w)
{
    const int n_rows = job.order.n_rows * TILE_ROWS;
    rp_tile_ring<STAGES> ring;

    for (int tile = blockIdx.x; tile < job.order.n_rows * job.order.n_cols; tile += gridDim.x) {
        const rp_tile_place at = rp_tile_of<TILE_COLS>(job.order, tile);
        const float *scale = job.a_scale + at.row;
        for (int i = 0; i < job.n_k; i++, ring.next(), scale += n_rows) {
            const uint32_t full = room.full + ring.stage * 8;
            const uint32_t to = room.stages + ring.stage * STAGE_BYTES;
            rp_mbar_wait(room.empty + ring.stage * 8, ring.phase ^ 1);
            rp_mbar_expect(full, STAGE_BYTES + SCALE_BYTES);
            rp_tma_load(to, a, i * K_BYTES, at.row, full);
            rp_tma_load(to + A_BYTES, w, i * K_BYTES, at.col, full);
            rp_bulk_load(room.scales + ring.stage * SCALE_BYTES, scale, SCALE_BYTES, full);
        }
    }
}

/* sums[64, 192] = 64 rows of a, with their scales, times the tile's rows of w */
__device__ static void multiply(const down_room &room, const down_job &job, int which,
                                rp_tile_ring<STAGES> &ring, float (&sums)[96])
{
    const rp_tile_place own = rp_own_part({which * STORE_ROWS, 0}); /* within the tile */
    float part[96];

#pragma unroll
    for (int j = 0; j < 96; j++) {
        sums[j] = 0.0f;
    }
    for (int i = 0; i < job.n_k; i++, ring.next()) {
        const uint32_t from = room.stages + ring.stage * STAGE_BYTES;
        const uint32_t scale = room.scales + ring.stage * SCALE_BYTES + own.row * 4;
        const uint64_t a = rp_wgmma_operand(from + which * (A_BYTES / N_CONSUMERS));
        const uint64_t w = rp_wgmma_operand(from + A_BYTES);
        rp_mbar_wait(room.full + ring.stage * 8, ring.phase);
        rp_wgmma_fence();
#pragma unroll
        for (int j = 0; j < K_BYTES / 32; j++) {
            rp_wgmma_e4m3_192(part, a + 2 * j, w + 2 * j, j > 0);
        }
        rp_wgmma_commit();
        const float upper = rp_load_shared(scale), lower = rp_load_shared(scale + 8 * 4);
        if (which == 0 && i == job.lead - 1) {
            rp_named_arrive(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
        rp_wgmma_wait<0>();
        rp_wgmma_pin(part);
        rp_mbar_arrive(room.empty + ring.stage * 8); /* each lane, which has its scales */
#pragma unroll
        for (int j = 0; j < 96; j++) {
            sums[j] = fmaf(part[j], j / 2 % 2 == 0 ? upper : lower, sums[j]);
        }
    }
}

/* 64 rows of d into this warpgroup's part of shared memory; columns that d lacks become zeros. */
__device__ static void put_tile(const down_job &job, uint32_t to, rp_tile_place at,
                                const float (&sums)[96])
{
    const rp_tile_place own = rp_own_part(at);
    rp_tile_writer writer(to);

#pragma unroll
    for (int j = 0; j < TILE_COLS / 8; j += 2) { /* 16 columns */
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int col = own.col + (j + i) * 8;
            const float *const x = sums + 4 * (j + i);
            const float2 by = col < job.n
                                  ? __ldg(reinterpret_cast<const float2 *>(job.w_scale + col))
                                  : make_float2(0.0f, 0.0f);
            two[2 * i] = rp_bf16_pair(x[0] * by.x, x[1] * by.y);
            two[2 * i + 1] = rp_bf16_pair(x[2] * by.x, x[3] * by.y);
        }
        writer.put(j, two);
    }
}

/* Sums of 64 rows, which begin at `at`, to d. */
__device__ static void finish(const down_job &job, uint32_t to, const CUtensorMap *d,
                              rp_tile_place at, int which, const float (&sums)[96])
{
    const bool stores = threadIdx.x % WARPGROUP == 0;

    if (stores) {
        rp_tma_store_wait_read();
    }
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    put_tile(job, to, at, sums);
    rp_fence_async();
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    if (stores) {
        for (int i = 0; i < TILE_COLS / STORE_COLS && at.col + i * STORE_COLS < job.n; i++) {
            rp_tma_store(d, at.col + i * STORE_COLS, at.row, to + i * STORE_BYTES);
        }
        rp_tma_store_commit();
    }
}

/* A warpgroup, `which` of the two. */
__device__ static void make_tiles(const down_room &room, const down_job &job, int which,
                                  const CUtensorMap *d)
{
    const uint32_t to = room.out + which * (OUT_BYTES / N_CONSUMERS);
    rp_tile_ring<STAGES> ring;
    float sums[96];

    for (int tile = blockIdx.x; tile < job.order.n_rows * job.order.n_cols; tile += gridDim.x) {
        rp_tile_place at = rp_tile_of<TILE_COLS>(job.order, tile);
        at.row += which * STORE_ROWS;
        if (which == 1 && job.lead > 0) {
            rp_named_sync(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
        multiply(room, job, which, ring, sums);
        finish(job, to, d, at, which, sums);
    }
    if (threadIdx.x % WARPGROUP == 0) {
        rp_tma_store_wait_read();
    }
}

#endif

/* One block on a multiprocessor: 211 KiB of shared memory, 168 registers a thread at the start,
 * of which the loading warpgroup gives most to the others. */
__global__ void __launch_bounds__(N_THREADS, 1)
    down(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap w,
         const __grid_constant__ CUtensorMap d, down_job job)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char shared[];
    const down_room room(shared);
    const int warpgroup = __shfl_sync(RP_ALL, threadIdx.x / WARPGROUP, 0);

    rp_make_barriers<STAGES, N_CONSUMERS * WARPGROUP>(room.full, room.empty);
    __syncthreads();
    if (warpgroup == 0) {
        rp_fewer_registers<24>();
        if (threadIdx.x == 0) {
            rp_tma_prefetch_map(&a);
            rp_tma_prefetch_map(&w);
            load_tiles(room, job, &a, &w);
        }
        __syncwarp();
    } else {
        rp_more_registers<240>();
        make_tiles(room, job, warpgroup - 1, &d);
    }
#endif
}

#endif
