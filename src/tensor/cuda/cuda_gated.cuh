/*
 * cuda_gated.cuh - out[t, d] = silu(x w_gate^T) * (x w_up^T) in one kernel, for compute capability
 * 9.0; x and weights in bf16, or in e4m3 with a scale for each row.
 *
 * Two products share x, and what they give is needed once, element by element: so it never leaves
 * the registers. A block makes tiles of 128 rows and 128 columns of out; how blocks, loading and
 * storing work: cuda_tiles.cuh. Its sums are 128 x 256: of the columns of w_gate first, then of the
 * same columns of w_up, which lie one after the other in shared memory as if they were one matrix.
 * In wgmma's layout of sums, gate and up of an element are then in one thread, 64 registers apart.
 *
 * Of e4m3, sums are multiplied by the scales of their row and column first, and out is e4m3 in
 * blocks too: a tile is as wide as what a scale is for, and a row of it is in 4 lanes.
 */
#ifndef RP_CUDA_GATED_CUH
#define RP_CUDA_GATED_CUH

#include "tensor/cuda/cuda_narrow.cuh"
#include "tensor/cuda/cuda_tiles.cuh"

#define TILE_COLS    128
#define STAGES       4
#define X_BYTES      (TILE_ROWS * K_BYTES)
#define W_BYTES      (TILE_COLS * K_BYTES)
#define STAGE_BYTES  (X_BYTES + 2 * W_BYTES)
#define OUT_BYTES    (TILE_ROWS * TILE_COLS * 2)
#define SHARED_BYTES (STAGES * STAGE_BYTES + OUT_BYTES + 2 * STAGES * 8 + TILE_ALIGN)

static_assert(TILE_COLS == RP_CUDA_BLOCK, "a row of a tile has one scale");

typedef struct {
    int n_k; /* pieces of k */
    rp_tile_order order;
    int lead; /* pieces that the first consumer is ahead of the second; 0: nobody cares */
    int t;    /* rows of out */
    const float *x_scale, *gate_scale, *up_scale; /* of e4m3: of rows of x, of columns of out */
    float *block_scale; /* of e4m3: of out, [d / 128][rows of all tiles] */
} gated_job;

/* Types of x and weights; products of 32 bytes of k. BLOCKS: with scales, out in blocks. */
struct gated_bf16 {
    static constexpr int ELEM_BYTES = 2;
    static constexpr bool BLOCKS = false;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __device__ static void multiply(float (&sums)[128], uint64_t x, uint64_t w, int add)
    {
        rp_wgmma_bf16(sums, x, w, add);
    }
#endif
};

