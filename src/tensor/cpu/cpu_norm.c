/*
 * cpu_norm.c - RMS, layer and group norm.
 *
 * All factors of a column - weight, shift, scale, gate - are first multiplied into one vector in
 * the thread's scratch, so that a row costs one reduction and one multiplication.
 */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <math.h>

typedef struct {
    rp_cpu *cpu;
    const float *x; /* of add_rms_norm: y */
    int t, d;
    const rp_tensor *w;
    float shift, eps;
    const float *scale; /* or gate */
    float *out;
    int rows_per_task;
} norm_job;

/* out = (w + shift) * (1 + scale), with w = 1 where there is none */
RP_SIMD static void scale_factors(float *restrict out, int d, bool has_w, float shift,
                                  const float *restrict scale)
{
    for (int i = 0; i < d; i++) {
        out[i] = (has_w ? out[i] : 1.0f) + shift;
    }
    if (scale != NULL) {
        for (int i = 0; i < d; i++) {
            out[i] *= 1.0f + scale[i];
        }
    }
}

/* out = (w + shift) * tanh(gate) */
RP_SIMD static void gate_factors(float *restrict out, int d, bool has_w, float shift,
                                 const float *restrict gate)
{
    for (int i = 0; i < d; i++) {
        out[i] = (has_w ? out[i] : 1.0f) + shift;
    }
    if (gate != NULL) {
        for (int i = 0; i < d; i++) {
            out[i] *= rp_cpu_tanhf(gate[i]);
        }
    }
}

RP_SIMD static void rms_rows(const float *x, int rows, int d, const float *restrict factors,
                             float eps, float *out)
{
    for (int r = 0; r < rows; r++, x += d, out += d) {
        const float inverse = 1.0f / sqrtf(rp_cpu_dot(x, x, d) / (float)d + eps);
        for (int i = 0; i < d; i++) {
            out[i] = x[i] * inverse * factors[i];
        }
    }
}

RP_SIMD static void add_rms_rows(const float *restrict y, int rows, int d,
                                 const float *restrict factors, float eps, float *restrict x)
{
    for (int r = 0; r < rows; r++, x += d, y += d) {
        const float inverse = 1.0f / sqrtf(rp_cpu_dot(y, y, d) / (float)d + eps);
        for (int i = 0; i < d; i++) {
            x[i] += y[i] * inverse * factors[i];
        }
    }
}

RP_SIMD static void layer_rows(const float *x, int rows, int d, const float *restrict factors,
                               float eps, float *out)
{
    for (int r = 0; r < rows; r++, x += d, out += d) {
        const float mean = rp_cpu_sum(x, d) / (float)d;
        const float inverse = 1.0f / sqrtf(rp_cpu_sum_sq_diff(x, d, mean) / (float)d + eps);
        for (int i = 0; i < d; i++) {
            out[i] = (x[i] - mean) * inverse * factors[i];
        }
    }
}

/* The rows of a task, as an offset into the job's arrays. */
static size_t rows_of(const norm_job *job, int task, int *n_rows)
{
    const int first = task * job->rows_per_task;

    *n_rows = rp_cpu_min(job->rows_per_task, job->t - first);
    return (size_t)first * (size_t)job->d;
}

static float *weight_in_scratch(const norm_job *job, int thread)
{
    float *factors = job->cpu->scratch[thread];

    if (job->w != NULL) {
        rp_cpu_to_f32(job->w, 0, (size_t)job->d, factors);
    }
    return factors;
}

static void rms_task(void *arg, int task, int thread)
{
    const norm_job *job = arg;
    float *factors = weight_in_scratch(job, thread);
    int n_rows;
    const size_t at = rows_of(job, task, &n_rows);

    scale_factors(factors, job->d, job->w != NULL, job->shift, job->scale);
    rms_rows(job->x + at, n_rows, job->d, factors, job->eps, job->out + at);
}

static void add_rms_task(void *arg, int task, int thread)
{
    const norm_job *job = arg;
    float *factors = weight_in_scratch(job, thread);
    int n_rows;
    const size_t at = rows_of(job, task, &n_rows);

    gate_factors(factors, job->d, job->w != NULL, job->shift, job->scale);
    add_rms_rows(job->x + at, n_rows, job->d, factors, job->eps, job->out + at);
}

static void layer_task(void *arg, int task, int thread)
{
    const norm_job *job = arg;
    float *factors = weight_in_scratch(job, thread);
    int n_rows;
    const size_t at = rows_of(job, task, &n_rows);

    scale_factors(factors, job->d, false, 0.0f, job->scale);
    layer_rows(job->x + at, n_rows, job->d, factors, job->eps, job->out + at);
}

static void run_rows(norm_job *job, rp_cpu_task_fn fn, const char *op)
{
    job->rows_per_task = rp_cpu_rows(job->d);
    if (rp_cpu_has_scratch(job->cpu, (size_t)job->d, op)) {
        rp_cpu_team_run(job->cpu->team, fn, job, rp_cpu_ceil_div(job->t, job->rows_per_task));
    }
}

