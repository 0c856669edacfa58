/*
 * cuda_flash.cuh - out = softmax(scale q k^T) v of heads of 96, without a mask, in one kernel, for
 * compute capability 9.0; q, k, v in bf16 and out in bf16 or e4m3, or all in e4m3.
 *
 * A block takes 192 queries of one head. Three warpgroups have 64 of them each and go over the
 * keys piece by piece: scores, a product of tiles in shared memory, stay in registers, become
 * powers there and are, rounded, the left operand of the product with v. A fourth
 * warpgroup loads by TMA: one thread q and k, another v, each into a ring of its own. Blocks stay,
 * one on each multiprocessor, and take tiles by their number; neighbours have the same head.
 *
 * Powers are 2^(c x - top), c = scale log2(e). `top` is a row's largest c x, but lags: it moves,
 * and what was summed up is multiplied, only when some row of the warp outgrows its own by more
 * than LAG. So most pieces do without; powers are 2^LAG at most, and the division at the end has
 * the same top. Those in e4m3 are 2^SHIFT times as large, so that small shares keep bits.
 *
 * While one warpgroup computes powers, tensor cores are for the others: they begin their scores in
 * turn, round and round, so that they do not all compute powers at once.
 *
 * An output is a mean of rows of v. So as e4m3 all rows have one scale, the largest magnitude of v
 * / 448, and numbers go there from f32.
 *
 * q, k and v in e4m3 are made by cuda_flash_round.cu, v transposed, for products in 8 bits take
 * both operands along k only. The order of its keys is that in which a thread has powers of its
 * scores. One more column of v is ones, so that the sum of the powers is one of what they were
 * rounded to.
 */
#ifndef RP_CUDA_FLASH_CUH
#define RP_CUDA_FLASH_CUH

#include "tensor/cuda/cuda_flash_rows.cuh"

/* Types of q, k and v, and of out. */
enum flash_way {
    FLASH_BF16,         /* all bf16 */
    FLASH_BF16_TO_E4M3, /* out in e4m3 */
    FLASH_E4M3,         /* all e4m3 */
};

/* Bytes of an element of q, k and v. */
template <flash_way WAY> constexpr int flash_elem = WAY == FLASH_E4M3 ? 1 : 2;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- products ---- */

/* This warp has read what the barrier stands for. */
__device__ static void release(uint32_t empty)
{
    if (threadIdx.x % RP_WARP == 0) {
        rp_mbar_arrive(empty);
    }
}

/* q, k and v in bf16. */
struct flash_bf16_in {
    static constexpr int ELEM = 2;
    static constexpr bool APART = false; /* are products with v summed up apart from o, and powers
                                            by a product with ones? */
    using powers = flash_powers_bf16;

    __device__ static uint64_t queries(uint32_t tile)
    {
        return rp_wgmma_operand_64(tile, 16);
    }
    /* s = q k^T is on its way. */
    __device__ static void begin_scores(uint64_t q, uint32_t k_tile, float (&s)[64])
    {
        using bytes = flash_bytes<ELEM>;
        const uint64_t k = rp_wgmma_operand_64(k_tile, 16);

        rp_wgmma_fence();
        rp_wgmma_scores<0>(s, q, k);
#pragma unroll
        for (int i = 1; i < HEAD_DIM / 16; i++) {
            const int side = i % 2 * 2; /* 32 bytes */
            rp_wgmma_scores<1>(s, q + i / 2 * (bytes::OWN_SUB >> 4) + side,
                               k + i / 2 * (bytes::PIECE_SUB >> 4) + side);
        }
        rp_wgmma_commit();
    }
    /* o += p v is on its way. */
    __device__ static void begin_values(const uint32_t (&p)[32], uint32_t v_tile, float (&o)[48])
    {
        const uint64_t v = rp_wgmma_operand_64(v_tile, flash_bytes<ELEM>::PIECE_SUB);

        rp_wgmma_pin_some(o);
        rp_wgmma_fence();
#pragma unroll
        for (int i = 0; i < PIECE / 16; i++) { /* 16 rows of v are 1024 bytes */
            rp_wgmma_values(o, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3],
                            v + i * (1024 >> 4));
        }
        rp_wgmma_commit();
    }
};

