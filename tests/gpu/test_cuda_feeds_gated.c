/*
 * test_cuda_feeds_gated.c - norms whose rows only a gated pair of products reads (feeds_linear), in
 * precision fp8: through each way of gated_linear the next product gives the same bits as without
 * the flag; recorded too.
 */
#include "fp8_feeds.h"

typedef struct {
    int t, k, d;
} gated_case;

/* On both sides of the rows that one kernel takes; k that it does not, or for long sums. */
static const gated_case gated_cases[] = {
    {1000, 256, 1280}, {1023, 128, 256},  {1024, 256, 1280}, {1100, 2304, 384},
    {1100, 144, 256},  {1100, 4096, 128}, {3, 64, 32},
};

/* Matrices of a feed-forward part, and what lies between its ops. */
typedef struct {
    rp_tensor glu[2], down;
    float *room, *inner;
} part;

static part new_part(feed *f, int d, bool narrow_gate, bool narrow_up)
{
    const size_t n = (size_t)f->t * (size_t)d;

    return (part){.glu = {matrix(f, d, f->d, narrow_gate, 5), matrix(f, d, f->d, narrow_up, 6)},
                  .down = matrix(f, N, d, true, 7),
                  .room = keep_on_device(f, NULL, 2 * n, true),
                  .inner = keep_on_device(f, NULL, n, true)};
}

static void run_down(const feed *f, const part *p)
{
    const rp_tensor *const list[] = {&p->down};
    const int d = (int)p->down.dim[1];

    g_ops->linear(f->self, p->inner, f->t, d, d, list, 1, NULL, f->out);
}

static void run_part(const feed *f, const float *from, const part *p)
{
    g_ops->gated_linear(f->self, from, f->t, f->d, &p->glu[0], &p->glu[1], true, p->room, p->inner);
    run_down(f, p);
}

/* Product and swiglu of what the norm has left. */
static void run_apart(const feed *f, const part *p)
{
    multiply_to(f, f->rows, p->glu, 2, p->room);
    g_ops->swiglu(f->self, p->room, f->t, (int)p->down.dim[1], p->inner);
    run_down(f, p);
}

static float *result(const feed *f)
{
    return from_device(f->self, f->out, (size_t)f->t * N);
}

static void one_gated(const gated_case *c, maker which, bool narrow_gate, bool narrow_up)
{
    void *self = narrow_gate && narrow_up ? NULL : g_fp8; /* with no room for wider rows yet */
    feed f = open_feed(self, RP_PRECISION_FP8, c->t, c->k, N);
    const part p = new_part(&f, c->d, narrow_gate, narrow_up);

    make(&f, which, true);
    run_part(&f, f.rows, &p);
    float *got = result(&f);
    if (narrow_gate == narrow_up) {
        make(&f, which, false);
        round_rows(&f);
        if (narrow_gate) {
            make(&f, which, false);
        }
        run_part(&f, narrow_gate ? f.rows : f.rounded, &p);
    } else {
        make(&f, which, true);
        run_apart(&f, &p);
    }
    float *want = result(&f);
    same_bits(&f,
              narrow_gate ? narrow_up ? "gated, narrow" : "gated, narrow gate"
              : narrow_up ? "gated, narrow up"
                          : "gated, other weights",
              got, want, (size_t)c->t * N);
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

/* ---- sequences ---- */

/* As a transformer block has them. */
static void run_block(const feed *f, const rp_tensor qkv[3], const part *p, bool feeds_linear)
{
    g_ops->rms_norm(f->self, f->x, f->t, f->d, &f->norm, 0, 1e-5f, NULL, f->rows, feeds_linear);
    multiply_to(f, f->rows, qkv, 3, f->y);
    g_ops->add_rms_norm_rms_norm(f->self, f->x, f->y, f->t, f->d, &f->norm, 0, 1e-5f, NULL,
                                 &f->norm, NULL, f->rows, feeds_linear);
    run_part(f, f->rows, p);
}

static void recorded_sequences_give_the_same_bits(void **state)
{
    (void)state;
    enum { T = 1100, HEADS = 2 * N, K = 3 * HEADS, D = 256, TIMES = 4 };
    feed f = open_feed(NULL, RP_PRECISION_FP8, T, K, N);
    const part p = new_part(&f, D, true, true);
    rp_tensor qkv[3];
    bool known = false;

    three_weights(&f, HEADS, true, qkv);
    run_block(&f, qkv, &p, false);
    float *want = result(&f);
    for (int i = 0; i < TIMES; i++) {
        g_ops->put(f.self, f.x, f.host_x, f.n * sizeof(float));
        known = g_ops->replay(f.self, 3);
        if (!known) {
            run_block(&f, qkv, &p, true);
            g_ops->recorded(f.self);
        }
        float *got = result(&f);
        same_bits(&f, "sequence", got, want, (size_t)T * N);
        free(got);
    }
    assert_true(known);
    close_feed(&f);
    free(want);
}

/* ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gated_linear_takes_rows_in_each_of_its_ways),
        cmocka_unit_test(recorded_sequences_give_the_same_bits),
    };
    rpt_log_collect();
    fp8_open_or_skip(RP_PRECISION_FP8, 64, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_feeds_gated", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
