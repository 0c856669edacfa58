/*
 * test_cuda_flash8.c - the attention of our own with q, k and v in e4m3 (compute capability 9.0):
 * its inputs byte for byte, its output against the CPU's of the same rounded numbers and beside
 * cuDNN's, what is not finite.
 */
#include "cuda_pair.h"
#include "flash_cases.h"
#include "rp_e4m3.h"

#include "tensor/cuda/cuda_sdpa.h"

enum { GUARD = 0x5a, GUARDS = 64 };

/* Relative L2 error of the same rounded inputs: shares and outputs are rounded too, each off by
 * 2.6 % on average. */
#define TOLERANCE 5e-2

/* ---- one attention ---- */

typedef struct {
    flash_case c;
    rp_attention_shape shape;
    int q_dim, kv_dim;
    size_t n_in, n_out;
    float *host; /* [rows, q | k | v | gap] */
    pair_array qkv;
    rp_cuda_flash job;
    size_t in_bytes;
    void *in;
} flash_call;

static void make_values(flash_call *g)
{
    g->host = malloc(g->n_in * sizeof(*g->host));
    assert_non_null(g->host);
    make_rows(&g->c, g->host, g->n_in, (size_t)g->shape.q_stride, 81);
}

static void *new_guarded(size_t n)
{
    rp_cuda *cuda = pair_on[GPU].self;
    void *mem = NULL;

    assert_int_equal(rp_cuda_malloc(cuda, n + GUARDS, "test", &mem), RP_OK);
    assert_int_equal(cudaMemsetAsync(mem, GUARD, n + GUARDS, cuda->stream), cudaSuccess);
    return mem;
}

/* n bytes of the device, after all that was queued; the guards behind them are as they were. */
static void *guarded_bytes(const void *mem, size_t n)
{
    rp_cuda *cuda = pair_on[GPU].self;
    uint8_t *host = malloc(n + GUARDS);

    assert_non_null(host);
    assert_int_equal(cudaStreamSynchronize(cuda->stream), cudaSuccess);
    assert_int_equal(cudaMemcpy(host, mem, n + GUARDS, cudaMemcpyDeviceToHost), cudaSuccess);
    for (size_t i = 0; i < GUARDS; i++) {
        assert_int_equal(host[n + i], GUARD);
    }
    return host;
}

static void make_job(flash_call *g)
{
    const rp_attention_shape *const s = &g->shape;
    char *const q = rp_cuda_at(pair_on[GPU].self, g->qkv.at[GPU]).data;

    g->job = (rp_cuda_flash){.n_q = s->n_q,
                             .n_kv = s->n_kv,
                             .n_heads = s->n_heads,
                             .n_kv_heads = s->n_kv_heads,
                             .head_dim = s->head_dim,
                             .q_stride = s->q_stride,
                             .k_stride = s->k_stride,
                             .v_stride = s->v_stride,
                             .out_stride = s->out_stride,
                             .scale = s->scale,
                             .q = q,
                             .k = q + (size_t)g->q_dim * 2,
                             .v = q + (size_t)(g->q_dim + g->kv_dim) * 2};
    g->in_bytes = rp_cuda_flash_in_bytes(&g->job);
    g->in = new_guarded(g->in_bytes);
    g->job.in = rp_cuda_flash_in_at(&g->job, g->in);
    g->job.rows.data = new_guarded(g->n_out);
    g->job.rows.scale = new_guarded((size_t)s->n_q * sizeof(float));
}

