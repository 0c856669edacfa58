/*
 * cuda_flash_round.cu - q, k and v to e4m3 with one scale each, for the attention of
 * cuda_flash.cuh: q and k as rows, v transposed.
 *
 * Two readings: the first one's blocks leave the largest magnitudes that they met
 * (cuda_largest.cu), each block of the second takes the largest of those for its own part, and
 * rounds. Of the second, the first blocks transpose 128 keys of a head each, the others round a
 * stretch of q or of k. All loads of a thread are on their way before it needs the first.
 */
#include "tensor/cuda/cuda_narrow.cuh"

#define HEAD_DIM 96
#define KEYS     128 /* of a tile of v */

#define ROUND_THREADS 128
#define ROUND_CHUNK   16 /* elements: two loads, one store */
#define ROUND_LOADS   4
#define STRETCH       (ROUND_THREADS * ROUND_LOADS) /* chunks */

#define COL_CHUNKS (HEAD_DIM / 8)                       /* of a row of v: one load each */
#define FOURS      (KEYS / 4)                           /* keys whose places follow each other */
#define TILE_ITEMS (COL_CHUNKS * FOURS / ROUND_THREADS) /* of a thread */

/* Two scales and 1 / sqrt(head_dim) are multiplied into one: zeros must not make that one zero. */
#define LEAST_MOST 1e-12f

typedef __nv_bfloat16 bf16;

typedef struct {
    const bf16 *from;
    uint8_t *to;
    unsigned rows, cols, stride;
} part;

typedef struct {
    part part[3]; /* q, k, v */
    const float *most;
    float *scale;
    unsigned n_tiles, n_heads, n_keys; /* of v: tiles, heads, keys with the zeros behind */
    unsigned n_q;                      /* blocks that round q */
} round_job;

/* Eight elements as they lie in memory, one load; zeros where there are none. */
__device__ static uint4 load_eight(const bf16 *from, bool there)
{
    return there ? __ldg(reinterpret_cast<const uint4 *>(from)) : make_uint4(0, 0, 0, 0);
}

/* Where chunk i of a part is. */
template <int CHUNK>
__device__ static const bf16 *chunk_at(const part &p, unsigned i, unsigned per_row)
{
    const unsigned row = i / per_row, col = i - row * per_row;

    return p.from + (size_t)row * p.stride + col * CHUNK;
}

/* Element j of eight. */
__device__ static float element(const uint4 &eight, int j)
{
    const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w}, word = words[j / 2];

    return __uint_as_float(j % 2 == 0 ? word << 16 : word & 0xffff0000u);
}

__device__ static uint32_t two_e4m3(float x, float y, float by)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(x * by, y * by), __NV_SATFINITE, __NV_E4M3);
}

/* What this part is multiplied by, in every thread; `first`: this block writes what takes it
 * back. */
__device__ static float factor_of(const round_job &job, int p, bool first)
{
    __shared__ float buffer[RP_WARP];
    float m = LEAST_MOST, back;

    for (unsigned i = threadIdx.x; i < RP_CUDA_FLASH_ROUNDS; i += ROUND_THREADS) {
        m = fmaxf(m, job.most[p * RP_CUDA_FLASH_ROUNDS + i]);
    }
    const float by = rp_narrow_factor(rp_block_max(m, buffer), &back);
    if (first && threadIdx.x == 0) {
        job.scale[p] = back;
    }
    return by;
}

/* ---- q, k ---- */

__device__ static uint2 eight_e4m3(const uint4 &x, float by)
{
    uint32_t two[4];

#pragma unroll
    for (int j = 0; j < 4; j++) {
        two[j] = two_e4m3(element(x, 2 * j), element(x, 2 * j + 1), by);
    }
    return make_uint2(two[0] | two[1] << 16, two[2] | two[3] << 16);
}

__device__ static void round_stretch(const round_job &job, int p, unsigned block)
{
    const part &own = job.part[p];
    const unsigned per_row = own.cols / ROUND_CHUNK, n = own.rows * per_row;
    const unsigned begin = block * STRETCH + threadIdx.x;
    uint4 half[ROUND_LOADS][2];

#pragma unroll
    for (int j = 0; j < ROUND_LOADS; j++) {
        const unsigned i = begin + j * ROUND_THREADS;
        const bf16 *const from = chunk_at<ROUND_CHUNK>(own, i, per_row);
        half[j][0] = load_eight(from, i < n);
        half[j][1] = load_eight(from + ROUND_CHUNK / 2, i < n);
    }
    const float by = factor_of(job, p, block == 0);
#pragma unroll
    for (int j = 0; j < ROUND_LOADS; j++) {
        const unsigned i = begin + j * ROUND_THREADS;
        const uint2 low = eight_e4m3(half[j][0], by), high = eight_e4m3(half[j][1], by);
        if (i < n) {
            *reinterpret_cast<uint4 *>(own.to + (size_t)i * ROUND_CHUNK) =
                make_uint4(low.x, low.y, high.x, high.y);
        }
    }
}

/* ---- v ---- */

/* Where four keys of a column lie in a tile [96, 32] of such: mixed, so that neither writing nor
 * reading meets the same bank often. */
__device__ static int mixed(int col, int four)
{
    return col * FOURS + (four ^ col / 8 % 8 * 4);
}

/* Keys of a tile whose places are 4 four and the next three. */
__device__ static void keys_of(int four, int (&key)[4])
{
    const int first = four / 4 * 16 + four % 4 * 2;

    key[0] = first;
    key[1] = first + 1;
    key[2] = first + 8;
    key[3] = first + 9;
}

