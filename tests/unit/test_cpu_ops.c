/*
 * test_cpu_ops.c - norms, elementwise and picture ops of the CPU backend against plain loops in
 * double precision, over shapes that cross the sizes of its tasks.
 */
#include "rp_op_check.h"

/* ---- norms ---- */

typedef struct {
    int t, d;
    bool w;
    rp_dtype dtype;
    float shift;
    bool scale; /* or gate */
} norm_case;

static const norm_case norm_cases[] = {
    {1, 1, false, RP_F32, 0, false},   {1, 3, true, RP_BF16, 0, true},
    {5, 40, true, RP_F16, 1, false},   {97, 256, true, RP_BF16, 0, true},
    {97, 256, true, RP_BF16, 1, true}, {70, 255, false, RP_F32, 0, true},
    {3, 9000, true, RP_F32, 1, false},
};

typedef struct {
    norm_case c;
    const float *x;
    rp_tensor w;
    const float *scale;
    bool in_place, feeds_linear;
} norm_args;

static norm_args new_norm_args(const norm_case *c)
{
    norm_args a = {.c = *c, .x = new_values((size_t)c->t * (size_t)c->d, 9)};

    a.w = new_weight(c->dtype, 1, c->d, 11);
    a.scale = new_values((size_t)c->d, 12);
    return a;
}

static void drop_norm_args(const norm_args *a)
{
    drop(a->x);
    drop(a->w.data);
    drop(a->scale);
}

/* (w + shift) of column i; 1 / sqrt(mean((x - mean)^2) + eps) of row r */
static double weight_at(const norm_args *a, size_t i)
{
    return (a->c.w ? at(&a->w, i) : 1.0) + (double)a->c.shift;
}

static double mean_of(const float *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i];
    }
    return sum / (double)n;
}

static double inverse_of(const float *x, size_t n, double mean, double eps)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    }
    return 1.0 / sqrt(sum / (double)n + eps);
}

static void run_rms(void *self, const void *args, float *out)
{
    const norm_args *a = args;

    g_ops->rms_norm(self, a->in_place ? out : a->x, a->c.t, a->c.d, a->c.w ? &a->w : NULL,
                    a->c.shift, 0.01f, a->c.scale ? a->scale : NULL, out, a->feeds_linear);
}

static void rms_norm_follows_the_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(norm_cases) * 4; i++) {
        norm_args a = new_norm_args(&norm_cases[i / 4]);
        const size_t d = (size_t)a.c.d, n = (size_t)a.c.t * d;
        float *want = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            const double inverse = inverse_of(a.x + j / d * d, d, 0, (double)0.01f);
            const double scale = a.c.scale ? 1 + (double)a.scale[j % d] : 1;
            want[j] = (float)((double)a.x[j] * inverse * weight_at(&a, j % d) * scale);
        }
        a.in_place = i % 2 == 1;
        a.feeds_linear = i % 4 > 1;
        check_op("rms_norm", run_rms, &a, a.in_place ? a.x : NULL, want, n);
        drop_norm_args(&a);
    }
}

static void run_add_rms(void *self, const void *args, float *out)
{
    const norm_args *a = args;

    g_ops->add_rms_norm(self, out, a->x, a->c.t, a->c.d, a->c.w ? &a->w : NULL, a->c.shift, 0.01f,
                        a->c.scale ? a->scale : NULL);
}

static void add_rms_norm_adds_the_gated_norm(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(norm_cases); i++) {
        const norm_args a = new_norm_args(&norm_cases[i]);
        const size_t d = (size_t)a.c.d, n = (size_t)a.c.t * d;
        float *start = new_values(n, 13), *want = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            const double inverse = inverse_of(a.x + j / d * d, d, 0, (double)0.01f);
            const double gate = a.c.scale ? tanh((double)a.scale[j % d]) : 1;
            want[j] =
                (float)((double)start[j] + gate * (double)a.x[j] * inverse * weight_at(&a, j % d));
        }
        check_op("add_rms_norm", run_add_rms, &a, start, want, n);
        drop(start);
        drop_norm_args(&a);
    }
}

