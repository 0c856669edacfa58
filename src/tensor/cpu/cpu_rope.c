/* cpu_rope.c - RMS norm of every head, then rotary embedding (Su et al. 2021), in place. */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <math.h>

typedef struct {
    rp_cpu *cpu;
    float *x;
    int t, n, head_dim, row_stride;
    const rp_tensor *w;
    float eps;
    rp_rope_kind kind;
    const float *cos, *sin;
    int rows_per_task;
} rope_job;

RP_INLINE void normalize(float *x, int d, const float *w, float eps)
{
    const float inverse = 1.0f / sqrtf(rp_cpu_dot(x, x, d) / (float)d + eps);

    for (int i = 0; i < d; i++) {
        x[i] = x[i] * inverse * w[i];
    }
}

RP_SIMD static void norm_heads(float *x, int n, int d, const float *restrict w, float eps)
{
    for (int h = 0; h < n; h++, x += d) {
        normalize(x, d, w, eps);
    }
}

RP_SIMD static void turn_pairs(float *restrict x, int n, int half, const float *restrict cos_row,
                               const float *restrict sin_row)
{
    for (int h = 0; h < n; h++, x += 2 * half) {
        for (int i = 0; i < half; i++) {
            const float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * cos_row[i] - b * sin_row[i];
            x[2 * i + 1] = a * sin_row[i] + b * cos_row[i];
        }
    }
}

RP_SIMD static void turn_halves(float *x, int n, int half, const float *restrict cos_row,
                                const float *restrict sin_row)
{
    for (int h = 0; h < n; h++, x += 2 * half) {
        float *restrict low = x;
        float *restrict high = x + half;
        for (int i = 0; i < half; i++) {
            const float a = low[i], b = high[i];
            low[i] = a * cos_row[i] - b * sin_row[i];
            high[i] = a * sin_row[i] + b * cos_row[i];
        }
    }
}

static void rope_task(void *arg, int task, int thread)
{
    const rope_job *job = arg;
    float *w = job->cpu->scratch[thread];
    const int half = job->head_dim / 2;
    const int first = task * job->rows_per_task;
    const int end = rp_cpu_min(first + job->rows_per_task, job->t);

    if (job->w != NULL) {
        rp_cpu_to_f32(job->w, 0, (size_t)job->head_dim, w);
    }
    for (int i = first; i < end; i++) {
        float *x = job->x + (size_t)i * job->row_stride;
        const float *c = job->cos + (size_t)i * half;
        const float *s = job->sin + (size_t)i * half;
        if (job->w != NULL) {
            norm_heads(x, job->n, job->head_dim, w, job->eps);
        }
        (job->kind == RP_ROPE_PAIRS ? turn_pairs : turn_halves)(x, job->n, half, c, s);
    }
}

void rp_cpu_head_norm_rope(void *self, float *x, int t, int n, int head_dim, int row_stride,
                           const rp_tensor *w, float eps, rp_rope_kind kind, const float *cos,
                           const float *sin)
{
    rp_cpu *cpu = self;
    rope_job job = {.cpu = cpu,
                    .x = x,
                    .t = t,
                    .n = n,
                    .head_dim = head_dim,
                    .row_stride = row_stride,
                    .w = w,
                    .eps = eps,
                    .kind = kind,
                    .cos = cos,
                    .sin = sin,
                    .rows_per_task = rp_cpu_rows(n * head_dim)};

    if (rp_cpu_has_scratch(cpu, (size_t)head_dim, "head_norm_rope")) {
        rp_cpu_team_run(cpu->team, rope_task, &job, rp_cpu_ceil_div(t, job.rows_per_task));
    }
}
