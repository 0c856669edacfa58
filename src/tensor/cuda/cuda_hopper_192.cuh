/* cuda_hopper_192.cuh - cuda_hopper.cuh's product of a warpgroup with 192 columns. */
#ifndef RP_CUDA_HOPPER_192_CUH
#define RP_CUDA_HOPPER_192_CUH

#include "tensor/cuda/cuda_hopper.cuh"

/* Keep the compiler from moving sums over this point. */
__device__ inline void rp_wgmma_pin(float (&d)[96])
{
#pragma unroll
    for (int i = 0; i < 96; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

#define RP_D4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RP_D16(i) RP_D4(i), RP_D4(i + 4), RP_D4(i + 8), RP_D4(i + 12)

/* d[64, 192] = a[64, 32] b[192, 32]^T (+ d when `add` is not 0), e4m3 to f32; the layout of d is
 * that of rp_wgmma_bf16. */
__device__ inline void rp_wgmma_e4m3_192(float (&d)[96], uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %98, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192k32.f32.e4m3.e4m3 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
                 "%96, %97, p, 1, 1;\n"
                 "}\n"
                 : RP_D16(0), RP_D16(16), RP_D16(32), RP_D16(48), RP_D16(64), RP_D16(80)
                 : "l"(a), "l"(b), "r"(add));
}

#undef RP_D16
#undef RP_D4

#endif
