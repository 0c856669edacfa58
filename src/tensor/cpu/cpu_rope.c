/* cpu_rope.c - RMS norm of every head, then rotary embedding (Su et al. 2021), in place. */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <math.h>

typedef struct {
    rp_cpu *cpu;
    rp_rope_shape s;
    float *x;
    const rp_tensor *w_q, *w_k;
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

/* n heads of rows first to end - 1, from head `head` on */
static void turn_rows(const rope_job *job, int first, int end, int head, int n, const rp_tensor *w,
                      float *room)
{
    const rp_rope_shape *s = &job->s;
    const int half = s->head_dim / 2;

    if (w != NULL) {
        rp_cpu_to_f32(w, 0, (size_t)s->head_dim, room);
    }
    for (int i = first; i < end; i++) {
        float *x = job->x + (size_t)i * s->row_stride + (size_t)head * s->head_dim;
        const float *cos_row = job->cos + (size_t)i * half;
        const float *sin_row = job->sin + (size_t)i * half;
        if (w != NULL) {
            norm_heads(x, n, s->head_dim, room, s->eps);
        }
        (s->kind == RP_ROPE_PAIRS ? turn_pairs : turn_halves)(x, n, half, cos_row, sin_row);
    }
}

static void rope_task(void *arg, int task, int thread)
{
    const rope_job *job = arg;
    float *room = job->cpu->scratch[thread];
    const int first = task * job->rows_per_task;
    const int end = rp_cpu_min(first + job->rows_per_task, job->s.t);

    turn_rows(job, first, end, 0, job->s.n_q, job->w_q, room);
    turn_rows(job, first, end, job->s.n_q, job->s.n_k, job->w_k, room);
}

void rp_cpu_head_norm_rope(void *self, const rp_rope_shape *shape, float *x, const rp_tensor *w_q,
                           const rp_tensor *w_k, const float *cos, const float *sin)
{
    rp_cpu *cpu = self;
    rope_job job = {.cpu = cpu,
                    .s = *shape,
                    .x = x,
                    .w_q = w_q,
                    .w_k = w_k,
                    .cos = cos,
                    .sin = sin,
                    .rows_per_task = rp_cpu_rows((shape->n_q + shape->n_k) * shape->head_dim)};

    if (rp_cpu_has_scratch(cpu, (size_t)shape->head_dim, "head_norm_rope")) {
        rp_cpu_team_run(cpu->team, rope_task, &job, rp_cpu_ceil_div(shape->t, job.rows_per_task));
    }
}