static void the_fused_norms_are_the_two_norms(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(norm_cases); i++) {
        const norm_args a = new_norm_args(&norm_cases[i]);
        const size_t d = (size_t)a.c.d, n_bytes = (size_t)a.c.t * d * sizeof(float);
        const rp_tensor *w = a.c.w ? &a.w : NULL;
        const float *scale = a.c.scale ? a.scale : NULL;
        float *x[3], *out[3];
        for (int k = 0; k < 3; k++) {
            x[k] = new_values((size_t)a.c.t * d, 13);
            out[k] = new_floats((size_t)a.c.t * d);
        }
        run_add_rms(g_self[0], &a, x[0]);
        g_ops->rms_norm(g_self[0], x[0], a.c.t, a.c.d, w, a.c.shift, 0.01f, scale, out[0], false);
        for (int k = 1; k < 3; k++) {
            g_ops->add_rms_norm_rms_norm(g_self[0], x[k], a.x, a.c.t, a.c.d, w, a.c.shift, 0.01f,
                                         scale, w, scale, out[k], k == 2);
            assert_memory_equal(x[0], x[k], n_bytes);
            assert_memory_equal(out[0], out[k], n_bytes);
        }
        for (int k = 0; k < 3; k++) {
            drop(x[k]);
            drop(out[k]);
        }
        drop_norm_args(&a);
    }
}

static void run_layer(void *self, const void *args, float *out)
{
    const norm_args *a = args;

    g_ops->layer_norm(self, a->in_place ? out : a->x, a->c.t, a->c.d, 0.01f,
                      a->c.scale ? a->scale : NULL, out);
}

static void layer_norm_follows_the_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(norm_cases) * 2; i++) {
        norm_args a = new_norm_args(&norm_cases[i / 2]);
        const size_t d = (size_t)a.c.d, n = (size_t)a.c.t * d;
        float *want = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            const float *row = a.x + j / d * d;
            const double mean = mean_of(row, d);
            const double scale = a.c.scale ? 1 + (double)a.scale[j % d] : 1;
            want[j] =
                (float)(((double)a.x[j] - mean) * inverse_of(row, d, mean, (double)0.01f) * scale);
        }
        a.in_place = i % 2 == 1;
        check_op("layer_norm", run_layer, &a, a.in_place ? a.x : NULL, want, n);
        drop_norm_args(&a);
    }
}

typedef struct {
    rp_rope_shape shape;
    bool w_q, w_k;
} rope_case;

typedef struct {
    rope_case c;
    rp_tensor w_q, w_k;
    const float *cos, *sin;
} rope_args;

static void run_rope(void *self, const void *args, float *out)
{
    const rope_args *a = args;

    g_ops->head_norm_rope(self, &a->c.shape, out, a->c.w_q ? &a->w_q : NULL,
                          a->c.w_k ? &a->w_k : NULL, a->cos, a->sin);
}

/* One head of one row; x is the input, y the output. */
static void turn(const rope_args *a, size_t row, const rp_tensor *w, const float *x, float *y)
{
    const size_t d = (size_t)a->c.shape.head_dim, half = d / 2;
    const double inverse = w != NULL ? inverse_of(x, d, 0, (double)a->c.shape.eps) : 1;

    for (size_t i = 0; i < half; i++) {
        const size_t p = a->c.shape.kind == RP_ROPE_PAIRS ? 2 * i : i;
        const size_t q = a->c.shape.kind == RP_ROPE_PAIRS ? 2 * i + 1 : i + half;
        const double u = (double)x[p] * inverse * (w != NULL ? at(w, p) : 1);
        const double v = (double)x[q] * inverse * (w != NULL ? at(w, q) : 1);
        const double c = (double)a->cos[row * half + i], s = (double)a->sin[row * half + i];
        y[p] = (float)(u * c - v * s);
        y[q] = (float)(u * s + v * c);
    }
}

