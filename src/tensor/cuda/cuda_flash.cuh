/*
 * cuda_flash.cuh - out = softmax(scale q k^T) v of heads of 96, without a mask, in one kernel, for
 * compute capability 9.0; q, k, v in bf16, out in bf16 or e4m3.
 *
 * A block takes 192 queries of one head. Three warpgroups have 64 of them each and go over the
 * keys piece by piece: scores, a product of tiles in shared memory, stay in registers, become
 * powers there and are, rounded in pairs, the left operand of the product with v. A fourth
 * warpgroup loads by TMA: one thread q and k, another v, each into a ring of its own. Blocks stay,
 * one on each multiprocessor, and take tiles by their number; neighbours have the same head.
 *
 * Powers are 2^(c x - top), c = scale log2(e). `top` is a row's largest c x, but lags: it moves,
 * and what was summed up is multiplied, only when some row of the warp outgrows its own by more
 * than LAG. So most pieces do without; powers are 2^LAG at most, and the division at the end has
 * the same top.
 *
 * While one warpgroup computes powers, tensor cores are for the others: they begin their scores in
 * turn, round and round, so that they do not all compute powers at once.
 *
 * An output is a mean of rows of v. So as e4m3 all rows have one scale, the largest magnitude of v
 * / 448, and numbers go there from f32.
 */
#ifndef RP_CUDA_FLASH_CUH
#define RP_CUDA_FLASH_CUH

#include "tensor/cuda/cuda_flash_rows.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- products ---- */

/* This warp has read what the barrier stands for. */
__device__ static void release(uint32_t empty)
{
    if (threadIdx.x % RP_WARP == 0) {
        rp_mbar_arrive(empty);
    }
}

/* s = q k^T is on its way. */
__device__ static void begin_scores(uint64_t q, uint32_t k_tile, float (&s)[64])
{
    const uint64_t k = rp_wgmma_operand_64(k_tile, 16);

    rp_wgmma_fence();
    rp_wgmma_scores<0>(s, q, k);
#pragma unroll
    for (int i = 1; i < HEAD_DIM / 16; i++) {
        const int side = i % 2 * 2; /* 32 bytes */
        rp_wgmma_scores<1>(s, q + i / 2 * (OWN_SUB >> 4) + side,
                           k + i / 2 * (PIECE_SUB >> 4) + side);
    }
    rp_wgmma_commit();
}

/* o += p v is on its way. */
__device__ static void begin_values(const uint32_t (&p)[32], uint32_t v_tile, float (&o)[48])
{
    const uint64_t v = rp_wgmma_operand_64(v_tile, PIECE_SUB);

    rp_wgmma_pin_some(o);
    rp_wgmma_fence();
#pragma unroll
    for (int i = 0; i < PIECE / 16; i++) { /* 16 rows of v are 1024 bytes */
        rp_wgmma_values(o, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3], v + i * (1024 >> 4));
    }
    rp_wgmma_commit();
}

/* ---- attention of one tile ---- */

/* A consumer as it goes round: its number, its queries, both rings. */
struct flash_user {
    int which;
    uint64_t q;
    uint32_t q_full, q_empty, q_phase;
    flash_ring k, v;

    __device__ flash_user(const flash_room &room, int n)
        : which(n), q(rp_wgmma_operand_64(room.q + n * OWN_BYTES, 16)), q_full(room.q_full(n)),
          q_empty(room.q_empty(n)), q_phase(0), k(room.k_ring()), v(room.v_ring())
    {
    }
};

__device__ static void take_turn(int which)
{
    rp_named_sync(BAR_TURN + which, 2 * WARPGROUP);
}

__device__ static void pass_turn(int which)
{
    rp_named_arrive(BAR_TURN + (which + 1) % N_CONSUMERS, 2 * WARPGROUP);
}

/* Scores of a piece were made. */
__device__ static void end_scores(flash_user &u, bool last)
{
    release(u.k.empty_bar());
    u.k.next();
    if (last) {
        release(u.q_empty);
    }
}

__device__ static void end_values(flash_user &u)
{
    release(u.v.empty_bar());
    u.v.next();
}