/* Columns 8 chunk and on, four keys, from `from`. */
struct v_item {
    uint4 row[4];

    __device__ void load(const part &v, int head, int first_key, int chunk, int four)
    {
        int key[4];

        keys_of(four, key);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned at = (unsigned)(first_key + key[i]);
            row[i] = load_eight(v.from + (size_t)at * v.stride + head * HEAD_DIM + chunk * 8,
                                at < v.rows);
        }
    }
    __device__ void put(uint32_t *tile, int chunk, int four, float by) const
    {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            tile[mixed(chunk * 8 + j, four)] =
                two_e4m3(element(row[0], j), element(row[1], j), by) |
                two_e4m3(element(row[2], j), element(row[3], j), by) << 16;
        }
    }
};

/* 128 keys of a head. */
__device__ static void transpose_tile(const round_job &job, int head, int first_key)
{
    __shared__ alignas(16) uint32_t tile[HEAD_DIM * FOURS];
    v_item items[TILE_ITEMS];

#pragma unroll
    for (int i = 0; i < TILE_ITEMS; i++) {
        const int at = i * ROUND_THREADS + (int)threadIdx.x;
        items[i].load(job.part[2], head, first_key, at % COL_CHUNKS, at / COL_CHUNKS);
    }
    const float by = factor_of(job, 2, blockIdx.x == 0);
#pragma unroll
    for (int i = 0; i < TILE_ITEMS; i++) {
        const int at = i * ROUND_THREADS + (int)threadIdx.x;
        items[i].put(tile, at % COL_CHUNKS, at / COL_CHUNKS, by);
    }
    __syncthreads();
    uint8_t *const to = job.part[2].to + (size_t)head * HEAD_DIM * job.n_keys + first_key;
    for (int at = threadIdx.x; at < HEAD_DIM * FOURS / 4; at += ROUND_THREADS) {
        const int col = at / (FOURS / 4), four = at % (FOURS / 4) * 4;
        *reinterpret_cast<uint4 *>(to + (size_t)col * job.n_keys + four * 4) =
            *reinterpret_cast<const uint4 *>(&tile[mixed(col, four)]);
    }
}

__global__ void __launch_bounds__(ROUND_THREADS) round_parts(const round_job job)
{
    const unsigned block = blockIdx.x;

    if (block < job.n_tiles) {
        transpose_tile(job, (int)(block % job.n_heads), (int)(block / job.n_heads) * KEYS);
    } else if (block < job.n_tiles + job.n_q) {
        round_stretch(job, 0, block - job.n_tiles);
    } else {
        round_stretch(job, 1, block - job.n_tiles - job.n_q);
    }
}

/* ---- host ---- */

static size_t round_up(size_t n)
{
    return rp_ceil_div(n, 256) * 256;
}

static size_t bytes_of_q(const rp_cuda_flash *f)
{
    return round_up((size_t)f->n_q * (size_t)f->n_heads * HEAD_DIM);
}

static size_t bytes_of_k(const rp_cuda_flash *f)
{
    return round_up((size_t)f->n_kv * (size_t)f->n_kv_heads * HEAD_DIM);
}

static size_t bytes_of_v(const rp_cuda_flash *f)
{
    return round_up((size_t)rp_cuda_flash_keys(f->n_kv) * (size_t)f->n_kv_heads * HEAD_DIM);
}

size_t rp_cuda_flash_in_bytes(const rp_cuda_flash *f)
{
    return bytes_of_q(f) + bytes_of_k(f) + bytes_of_v(f) +
           (3 + 3 * RP_CUDA_FLASH_ROUNDS) * sizeof(float);
}

rp_cuda_flash_in rp_cuda_flash_in_at(const rp_cuda_flash *f, void *mem)
{
    rp_cuda_flash_in in = {};

    in.q = (uint8_t *)mem;
    in.k = in.q + bytes_of_q(f);
    in.v = in.k + bytes_of_k(f);
    in.scale = (float *)(in.v + bytes_of_v(f));
    in.most = in.scale + 3;
    return in;
}

static part part_of(const rp_cuda_part &p)
{
    return {(const bf16 *)p.from, p.to, (unsigned)p.rows, (unsigned)p.cols, (unsigned)p.stride};
}

static unsigned stretches(const part &p)
{
    return (unsigned)rp_ceil_div((size_t)p.rows * p.cols / ROUND_CHUNK, STRETCH);
}

void rp_cuda_k_flash_round(cudaStream_t stream, const rp_cuda_flash *f)
{
    const int q_dim = f->n_heads * HEAD_DIM, kv_dim = f->n_kv_heads * HEAD_DIM;
    const rp_cuda_part list[3] = {{f->q, f->in.q, f->n_q, q_dim, f->q_stride},
                                  {f->k, f->in.k, f->n_kv, kv_dim, f->k_stride},
                                  {f->v, f->in.v, f->n_kv, kv_dim, f->v_stride}};
    round_job job = {};

    for (int p = 0; p < 3; p++) {
        job.part[p] = part_of(list[p]);
    }
    job.most = f->in.most;
    job.scale = f->in.scale;
    job.n_heads = (unsigned)f->n_kv_heads;
    job.n_keys = (unsigned)rp_cuda_flash_keys(f->n_kv);
    job.n_tiles = job.n_keys / KEYS * job.n_heads;
    job.n_q = stretches(job.part[0]);
    rp_cuda_k_largest(stream, list, 3, RP_CUDA_FLASH_ROUNDS, f->in.most);
    const unsigned grid = job.n_tiles + job.n_q + stretches(job.part[1]);
    round_parts<<<grid, ROUND_THREADS, 0, stream>>>(job);
}
