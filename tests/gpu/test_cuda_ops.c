/*
 * test_cuda_ops.c - norms, rotary embedding and elementwise ops of the CUDA backend against the
 * CPU's, in both precisions, from and to both kinds of memory.
 */
#include "cuda_pair.h"

#define EPS 0.01f

/* ---- norms ---- */

typedef struct {
    int t, d;
    bool w, scale; /* scale, or gate */
    float shift;
} norm_case;

static const norm_case norm_cases[] = {
    {1, 1, false, false, 0},     {1, 3, true, true, 0},      {2, 7, true, false, 1},
    {5, 65, true, true, 1},      {97, 256, true, true, 0},   {70, 255, false, true, 0},
    {33, 192, true, false, 1},   {130, 2304, true, true, 0}, {3, 9001, true, true, 1},
    {1, 2304, true, false, 0},   {4097, 8, false, true, 0},  {2, 513, true, true, 0},
    {17, 1024, false, false, 0},
};

typedef struct {
    norm_case c;
    size_t n;
    pair_weight w, w2;
    pair_array scale, scale2;
} norm_args;

static norm_args norm_args_of(const norm_case *c, rp_dtype dtype)
{
    norm_args a = {.c = *c, .n = (size_t)c->t * (size_t)c->d};

    pair_say("t %d d %d w %d (type %d) shift %g scale %d", c->t, c->d, c->w, (int)dtype,
             (double)c->shift, c->scale);
    a.w = pair_weight_random(dtype, c->d, 0, 0, 11);
    a.w2 = pair_weight_random(dtype, c->d, 0, 0, 12);
    a.scale = pair_random(PAIR_ALLOC, (size_t)c->d, 13, 1, 0);
    a.scale2 = pair_random(PAIR_ALLOC, (size_t)c->d, 14, 1, 0);
    return a;
}

static void norm_args_drop(norm_args *a)
{
    pair_weight_drop(&a->w);
    pair_weight_drop(&a->w2);
    pair_drop(&a->scale);
    pair_drop(&a->scale2);
}

static const rp_tensor *w_of(const norm_args *a, const pair_weight *w, int side)
{
    return a->c.w ? &w->at[side] : NULL;
}

static const float *scale_of(const norm_args *a, const pair_array *scale, int side)
{
    return a->c.scale ? scale->at[side] : NULL;
}

typedef void (*norm_fn)(const rp_backend *b, const norm_args *a, int side, const float *x,
                        float *out);

static void run_rms(const rp_backend *b, const norm_args *a, int side, const float *x, float *out)
{
    b->ops->rms_norm(b->self, x, a->c.t, a->c.d, w_of(a, &a->w, side), a->c.shift, EPS,
                     scale_of(a, &a->scale, side), out, false);
}

static void run_layer(const rp_backend *b, const norm_args *a, int side, const float *x, float *out)
{
    b->ops->layer_norm(b->self, x, a->c.t, a->c.d, EPS, scale_of(a, &a->scale, side), out);
}

static void one_norm(const char *name, norm_fn run, const pair_mode *m, const norm_args *a)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        pair_array x = pair_random(in_place ? m->out : m->in, a->n, 9, 2, 0.5f);
        pair_array out = in_place ? x : pair_poison(m->out, a->n);
        for (int s = 0; s < N_SIDES; s++) {
            run(&pair_on[s], a, s, x.at[s], out.at[s]);
        }
        (void)pair_check(name, &out, PAIR_CLOSE);
        if (!in_place) {
            (void)pair_check("the input of a norm", &x, PAIR_EXACT);
            pair_drop(&out);
        }
        pair_drop(&x);
    }
}

static void each_norm(const char *name, norm_fn run)
{
    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        for (size_t i = 0; i < COUNT(norm_cases); i++) {
            norm_args a = norm_args_of(&norm_cases[i], (rp_dtype)((i + (size_t)m) % 3));
            one_norm(name, run, &pair_modes[m], &a);
            norm_args_drop(&a);
        }
    }
    pair_done();
}

