/*
 * cuda_image.cu - ops on pictures [c, h, w]: cutting into tokens, transposing, doubling, the
 * end of a convolution, bytes.
 *
 * Neighbouring threads write neighbouring elements; a transposition turns tiles in shared memory so
 * that it reads in order too.
 */
#include "tensor/cuda/cuda_device.cuh"

#define THREADS   256
#define TILE      64 /* of a transposition, square */
#define TILE_ROWS 8  /* that a block moves at a time */

/* ---- tokens ---- */

typedef struct {
    size_t c, h, w, p;
} picture;

/* One thread an element of out [(h/p)(w/p), p p c]. */
template <typename In, typename Out>
__global__ void __launch_bounds__(THREADS) cut_tokens(const In *x, picture s, size_t n, Out *out)
{
    for (size_t o = (size_t)blockIdx.x * THREADS + threadIdx.x; o < n;
         o += (size_t)gridDim.x * THREADS) {
        const size_t channel = o % s.c;
        const size_t pixel = o / s.c % (s.p * s.p);
        const size_t token = o / (s.c * s.p * s.p);
        const size_t i = token / (s.w / s.p) * s.p + pixel / s.p;
        const size_t j = token % (s.w / s.p) * s.p + pixel % s.p;
        out[o] = rp_round<Out>(rp_float(x[(channel * s.h + i) * s.w + j]));
    }
}

/* One thread an element of out [c, h, w]. */
template <typename In, typename Out>
__global__ void __launch_bounds__(THREADS)
    join_tokens(const In *tokens, picture s, size_t n, float sign, Out *out)
{
    for (size_t o = (size_t)blockIdx.x * THREADS + threadIdx.x; o < n;
         o += (size_t)gridDim.x * THREADS) {
        const size_t j = o % s.w;
        const size_t i = o / s.w % s.h;
        const size_t channel = o / (s.w * s.h);
        const size_t token = i / s.p * (s.w / s.p) + j / s.p;
        const size_t pixel = i % s.p * s.p + j % s.p;
        out[o] =
            rp_round<Out>(sign * rp_float(tokens[(token * s.p * s.p + pixel) * s.c + channel]));
    }
}

void rp_cuda_k_patchify(cudaStream_t stream, rp_cuda_view x, int c, int h, int w, int p,
                        rp_cuda_view out)
{
    const picture shape = {(size_t)c, (size_t)h, (size_t)w, (size_t)p};
    const size_t n = shape.c * shape.h * shape.w;

    if (n == 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            cut_tokens<<<rp_grid(rp_ceil_div(n, THREADS)), THREADS, 0, stream>>>(
                (const decltype(from) *)x.data, shape, n, (decltype(to) *)out.data);
        });
    });
}

void rp_cuda_k_unpatchify(cudaStream_t stream, rp_cuda_view tokens, int c, int h, int w, int p,
                          float sign, rp_cuda_view out)
{
    const picture shape = {(size_t)c, (size_t)h, (size_t)w, (size_t)p};
    const size_t n = shape.c * shape.h * shape.w;

    if (n == 0) {
        return;
    }
    rp_with_act(tokens.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            join_tokens<<<rp_grid(rp_ceil_div(n, THREADS)), THREADS, 0, stream>>>(
                (const decltype(from) *)tokens.data, shape, n, sign, (decltype(to) *)out.data);
        });
    });
}

/* ---- transposition ---- */

/*
 * A block of RP_WARP x TILE_ROWS threads turns a tile, W elements a thread at a time. A warp reads
 * a row of the tile and writes a column; one more float a row puts the floats of a column in
 * different banks.
 */
template <int W, typename In, typename Out>
__global__ void __launch_bounds__(RP_WARP *TILE_ROWS)
    transpose_tiles(const In *__restrict__ x, size_t rows, size_t cols, size_t tiles_across,
                    size_t n_tiles, Out *__restrict__ out)
{
    __shared__ float tile[TILE][TILE + 1];
    float v[W];

    for (size_t t = blockIdx.x; t < n_tiles; t += gridDim.x) {
        const size_t r0 = t / tiles_across * TILE;
        const size_t c0 = t % tiles_across * TILE;
#pragma unroll
        for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
#pragma unroll
            for (int j = threadIdx.x * W; j < TILE; j += RP_WARP * W) {
                if (r0 + i < rows && c0 + j < cols) {
                    rp_load<W>(x + (r0 + i) * cols + c0 + j, v);
#pragma unroll
                    for (int k = 0; k < W; k++) {
                        tile[i][j + k] = v[k];
                    }
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
#pragma unroll
            for (int j = threadIdx.x * W; j < TILE; j += RP_WARP * W) {
                if (c0 + i < cols && r0 + j < rows) {
#pragma unroll
                    for (int k = 0; k < W; k++) {
                        v[k] = tile[j + k][i];
                    }
                    rp_store<W>(out + (c0 + i) * rows + r0 + j, v);
                }
            }
        }
        __syncthreads();
    }
}

void rp_cuda_k_transpose(cudaStream_t stream, rp_cuda_view x, int rows, int cols, rp_cuda_view out)
{
    if (rows <= 0 || cols <= 0) {
        return;
    }
    const size_t across = rp_ceil_div((size_t)cols, TILE);
    const size_t n_tiles = across * rp_ceil_div((size_t)rows, TILE);
    const dim3 threads(RP_WARP, TILE_ROWS);
    const bool fits = rows % 2 == 0 && cols % 2 == 0 && rp_wide(x.data) && rp_wide(out.data);

    rp_with_act(x.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            rp_with_chunk<2>(fits, [&](auto chunk) {
                transpose_tiles<decltype(chunk)::value><<<rp_grid(n_tiles), threads, 0, stream>>>(
                    (const decltype(from) *)x.data, (size_t)rows, (size_t)cols, across, n_tiles,
                    (decltype(to) *)out.data);
            });
        });
    });
}

