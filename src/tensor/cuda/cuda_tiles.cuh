/*
 * cuda_tiles.cuh - what the products of compute capability 9.0 share: the order of tiles, the ring
 * of pieces between the thread that loads and the warpgroups that multiply, the way of finished
 * tiles to memory, tensor maps.
 *
 * A block has three warpgroups. One has one thread that loads (TMA, a ring of pieces of 128 bytes
 * of k), two others multiply, 64 rows each. Blocks stay, one on each multiprocessor, and take tiles
 * by their number: the next tile is loaded while one is finished.
 *
 * A piece may be loaded over when `empty` says that both have read it; it may be read when `full`
 * says that all of it is there.
 */
#ifndef RP_CUDA_TILES_CUH
#define RP_CUDA_TILES_CUH

#include "tensor/cuda/cuda_device.cuh"
#include "tensor/cuda/cuda_hopper.cuh"
#include "tensor/cuda/cuda_tensor_map.cuh"

#define K_BYTES     128 /* as wide as the swizzle */
#define WARPGROUP   128
#define N_CONSUMERS 2
#define N_THREADS   ((N_CONSUMERS + 1) * WARPGROUP)
#define TILE_ROWS   128
#define STORE_ROWS  (TILE_ROWS / N_CONSUMERS)
#define STORE_COLS  64 /* of bf16: 128 bytes too */
#define STORE_BYTES (STORE_ROWS * 128)
#define TILE_ALIGN  1024

/* Named barriers; 0 is __syncthreads. */
enum { BAR_STORE = 1, BAR_LEAD = BAR_STORE + N_CONSUMERS };

/* Tiles are counted column by column within group_rows rows of them. */
typedef struct {
    int n_rows, n_cols; /* of tiles */
    int group_rows;
} rp_tile_order;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

typedef struct {
    int row, col; /* of its first element */
} rp_tile_place;

/* Neighbours share weights, and a group's rows stay in the L2 cache while weights go by. */
template <int COLS> __device__ inline rp_tile_place rp_tile_of(const rp_tile_order &order, int tile)
{
    const int per_group = order.group_rows * order.n_cols;
    const int group = tile / per_group;
    const int first = group * order.group_rows;
    const int rows = min(order.group_rows, order.n_rows - first);
    const int i = tile - group * per_group;

    return {(first + i % rows) * TILE_ROWS, i / rows * COLS};
}

/* The ring as one of its users goes round: phases of its barriers alternate. */
template <int STAGES> struct rp_tile_ring {
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

/* RELEASES: arrivals that make a stage empty; of each warp one (rp_release), or of each thread. */
template <int STAGES, int RELEASES = N_CONSUMERS * WARPGROUP / RP_WARP>
__device__ inline void rp_make_barriers(uint32_t full, uint32_t empty)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            rp_mbar_init(full + i * 8, 1);
            rp_mbar_init(empty + i * 8, RELEASES);
        }
        rp_mbar_init_done();
    }
}

/* This warp has read the piece. */
__device__ inline void rp_release(uint32_t empty, int lane)
{
    if (lane == 0) {
        rp_mbar_arrive(empty);
    }
}

/* The rows of a thread (this and the one 8 further), and where its columns begin: see
 * rp_wgmma_bf16. at: of the warpgroup's 64 rows. */
__device__ inline rp_tile_place rp_own_part(rp_tile_place at)
{
    const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;

    return {at.row + thread / RP_WARP * 16 + lane / 4, at.col + lane % 4 * 2};
}

__device__ inline uint32_t rp_bf16_pair(float x, float y)
{
    const __nv_bfloat162 two = __floats2bfloat162_rn(x, y);

    return *reinterpret_cast<const uint32_t *>(&two);
}

/* 64 rows of bf16 in shared memory, 64 columns after the others, as TMA takes them. */
struct rp_tile_writer {
    uint32_t own;
    int upper, swizzle; /* lanes 16 and up have columns 8 to 15 of 16; of this lane's row */

    __device__ explicit rp_tile_writer(uint32_t to)
    {
        const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;

        own = to + (thread / RP_WARP * 16 + lane % 16) * 128;
        upper = lane / 16;
        swizzle = lane % 8;
    }
    /* Columns 8 j to 8 j + 15, j even: upper row, lower row; the same of the last 8. */
    __device__ void put(int j, const uint32_t (&two)[4])
    {
        const int piece = (j % 8 + upper) ^ swizzle;

        rp_store_tiles(own + j / 8 * STORE_BYTES + piece * 16, two[0], two[1], two[2], two[3]);
    }
};

#endif

/* ---- launches ---- */

inline size_t rp_elem_bytes(rp_dtype dtype)
{
    return dtype == RP_F8_E4M3 ? 1 : 2;
}

/* A matrix [rows, cols] of bf16 or e4m3, rows `stride` elements apart, moved in boxes of box_rows x
 * 128 bytes. */
inline rp_tensor_map rp_tile_map(const void *data, rp_dtype dtype, int rows, int cols, int stride,
                                 int box_rows)
{
    const int box_cols = K_BYTES / (int)rp_elem_bytes(dtype);

    return {data, dtype, rows, cols, stride, box_rows, box_cols, CU_TENSOR_MAP_SWIZZLE_128B};
}

/* Blocks for so many tiles: one on each multiprocessor. */
inline unsigned rp_blocks_for(const rp_tile_order &order)
{
    const int n_tiles = order.n_rows * order.n_cols;
    int device = 0, n_sms = 0;

    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, device);
    return (unsigned)(n_tiles < n_sms ? n_tiles : n_sms);
}

#endif
