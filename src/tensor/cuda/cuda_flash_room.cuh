/*
 * cuda_flash_room.cuh - shared memory of cuda_flash.cuh: what lies where, whose turn it is, and the
 * threads that load.
 */
#ifndef RP_CUDA_FLASH_ROOM_CUH
#define RP_CUDA_FLASH_ROOM_CUH

#include "tensor/cuda/cuda_device.cuh"
#include "tensor/cuda/cuda_hopper_attention.cuh"

#define HEAD_DIM    96
#define SUB_COLS    32 /* as wide as the swizzle: 64 bytes of bf16, 32 of e4m3 */
#define N_SUBS      (HEAD_DIM / SUB_COLS)
#define WARPGROUP   128
#define N_CONSUMERS 3
#define N_THREADS   ((N_CONSUMERS + 1) * WARPGROUP)
#define OWN_ROWS    64 /* of a consumer */
#define TILE_ROWS   (N_CONSUMERS * OWN_ROWS)
#define PIECE       128 /* keys */
#define TILE_ALIGN  1024

/* Bytes in shared memory when q, k and v have elements of so many. Of e4m3 there is room for more
 * pieces. */
template <int ELEM> struct flash_bytes {
    static constexpr int OWN_SUB = OWN_ROWS * SUB_COLS * ELEM;
    static constexpr int OWN = N_SUBS * OWN_SUB; /* of q; of out, where it is no wider than q */
    static constexpr int PIECE_SUB = PIECE * SUB_COLS * ELEM;
    static constexpr int OF_KEYS = N_SUBS * PIECE_SUB;
    /* Of a piece of v; in e4m3 with 8 rows more, of which the first has ones. */
    static constexpr int OF_ONES = ELEM == 1 ? 8 * PIECE : 0;
    static constexpr int OF_VALUES = OF_KEYS + OF_ONES;
    static constexpr int STAGES = ELEM == 1 ? 4 : 3;
    static constexpr int N_BARRIERS = 4 * STAGES + 2 * N_CONSUMERS;
    static constexpr int SHARED =
        2 * N_CONSUMERS * OWN + STAGES * (OF_KEYS + OF_VALUES) + N_BARRIERS * 8 + TILE_ALIGN;
};

/* Named barriers; 0 is __syncthreads. */
enum { BAR_STORE = 1, BAR_TURN = BAR_STORE + N_CONSUMERS };

typedef struct {
    int n_q;
    int n_pieces, last; /* of keys; how many the last one has */
    int n_blocks;       /* of queries */
    int n_tiles;        /* blocks times heads */
    int group;          /* heads that share a head of k and v */
    float c;
    const float *most;     /* of out in e4m3: the largest of these is the largest magnitude of v */
    const float *in_scale; /* of all in e4m3: what q, k and v are to be multiplied by */
    float *out_scale;      /* of out in e4m3, [n_q] */
} flash_job;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

typedef struct {
    int row, head, kv_head;
} flash_tile;

__device__ static flash_tile tile_of(const flash_job &job, int tile)
{
    const int head = tile / job.n_blocks;

    return {(tile - head * job.n_blocks) * TILE_ROWS, head, head / job.group};
}

/* A ring of pieces of k or of v, where they lie and their barriers: a piece may be loaded over when
 * `empty` says that all have read it; it may be read when `full` says that all of it is there. */
