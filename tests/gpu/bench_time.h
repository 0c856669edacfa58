/*
 * bench_time.h - what the benches of kernels share: ends where something fails, times.
 *
 * Included behind the bench's own type `bench`, which has an rp_cuda *cuda.
 */
#ifndef RP_BENCH_TIME_H
#define RP_BENCH_TIME_H

#include "tensor/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_ALONE = 50 };

typedef void (*bench_fn)(const bench *b);

static void need(rp_status st)
{
    if (st != RP_OK) {
        exit(1);
    }
}

static void need_cuda(cudaError_t code)
{
    if (code != cudaSuccess) {
        (void)fprintf(stderr, "%s\n", cudaGetErrorString(code));
        exit(1);
    }
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Milliseconds of n calls together. */
static float time_of(const bench *b, bench_fn fn, int n)
{
    cudaEvent_t from, to;
    float ms = 0;

    need_cuda(cudaEventCreate(&from));
    need_cuda(cudaEventCreate(&to));
    need_cuda(cudaEventRecord(from, b->cuda->stream));
    for (int i = 0; i < n; i++) {
        fn(b);
    }
    need_cuda(cudaEventRecord(to, b->cuda->stream));
    need_cuda(cudaEventSynchronize(to));
    need_cuda(cudaEventElapsedTime(&ms, from, to));
    (void)cudaEventDestroy(from);
    (void)cudaEventDestroy(to);
    return ms;
}

/* Milliseconds of a call that has the device to itself: the median. */
static double time_alone(const bench *b, bench_fn fn)
{
    float alone[N_ALONE];

    (void)time_of(b, fn, 5);
    for (int i = 0; i < N_ALONE; i++) {
        alone[i] = time_of(b, fn, 1);
    }
    qsort(alone, N_ALONE, sizeof(alone[0]), by_size);
    return (double)alone[N_ALONE / 2];
}

/* Of one of n in a row, behind n_before that bring clock and temperature to where they stay. */
static double time_in_row(const bench *b, bench_fn fn, int n_before, int n)
{
    (void)time_of(b, fn, n_before);
    return (double)time_of(b, fn, n) / n;
}

static void print_times(int width, const char *name, double flop, double once, double row)
{
    printf("%-*s alone %7.4f ms %6.1f TFLOP/s   in a row %7.4f ms %6.1f TFLOP/s\n", width, name,
           once, flop / once * 1e-9, row, flop / row * 1e-9);
    (void)fflush(stdout);
}

#endif