__device__ static void attend(const flash_job &job, flash_user &u, flash_rows &rows, float (&o)[48])
{
    float s[64], by[2];
    uint32_t p[32];

    for (int i = 0; i < job.n_pieces; i++) {
        const bool last = i == job.n_pieces - 1;
        rp_mbar_wait(u.k.full_bar(), u.k.phase);
        take_turn(u.which);
        begin_scores(u.q, u.k.tile(), s);
        pass_turn(u.which);
        rp_wgmma_wait<0>();
        rp_wgmma_pin_some(s);
        end_scores(u, last);
        if (last && job.last < PIECE) {
            leave_out(s, job.last);
        }
        if (follow(s, job.c, rows, by)) {
            multiply_rows(o, by);
        }
        raise(s, job.c, rows);
        round_powers(s, p);
        rp_mbar_wait(u.v.full_bar(), u.v.phase);
        begin_values(p, u.v.tile(), o);
        rp_wgmma_wait<0>();
        rp_wgmma_pin_some(o);
        end_values(u);
    }
}

/* ---- out ---- */

/* The largest magnitude of v. */
__device__ static float largest_of(const float *most)
{
    float x = 0.0f;

    for (int i = threadIdx.x % RP_WARP; i < RP_CUDA_FLASH_PIECES; i += RP_WARP) {
        x = fmaxf(x, most[i]);
    }
    for (int step = RP_WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(RP_ALL, x, step));
    }
    return x;
}

/* The first head's tiles cover all rows. */
__device__ static void put_scales(const flash_job &job, const flash_tile &at, float scale)
{
    const int thread = threadIdx.x % WARPGROUP, row = at.row + thread;

    if (at.head == 0 && thread < OWN_ROWS && row < job.n_q) {
        job.out_scale[row] = scale;
    }
}

/* Rows of one consumer, which begin at `at`. */
template <typename Out>
__device__ static void finish(const CUtensorMap *out, const flash_tile &at, uint32_t to, int which,
                              const float (&o)[48])
{
    const bool stores = threadIdx.x % WARPGROUP == 0;

    if (stores) {
        rp_tma_store_wait_read();
    }
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    Out::put(to, o);
    rp_fence_async();
    rp_named_sync(BAR_STORE + which, WARPGROUP);
    if (stores) {
        Out::store(out, at, to);
        rp_tma_store_commit();
    }
}

/* ---- a block ---- */

/* A consumer. */
template <typename Out>
__device__ static void make_tiles(const flash_room &room, const flash_job &job, int which,
                                  const CUtensorMap *out)
{
    flash_user user(room, which);
    float times = 1.0f, scale = 1.0f;

    if constexpr (Out::NARROW) {
        times = rp_narrow_factor(largest_of(job.most), &scale);
    }
    if (which == N_CONSUMERS - 1) {
        pass_turn(which); /* the first one's */
    }
    for (int tile = blockIdx.x; tile < job.n_tiles; tile += gridDim.x) {
        flash_tile at = tile_of(job, tile);
        flash_rows rows;
        float o[48] = {};
        rp_mbar_wait(user.q_full, user.q_phase);
        user.q_phase ^= 1;
        attend(job, user, rows, o);
        at.row += which * OWN_ROWS;
        divide_rows(rows, times, o);
        finish<Out>(out, at, room.out + which * OWN_BYTES, which, o);
        if constexpr (Out::NARROW) {
            put_scales(job, at, scale);
        }
    }
    if (which == 0) {
        take_turn(which); /* the one too many that the last one has passed on */
    }
    if (threadIdx.x % WARPGROUP == 0) {
        rp_tma_store_wait_read();
    }
}

#endif

/* One block on a multiprocessor: 217 KiB of shared memory, 128 registers a thread at the start, of
 * which the loading warpgroup gives most to the others. */
template <bool NARROW>
__global__ void __launch_bounds__(N_THREADS, 1)
    flash(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
          const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap out,
          flash_job job)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char shared[];
    const flash_room room(shared);
    const int warpgroup = __shfl_sync(RP_ALL, threadIdx.x / WARPGROUP, 0);

    if (threadIdx.x == 0) {
        make_barriers(room);
    }
    __syncthreads();
    if (warpgroup == 0) {
        rp_fewer_registers<32>();
        if (threadIdx.x == 0) {
            rp_tma_prefetch_map(&q);
            rp_tma_prefetch_map(&k);
            load_q_and_k(room, job, &q, &k);
        } else if (threadIdx.x == RP_WARP) {
            rp_tma_prefetch_map(&v);
            load_v(room, job, &v);
        }
        __syncwarp();
    } else {
        using out_type = std::conditional_t<NARROW, flash_e4m3, flash_bf16>;
        rp_more_registers<160>();
        make_tiles<out_type>(room, job, warpgroup - 1, &out);
    }
#endif
}

#endif
