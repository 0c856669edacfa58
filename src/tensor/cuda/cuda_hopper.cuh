/*
 * cuda_hopper.cuh - instructions of compute capability 9.0 that C++ has no words for: barriers in
 * shared memory, copies of tiles (TMA), products of a warpgroup (wgmma).
 *
 * Addresses in shared memory are 32 bits wide (rp_shared_at). Tiles lie there as TMA's 128-byte
 * swizzle leaves them: rows of 128 bytes, 64 of bf16 or 128 of e4m3, in groups of 8 rows (1024
 * bytes); the 16-byte piece i of row r is at place i ^ (r % 8) of its row. A tile begins at a
 * multiple of 1024. Names, limits and layouts: PTX ISA, "Asynchronous Warpgroup Level Matrix
 * Instructions", "Data Movement" and "mbarrier".
 *
 * Only for code under __CUDA_ARCH_FEAT_SM90_ALL.
 */
#ifndef RP_CUDA_HOPPER_CUH
#define RP_CUDA_HOPPER_CUH

#include <cuda.h>

#include <stdint.h>

__device__ inline uint32_t rp_shared_at(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- barriers by number, registers ---- */

/* Barrier `id` (1 to 15; 0 is __syncthreads) among n threads. */
__device__ inline void rp_named_sync(int id, int n)
{
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(n) : "memory");
}

/* The same without waiting: counted among the n. */
__device__ inline void rp_named_arrive(int id, int n)
{
    asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(n) : "memory");
}

/* Registers of each thread from here on; by all warps of a warpgroup. */
template <int N> __device__ inline void rp_fewer_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

template <int N> __device__ inline void rp_more_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}

/* ---- mbarriers: 8 bytes; a phase ends when all arrivals and all announced bytes are there ---- */

__device__ inline void rp_mbar_init(uint32_t bar, int n_arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(bar), "r"(n_arrivals)
                 : "memory");
}

/* Barriers made by this thread, for everyone and for TMA; a sync must follow. */
__device__ inline void rp_mbar_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

/* One arrival, and n_bytes that copies will bring in this phase. */
__device__ inline void rp_mbar_expect(uint32_t bar, int n_bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(bar), "r"(n_bytes)
                 : "memory");
}

__device__ inline void rp_mbar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(bar) : "memory");
}

/* Wait until the phase of this parity has ended: 0 for the first. Of parity 1, a new barrier counts
 * as ended. */
__device__ inline void rp_mbar_wait(uint32_t bar, uint32_t parity)
{
    uint32_t done = 0;

    while (done == 0) { /* the instruction itself sleeps for a while */
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}\n"
                     : "=r"(done)
                     : "r"(bar), "r"(parity)
                     : "memory");
    }
}

/* ---- TMA: one thread moves a tile; col and row of its first element, in elements ---- */

__device__ inline void rp_tma_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

/* Rows and columns outside the matrix arrive as zeros, and count among the bytes. */
__device__ inline void rp_tma_load(uint32_t to, const CUtensorMap *map, int col, int row,
                                   uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];\n" ::"r"(to),
                 "l"(map), "r"(bar), "r"(col), "r"(row)
                 : "memory");
}

/* What lies outside the matrix is left out. */
__device__ inline void rp_tma_store(const CUtensorMap *map, int col, int row, uint32_t from)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];\n" ::"l"(map),
        "r"(from), "r"(col), "r"(row)
        : "memory");
}

__device__ inline void rp_tma_store_commit()
{
    asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}

/* All stores of this thread have read their shared memory. */
__device__ inline void rp_tma_store_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}

/* What this thread wrote to shared memory is there for TMA; before a sync with the one who stores.
 */
__device__ inline void rp_fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/* Four 8 x 8 tiles of 16-bit elements from registers: lane 8 i + r gives the address of row r of
 * tile i, and register i of a lane is elements 2 (lane % 4) and the next of row lane / 4. */