/* In e4m3. Sums of such products keep fewer bits than f32 has, so a piece's are a product's. */
struct flash_e4m3_in {
    static constexpr int ELEM = 1;
    static constexpr bool APART = true;
    using powers = flash_powers_e4m3;

    __device__ static uint64_t queries(uint32_t tile)
    {
        return rp_wgmma_operand_32(tile);
    }
    __device__ static void begin_scores(uint64_t q, uint32_t k_tile, float (&s)[64])
    {
        using bytes = flash_bytes<ELEM>;
        const uint64_t k = rp_wgmma_operand_32(k_tile);

        rp_wgmma_fence();
        rp_wgmma_scores_e4m3<0>(s, q, k);
#pragma unroll
        for (int i = 1; i < N_SUBS; i++) {
            rp_wgmma_scores_e4m3<1>(s, q + i * (bytes::OWN_SUB >> 4),
                                    k + i * (bytes::PIECE_SUB >> 4));
        }
        rp_wgmma_commit();
    }
    /* o = p v is on its way, and sum = p ones: one thread of a quad has that, the others
     * zeros, of the upper row in sum[0] and of the lower one in sum[2]. */
    __device__ static void begin_values(const uint32_t (&p)[16], uint32_t v_tile, float (&o)[48],
                                        float (&sum)[4])
    {
        const uint64_t v = rp_wgmma_operand(v_tile);

        rp_wgmma_fence();
        rp_wgmma_values_e4m3<0>(o, sum, p[0], p[1], p[2], p[3], v);
#pragma unroll
        for (int i = 1; i < PIECE / 32; i++) { /* 32 keys are 32 bytes of a row */
            rp_wgmma_values_e4m3<1>(o, sum, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3],
                                    v + i * (32 >> 4));
        }
        rp_wgmma_commit();
    }
};

/* ---- attention of one tile ---- */

