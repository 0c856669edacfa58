/*
 * test_cuda_flash.c - the attention of our own (compute capability 9.0) against the CPU's: shapes
 * that fit no tile, scores that grow and that dwarf each other, the
 * output in 8 bits, what is not finite.
 */
#include "cuda_pair.h"
#include "flash_cases.h"
#include "rp_e4m3.h"

#include "tensor/cuda/cuda.h"

/* ---- one attention on both sides ---- */

typedef struct {
    flash_case c;
    rp_attention_shape shape;
    int q_dim, kv_dim;
    size_t n_in, n_out;
    pair_array qkv, out;
    float *host; /* what qkv was made of */
} flash_call;

static void make_values(flash_call *g)
{
    g->host = malloc(g->n_in * sizeof(*g->host));
    assert_non_null(g->host);
    make_rows(&g->c, g->host, g->n_in, (size_t)g->shape.q_stride, 71);
}

static flash_call new_call(const flash_case *c)
{
    const int q_dim = c->n_heads * HEAD_DIM, kv_dim = c->n_kv_heads * HEAD_DIM;
    const int row = q_dim + 2 * kv_dim + c->gap, out_row = q_dim + c->gap;
    flash_call g = {.c = *c, .q_dim = q_dim, .kv_dim = kv_dim};

    g.shape = (rp_attention_shape){.n_q = c->n_q,
                                   .n_kv = c->n_kv,
                                   .n_heads = c->n_heads,
                                   .n_kv_heads = c->n_kv_heads,
                                   .head_dim = HEAD_DIM,
                                   .q_stride = row,
                                   .k_stride = row,
                                   .v_stride = row,
                                   .out_stride = out_row,
                                   .scale = 1.0f / sqrtf((float)HEAD_DIM)};
    g.n_in = (size_t)(c->n_q > c->n_kv ? c->n_q : c->n_kv) * (size_t)row;
    g.n_out = (size_t)c->n_q * (size_t)out_row;
    make_values(&g);
    g.qkv = pair_of(PAIR_ACT, g.n_in, g.host);
    g.out = pair_random(PAIR_ACT, g.n_out, 72, 1.0f, 0); /* columns of the gap stay as they are */
    return g;
}

static void drop_call(flash_call *g)
{
    pair_drop(&g->qkv);
    pair_drop(&g->out);
    free(g->host);
}

static void attend(const flash_call *g, int side)
{
    const rp_backend *b = &pair_on[side];
    const float *const q = g->qkv.at[side], *const k = q + g->q_dim;

    b->ops->attention(b->self, &g->shape, q, k, k + g->kv_dim, g->out.at[side]);
}

static rp_cuda_flash job_of(const flash_call *g)
{
    rp_cuda *cuda = pair_on[GPU].self;
    const rp_attention_shape *s = &g->shape;
    char *const q = rp_cuda_at(cuda, g->qkv.at[GPU]).data;

    return (rp_cuda_flash){.n_q = s->n_q,
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
                           .v = q + (size_t)(g->q_dim + g->kv_dim) * 2,
                           .out = rp_cuda_at(cuda, g->out.at[GPU]).data};
}

static void launch(const rp_cuda_flash *job)
{
    rp_cuda *cuda = pair_on[GPU].self;

    assert_int_equal(rp_cuda_k_flash(cuda->stream, job), cudaSuccess);
}

static float *bits_of(const flash_call *g)
{
    float *x = malloc(g->n_out * sizeof(*x));

    assert_non_null(x);
    pair_get(g->out.at[GPU], x, g->n_out);
    return x;
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
    const rp_cuda_flash job = job_of(&g);
    const rp_cuda *cuda = pair_on[GPU].self;
    const bool can = rp_cuda_flash_can(&job, cuda->capability);
    drop_call(&g);
    if (!can) {
        print_message("not on this device: compute capability %d\n", cuda->capability);
        skip();
    }
}

/* ---- tests ---- */