struct gated_e4m3 {
    static constexpr int ELEM_BYTES = 1;
    static constexpr bool BLOCKS = true;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __device__ static void multiply(float (&sums)[128], uint64_t x, uint64_t w, int add)
    {
        rp_wgmma_e4m3(sums, x, w, add);
    }
#endif
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

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

/* One thread of each block. */
template <typename E>
__device__ static void load_tiles(const gated_room &room, const gated_job &job,
                                  const CUtensorMap *x, const CUtensorMap *w_gate,
                                  const CUtensorMap *w_up)
{
    constexpr int TILE_K = K_BYTES / E::ELEM_BYTES;
    rp_tile_ring<STAGES> ring;

    for (int tile = blockIdx.x; tile < job.order.n_rows * job.order.n_cols; tile += gridDim.x) {
        const rp_tile_place at = rp_tile_of<TILE_COLS>(job.order, tile);
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

/* sums[64, 256] = 64 rows of x times the tile's rows of both weights */
template <typename E>
__device__ static void multiply(const gated_room &room, const gated_job &job, int which, int lane,
                                rp_tile_ring<STAGES> &ring, float (&sums)[128])
{
    uint32_t before = 0;

    for (int i = 0; i < job.n_k; i++, ring.next()) {
        const uint32_t from = room.stages + ring.stage * STAGE_BYTES;
        const uint64_t x = rp_wgmma_operand(from + which * (X_BYTES / N_CONSUMERS));
        const uint64_t w = rp_wgmma_operand(from + X_BYTES);
        rp_mbar_wait(room.full + ring.stage * 8, ring.phase);
        rp_wgmma_fence();
#pragma unroll
        for (int j = 0; j < K_BYTES / 32; j++) {
            E::multiply(sums, x + 2 * j, w + 2 * j, i > 0 || j > 0);
        }
        rp_wgmma_commit();
        rp_wgmma_wait<1>(); /* so the piece before this one was read */
        if (i > 0) {
            rp_release(before, lane);
        }
        before = room.empty + ring.stage * 8;
        if (which == 0 && i == job.lead - 1) {
            rp_named_arrive(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
    }
    rp_wgmma_wait<0>();
    rp_release(before, lane);
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

/* silu(gate) * up; infinite powers end as zeros */
__device__ static float gated_one(float gate, float up)
{
    const float grown = power_of_two(-1.4426950408889634f * gate); /* e^-gate */

    return gate * reciprocal(1.0f + grown) * up;
}

__device__ static float row_scale(const gated_job &job, int row)
{
    return row < job.t ? __ldg(job.x_scale + row) : 0.0f;
}

/* Each sum times the scales of its row and column; at: of these 64 rows. */
__device__ static void scale_sums(const gated_job &job, rp_tile_place at, float (&sums)[128])
{
    const rp_tile_place own = rp_own_part(at);
    const float upper = row_scale(job, own.row), lower = row_scale(job, own.row + 8);

#pragma unroll
    for (int j = 0; j < 32; j++) {
        const float *const scale = (j < 16 ? job.gate_scale : job.up_scale) + own.col + j % 16 * 8;
        const float2 by = __ldg(reinterpret_cast<const float2 *>(scale));
        sums[4 * j] = sums[4 * j] * upper * by.x;
        sums[4 * j + 1] = sums[4 * j + 1] * upper * by.y;
        sums[4 * j + 2] = sums[4 * j + 2] * lower * by.x;
        sums[4 * j + 3] = sums[4 * j + 3] * lower * by.y;
    }
}

/* 64 rows of out into this warpgroup's part of shared memory, as bf16. */
__device__ static void put_tile(uint32_t to, const float (&sums)[128])
{
    rp_tile_writer writer(to);

#pragma unroll
    for (int j = 0; j < TILE_COLS / 8; j += 2) { /* 16 columns */
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *const gate = sums + 4 * j + 2 * i, *const up = gate + 64;
            two[i] = rp_bf16_pair(gated_one(gate[0], up[0]), gated_one(gate[1], up[1]));
        }
        writer.put(j, two);
    }
}

/* What the upper and the lower row of a thread are multiplied by to become e4m3. Sums are results
 * now, 64 of them; a NaN among them does not count. Of four lanes that share rows, one keeps the
 * scales. */
__device__ static void block_factors(const gated_job &job, rp_tile_place at,
                                     const float (&sums)[128], float (&by)[2])
{
    const size_t n_rows = (size_t)job.order.n_rows * TILE_ROWS;
    const rp_tile_place own = rp_own_part(at);

#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most = 0.0f, scale;
#pragma unroll
        for (int j = 0; j < TILE_COLS / 8; j++) {
            most = fmaxf(most, fabsf(sums[4 * j + 2 * i]));
            most = fmaxf(most, fabsf(sums[4 * j + 2 * i + 1]));
        }
        most = fmaxf(most, __shfl_xor_sync(RP_ALL, most, 1));
        most = fmaxf(most, __shfl_xor_sync(RP_ALL, most, 2));
        by[i] = rp_narrow_factor(most, &scale);
        if (threadIdx.x % 4 == 0) {
            job.block_scale[at.col / TILE_COLS * n_rows + own.row + 8 * i] = scale;
        }
    }
}

/* The same 64 rows as e4m3, 128 bytes each. A quad of lanes writes 8 bytes of its row at a time,
 * the 8 of a warp write to 8 different pieces of 16: no two words in one bank. */
__device__ static void put_blocks(uint32_t to, const float (&sums)[128], const float (&by)[2])
{
    const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;
    const int swizzle = lane / 4; /* of the upper row; 8 rows down it is the same */
    const uint32_t own = to + (thread / RP_WARP * 16 + lane / 4) * 128 + lane % 4 * 2;

#pragma unroll
    for (int j = 0; j < TILE_COLS / 8; j++) {
        const uint32_t at = own + ((j / 2) ^ swizzle) * 16 + j % 2 * 8;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float2 two =
                make_float2(sums[4 * j + 2 * i] * by[i], sums[4 * j + 2 * i + 1] * by[i]);
            rp_store_shared(at + i * 8 * 128,
                            __nv_cvt_float2_to_fp8x2(two, __NV_SATFINITE, __NV_E4M3));
        }
    }
}

/* Sums of 64 rows, which begin at `at`, to out in bf16. */
__device__ static void finish_wide(uint32_t to, const CUtensorMap *out, rp_tile_place at, int which,
                                   const float (&sums)[128])
{
    const bool stores = threadIdx.x % WARPGROUP == 0;

    if (stores) {
        rp_tma_store_wait_read();
    }
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    put_tile(to, sums);
    rp_fence_async();
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    if (stores) {
        rp_tma_store(out, at.col, at.row, to);
        rp_tma_store(out, at.col + STORE_COLS, at.row, to + STORE_BYTES);
        rp_tma_store_commit();
    }
}

/* The same to out in blocks. */
__device__ static void finish_blocks(const gated_job &job, uint32_t to, const CUtensorMap *out,
                                     rp_tile_place at, int which, float (&sums)[128])
{
    const bool stores = threadIdx.x % WARPGROUP == 0;
    float by[2];

#pragma unroll
    for (int j = 0; j < 64; j++) {
        sums[j] = gated_one(sums[j], sums[64 + j]);
    }
    block_factors(job, at, sums, by);
    if (stores) {
        rp_tma_store_wait_read();
    }
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    put_blocks(to, sums, by);
    rp_fence_async();
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    if (stores) {
        rp_tma_store(out, at.col, at.row, to);
        rp_tma_store_commit();
    }
}

/* A warpgroup, `which` of the two. */
template <typename E>
__device__ static void make_tiles(const gated_room &room, const gated_job &job, int which,
                                  const CUtensorMap *out)
{
    const int lane = threadIdx.x % RP_WARP;
    const uint32_t to = room.out + which * (OUT_BYTES / N_CONSUMERS);
    rp_tile_ring<STAGES> ring;
    float sums[128];

    for (int tile = blockIdx.x; tile < job.order.n_rows * job.order.n_cols; tile += gridDim.x) {
        rp_tile_place at = rp_tile_of<TILE_COLS>(job.order, tile);
        if (which == 1 && job.lead > 0) {
            rp_named_sync(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
        multiply<E>(room, job, which, lane, ring, sums);
        at.row += which * STORE_ROWS;
        if constexpr (E::BLOCKS) {
            scale_sums(job, at, sums);
            finish_blocks(job, to, out, at, which, sums);
        } else {
            finish_wide(to, out, at, which, sums);
        }
    }
    if (threadIdx.x % WARPGROUP == 0) {
        rp_tma_store_wait_read();
    }
}

#endif

/* One block on a multiprocessor: 225 KiB of shared memory, 168 registers a thread at the start,
 * of which the loading warpgroup gives most to the others. */
template <typename E>
__global__ void __launch_bounds__(N_THREADS, 1)
    gated(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w_gate,
          const __grid_constant__ CUtensorMap w_up, const __grid_constant__ CUtensorMap out,
          gated_job job)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char shared[];
    const gated_room room(shared);
    const int warpgroup = __shfl_sync(RP_ALL, threadIdx.x / WARPGROUP, 0);

    rp_make_barriers<STAGES>(room.full, room.empty);
    __syncthreads();
    if (warpgroup == 0) {
        rp_fewer_registers<40>();
        if (threadIdx.x == 0) {
            rp_tma_prefetch_map(&x);
            rp_tma_prefetch_map(&w_gate);
            rp_tma_prefetch_map(&w_up);
            load_tiles<E>(room, job, &x, &w_gate, &w_up);
        }
        __syncwarp();
    } else {
        rp_more_registers<232>();
        make_tiles<E>(room, job, warpgroup - 1, &out);
    }
#endif
}

#endif
