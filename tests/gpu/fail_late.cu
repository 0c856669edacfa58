/*
 * fail_late.cu - preloaded, it makes the GPU of rank RPT_FAIL_RANK fail at its RPT_FAIL_AT-th
 * product.
 *
 * The GPU itself counts, in a kernel before every product of cuBLASLt: from the second time on
 * units are replayed, and the host calls nothing of theirs that could be counted. The kernel that
 * comes to the number writes to an address where nothing is. So the error is CUDA's own, found when
 * CUDA finds such errors, and stays for all later calls. No process but this one has it.
 */
#include <cublasLt.h>

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC extern "C" __attribute__((visibility("default")))

typedef decltype(&cublasLtMatmul) matmul_fn;

static __device__ unsigned g_n_products;

static __global__ void count_product(unsigned fail_at, int *nowhere)
{
    if (++g_n_products == fail_at) {
        *nowhere = 1;
    }
}

/* 0: never, on this rank. A process that no launcher started is rank 0. */
static unsigned fail_at(void)
{
    const char *mine = getenv("OMPI_COMM_WORLD_RANK");
    const char *rank = getenv("RPT_FAIL_RANK");
    const char *at = getenv("RPT_FAIL_AT");

    if (rank == NULL || at == NULL || strcmp(mine == NULL ? "0" : mine, rank) != 0) {
        return 0;
    }
    return (unsigned)strtoul(at, NULL, 10);
}

PUBLIC cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                     const void *alpha, const void *a, cublasLtMatrixLayout_t a_as,
                                     const void *b, cublasLtMatrixLayout_t b_as, const void *beta,
                                     const void *c, cublasLtMatrixLayout_t c_as, void *d,
                                     cublasLtMatrixLayout_t d_as,
                                     const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                                     size_t n_workspace, cudaStream_t stream)
{
    const matmul_fn next = (matmul_fn)dlsym(RTLD_NEXT, "cublasLtMatmul");
    const unsigned at = fail_at();

    if (at > 0) {
        count_product<<<1, 1, 0, stream>>>(at, NULL);
    }
    return next(handle, op, alpha, a, a_as, b, b_as, beta, c, c_as, d, d_as, algorithm, workspace,
                n_workspace, stream);
}
