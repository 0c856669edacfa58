/*
 * cuda_norm.cuh - rows that a block holds in registers, for cuda_norm.cu, and the factors of their
 * columns.
 */
#ifndef RP_CUDA_NORM_CUH
#define RP_CUDA_NORM_CUH

#include "tensor/cuda/cuda_narrow.cuh"

/* Factor of column i: (w + shift) * (1 + scale), or (w + shift) * tanh(scale) for a gate. */
template <bool GATE>
__device__ inline float factor_at(const float *w, float shift, const float *scale, int i)
{
    const float factor = (w != nullptr ? w[i] : 1.0f) + shift;

    if (scale == nullptr) {
        return factor;
    }
    return factor * (GATE ? tanhf(scale[i]) : 1.0f + scale[i]);
}

/* A thread's part of a row as it comes from memory: every blockDim.x-th chunk, zeros past the end.
 */
template <int V, int CHUNKS, typename T> struct row_packs {
    rp_pack<T, V> pack[CHUNKS];

    __device__ void load(const T *row, int d)
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int at = (threadIdx.x + k * blockDim.x) * V;
            pack[k] = {};
            if (at < d) {
                pack[k] = rp_load_pack<V>(row + at);
            }
        }
    }
};

/* The same as floats. */
template <int V, int CHUNKS> struct row_part {
    float v[CHUNKS][V];

    template <bool GATE>
    __device__ void factors(int d, const float *w, float shift, const float *scale)
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int at = (threadIdx.x + k * blockDim.x) * V;
#pragma unroll
            for (int j = 0; j < V; j++) {
                v[k][j] = at < d ? factor_at<GATE>(w, shift, scale, at + j) : 0.0f;
            }
        }
    }

    template <typename T> __device__ void unpack(const row_packs<V, CHUNKS, T> &packs)
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            rp_unpack<V>(packs.pack[k], v[k]);
        }
    }

    template <typename T> __device__ void store(T *row, int d) const
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int at = (threadIdx.x + k * blockDim.x) * V;
            if (at < d) {
                rp_store<V>(row + at, v[k]);
            }
        }
    }

    __device__ float sum() const
    {
        float total = 0.0f;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                total += v[k][j];
            }
        }
        return total;
    }

    __device__ float sum_sq() const
    {
        float total = 0.0f;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                total += v[k][j] * v[k][j];
            }
        }
        return total;
    }

    /* As it lies in memory. */
    template <typename T> __device__ void round()
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                v[k][j] = rp_float(rp_round<T>(v[k][j]));
            }
        }
    }

    __device__ float most() const
    {
        float x = 0.0f;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                x = fmaxf(x, fabsf(v[k][j]));
            }
        }
        return x;
    }

    /* As row `row` of `to`, once it is rounded. */
    __device__ void narrow(rp_cuda_narrow to, size_t row, int d, float *buffer) const
    {
        float back;
        const float by = rp_narrow_factor(rp_block_max(most(), buffer), &back);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int at = (threadIdx.x + k * blockDim.x) * V;
            if (at < d) {
                rp_store_e4m3<V>(to.data + row * (size_t)d + at, v[k], by);
            }
        }
        if (threadIdx.x == 0) {
            to.scale[row] = back;
        }
    }

    /* v - mean; zeros beyond the end stay */
    __device__ void centre(float mean, int d)
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const float by = (threadIdx.x + k * blockDim.x) * V < d ? mean : 0.0f;
#pragma unroll
            for (int j = 0; j < V; j++) {
                v[k][j] -= by;
            }
        }
    }

    /* v * by * factor */
    __device__ void scale(float by, const row_part &factor)
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                v[k][j] = v[k][j] * by * factor.v[k][j];
            }
        }
    }

    /* + other, as it will lie in memory */
    template <typename T> __device__ void add(const row_part &other)
    {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                v[k][j] = rp_float(rp_round<T>(v[k][j] + other.v[k][j]));
            }
        }
    }
};

#endif