static void rms_norm(void **state)
{
    (void)state;
    each_norm("rms_norm", run_rms);
}

static void layer_norm(void **state)
{
    (void)state;
    each_norm("layer_norm", run_layer);
}

/* add_rms_norm and the fused two norms, on the same data */
static void one_added_norm(const pair_mode *m, const norm_args *a)
{
    const norm_case *c = &a->c;
    pair_array y = pair_random(m->in, a->n, 15, 1, 0);
    pair_array x[2], out = pair_poison(m->out, a->n);

    for (int k = 0; k < 2; k++) {
        x[k] = pair_random(m->out, a->n, 16, 1, 0);
    }
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        b->ops->add_rms_norm(b->self, x[0].at[s], y.at[s], c->t, c->d, w_of(a, &a->w, s), c->shift,
                             EPS, scale_of(a, &a->scale, s));
        b->ops->add_rms_norm_rms_norm(b->self, x[1].at[s], y.at[s], c->t, c->d, w_of(a, &a->w, s),
                                      c->shift, EPS, scale_of(a, &a->scale, s), w_of(a, &a->w2, s),
                                      scale_of(a, &a->scale2, s), out.at[s], false);
    }
    (void)pair_check("add_rms_norm", &x[0], PAIR_CLOSE);
    (void)pair_check("add_rms_norm_rms_norm, x", &x[1], PAIR_CLOSE);
    (void)pair_check("add_rms_norm_rms_norm, out", &out, PAIR_CLOSE);
    (void)pair_check("the input y", &y, PAIR_EXACT);
    pair_drop(&y);
    pair_drop(&x[0]);
    pair_drop(&x[1]);
    pair_drop(&out);
}

static void added_norms(void **state)
{
    (void)state;
    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        for (size_t i = 0; i < COUNT(norm_cases); i++) {
            norm_args a = norm_args_of(&norm_cases[i], (rp_dtype)((i + (size_t)m) % 3));
            one_added_norm(&pair_modes[m], &a);
            norm_args_drop(&a);
        }
    }
    pair_done();
}

/* ---- rotary embedding ---- */

typedef struct {
    int t, n_q, n_k, head_dim, row_stride;
    bool w_q, w_k;
    rp_rope_kind kind;
} rope_case;

static const rope_case rope_cases[] = {
    {1, 1, 0, 2, 2, false, false, RP_ROPE_PAIRS},
    {1, 0, 1, 2, 2, false, true, RP_ROPE_HALVES},
    {3, 2, 1, 6, 20, true, true, RP_ROPE_PAIRS},
    {5, 1, 0, 14, 15, true, false, RP_ROPE_HALVES},
    {97, 3, 1, 64, 512, true, false, RP_ROPE_PAIRS},
    {97, 1, 1, 64, 130, true, true, RP_ROPE_HALVES},
    {300, 3, 2, 16, 80, false, false, RP_ROPE_HALVES},
    {300, 2, 1, 34, 102, false, true, RP_ROPE_PAIRS},
    {70, 24, 8, 96, 3840, true, true, RP_ROPE_PAIRS},
    {1400, 24, 8, 96, 3840, true, true, RP_ROPE_PAIRS}, /* a warp has several rows */
    {301, 4, 2, 64, 512, true, true, RP_ROPE_PAIRS},
    {33, 8, 4, 256, 4096, false, false, RP_ROPE_HALVES},
    {700, 40, 9, 32, 1600, true, true, RP_ROPE_HALVES},
    {9, 1, 1, 128, 257, true, true, RP_ROPE_PAIRS},
    {4, 1, 0, 512, 513, true, true, RP_ROPE_HALVES},
};