static void head_norm_rope_norms_and_turns(void **state)
{
    (void)state;
    static const rope_case cases[] = {
        /* t, n_q, n_k, head_dim, row_stride, eps, kind; w_q, w_k */
        {{1, 1, 0, 2, 2, 0.01f, RP_ROPE_PAIRS}, false, false},
        {{1, 0, 1, 2, 2, 0.01f, RP_ROPE_HALVES}, false, false},
        {{3, 2, 1, 6, 20, 0.01f, RP_ROPE_PAIRS}, true, true},
        {{97, 3, 1, 64, 512, 0.01f, RP_ROPE_PAIRS}, true, true},
        {{97, 1, 1, 64, 130, 0.01f, RP_ROPE_HALVES}, true, false},
        {{97, 0, 2, 64, 130, 0.01f, RP_ROPE_HALVES}, true, true},
        {{300, 3, 2, 16, 80, 0.01f, RP_ROPE_HALVES}, false, false},
        {{300, 1, 2, 34, 102, 0.01f, RP_ROPE_PAIRS}, false, true},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        const rp_rope_shape *s = &cases[i].shape;
        const size_t n = (size_t)s->t * (size_t)s->row_stride, d = (size_t)s->head_dim;
        const size_t n_angles = (size_t)s->t * d / 2, n_heads = (size_t)(s->n_q + s->n_k);
        float *cos_table = new_floats(n_angles), *sin_table = new_floats(n_angles);
        float *start = new_values(n, 14), *want = new_floats(n);
        for (size_t j = 0; j < n_angles; j++) {
            cos_table[j] = (float)cos((double)j * 0.37);
            sin_table[j] = (float)sin((double)j * 0.37);
        }
        rope_args a = {.c = cases[i],
                       .w_q = new_weight(RP_BF16, 1, s->head_dim, 15),
                       .w_k = new_weight(RP_F16, 1, s->head_dim, 16),
                       .cos = cos_table,
                       .sin = sin_table};
        memcpy(want, start, n * sizeof(*want));
        for (size_t j = 0; j < (size_t)s->t * n_heads; j++) {
            const size_t row = j / n_heads, head = j % n_heads;
            const size_t x0 = row * (size_t)s->row_stride + head * d;
            const bool is_q = head < (size_t)s->n_q;
            const rp_tensor *w = is_q ? &a.w_q : &a.w_k;
            turn(&a, row, (is_q ? a.c.w_q : a.c.w_k) ? w : NULL, start + x0, want + x0);
        }
        check_op("head_norm_rope", run_rope, &a, start, want, n);
        drop(a.w_q.data);
        drop(a.w_k.data);
        drop(cos_table);
        drop(sin_table);
        drop(start);
    }
}

/* ---- elementwise ---- */

typedef struct {
    const float *x;
    int t, d;
    bool in_place;
} elem_args;

static double silu_of(double x)
{
    return x / (1 + exp(-x));
}

static double gelu_of(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static void run_swiglu(void *self, const void *args, float *out)
{
    const elem_args *a = args;

    g_ops->swiglu(self, a->x, a->t, a->d, out);
}

static void run_geglu(void *self, const void *args, float *out)
{
    const elem_args *a = args;

    g_ops->geglu(self, a->x, a->t, a->d, out);
}

static void gated_units_multiply_the_halves(void **state)
{
    (void)state;
    static const int shape[][2] = {{1, 1}, {3, 7}, {97, 512}, {2, 9001}};

    for (size_t i = 0; i < COUNT(shape) * 2; i++) {
        const size_t t = (size_t)shape[i / 2][0], d = (size_t)shape[i / 2][1];
        float *x = new_values(2 * t * d, 16);
        float *want = new_floats(t * d);
        for (size_t j = 0; j < t * d; j++) {
            x[j / d * 2 * d + j % d] *= 4;
            const double a = (double)x[j / d * 2 * d + j % d],
                         b = (double)x[j / d * 2 * d + j % d + d];
            want[j] = (float)((i % 2 == 0 ? silu_of(a) : gelu_of(a)) * b);
        }
        const elem_args args = {x, (int)t, (int)d, false};
        check_op(i % 2 == 0 ? "swiglu" : "geglu", i % 2 == 0 ? run_swiglu : run_geglu, &args, NULL,
                 want, t * d);
        drop(x);
    }
}

static void run_silu(void *self, const void *args, float *out)
{
    const elem_args *a = args;

    g_ops->silu(self, a->in_place ? out : a->x, (size_t)a->d, out);
}

static void run_add(void *self, const void *args, float *out)
{
    const elem_args *a = args;

    g_ops->add(self, out, a->x, (size_t)a->d);
}

static void silu_and_add_are_elementwise(void **state)
{
    (void)state;
    static const int length[] = {1, 7, 8192, 30001};

    for (size_t i = 0; i < COUNT(length) * 3; i++) {
        const size_t n = (size_t)length[i / 3];
        float *x = new_values(n, 17), *start = new_values(n, 18), *want = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            want[j] = i % 3 == 2 ? start[j] + x[j] : (float)silu_of((double)x[j]);
        }
        const elem_args args = {x, 1, (int)n, i % 3 == 1};
        const float *const starts[] = {NULL, x, start};
        check_op("silu, add", i % 3 == 2 ? run_add : run_silu, &args, starts[i % 3], want, n);
        drop(x);
        drop(start);
    }
}

