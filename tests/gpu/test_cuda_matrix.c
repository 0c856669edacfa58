/*
 * test_cuda_matrix.c - embedding, matrix products and attention of the CUDA backend against the
 * CPU's, in both precisions, from and to both kinds of memory.
 */
#include "cuda_pair.h"

/* ---- embedding ---- */

static void embed(void **state)
{
    (void)state;
    static const int32_t ids[] = {4, 0, 4, 2, 6, 65, 1};
    static const int widths[] = {1, 3, 65, 192, 2304};

    for (size_t i = 0; i < COUNT(widths) * 3 * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const rp_dtype dtype = (rp_dtype)(i / (size_t)pair_n_modes % 3);
        const int d = widths[i / (size_t)pair_n_modes / 3];
        pair_use(m);
        pair_say("d %d type %d", d, (int)dtype);
        pair_weight table = pair_weight_random(dtype, 66, d, 0, 41);
        for (int t = 1; t <= (int)COUNT(ids); t += 3) {
            pair_array out = pair_poison(m->out, (size_t)t * (size_t)d);
            for (int s = 0; s < N_SIDES; s++) {
                const rp_backend *b = &pair_on[s];
                b->ops->embed(b->self, &table.at[s], ids, t, 13.5f, out.at[s]);
            }
            (void)pair_check("embed", &out, PAIR_CLOSE);
            pair_drop(&out);
        }
        pair_weight_drop(&table);
    }
    pair_done();
}

/* ---- linear ---- */

typedef struct {
    int t, k, extra; /* x_stride = k + extra */
    int n_w, n[4];
    bool bias;
} linear_case;

static const linear_case linear_cases[] = {
    {1, 1, 0, 1, {1}, false},
    {1, 3, 0, 1, {5}, true},
    {3, 7, 2, 1, {65}, false},
    {4, 256, 0, 1, {300}, true},
    {5, 31, 2, 1, {129}, true},
    {2, 17, 5, 2, {3, 130}, false},
    {97, 256, 0, 3, {256, 128, 128}, false},
    {65, 64, 0, 4, {1, 127, 128, 200}, false},
    {33, 65, 7, 2, {257, 3}, false},
    {129, 192, 64, 1, {512}, true},
    {520, 40, 0, 1, {140}, true},
    {1025, 8, 0, 2, {9, 130}, false},
    {256, 72, 8, 2, {72, 24}, false},
    {300, 2304, 0, 3, {2304, 768, 768}, false},
    {8, 9216, 0, 1, {2304}, false},
    {1, 2304, 0, 1, {9216}, true},
    {1, 1024, 0, 4, {1024, 1024, 8, 7}, false},
    {7, 100, 1, 2, {33, 31}, false},
};

static void one_linear(const pair_mode *m, const linear_case *c, rp_dtype dtype)
{
    const size_t stride = (size_t)(c->k + c->extra);
    pair_array x = pair_random(m->in, (size_t)c->t * stride, 42, 1, 0);
    pair_weight w[4], bias = pair_weight_random(dtype, c->n[0], 0, 0, 43);
    size_t n_out = 0;

    pair_say("t %d k %d stride %zu weights %d (%d %d %d %d) type %d bias %d", c->t, c->k, stride,
             c->n_w, c->n[0], c->n[1], c->n[2], c->n[3], (int)dtype, c->bias);
    for (int i = 0; i < c->n_w; i++) {
        w[i] = pair_weight_random(dtype, c->n[i], c->k, 0, 44 + (unsigned)i);
        n_out += (size_t)c->n[i];
    }
    pair_array out = pair_poison(m->out, (size_t)c->t * n_out);
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        const rp_tensor *list[4] = {NULL};
        for (int i = 0; i < c->n_w; i++) {
            list[i] = &w[i].at[s];
        }
        b->ops->linear(b->self, x.at[s], c->t, c->k, (int)stride, list, c->n_w,
                       c->bias ? &bias.at[s] : NULL, out.at[s]);
    }
    (void)pair_check("linear", &out, PAIR_CLOSE);
    (void)pair_check("the input of linear", &x, PAIR_EXACT);
    for (int i = 0; i < c->n_w; i++) {
        pair_weight_drop(&w[i]);
    }
    pair_weight_drop(&bias);
    pair_drop(&x);
    pair_drop(&out);
}

