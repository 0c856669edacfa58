/*
 * cuda_flash_rows.cuh - what cuda_flash.cuh does with sums in registers: the softmax as it goes,
 * and outputs on their way to memory. Who has what of them: see rp_wgmma_bf16.
 */
#ifndef RP_CUDA_FLASH_ROWS_CUH
#define RP_CUDA_FLASH_ROWS_CUH

#include "tensor/cuda/cuda_flash_room.cuh"
#include "tensor/cuda/cuda_narrow.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- powers: 2^(c x - top + SHIFT), where `top` may lag by LAG ---- */

/* As wide as f32. */
struct flash_powers_bf16 {
    static constexpr float LAG = 8.0f, SHIFT = 0.0f;
    static constexpr int N = 32; /* registers of 64 powers */

    __device__ static void round(const float (&s)[64], uint32_t (&p)[N])
    {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const __nv_bfloat162 two = __floats2bfloat162_rn(s[2 * i], s[2 * i + 1]);
            p[i] = *reinterpret_cast<const uint32_t *>(&two);
        }
    }
};

__device__ static uint32_t two_e4m3(float x, float y)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(x, y), __NV_SATFINITE, __NV_E4M3);
}

/* From 2^-9 to 448: the largest of a row is 2^SHIFT to 2^(SHIFT + LAG), and shares of it down to
 * 2^-12 keep some bits. The division at the end has the same SHIFT. */
struct flash_powers_e4m3 {
    static constexpr float LAG = 3.0f, SHIFT = 5.0f;
    static constexpr int N = 16;

    /* In the order of keys that a transposed v has (rp_cuda_k_flash_round): a register takes 2
     * columns of each of 2 neighbouring tiles of 8, of the upper or the lower row. */
    __device__ static void round(const float (&s)[64], uint32_t (&p)[N])
    {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int at = i / 2 * 8 + i % 2 * 2;
            p[i] = two_e4m3(s[at], s[at + 1]) | two_e4m3(s[at + 4], s[at + 5]) << 16;
        }
    }
};

/* ---- softmax; a thread has parts of two rows, and three others of its quad have the rest ---- */

struct flash_rows {
    float top[2]; /* of c x, less SHIFT */
    float sum[2]; /* of this thread's powers */

    __device__ flash_rows()
    {
        top[0] = top[1] = -INFINITY;
        sum[0] = sum[1] = 0.0f;
    }
};

__device__ static float power_of_two(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* Keys from n on are none. */
__device__ static void leave_out(float (&s)[64], int n)
{
    const int own = n - threadIdx.x % 4 * 2;

#pragma unroll
    for (int i = 0; i < 64; i++) {
        if (i / 4 * 8 + i % 2 >= own) {
            s[i] = -INFINITY;
        }
    }
}

/* Have rows outgrown their tops? Then tops and sums have been moved, and outputs are to be
 * multiplied by `by`. The same answer for a warp. */
template <typename Powers>
__device__ static bool follow(const float (&s)[64], float c, flash_rows &rows, float (&by)[2])
{
    float most[2][2] = {{s[0], s[1]}, {s[2], s[3]}};

#pragma unroll
    for (int i = 4; i < 64; i++) {
        most[i / 2 % 2][i % 2] = fmaxf(most[i / 2 % 2][i % 2], s[i]);
    }
    const float own[2] = {fmaxf(most[0][0], most[0][1]) * c, fmaxf(most[1][0], most[1][1]) * c};
    constexpr float most_above = Powers::LAG + Powers::SHIFT;
    if (!__any_sync(RP_ALL,
                    own[0] > rows.top[0] + most_above || own[1] > rows.top[1] + most_above)) {
        return false;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float top = fmaxf(rows.top[i], own[i] - Powers::SHIFT);
        top = fmaxf(top, __shfl_xor_sync(RP_ALL, top, 1));
        top = fmaxf(top, __shfl_xor_sync(RP_ALL, top, 2));
        by[i] = power_of_two(rows.top[i] - top); /* 0 the first time */
        rows.top[i] = top;
        rows.sum[i] *= by[i];
    }
    return true;
}

/* s -> powers, and, with SUMS, their sums */
template <bool SUMS> __device__ static void raise(float (&s)[64], float c, flash_rows &rows)
{
    float sum[2][2] = {};

#pragma unroll
    for (int i = 0; i < 64; i++) {
        s[i] = power_of_two(fmaf(s[i], c, -rows.top[i / 2 % 2]));
        sum[i / 2 % 2][i % 2] += s[i];
    }
    if constexpr (SUMS) {
        rows.sum[0] += sum[0][0] + sum[0][1];
        rows.sum[1] += sum[1][0] + sum[1][1];
    }
}

template <int N> __device__ static void multiply_rows(float (&o)[N], const float (&by)[2])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        o[i] *= by[i / 2 % 2];
    }
}