/* NaN must reach the check for finite numbers, not vanish in a clamp. */
static void nan_goes_through(void **state)
{
    (void)state;
    const float x[4] = {NAN, 1.0f, NAN, 2.0f};
    float out[4] = {0}, pair[2] = {0};
    const rp_attention_shape s = {.n_q = 1,
                                  .n_kv = 2,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = 1,
                                  .q_stride = 1,
                                  .k_stride = 1,
                                  .v_stride = 1,
                                  .out_stride = 1,
                                  .scale = 1.0f};

    g_ops->silu(g_self[0], x, 4, out);
    assert_true(isnan(out[0]) && isnan(out[2]) && isfinite(out[1]));
    g_ops->swiglu(g_self[0], x, 1, 2, pair);
    assert_true(isnan(pair[0]));
    g_ops->geglu(g_self[0], x, 1, 2, pair);
    assert_true(isnan(pair[0]));
    g_ops->rms_norm(g_self[0], x, 1, 4, NULL, 0, 1e-5f, NULL, out, false);
    assert_true(isnan(out[1]));
    g_ops->attention(g_self[0], &s, x + 1, x, x + 1, out);
    assert_true(isnan(out[0]));
}

/* ---- pictures ---- */

typedef struct {
    const float *x;
    int c, h, w, p;
} patch_args;

static void run_patchify(void *self, const void *args, float *out)
{
    const patch_args *a = args;

    g_ops->patchify(self, a->x, a->c, a->h, a->w, a->p, out);
}

static void run_unpatchify(void *self, const void *args, float *out)
{
    const patch_args *a = args;

    g_ops->unpatchify(self, a->x, a->c, a->h, a->w, a->p, -2.0f, out);
}

static void patches_go_to_tokens_and_back(void **state)
{
    (void)state;
    static const int shape[][4] = {{1, 1, 1, 1}, {16, 4, 6, 2}, {3, 6, 9, 3}, {4, 8, 2, 2}};

    for (size_t i = 0; i < COUNT(shape); i++) {
        const size_t c = (size_t)shape[i][0], h = (size_t)shape[i][1], w = (size_t)shape[i][2];
        const size_t p = (size_t)shape[i][3], n = c * h * w;
        float *x = new_values(n, 19), *tokens = new_floats(n), *want = new_floats(n);
        float *back = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            const size_t ch = j / (h * w), y = j / w % h, z = j % w;
            const size_t token = y / p * (w / p) + z / p;
            const size_t element = (y % p * p + z % p) * c + ch;
            want[token * p * p * c + element] = tokens[token * p * p * c + element] = x[j];
            back[j] = -2.0f * x[j];
        }
        const patch_args there = {x, (int)c, (int)h, (int)w, (int)p};
        check_op("patchify", run_patchify, &there, NULL, want, n);
        const patch_args home = {tokens, (int)c, (int)h, (int)w, (int)p};
        check_op("unpatchify", run_unpatchify, &home, NULL, back, n);
        drop(x);
        drop(tokens);
    }
}

typedef struct {
    rp_conv_shape s;
    const float *x;
    rp_tensor w, bias;
    bool has_bias;
    const float *add; /* or NULL */
    bool in_place;    /* out holds the same as add */
} conv_args;

static void run_conv(void *self, const void *args, float *out)
{
    const conv_args *a = args;

    g_ops->conv2d(self, &a->s, a->x, &a->w, a->has_bias ? &a->bias : NULL,
                  a->in_place ? out : a->add, out);
}

