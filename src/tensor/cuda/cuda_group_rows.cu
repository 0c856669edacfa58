/*
 * cuda_group_rows.cu - pictures that lie as rows [h w, c]: group norm, doubling, what surrounds a
 * convolution.
 *
 * A thread keeps to its chunk of channels and walks down the rows of its piece; so what belongs to
 * a channel is loaded once. Sums are taken against the first row's value, which takes a mean far
 * from zero out of them, and merged in a fixed order (Chan, Golub and LeVeque 1979), in double.
 */
#include "tensor/cuda/cuda_device.cuh"

#define ROWS_THREADS  256
#define MERGE_THREADS 1024
#define END_BLOCKS    8192

typedef struct {
    int c, groups, n_chunks;
    size_t hw, piece; /* rows, rows of a piece */
    int lanes;        /* rows that a block takes at once */
} rows_job;

/* Where a thread of these kernels stands. */
struct rows_place {
    int chunk, lane;
    size_t begin, end;
    bool works;

    __device__ rows_place(const rows_job &job)
    {
        const int inside = job.n_chunks < ROWS_THREADS ? job.n_chunks : ROWS_THREADS;
        chunk = blockIdx.y * ROWS_THREADS + threadIdx.x % inside;
        lane = threadIdx.x / inside;
        begin = min(job.hw, blockIdx.x * job.piece);
        end = min(job.hw, begin + job.piece);
        works = lane < job.lanes && chunk < job.n_chunks;
    }
};

