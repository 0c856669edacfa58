/*
 * test_cuda_feeds.c - norms whose rows only a product reads (feeds_linear), in precision fp8:
 * narrow weights give the same bits as without the flag, others what the rows stand for; refused
 * where the shapes do not fit.
 */
#include "fp8_feeds.h"

/* Rows off by 2.6 % on average, as rounding to e4m3 makes them. */
#define TOLERANCE_ROUNDED 5e-2
#define POISON            768.0f /* a value that bf16 keeps */

enum { LONGEST_HELD = 8192 };

static bool left_narrow(const feed *f)
{
    const rp_cuda *cuda = f->self;

    return cuda->narrowed.only && cuda->narrowed.x == f->rows && cuda->narrowed.t == f->t &&
           cuda->narrowed.k == f->d;
}

/* n_w weights of N rows each */
static float *multiply(const feed *f, const float *from, const rp_tensor *w, int n_w)
{
    multiply_to(f, from, w, n_w, f->out);
    return from_device(f->self, f->out, (size_t)f->t * (size_t)(n_w * N));
}

/* ---- linear ---- */

static const struct {
    int t, d;
} shapes[] = {{97, 256}, {300, 2304}, {5, 192},   {1, 64},
              {33, 48},  {200, 9216}, {40, 8208}, {1025, 2304}};

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
        three_weights(&f, N, i % 2 == 0, w);
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

/* ---- refusals, other precisions ---- */

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
        cmocka_unit_test(another_shape_is_refused),
        cmocka_unit_test(other_precisions_do_not_mind),
    };
    rpt_log_collect();
    fp8_open_or_skip(RP_PRECISION_FP8, 64, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_feeds", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
