/*
 * cpu_conv.c - convolution as a matrix product.
 *
 * The input is unfolded to columns [c_in kernel kernel, pixels] for a block of output pixels (4 MiB
 * for each thread, whatever the picture's size), and one product [c_out, ...] x columns writes the
 * block in place. A 1x1 kernel needs no unfolding.
 */
#include "tensor/cpu/cpu.h"

#include "base/mem.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    rp_cpu *cpu;
    rp_conv_shape s;
    int out_h, out_w;
    int k; /* c_in kernel kernel */
    int pixels_per_task;
    const float *x, *w;
    const rp_tensor *bias;
    const float *add; /* or NULL */
    float *out;
} conv_job;

/* One output row's piece [x0, x1) of one column row: the input row `y`, moved by dx, zeros outside.
 */
static void unfold_piece(const conv_job *job, const float *plane, int y, int dx, int x0, int x1,
                         float *dst)
{
    if (y < 0 || y >= job->out_h) {
        memset(dst, 0, (size_t)(x1 - x0) * sizeof(*dst));
        return;
    }
    const int u = job->s.upsample;
    const float *row = plane + (size_t)(y / u) * job->s.w;
    const int first = x0 + dx < 0 ? -dx : x0;
    const int end = x1 + dx > job->out_w ? job->out_w - dx : x1;

    for (int x = x0; x < first; x++) {
        *dst++ = 0;
    }
    if (u == 1 && end > first) {
        memcpy(dst, row + first + dx, (size_t)(end - first) * sizeof(*dst));
        dst += end - first;
    } else {
        for (int x = first; x < end; x++) {
            *dst++ = row[(x + dx) / 2];
        }
    }
    for (int x = end > first ? end : first; x < x1; x++) {
        *dst++ = 0;
    }
}

/* columns [k, n] of output pixels p0 .. p0+n-1 */
static void unfold(const conv_job *job, int p0, int n, float *columns)
{
    const int kernel = job->s.kernel, pad = kernel / 2;

    for (int row = 0; row < job->k; row++) {
        const int dx = row % kernel - pad;
        const int dy = row / kernel % kernel - pad;
        const float *plane = job->x + (size_t)(row / (kernel * kernel)) * job->s.h * job->s.w;
        for (int p = p0; p < p0 + n;) {
            const int y = p / job->out_w, x0 = p % job->out_w;
            const int x1 = rp_cpu_min(job->out_w, x0 + p0 + n - p);
            unfold_piece(job, plane, y + dy, dx, x0, x1, columns);
            columns += x1 - x0;
            p += x1 - x0;
        }
    }
}

/* What the products are added to. */
static void start_row(float bias, const float *add, int n, float *row)
{
    for (int i = 0; i < n; i++) {
        row[i] = add != NULL ? add[i] + bias : bias;
    }
}

static void conv_task(void *arg, int task, int thread)
{
    const conv_job *job = arg;
    const int n_pixels = job->out_h * job->out_w;
    const int p0 = task * job->pixels_per_task;
    const int n = rp_cpu_min(job->pixels_per_task, n_pixels - p0);
    const bool in_place = job->s.kernel == 1 && job->s.upsample == 1;
    const float *columns = job->x + p0;
    float *out = job->out + p0;

    if (!in_place) {
        unfold(job, p0, n, job->cpu->scratch[thread]);
        columns = job->cpu->scratch[thread];
    }
    for (int c = 0; c < job->s.c_out; c++) {
        const float bias = job->bias != NULL ? rp_cpu_element(job->bias, (size_t)c) : 0.0f;
        const size_t at = (size_t)c * (size_t)n_pixels;
        start_row(bias, job->add != NULL ? job->add + p0 + at : NULL, n, out + at);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, job->s.c_out, n, job->k, 1.0f, job->w,
                job->k, columns, in_place ? n_pixels : n, 1.0f, out, n_pixels);
}

/* Pixels of a block: as many as the columns' budget allows, but several blocks to share out. */
static int block_pixels(int n_pixels, int k)
{
    const int budget = RP_CPU_CONV_ELEMS / k;
    const int share = rp_cpu_ceil_div(n_pixels, 8);
    const int n = rp_cpu_min(budget, share);

    return n < 64 ? 64 : n;
}

/* The kernel in f32: itself, or converted; the memory is kept for the next convolution. */
static rp_status conv_weight(rp_cpu *cpu, const rp_tensor *w, const float **out)
{
    const size_t n = (size_t)rp_tensor_elems(w);

    if (w->dtype == RP_F32) {
        *out = w->data;
        return RP_OK;
    }
    if (n > cpu->conv_weight_elems) {
        void *mem = NULL;
        const rp_status st = rp_mem_new(n, sizeof(float), "a convolution kernel in f32", &mem);
        if (st != RP_OK) {
            return st;
        }
        free(cpu->conv_weight);
        cpu->conv_weight = mem;
        cpu->conv_weight_elems = n;
    }
    rp_cpu_to_f32(w, 0, n, cpu->conv_weight);
    *out = cpu->conv_weight;
    return RP_OK;
}

void rp_cpu_conv2d(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                   const rp_tensor *bias, const float *add, float *out)
{
    rp_cpu *cpu = self;
    conv_job job = {.cpu = cpu, .s = *shape, .x = x, .bias = bias, .add = add, .out = out};
    job.out_h = shape->h * shape->upsample;
    job.out_w = shape->w * shape->upsample;
    job.k = shape->c_in * shape->kernel * shape->kernel;
    const int n_pixels = job.out_h * job.out_w;

    job.pixels_per_task = block_pixels(n_pixels, job.k);
    rp_status st = conv_weight(cpu, w, &job.w);
    if (st == RP_OK) {
        /* once for each size of picture, outside of the steps */
        st = rp_cpu_grow_scratch(cpu, (size_t)job.k * (size_t)job.pixels_per_task);
    }
    if (st != RP_OK) {
        cpu->failed = cpu->failed == RP_OK ? st : cpu->failed;
        return;
    }
    rp_cpu_team_run(cpu->team, conv_task, &job, rp_cpu_ceil_div(n_pixels, job.pixels_per_task));
}