static void linear(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(linear_cases) * (size_t)pair_n_modes; i++) {
        pair_use(&pair_modes[i % (size_t)pair_n_modes]);
        for (int dtype = RP_F32; dtype <= RP_BF16; dtype++) {
            one_linear(&pair_modes[i % (size_t)pair_n_modes],
                       &linear_cases[i / (size_t)pair_n_modes], (rp_dtype)dtype);
        }
    }
    pair_done();
}

/* Plans are kept by shape: the same shape with other strides and weights must not reuse the wrong
 * one. */
static void linear_tells_like_shapes_apart(void **state)
{
    (void)state;
    static const linear_case alike[] = {
        {16, 64, 0, 1, {96}, false},     {16, 64, 8, 1, {96}, false},
        {16, 64, 0, 1, {96}, true},      {16, 64, 0, 2, {48, 48}, false},
        {16, 64, 0, 2, {32, 64}, false}, {16, 64, 0, 2, {64, 32}, false},
        {16, 64, 0, 1, {96}, false},     {64, 16, 0, 1, {96}, false},
        {16, 96, 0, 1, {64}, false},     {16, 64, 32, 3, {32, 32, 32}, false},
    };

    for (size_t i = 0; i < COUNT(alike) * (size_t)pair_n_modes; i++) {
        pair_use(&pair_modes[i / COUNT(alike)]);
        one_linear(&pair_modes[i / COUNT(alike)], &alike[i % COUNT(alike)], RP_BF16);
    }
    pair_done();
}

/* ---- attention ---- */

/* One buffer of rows [q | k | v | rest] as the networks have it, or three buffers. */
typedef struct {
    int n_q, n_kv, n_heads, n_kv_heads, head_dim;
    int extra; /* added to every stride */
    bool fused;
    float softcap;
    bool causal;
    int window;
} attention_case;

static const attention_case attention_cases[] = {
    {1, 1, 1, 1, 8, 0, false, 0, false, 0},         {3, 1, 2, 1, 8, 0, false, 0, false, 0},
    {3, 5, 3, 1, 14, 3, false, 0, false, 0},        {2, 2, 1, 1, 2, 0, true, 0, false, 0},
    {97, 97, 4, 2, 64, 0, true, 0, false, 0},       {7, 300, 2, 2, 16, 8, false, 0, false, 0},
    {300, 7, 6, 2, 6, 1, false, 0, false, 0},       {33, 33, 24, 8, 96, 0, true, 0, false, 0},
    {257, 257, 24, 8, 96, 0, true, 0, false, 0},    {1100, 1100, 6, 2, 96, 0, true, 0, false, 0},
    {130, 131, 2, 1, 128, 16, false, 0, false, 0},  {64, 64, 3, 1, 16, 0, true, 0, false, 0},
    {240, 240, 1, 1, 24, 0, false, 0, false, 0},    {300, 300, 1, 1, 512, 0, false, 0, false, 0},
    {40, 40, 4, 2, 32, 0, true, 2.0f, true, 0},     {1, 1, 5, 1, 16, 0, false, 50.0f, true, 8},
    {300, 300, 2, 1, 8, 0, true, 0, true, 0},       {300, 300, 2, 1, 8, 0, true, 50.0f, true, 9},
    {260, 260, 1, 1, 24, 0, false, 0, true, 200},   {20, 20, 1, 1, 10, 0, false, 0, true, 1},
    {256, 256, 8, 4, 256, 0, true, 50.0f, true, 0}, {256, 256, 8, 4, 256, 0, true, 0, true, 0},
    {77, 77, 8, 4, 256, 0, true, 0, true, 32},      {1, 4096, 4, 4, 64, 0, false, 0, false, 0},
};

static rp_attention_shape shape_of(const attention_case *c)
{
    const int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const int row = q + 2 * kv;

    return (rp_attention_shape){.n_q = c->n_q,
                                .n_kv = c->n_kv,
                                .n_heads = c->n_heads,
                                .n_kv_heads = c->n_kv_heads,
                                .head_dim = c->head_dim,
                                .q_stride = (c->fused ? row : q) + c->extra,
                                .k_stride = (c->fused ? row : kv) + c->extra,
                                .v_stride = (c->fused ? row : kv) + c->extra,
                                .out_stride = q + c->extra,
                                .scale = 1.0f / sqrtf((float)c->head_dim),
                                .softcap = c->softcap,
                                .causal = c->causal,
                                .window = c->window};
}