static double conv_at(const conv_args *a, int c_out, int y, int x)
{
    const rp_conv_shape *s = &a->s;
    const int u = s->upsample, pad = s->kernel / 2;
    double sum = a->has_bias ? at(&a->bias, (size_t)c_out) : 0;

    for (int i = 0; i < s->c_in * s->kernel * s->kernel; i++) {
        const int c = i / (s->kernel * s->kernel);
        const int sy = y + i / s->kernel % s->kernel - pad, sx = x + i % s->kernel - pad;
        if (sy >= 0 && sy < s->h * u && sx >= 0 && sx < s->w * u) {
            sum += at(&a->w, (size_t)(c_out * s->c_in * s->kernel * s->kernel + i)) *
                   (double)a->x[(c * s->h + sy / u) * s->w + sx / u];
        }
    }
    return sum;
}

static void conv2d_follows_the_definition(void **state)
{
    (void)state;
    static const rp_conv_shape cases[] = {
        {1, 1, 1, 1, 1, 1},   {1, 1, 1, 1, 3, 1},     {3, 5, 1, 4, 3, 1},    {2, 3, 5, 1, 3, 2},
        {16, 8, 9, 7, 3, 1},  {16, 8, 9, 7, 3, 2},    {16, 24, 9, 33, 1, 1}, {4, 4, 6, 5, 1, 2},
        {8, 3, 40, 30, 3, 1}, {130, 4, 16, 90, 3, 1},
    };

    for (size_t i = 0; i < 3 * COUNT(cases); i++) {
        const rp_conv_shape *s = &cases[i / 3];
        const int h = s->h * s->upsample, w = s->w * s->upsample;
        const size_t n = (size_t)(s->c_out * h * w);
        conv_args a = {.s = *s, .has_bias = i / 3 % 3 != 2};
        a.x = new_values((size_t)(s->c_in * s->h * s->w), 20);
        a.w = new_weight((rp_dtype)(i / 3 % 3), s->c_out, s->c_in * s->kernel * s->kernel, 21);
        a.bias = new_weight((rp_dtype)(i / 3 % 3), 1, s->c_out, 22);
        a.add = i % 3 > 0 ? new_values(n, 27) : NULL;
        a.in_place = i % 3 == 2;
        float *want = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            const int pixel = (int)j % (h * w);
            const double add = a.add != NULL ? (double)a.add[j] : 0;
            want[j] = (float)(conv_at(&a, (int)j / (h * w), pixel / w, pixel % w) + add);
        }
        check_op("conv2d", run_conv, &a, a.in_place ? a.add : NULL, want, n);
        drop(a.add);
        drop(a.x);
        drop(a.w.data);
        drop(a.bias.data);
    }
}

typedef struct {
    const float *x;
    int c, hw, groups;
    rp_tensor w, b;
    bool silu, in_place;
} group_args;

static void run_group(void *self, const void *args, float *out)
{
    const group_args *a = args;

    g_ops->group_norm(self, a->in_place ? out : a->x, a->c, a->hw, a->groups, &a->w, &a->b, 1e-6f,
                      a->silu, out);
}

static void group_norm_follows_the_definition(void **state)
{
    (void)state;
    static const int shape[][3] = {{1, 3, 1}, {6, 7, 2}, {32, 256, 8}, {8, 70001, 4}};

    for (size_t i = 0; i < COUNT(shape) * 4; i++) {
        group_args a = {.c = shape[i / 4][0], .hw = shape[i / 4][1], .groups = shape[i / 4][2]};
        const size_t hw = (size_t)a.hw, n = (size_t)a.c * hw, per_group = n / (size_t)a.groups;
        float *x = new_values(n, 23), *want = new_floats(n);
        for (size_t j = 0; j < n; j++) {
            x[j] = x[j] * 0.5f + 30.0f; /* a mean far from 0, where a one-pass variance fails */
        }
        a.x = x;
        a.w = new_weight((rp_dtype)(i % 3), 1, a.c, 24);
        a.b = new_weight((rp_dtype)(i % 3), 1, a.c, 25);
        a.silu = i % 2 == 1;
        a.in_place = i / 2 % 2 == 1;
        for (size_t g = 0; g < n; g += per_group) {
            const double mean = mean_of(x + g, per_group);
            const double inverse = inverse_of(x + g, per_group, mean, 1e-6);
            for (size_t j = g; j < g + per_group; j++) {
                const double y =
                    ((double)x[j] - mean) * inverse * at(&a.w, j / hw) + at(&a.b, j / hw);
                want[j] = (float)(a.silu ? silu_of(y) : y);
            }
        }
        check_op("group_norm", run_group, &a, a.in_place ? x : NULL, want, n);
        drop(x);
        drop(a.w.data);
        drop(a.b.data);
    }
}