/* partial[piece, c, 2]: sums of x - x[0] and of its square over the rows of the piece. */
template <int V, typename X>
__global__ void __launch_bounds__(ROWS_THREADS)
    rows_pieces(rows_job job, const X *x, float *partial)
{
    __shared__ float sums[2 * V][ROWS_THREADS];
    const rows_place at(job);
    float first[V] = {}, sum[V] = {}, sum_sq[V] = {};

    if (at.works) {
        rp_load<V>(x + (size_t)at.chunk * V, first);
#pragma unroll 4
        for (size_t row = at.begin + at.lane; row < at.end; row += job.lanes) {
            float v[V];
            rp_load<V>(x + row * job.c + (size_t)at.chunk * V, v);
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float d = v[j] - first[j];
                sum[j] += d;
                sum_sq[j] += d * d;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        sums[2 * j][threadIdx.x] = sum[j];
        sums[2 * j + 1][threadIdx.x] = sum_sq[j];
    }
    __syncthreads();
    if (!at.works || at.lane != 0) {
        return;
    }
    const int inside = job.n_chunks < ROWS_THREADS ? job.n_chunks : ROWS_THREADS;
    float *out = partial + ((size_t)blockIdx.x * job.c + (size_t)at.chunk * V) * 2;
#pragma unroll
    for (int j = 0; j < 2 * V; j++) {
        float total = 0.0f;
        for (int lane = 0; lane < job.lanes; lane++) {
            total += sums[j][threadIdx.x + lane * inside];
        }
        out[j] = total;
    }
}

struct rows_moments {
    double n, mean, m2;

    __device__ void merge(double other_n, double other_mean, double other_m2)
    {
        if (other_n > 0) {
            const double apart = other_mean - mean, share = other_n / (n + other_n);
            mean += apart * share;
            m2 += other_m2 + apart * apart * n * share;
            n += other_n;
        }
    }
};

/*
 * Block: one group. stats[group, 2]: mean, 1 / sqrt(var + eps)
 *
 * All pieces of a channel are sums against the same value, so they are plainly added; only channels
 * differ in it and are merged. Both go by halves, in an order that no timing changes.
 */
template <typename X>
__global__ void __launch_bounds__(MERGE_THREADS)
    rows_merge(rows_job job, const X *x, const float *partial, int n_pieces, float eps,
               float *stats)
{
    __shared__ double sums[2][MERGE_THREADS];
    __shared__ rows_moments list[MERGE_THREADS];
    const int width = job.c / job.groups, me = threadIdx.x;
    const int inside = min(width, MERGE_THREADS), lanes = MERGE_THREADS / inside;
    const int lane = me / inside;
    rows_moments mine = {0, 0, 0};

    for (int from = 0; from < width; from += inside) {
        const int i = from + me % inside, channel = blockIdx.x * width + i;
        double sum = 0, sum_sq = 0;
        if (lane < lanes && i < width) {
            const float2 *at = reinterpret_cast<const float2 *>(partial) + channel;
#pragma unroll 8
            for (int piece = lane; piece < n_pieces; piece += lanes) {
                const float2 pair = at[(size_t)piece * job.c];
                sum += pair.x;
                sum_sq += pair.y;
            }
        }
        sums[0][me] = sum;
        sums[1][me] = sum_sq;
        __syncthreads();
        for (int n = lanes; n > 1; n = (n + 1) / 2) {
            const int half = (n + 1) / 2;
            if (lane + half < n) {
                sums[0][me] += sums[0][me + half * inside];
                sums[1][me] += sums[1][me + half * inside];
            }
            __syncthreads();
        }
        if (lane == 0 && i < width) {
            const double mean = sums[0][me] / job.hw;
            mine.merge((double)job.hw, rp_float(x[channel]) + mean,
                       sums[1][me] - mean * sums[0][me]);
        }
        __syncthreads();
    }
    list[me] = mine;
    __syncthreads();
    for (int n = inside; n > 1; n = (n + 1) / 2) {
        const int half = (n + 1) / 2;
        if (me + half < n) {
            list[me].merge(list[me + half].n, list[me + half].mean, list[me + half].m2);
        }
        __syncthreads();
    }
    if (me == 0) {
        const double m2 = list[0].m2 < 0 ? 0 : list[0].m2; /* NaN stays */
        stats[2 * blockIdx.x] = (float)list[0].mean;
        stats[2 * blockIdx.x + 1] = (float)(1.0 / sqrt(m2 / list[0].n + (double)eps));
    }
}

/* `x` and `out` may be the same: a chunk is read before it is written, by one thread. */
template <int V, bool SILU, typename X, typename Y>
__global__ void __launch_bounds__(ROWS_THREADS)
    rows_apply(rows_job job, const X *x, const float *stats, const float *w, const float *b, Y *out)
{
    const rows_place at(job);
    const int width = job.c / job.groups;
    float mean[V], factor[V], add[V];

    if (!at.works) {
        return;
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        const int channel = at.chunk * V + j, group = channel / width;
        mean[j] = stats[2 * group];
        factor[j] = stats[2 * group + 1] * w[channel];
        add[j] = b[channel];
    }
#pragma unroll 2
    for (size_t row = at.begin + at.lane; row < at.end; row += job.lanes) {
        float v[V];
        rp_load<V>(x + row * job.c + (size_t)at.chunk * V, v);
#pragma unroll
        for (int j = 0; j < V; j++) {
            v[j] = (v[j] - mean[j]) * factor[j] + add[j];
            v[j] = SILU ? rp_silu(v[j]) : v[j];
        }
        rp_store<V>(out + row * job.c + (size_t)at.chunk * V, v);
    }
}

static rows_job job_of(int c, size_t hw, int groups, int v, unsigned *n_pieces)
{
    rows_job job = {c, groups, c / v, hw, 0, 1};

    job.lanes = job.n_chunks < ROWS_THREADS ? ROWS_THREADS / job.n_chunks : 1;
    const size_t most = rp_ceil_div(hw, (size_t)job.lanes * 4);
    *n_pieces = (unsigned)(most < RP_CUDA_ROW_PIECES ? most : RP_CUDA_ROW_PIECES);
    job.piece = rp_ceil_div(hw, *n_pieces);
    return job;
}

template <int V, typename X, typename Y>
static void run_rows(cudaStream_t stream, const X *x, int c, size_t hw, int groups, const float *w,
                     const float *b, float eps, bool silu, float *partial, Y *out)
{
    unsigned n_pieces = 0;
    const rows_job job = job_of(c, hw, groups, V, &n_pieces);
    const dim3 grid(n_pieces, (unsigned)rp_ceil_div((size_t)job.n_chunks, ROWS_THREADS));
    float *stats = partial + (size_t)RP_CUDA_ROW_PIECES * c * 2;

    rows_pieces<V><<<grid, ROWS_THREADS, 0, stream>>>(job, x, partial);
    rows_merge<<<groups, MERGE_THREADS, 0, stream>>>(job, x, partial, (int)n_pieces, eps, stats);
    if (silu) {
        rows_apply<V, true><<<grid, ROWS_THREADS, 0, stream>>>(job, x, stats, w, b, out);
    } else {
        rows_apply<V, false><<<grid, ROWS_THREADS, 0, stream>>>(job, x, stats, w, b, out);
    }
}

void rp_cuda_k_group_norm_rows(cudaStream_t stream, rp_cuda_view x, int c, int hw, int groups,
                               const float *w, const float *b, float eps, bool silu, float *partial,
                               rp_cuda_view out)
{
    const bool wide = c % 8 == 0 && rp_wide(x.data) && rp_wide(out.data);

    if (hw == 0) {
        return;
    }
    rp_with_act(x.dtype, [&](auto in_type) {
        rp_with_act(out.dtype, [&](auto out_type) {
            using X = decltype(in_type);
            using Y = decltype(out_type);
            rp_with_chunk<8>(wide, [&](auto chunk) {
                run_rows<decltype(chunk)::value>(stream, (const X *)x.data, c, (size_t)hw, groups,
                                                 w, b, eps, silu, partial, (Y *)out.data);
            });
        });
    });
}

/* ---- doubling */

template <int V, typename X, typename Y>
__global__ void double_rows(const X *x, int n_chunks, int w, size_t n, Y *out)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        const size_t row = i / n_chunks, chunk = i % n_chunks;
        const size_t y = row / (2 * w), column = row % (2 * w);
        float v[V];
        rp_load<V>(x + (((y / 2) * w + column / 2) * n_chunks + chunk) * V, v);
        rp_store<V>(out + i * V, v);
    }
}

