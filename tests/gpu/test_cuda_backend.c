/*
 * test_cuda_backend.c - what is not arithmetic in the CUDA backend: memory, made weights, the check
 * for finite numbers, recorded sequences, restart, refusals.
 */
#include "cuda_pair.h"

/* ---- memory ---- */

static void *new_memory(pair_kind kind, size_t n)
{
    void *mem = NULL;

    if (kind == PAIR_ALLOC) {
        assert_int_equal(pair_ops->alloc(pair_on[GPU].self, n * sizeof(float), "test", &mem),
                         RP_OK);
    } else {
        assert_int_equal(pair_ops->alloc_act(pair_on[GPU].self, n, "test", &mem), RP_OK);
    }
    return mem;
}

static void memory_is_zeroed_and_released(void **state)
{
    (void)state;
    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        float got[1000];
        for (int again = 0; again < 2; again++) { /* the second may be where the first was */
            float *a = new_memory(pair_modes[m].in, 1000), *b = new_memory(pair_modes[m].out, 1000);
            pair_get(a, got, 1000);
            for (int i = 0; i < 1000; i++) {
                assert_true(got[i] == 0.0f);
                got[i] = (float)(i % 200);
            }
            pair_ops->put(pair_on[GPU].self, a, got, sizeof(got));
            pair_ops->release(pair_on[GPU].self, a);
            pair_ops->release(pair_on[GPU].self, b);
        }
        pair_ops->release(pair_on[GPU].self, NULL);
    }
    pair_ops->close(NULL);
}

/* host -> a at `to` -> b at `over` -> host, n floats; the neighbours stay. */
static void there_and_back(pair_kind a_kind, pair_kind b_kind, size_t to, size_t over, size_t n)
{
    enum { ROOM = 700 };
    const rp_backend *g = &pair_on[GPU];
    float *a = new_memory(a_kind, ROOM), *b = new_memory(b_kind, ROOM);
    float host[ROOM], got[ROOM];

    for (size_t i = 0; i < n; i++) {
        host[i] = (float)(i % 251) - 100.0f; /* bf16 keeps these */
    }
    g->ops->put(g->self, a + to, host, n * sizeof(float));
    g->ops->copy(g->self, b + over, a + to, n * sizeof(float));
    pair_get(a + to, got, n);
    assert_memory_equal(got, host, n * sizeof(float));
    pair_get(b, got, ROOM);
    for (size_t i = 0; i < ROOM; i++) {
        assert_true(got[i] == (i >= over && i < over + n ? host[i - over] : 0.0f));
    }
    pair_get(a, got, ROOM);
    for (size_t i = 0; i < ROOM; i++) {
        assert_true(got[i] == (i >= to && i < to + n ? host[i - to] : 0.0f));
    }
    g->ops->release(g->self, a);
    g->ops->release(g->self, b);
}

static void put_get_and_copy_work_at_odd_places(void **state)
{
    (void)state;
    static const size_t place[][3] = {/* to over n */
                                      {0, 0, 700},  {0, 0, 1},   {1, 0, 1},   {5, 9, 3},
                                      {13, 1, 257}, {3, 3, 512}, {7, 64, 65}, {699, 698, 1}};

    for (size_t i = 0; i < COUNT(place) * (size_t)pair_n_modes; i++) {
        const size_t *p = place[i / (size_t)pair_n_modes];
        pair_use(&pair_modes[i % (size_t)pair_n_modes]);
        there_and_back(pair_modes[i % (size_t)pair_n_modes].in,
                       pair_modes[i % (size_t)pair_n_modes].out, p[0], p[1], p[2]);
    }
}

/* What bf16 cannot keep is rounded to nearest, even on a tie; f32 memory keeps every bit. */
static void activations_are_rounded_and_the_rest_is_not(void **state)
{
    (void)state;
    const float in[6] = {1.0f + 0x1p-8f, 1.0f + 3 * 0x1p-8f, 1.0f + 0x1p-9f, -3.1415927f, 1e-30f,
                         3e38f};
    const float rounded[6] = {1.0f, 1.0f + 4 * 0x1p-8f, 1.0f, -3.140625f, 0, 0};

    for (int m = 0; m < pair_n_modes; m++) {
        float got[6];
        pair_use(&pair_modes[m]);
        const bool half =
            pair_modes[m].precision == RP_PRECISION_BF16 && pair_modes[m].in != PAIR_ALLOC;
        float *mem = new_memory(pair_modes[m].in, 6);
        pair_ops->put(pair_on[GPU].self, mem, in, sizeof(in));
        pair_get(mem, got, 6);
        if (half) {
            assert_memory_equal(got, rounded, 4 * sizeof(float));
            assert_true(fabsf(got[4] / in[4] - 1) < 0.01f && fabsf(got[5] / in[5] - 1) < 0.01f);
        } else {
            assert_memory_equal(got, in, sizeof(in));
        }
        pair_ops->release(pair_on[GPU].self, mem);
    }
}

