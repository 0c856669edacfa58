/*
 * cuda_hopper_attention.cuh - products of a warpgroup for an attention of heads of 96, beside
 * cuda_hopper.cuh.
 *
 * A head's 96 columns are three sub-tiles [rows, 32 columns], which lie in shared memory as TMA's
 * swizzles leave them, in groups of 8 rows. Of bf16, rows have 64 bytes and the 64-byte swizzle:
 * the 16-byte piece i of row r is at place i ^ (r / 2 % 4) of its row. Of e4m3, rows have 32 bytes
 * and the 32-byte swizzle: piece i is at place i ^ (r / 4 % 2). A sub-tile begins at a multiple of
 * 1024. Layouts: PTX ISA, "Shared Memory Matrix Layout", "Strides", "Matrix Descriptor Format".
 *
 * Only for code under __CUDA_ARCH_FEAT_SM90_ALL.
 */
#ifndef RP_CUDA_HOPPER_ATTENTION_CUH
#define RP_CUDA_HOPPER_ATTENTION_CUH

#include "tensor/cuda/cuda_hopper.cuh"

/*
 * Sub-tiles as an operand: address / 16 in bits 0-13; far step / 16 in bits 16-29, which counts
 * only where the columns are not the k of the product: there it leads to the next 32 columns; from
 * one group of 8 rows to the next, / 16, in bits 32-45; 64-byte swizzle (2) in bits 62-63.
 */
__device__ inline uint64_t rp_wgmma_operand_64(uint32_t tile, int far)
{
    return ((uint64_t)2 << 62) | ((uint64_t)(512 >> 4) << 32) | ((uint64_t)(far >> 4) << 16) |
           (uint64_t)((tile & 0x3ffff) >> 4);
}

/* The same of e4m3, k along the rows: a sub-tile is all of it for one product. 32-byte swizzle (3).
 */
__device__ inline uint64_t rp_wgmma_operand_32(uint32_t tile)
{
    return ((uint64_t)3 << 62) | ((uint64_t)(256 >> 4) << 32) | ((uint64_t)1 << 16) |
           (uint64_t)((tile & 0x3ffff) >> 4);
}

/* Keep the compiler from moving registers that products write over this point. */
template <int N> __device__ inline void rp_wgmma_pin_some(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

#define RP_D4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RP_D16(i) RP_D4(i), RP_D4(i + 4), RP_D4(i + 8), RP_D4(i + 12)
#define RP_D48    RP_D16(0), RP_D16(16), RP_D16(32)
#define RP_R48                                                                                     \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"

/*
 * d[64, 128] = a[64, 16] b[128, 16]^T (+ d when ADD is 1), bf16 to f32; k along the rows of both.
 * Who has what of d: see rp_wgmma_bf16.
 */
template <int ADD> __device__ inline void rp_wgmma_scores(float (&d)[64], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" RP_R48
                 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, "
                 "%63}, %64, %65, %66, 1, 1, 0, 0;\n"
                 : RP_D48, RP_D16(48)
                 : "l"(a), "l"(b), "n"(ADD));
}

/*
 * d[64, 96] += a[64, 16] b[16, 96], bf16 to f32; b with its columns along the rows in memory. Of
 * thread i (lane l of warp w), a is: row 16 w + l / 4, columns 2 (l % 4) and the next; the same 8
 * rows down; both once more 8 columns on. So 16 columns of a d, rounded in pairs, are an a.
 */
__device__ inline void rp_wgmma_values(float (&d)[48], uint32_t a0, uint32_t a1, uint32_t a2,
                                       uint32_t a3, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" RP_R48
                 "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 1;\n"
                 : RP_D48
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

/* d[64, 128] = a[64, 32] b[128, 32]^T (+ d when ADD is 1), e4m3 to f32, by sub-tiles. */
template <int ADD>
__device__ inline void rp_wgmma_scores_e4m3(float (&d)[64], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" RP_R48
                 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, "
                 "%63}, %64, %65, %66, 1, 1;\n"
                 : RP_D48, RP_D16(48)
                 : "l"(a), "l"(b), "n"(ADD));
}

/*
 * [d | e][64, 104] = a[64, 32] b[104, 32]^T (+ [d | e] when ADD is 1), e4m3 to f32; b with k along
 * its rows; d has the first 96 columns. Of thread i (lane l of warp w), a is: row 16 w + l / 4,
 * columns 4 (l % 4) and the next three; the same 8 rows down; both once more 16 columns on.
 */
template <int ADD>
__device__ inline void rp_wgmma_values_e4m3(float (&d)[48], float (&e)[4], uint32_t a0, uint32_t a1,
                                            uint32_t a2, uint32_t a3, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n104k32.f32.e4m3.e4m3 {" RP_R48
                 ", %48, %49, %50, %51}, {%52, %53, %54, %55}, %56, %57, 1, 1;\n"
                 : RP_D48, "+f"(e[0]), "+f"(e[1]), "+f"(e[2]), "+f"(e[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "n"(ADD));
}

#undef RP_R48
#undef RP_D48
#undef RP_D16
#undef RP_D4

#endif