/* A consumer as it goes round: its number, its queries, both rings. */
template <typename In> struct flash_user {
    using bytes = flash_bytes<In::ELEM>;
    int which;
    uint64_t q;
    uint32_t q_full, q_empty, q_phase;
    flash_k_ring<In::ELEM> k;
    flash_v_ring<In::ELEM> v;

    __device__ flash_user(const flash_room<In::ELEM> &room, int n)
        : which(n), q(In::queries(room.q + n * bytes::OWN)), q_full(room.q_full(n)),
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
template <typename In> __device__ static void end_scores(flash_user<In> &u, bool last)
{
    release(u.k.empty_bar());
    u.k.next();
    if (last) {
        release(u.q_empty);
    }
}

template <typename In> __device__ static void end_values(flash_user<In> &u)
{
    release(u.v.empty_bar());
    u.v.next();
}

/* With products summed up apart: o = o by + p v. */
template <typename In>
__device__ static void add_apart(flash_user<In> &u, const uint32_t (&p)[In::powers::N],
                                 const float (&by)[2], flash_rows &rows, float (&o)[48])
{
    float part[48], sum[4];

    In::begin_values(p, u.v.tile(), part, sum);
    rp_wgmma_wait<0>();
    rp_wgmma_pin_some(part);
    rp_wgmma_pin_some(sum);
    end_values(u);
    add_rows(o, by, part);
    rows.sum[0] += sum[0];
    rows.sum[1] += sum[2];
}

/* o += p v */
template <typename In>
__device__ static void add_values(flash_user<In> &u, const uint32_t (&p)[In::powers::N],
                                  float (&o)[48])
{
    In::begin_values(p, u.v.tile(), o);
    rp_wgmma_wait<0>();
    rp_wgmma_pin_some(o);
    end_values(u);
}

template <typename In>
__device__ static void attend(const flash_job &job, float c, flash_user<In> &u, flash_rows &rows,
                              float (&o)[48])
{
    using powers = typename In::powers;
    float s[64];
    uint32_t p[powers::N];

    for (int i = 0; i < job.n_pieces; i++) {
        const bool last = i == job.n_pieces - 1;
        float by[2] = {1.0f, 1.0f}; /* counts only where products are summed up apart */
        rp_mbar_wait(u.k.full_bar(), u.k.phase);
        take_turn(u.which);
        In::begin_scores(u.q, u.k.tile(), s);
        pass_turn(u.which);
        rp_wgmma_wait<0>();
        rp_wgmma_pin_some(s);
        end_scores(u, last);
        if (last && job.last < PIECE) {
            leave_out(s, job.last);
        }
        if (follow<powers>(s, c, rows, by) && !In::APART) {
            multiply_rows(o, by);
        }
        raise<!In::APART>(s, c, rows);
        powers::round(s, p);
        rp_mbar_wait(u.v.full_bar(), u.v.phase);
        if constexpr (In::APART) {
            add_apart(u, p, by, rows, o);
        } else {
            add_values(u, p, o);
        }
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

/* What scores are to be multiplied by, and sums; the scale of out in e4m3. */
struct flash_factors {
    float c, times = 1.0f, out = 1.0f;

    template <typename In, typename Out> __device__ void find(const flash_job &job)
    {
        c = job.c;
        if constexpr (In::ELEM == 1) {
            c *= job.in_scale[0] * job.in_scale[1];
            out = job.in_scale[2];
        } else if constexpr (Out::NARROW) {
            times = rp_narrow_factor(largest_of(job.most), &out);
        }
    }
};

/* A consumer. */
template <typename In, typename Out>
__device__ static void make_tiles(const flash_room<In::ELEM> &room, const flash_job &job, int which,
                                  const CUtensorMap *map)
{
    const uint32_t staged = room.out + which * flash_bytes<In::ELEM>::OWN;
    flash_user<In> user(room, which);
    flash_factors by;

    by.find<In, Out>(job);
    if (which == N_CONSUMERS - 1) {
        pass_turn(which); /* the first one's */
    }
    for (int tile = blockIdx.x; tile < job.n_tiles; tile += gridDim.x) {
        flash_tile at = tile_of(job, tile);
        flash_rows rows;
        float o[48] = {};
        rp_mbar_wait(user.q_full, user.q_phase);
        user.q_phase ^= 1;
        attend(job, by.c, user, rows, o);
        at.row += which * OWN_ROWS;
        divide_rows(rows, by.times, o);
        finish<Out>(map, at, staged, which, o);
        if constexpr (Out::NARROW) {
            put_scales(job, at, by.out);
        }
    }
    if (which == 0) {
        take_turn(which); /* the one too many that the last one has passed on */
    }
    if (threadIdx.x % WARPGROUP == 0) {
        rp_tma_store_wait_read();
    }
}

template <flash_way WAY> struct flash_types {
    using in = flash_bf16_in;
    using out = std::conditional_t<WAY == FLASH_BF16, flash_bf16, flash_e4m3>;
};
template <> struct flash_types<FLASH_E4M3> {
    using in = flash_e4m3_in;
    using out = flash_e4m3;
};

#endif

/* One block on a multiprocessor: 217 KiB of shared memory (137 of e4m3), 128 registers a thread at
 * the start, of which the loading warpgroup gives most to the others. */
template <flash_way WAY>
__global__ void __launch_bounds__(N_THREADS, 1)
    flash(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
          const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap out,
          flash_job job)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char shared[];
    const flash_room<flash_elem<WAY>> room(shared);
    const int warpgroup = __shfl_sync(RP_ALL, threadIdx.x / WARPGROUP, 0);

    if (threadIdx.x == 0) {
        make_barriers(room);
    }
    if constexpr (flash_elem<WAY> == 1) {
        make_ones(room);
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
        using types = flash_types<WAY>;
        rp_more_registers<160>();
        make_tiles<typename types::in, typename types::out>(room, job, warpgroup - 1, &out);
    }
#endif
}

#endif