/* put() may not look at the host memory after it returns: the caller fills it again. */
static void a_sequence_of_puts_keeps_each_value(void **state)
{
    (void)state;
    enum { N = 4096, TIMES = 8 };
    static float host[N], got[N];

    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        float *mem[TIMES];
        for (int i = 0; i < TIMES; i++) {
            mem[i] = new_memory(pair_modes[m].in, N);
        }
        for (int i = 0; i < TIMES; i++) {
            for (int j = 0; j < N; j++) {
                host[j] = (float)(i * 16 + j % 16);
            }
            pair_ops->put(pair_on[GPU].self, mem[i], host, sizeof(host));
        }
        for (int i = 0; i < TIMES; i++) {
            pair_get(mem[i], got, N);
            for (int j = 0; j < N; j++) {
                assert_true(got[j] == (float)(i * 16 + j % 16));
            }
            pair_ops->release(pair_on[GPU].self, mem[i]);
        }
    }
}

/* A convolution with its plan, and the sums of a group norm; large enough to be seen among what is
 * free. Twice in a row with nothing to give back. */
static void scratch_is_given_back_and_the_bits_stay(void **state)
{
    (void)state;
    enum { C = 64, SIDE = 96, N_IN = C * SIDE * SIDE, N_OUT = 4 * N_IN };
    static float first[N_OUT], again[N_OUT];
    const rp_tensor vector = {.dtype = RP_BF16, .n_dims = 1, .dim = {C, 1, 1, 1}};
    const rp_tensor kernel = {.dtype = RP_BF16, .n_dims = 4, .dim = {C, C, 3, 3}};
    const rp_conv_shape conv = {
        .c_in = C, .c_out = C, .h = SIDE, .w = SIDE, .kernel = 3, .upsample = 2};

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        rp_device_info before, after;
        rp_tensor k, ones;
        pair_use(&pair_modes[m]);
        void *self = pair_on[GPU].self;
        pair_array x = pair_random(PAIR_ACT, N_IN, 73, 1, 0), y = pair_poison(PAIR_ACT, N_OUT);
        assert_int_equal(pair_ops->weight_fill(self, &kernel, 1, 0.02f, &k), RP_OK);
        assert_int_equal(pair_ops->weight_fill(self, &vector, 1, 0, &ones), RP_OK);
        for (int round = 0; round < 3; round++) {
            pair_ops->conv2d(self, &conv, x.at[GPU], &k, NULL, NULL, y.at[GPU]);
            pair_ops->group_norm(self, y.at[GPU], C, 4 * SIDE * SIDE, 8, &ones, &ones, 1e-5f, true,
                                 y.at[GPU]);
            pair_get(y.at[GPU], round == 0 ? first : again, N_OUT);
            assert_memory_equal(round == 0 ? first : again, first, sizeof(first));
            pair_ops->info(self, &before);
            pair_ops->trim(self);
            pair_ops->info(self, &after);
            assert_true(before.bytes_scratch >= sizeof(first) / 2 || pair_n_modes == 2);
            assert_int_equal(after.bytes_scratch, 0);
            assert_true(after.bytes_free >= before.bytes_free + before.bytes_scratch / 2);
            pair_ops->trim(self);
            assert_int_equal(pair_ops->sync(self), RP_OK);
        }
        assert_true(isfinite(first[0]) && first[0] != first[1]);
        pair_ops->weight_release(self, &k);
        pair_ops->weight_release(self, &ones);
        pair_drop(&x);
        pair_drop(&y);
    }
}

/* ---- finite numbers ---- */

