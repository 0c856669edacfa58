/*
 * test_cuda_flash_fp8.c - precision fp8 on compute capability 9.0: attention whose output only a
 * product reads is left in 8 bits by the kernel of our own. Seen through that product: with an
 * identity matrix it is the output itself.
 */
#include "fp8_backend.h"
#include "rp_test.h"

#include "tensor/cuda/cuda.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Relative L2 error. Numbers rounded to e4m3 are off by 2.6 % on average. */
#define TOLERANCE_E4M3 4e-2
#define TOLERANCE_BF16 1e-2

enum { MAX_ROWS = 2112, MAX_K = 2304, HEAD_DIM = 96 };

typedef struct {
    int n_q, n_kv, n_heads, n_kv_heads;
} flash_case;

/* [rows, q | k | v], [n_q, q_dim], [n_q, q_dim] */
typedef struct {
    rp_attention_shape shape;
    int q_dim, kv_dim;
    size_t n_in, n_out;
    float *host, *qkv, *out, *product;
    rp_tensor eye;
} bench;

/* Ones on the diagonal; `narrow` for products in e4m3, else the product is in bf16. */
static rp_tensor identity(int n, bool narrow)
{
    float *eye = calloc((size_t)n * (size_t)n, sizeof(*eye));
    rp_tensor out;

    assert_non_null(eye);
    for (int i = 0; i < n; i++) {
        eye[(size_t)i * (size_t)n + (size_t)i] = 1.0f;
    }
    const rp_tensor host = {
        .dtype = RP_F32, .n_dims = 2, .dim = {n, n, 1, 1}, .data = eye, .narrow = narrow};
    assert_int_equal(g_ops->weight(g_fp8, &host, &out), RP_OK);
    assert_int_equal(g_ops->sync(g_fp8), RP_OK);
    free(eye);
    return out;
}

static void bench_open(bench *b, const flash_case *c, bool narrow)
{
    const int q_dim = c->n_heads * HEAD_DIM, kv_dim = c->n_kv_heads * HEAD_DIM;
    const int row = q_dim + 2 * kv_dim;

    *b = (bench){.q_dim = q_dim, .kv_dim = kv_dim};
    b->shape = (rp_attention_shape){.n_q = c->n_q,
                                    .n_kv = c->n_kv,
                                    .n_heads = c->n_heads,
                                    .n_kv_heads = c->n_kv_heads,
                                    .head_dim = HEAD_DIM,
                                    .q_stride = row,
                                    .k_stride = row,
                                    .v_stride = row,
                                    .out_stride = q_dim,
                                    .scale = 1.0f / sqrtf((float)HEAD_DIM)};
    b->n_in = (size_t)(c->n_q > c->n_kv ? c->n_q : c->n_kv) * (size_t)row;
    b->n_out = (size_t)c->n_q * (size_t)q_dim;
    b->host = malloc(b->n_in * sizeof(float));
    assert_non_null(b->host);
    rpt_fill(b->host, b->n_in, 7);
    b->qkv = on_device(g_fp8, b->host, b->n_in);
    b->out = on_device(g_fp8, NULL, b->n_out);
    b->product = on_device(g_fp8, NULL, b->n_out);
    b->eye = identity(q_dim, narrow);
}

static void bench_close(bench *b)
{
    g_ops->weight_release(g_fp8, &b->eye);
    g_ops->release(g_fp8, b->qkv);
    g_ops->release(g_fp8, b->out);
    g_ops->release(g_fp8, b->product);
    free(b->host);
}

static void attend_and_multiply(const bench *b, bool feeds_linear)
{
    const rp_tensor *const list[] = {&b->eye};
    rp_attention_shape s = b->shape;

    s.feeds_linear = feeds_linear;
    g_ops->attention(g_fp8, &s, b->qkv, b->qkv + b->q_dim, b->qkv + b->q_dim + b->kv_dim, b->out);
    g_ops->linear(g_fp8, b->out, s.n_q, b->q_dim, b->q_dim, list, 1, NULL, b->product);
}

static float *through_identity(const bench *b, bool feeds_linear)
{
    attend_and_multiply(b, feeds_linear);
    return from_device(g_fp8, b->product, b->n_out);
}

static float *on_cpu(const bench *b)
{
    float *out = malloc(b->n_out * sizeof(*out));
    const float *const k = b->host + b->q_dim;

    assert_non_null(out);
    g_cpu_ops->attention(g_cpu, &b->shape, b->host, k, k + b->kv_dim, out);
    assert_int_equal(g_cpu_ops->sync(g_cpu), RP_OK);
    return out;
}

static void skip_elsewhere(void)
{
    const rp_cuda *cuda = g_fp8;

    if (cuda->capability != 90) {
        print_message("not on this device: compute capability %d\n", cuda->capability);
        skip();
    }
}

static void rows_feed_the_product(void **state)
{
    (void)state;
    static const flash_case cases[] = {
        {1200, 1056, 24, 8}, {1111, 777, 6, 2}, {2112, 2112, 3, 1}, {1025, 513, 2, 2}};

    skip_elsewhere();
    for (size_t i = 0; i < 2 * COUNT(cases); i++) {
        const flash_case *const c = &cases[i / 2];
        const bool narrow = i % 2 == 0; /* weights in bf16 get the rows multiplied out */
        bench b;
        bench_open(&b, c, narrow);
        float *wide = through_identity(&b, false), *rows = through_identity(&b, true);
        float *again = through_identity(&b, true), *exact = on_cpu(&b);
        const double error = rpt_rel_l2(rows, exact, b.n_out);
        const double before = rpt_rel_l2(wide, exact, b.n_out);
        print_message("    %d x %d, heads %d / %d, weights in %s: error %.3g, by way of bf16 "
                      "%.3g\n",
                      c->n_q, c->n_kv, c->n_heads, c->n_kv_heads, narrow ? "e4m3" : "bf16", error,
                      before);
        assert_memory_equal(rows, again, b.n_out * sizeof(*rows));
        assert_true(memcmp(rows, wide, b.n_out * sizeof(*rows)) != 0); /* it was that way */
        assert_true(error <= TOLERANCE_E4M3);
        assert_true(before <= (narrow ? TOLERANCE_E4M3 : TOLERANCE_BF16));
        bench_close(&b);
        free(wide);
        free(rows);
        free(again);
        free(exact);
    }
}

static void sequences_repeat_the_same_bits(void **state)
{
    (void)state;
    static const flash_case c = {1300, 1428, 24, 8};
    float *first = NULL;
    bool known = false;
    bench b;

    skip_elsewhere();
    bench_open(&b, &c, true);
    for (int run = 0; run < 4; run++) {
        known = g_ops->replay(g_fp8, 79);
        if (!known) {
            for (int i = 0; i < 3; i++) {
                attend_and_multiply(&b, i != 1);
            }
            g_ops->recorded(g_fp8);
        }
        float *got = from_device(g_fp8, b.product, b.n_out);
        if (first == NULL) {
            first = got;
        } else {
            assert_memory_equal(got, first, b.n_out * sizeof(*got));
            free(got);
        }
    }
    assert_true(known);
    bench_close(&b);
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_feed_the_product),
        cmocka_unit_test(sequences_repeat_the_same_bits),
    };
    fp8_open_or_skip(RP_PRECISION_FP8, MAX_K, MAX_ROWS, 128);
    const int n_failed = cmocka_run_group_tests_name("cuda_flash_fp8", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