static void run_transpose(void *self, const void *args, float *out)
{
    const elem_args *a = args;

    g_ops->transpose(self, a->x, a->t, a->d, out);
}

static void transpose_swaps_rows_and_columns(void **state)
{
    (void)state;
    static const int shape[][2] = {{1, 1}, {1, 9}, {33, 17}, {16, 64}};

    for (size_t i = 0; i < COUNT(shape); i++) {
        const size_t rows = (size_t)shape[i][0], cols = (size_t)shape[i][1];
        const float *x = new_values(rows * cols, 26);
        float *want = new_floats(rows * cols);
        for (size_t j = 0; j < rows * cols; j++) {
            want[j % cols * rows + j / cols] = x[j];
        }
        const elem_args args = {x, (int)rows, (int)cols, false};
        check_op("transpose", run_transpose, &args, NULL, want, rows * cols);
        drop(x);
    }
}

/* numpy.round((x / 2 + 0.5).clip(0, 1) * 255) in float32. */
static void floats_become_bytes_as_numpy_makes_them(void **state)
{
    (void)state;
    static const struct {
        float x;
        int want;
    } cases[] = {
        {-1, 0},
        {1, 255},
        {0, 128},
        {-2, 0},
        {3, 255},
        {INFINITY, 255},
        {-INFINITY, 0},
        {NAN, 0},
        {-0.0f, 128},
        {0.5f, 191},
        {-0.5f, 64},
        {1e-30f, 128},
        {-0.996f, 1},
        {-0.997f, 0},
        {0.25f, 159},
        {0.75f, 223},
        {-0.25f, 96},
        {-0.75f, 32},
        {0.9999f, 255},
        {1e30f, 255},
        /* exactly 126.5, 100.5, 254.5 and 127.5: to even */
        {-0.00784313678741455f, 126},
        {-0.21176469326019287f, 100},
        {0.996078372001648f, 254},
        {0, 128},
    };
    enum { N = sizeof(cases) / sizeof(cases[0]) };
    float in[3 * N];
    uint8_t out[N * 3];

    for (size_t c = 0; c < 3; c++) {
        for (size_t i = 0; i < N; i++) {
            in[c * N + i] = cases[(i + c) % N].x; /* channels differ: the layout shows */
        }
    }
    g_ops->to_bytes(g_self[0], in, N, out);
    for (size_t i = 0; i < N; i++) {
        for (size_t c = 0; c < 3; c++) {
            if (out[i * 3 + c] != cases[(i + c) % N].want) {
                fail_msg("%g gave %d, want %d", (double)cases[(i + c) % N].x, out[i * 3 + c],
                         cases[(i + c) % N].want);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_follows_the_definition),
        cmocka_unit_test(add_rms_norm_adds_the_gated_norm),
        cmocka_unit_test(the_fused_norms_are_the_two_norms),
        cmocka_unit_test(layer_norm_follows_the_definition),
        cmocka_unit_test(head_norm_rope_norms_and_turns),
        cmocka_unit_test(gated_units_multiply_the_halves),
        cmocka_unit_test(silu_and_add_are_elementwise),
        cmocka_unit_test(nan_goes_through),
        cmocka_unit_test(patches_go_to_tokens_and_back),
        cmocka_unit_test(conv2d_follows_the_definition),
        cmocka_unit_test(group_norm_follows_the_definition),
        cmocka_unit_test(transpose_swaps_rows_and_columns),
        cmocka_unit_test(floats_become_bytes_as_numpy_makes_them),
    };
    return cmocka_run_group_tests_name("cpu_ops", tests, set_up, tear_down);
}
