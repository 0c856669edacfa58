/*
 * cuda_gated.cuh - out[t, d] = silu(x w_gate^T) * (x w_up^T) in one kernel, for compute capability
 * 9.0; x and weights in bf16, or in e4m3 with a scale for each row.
 *
 * Two products share x, and what they give is needed once, element by element: so it never leaves
 * the registers. A block makes tiles of 128 rows and 128 columns of out. Its sums are 128 x 256: of
 * the columns of w_gate first, then of the same columns of w_up, which lie one after the other in
 * shared memory as if they were one matrix. In wgmma's layout of sums, gate and up of an element
 * are then in one thread, 64 registers apart.
 *
 * One warpgroup has one thread that loads (TMA, a ring of STAGES pieces of 128 bytes of k), two
 * others multiply, 64 rows each, and turn their sums into out (TMA again). Blocks stay, one on each
 * multiprocessor, and take tiles by their number: the next tile is loaded while one is finished.
 *
 * A piece may be loaded over when `empty` says that both have read it; it may be read when `full`
 * says that all of it is there.
 *
 * Of e4m3, sums are multiplied by the scales of their row and column first; and the largest
 * magnitude of each row of out is left in memory, so that its way to e4m3 takes one reading of it
 * (rp_cuda_k_round_rows). That is the largest of what tiles find, the same in any order.
 */
#ifndef RP_CUDA_GATED_CUH
#define RP_CUDA_GATED_CUH

#include "tensor/cuda/cuda_device.cuh"
#include "tensor/cuda/cuda_hopper.cuh"

#define TILE_ROWS    128
#define TILE_COLS    128
#define K_BYTES      128 /* as wide as the swizzle */
#define STAGES       4
#define WARPGROUP    128
#define N_CONSUMERS  2
#define N_THREADS    ((N_CONSUMERS + 1) * WARPGROUP)
#define STORE_ROWS   (TILE_ROWS / N_CONSUMERS)
#define OUT_ELEM     2
#define STORE_COLS   64 /* 128 bytes too */
#define X_BYTES      (TILE_ROWS * K_BYTES)
#define W_BYTES      (TILE_COLS * K_BYTES)
#define STAGE_BYTES  (X_BYTES + 2 * W_BYTES)
#define STORE_BYTES  (STORE_ROWS * STORE_COLS * OUT_ELEM)
#define OUT_BYTES    (TILE_ROWS * TILE_COLS * OUT_ELEM)
#define TILE_ALIGN   1024
#define SHARED_BYTES (STAGES * STAGE_BYTES + OUT_BYTES + 2 * STAGES * 8 + TILE_ALIGN)

/* Named barriers; 0 is __syncthreads. */
enum { BAR_STORE = 1, BAR_LEAD = BAR_STORE + N_CONSUMERS };

typedef struct {
    int n_k;            /* pieces of k */
    int n_rows, n_cols; /* of tiles */
    int group_rows;     /* how tiles are counted: column by column within so many rows of them */
    int lead;           /* pieces that the first consumer is ahead of the second; 0: nobody cares */
    int t;              /* rows of out */
    const float *x_scale, *gate_scale, *up_scale; /* of e4m3: of rows of x, of columns of out */
    unsigned *row_most; /* of e4m3: the bits of floats that are not negative */
} gated_job;

/* Types of x and weights; products of 32 bytes of k. */
struct gated_bf16 {
    static constexpr int ELEM_BYTES = 2;
    static constexpr bool SCALED = false;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __device__ static void multiply(float (&sums)[128], uint64_t x, uint64_t w, int add)
    {
        rp_wgmma_bf16(sums, x, w, add);
    }
#endif
};