/* o = o by + part */
__device__ static void add_rows(float (&o)[48], const float (&by)[2], const float (&part)[48])
{
#pragma unroll
    for (int i = 0; i < 48; i++) {
        o[i] = fmaf(o[i], by[i / 2 % 2], part[i]);
    }
}

/* ---- out ---- */

/* Whole sums of both rows of a thread, in each of the quad. */
__device__ static void divide_rows(const flash_rows &rows, float times, float (&o)[48])
{
    const float by[2] = {times / rp_lanes_sum(rows.sum[0], 4),
                         times / rp_lanes_sum(rows.sum[1], 4)};

    multiply_rows(o, by);
}

/* 64 rows, three sub-tiles. */
struct flash_bf16 {
    static constexpr bool NARROW = false;

    __device__ static void put(uint32_t to, const float (&o)[48])
    {
        const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;
        const int swizzle = lane / 2 % 4; /* of the row that this lane gives the address of */
        const uint32_t own = to + (thread / RP_WARP * 16 + lane % 16) * (SUB_COLS * 2);

#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j += 2) { /* 16 columns, 8 of them by lanes 16 and up */
            const int piece = (j % 4 + lane / 16) ^ swizzle;
            uint32_t two[4]; /* upper row, lower row; the same of the next 8 columns */
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const __nv_bfloat162 pair =
                    __floats2bfloat162_rn(o[4 * j + 2 * i], o[4 * j + 2 * i + 1]);
                two[i] = *reinterpret_cast<const uint32_t *>(&pair);
            }
            rp_store_tiles(own + j / 4 * flash_bytes<2>::OWN_SUB + piece * 16, two[0], two[1],
                           two[2], two[3]);
        }
    }
    __device__ static void store(const CUtensorMap *out, const flash_tile &at, uint32_t from)
    {
#pragma unroll
        for (int i = 0; i < N_SUBS; i++) {
            rp_tma_store(out, at.head * HEAD_DIM + i * SUB_COLS, at.row,
                         from + i * flash_bytes<2>::OWN_SUB);
        }
    }
};

/* 64 rows of 96 bytes. */
struct flash_e4m3 {
    static constexpr bool NARROW = true;

    __device__ static void put(uint32_t to, const float (&o)[48])
    {
        const int thread = threadIdx.x % WARPGROUP, lane = thread % RP_WARP;
        const uint32_t own = to + (thread / RP_WARP * 16 + lane / 4) * HEAD_DIM + lane % 4 * 2;

#pragma unroll
        for (int i = 0; i < 24; i++) { /* pairs: 8 rows down with every odd one */
            const __nv_fp8x2_storage_t two = __nv_cvt_float2_to_fp8x2(
                make_float2(o[2 * i], o[2 * i + 1]), __NV_SATFINITE, __NV_E4M3);
            asm volatile("st.shared.u16 [%0], %1;\n" ::"r"(own + i / 2 * 8 + i % 2 * 8 * HEAD_DIM),
                         "h"(two)
                         : "memory");
        }
    }
    __device__ static void store(const CUtensorMap *out, const flash_tile &at, uint32_t from)
    {
        rp_tma_store(out, at.head * HEAD_DIM, at.row, from);
    }
};

#endif

#endif
