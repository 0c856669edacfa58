/*
 * test_backend_cpu.c - the CPU backend: its table, memory and errors; linear algebra against plain
 * loops in double precision, over shapes that cross the sizes of its tasks. (The other ops:
 * test_cpu_ops.c.)
 */
#include "rp_op_check.h"

/* ---- registry, memory, errors ---- */

/* The slots are pointers: none may be NULL in any row. */
static void every_backend_fills_every_slot(void **state)
{
    (void)state;
    for (size_t b = 0; rp_backend_list[b] != NULL; b++) {
        for (size_t i = 0; i < sizeof(rp_backend_ops) / sizeof(void *); i++) {
            void *slot;
            memcpy(&slot, (const char *)rp_backend_list[b] + i * sizeof(slot), sizeof(slot));
            if (slot == NULL) {
                fail_msg("backend %s: slot %zu is empty", rp_backend_list[b]->name, i);
            }
        }
    }
    assert_string_equal(g_ops->name, "cpu");
    assert_true(g_ops->usable());
}

static void dtypes_have_names_and_sizes(void **state)
{
    (void)state;
    static const char *const name[RP_N_DTYPES] = {"F32", "F16", "BF16", "I32", "U8", "F8_E4M3"};
    static const size_t bytes[RP_N_DTYPES] = {4, 2, 2, 4, 1, 1};
    const rp_tensor scalar = {.n_dims = 0};
    const rp_tensor box = {.n_dims = 3, .dim = {2, 3, 5, 1}};

    for (int i = 0; i < RP_N_DTYPES; i++) {
        assert_string_equal(rp_dtype_name((rp_dtype)i), name[i]);
        assert_int_equal(rp_dtype_bytes((rp_dtype)i), bytes[i]);
    }
    assert_int_equal(rp_tensor_elems(&scalar), 1);
    assert_int_equal(rp_tensor_elems(&box), 30);
}

static void memory_is_zeroed_aligned_and_copied(void **state)
{
    (void)state;
    void *a = NULL, *b = NULL;
    const char text[8] = "rankpoo";
    char back[8] = "";

    assert_int_equal(g_ops->alloc(g_self[0], 1000, "a", &a), RP_OK);
    assert_int_equal(g_ops->alloc(g_self[0], 8, "b", &b), RP_OK);
    assert_int_equal((uintptr_t)a % 64, 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(((const char *)a)[i], 0);
    }
    g_ops->put(g_self[0], a, text, sizeof(text));
    g_ops->copy(g_self[0], b, a, sizeof(text));
    g_ops->get(g_self[0], back, b, sizeof(text));
    assert_memory_equal(back, text, sizeof(text));
    g_ops->release(g_self[0], a);
    g_ops->release(g_self[0], b);
    g_ops->release(g_self[0], NULL);
    g_ops->close(NULL);
}

static void precisions_have_names(void **state)
{
    (void)state;
    for (int p = RP_PRECISION_AUTO; p <= RP_PRECISION_FP8_ATTENTION; p++) {
        assert_int_equal(rp_precision_named(rp_precision_name((rp_precision)p)), p);
    }
    assert_int_equal(rp_precision_named("fp16"), RP_PRECISION_AUTO);
    assert_int_equal(rp_precision_named(NULL), RP_PRECISION_AUTO);
    assert_true(rp_precision_is_fp8(RP_PRECISION_FP8_ATTENTION));
    assert_false(rp_precision_is_fp8(RP_PRECISION_BF16));
}

static void bad_parameters_and_weights_are_refused(void **state)
{
    (void)state;
    const rp_backend_params none = {.n_threads = 0};
    const rp_backend_params bf16 = {.n_threads = 1, .precision = RP_PRECISION_BF16};
    const rp_backend_params fp8 = {.n_threads = 1, .precision = RP_PRECISION_FP8_ATTENTION};
    const rp_tensor ints = {.dtype = RP_I32, .n_dims = 1, .dim = {4, 1, 1, 1}};
    rp_tensor out = {.n_dims = 77};
    void *self = &out;

    assert_int_equal(g_ops->open(&none, &self), RP_E_ARG);
    assert_int_equal(g_ops->open(&bf16, &self), RP_E_UNSUP);
    assert_non_null(strstr(rpt_log_last(), "precision bf16: the CPU computes in f32"));
    assert_int_equal(g_ops->open(&fp8, &self), RP_E_UNSUP);
    assert_non_null(strstr(rpt_log_last(), "precision fp8-attention: the CPU computes in f32"));
    assert_true(self == &out);
    assert_int_equal(g_ops->weight(g_self[0], &ints, &out), RP_E_UNSUP);
    assert_string_equal(rpt_log_last(),
                        "weight of type I32; F32, F16, BF16 and F8_E4M3 are supported");
    assert_int_equal(out.n_dims, 77);
}

