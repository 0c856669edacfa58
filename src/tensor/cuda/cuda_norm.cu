/*
 * cuda_norm.cu - RMS norm and layer norm of rows.
 *
 * Rows that fit stay in registers between the passes over them, and so do the factors of the
 * columns (weight, shift, scale, gate) from row to row: the grid is what the device runs at once.
 * Longer rows, and rows that wide loads cannot take, are read again from memory for every pass.
 */
#include "tensor/cuda/cuda_norm.cuh"

#define ROW_THREADS 512

typedef enum {
    OP_RMS,    /* out = rms_norm(in) */
    OP_LAYER,  /* out = layer_norm(in) */
    OP_ADD,    /* out += rms_norm(in), with a gate */
    OP_ADD_RMS /* the same, then next = rms_norm(out) */
} row_op;

/* Which of the last rows are written. */
typedef enum { FORM_OWN, FORM_BOTH, FORM_NARROW } row_form;

typedef struct {
    rp_cuda_view in, out, next;
    size_t t;
    int d;
    float shift, eps;
    const float *w, *scale;   /* scale: the gate of OP_ADD and OP_ADD_RMS */
    const float *w2, *scale2; /* of OP_ADD_RMS */
    rp_cuda_narrow also;      /* the last rows that are written once more, or {NULL} */
    bool only;                /* with `also`: nobody reads the last rows themselves */
} row_job;

/* The next row is asked for before this one is worked on. FORM: but for FORM_OWN with job.also. */
template <row_op OP, row_form FORM, int V, int CHUNKS, typename In, typename Out, typename Next>
__global__ void __launch_bounds__(ROW_THREADS) rows_held(const row_job job)
{
    constexpr bool add = OP == OP_ADD || OP == OP_ADD_RMS;
    constexpr bool narrow = FORM != FORM_OWN, own = FORM != FORM_NARROW;
    __shared__ float buffer[2][RP_WARP];
    const int d = job.d;
    const In *const in = (const In *)job.in.data;
    row_packs<V, CHUNKS, In> v_packs;
    row_packs<V, CHUNKS, Out> x_packs;
    row_part<V, CHUNKS> factor, factor2, v, x;
    int turn = 0;

    v_packs.load(in + blockIdx.x * (size_t)d, d);
    if constexpr (add) {
        x_packs.load((const Out *)job.out.data + blockIdx.x * (size_t)d, d);
    }
    factor.template factors<add>(d, job.w, job.shift, job.scale);
    if constexpr (OP == OP_ADD_RMS) {
        factor2.template factors<false>(d, job.w2, job.shift, job.scale2);
    }
    for (size_t row = blockIdx.x; row < job.t; row += gridDim.x) {
        Out *out = (Out *)job.out.data + row * (size_t)d;
        v.unpack(v_packs);
        if constexpr (add) {
            x.unpack(x_packs);
        }
        if (row + gridDim.x < job.t) {
            v_packs.load(in + (row + gridDim.x) * (size_t)d, d);
            if constexpr (add) {
                x_packs.load(out + gridDim.x * (size_t)d, d);
            }
        }
        if constexpr (OP == OP_LAYER) {
            v.centre(rp_block_sum(v.sum(), buffer[turn]) / (float)d, d);
            turn ^= 1;
        }
        v.scale(rp_inverse_root(rp_block_sum(v.sum_sq(), buffer[turn]), d, job.eps), factor);
        turn ^= 1;
        if constexpr (add) {
            x.template add<Out>(v);
            x.store(out, d);
        } else if constexpr (own) {
            v.store(out, d);
        }
        if constexpr (OP == OP_RMS && narrow) {
            v.template round<Out>();
            v.narrow(job.also, row, d, buffer[turn]);
            turn ^= 1;
        }
        if constexpr (OP == OP_ADD_RMS) {
            x.scale(rp_inverse_root(rp_block_sum(x.sum_sq(), buffer[turn]), d, job.eps), factor2);
            turn ^= 1;
            if constexpr (own) {
                x.store((Next *)job.next.data + row * (size_t)d, d);
            }
        }
        if constexpr (OP == OP_ADD_RMS && narrow) {
            x.template round<Next>();
            x.narrow(job.also, row, d, buffer[turn]);
            turn ^= 1;
        }
    }
}