template <int STAGES, int TILE_BYTES> struct flash_ring {
    uint32_t tiles, full;
    int stage = 0;
    uint32_t phase = 0;

    __device__ uint32_t tile() const
    {
        return tiles + stage * TILE_BYTES;
    }
    __device__ uint32_t full_bar() const
    {
        return full + stage * 8;
    }
    __device__ uint32_t empty_bar() const
    {
        return full + (STAGES + stage) * 8;
    }
    __device__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

template <int ELEM>
using flash_k_ring = flash_ring<flash_bytes<ELEM>::STAGES, flash_bytes<ELEM>::OF_KEYS>;
template <int ELEM>
using flash_v_ring = flash_ring<flash_bytes<ELEM>::STAGES, flash_bytes<ELEM>::OF_VALUES>;

/* Where things lie in shared memory: q and out of each consumer, the rings, barriers. */
template <int ELEM> struct flash_room {
    using bytes = flash_bytes<ELEM>;
    static constexpr int STAGES = bytes::STAGES;
    uint32_t q, out, k, v, bars;

    __device__ explicit flash_room(const void *shared)
    {
        q = (rp_shared_at(shared) + TILE_ALIGN - 1) / TILE_ALIGN * TILE_ALIGN;
        out = q + N_CONSUMERS * bytes::OWN;
        k = out + N_CONSUMERS * bytes::OWN;
        v = k + STAGES * bytes::OF_KEYS;
        bars = v + STAGES * bytes::OF_VALUES;
    }
    __device__ flash_k_ring<ELEM> k_ring() const
    {
        return {k, bars};
    }
    __device__ flash_v_ring<ELEM> v_ring() const
    {
        return {v, bars + 2 * STAGES * 8};
    }
    __device__ uint32_t q_full(int which) const
    {
        return bars + (4 * STAGES + which) * 8;
    }
    __device__ uint32_t q_empty(int which) const
    {
        return bars + (4 * STAGES + N_CONSUMERS + which) * 8;
    }
};

/* One thread; a sync must follow. */
template <int ELEM> __device__ static void make_barriers(const flash_room<ELEM> &room)
{
    constexpr int STAGES = flash_bytes<ELEM>::STAGES;
    const int n_readers = N_CONSUMERS * WARPGROUP / RP_WARP;

    for (int i = 0; i < STAGES; i++) {
        rp_mbar_init(room.bars + i * 8, 1);
        rp_mbar_init(room.bars + (STAGES + i) * 8, n_readers);
        rp_mbar_init(room.bars + (2 * STAGES + i) * 8, 1);
        rp_mbar_init(room.bars + (3 * STAGES + i) * 8, n_readers);
    }
    for (int i = 0; i < N_CONSUMERS; i++) {
        rp_mbar_init(room.q_full(i), 1);
        rp_mbar_init(room.q_empty(i), WARPGROUP / RP_WARP);
    }
    rp_mbar_init_done();
}

/* Rows behind those of v, in all stages: a product with them is the sum of the powers. The whole
 * block; a sync must follow. */
template <int ELEM> __device__ static void make_ones(const flash_room<ELEM> &room)
{
    using bytes = flash_bytes<ELEM>;

    for (int i = threadIdx.x; i < bytes::STAGES * bytes::OF_ONES / 4; i += N_THREADS) {
        const int stage = i / (bytes::OF_ONES / 4), word = i % (bytes::OF_ONES / 4);
        const uint32_t at = room.v + stage * bytes::OF_VALUES + bytes::OF_KEYS + word * 4;
        const uint32_t ones = word < PIECE / 4 ? 0x38383838u : 0; /* 1 is 0x38 */
        asm volatile("st.shared.u32 [%0], %1;\n" ::"r"(at), "r"(ones) : "memory");
    }
    rp_fence_async();
}

/* ---- loading ---- */

/* The three sub-tiles of a head's rows. */
__device__ static void load_head(uint32_t to, int sub_bytes, const CUtensorMap *map, int head,
                                 int row, uint32_t full)
{
    rp_mbar_expect(full, N_SUBS * sub_bytes);
#pragma unroll
    for (int i = 0; i < N_SUBS; i++) {
        rp_tma_load(to + i * sub_bytes, map, head * HEAD_DIM + i * SUB_COLS, row, full);
    }
}

/* Queries of one consumer, once it has read those of the tile before. */
template <int ELEM>
__device__ static void load_queries(const flash_room<ELEM> &room, const CUtensorMap *q,
                                    const flash_tile &at, int which, uint32_t phase)
{
    using bytes = flash_bytes<ELEM>;

    rp_mbar_wait(room.q_empty(which), phase ^ 1);
    load_head(room.q + which * bytes::OWN, bytes::OWN_SUB, q, at.head, at.row + which * OWN_ROWS,
              room.q_full(which));
}

template <int ELEM>
__device__ static void load_keys(flash_k_ring<ELEM> &ring, const CUtensorMap *k, int head,
                                 int piece)
{
    rp_mbar_wait(ring.empty_bar(), ring.phase ^ 1);
    load_head(ring.tile(), flash_bytes<ELEM>::PIECE_SUB, k, head, piece * PIECE, ring.full_bar());
    ring.next();
}

/* One thread. Keys are asked for before the queries of the later consumers, so that the first one
 * need not wait for those to be free. */
template <int ELEM>
__device__ static void load_q_and_k(const flash_room<ELEM> &room, const flash_job &job,
                                    const CUtensorMap *q, const CUtensorMap *k)
{
    flash_k_ring<ELEM> ring = room.k_ring();
    uint32_t phase = 0;

    for (int tile = blockIdx.x; tile < job.n_tiles; tile += gridDim.x, phase ^= 1) {
        const flash_tile at = tile_of(job, tile);
        load_queries(room, q, at, 0, phase);
        for (int i = 0; i < job.n_pieces; i++) {
            load_keys<ELEM>(ring, k, at.kv_head, i);
            if (i == 0) {
                load_queries(room, q, at, 1, phase);
                load_queries(room, q, at, 2, phase);
            }
        }
    }
}

/* A piece of v: of bf16 as it is, of e4m3 transposed, keys along its rows. */
template <int ELEM>
__device__ static void load_values(flash_v_ring<ELEM> &ring, const CUtensorMap *v, int head,
                                   int piece)
{
    rp_mbar_wait(ring.empty_bar(), ring.phase ^ 1);
    if constexpr (ELEM == 1) {
        rp_mbar_expect(ring.full_bar(), flash_bytes<ELEM>::OF_KEYS);
        rp_tma_load(ring.tile(), v, piece * PIECE, head * HEAD_DIM, ring.full_bar());
    } else {
        load_head(ring.tile(), flash_bytes<ELEM>::PIECE_SUB, v, head, piece * PIECE,
                  ring.full_bar());
    }
    ring.next();
}

/* Another thread. */
template <int ELEM>
__device__ static void load_v(const flash_room<ELEM> &room, const flash_job &job,
                              const CUtensorMap *v)
{
    flash_v_ring<ELEM> ring = room.v_ring();

    for (int tile = blockIdx.x; tile < job.n_tiles; tile += gridDim.x) {
        const flash_tile at = tile_of(job, tile);
        for (int i = 0; i < job.n_pieces; i++) {
            load_values<ELEM>(ring, v, at.kv_head, i);
        }
    }
}

#endif

#endif
