/* fp8_feeds.h - a norm, what it reads and writes, and matrices for the products that read its rows:
 * for the tests of feeds_linear. */
#ifndef RP_TEST_FP8_FEEDS_H
#define RP_TEST_FP8_FEEDS_H

#include "fp8_backend.h"
#include "rp_test.h"

#include "tensor/cuda/cuda.h"

#include <math.h>
#include <stdbool.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { N = 64, MOST = 16 };

typedef enum { RMS, ADD_RMS, N_MAKERS } maker;

typedef struct {
    void *self;
    bool own; /* the backend: no room is there before */
    int t, d;
    size_t n;                    /* t d */
    float *host_x, *x, *y;       /* x f32, y an activation */
    float *rows, *rounded, *out; /* [t, d], [t, d], [t, n_out] */
    rp_tensor norm;
    rp_tensor w[MOST]; /* released with the rest, as mem is */
    void *mem[MOST];
    int n_w, n_mem;
} feed;

static float *keep_on_device(feed *f, const float *host, size_t n, bool act)
{
    void *mem = NULL;

    assert_true(f->n_mem < MOST);
    assert_int_equal(act ? g_ops->alloc_act(f->self, n, "test", &mem)
                         : g_ops->alloc(f->self, n * sizeof(float), "test", &mem),
                     RP_OK);
    f->mem[f->n_mem++] = mem;
    if (host != NULL) {
        g_ops->put(f->self, mem, host, n * sizeof(float));
        assert_int_equal(g_ops->sync(f->self), RP_OK);
    }
    return mem;
}

/* self: a backend, or NULL for one of its own in that precision */
static feed open_feed(void *self, rp_precision precision, int t, int d, int n_out)
{
    const rp_backend_params params = {.n_threads = 1, .precision = precision};
    feed f = {.self = self, .own = self == NULL, .t = t, .d = d, .n = (size_t)t * (size_t)d};
    float *weight = malloc((size_t)d * sizeof(*weight)), *y = malloc(f.n * sizeof(*y));
    const rp_tensor norm = {.dtype = RP_F32, .n_dims = 1, .dim = {d, 1, 1, 1}, .data = weight};

    f.host_x = malloc(f.n * sizeof(*f.host_x));
    assert_true(f.host_x != NULL && weight != NULL && y != NULL);
    rpt_fill(f.host_x, f.n, 1);
    rpt_fill(y, f.n, 2);
    rpt_fill(weight, (size_t)d, 3);
    assert_true(!f.own || g_ops->open(&params, &f.self) == RP_OK);
    assert_int_equal(g_ops->weight(f.self, &norm, &f.norm), RP_OK);
    f.x = keep_on_device(&f, f.host_x, f.n, false);
    f.y = keep_on_device(&f, y, f.n, true);
    f.rows = keep_on_device(&f, NULL, f.n, true);
    f.rounded = keep_on_device(&f, NULL, f.n, true);
    f.out = keep_on_device(&f, NULL, (size_t)t * (size_t)n_out, true);
    assert_int_equal(g_ops->sync(f.self), RP_OK);
    free(weight);
    free(y);
    return f;
}

static void close_feed(feed *f)
{
    for (int i = 0; i < f->n_mem; i++) {
        g_ops->release(f->self, f->mem[i]);
    }
    for (int i = 0; i < f->n_w; i++) {
        g_ops->weight_release(f->self, &f->w[i]);
    }
    g_ops->weight_release(f->self, &f->norm);
    if (f->own) {
        g_ops->close(f->self);
    }
    free(f->host_x);
}

/* Weights [rows, cols] after those that weights_begin has announced, or on their own. */
static rp_tensor matrix(feed *f, int rows, int cols, bool narrow, uint64_t seed)
{
    const rp_tensor shape = {
        .dtype = RP_BF16, .n_dims = 2, .dim = {rows, cols, 1, 1}, .narrow = narrow};
    rp_tensor *out = &f->w[f->n_w++];

    assert_true(f->n_w <= MOST);
    assert_int_equal(g_ops->weight_fill(f->self, &shape, seed, 0.05f, out), RP_OK);
    return *out;
}

/* rows = norm of x, which begins as it was. */
static void make(const feed *f, maker which, bool feeds_linear)
{
    g_ops->put(f->self, f->x, f->host_x, f->n * sizeof(float));
    if (which == RMS) {
        g_ops->rms_norm(f->self, f->x, f->t, f->d, &f->norm, 0, 1e-5f, NULL, f->rows, feeds_linear);
    } else {
        g_ops->add_rms_norm_rms_norm(f->self, f->x, f->y, f->t, f->d, &f->norm, 0, 1e-5f, NULL,
                                     &f->norm, NULL, f->rows, feeds_linear);
    }
}

/* rounded = what rows stand for once they are e4m3 */
static void round_rows(const feed *f)
{
    rp_cuda *cuda = f->self;
    void *data = NULL, *scale = NULL;

    assert_int_equal(g_ops->alloc(cuda, f->n, "test", &data), RP_OK);
    assert_int_equal(g_ops->alloc(cuda, (size_t)f->t * sizeof(float), "test", &scale), RP_OK);
    const rp_cuda_narrow narrow = {data, scale};
    rp_cuda_k_quantize_rows(cuda->stream, rp_cuda_at(cuda, f->rows), f->t, f->d, f->d, narrow);
    rp_cuda_k_dequantize_rows(cuda->stream, narrow, (size_t)f->t, (size_t)f->d,
                              rp_cuda_at(cuda, f->rounded));
    assert_int_equal(g_ops->sync(cuda), RP_OK);
    g_ops->release(cuda, data);
    g_ops->release(cuda, scale);
}

static void multiply_to(const feed *f, const float *from, const rp_tensor *w, int n_w, float *out)
{
    const rp_tensor *const list[] = {&w[0], &w[n_w > 1 ? 1 : 0], &w[n_w > 2 ? 2 : 0]};

    g_ops->linear(f->self, from, f->t, f->d, f->d, list, n_w, NULL, out);
}

static void same_bits(const feed *f, const char *what, const float *got, const float *want,
                      size_t n)
{
    if (memcmp(got, want, n * sizeof(float)) != 0) {
        fail_msg("%s, %d rows of %d: error %g", what, f->t, f->d, rpt_rel_l2(got, want, n));
    }
}

/* q, k and v side by side, which are one product, or each on its own: n rows each. */
static void three_weights(feed *f, int n, bool together, rp_tensor w[3])
{
    rp_tensor shape = {.dtype = RP_BF16, .n_dims = 2, .dim = {n, f->d, 1, 1}, .narrow = true};
    rp_tensor *const slots[] = {&shape, &shape, &shape};

    if (together) {
        assert_int_equal(g_ops->weights_begin(f->self, slots, 3), RP_OK);
    }
    for (int i = 0; i < 3; i++) {
        w[i] = matrix(f, n, f->d, true, 5 + (uint64_t)i);
        assert_int_equal(w[i].dtype, RP_F8_E4M3);
    }
}

#endif