static flash_call new_call(const flash_case *c)
{
    const int q_dim = c->n_heads * HEAD_DIM, kv_dim = c->n_kv_heads * HEAD_DIM;
    const int row = q_dim + 2 * kv_dim + c->gap;
    flash_call g = {.c = *c, .q_dim = q_dim, .kv_dim = kv_dim};

    g.shape = (rp_attention_shape){.n_q = c->n_q,
                                   .n_kv = c->n_kv,
                                   .n_heads = c->n_heads,
                                   .n_kv_heads = c->n_kv_heads,
                                   .head_dim = HEAD_DIM,
                                   .q_stride = row,
                                   .k_stride = row,
                                   .v_stride = row,
                                   .out_stride = q_dim,
                                   .scale = 1.0f / sqrtf((float)HEAD_DIM)};
    g.n_in = (size_t)(c->n_q > c->n_kv ? c->n_q : c->n_kv) * (size_t)row;
    g.n_out = (size_t)c->n_q * (size_t)q_dim;
    make_values(&g);
    g.qkv = pair_of(PAIR_ACT, g.n_in, g.host);
    make_job(&g);
    return g;
}

static void drop_call(flash_call *g)
{
    (void)cudaFree(g->in);
    (void)cudaFree(g->job.rows.data);
    (void)cudaFree(g->job.rows.scale);
    pair_drop(&g->qkv);
    free(g->host);
}

static void launch(const rp_cuda_flash *job)
{
    rp_cuda *cuda = pair_on[GPU].self;

    assert_int_equal(rp_cuda_k_flash(cuda->stream, job), cudaSuccess);
}

/* The bf16 mode whose arrays the kernel takes, in use from now on; skips where there is none. */
static void use_act_or_skip(void)
{
    const pair_mode *mode = NULL;

    for (int m = 0; m < pair_n_modes; m++) {
        if (pair_modes[m].precision == RP_PRECISION_BF16 && pair_modes[m].in == PAIR_ACT &&
            pair_modes[m].out == PAIR_ACT) {
            mode = &pair_modes[m];
        }
    }
    if (mode == NULL) {
        skip();
    }
    pair_use(mode);
    flash_call g = new_call(&flash_cases[0]);
    const rp_cuda *cuda = pair_on[GPU].self;
    const bool can = rp_cuda_flash_can(&g.job, cuda->capability);
    drop_call(&g);
    if (!can) {
        print_message("not on this device: compute capability %d\n", cuda->capability);
        skip();
    }
}

/* ---- rounded inputs ---- */

/* Columns of the matrix: q, k or v. */
typedef struct {
    float *at;
    int rows, cols;
    size_t stride;
} columns;

static columns columns_of(const flash_call *g, float *x, int part)
{
    const int first = part == 0 ? 0 : part == 1 ? g->q_dim : g->q_dim + g->kv_dim;

    return (columns){x + first, part == 0 ? g->c.n_q : g->c.n_kv, part == 0 ? g->q_dim : g->kv_dim,
                     (size_t)g->shape.q_stride};
}

static float *element(const columns *c, int row, int col)
{
    return &c->at[(size_t)row * c->stride + (size_t)col];
}

/* A NaN is none. */
static float largest(const columns *c)
{
    float most = 1e-12f;

    for (int i = 0; i < c->rows; i++) {
        for (int j = 0; j < c->cols; j++) {
            most = fmaxf(most, fabsf(*element(c, i, j)));
        }
    }
    return most;
}

static uint8_t code_of(const columns *c, float most, int row, int col)
{
    return rpt_e4m3_of((double)(*element(c, row, col) * (448.0f / most)));
}

/* Rows of a part, or what v is in memory: transposed, 32 keys in the order of cuda_kernels.h. */
static void check_part(const flash_call *g, int part, const uint8_t *got)
{
    const columns c = columns_of(g, g->host, part);
    const float most = largest(&c);
    const int n_keys = (c.rows + 127) / 128 * 128;
    size_t n_wrong = 0;

    for (int i = 0; i < (part < 2 ? c.rows : n_keys); i++) {
        const int h = i % 32 / 16, b = i % 16 / 8, q = i % 8 / 2, e = i % 2;
        const int place = i / 32 * 32 + 16 * h + 4 * q + 2 * b + e;
        for (int j = 0; j < c.cols; j++) {
            const uint8_t is = part < 2 ? got[(size_t)i * (size_t)c.cols + (size_t)j]
                                        : got[(size_t)j * (size_t)n_keys + (size_t)place];
            n_wrong += is != (i < c.rows ? code_of(&c, most, i, j) : 0);
        }
    }
    if (n_wrong > 0) {
        fail_msg("%d x %d, part %d: %zu bytes are others", g->c.n_q, g->c.n_kv, part, n_wrong);
    }
}