static void too_little_scratch_is_told_by_sync_once(void **state)
{
    (void)state;
    const rp_backend_params params = {.n_threads = 1};
    const int k = 1000;
    rp_tensor w = new_weight(RP_BF16, 3, k, 1);
    const rp_tensor *const list[] = {&w};
    float *x = new_values(8 * (size_t)k, 2);
    float *out = new_floats(8 * 3);
    void *self = NULL;

    assert_int_equal(g_ops->open(&params, &self), RP_OK);
    g_ops->linear(self, x, 8, k, k, list, 1, NULL, out);
    assert_int_equal(g_ops->peek(self), RP_E_ARG);
    assert_int_equal(g_ops->sync(self), RP_E_ARG);
    assert_int_equal(g_ops->peek(self), RP_OK);
    assert_int_equal(g_ops->sync(self), RP_OK);
    assert_int_equal(g_ops->reserve(self, k, 10, 8), RP_OK);
    for (int i = 0; i < 2; i++) { /* what was reserved stays when memory is short */
        g_ops->linear(self, x, 8, k, k, list, 1, NULL, out);
        assert_int_equal(g_ops->sync(self), RP_OK);
        g_ops->trim(self);
    }
    g_ops->close(self);
    drop(w.data);
    drop(x);
    drop(out);
}

static void other_precisions_are_refused(void **state)
{
    (void)state;
    const rp_backend_params half = {.n_threads = 1, .precision = RP_PRECISION_BF16};
    const rp_backend_params full = {.n_threads = 1, .precision = RP_PRECISION_F32};
    rp_device_info info = {.on_device = true, .bytes_scratch = 1};
    void *self = NULL;

    assert_int_equal(g_ops->open(&half, &self), RP_E_UNSUP);
    assert_non_null(strstr(rpt_log_last(), "--precision f32 or auto"));
    assert_null(self);
    assert_int_equal(g_ops->open(&full, &self), RP_OK);
    g_ops->info(self, &info);
    assert_string_equal(info.precision, "f32");
    assert_false(info.on_device);
    assert_int_equal(info.bytes_scratch, 0);
    g_ops->close(self);
}

static void made_weights_are_normal_and_repeat(void **state)
{
    (void)state;
    enum { N = 10000 };
    const rp_tensor shape = {.dtype = RP_BF16, .n_dims = 2, .dim = {N / 100, 100, 1, 1}};
    rp_tensor a, b, ones;
    double sum = 0, sum_sq = 0;

    assert_int_equal(g_ops->weight_fill(g_self[0], &shape, 7, 0.02f, &a), RP_OK);
    assert_int_equal(g_ops->weight_fill(g_self[1], &shape, 7, 0.02f, &b), RP_OK);
    assert_int_equal(g_ops->weight_fill(g_self[0], &shape, 7, 0.0f, &ones), RP_OK);
    assert_memory_equal(a.data, b.data, N * sizeof(float));
    for (int i = 0; i < N; i++) {
        const double x = ((const float *)a.data)[i];
        sum += x;
        sum_sq += x * x;
        assert_true(((const float *)ones.data)[i] == 1.0f);
    }
    assert_true(fabs(sum / N) < 1e-3);
    assert_true(fabs(sqrt(sum_sq / N) - 0.02) < 1e-3);
    g_ops->weight_release(g_self[0], &a);
    g_ops->weight_release(g_self[1], &b);
    g_ops->weight_release(g_self[0], &ones);
    assert_null(ones.data);
}

static void numbers_that_are_not_finite_are_told_once(void **state)
{
    (void)state;
    float x[5] = {1, 2, 3, 4, 5};
    const float bad[] = {INFINITY, -INFINITY, NAN};

    for (int i = 0; i < 5; i++) {
        for (size_t j = 0; j < COUNT(bad); j++) {
            x[i] = bad[j];
            g_ops->check_finite(g_self[0], x, 5);
            assert_int_equal(g_ops->sync(g_self[0]), RP_E_MODEL);
        }
        x[i] = 3.4e38f;
        g_ops->check_finite(g_self[0], x, 5);
        assert_int_equal(g_ops->sync(g_self[0]), RP_OK);
    }
}

