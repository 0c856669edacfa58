/*
 * cpu_linear.c - matrix products with weights.
 *
 * A task is a block of output columns of one weight times a block of rows. The block of the weight
 * is made f32 in the thread's scratch (128 x k: small enough to be still in the cache when the
 * product reads it); an f32 weight is read where it lies.
 */
#include "tensor/cpu/cpu.h"

#include "tensor/cpu/cpu_math.h"

#include <cblas.h>
#include <string.h>

/* Up to this many rows the weight is read once and multiplied on the way. */
#define FEW_ROWS 4

typedef struct {
    rp_cpu *cpu;
    const float *x;
    int t, k, x_stride;
    const rp_tensor *const *w;
    int n_w;
    const rp_tensor *bias;
    float *out;
    int n_out; /* columns of all weights together */
    int n_row_blocks;
} linear_job;

/* Where a task's outputs are. */
typedef struct {
    const rp_tensor *w;
    int first, n_cols; /* rows of the weight */
    int out_col;       /* of the first */
    int row, n_rows;
} linear_block;

static linear_block block_of(const linear_job *job, int task)
{
    linear_block b = {.row = task % job->n_row_blocks * RP_CPU_ROWS};
    int col_block = task / job->n_row_blocks;
    int i = 0;

    for (;; i++) {
        const int n_blocks = rp_cpu_ceil_div((int)job->w[i]->dim[0], RP_CPU_COLS);
        if (col_block < n_blocks) {
            break;
        }
        col_block -= n_blocks;
        b.out_col += (int)job->w[i]->dim[0];
    }
    b.w = job->w[i];
    b.first = col_block * RP_CPU_COLS;
    b.n_cols = rp_cpu_min(RP_CPU_COLS, (int)b.w->dim[0] - b.first);
    b.out_col += b.first;
    b.n_rows = rp_cpu_min(RP_CPU_ROWS, job->t - b.row);
    return b;
}

/* The bias is the start value of the outputs, so that the product adds to it. */
static void fill_bias(const linear_job *job, const linear_block *b, float *out)
{
    if (job->bias == NULL) {
        return;
    }
    rp_cpu_to_f32(job->bias, (size_t)b->first, (size_t)b->n_cols, out);
    for (int i = 1; i < b->n_rows; i++) {
        memcpy(out + (size_t)i * job->n_out, out, (size_t)b->n_cols * sizeof(*out));
    }
}

RP_SIMD static void few_rows(const float *x, int t, int k, int x_stride, const float *w, bool add,
                             float *out, int n_out)
{
    for (int i = 0; i < t; i++) {
        const float sum = rp_cpu_dot(x + (size_t)i * x_stride, w, k);
        out[(size_t)i * n_out] = add ? out[(size_t)i * n_out] + sum : sum;
    }
}

static const float *panel(const rp_tensor *w, int first, int n, int k, float *scratch)
{
    const size_t offset = (size_t)first * (size_t)k;

    if (w->dtype == RP_F32) {
        return (const float *)w->data + offset;
    }
    rp_cpu_to_f32(w, offset, (size_t)n * (size_t)k, scratch);
    return scratch;
}

static void linear_task(void *arg, int task, int thread)
{
    const linear_job *job = arg;
    const linear_block b = block_of(job, task);
    float *scratch = job->cpu->scratch[thread];
    const float *x = job->x + (size_t)b.row * job->x_stride;
    float *out = job->out + (size_t)b.row * job->n_out + b.out_col;

    fill_bias(job, &b, out);
    if (job->t <= FEW_ROWS) {
        for (int i = 0; i < b.n_cols; i++) {
            few_rows(x, b.n_rows, job->k, job->x_stride,
                     panel(b.w, b.first + i, 1, job->k, scratch), job->bias != NULL, out + i,
                     job->n_out);
        }
        return;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, b.n_rows, b.n_cols, job->k, 1.0f, x,
                job->x_stride, panel(b.w, b.first, b.n_cols, job->k, scratch), job->k,
                job->bias != NULL ? 1.0f : 0.0f, out, job->n_out);
}

void rp_cpu_linear(void *self, const float *x, int t, int k, int x_stride,
                   const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out)
{
    rp_cpu *cpu = self;
    linear_job job = {.cpu = cpu,
                      .x = x,
                      .t = t,
                      .k = k,
                      .x_stride = x_stride,
                      .w = w,
                      .n_w = n_w,
                      .bias = bias,
                      .out = out,
                      .n_row_blocks = rp_cpu_ceil_div(t, RP_CPU_ROWS)};
    int n_col_blocks = 0;

    if (!rp_cpu_has_scratch(cpu, (size_t)RP_CPU_COLS * (size_t)k, "linear")) {
        return;
    }
    for (int i = 0; i < n_w; i++) {
        job.n_out += (int)w[i]->dim[0];
        n_col_blocks += rp_cpu_ceil_div((int)w[i]->dim[0], RP_CPU_COLS);
    }
    rp_cpu_team_run(cpu->team, linear_task, &job, n_col_blocks * job.n_row_blocks);
}

void rp_cpu_gated_linear(void *self, const float *x, int t, int k, const rp_tensor *w_gate,
                         const rp_tensor *w_up, bool feeds_linear, float *room, float *out)
{
    const rp_tensor *const w[] = {w_gate, w_up};

    (void)feeds_linear; /* there is no narrower form here */
    rp_cpu_linear(self, x, t, k, k, w, 2, NULL, room);
    rp_cpu_swiglu(self, room, t, (int)w_gate->dim[0], out);
}

typedef struct {
    const rp_tensor *table;
    const int32_t *ids;
    float scale;
    float *out;
} embed_job;

RP_SIMD static void multiply(float *x, int n, float by)
{
    for (int i = 0; i < n; i++) {
        x[i] *= by;
    }
}

static void embed_task(void *arg, int task, int thread)
{
    const embed_job *job = arg;
    const size_t d = (size_t)job->table->dim[1];
    float *out = job->out + (size_t)task * d;

    (void)thread;
    rp_cpu_to_f32(job->table, (size_t)job->ids[task] * d, d, out);
    multiply(out, (int)d, job->scale);
}

void rp_cpu_embed(void *self, const rp_tensor *table, const int32_t *ids, int t, float scale,
                  float *out)
{
    rp_cpu *cpu = self;
    embed_job job = {.table = table, .ids = ids, .scale = scale, .out = out};

    rp_cpu_team_run(cpu->team, embed_task, &job, t);
}