/* What lies between q, k and v is as it was. */
static void check_between(const flash_call *g, const uint8_t *in)
{
    const size_t n_q = (size_t)g->c.n_q * (size_t)g->q_dim;
    const size_t n_k = (size_t)g->c.n_kv * (size_t)g->kv_dim;
    const size_t k_at = (size_t)(g->job.in.k - g->job.in.q);
    const size_t v_at = (size_t)(g->job.in.v - g->job.in.q);

    for (size_t i = n_q; i < v_at; i++) {
        i = i == k_at ? k_at + n_k : i;
        assert_true(i == v_at || in[i] == GUARD);
    }
}

static void inputs_are_rounded_byte_for_byte(void **state)
{
    (void)state;
    use_act_or_skip();
    for (size_t i = 0; i < COUNT(flash_cases); i++) {
        flash_call g = new_call(&flash_cases[i]);
        rp_cuda *cuda = pair_on[GPU].self;
        rp_cuda_k_flash_round(cuda->stream, &g.job);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
        uint8_t *const in = guarded_bytes(g.in, g.in_bytes);
        const float *const scale = (const float *)(in + ((uint8_t *)g.job.in.scale - g.job.in.q));
        check_part(&g, 0, in);
        check_part(&g, 1, in + (g.job.in.k - g.job.in.q));
        check_part(&g, 2, in + (g.job.in.v - g.job.in.q));
        check_between(&g, in);
        for (int part = 0; part < 3; part++) {
            const columns c = columns_of(&g, g.host, part);
            assert_true(scale[part] == largest(&c) / 448.0f);
        }
        (void)pair_check("the input of rounding", &g.qkv, PAIR_EXACT);
        free(in);
        drop_call(&g);
    }
    pair_done();
}

/* ---- outputs ---- */

/* The CPU's attention of the rounded inputs. */
static float *on_cpu(const flash_call *g)
{
    float *x = malloc(g->n_in * sizeof(*x)), *out = malloc(g->n_out * sizeof(*out));
    const rp_backend *const cpu = &pair_on[CPU];

    assert_true(x != NULL && out != NULL);
    memcpy(x, g->host, g->n_in * sizeof(*x));
    for (int part = 0; part < 3; part++) {
        const columns c = columns_of(g, x, part);
        const float most = largest(&c);
        for (int i = 0; i < c.rows; i++) {
            for (int j = 0; j < c.cols; j++) {
                *element(&c, i, j) =
                    (float)rpt_e4m3_value(code_of(&c, most, i, j)) * (most / 448.0f);
            }
        }
    }
    cpu->ops->attention(cpu->self, &g->shape, x, x + g->q_dim, x + g->q_dim + g->kv_dim, out);
    assert_int_equal(cpu->ops->sync(cpu->self), RP_OK);
    free(x);
    return out;
}

/* Output rows in f32; all scales are that of v. */
static float *rows_of(const flash_call *g)
{
    const columns v = columns_of(g, g->host, 2);
    const float want = largest(&v) / 448.0f;
    uint8_t *const data = guarded_bytes(g->job.rows.data, g->n_out);
    float *const scale = guarded_bytes(g->job.rows.scale, (size_t)g->c.n_q * sizeof(float));
    float *out = malloc(g->n_out * sizeof(*out));

    assert_non_null(out);
    for (int i = 0; i < g->c.n_q; i++) {
        assert_true(scale[i] == want);
    }
    for (size_t i = 0; i < g->n_out; i++) {
        out[i] = (float)rpt_e4m3_value(data[i]) * want;
    }
    free(data);
    free(scale);
    return out;
}

