/*
 * cpu_attention.c - softmax attention.
 *
 * A task is one head and a block of queries: scores [queries, keys] into the thread's scratch,
 * softmax row by row without the division, the product with the values, then the division of the
 * short output rows. Heads lie side by side in a row, so the products read and write them in place,
 * row stride as leading dimension. Under a mask only the keys that some query of the block sees are
 * computed.
 */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <cblas.h>

typedef struct {
    rp_cpu *cpu;
    const rp_attention_shape *shape;
    const float *q, *k, *v;
    float *out;
    int n_blocks; /* of queries */
} attention_job;

/* Keys that query i sees: first to end-1. */
typedef struct {
    int first, end;
} key_range;

static key_range visible(const rp_attention_shape *s, int i)
{
    key_range r = {0, s->n_kv};

    if (s->causal) {
        r.end = rp_cpu_min(i + 1, s->n_kv);
        if (s->window > 0 && i - s->window + 1 > 0) {
            r.first = i - s->window + 1;
        }
    }
    return r;
}

RP_SIMD static void soft_cap(float *x, int n, float cap)
{
    const float inverse = 1.0f / cap;

    for (int i = 0; i < n; i++) {
        x[i] = cap * rp_cpu_tanhf(x[i] * inverse);
    }
}

/* x[first..end) = exp(x - max), zeros elsewhere in x[0..n); returns 1 / the sum. */
RP_SIMD static float exp_row(float *x, int n, key_range seen)
{
    float *row = x + seen.first;
    const int m = seen.end - seen.first;
    const float max = rp_cpu_max(row, m);

    for (int i = 0; i < m; i++) {
        row[i] = rp_cpu_expf(row[i] - max);
    }
    for (int i = 0; i < seen.first; i++) {
        x[i] = 0;
    }
    for (int i = seen.end; i < n; i++) {
        x[i] = 0;
    }
    return 1.0f / rp_cpu_sum(row, m);
}

RP_SIMD static void scale_row(float *x, int n, float by)
{
    for (int i = 0; i < n; i++) {
        x[i] *= by;
    }
}

static void attention_task(void *arg, int task, int thread)
{
    const attention_job *job = arg;
    const rp_attention_shape *s = job->shape;
    const int head = task / job->n_blocks;
    const int q0 = task % job->n_blocks * RP_CPU_QUERIES;
    const int n_q = rp_cpu_min(RP_CPU_QUERIES, s->n_q - q0);
    const int k0 = visible(s, q0).first;
    const int n_k = visible(s, q0 + n_q - 1).end - k0;
    const size_t q_offset = (size_t)head * (size_t)s->head_dim;
    const size_t kv_head = (size_t)(head / (s->n_heads / s->n_kv_heads));
    const size_t kv_offset = kv_head * (size_t)s->head_dim;
    float *scores = job->cpu->scratch[thread];
    float *out = job->out + (size_t)q0 * s->out_stride + q_offset;
    float inverse[RP_CPU_QUERIES];

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_q, n_k, s->head_dim, s->scale,
                job->q + (size_t)q0 * s->q_stride + q_offset, s->q_stride,
                job->k + (size_t)k0 * s->k_stride + kv_offset, s->k_stride, 0.0f, scores, n_k);
    if (s->softcap > 0) {
        soft_cap(scores, n_q * n_k, s->softcap);
    }
    for (int i = 0; i < n_q; i++) {
        const key_range r = visible(s, q0 + i);
        const key_range seen = {r.first - k0, r.end - k0};
        inverse[i] = exp_row(scores + (size_t)i * n_k, n_k, seen);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n_q, s->head_dim, n_k, 1.0f, scores, n_k,
                job->v + (size_t)k0 * s->v_stride + kv_offset, s->v_stride, 0.0f, out,
                s->out_stride);
    for (int i = 0; i < n_q; i++) {
        scale_row(out + (size_t)i * s->out_stride, s->head_dim, inverse[i]);
    }
}

void rp_cpu_attention(void *self, const rp_attention_shape *shape, const float *q, const float *k,
                      const float *v, float *out)
{
    rp_cpu *cpu = self;
    attention_job job = {.cpu = cpu, .shape = shape, .q = q, .k = k, .v = v, .out = out};

    job.n_blocks = rp_cpu_ceil_div(shape->n_q, RP_CPU_QUERIES);
    if (!rp_cpu_has_scratch(cpu, (size_t)RP_CPU_QUERIES * (size_t)shape->n_kv, "attention")) {
        return;
    }
    rp_cpu_team_run(cpu->team, attention_task, &job, shape->n_heads * job.n_blocks);
}