/* Queries and keys in a call each: the bits of both in one. */
static void turn_apart(const pair_mode *m, const rp_rope_shape *both, const pair_array *together,
                       const rp_tensor *w_q, const rp_tensor *w_k, const float *cos,
                       const float *sin)
{
    const rp_backend *b = &pair_on[GPU];
    rp_rope_shape queries = *both, keys = *both;
    pair_array x = pair_random(m->out, together->n, 22, 1, 0);
    float *host[2];

    queries.n_k = 0;
    keys.n_q = 0;
    b->ops->head_norm_rope(b->self, &queries, x.at[GPU], w_q, w_k, cos, sin);
    b->ops->head_norm_rope(b->self, &keys, x.at[GPU] + (size_t)both->n_q * (size_t)both->head_dim,
                           w_q, w_k, cos, sin);
    for (int k = 0; k < 2; k++) {
        host[k] = malloc(x.n * sizeof(float));
        assert_non_null(host[k]);
        pair_get(k == 0 ? together->at[GPU] : x.at[GPU], host[k], x.n);
    }
    assert_memory_equal(host[0], host[1], x.n * sizeof(float));
    free(host[0]);
    free(host[1]);
    pair_drop(&x);
}

static void one_rope(const pair_mode *m, const rope_case *c, rp_dtype dtype)
{
    const size_t n_angles = (size_t)c->t * (size_t)c->head_dim / 2;
    const rp_rope_shape shape = {.t = c->t,
                                 .n_q = c->n_q,
                                 .n_k = c->n_k,
                                 .head_dim = c->head_dim,
                                 .row_stride = c->row_stride,
                                 .eps = EPS,
                                 .kind = c->kind};
    float *table[2];
    pair_array angle[2], x;
    pair_weight w_q = pair_weight_random(dtype, c->head_dim, 0, 0, 21);
    pair_weight w_k = pair_weight_random(dtype, c->head_dim, 0, 0, 23);

    pair_say("t %d heads %d + %d of %d stride %d w %d %d kind %d", c->t, c->n_q, c->n_k,
             c->head_dim, c->row_stride, c->w_q, c->w_k, (int)c->kind);
    for (int k = 0; k < 2; k++) {
        table[k] = malloc(n_angles * sizeof(float));
        assert_non_null(table[k]);
        for (size_t i = 0; i < n_angles; i++) {
            const double a = (double)i * 0.37;
            table[k][i] = (float)(k == 0 ? cos(a) : sin(a));
        }
        angle[k] = pair_of(PAIR_ALLOC, n_angles, table[k]);
        free(table[k]);
    }
    /* what lies between the rows must stay */
    x = pair_random(m->out, (size_t)c->t * (size_t)c->row_stride, 22, 1, 0);
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        b->ops->head_norm_rope(b->self, &shape, x.at[s], c->w_q ? &w_q.at[s] : NULL,
                               c->w_k ? &w_k.at[s] : NULL, angle[0].at[s], angle[1].at[s]);
    }
    (void)pair_check("head_norm_rope", &x, PAIR_CLOSE);
    turn_apart(m, &shape, &x, c->w_q ? &w_q.at[GPU] : NULL, c->w_k ? &w_k.at[GPU] : NULL,
               angle[0].at[GPU], angle[1].at[GPU]);
    pair_drop(&x);
    pair_drop(&angle[0]);
    pair_drop(&angle[1]);
    pair_weight_drop(&w_q);
    pair_weight_drop(&w_k);
}

static void head_norm_rope(void **state)
{
    (void)state;
    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        for (size_t i = 0; i < COUNT(rope_cases); i++) {
            one_rope(&pair_modes[m], &rope_cases[i], (rp_dtype)((i + (size_t)m) % 3));
        }
    }
    pair_done();
}

/* ---- elementwise ---- */

static const int unit_shapes[][2] = {{1, 1},    {1, 3},    {3, 7},      {5, 65},
                                     {97, 512}, {2, 9001}, {130, 9216}, {257, 40}};

