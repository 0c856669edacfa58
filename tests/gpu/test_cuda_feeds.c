/*
 * test_cuda_feeds.c - norms whose rows only a product reads (feeds_linear), in precision fp8:
 * narrow weights give the same bits as without the flag, others what the rows stand for; through
 * linear and through each way of gated_linear, recorded, and refused where the shapes do not fit.
 */
#include "fp8_backend.h"
#include "rp_test.h"

#include "tensor/cuda/cuda.h"

#include <math.h>
#include <stdbool.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Rows off by 2.6 % on average, as rounding to e4m3 makes them. */
#define TOLERANCE_ROUNDED 5e-2
#define POISON            768.0f /* a value that bf16 keeps */

enum { N = 64, LONGEST_HELD = 8192, MOST = 16 };

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

static float *on_device(feed *f, const float *host, size_t n, bool act)
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

static float *from_device(void *self, const float *mem, size_t n)
{
    float *host = malloc(n * sizeof(*host));

    assert_non_null(host);
    g_ops->get(self, host, mem, n * sizeof(float));
    if (g_ops->sync(self) != RP_OK) {
        fail_msg("%s", rpt_log_last());
    }
    return host;
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
    f.x = on_device(&f, f.host_x, f.n, false);
    f.y = on_device(&f, y, f.n, true);
    f.rows = on_device(&f, NULL, f.n, true);
    f.rounded = on_device(&f, NULL, f.n, true);
    f.out = on_device(&f, NULL, (size_t)t * (size_t)n_out, true);
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

static bool left_narrow(const feed *f)
{
    const rp_cuda *cuda = f->self;

    return cuda->narrowed.only && cuda->narrowed.x == f->rows && cuda->narrowed.t == f->t &&
           cuda->narrowed.k == f->d;
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

/* n_w weights of N rows each */
static float *multiply(const feed *f, const float *from, const rp_tensor *w, int n_w)
{
    multiply_to(f, from, w, n_w, f->out);
    return from_device(f->self, f->out, (size_t)f->t * (size_t)(n_w * N));
}

static void same_bits(const feed *f, const char *what, const float *got, const float *want,
                      size_t n)
{
    if (memcmp(got, want, n * sizeof(float)) != 0) {
        fail_msg("%s, %d rows of %d: error %g", what, f->t, f->d, rpt_rel_l2(got, want, n));
    }
}

/* ---- linear ---- */

static const struct {
    int t, d;
} shapes[] = {{97, 256}, {300, 2304}, {5, 192},   {1, 64},
              {33, 48},  {200, 9216}, {40, 8208}, {1025, 2304}};

/* q, k and v side by side, which are one product, or each on its own. */
static void three_weights(feed *f, bool together, rp_tensor w[3])
{
    rp_tensor shape = {.dtype = RP_BF16, .n_dims = 2, .dim = {N, f->d, 1, 1}, .narrow = true};
    rp_tensor *const slots[] = {&shape, &shape, &shape};

    if (together) {
        assert_int_equal(g_ops->weights_begin(f->self, slots, 3), RP_OK);
    }
    for (int i = 0; i < 3; i++) {
        w[i] = matrix(f, N, f->d, true, 5 + (uint64_t)i);
        assert_int_equal(w[i].dtype, RP_F8_E4M3);
    }
}

static void one_shape(const feed *f, maker which, const rp_tensor *w)
{
    const size_t n = (size_t)f->t * 3 * N;

    make(f, which, true); /* on a backend of its own there is no room yet */
    assert_true(left_narrow(f));
    float *got = multiply(f, f->rows, w, 3), *got_x = from_device(f->self, f->x, f->n);
    make(f, which, false);
    assert_false(left_narrow(f));
    float *want = multiply(f, f->rows, w, 3), *want_x = from_device(f->self, f->x, f->n);
    make(f, which, true);
    float *again = multiply(f, f->rows, w, 3);
    same_bits(f, "product", got, want, n);
    same_bits(f, "product, again", again, want, n);
    same_bits(f, "residual stream", got_x, want_x, f->n);
    free(got);
    free(got_x);
    free(want);
    free(want_x);
    free(again);
}

static void narrow_weights_see_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes) * N_MAKERS * 2; i++) {
        void *self = i % 2 == 0 ? NULL : g_fp8;
        feed f = open_feed(self, RP_PRECISION_FP8, shapes[i / 4].t, shapes[i / 4].d, 3 * N);
        rp_tensor w[3];
        if (f.t > 4) { /* a row of zeros, one that is lost */
            memset(f.host_x + 2 * (size_t)f.d, 0, (size_t)f.d * sizeof(float));
            f.host_x[3 * (size_t)f.d + 7] = NAN;
        }
        three_weights(&f, i % 2 == 0, w);
        one_shape(&f, (maker)(i / 2 % N_MAKERS), w);
        close_feed(&f);
    }
}