static void rows_are_copied_with_strides(void **state)
{
    (void)state;
    const float src[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float expect[] = {1, 2, 0, 4, 5, 0, 7, 8, 0};
    float dst[9] = {0};

    g_ops->copy_rows(g_self[0], dst, 3, src, 3, 3, 2);
    assert_memory_equal(dst, expect, sizeof(dst));
}

/* ---- linear algebra ---- */

typedef struct {
    const rp_tensor *table;
    const int32_t *ids;
    int t;
    float scale;
} embed_args;

static void run_embed(void *self, const void *args, float *out)
{
    const embed_args *a = args;

    g_ops->embed(self, a->table, a->ids, a->t, a->scale, out);
}

static void embed_picks_rows(void **state)
{
    (void)state;
    static const int32_t ids[] = {4, 0, 4, 2, 6};
    static const int width[] = {1, 3, 192};

    for (size_t i = 0; i < COUNT(width) * 3; i++) {
        const int d = width[i / 3];
        rp_tensor table = new_weight((rp_dtype)(i % 3), 7, d, 3);
        embed_args args = {&table, ids, (int)COUNT(ids), 13.5f};
        float *want = new_floats(COUNT(ids) * (size_t)d);
        for (size_t j = 0; j < COUNT(ids) * (size_t)d; j++) {
            const size_t row = (size_t)ids[j / (size_t)d];
            want[j] = (float)(at(&table, row * (size_t)d + j % (size_t)d) * 13.5);
        }
        check_op("embed", run_embed, &args, NULL, want, COUNT(ids) * (size_t)d);
        drop(table.data);
    }
}

typedef struct {
    int t, k, extra; /* x_stride = k + extra */
    int n_w, n[4];
    bool bias;
    rp_dtype dtype;
} linear_case;

typedef struct {
    const linear_case *c;
    const float *x;
    const rp_tensor *const *w;
    const rp_tensor *bias;
} linear_args;

static void run_linear(void *self, const void *args, float *out)
{
    const linear_args *a = args;

    g_ops->linear(self, a->x, a->c->t, a->c->k, a->c->k + a->c->extra, a->w, a->c->n_w, a->bias,
                  out);
}

static void check_linear(const linear_case *c)
{
    rp_tensor w[4], bias = new_weight(c->dtype, 1, c->n[0], 50);
    const rp_tensor *list[4];
    const size_t stride = (size_t)(c->k + c->extra);
    const float *x = new_values((size_t)c->t * stride, 4);
    size_t n_out = 0, column = 0;

    for (int i = 0; i < c->n_w; i++) {
        w[i] = new_weight(c->dtype, c->n[i], c->k, 10 + (unsigned)i);
        list[i] = &w[i];
        n_out += (size_t)c->n[i];
    }
    float *want = new_floats((size_t)c->t * n_out);
    for (int i = 0; i < c->n_w; i++) {
        for (size_t j = 0; j < (size_t)c->n[i]; j++, column++) {
            for (size_t r = 0; r < (size_t)c->t; r++) {
                double sum = c->bias ? at(&bias, j) : 0;
                for (size_t e = 0; e < (size_t)c->k; e++) {
                    sum += at(&w[i], j * (size_t)c->k + e) * (double)x[r * stride + e];
                }
                want[r * n_out + column] = (float)sum;
            }
        }
    }
    const linear_args args = {c, x, list, c->bias ? &bias : NULL};
    check_op("linear", run_linear, &args, NULL, want, (size_t)c->t * n_out);
    for (int i = 0; i < c->n_w; i++) {
        drop(w[i].data);
    }
    drop(bias.data);
    drop(x);
}

/* ---- gated pair of products ---- */

typedef struct {
    int t, k, d;
    rp_dtype dtype;
    const float *x;
    rp_tensor gate, up;
    bool feeds_linear;
} gated_args;

static void run_gated(void *self, const void *args, float *out)
{
    const gated_args *a = args;
    float *room = new_floats(2 * (size_t)a->t * (size_t)a->d);

    g_ops->gated_linear(self, a->x, a->t, a->k, &a->gate, &a->up, a->feeds_linear, room, out);
    drop(room);
}

static double row_times_row(const float *x, const rp_tensor *w, size_t row, size_t k)
{
    double sum = 0;

    for (size_t i = 0; i < k; i++) {
        sum += (double)x[i] * at(w, row * k + i);
    }
    return sum;
}

static void gated_linear_is_silu_of_one_product_times_the_other(void **state)
{
    (void)state;
    gated_args cases[] = {{.t = 1, .k = 1, .d = 1, .dtype = RP_F32},
                          {.t = 3, .k = 7, .d = 5, .dtype = RP_F16},
                          {.t = 97, .k = 64, .d = 130, .dtype = RP_BF16, .feeds_linear = true},
                          {.t = 2, .k = 300, .d = 257, .dtype = RP_F32}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        gated_args *a = &cases[i];
        const size_t t = (size_t)a->t, k = (size_t)a->k, d = (size_t)a->d;
        float *want = new_floats(t * d);
        a->x = new_values(t * k, 21);
        a->gate = new_weight(a->dtype, a->d, a->k, 22);
        a->up = new_weight(a->dtype, a->d, a->k, 23);
        for (size_t j = 0; j < t * d; j++) {
            const double gate = row_times_row(a->x + j / d * k, &a->gate, j % d, k);
            const double up = row_times_row(a->x + j / d * k, &a->up, j % d, k);
            want[j] = (float)(gate / (1 + exp(-gate)) * up);
        }
        check_op("gated_linear", run_gated, a, NULL, want, t * d);
        drop(a->x);
        drop(a->gate.data);
        drop(a->up.data);
    }
}

static void linear_is_a_matrix_product(void **state)
{
    (void)state;
    static const linear_case cases[] = {
        {1, 1, 0, 1, {1}, false, RP_F32},
        {1, 3, 0, 1, {5}, true, RP_BF16},
        {4, 256, 0, 1, {300}, true, RP_F16},
        {5, 31, 2, 1, {129}, true, RP_BF16},
        {2, 17, 5, 2, {3, 130}, false, RP_BF16},
        {97, 256, 0, 3, {256, 128, 128}, false, RP_BF16},
        {65, 64, 0, 4, {1, 127, 128, 200}, false, RP_F16},
        {33, 65, 7, 2, {257, 3}, false, RP_F32},
        {520, 40, 0, 1, {140}, true, RP_BF16},
        {1025, 8, 0, 2, {9, 130}, false, RP_F32},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        check_linear(&cases[i]);
    }
}

typedef struct {
    rp_attention_shape s;
    const float *q, *k, *v;
} attention_args;

static void run_attention(void *self, const void *args, float *out)
{
    const attention_args *a = args;

    g_ops->attention(self, &a->s, a->q, a->k, a->v, out);
}

static bool sees(const rp_attention_shape *s, int i, int j)
{
    return !s->causal || (j <= i && (s->window == 0 || i - j < s->window));
}

/* One query row of one head. */
static void attend(const attention_args *a, int head, int i, double *p, float *out)
{
    const rp_attention_shape *s = &a->s;
    const int kv_head = head / (s->n_heads / s->n_kv_heads);
    double sum = 0;

    for (int j = 0; j < s->n_kv; j++) {
        double dot = 0;
        for (int e = 0; e < s->head_dim; e++) {
            dot += (double)a->q[i * s->q_stride + head * s->head_dim + e] *
                   (double)a->k[j * s->k_stride + kv_head * s->head_dim + e];
        }
        dot *= (double)s->scale;
        if (s->softcap > 0) {
            dot = (double)s->softcap * tanh(dot / (double)s->softcap);
        }
        p[j] = sees(s, i, j) ? exp(dot) : 0;
        sum += p[j];
    }
    for (int e = 0; e < s->head_dim; e++) {
        double y = 0;
        for (int j = 0; j < s->n_kv; j++) {
            y += p[j] / sum * (double)a->v[j * s->v_stride + kv_head * s->head_dim + e];
        }
        out[i * s->out_stride + head * s->head_dim + e] = (float)y;
    }
}

static void check_attention(const rp_attention_shape *shape)
{
    const size_t n_out = (size_t)shape->n_q * (size_t)shape->out_stride;
    const float *q = new_values((size_t)shape->n_q * (size_t)shape->q_stride, 5);
    const float *k = new_values((size_t)shape->n_kv * (size_t)shape->k_stride, 6);
    const float *v = new_values((size_t)shape->n_kv * (size_t)shape->v_stride, 7);
    float *start = new_values(n_out, 8); /* what lies between rows stays */
    float *want = new_floats(n_out);
    double *p = calloc((size_t)shape->n_kv, sizeof(*p));
    attention_args args = {*shape, q, k, v};

    memcpy(want, start, n_out * sizeof(*want));
    for (int head = 0; head < shape->n_heads; head++) {
        for (int i = 0; i < shape->n_q; i++) {
            attend(&args, head, i, p, want);
        }
    }
    check_op("attention", run_attention, &args, start, want, n_out);
    free(p);
    drop(start);
    drop(q);
    drop(k);
    drop(v);
}

static void attention_follows_the_definition(void **state)
{
    (void)state;
    static const rp_attention_shape cases[] = {
        /* n_q n_kv heads kv d   strides           scale  cap  causal window feeds */
        {1, 1, 1, 1, 1, 1, 1, 1, 1, 1.0f, 0, false, 0, false},
        {3, 5, 3, 1, 3, 9, 3, 3, 9, 0.5f, 0, false, 0, false},
        {97, 97, 4, 2, 64, 512, 512, 512, 256, 0.125f, 0, false, 0, false},
        {7, 300, 2, 2, 16, 40, 33, 32, 35, 0.25f, 0, false, 0, false},
        {300, 7, 6, 2, 5, 30, 10, 11, 31, 0.4f, 0, false, 0, false},
        {40, 40, 4, 2, 32, 128, 64, 64, 128, 0.18f, 2.0f, true, 0, false},
        {300, 300, 2, 1, 8, 16, 8, 8, 16, 0.5f, 0, true, 0, false},
        {300, 300, 2, 1, 8, 16, 8, 8, 16, 0.5f, 50.0f, true, 9, false},
        {260, 260, 1, 1, 24, 24, 24, 24, 24, 0.2f, 0, true, 200, false},
        {20, 20, 1, 1, 4, 4, 4, 4, 4, 1.0f, 0, true, 1, false},
        {1, 1, 5, 1, 16, 80, 16, 16, 80, 0.2f, 50.0f, true, 8, false},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        check_attention(&cases[i]);
    }
}

/* exp of the raw scores would overflow. */
static void attention_survives_large_scores(void **state)
{
    (void)state;
    const rp_attention_shape s = {.n_q = 2,
                                  .n_kv = 2,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = 1,
                                  .q_stride = 1,
                                  .k_stride = 1,
                                  .v_stride = 1,
                                  .out_stride = 1,
                                  .scale = 1.0f};
    const float q[] = {1000.0f, -1000.0f}, k[] = {1.0f, 1023.0f / 1024.0f}, v[] = {3.0f, 4.0f};
    const float share = 1.0f / (1.0f + expf(-1000.0f / 1024.0f)); /* of the larger score */
    float out[2] = {0};

    g_ops->attention(g_self[0], &s, q, k, v, out);
    /* assert_float_equal takes infinity for equal to anything */
    assert_true(isfinite(out[0]) && isfinite(out[1]));
    assert_float_equal(out[0], 3.0f * share + 4.0f * (1 - share), 1e-6f);
    assert_float_equal(out[1], 4.0f * share + 3.0f * (1 - share), 1e-6f);
}

/* After a restart the scratch and the threads are there as before. */
static void restart_keeps_everything_usable(void **state)
{
    (void)state;
    static const linear_case big = {97, 256, 0, 3, {256, 128, 128}, false, RP_BF16};

    for (int i = 0; i < N_SELVES; i++) {
        assert_int_equal(g_ops->restart(g_self[i]), RP_OK);
    }
    check_linear(&big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_backend_fills_every_slot),
        cmocka_unit_test(dtypes_have_names_and_sizes),
        cmocka_unit_test(memory_is_zeroed_aligned_and_copied),
        cmocka_unit_test(precisions_have_names),
        cmocka_unit_test(bad_parameters_and_weights_are_refused),
        cmocka_unit_test(too_little_scratch_is_told_by_sync_once),
        cmocka_unit_test(other_precisions_are_refused),
        cmocka_unit_test(made_weights_are_normal_and_repeat),
        cmocka_unit_test(numbers_that_are_not_finite_are_told_once),
        cmocka_unit_test(rows_are_copied_with_strides),
        cmocka_unit_test(embed_picks_rows),
        cmocka_unit_test(linear_is_a_matrix_product),
        cmocka_unit_test(gated_linear_is_silu_of_one_product_times_the_other),
        cmocka_unit_test(attention_follows_the_definition),
        cmocka_unit_test(attention_survives_large_scores),
        cmocka_unit_test(restart_keeps_everything_usable),
    };
    return cmocka_run_group_tests_name("backend_cpu", tests, set_up, tear_down);
}