/* Any d, any address; OP_RMS, OP_LAYER and OP_ADD. */
template <row_op OP, typename In, typename Out>
__global__ void __launch_bounds__(ROW_THREADS) rows_reread(const row_job job)
{
    __shared__ float buffer[2][RP_WARP];
    const int d = job.d;
    int turn = 0;

    for (size_t row = blockIdx.x; row < job.t; row += gridDim.x) {
        const In *in = (const In *)job.in.data + row * (size_t)d;
        Out *out = (Out *)job.out.data + row * (size_t)d;
        float mean = 0.0f, sum = 0.0f, sum_sq = 0.0f;
        if constexpr (OP == OP_LAYER) {
            for (int i = threadIdx.x; i < d; i += blockDim.x) {
                sum += rp_float(in[i]);
            }
            mean = rp_block_sum(sum, buffer[turn]) / (float)d;
            turn ^= 1;
        }
        for (int i = threadIdx.x; i < d; i += blockDim.x) {
            const float v = rp_float(in[i]) - mean;
            sum_sq += v * v;
        }
        const float inverse = rp_inverse_root(rp_block_sum(sum_sq, buffer[turn]), d, job.eps);
        turn ^= 1;
        for (int i = threadIdx.x; i < d; i += blockDim.x) {
            const float factor = factor_at<OP == OP_ADD>(job.w, job.shift, job.scale, i);
            const float v = (rp_float(in[i]) - mean) * inverse * factor;
            out[i] = rp_round<Out>(OP == OP_ADD ? rp_float(out[i]) + v : v);
        }
    }
}

/* `each` elements of a row a thread */
template <typename Kernel>
static void launch_rows(cudaStream_t stream, Kernel kernel, const row_job *job, int each)
{
    const int threads = rp_threads(rp_ceil_div((size_t)job->d, (size_t)each), ROW_THREADS);

    kernel<<<rp_resident_grid(kernel, threads, job->t), threads, 0, stream>>>(*job);
}

template <row_op OP> static void reread_rows(cudaStream_t stream, const row_job *job)
{
    rp_with_act(job->in.dtype, [&](auto in) {
        rp_with_act(job->out.dtype, [&](auto out) {
            launch_rows(stream, rows_reread<OP, decltype(in), decltype(out)>, job, 1);
        });
    });
}

template <row_op OP, row_form FORM, typename In, typename Out, typename Next>
static void launch_held(cudaStream_t stream, const row_job *job)
{
    constexpr int V = rp_chunk<In, Out, Next>;

    if (job->d <= ROW_THREADS * 8) {
        launch_rows(stream, rows_held<OP, FORM, V, 8 / V, In, Out, Next>, job, 8);
    } else {
        launch_rows(stream, rows_held<OP, FORM, V, 16 / V, In, Out, Next>, job, 16);
    }
}

/* False where the rows cannot be held. */
template <row_op OP, typename In, typename Out, typename Next>
static bool hold_rows(cudaStream_t stream, const row_job *job)
{
    constexpr int V = rp_chunk<In, Out, Next>;
    constexpr bool may_narrow =
        (OP == OP_RMS || OP == OP_ADD_RMS) && std::is_same_v<Next, __nv_bfloat16>;

    if (job->d % V != 0 || job->d > ROW_THREADS * 16 || !rp_wide(job->in.data) ||
        !rp_wide(job->out.data) || !rp_wide(job->next.data)) {
        return false;
    }
    if constexpr (may_narrow) {
        if (job->also.data != nullptr && job->only) {
            launch_held<OP, FORM_NARROW, In, Out, Next>(stream, job);
            return true;
        }
        if (job->also.data != nullptr) {
            launch_held<OP, FORM_BOTH, In, Out, Next>(stream, job);
            return true;
        }
    }
    launch_held<OP, FORM_OWN, In, Out, Next>(stream, job);
    return true;
}