void rp_cuda_k_upsample_rows(cudaStream_t stream, rp_cuda_view x, int c, int h, int w,
                             rp_cuda_view out)
{
    const bool wide = c % 8 == 0 && rp_wide(x.data) && rp_wide(out.data);

    rp_with_act(x.dtype, [&](auto in_type) {
        rp_with_act(out.dtype, [&](auto out_type) {
            using X = decltype(in_type);
            using Y = decltype(out_type);
            rp_with_chunk<8>(wide, [&](auto chunk) {
                constexpr int V = decltype(chunk)::value;
                const size_t n = (size_t)4 * h * w * (c / V);
                if (n > 0) {
                    double_rows<V><<<rp_grid(rp_ceil_div(n, 256)), 256, 0, stream>>>(
                        (const X *)x.data, c / V, w, n, (Y *)out.data);
                }
            });
        });
    });
}

/* ---- around a convolution */

/* [c_out, c_in, n] -> [padded, n, c], zeros where there is no such filter or channel. */
template <typename T>
__global__ void turn_filter(const T *in, size_t n_all, int c_out, int c_in, int n, int c, T *out)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n_all;
         i += (size_t)gridDim.x * blockDim.x) {
        const size_t channel = i % c, tap = i / c % n, filter = i / c / n;
        const bool there = filter < (size_t)c_out && channel < (size_t)c_in;
        out[i] = there ? in[(filter * c_in + channel) * n + tap] : rp_round<T>(0.0f);
    }
}

void rp_cuda_k_filter_rows(cudaStream_t stream, rp_cuda_view in, int c_out, int c_in, int kernel,
                           int padded_out, int padded_in, rp_cuda_view out)
{
    const int n = kernel * kernel;
    const size_t n_all = (size_t)padded_out * padded_in * n;

    if (n_all > 0) {
        rp_with_act(in.dtype, [&](auto type) {
            using T = decltype(type);
            turn_filter<<<rp_grid(rp_ceil_div(n_all, 256)), 256, 0, stream>>>(
                (const T *)in.data, n_all, c_out, c_in, n, padded_in, (T *)out.data);
        });
    }
}