/* The kernel is the CPU's attention; the op is the kernel, where it pays. */
static void check_case(const flash_case *c)
{
    flash_call g = new_call(c);
    const rp_cuda_flash job = job_of(&g);
    float *const start = bits_of(&g);

    pair_say("%d x %d, heads %d / %d, kind %d", c->n_q, c->n_kv, c->n_heads, c->n_kv_heads,
             (int)c->kind);
    attend(&g, CPU);
    attend(&g, GPU);
    float *const op = bits_of(&g);
    pair_ops->put(pair_on[GPU].self, g.out.at[GPU], start, g.n_out * sizeof(*start));
    launch(&job);
    (void)pair_check("attention", &g.out, PAIR_CLOSE);
    float *const bits = bits_of(&g);
    if (rp_cuda_flash_pays(&job)) {
        assert_memory_equal(bits, op, g.n_out * sizeof(*bits));
    }
    (void)pair_check("the input of attention", &g.qkv, PAIR_EXACT);
    free(bits);
    free(op);
    free(start);
    drop_call(&g);
}

static void attention_is_that_of_the_cpu(void **state)
{
    (void)state;
    use_act_or_skip();
    for (size_t i = 0; i < COUNT(flash_cases); i++) {
        check_case(&flash_cases[i]);
    }
    pair_done();
}

static void every_run_gives_the_same_bits(void **state)
{
    (void)state;
    enum { TIMES = 100 };
    static const flash_case c = {2111, 1777, 24, 8, 0, PEAKED};

    use_act_or_skip();
    flash_call g = new_call(&c);
    const rp_cuda_flash job = job_of(&g);
    launch(&job);
    float *const first = bits_of(&g);
    for (int i = 0; i < TIMES; i++) {
        launch(&job);
        if (i % 10 == 9) {
            float *const bits = bits_of(&g);
            assert_memory_equal(bits, first, g.n_out * sizeof(*bits));
            free(bits);
        }
    }
    free(first);
    drop_call(&g);
}

/* A last round with few tiles is cuDNN's. */
static void most_multiprocessors_are_busy(void **state)
{
    (void)state;
    static const struct {
        int n_q, n_heads;
        bool pays;
    } cases[] = {{4224, 24, true}, {4096, 24, true},  {1152, 24, false}, {1152, 20, true},
                 {1152, 22, true}, {1153, 19, false}, {1153, 23, true}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        const rp_cuda_flash job = {.n_q = cases[i].n_q, .n_heads = cases[i].n_heads};
        assert_int_equal(rp_cuda_flash_pays(&job), cases[i].pays);
    }
}

/* ---- e4m3 ---- */

/* The largest magnitude in v; a NaN is none. */
static float largest(const flash_call *g)
{
    const size_t stride = (size_t)g->shape.v_stride;
    float most = 0.0f;

    for (size_t i = 0; i < (size_t)g->c.n_kv; i++) {
        const float *const v = g->host + i * stride + g->q_dim + g->kv_dim;
        for (int j = 0; j < g->kv_dim; j++) {
            most = fmaxf(most, fabsf(v[j]));
        }
    }
    return most;
}

/* Output in 8 bits, on the host; guards behind it are looked at. */
typedef struct {
    uint8_t *data;
    float *scale;
} host_rows;