static void numbers_that_are_not_finite_are_told_once(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0.0f};
    static const size_t lengths[] = {1, 7, 1000, 65537};

    rpt_log_collect();
    for (size_t i = 0; i < COUNT(bad) * COUNT(lengths) * 3; i++) {
        const size_t n = lengths[i / 3 % COUNT(lengths)];
        const size_t where = i % 3 == 0 ? 0 : i % 3 == 1 ? n - 1 : n / 2;
        const float value = bad[i / 3 / COUNT(lengths)];
        pair_use(&pair_modes[(int)i % 2 * (pair_n_modes - 1)]);
        float *host = calloc(n, sizeof(*host)), *x = new_memory(PAIR_ALLOC, n + 1);
        assert_non_null(host);
        host[where] = value;
        pair_ops->put(pair_on[GPU].self, x, host, n * sizeof(float));
        pair_ops->check_finite(pair_on[GPU].self, x, n);
        assert_int_equal(pair_ops->sync(pair_on[GPU].self), isfinite(value) ? RP_OK : RP_E_MODEL);
        assert_int_equal(pair_ops->sync(pair_on[GPU].self), RP_OK);
        /* what lies behind is not looked at */
        host[0] = NAN;
        pair_ops->put(pair_on[GPU].self, x + n, host, sizeof(float));
        host[0] = where == 0 && isfinite(value) ? value : 0;
        host[where] = isfinite(value) ? value : 0;
        pair_ops->put(pair_on[GPU].self, x, host, n * sizeof(float));
        pair_ops->check_finite(pair_on[GPU].self, x, n);
        assert_int_equal(pair_ops->sync(pair_on[GPU].self), RP_OK);
        pair_ops->release(pair_on[GPU].self, x);
        free(host);
    }
}

/* ---- made weights ---- */

static void check_normal(const float *x, int n, double std)
{
    double sum = 0, sum_sq = 0, sum_4 = 0;
    int n_negative = 0;

    for (int i = 0; i < n; i++) {
        const double v = (double)x[i] / std;
        sum += v;
        sum_sq += v * v;
        sum_4 += v * v * v * v;
        n_negative += v < 0;
    }
    const double slack = 5 / sqrt(n); /* five standard errors of the mean */
    assert_true(fabs(sum / n) < slack);
    assert_true(fabs(sum_sq / n - 1) < 2 * slack);
    assert_true(fabs(sum_4 / n - 3) < 10 * slack + 0.05);
    assert_true(fabs((double)n_negative / n - 0.5) < slack);
}

static void made_weights_are_normal_and_repeat(void **state)
{
    (void)state;
    enum { ROWS = 301, COLS = 333, N = ROWS * COLS };
    static float x[3][N];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        for (int dtype = RP_F32; dtype <= RP_BF16; dtype++) {
            const rp_tensor shape = {
                .dtype = (rp_dtype)dtype, .n_dims = 2, .dim = {ROWS, COLS, 1, 1}};
            const uint64_t seed[3] = {7, 7, 8};
            rp_tensor w;
            pair_use(&pair_modes[m]);
            for (int i = 0; i < 3; i++) {
                assert_int_equal(
                    pair_ops->weight_fill(pair_on[GPU].self, &shape, seed[i], 0.02f, &w), RP_OK);
                assert_int_equal(w.dim[0], ROWS);
                assert_int_equal(w.n_dims, 2);
                pair_read_weight(&w, ROWS, COLS, x[i]);
                pair_ops->weight_release(pair_on[GPU].self, &w);
                assert_null(w.data);
            }
            assert_memory_equal(x[0], x[1], sizeof(x[0]));
            check_normal(x[0], N, 0.02);
            assert_true(rpt_rel_l2(x[2], x[0], N) > 1.3); /* two independent ones: sqrt 2 */
            assert_int_equal(pair_ops->weight_fill(pair_on[GPU].self, &shape, 7, 0, &w), RP_OK);
            pair_read_weight(&w, ROWS, COLS, x[0]);
            for (int i = 0; i < N; i++) {
                assert_true(x[0][i] == 1.0f);
            }
            pair_ops->weight_release(pair_on[GPU].self, &w);
        }
    }
}