static void one_attention(const pair_mode *m, const attention_case *c)
{
    const rp_attention_shape shape = shape_of(c);
    const size_t q = (size_t)(c->n_heads * c->head_dim), kv = (size_t)(c->n_kv_heads * c->head_dim);
    const size_t n_in[3] = {(size_t)(c->n_q * shape.q_stride), (size_t)(c->n_kv * shape.k_stride),
                            (size_t)(c->n_kv * shape.v_stride)};
    const size_t from[3] = {0, c->fused ? q : 0, c->fused ? q + kv : 0};
    pair_array in[3];
    /* what lies between the rows must stay */
    pair_array out = pair_random(m->out, (size_t)(c->n_q * shape.out_stride), 55, 1, 0);

    pair_say("q %d kv %d heads %d/%d of %d extra %d fused %d cap %g causal %d window %d", c->n_q,
             c->n_kv, c->n_heads, c->n_kv_heads, c->head_dim, c->extra, c->fused,
             (double)c->softcap, c->causal, c->window);
    for (int i = 0; i < 3; i++) {
        in[i] = i > 0 && c->fused ? in[0] : pair_random(m->in, n_in[i], 52 + (unsigned)i, 1.5f, 0);
    }
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        b->ops->attention(b->self, &shape, in[0].at[s] + from[0], in[1].at[s] + from[1],
                          in[2].at[s] + from[2], out.at[s]);
    }
    (void)pair_check("attention", &out, PAIR_CLOSE);
    (void)pair_check("the input of attention", &in[0], PAIR_EXACT);
    for (int i = 0; i < (c->fused ? 1 : 3); i++) {
        pair_drop(&in[i]);
    }
    pair_drop(&out);
}

static void attention(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(attention_cases) * (size_t)pair_n_modes; i++) {
        pair_use(&pair_modes[i % (size_t)pair_n_modes]);
        one_attention(&pair_modes[i % (size_t)pair_n_modes],
                      &attention_cases[i / (size_t)pair_n_modes]);
    }
    pair_done();
}

/* exp of the raw scores would overflow: the largest key takes all. */
static void attention_survives_large_scores(void **state)
{
    (void)state;
    enum { N = 3, D = 8 };
    const rp_attention_shape s = {.n_q = N,
                                  .n_kv = N,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = D,
                                  .q_stride = D,
                                  .k_stride = D,
                                  .v_stride = D,
                                  .out_stride = D,
                                  .scale = 1.0f};
    float q[N * D] = {0}, k[N * D] = {0}, v[N * D], got[N * D];

    for (int i = 0; i < N; i++) {
        q[i * D] = i == 1 ? -1024.0f : 1024.0f;
        k[i * D] = (float)(i + 1);
        for (int e = 0; e < D; e++) {
            v[i * D + e] = (float)(8 * i + e);
        }
    }
    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        const pair_kind in = pair_modes[m].in;
        pair_array a[3] = {pair_of(in, N * D, q), pair_of(in, N * D, k), pair_of(in, N * D, v)};
        pair_array out = pair_poison(pair_modes[m].out, N * D);
        pair_on[GPU].ops->attention(pair_on[GPU].self, &s, a[0].at[GPU], a[1].at[GPU], a[2].at[GPU],
                                    out.at[GPU]);
        pair_get(out.at[GPU], got, N * D);
        for (int i = 0; i < N * D; i++) {
            assert_true(got[i] == v[(i / D == 1 ? 0 : N - 1) * D + i % D]);
        }
        for (int i = 0; i < 3; i++) {
            pair_drop(&a[i]);
        }
        pair_drop(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed),
        cmocka_unit_test(linear),
        cmocka_unit_test(linear_tells_like_shapes_apart),
        cmocka_unit_test(attention),
        cmocka_unit_test(attention_survives_large_scores),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_matrix", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
