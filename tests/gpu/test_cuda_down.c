/*
 * test_cuda_down.c - a gated pair of products and the product that takes what it gives: e4m3 in
 * blocks, our own product of those (compute capability 9.0), and the ways round that.
 */
#include "fp8_blocks.h"

#include <stdbool.h>

/* Relative L2 error. OWN: sums of 128 that keep fewer bits than f32 has, then bf16. WHOLE: against
 * numbers that were never rounded to e4m3 in between. */
#define OWN   5e-3
#define WHOLE 5e-2
#define GUARD 768.0f /* a value that bf16 keeps */

enum { GUARDS = 16, MAX_K = 9216 };

typedef struct {
    int t, k, d;
    int n_w, n[3];   /* rows of the next matrices; not a multiple of 16: those stay bf16 */
    bool bias, wide; /* wide: the result in f32 */
} feed_case;

static const feed_case cases[] = {
    {1025, 128, 128, 1, {2304}, false, false},
    {1111, 256, 384, 1, {192}, false, false},
    {1100, 256, 1280, 1, {16}, false, false},
    {1089, 512, 512, 1, {208}, true, false},
    {1111, 256, 384, 2, {192, 208}, false, false}, /* one matrix */
    {1024, 128, MAX_K, 1, {2304}, false, false},
    {4224, 256, 256, 1, {2304}, false, false},
    {1100, 256, 384, 1, {200}, false, false},
    {1100, 256, 384, 1, {7}, true, false},
    {1100, 256, 384, 3, {192, 200, 208}, false, false},
    {1100, 256, 384, 3, {200, 208, 7}, false, false},
    {1100, 256, 384, 2, {192, 200}, false, true},
    {1100, 256, 208, 1, {192}, false, false}, /* not in blocks */
    {3, 256, 256, 1, {192}, false, false},
};

/* A gated pair and the product that takes what it gives. */
typedef struct {
    feed_case c;
    int n;          /* columns of out */
    size_t n_inner; /* elements between the two */
    float *host_x, *host_gate, *host_up, *host_w[3], *host_bias;
    float *x, *room, *inner, *block, *out; /* out lies within block, with guards around it */
    rp_tensor gate, up, w[3], bias;
} feed;

static rp_tensor on_fp8(const rp_tensor *host)
{
    rp_tensor out;

    assert_int_equal(g_ops->weight(g_fp8, host, &out), RP_OK);
    return out;
}

static void new_next(feed *f)
{
    rp_tensor host[3];
    rp_tensor *slots[3];

    for (int i = 0; i < f->c.n_w; i++) {
        f->host_w[i] = values((size_t)f->c.n[i] * (size_t)f->c.d, 7 + (unsigned)i, 0.0625f);
        host[i] = matrix(f->c.n[i], f->c.d, f->host_w[i]);
        host[i].dtype = RP_F32;
        slots[i] = &host[i];
        f->n += f->c.n[i];
    }
    assert_int_equal(g_ops->weights_begin(g_fp8, slots, (size_t)f->c.n_w), RP_OK);
    for (int i = 0; i < f->c.n_w; i++) {
        f->w[i] = on_fp8(&host[i]);
        assert_int_equal(f->w[i].dtype, f->c.n[i] % 16 == 0 ? RP_F8_E4M3 : RP_BF16);
    }
    f->host_bias = values((size_t)f->n, 11, 1.0f);
    const rp_tensor bias = {
        .dtype = RP_F32, .n_dims = 1, .dim = {f->n, 1, 1, 1}, .data = f->host_bias};
    f->bias = on_fp8(&bias);
}

static float *guarded(size_t n, bool wide)
{
    const size_t all = n + (size_t)2 * GUARDS;
    float *guards = malloc(all * sizeof(*guards));
    void *mem = NULL;

    assert_non_null(guards);
    for (size_t i = 0; i < all; i++) {
        guards[i] = GUARD;
    }
    assert_int_equal(wide ? g_ops->alloc(g_fp8, all * sizeof(float), "test", &mem)
                          : g_ops->alloc_act(g_fp8, all, "test", &mem),
                     RP_OK);
    g_ops->put(g_fp8, mem, guards, all * sizeof(float));
    assert_int_equal(g_ops->sync(g_fp8), RP_OK);
    free(guards);
    return mem;
}