/* What the flag is for. Rows that are too long to be held are written on the way. */
static void rows_are_not_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes) * N_MAKERS; i++) {
        feed f =
            open_feed(g_fp8, RP_PRECISION_FP8, shapes[i / N_MAKERS].t, shapes[i / N_MAKERS].d, N);
        float *poison = malloc(f.n * sizeof(*poison));
        assert_non_null(poison);
        for (size_t j = 0; j < f.n; j++) {
            poison[j] = POISON;
        }
        g_ops->put(f.self, f.rows, poison, f.n * sizeof(float));
        make(&f, (maker)(i % N_MAKERS), true);
        float *rows = from_device(f.self, f.rows, f.n);
        assert_true(f.d > LONGEST_HELD || memcmp(rows, poison, f.n * sizeof(float)) == 0);
        close_feed(&f);
        free(poison);
        free(rows);
    }
}

/* Columns of [t, cols] from `first` on, `n` of them. */
static void same_columns(const feed *f, const char *what, const float *got, const float *want,
                         int cols, int first, int n)
{
    for (int i = 0; i < f->t; i++) {
        const size_t at = (size_t)i * (size_t)cols + (size_t)first;
        same_bits(f, what, got + at, want + at, (size_t)n);
    }
}

/* Rows stand for what they are rounded to; narrow weights beside others still see the same. */
static void other_weights_see_what_rows_stand_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes) * N_MAKERS * 2; i++) {
        const maker which = (maker)(i / 2 % N_MAKERS);
        feed f = open_feed(g_fp8, RP_PRECISION_FP8, shapes[i / 4].t, shapes[i / 4].d, 3 * N);
        rp_tensor w[3];
        for (int j = 0; j < 3; j++) {
            const bool narrow = j % 2 == (int)(i % 2);
            w[j] = matrix(&f, N, f.d, narrow, 5 + (uint64_t)j);
            assert_int_equal(w[j].dtype, narrow ? RP_F8_E4M3 : RP_BF16);
        }
        make(&f, which, true);
        float *got = multiply(&f, f.rows, w, 3);
        make(&f, which, false);
        float *plain = multiply(&f, f.rows, w, 3);
        round_rows(&f);
        float *rounded = multiply(&f, f.rounded, w, 3);
        for (int j = 0; j < 3; j++) {
            const bool narrow = w[j].dtype == RP_F8_E4M3;
            same_columns(&f, narrow ? "narrow weight" : "other weight", got,
                         narrow ? plain : rounded, 3 * N, j * N, N);
        }
        assert_true(rpt_rel_l2(got, plain, (size_t)f.t * 3 * N) <= TOLERANCE_ROUNDED);
        close_feed(&f);
        free(got);
        free(plain);
        free(rounded);
    }
}

/* ---- gated_linear ---- */

typedef struct {
    int t, k, d;
} gated_case;

/* On both sides of the rows that one kernel takes; k that it does not, or for long sums. */
static const gated_case gated_cases[] = {
    {1000, 256, 1280}, {1023, 128, 256},  {1024, 256, 1280}, {1100, 2304, 384},
    {1100, 144, 256},  {1100, 4096, 128}, {3, 64, 32},
};

static float *gated(const feed *f, const float *from, const rp_tensor *w, float *room)
{
    const int d = (int)w[0].dim[0];

    g_ops->gated_linear(f->self, from, f->t, f->d, &w[0], &w[1], false, room, f->out);
    return from_device(f->self, f->out, (size_t)f->t * (size_t)d);
}

/* Product and swiglu of what the norm has left. */
static float *gated_apart(const feed *f, const rp_tensor *w, float *room)
{
    const int d = (int)w[0].dim[0];

    multiply_to(f, f->rows, w, 2, room);
    g_ops->swiglu(f->self, room, f->t, d, f->out);
    return from_device(f->self, f->out, (size_t)f->t * (size_t)d);
}

static void one_gated(const gated_case *c, maker which, bool narrow_gate, bool narrow_up)
{
    void *self = narrow_gate && narrow_up ? NULL : g_fp8; /* with no room for wider rows yet */
    feed f = open_feed(self, RP_PRECISION_FP8, c->t, c->k, c->d);
    const size_t n = (size_t)c->t * (size_t)c->d;
    float *room = on_device(&f, NULL, 2 * n, true);
    const rp_tensor w[] = {matrix(&f, c->d, c->k, narrow_gate, 5),
                           matrix(&f, c->d, c->k, narrow_up, 6)};

    make(&f, which, true);
    float *got = gated(&f, f.rows, w, room), *want;
    if (narrow_gate == narrow_up) {
        make(&f, which, false);
        round_rows(&f);
        if (narrow_gate) {
            make(&f, which, false);
        }
        want = gated(&f, narrow_gate ? f.rows : f.rounded, w, room);
    } else {
        make(&f, which, true);
        want = gated_apart(&f, w, room);
    }
    same_bits(&f,
              narrow_gate ? narrow_up ? "gated, narrow" : "gated, narrow gate"
              : narrow_up ? "gated, narrow up"
                          : "gated, other weights",
              got, want, n);
    close_feed(&f);
    free(got);
    free(want);
}