/* A vector and a kernel, by way of the ops that take them: ones change nothing. */
static void made_vectors_and_kernels_are_usable(void **state)
{
    (void)state;
    const rp_tensor vector = {.dtype = RP_BF16, .n_dims = 1, .dim = {64, 1, 1, 1}};
    const rp_tensor kernel = {.dtype = RP_BF16, .n_dims = 4, .dim = {3, 64, 1, 1}};
    const rp_conv_shape conv = {.c_in = 64, .c_out = 3, .h = 1, .w = 1, .kernel = 1, .upsample = 1};

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        float plain[64], with[64], sums[3], sum = 0;
        rp_tensor w, k;
        pair_use(&pair_modes[m]);
        void *self = pair_on[GPU].self;
        pair_array x = pair_random(PAIR_ACT, 64, 71, 1, 0), out = pair_poison(PAIR_ALLOC, 64);
        assert_int_equal(pair_ops->weight_fill(self, &vector, 1, 0, &w), RP_OK);
        assert_int_equal(pair_ops->weight_fill(self, &kernel, 1, 0, &k), RP_OK);
        pair_ops->rms_norm(self, x.at[GPU], 1, 64, NULL, 0, 1e-5f, NULL, out.at[GPU], false);
        pair_get(out.at[GPU], plain, 64);
        pair_ops->rms_norm(self, x.at[GPU], 1, 64, &w, 0, 1e-5f, NULL, out.at[GPU], false);
        pair_get(out.at[GPU], with, 64);
        assert_memory_equal(plain, with, sizeof(plain));
        pair_ops->conv2d(self, &conv, x.at[GPU], &k, NULL, NULL, out.at[GPU]);
        pair_get(out.at[GPU], sums, 3);
        pair_get(x.at[GPU], with, 64);
        for (int i = 0; i < 64; i++) {
            sum += with[i];
        }
        assert_true(sums[0] == sums[1] && fabsf(sums[2] - sum) <= 0.01f * fabsf(sum) + 0.01f);
        pair_ops->weight_release(self, &w);
        pair_ops->weight_release(self, &k);
        pair_drop(&x);
        pair_drop(&out);
    }
}

/* ---- refusals ---- */

static void bad_parameters_and_weights_are_refused(void **state)
{
    (void)state;
    const rp_backend_params far_away = {.n_threads = 1, .device = 99};
    const rp_backend_params below = {.n_threads = 1, .device = -1};
    const rp_tensor ints = {.dtype = RP_I32, .n_dims = 1, .dim = {4, 1, 1, 1}};
    rp_tensor out = {.n_dims = 77};
    void *self = &out;

    if (pair_n_modes == 2) {
        skip(); /* the CPU has no device numbers */
    }
    rpt_log_collect();
    assert_int_not_equal(pair_ops->open(&far_away, &self), RP_OK);
    assert_non_null(strstr(rpt_log_last(), "99"));
    assert_int_not_equal(pair_ops->open(&below, &self), RP_OK);
    assert_true(self == &out);
    pair_use(&pair_modes[0]);
    assert_int_equal(pair_ops->weight(pair_on[GPU].self, &ints, &out), RP_E_UNSUP);
    assert_non_null(strstr(rpt_log_last(), "I32"));
    assert_int_equal(out.n_dims, 77);
}

/* Memory that runs out is told by the call, and the backend goes on working. */
static void too_much_memory_is_refused_and_nothing_is_broken(void **state)
{
    (void)state;
    const rp_tensor huge = {.dtype = RP_BF16, .n_dims = 2, .dim = {1 << 22, 1 << 22, 1, 1}};
    rp_tensor w = {.n_dims = 77};
    int marker = 0;

    rpt_log_collect();
    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        void *mem = &marker;
        float got[8];
        pair_use(&pair_modes[m]);
        void *self = pair_on[GPU].self;
        assert_int_equal(pair_ops->alloc(self, (size_t)1 << 46, "a test", &mem), RP_E_NOMEM);
        assert_non_null(strstr(rpt_log_last(), "a test"));
        assert_int_equal(pair_ops->alloc_act(self, (size_t)1 << 45, "a test", &mem), RP_E_NOMEM);
        assert_true(mem == &marker);
        assert_int_equal(pair_ops->weight_fill(self, &huge, 1, 0.02f, &w), RP_E_NOMEM);
        assert_int_equal(w.n_dims, 77);
        assert_int_equal(pair_ops->sync(self), RP_OK);
        pair_array x = pair_random(PAIR_ACT, 8, 72, 1, 0);
        pair_ops->silu(self, x.at[GPU], 8, x.at[GPU]);
        pair_get(x.at[GPU], got, 8);
        assert_true(isfinite(got[0]) && isfinite(got[7]));
        pair_drop(&x);
    }
}