static feed new_feed(const feed_case *c)
{
    const size_t t = (size_t)c->t, k = (size_t)c->k, d = (size_t)c->d;
    feed f = {.c = *c,
              .n_inner = t * d,
              .host_x = values(t * k, 1, 1.0f),
              .host_gate = values(d * k, 2, 0.0625f),
              .host_up = values(d * k, 3, 0.0625f)};
    const rp_tensor gate = matrix(c->d, c->k, f.host_gate), up = matrix(c->d, c->k, f.host_up);

    f.gate = on_fp8(&gate);
    f.up = on_fp8(&up);
    new_next(&f);
    f.x = on_device(g_fp8, f.host_x, t * k);
    f.room = on_device(g_fp8, NULL, 2 * f.n_inner);
    f.inner = on_device(g_fp8, NULL, f.n_inner);
    f.block = guarded(t * (size_t)f.n, c->wide);
    f.out = f.block + GUARDS;
    return f;
}

static void drop_feed(feed *f)
{
    float *const arrays[] = {f->x, f->room, f->inner, f->block};
    float *const hosts[] = {f->host_x,    f->host_gate, f->host_up,  f->host_w[0],
                            f->host_w[1], f->host_w[2], f->host_bias};

    for (size_t i = 0; i < COUNT(arrays); i++) {
        g_ops->release(g_fp8, arrays[i]);
    }
    for (size_t i = 0; i < COUNT(hosts); i++) {
        free(hosts[i]);
    }
    for (int i = 0; i < f->c.n_w; i++) {
        g_ops->weight_release(g_fp8, &f->w[i]);
    }
    g_ops->weight_release(g_fp8, &f->gate);
    g_ops->weight_release(g_fp8, &f->up);
    g_ops->weight_release(g_fp8, &f->bias);
}

/* ---- the two ops ---- */

static void run_gated(const feed *f)
{
    g_ops->gated_linear(g_fp8, f->x, f->c.t, f->c.k, &f->gate, &f->up, true, f->room, f->inner);
}

static void run_linear(const feed *f, int t)
{
    const rp_tensor *const list[] = {&f->w[0], &f->w[1], &f->w[2]};

    g_ops->linear(g_fp8, f->inner, t, f->c.d, f->c.d, list, f->c.n_w, f->c.bias ? &f->bias : NULL,
                  f->out);
}

static float *run_both(const feed *f)
{
    run_gated(f);
    run_linear(f, f->c.t);
    return from_device(g_fp8, f->out, (size_t)f->c.t * (size_t)f->n);
}

/* The product of rows in f32, of matrices as the device has them. */
static float *linear_on_cpu(const feed *f, const float *inner)
{
    rp_tensor w[3];
    float *copies[3] = {NULL}, *out = malloc((size_t)f->c.t * (size_t)f->n * sizeof(*out));
    const rp_tensor *const list[] = {&w[0], &w[1], &w[2]};
    const rp_tensor bias = {
        .dtype = RP_F32, .n_dims = 1, .dim = {f->n, 1, 1, 1}, .data = f->host_bias};

    assert_non_null(out);
    for (int i = 0; i < f->c.n_w; i++) {
        copies[i] = f->c.n[i] % 16 == 0 ? rounded(f->host_w[i], f->c.n[i], f->c.d) : NULL;
        w[i] = matrix(f->c.n[i], f->c.d, copies[i] != NULL ? copies[i] : f->host_w[i]);
    }
    g_cpu_ops->linear(g_cpu, inner, f->c.t, f->c.d, f->c.d, list, f->c.n_w,
                      f->c.bias ? &bias : NULL, out);
    assert_int_equal(g_cpu_ops->sync(g_cpu), RP_OK);
    for (int i = 0; i < f->c.n_w; i++) {
        free(copies[i]);
    }
    return out;
}

static float *both_on_cpu(const feed *f)
{
    const feed_case *c = &f->c;
    float *x = rounded(f->host_x, c->t, c->k), *w_gate = rounded(f->host_gate, c->d, c->k);
    float *w_up = rounded(f->host_up, c->d, c->k);
    float *room = malloc(2 * f->n_inner * sizeof(*room));
    float *inner = malloc(f->n_inner * sizeof(*inner));
    const rp_tensor gate = matrix(c->d, c->k, w_gate), up = matrix(c->d, c->k, w_up);

    assert_true(room != NULL && inner != NULL);
    g_cpu_ops->gated_linear(g_cpu, x, c->t, c->k, &gate, &up, true, room, inner);
    assert_int_equal(g_cpu_ops->sync(g_cpu), RP_OK);
    float *out = linear_on_cpu(f, inner);
    free(x);
    free(w_gate);
    free(w_up);
    free(room);
    free(inner);
    return out;
}

/* Does the gated pair leave blocks here? On other devices no shape is taken. */
static bool in_blocks(const feed *f)
{
    const rp_cuda *cuda = g_fp8;

    run_gated(f);
    return cuda->narrowed.t > 0 && cuda->narrowed.blocks;
}