static void gated_linear_takes_rows_in_each_of_its_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(gated_cases) * 4; i++) {
        one_gated(&gated_cases[i / 4], (maker)(i / 4 % N_MAKERS), i % 2 == 0, i / 2 % 2 == 0);
    }
}

/* ---- sequences, refusals, other precisions ---- */

typedef struct {
    rp_tensor qkv[3], glu[2], down;
    float *room, *inner;
} block;

/* As a transformer block has them. */
static void run_block(const feed *f, const block *b, bool feeds_linear)
{
    const rp_tensor *const down[] = {&b->down};
    const int d = (int)b->glu[0].dim[0];

    g_ops->rms_norm(f->self, f->x, f->t, f->d, &f->norm, 0, 1e-5f, NULL, f->rows, feeds_linear);
    multiply_to(f, f->rows, b->qkv, 3, f->y);
    g_ops->add_rms_norm_rms_norm(f->self, f->x, f->y, f->t, f->d, &f->norm, 0, 1e-5f, NULL,
                                 &f->norm, NULL, f->rows, feeds_linear);
    g_ops->gated_linear(f->self, f->rows, f->t, f->d, &b->glu[0], &b->glu[1], false, b->room,
                        b->inner);
    g_ops->linear(f->self, b->inner, f->t, d, d, down, 1, NULL, f->out);
}

static void recorded_sequences_give_the_same_bits(void **state)
{
    (void)state;
    enum { T = 1100, K = 3 * N, D = 256, TIMES = 4 };
    feed f = open_feed(NULL, RP_PRECISION_FP8, T, K, N);
    block b = {.glu = {matrix(&f, D, K, true, 15), matrix(&f, D, K, true, 16)},
               .down = matrix(&f, N, D, true, 17),
               .room = on_device(&f, NULL, 2 * (size_t)T * D, true),
               .inner = on_device(&f, NULL, (size_t)T * D, true)};
    bool known = false;

    three_weights(&f, true, b.qkv);
    run_block(&f, &b, false);
    float *want = from_device(f.self, f.out, (size_t)T * N);
    for (int i = 0; i < TIMES; i++) {
        g_ops->put(f.self, f.x, f.host_x, f.n * sizeof(float));
        known = g_ops->replay(f.self, 3);
        if (!known) {
            run_block(&f, &b, true);
            g_ops->recorded(f.self);
        }
        float *got = from_device(f.self, f.out, (size_t)T * N);
        same_bits(&f, "sequence", got, want, (size_t)T * N);
        free(got);
    }
    assert_true(known);
    close_feed(&f);
    free(want);
}

/* Fewer rows than were left would be read where other rows lie. */
static void another_shape_is_refused(void **state)
{
    (void)state;
    for (int narrow = 0; narrow < 2; narrow++) {
        feed f = open_feed(g_fp8, RP_PRECISION_FP8, 20, 64, N);
        const rp_tensor w = matrix(&f, N, f.d, narrow, 5);
        const rp_tensor *const list[] = {&w};
        make(&f, RMS, true);
        g_ops->linear(f.self, f.rows, f.t - 1, f.d, f.d, list, 1, NULL, f.out);
        assert_int_equal(g_ops->sync(f.self), RP_E_ARG);
        make(&f, RMS, true);
        free(multiply(&f, f.rows, &w, 1));
        close_feed(&f);
    }
}

/* There the flag changes nothing, and rows are written. */
static void other_precisions_do_not_mind(void **state)
{
    (void)state;
    static const rp_precision precisions[] = {RP_PRECISION_F32, RP_PRECISION_BF16};

    for (int i = 0; i < 2 * N_MAKERS; i++) {
        const maker which = (maker)(i % N_MAKERS);
        feed f = open_feed(NULL, precisions[i / N_MAKERS], 97, 256, N);
        const rp_tensor w = matrix(&f, N, f.d, true, 5);
        float *rows[2], *out[2];
        for (int k = 0; k < 2; k++) {
            make(&f, which, k == 1);
            out[k] = multiply(&f, f.rows, &w, 1);
            rows[k] = from_device(f.self, f.rows, f.n);
        }
        same_bits(&f, "rows", rows[1], rows[0], f.n);
        same_bits(&f, "product", out[1], out[0], (size_t)f.t * N);
        close_feed(&f);
        for (int k = 0; k < 2; k++) {
            free(rows[k]);
            free(out[k]);
        }
    }
}

/* ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrow_weights_see_the_same_bits),
        cmocka_unit_test(rows_are_not_written),
        cmocka_unit_test(other_weights_see_what_rows_stand_for),
        cmocka_unit_test(gated_linear_takes_rows_in_each_of_its_ways),
        cmocka_unit_test(recorded_sequences_give_the_same_bits),
        cmocka_unit_test(another_shape_is_refused),
        cmocka_unit_test(other_precisions_do_not_mind),
    };
    rpt_log_collect();
    fp8_open_or_skip(RP_PRECISION_FP8, 64, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_feeds", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