void rp_cpu_rms_norm(void *self, const float *x, int t, int d, const rp_tensor *w, float shift,
                     float eps, const float *scale, float *out, bool feeds_linear)
{
    norm_job job = {.cpu = self,
                    .x = x,
                    .t = t,
                    .d = d,
                    .w = w,
                    .shift = shift,
                    .eps = eps,
                    .scale = scale,
                    .out = out};

    (void)feeds_linear; /* rows are f32 here, whoever reads them */
    run_rows(&job, rms_task, "rms_norm");
}

void rp_cpu_add_rms_norm(void *self, float *x, const float *y, int t, int d, const rp_tensor *w,
                         float shift, float eps, const float *gate)
{
    norm_job job = {.cpu = self,
                    .x = y,
                    .t = t,
                    .d = d,
                    .w = w,
                    .shift = shift,
                    .eps = eps,
                    .scale = gate,
                    .out = x};

    run_rows(&job, add_rms_task, "add_rms_norm");
}

void rp_cpu_add_rms_norm_rms_norm(void *self, float *x, const float *y, int t, int d,
                                  const rp_tensor *w, float shift, float eps, const float *gate,
                                  const rp_tensor *w2, const float *scale2, float *out,
                                  bool feeds_linear)
{
    rp_cpu_add_rms_norm(self, x, y, t, d, w, shift, eps, gate);
    rp_cpu_rms_norm(self, x, t, d, w2, shift, eps, scale2, out, feeds_linear);
}

void rp_cpu_layer_norm(void *self, const float *x, int t, int d, float eps, const float *scale,
                       float *out)
{
    norm_job job = {.cpu = self, .x = x, .t = t, .d = d, .eps = eps, .scale = scale, .out = out};

    run_rows(&job, layer_task, "layer_norm");
}

typedef struct {
    const float *x;
    int hw, channels; /* of one group */
    const rp_tensor *w, *b;
    float eps;
    bool silu;
    float *out;
} group_job;

/* A group is large (millions of elements): f32 sums of pieces, added in f64. */
#define PIECE 4096

RP_SIMD static double long_sum(const float *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i += PIECE) {
        sum += (double)rp_cpu_sum(x + i, (int)(n - i < PIECE ? n - i : PIECE));
    }
    return sum;
}

/* sum (x - mean), which a rounded mean leaves, and sum (x - mean)^2 */
RP_SIMD static void long_moments(const float *x, size_t n, float mean, double *sum, double *sum_sq)
{
    *sum = 0;
    *sum_sq = 0;
    for (size_t i = 0; i < n; i += PIECE) {
        const int m = (int)(n - i < PIECE ? n - i : PIECE);
        *sum += (double)rp_cpu_sum_diff(x + i, m, mean);
        *sum_sq += (double)rp_cpu_sum_sq_diff(x + i, m, mean);
    }
}

RP_SIMD static void affine(const float *x, int n, float mean, float factor, float add, float *out)
{
    for (int i = 0; i < n; i++) {
        out[i] = (x[i] - mean) * factor + add;
    }
}

RP_SIMD static void affine_silu(const float *x, int n, float mean, float factor, float add,
                                float *out)
{
    for (int i = 0; i < n; i++) {
        out[i] = rp_cpu_siluf((x[i] - mean) * factor + add);
    }
}

/*
 * The first mean carries the rounding of large sums. Against it x is small, so the second pass
 * finds what it lacks (`rest`) along with the variance, and the shift of the output makes good for
 * it.
 */
static void group_task(void *arg, int task, int thread)
{
    const group_job *job = arg;
    const size_t n = (size_t)job->channels * (size_t)job->hw;
    const float *x = job->x + (size_t)task * n;
    float *out = job->out + (size_t)task * n;
    const float mean = (float)(long_sum(x, n) / (double)n);
    double sum, sum_sq;

    long_moments(x, n, mean, &sum, &sum_sq);
    const double rest = sum / (double)n;
    const double inverse = 1.0 / sqrt(sum_sq / (double)n - rest * rest + (double)job->eps);

    (void)thread;
    for (int i = 0; i < job->channels; i++, x += job->hw, out += job->hw) {
        const size_t c = (size_t)task * (size_t)job->channels + (size_t)i;
        const double factor = inverse * (double)rp_cpu_element(job->w, c);
        const double add = (double)rp_cpu_element(job->b, c) - rest * factor;
        (job->silu ? affine_silu : affine)(x, job->hw, mean, (float)factor, (float)add, out);
    }
}

void rp_cpu_group_norm(void *self, const float *x, int c, int hw, int groups, const rp_tensor *w,
                       const rp_tensor *b, float eps, bool silu, float *out)
{
    rp_cpu *cpu = self;
    group_job job = {.x = x,
                     .hw = hw,
                     .channels = c / groups,
                     .w = w,
                     .b = b,
                     .eps = eps,
                     .silu = silu,
                     .out = out};

    rp_cpu_team_run(cpu->team, group_task, &job, groups);
}
