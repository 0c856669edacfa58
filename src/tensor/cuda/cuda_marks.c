/* cuda_marks.c - time marks: events of the stream. */
#include "tensor/cuda/cuda.h"

#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

void rp_cuda_marks_drop(rp_cuda *cuda)
{
    for (int i = 0; i < cuda->n_marks; i++) {
        (void)cudaEventDestroy(cuda->marks[i]);
    }
    free(cuda->marks);
    cuda->marks = NULL;
    cuda->n_marks = 0;
}

rp_status rp_cuda_marks_reserve(void *self, int n)
{
    rp_cuda *cuda = self;

    if (n <= cuda->n_marks) {
        return RP_OK;
    }
    cudaEvent_t *grown = realloc(cuda->marks, (size_t)n * sizeof(*grown));
    if (grown == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for %d time marks", n);
    }
    cuda->marks = grown;
    (void)cudaSetDevice(cuda->device);
    while (cuda->n_marks < n) {
        RP_TRY(RP_CUDA(cuda, cudaEventCreate(&cuda->marks[cuda->n_marks])));
        cuda->n_marks++;
    }
    return RP_OK;
}

void rp_cuda_mark(void *self, int index)
{
    rp_cuda *cuda = self;

    if (index >= 0 && index < cuda->n_marks) {
        rp_cuda_keep(cuda, RP_CUDA(cuda, cudaEventRecord(cuda->marks[index], cuda->stream)));
    }
}

/* From mark to mark: one float over a long job would lose the microseconds. */
rp_status rp_cuda_marks_read(void *self, int n, double *ms_out)
{
    rp_cuda *cuda = self;
    double sum = 0;

    if (n > cuda->n_marks) {
        return RP_FAIL(RP_E_ARG, "%d time marks are read, %d are reserved", n, cuda->n_marks);
    }
    for (int i = 0; i < n; i++) {
        float ms = 0;
        if (i > 0) {
            RP_TRY(RP_CUDA(cuda, cudaEventElapsedTime(&ms, cuda->marks[i - 1], cuda->marks[i])));
        }
        sum += (double)ms;
        ms_out[i] = sum;
    }
    return RP_OK;
}