static host_rows run_narrow(const flash_call *g)
{
    enum { GUARDS = 64, GUARD = 0x5a };
    rp_cuda *cuda = pair_on[GPU].self;
    const size_t n = (size_t)g->c.n_q * (size_t)g->q_dim, t = (size_t)g->c.n_q;
    void *data = NULL, *scale = NULL, *most = NULL;
    rp_cuda_flash job = job_of(g);
    host_rows out = {malloc(n + GUARDS), malloc((t + GUARDS) * sizeof(float))};

    assert_true(out.data != NULL && out.scale != NULL);
    assert_int_equal(rp_cuda_malloc(cuda, n + GUARDS, "test", &data), RP_OK);
    assert_int_equal(rp_cuda_malloc(cuda, (t + GUARDS) * sizeof(float), "test", &scale), RP_OK);
    assert_int_equal(rp_cuda_malloc(cuda, RP_CUDA_FLASH_PIECES * sizeof(float), "test", &most),
                     RP_OK);
    assert_int_equal(cudaMemsetAsync(data, GUARD, n + GUARDS, cuda->stream), cudaSuccess);
    assert_int_equal(cudaMemsetAsync(scale, GUARD, (t + GUARDS) * sizeof(float), cuda->stream),
                     cudaSuccess);
    job.rows = (rp_cuda_narrow){data, scale};
    job.most = most;
    launch(&job);
    assert_int_equal(cudaStreamSynchronize(cuda->stream), cudaSuccess);
    assert_int_equal(cudaMemcpy(out.data, data, n + GUARDS, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_int_equal(
        cudaMemcpy(out.scale, scale, (t + GUARDS) * sizeof(float), cudaMemcpyDeviceToHost),
        cudaSuccess);
    for (size_t i = 0; i < GUARDS; i++) {
        assert_int_equal(out.data[n + i], GUARD);
        assert_int_equal(((uint8_t *)(out.scale + t))[i], GUARD);
    }
    (void)cudaFree(data);
    (void)cudaFree(scale);
    (void)cudaFree(most);
    return out;
}

static void drop_rows(host_rows *rows)
{
    free(rows->data);
    free(rows->scale);
}

/* Off the exact output as much as its own rounding is. */
static void check_narrow(const flash_call *g, const host_rows *rows)
{
    const size_t n = (size_t)g->c.n_q * (size_t)g->q_dim, width = (size_t)g->q_dim;
    const float scale = largest(g) / 448.0f;
    float *want = malloc(n * sizeof(*want)), *rounded = malloc(n * sizeof(*rounded));
    float *got = malloc(n * sizeof(*got));

    assert_true(want != NULL && rounded != NULL && got != NULL);
    for (size_t i = 0; i < n; i++) {
        const size_t row = i / width;
        want[i] = g->out.at[CPU][row * (size_t)g->shape.out_stride + i % width];
        rounded[i] = (float)rpt_e4m3_value(rpt_e4m3_of((double)(want[i] / scale))) * scale;
        got[i] = (float)rpt_e4m3_value(rows->data[i]) * scale;
    }
    for (int i = 0; i < g->c.n_q; i++) {
        assert_true(rows->scale[i] == scale);
    }
    const double error = rpt_rel_l2(got, want, n), own = rpt_rel_l2(rounded, want, n);
    print_message("    %d x %d in e4m3: error %.4g, rounding alone %.4g, apart %.2g\n", g->c.n_q,
                  g->c.n_kv, error, own, rpt_rel_l2(got, rounded, n));
    assert_true(error <= 1.05 * own + 2e-3);
    free(want);
    free(rounded);
    free(got);
}

static void rows_in_8_bits(void **state)
{
    (void)state;
    static const flash_case cases[] = {{1111, 777, 6, 2, 40, RANDOM},
                                       {2112, 4224, 3, 1, 0, RANDOM},
                                       {1111, 2001, 3, 1, 0, GROWING},
                                       {1300, 777, 24, 8, 0, PEAKED}};

    use_act_or_skip();
    for (size_t i = 0; i < COUNT(cases); i++) {
        flash_call g = new_call(&cases[i]);
        attend(&g, CPU);
        host_rows rows = run_narrow(&g);
        check_narrow(&g, &rows);
        drop_rows(&rows);
        drop_call(&g);
    }
}

/* ---- what is not finite ---- */

/* A NaN in v is in that column of all heads that share it, and nowhere else. */
static void nan_stays_in_its_column(void **state)
{
    (void)state;
    enum { COL = 100 }; /* of v: head 1, column 4; heads 3 to 5 of out */
    static const flash_case c = {1100, 640, 6, 2, 0, RANDOM};

    use_act_or_skip();
    flash_call g = new_call(&c);
    g.host[(size_t)17 * (size_t)g.shape.v_stride + (size_t)(g.q_dim + g.kv_dim + COL)] = NAN;
    pair_ops->put(pair_on[GPU].self, g.qkv.at[GPU], g.host, g.n_in * sizeof(float));
    attend(&g, GPU);
    float *const wide = bits_of(&g);
    host_rows rows = run_narrow(&g);
    for (size_t i = 0; i < g.n_out; i++) {
        const int col = (int)(i % (size_t)g.q_dim);
        const bool hit = col / HEAD_DIM >= 3 && col % HEAD_DIM == COL - HEAD_DIM;
        assert_true(hit ? isnan(wide[i]) : isfinite(wide[i]));
        assert_true(isnan(rpt_e4m3_value(rows.data[i])) == hit);
    }
    assert_true(rows.scale[0] == largest(&g) / 448.0f);
    drop_rows(&rows);
    free(wide);
    drop_call(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_that_of_the_cpu),
        cmocka_unit_test(every_run_gives_the_same_bits),
        cmocka_unit_test(most_multiprocessors_are_busy),
        cmocka_unit_test(rows_in_8_bits),
        cmocka_unit_test(nan_stays_in_its_column),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_flash", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