static feed feed_or_skip(const feed_case *c)
{
    feed f = new_feed(c);

    if (!in_blocks(&f)) {
        drop_feed(&f);
        print_message("not on this device\n");
        skip();
    }
    return f;
}

/* ---- tests ---- */

static void feed_forward_is_as_the_cpus(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        feed f = new_feed(&cases[i]);
        const size_t n_out = (size_t)f.c.t * (size_t)f.n;
        const bool blocks = in_blocks(&f);
        host_blocks left = {0};
        float *inner = NULL;
        if (blocks) {
            left = blocks_of(f.inner, f.c.t, f.c.d);
            inner = multiplied_out(&left);
        }
        float *got = run_both(&f), *again = run_both(&f), *whole = both_on_cpu(&f);
        float *want = blocks ? linear_on_cpu(&f, inner) : NULL;
        const double error = rpt_rel_l2(got, whole, n_out);
        const double own = blocks ? rpt_rel_l2(got, want, n_out) : 0.0;
        print_message("    t %d k %d d %d n %d%s: error %.2g, of the product alone %.2g\n", f.c.t,
                      f.c.k, f.c.d, f.n, blocks ? ", in blocks" : "", error, own);
        assert_true(error <= WHOLE);
        /* Such results are of rows that were rounded once more, to one scale each. */
        assert_true(own <= (f.c.wide || f.n % 8 != 0 ? WHOLE : OWN));
        assert_memory_equal(again, got, n_out * sizeof(float));
        float *block = from_device(g_fp8, f.block, n_out + (size_t)2 * GUARDS);
        for (size_t j = 0; j < GUARDS; j++) {
            assert_true(block[j] == GUARD && block[GUARDS + n_out + j] == GUARD);
        }
        drop_blocks(&left);
        drop_feed(&f);
        free(inner);
        free(got);
        free(again);
        free(whole);
        free(want);
        free(block);
    }
}

/* A row of zeros, of large numbers, with a NaN. */
static void rows_that_are_not_finite(void **state)
{
    (void)state;
    static const feed_case c = {1100, 256, 256, 1, {208}, false, false};
    feed f = feed_or_skip(&c);

    memset(f.host_x + (size_t)3 * (size_t)c.k, 0, (size_t)c.k * sizeof(float));
    for (int i = 0; i < c.k; i++) {
        f.host_x[700 * c.k + i] *= 4096.0f;
    }
    f.host_x[5 * c.k + 9] = NAN;
    g_ops->put(g_fp8, f.x, f.host_x, (size_t)c.t * (size_t)c.k * sizeof(float));
    float *got = run_both(&f);
    for (int i = 0; i < c.t * f.n; i++) {
        assert_true(i / f.n == 5 ? isnan(got[i]) : isfinite(got[i]));
        assert_true(i / f.n != 3 || got[i] == 0.0f);
    }
    drop_feed(&f);
    free(got);
}

static void recorded_it_gives_the_same_bits(void **state)
{
    (void)state;
    enum { TIMES = 4 };
    static const feed_case c = {1111, 256, 640, 3, {192, 200, 208}, false, false};
    feed f = feed_or_skip(&c);
    const size_t n_out = (size_t)c.t * (size_t)f.n;
    float *zeros = calloc(n_out, sizeof(*zeros)), *first = NULL;
    bool known = false;

    assert_non_null(zeros);
    for (int i = 0; i < TIMES; i++) {
        g_ops->put(g_fp8, f.out, zeros, n_out * sizeof(float));
        known = g_ops->replay(g_fp8, 9);
        if (!known) {
            run_gated(&f);
            run_linear(&f, c.t);
            g_ops->recorded(g_fp8);
        }
        float *got = from_device(g_fp8, f.out, n_out);
        if (first == NULL) {
            first = got;
        } else {
            assert_memory_equal(got, first, n_out * sizeof(float));
            free(got);
        }
    }
    assert_true(known);
    drop_feed(&f);
    free(zeros);
    free(first);
}

/* Nobody may read rows that were not left. */
static void rows_of_another_shape_are_refused(void **state)
{
    (void)state;
    feed f = feed_or_skip(&cases[1]);

    run_gated(&f);
    run_linear(&f, f.c.t - 1);
    assert_int_equal(g_ops->sync(g_fp8), RP_E_ARG);
    drop_feed(&f);
}

/* ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feed_forward_is_as_the_cpus),
        cmocka_unit_test(rows_that_are_not_finite),
        cmocka_unit_test(recorded_it_gives_the_same_bits),
        cmocka_unit_test(rows_of_another_shape_are_refused),
    };
    fp8_open_or_skip(RP_PRECISION_FP8, MAX_K, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_down", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