/* What takes cuDNN's inputs back is what takes ours back. */
static void check_numbers(const flash_call *g, const rp_cuda_number *numbers)
{
    rp_cuda_number *const got = guarded_bytes(numbers, RP_CUDA_QKV_NUMBERS * sizeof(*got));

    for (int part = 0; part < 3; part++) {
        const columns c = columns_of(g, g->host, part);
        assert_true(got[RP_CUDA_QKV_BACK_Q + part].value == largest(&c) / 448.0f);
    }
    free(got);
}

/* cuDNN's attention in e4m3, to the same rows; false where it has none. */
static bool run_theirs(const flash_call *g)
{
    rp_cuda *cuda = pair_on[GPU].self;
    const rp_cuda_flash *const f = &g->job;
    const size_t n_k = (size_t)f->n_kv * (size_t)g->kv_dim;
    const rp_sdpa_key key = {.n_q = f->n_q,
                             .n_kv = f->n_kv,
                             .n_heads = f->n_heads,
                             .n_kv_heads = f->n_kv_heads,
                             .head_dim = HEAD_DIM,
                             .q_stride = g->q_dim,
                             .k_stride = g->kv_dim,
                             .v_stride = g->kv_dim,
                             .out_stride = g->q_dim,
                             .scale = f->scale,
                             .narrow = 1};
    rp_cuda_sdpas *plan = NULL;

    assert_int_equal(rp_cuda_sdpa_find(cuda, &key, &plan), RP_OK);
    if (plan == NULL) {
        return false;
    }
    const rp_cuda_part parts[3] = {
        {f->q, new_guarded(g->n_out), f->n_q, g->q_dim, f->q_stride},
        {f->k, new_guarded(n_k), f->n_kv, g->kv_dim, f->k_stride},
        {f->v, new_guarded(n_k), f->n_kv, g->kv_dim, f->v_stride},
    };
    float *const most = new_guarded(3 * RP_CUDA_QKV_PIECES * sizeof(float));
    rp_cuda_number *const numbers = new_guarded(RP_CUDA_QKV_NUMBERS * sizeof(*numbers));
    void *pointers[SDPA_POINTERS] = {[SDPA_Q] = parts[0].to,
                                     [SDPA_K] = parts[1].to,
                                     [SDPA_V] = parts[2].to,
                                     [SDPA_OUT] = f->rows.data};
    for (int i = 0; i < RP_CUDA_QKV_NUMBERS; i++) {
        pointers[SDPA_NUMBERS + i] = &numbers[i];
    }
    rp_cuda_k_narrow_qkv(cuda->stream, parts, most, numbers, f->rows.scale, f->n_q);
    assert_int_equal(rp_cuda_sdpa_run(cuda, plan, pointers), RP_OK);
    check_numbers(g, numbers);
    for (int i = 0; i < 3; i++) {
        (void)cudaFree(parts[i].to);
    }
    (void)cudaFree(most);
    (void)cudaFree(numbers);
    return true;
}

/* Relative L2 error of the rows. */
static double error_of(const flash_call *g, const float *want)
{
    float *const got = rows_of(g);
    const double error = rpt_rel_l2(got, want, g->n_out);

    free(got);
    return error;
}

static void check_case(const flash_case *c)
{
    flash_call g = new_call(c);
    float *const want = on_cpu(&g);

    launch(&g.job);
    const double error = error_of(&g, want);
    const double theirs = run_theirs(&g) ? error_of(&g, want) : INFINITY;
    print_message("    %d x %d, heads %d / %d, kind %d: error %.4g, cuDNN's %.4g\n", c->n_q,
                  c->n_kv, c->n_heads, c->n_kv_heads, (int)c->kind, error, theirs);
    assert_true(error <= TOLERANCE);
    assert_true(error <= 1.1 * theirs + 1e-3);
    free(want);
    drop_call(&g);
}

static void attention_is_that_of_the_cpu(void **state)
{
    (void)state;
    use_act_or_skip();
    for (size_t i = 0; i < COUNT(flash_cases); i++) {
        check_case(&flash_cases[i]);
    }
}