__device__ inline void rp_store_tiles(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(at),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

/* n_bytes as they lie; both addresses and n_bytes are multiples of 16. */
__device__ inline void rp_bulk_load(uint32_t to, const void *from, int n_bytes, uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];\n" ::"r"(to),
                 "l"(from), "r"(n_bytes), "r"(bar)
                 : "memory");
}

/* Two bytes to shared memory; a float from there. */
__device__ inline void rp_store_shared(uint32_t at, uint16_t x)
{
    asm volatile("st.shared.u16 [%0], %1;\n" ::"r"(at), "h"(x) : "memory");
}

__device__ inline float rp_load_shared(uint32_t at)
{
    float x;

    asm volatile("ld.shared.f32 %0, [%1];\n" : "=f"(x) : "r"(at) : "memory");
    return x;
}

/* ---- wgmma ---- */

/*
 * A tile [rows, 128 bytes] with the k of the product along its rows, as one operand: address / 16
 * in bits 0-13, step between the groups of 8 rows / 16 in bits 32-45, 128-byte swizzle (1) in bits
 * 62-63. The other step (bits 16-29) does not count with this swizzle. The next 16 of k
 * (32 of e4m3) are 32 bytes on: + 2.
 */
__device__ inline uint64_t rp_wgmma_operand(uint32_t tile)
{
    return ((uint64_t)1 << 62) | ((uint64_t)(1024 >> 4) << 32) | ((uint64_t)1 << 16) |
           (uint64_t)((tile & 0x3ffff) >> 4);
}

/* Before the first product, and when registers of the sums were touched by something else. */
__device__ inline void rp_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ inline void rp_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* Until at most N committed groups are on their way. */
template <int N> __device__ inline void rp_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

/* Keep the compiler from moving sums over this point. */
__device__ inline void rp_wgmma_pin(float (&d)[128])
{
#pragma unroll
    for (int i = 0; i < 128; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

#define RP_D4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RP_D16(i) RP_D4(i), RP_D4(i + 4), RP_D4(i + 8), RP_D4(i + 12)

#define RP_WGMMA(type, ends)                                                                       \
    asm volatile(                                                                                  \
        "{\n"                                                                                      \
        ".reg .pred p;\n"                                                                          \
        "setp.ne.b32 p, %130, 0;\n"                                                                \
        "wgmma.mma_async.sync.aligned.m64n256" type " "                                            \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                  \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "         \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "         \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "         \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "         \
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "         \
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "   \
        "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "     \
        "%125, %126, %127}, %128, %129, p, 1, 1" ends ";\n"                                        \
        "}\n"                                                                                      \
        : RP_D16(0), RP_D16(16), RP_D16(32), RP_D16(48), RP_D16(64), RP_D16(80), RP_D16(96),       \
          RP_D16(112)                                                                              \
        : "l"(a), "l"(b), "r"(add))

/*
 * d[64, 256] = a[64, 16] b[256, 16]^T (+ d when `add` is not 0), bf16 to f32, by a warpgroup. Of
 * thread i (lane l of warp w), d[4 j] and d[4 j + 1] are row 16 w + l / 4, columns 8 j + 2 (l % 4)
 * and the next; d[4 j + 2] and d[4 j + 3] the same columns 8 rows down.
 */
__device__ inline void rp_wgmma_bf16(float (&d)[128], uint64_t a, uint64_t b, int add)
{
    RP_WGMMA("k16.f32.bf16.bf16", ", 0, 0");
}

/* The same of e4m3: a[64, 32] b[256, 32]^T. Sums inside keep fewer bits than f32 has. */
__device__ inline void rp_wgmma_e4m3(float (&d)[128], uint64_t a, uint64_t b, int add)
{
    RP_WGMMA("k32.f32.e4m3.e4m3", "");
}

#undef RP_WGMMA
#undef RP_D16
#undef RP_D4

#endif