struct gated_e4m3 {
    static constexpr int ELEM_BYTES = 1;
    static constexpr bool SCALED = true;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __device__ static void multiply(float (&sums)[128], uint64_t x, uint64_t w, int add)
    {
        rp_wgmma_e4m3(sums, x, w, add);
    }
#endif
};

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
template <typename E>
__device__ static void load_tiles(const gated_room &room, const gated_job &job,
                                  const CUtensorMap *x, const CUtensorMap *w_gate,
                                  const CUtensorMap *w_up)
{
    constexpr int TILE_K = K_BYTES / E::ELEM_BYTES;
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
template <typename E>
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
        for (int j = 0; j < K_BYTES / 32; j++) {
            E::multiply(sums, x + 2 * j, w + 2 * j, i > 0 || j > 0);
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

/* The rows of a thread, and where its columns begin: see rp_wgmma_bf16. */
__device__ static gated_tile own_part(gated_tile at)
{
    const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;

    return {at.row + thread / RP_WARP * 16 + lane / 4, at.col + lane % 4 * 2};
}

__device__ static float row_scale(const gated_job &job, int row)
{
    return row < job.t ? __ldg(job.x_scale + row) : 0.0f;
}

/* Each sum times the scales of its row and column; at: of these 64 rows. */
__device__ static void scale_sums(const gated_job &job, gated_tile at, float (&sums)[128])
{
    const gated_tile own = own_part(at);
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

/* The largest magnitudes that this thread has met in its upper and its lower row, two columns
 * each. A NaN does not count, as in quantising: it stays one whatever the scale. */
struct gated_most {
    __nv_bfloat162 row[2];

    __device__ gated_most()
    {
        row[0] = row[1] = __float2bfloat162_rn(0.0f);
    }
    __device__ void meet(int which, uint32_t two)
    {
        row[which] = __hmax2(row[which], __habs2(*reinterpret_cast<const __nv_bfloat162 *>(&two)));
    }
};

/* Of four lanes that share rows, one tells. */
__device__ static void tell_most(const gated_job &job, gated_tile at, const gated_most &most)
{
    const gated_tile own = own_part(at);

#pragma unroll
    for (int i = 0; i < 2; i++) {
        float x = fmaxf(__low2float(most.row[i]), __high2float(most.row[i]));
        x = fmaxf(x, __shfl_xor_sync(RP_ALL, x, 1));
        x = fmaxf(x, __shfl_xor_sync(RP_ALL, x, 2));
        if (threadIdx.x % 4 == 0 && own.row + 8 * i < job.t) {
            atomicMax(job.row_most + own.row + 8 * i, __float_as_uint(x));
        }
    }
}

/* 64 rows of out into this warpgroup's part of shared memory, 64 columns after the others. */
template <typename E>
__device__ static void put_tile(uint32_t to, const float (&sums)[128], gated_most &most)
{
    const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;
    const int swizzle = lane % 8; /* of the row that this lane gives the address of */
    const uint32_t own = to + (thread / RP_WARP * 16 + lane % 16) * (STORE_COLS * OUT_ELEM);

#pragma unroll
    for (int j = 0; j < TILE_COLS / 8; j += 2) { /* 16 columns, 8 of them by lanes 16 and up */
        const int piece = (j % 8 + lane / 16) ^ swizzle;
        uint32_t two[4]; /* upper row, lower row; the same of the next 8 columns */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            two[i] = gated_pair(sums + 4 * j + 2 * i, sums + 64 + 4 * j + 2 * i);
            if constexpr (E::SCALED) {
                most.meet(i % 2, two[i]);
            }
        }
        rp_store_tiles(own + j / 8 * STORE_BYTES + piece * 16, two[0], two[1], two[2], two[3]);
    }
}

/* Sums of 64 rows, which begin at `at`, to out. */
template <typename E>
__device__ static void finish(const gated_job &job, uint32_t to, const CUtensorMap *out,
                              gated_tile at, int which, float (&sums)[128])
{
    const bool stores = threadIdx.x % WARPGROUP == 0;
    gated_most most;

    if constexpr (E::SCALED) {
        scale_sums(job, at, sums);
    }
    if (stores) {
        rp_tma_store_wait_read();
    }
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    put_tile<E>(to, sums, most);
    rp_fence_async();
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    if (stores) {
        rp_tma_store(out, at.col, at.row, to);
        rp_tma_store(out, at.col + STORE_COLS, at.row, to + STORE_BYTES);
        rp_tma_store_commit();
    }
    if constexpr (E::SCALED) {
        tell_most(job, at, most);
    }
}

/* A warpgroup, `which` of the two. */
template <typename E>
__device__ static void make_tiles(const gated_room &room, const gated_job &job, int which,
                                  const CUtensorMap *out)
{
    const int lane = threadIdx.x % RP_WARP;
    const uint32_t to = room.out + which * (OUT_BYTES / N_CONSUMERS);
    gated_ring ring;
    float sums[128];

    for (int tile = blockIdx.x; tile < job.n_rows * job.n_cols; tile += gridDim.x) {
        gated_tile at = tile_of(job, tile);
        if (which == 1 && job.lead > 0) {
            rp_named_sync(BAR_LEAD, N_CONSUMERS * WARPGROUP);
        }
        multiply<E>(room, job, which, lane, ring, sums);
        at.row += which * STORE_ROWS;
        finish<E>(job, to, out, at, which, sums);
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

    make_barriers(room);
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