static void every_run_gives_the_same_bits(void **state)
{
    (void)state;
    enum { TIMES = 100 };
    static const flash_case c = {2111, 1777, 24, 8, 0, PEAKED};

    use_act_or_skip();
    flash_call g = new_call(&c);
    launch(&g.job);
    uint8_t *const first = guarded_bytes(g.job.rows.data, g.n_out);
    for (int i = 0; i < TIMES; i++) {
        launch(&g.job);
        if (i % 10 == 9) {
            uint8_t *const bytes = guarded_bytes(g.job.rows.data, g.n_out);
            assert_memory_equal(bytes, first, g.n_out);
            free(bytes);
        }
    }
    free(first);
    drop_call(&g);
}

/* ---- what is not finite ---- */

/* A NaN in v is in that column of all heads that share it; one in q in that row of its head; no
 * other output is touched. */
static void nan_stays_where_it_belongs(void **state)
{
    (void)state;
    enum {
        COL = 100,
        ROW = 77,
        Q_COL = 2 * HEAD_DIM + 5
    }; /* of v: head 1, column 4; of q: head 2 */
    static const flash_case c = {1100, 640, 6, 2, 0, RANDOM};

    use_act_or_skip();
    flash_call g = new_call(&c);
    const columns q = columns_of(&g, g.host, 0), v = columns_of(&g, g.host, 2);
    *element(&v, 17, COL) = NAN;
    *element(&q, ROW, Q_COL) = NAN;
    pair_ops->put(pair_on[GPU].self, g.qkv.at[GPU], g.host, g.n_in * sizeof(float));
    launch(&g.job);
    float *const got = rows_of(&g);
    for (size_t i = 0; i < g.n_out; i++) {
        const int row = (int)(i / (size_t)g.q_dim), col = (int)(i % (size_t)g.q_dim);
        const bool of_v = col / HEAD_DIM >= 3 && col % HEAD_DIM == COL - HEAD_DIM;
        const bool of_q = row == ROW && col / HEAD_DIM == 2;
        assert_true(isnan(got[i]) == (of_v || of_q));
    }
    free(got);
    drop_call(&g);
}

/* A NaN in k is in all of the heads that share it, and the last keys are no way around it. */
static void nan_of_a_key_is_seen(void **state)
{
    (void)state;
    static const flash_case c = {1024, 577, 4, 2, 0, RANDOM};

    use_act_or_skip();
    flash_call g = new_call(&c);
    const columns k = columns_of(&g, g.host, 1);
    *element(&k, c.n_kv - 1, HEAD_DIM + 9) = NAN;
    pair_ops->put(pair_on[GPU].self, g.qkv.at[GPU], g.host, g.n_in * sizeof(float));
    launch(&g.job);
    float *const got = rows_of(&g);
    for (size_t i = 0; i < g.n_out; i++) {
        assert_true(isnan(got[i]) == ((int)(i % (size_t)g.q_dim) / HEAD_DIM >= 2));
    }
    free(got);
    drop_call(&g);
}

static void zeros_give_zeros(void **state)
{
    (void)state;
    static const flash_case c = {1024, 600, 2, 1, 0, RANDOM};

    use_act_or_skip();
    flash_call g = new_call(&c);
    memset(g.host, 0, g.n_in * sizeof(float));
    pair_ops->put(pair_on[GPU].self, g.qkv.at[GPU], g.host, g.n_in * sizeof(float));
    launch(&g.job);
    float *const got = rows_of(&g);
    for (size_t i = 0; i < g.n_out; i++) {
        assert_true(got[i] == 0.0f);
    }
    free(got);
    drop_call(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inputs_are_rounded_byte_for_byte),
        cmocka_unit_test(attention_is_that_of_the_cpu),
        cmocka_unit_test(every_run_gives_the_same_bits),
        cmocka_unit_test(nan_stays_where_it_belongs),
        cmocka_unit_test(nan_of_a_key_is_seen),
        cmocka_unit_test(zeros_give_zeros),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_flash8", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