static void gated_units(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(unit_shapes) * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const int t = unit_shapes[i / (size_t)pair_n_modes][0];
        const int d = unit_shapes[i / (size_t)pair_n_modes][1];
        pair_use(m);
        pair_say("t %d d %d", t, d);
        for (int geglu = 0; geglu < 2; geglu++) {
            pair_array ab = pair_random(m->in, 2 * (size_t)t * (size_t)d, 31, 3, 0);
            pair_array out = pair_poison(m->out, (size_t)t * (size_t)d);
            for (int s = 0; s < N_SIDES; s++) {
                const rp_backend *b = &pair_on[s];
                (geglu ? b->ops->geglu : b->ops->swiglu)(b->self, ab.at[s], t, d, out.at[s]);
            }
            (void)pair_check(geglu ? "geglu" : "swiglu", &out, PAIR_CLOSE);
            pair_drop(&ab);
            pair_drop(&out);
        }
    }
    pair_done();
}

static void one_length(const pair_mode *m, size_t n)
{
    pair_array x = pair_random(m->in, n, 32, 3, 0), y = pair_random(m->out, n, 33, 1, 0);
    pair_array out = pair_poison(m->out, n), sum = pair_random(m->out, n, 34, 1, 0);

    pair_say("n %zu", n);
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        b->ops->silu(b->self, x.at[s], n, out.at[s]);
        b->ops->silu(b->self, y.at[s], n, y.at[s]);
        b->ops->add(b->self, sum.at[s], x.at[s], n);
    }
    (void)pair_check("silu", &out, PAIR_CLOSE);
    (void)pair_check("silu in place", &y, PAIR_CLOSE);
    (void)pair_check("add", &sum, PAIR_CLOSE);
    (void)pair_check("the input", &x, PAIR_EXACT);
    pair_drop(&x);
    pair_drop(&y);
    pair_drop(&out);
    pair_drop(&sum);
}

static void silu_and_add(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 3, 7, 8, 65, 1023, 8192, 30001, 1 << 20};

    for (size_t i = 0; i < COUNT(lengths) * (size_t)pair_n_modes; i++) {
        pair_use(&pair_modes[i % (size_t)pair_n_modes]);
        one_length(&pair_modes[i % (size_t)pair_n_modes], lengths[i / (size_t)pair_n_modes]);
    }
    pair_done();
}

/* NaN must reach the check for finite numbers, not vanish in a clamp or a fast exponential. */
static void nan_and_large_values_go_through(void **state)
{
    (void)state;
    static const float in[8] = {NAN, 90.0f, -90.0f, 2.0f, NAN, 1e4f, -1e4f, 1.0f};

    for (int m = 0; m < pair_n_modes; m++) {
        float got[8];
        pair_use(&pair_modes[m]);
        const rp_backend *b = &pair_on[GPU];
        pair_array x = pair_of(pair_modes[m].in, 8, in), out = pair_poison(pair_modes[m].out, 8);
        b->ops->silu(b->self, x.at[GPU], 8, out.at[GPU]);
        pair_get(out.at[GPU], got, 8);
        assert_true(isnan(got[0]) && isnan(got[4]));
        assert_true(got[1] == 90.0f && fabsf(got[2]) < 1e-30f && fabsf(got[6]) < 1e-30f);
        b->ops->swiglu(b->self, x.at[GPU], 1, 4, out.at[GPU]);
        pair_get(out.at[GPU], got, 4);
        assert_true(isnan(got[0]) && isfinite(got[1]) && isfinite(got[2]) && isfinite(got[3]));
        b->ops->geglu(b->self, x.at[GPU], 1, 4, out.at[GPU]);
        pair_get(out.at[GPU], got, 4);
        assert_true(isnan(got[0]) && isfinite(got[1]) && fabsf(got[2]) < 1.0f);
        b->ops->rms_norm(b->self, x.at[GPU], 2, 4, NULL, 0, 1e-5f, NULL, out.at[GPU], false);
        pair_get(out.at[GPU], got, 8);
        assert_true(isnan(got[1]) && isnan(got[7]));
        pair_drop(&x);
        pair_drop(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm),
        cmocka_unit_test(layer_norm),
        cmocka_unit_test(added_norms),
        cmocka_unit_test(head_norm_rope),
        cmocka_unit_test(gated_units),
        cmocka_unit_test(silu_and_add),
        cmocka_unit_test(nan_and_large_values_go_through),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_ops", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