/* [t, c] -> [t, padded], zeros behind. */
template <typename In, typename Out>
__global__ void pad_rows(const In *in, size_t n_all, int c, int padded, Out *out)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n_all;
         i += (size_t)gridDim.x * blockDim.x) {
        const size_t row = i / padded, channel = i % padded;
        out[i] = rp_round<Out>(channel < (size_t)c ? rp_float(in[row * c + channel]) : 0.0f);
    }
}

void rp_cuda_k_pad_rows(cudaStream_t stream, rp_cuda_view in, size_t t, int c, int padded,
                        rp_cuda_view out)
{
    const size_t n_all = t * (size_t)padded;

    if (n_all > 0) {
        rp_with_act(in.dtype, [&](auto from) {
            rp_with_act(out.dtype, [&](auto to) {
                pad_rows<<<rp_grid(rp_ceil_div(n_all, 256)), 256, 0, stream>>>(
                    (const decltype(from) *)in.data, n_all, c, padded, (decltype(to) *)out.data);
            });
        });
    }
}

/*
 * A block takes `lanes` rows at once, or a part of one; a thread keeps its chunk of the bias. `out`
 * may be y or add: a chunk is read before it is written, by one thread.
 */
template <int V, typename Y, typename Add, typename Out>
__global__ void __launch_bounds__(ROWS_THREADS)
    end_rows(const Y *y, size_t t, int n_chunks, size_t stride, int lanes, const float *bias,
             const Add *add, Out *out)
{
    const int inside = min(n_chunks, ROWS_THREADS), lane = threadIdx.x / inside;
    const int chunk = blockIdx.y * ROWS_THREADS + threadIdx.x % inside;
    const size_t n = (size_t)n_chunks * V, at = (size_t)chunk * V;
    float shift[V] = {};

    if (lane >= lanes || chunk >= n_chunks) {
        return;
    }
    if (bias != nullptr) {
        rp_load<V>(bias + at, shift);
    }
#pragma unroll 2
    for (size_t row = blockIdx.x * (size_t)lanes + lane; row < t;
         row += gridDim.x * (size_t)lanes) {
        float v[V], more[V] = {};
        rp_load<V>(y + row * stride + at, v);
        if (add != nullptr) {
            rp_load<V>(add + row * n + at, more);
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            v[j] = v[j] + shift[j] + more[j];
        }
        rp_store<V>(out + row * n + at, v);
    }
}

void rp_cuda_k_end_rows(cudaStream_t stream, rp_cuda_view y, size_t t, int n, int stride,
                        const float *bias, rp_cuda_view add, rp_cuda_view out)
{
    const bool wide = n % 8 == 0 && stride % 8 == 0 && rp_wide(y.data) && rp_wide(bias) &&
                      rp_wide(add.data) && rp_wide(out.data);

    if (t == 0 || n <= 0) {
        return;
    }
    rp_with_act(y.dtype, [&](auto y_type) {
        rp_with_act(add.dtype, [&](auto add_type) {
            rp_with_act(out.dtype, [&](auto out_type) {
                rp_with_chunk<8>(wide, [&](auto chunk) {
                    constexpr int V = decltype(chunk)::value;
                    const int chunks = n / V;
                    const int lanes = chunks < ROWS_THREADS ? ROWS_THREADS / chunks : 1;
                    const size_t rows = rp_ceil_div(t, (size_t)lanes * 4);
                    const dim3 grid((unsigned)(rows < END_BLOCKS ? rows : (size_t)END_BLOCKS),
                                    (unsigned)rp_ceil_div((size_t)chunks, ROWS_THREADS));
                    end_rows<V><<<grid, ROWS_THREADS, 0, stream>>>(
                        (const decltype(y_type) *)y.data, t, chunks, (size_t)stride, lanes, bias,
                        (const decltype(add_type) *)add.data, (decltype(out_type) *)out.data);
                });
            });
        });
    });
}