/* ---- doubling ---- */

/*
 * Rows 2i and 2i + 1 of out [2 rows, 2w] are row i of x [rows, w] with every element twice. A
 * thread writes V elements of either from V / 2 (V 1: both of a pair read the same). A block takes
 * blockDim.y rows of x.
 */
template <int V, typename In, typename Out>
__global__ void __launch_bounds__(THREADS)
    double_rows(const In *__restrict__ x, size_t rows, int w, Out *__restrict__ out)
{
    for (size_t row = (size_t)blockIdx.x * blockDim.y + threadIdx.y; row < rows;
         row += (size_t)gridDim.x * blockDim.y) {
        const In *from = x + row * (size_t)w;
        Out *to = out + row * 4 * (size_t)w;
        for (int i = threadIdx.x * V; i < 2 * w; i += blockDim.x * V) {
            constexpr int half = V > 1 ? V / 2 : 1;
            float one[half], two[V];
            rp_load<half>(from + i / 2, one);
#pragma unroll
            for (int j = 0; j < V; j++) {
                two[j] = one[j / 2];
            }
            rp_store<V>(to + i, two);
            rp_store<V>(to + 2 * (size_t)w + i, two);
        }
    }
}

void rp_cuda_k_upsample(cudaStream_t stream, rp_cuda_view x, int c, int h, int w, rp_cuda_view out)
{
    const size_t rows = (size_t)c * (size_t)h;

    if (rows == 0 || w <= 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto from) {
        rp_with_act(out.dtype, [&](auto to) {
            using In = decltype(from);
            using Out = decltype(to);
            constexpr int wide = rp_chunk<In, Out>;
            const bool fits = 2 * (size_t)w % wide == 0 && rp_wide(x.data) && rp_wide(out.data);
            rp_with_chunk<wide>(fits, [&](auto chunk) {
                constexpr int V = decltype(chunk)::value;
                const int threads = rp_threads(rp_ceil_div(2 * (size_t)w, V), THREADS);
                const dim3 block((unsigned)threads, (unsigned)(THREADS / threads));
                double_rows<V><<<rp_grid(rp_ceil_div(rows, block.y)), block, 0, stream>>>(
                    (const In *)x.data, rows, w, (Out *)out.data);
            });
        });
    });
}

/* ---- the end of a convolution ---- */

/* A block an equal part of a channel: parts blocks each. */
template <int V>
__global__ void __launch_bounds__(THREADS)
    end_planes(const float *y, size_t c, size_t hw, size_t parts, const float *bias,
               const float *add, float *out)
{
    for (size_t block = blockIdx.x; block < c * parts; block += gridDim.x) {
        const size_t channel = block / parts;
        const size_t i = (block % parts * THREADS + threadIdx.x) * V;
        const size_t at = channel * hw + i;
        const float shift = bias != nullptr ? bias[channel] : 0.0f;
        float v[V], more[V] = {};
        if (i >= hw) {
            continue;
        }
        rp_load<V>(y + at, v);
        if (add != nullptr) {
            rp_load<V>(add + at, more);
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            v[j] = v[j] + shift + more[j];
        }
        rp_store<V>(out + at, v);
    }
}

void rp_cuda_k_end_planes(cudaStream_t stream, const float *y, int c, size_t hw, const float *bias,
                          const float *add, float *out)
{
    if (c <= 0 || hw == 0) {
        return;
    }
    rp_with_chunk<4>(hw % 4 == 0 && rp_wide(y) && rp_wide(add) && rp_wide(out), [&](auto chunk) {
        constexpr int V = decltype(chunk)::value;
        const size_t parts = rp_ceil_div(hw, (size_t)THREADS * V);
        end_planes<V><<<rp_grid((size_t)c * parts), THREADS, 0, stream>>>(y, (size_t)c, hw, parts,
                                                                          bias, add, out);
    });
}

/* ---- bytes ---- */

/* The operations of the CPU's to_byte(), none of them fused. */
__device__ inline uint8_t to_byte(float x)
{
    const float unit = __fadd_rn(0.5f * x, 0.5f);
    const float clamped = unit > 0.0f ? (unit < 1.0f ? unit : 1.0f) : 0.0f;

    return (uint8_t)__float2int_rn(clamped * 255.0f);
}

/* One thread a byte. */
template <typename X>
__global__ void __launch_bounds__(THREADS)
    picture_bytes(const X *x, size_t hw, bool rows, uint8_t *bytes)
{
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < 3 * hw;
         i += (size_t)gridDim.x * THREADS) {
        bytes[i] = to_byte(rp_float(x[rows ? i : i % 3 * hw + i / 3]));
    }
}

void rp_cuda_k_to_bytes(cudaStream_t stream, rp_cuda_view x, size_t hw, bool rows, uint8_t *bytes)
{
    if (hw == 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto type) {
        picture_bytes<<<rp_grid(rp_ceil_div(3 * hw, THREADS)), THREADS, 0, stream>>>(
            (const decltype(type) *)x.data, hw, rows, bytes);
    });
}
