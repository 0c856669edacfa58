/* cpu_elem.c - elementwise ops and ops that only move data. */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <math.h>

typedef struct {
    const float *x;
    float *out;
    size_t n; /* elements, or rows of d */
    int d;
    int rows_per_task;
} elem_job;

RP_SIMD static void swiglu_row(const float *restrict ab, int d, float *restrict out)
{
    for (int i = 0; i < d; i++) {
        out[i] = rp_cpu_siluf(ab[i]) * ab[d + i];
    }
}

RP_SIMD static void geglu_row(const float *restrict ab, int d, float *restrict out)
{
    for (int i = 0; i < d; i++) {
        out[i] = rp_cpu_geluf(ab[i]) * ab[d + i];
    }
}

typedef void (*glu_row_fn)(const float *ab, int d, float *out);

static void glu_rows(const elem_job *job, int task, glu_row_fn row)
{
    const int first = task * job->rows_per_task;
    const int end = rp_cpu_min(first + job->rows_per_task, (int)job->n);
    const size_t d = (size_t)job->d;

    for (int i = first; i < end; i++) {
        row(job->x + 2 * d * (size_t)i, job->d, job->out + d * (size_t)i);
    }
}

static void swiglu_task(void *arg, int task, int thread)
{
    (void)thread;
    glu_rows(arg, task, swiglu_row);
}

static void geglu_task(void *arg, int task, int thread)
{
    (void)thread;
    glu_rows(arg, task, geglu_row);
}

static void run_glu(rp_cpu *cpu, const float *ab, int t, int d, float *out, rp_cpu_task_fn fn)
{
    elem_job job = {.x = ab, .out = out, .n = (size_t)t, .d = d, .rows_per_task = rp_cpu_rows(d)};

    rp_cpu_team_run(cpu->team, fn, &job, rp_cpu_ceil_div(t, job.rows_per_task));
}

void rp_cpu_swiglu(void *self, const float *ab, int t, int d, float *out)
{
    run_glu(self, ab, t, d, out, swiglu_task);
}

void rp_cpu_geglu(void *self, const float *ab, int t, int d, float *out)
{
    run_glu(self, ab, t, d, out, geglu_task);
}

RP_SIMD static void silu_piece(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = rp_cpu_siluf(x[i]);
    }
}

RP_SIMD static void add_piece(const float *restrict y, size_t n, float *restrict x)
{
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

/* Elements of a piece, and where it begins. */
static size_t piece_of(const elem_job *job, int task, size_t *first)
{
    *first = (size_t)task * RP_CPU_ELEMS;
    return job->n - *first < RP_CPU_ELEMS ? job->n - *first : RP_CPU_ELEMS;
}

static void silu_task(void *arg, int task, int thread)
{
    const elem_job *job = arg;
    size_t first;
    const size_t n = piece_of(job, task, &first);

    (void)thread;
    silu_piece(job->x + first, n, job->out + first);
}

static void add_task(void *arg, int task, int thread)
{
    const elem_job *job = arg;
    size_t first;
    const size_t n = piece_of(job, task, &first);

    (void)thread;
    add_piece(job->x + first, n, job->out + first);
}

static void run_pieces(rp_cpu *cpu, const float *x, size_t n, float *out, rp_cpu_task_fn fn)
{
    elem_job job = {.x = x, .out = out, .n = n};

    rp_cpu_team_run(cpu->team, fn, &job, (int)((n + RP_CPU_ELEMS - 1) / RP_CPU_ELEMS));
}

void rp_cpu_silu(void *self, const float *x, size_t n, float *out)
{
    run_pieces(self, x, n, out, silu_task);
}

void rp_cpu_add(void *self, float *x, const float *y, size_t n)
{
    run_pieces(self, y, n, x, add_task);
}

/* The few bytes of latents: one thread. */
void rp_cpu_patchify(void *self, const float *x, int c, int h, int w, int p, float *out)
{
    (void)self;
    for (int i = 0; i < h; i += p) {
        for (int j = 0; j < w; j += p) {
            for (int pixel = 0; pixel < p * p; pixel++) {
                const size_t at = (size_t)(i + pixel / p) * (size_t)w + (size_t)(j + pixel % p);
                for (int channel = 0; channel < c; channel++) {
                    *out++ = x[(size_t)channel * (size_t)h * (size_t)w + at];
                }
            }
        }
    }
}

void rp_cpu_unpatchify(void *self, const float *tokens, int c, int h, int w, int p, float sign,
                       float *out)
{
    (void)self;
    for (int i = 0; i < h; i += p) {
        for (int j = 0; j < w; j += p) {
            for (int pixel = 0; pixel < p * p; pixel++) {
                const size_t at = (size_t)(i + pixel / p) * (size_t)w + (size_t)(j + pixel % p);
                for (int channel = 0; channel < c; channel++) {
                    out[(size_t)channel * (size_t)h * (size_t)w + at] = sign * *tokens++;
                }
            }
        }
    }
}

/* Square tiles, so that the lines of both sides stay in the cache. */
#define TILE 16

typedef struct {
    const float *x;
    int rows, cols;
    float *out;
} transpose_job;

static void transpose_task(void *arg, int task, int thread)
{
    const transpose_job *job = arg;
    const int r0 = task * TILE;
    const int r1 = rp_cpu_min(r0 + TILE, job->rows);

    (void)thread;
    for (int c0 = 0; c0 < job->cols; c0 += TILE) {
        const int c1 = rp_cpu_min(c0 + TILE, job->cols);
        for (int c = c0; c < c1; c++) {
            for (int r = r0; r < r1; r++) {
                job->out[(size_t)c * job->rows + r] = job->x[(size_t)r * job->cols + c];
            }
        }
    }
}

void rp_cpu_transpose(void *self, const float *x, int rows, int cols, float *out)
{
    rp_cpu *cpu = self;
    transpose_job job = {.x = x, .rows = rows, .cols = cols, .out = out};

    rp_cpu_team_run(cpu->team, transpose_task, &job, rp_cpu_ceil_div(rows, TILE));
}

/* In float32 and with halves to even, step by step as numpy does it, so that the bytes agree. */
static uint8_t to_byte(float x)
{
    const float unit = x / 2.0f + 0.5f;
    const float clamped = unit > 0.0f ? (unit < 1.0f ? unit : 1.0f) : 0.0f; /* NaN is not > 0 */

    return (uint8_t)rintf(clamped * 255.0f);
}

void rp_cpu_to_bytes(void *self, const float *x, size_t hw, uint8_t *bytes)
{
    (void)self;
    for (size_t c = 0; c < 3; c++) {
        for (size_t i = 0; i < hw; i++) {
            bytes[i * 3 + c] = to_byte(x[c * hw + i]);
        }
    }
}