/* Rows that were not held are read again. */
static void narrow_after(cudaStream_t stream, const row_job *job, rp_cuda_view rows)
{
    if (job->also.data != nullptr) {
        rp_cuda_k_quantize_rows(stream, rows, (int)job->t, job->d, job->d, job->also);
    }
}

template <row_op OP> static void norm_rows(cudaStream_t stream, const row_job *job)
{
    if (job->t == 0 || job->d <= 0) {
        return;
    }
    rp_with_act(job->in.dtype, [&](auto in) {
        rp_with_act(job->out.dtype, [&](auto out) {
            using In = decltype(in);
            using Out = decltype(out);
            if (!hold_rows<OP, In, Out, Out>(stream, job)) {
                reread_rows<OP>(stream, job);
                narrow_after(stream, job, job->out);
            }
        });
    });
}

static void add_rms_rows(cudaStream_t stream, const row_job *job)
{
    bool held = false;

    if (job->t == 0 || job->d <= 0) {
        return;
    }
    rp_with_act(job->in.dtype, [&](auto in) {
        rp_with_act(job->out.dtype, [&](auto out) {
            rp_with_act(job->next.dtype, [&](auto next) {
                held =
                    hold_rows<OP_ADD_RMS, decltype(in), decltype(out), decltype(next)>(stream, job);
            });
        });
    });
    if (!held) {
        row_job second = *job;
        second.in = job->out;
        second.out = job->next;
        second.w = job->w2;
        second.scale = job->scale2;
        reread_rows<OP_ADD>(stream, job);
        reread_rows<OP_RMS>(stream, &second);
        narrow_after(stream, job, job->next);
    }
}

/* A negative t counts as none. */
static row_job job_of(rp_cuda_view in, rp_cuda_view out, int t, int d, const float *w, float shift,
                      float eps, const float *scale)
{
    row_job job = {};

    job.in = in;
    job.out = out;
    job.t = t > 0 ? (size_t)t : 0;
    job.d = d;
    job.shift = shift;
    job.eps = eps;
    job.w = w;
    job.scale = scale;
    return job;
}

void rp_cuda_k_rms_norm(cudaStream_t stream, rp_cuda_view x, int t, int d, const float *w,
                        float shift, float eps, const float *scale, rp_cuda_view out,
                        rp_cuda_narrow also, bool only)
{
    row_job job = job_of(x, out, t, d, w, shift, eps, scale);

    job.also = also;
    job.only = only;
    norm_rows<OP_RMS>(stream, &job);
}

void rp_cuda_k_layer_norm(cudaStream_t stream, rp_cuda_view x, int t, int d, float eps,
                          const float *scale, rp_cuda_view out)
{
    const row_job job = job_of(x, out, t, d, nullptr, 0.0f, eps, scale);

    norm_rows<OP_LAYER>(stream, &job);
}

void rp_cuda_k_add_rms_norm(cudaStream_t stream, rp_cuda_view x, rp_cuda_view y, int t, int d,
                            const float *w, float shift, float eps, const float *gate)
{
    const row_job job = job_of(y, x, t, d, w, shift, eps, gate);

    norm_rows<OP_ADD>(stream, &job);
}

void rp_cuda_k_add_rms_norm_rms_norm(cudaStream_t stream, rp_cuda_view x, rp_cuda_view y, int t,
                                     int d, const float *w, float shift, float eps,
                                     const float *gate, const float *w2, const float *scale2,
                                     rp_cuda_view out, rp_cuda_narrow also, bool only)
{
    row_job job = job_of(y, x, t, d, w, shift, eps, gate);

    job.next = out;
    job.w2 = w2;
    job.scale2 = scale2;
    job.also = also;
    job.only = only;
    add_rms_rows(stream, &job);
}