static void info_is_of_a_device(void **state)
{
    (void)state;
    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        rp_device_info info = {.on_device = false};
        pair_use(&pair_modes[m]);
        pair_ops->info(pair_on[GPU].self, &info);
        assert_true(info.precisions & RP_PRECISION_BIT(pair_modes[m].precision));
        assert_string_equal(info.precision,
                            pair_modes[m].precision == RP_PRECISION_BF16 ? "bf16" : "f32");
        if (pair_n_modes > 2) {
            assert_true(info.on_device && info.name[0] != '\0' && info.id[0] != '\0');
            assert_true(info.bytes_free > 0 && info.bytes_free <= info.bytes_total);
            print_message("    %s, %s, %s, %zu MiB\n", info.name, info.id, info.pci,
                          info.bytes_total >> 20);
        }
    }
    assert_true(pair_ops->n_devices() >= 1);
}

/* ---- weights on their way: through pinned pieces of 32 MiB, and piece by piece when converted
 * ---- */

/* Element i of weight w, also as the bits of a bf16. */
static uint16_t pattern(size_t w, size_t i)
{
    return (uint16_t)(0x3c00u + (i * 7 + i / 4099 + w * 31) % 500);
}

static void fill_pattern(void *host, rp_dtype dtype, size_t w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)pattern(w, i) << 16;
        if (dtype == RP_BF16) {
            ((uint16_t *)host)[i] = pattern(w, i);
        } else {
            memcpy((float *)host + i, &bits, sizeof(bits));
        }
    }
}

static void assert_pattern(const rp_backend *g, const rp_tensor *weight, size_t w, size_t n)
{
    uint32_t *got = malloc(n * sizeof(*got));

    g->ops->get(g->self, got, weight->data, n * sizeof(*got));
    assert_int_equal(g->ops->sync(g->self), RP_OK);
    for (size_t i = 0; i < n; i++) {
        if (got[i] != (uint32_t)pattern(w, i) << 16) {
            fail_msg("weight %zu of %zu elements: element %zu is %08x", w, n, i, (unsigned)got[i]);
        }
    }
    free(got);
}

static void weights_of_any_size_arrive_whole(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        rp_dtype dtype;
    } rows[] = {
        {3, RP_F32},          {70001, RP_F32},  {8u << 20, RP_F32},  {(8u << 20) + 1, RP_F32},
        {26000003, RP_F32},   {5, RP_BF16},     {40000001, RP_BF16}, {1, RP_F32},
        {16u << 20, RP_BF16}, {9999999, RP_F32}};
    void *host[COUNT(rows)];
    rp_tensor shape[COUNT(rows)], weight[COUNT(rows)];
    rp_tensor *list[COUNT(rows)];

    pair_use(&pair_modes[0]);
    const rp_backend *g = &pair_on[GPU];
    for (size_t w = 0; w < COUNT(rows); w++) {
        host[w] = malloc(rows[w].n * rp_dtype_bytes(rows[w].dtype));
        fill_pattern(host[w], rows[w].dtype, w, rows[w].n);
        shape[w] = (rp_tensor){.dtype = rows[w].dtype,
                               .n_dims = 1,
                               .dim = {(int64_t)rows[w].n, 1, 1, 1},
                               .data = host[w]};
        list[w] = &shape[w];
    }
    assert_int_equal(g->ops->weights_begin(g->self, list, COUNT(rows)), RP_OK);
    for (size_t w = 0; w < COUNT(rows); w++) {
        assert_int_equal(g->ops->weight(g->self, &shape[w], &weight[w]), RP_OK);
    }
    assert_int_equal(g->ops->sync(g->self), RP_OK);
    for (size_t w = 0; w < COUNT(rows); w++) {
        assert_pattern(g, &weight[w], w, rows[w].n);
        g->ops->weight_release(g->self, &weight[w]);
        free(host[w]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_released),
        cmocka_unit_test(put_get_and_copy_work_at_odd_places),
        cmocka_unit_test(activations_are_rounded_and_the_rest_is_not),
        cmocka_unit_test(a_sequence_of_puts_keeps_each_value),
        cmocka_unit_test(scratch_is_given_back_and_the_bits_stay),
        cmocka_unit_test(numbers_that_are_not_finite_are_told_once),
        cmocka_unit_test(made_weights_are_normal_and_repeat),
        cmocka_unit_test(made_vectors_and_kernels_are_usable),
        cmocka_unit_test(weights_of_any_size_arrive_whole),
        cmocka_unit_test(bad_parameters_and_weights_are_refused),
        cmocka_unit_test(too_much_memory_is_refused_and_nothing_is_broken),
        cmocka_unit_test(info_is_of_a_device),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_backend", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
