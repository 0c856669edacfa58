/*
 * test_cuda_image.c - picture ops of the CUDA backend against the CPU's: patches, convolution,
 * group norm, transpose, rows.
 */
#include "cuda_pair.h"

#include "tensor/cuda/cuda.h"

/* ---- moves: no arithmetic, so no difference ---- */

static void patches(void **state)
{
    (void)state;
    static const int shapes[][4] = {{1, 1, 1, 1},   {16, 4, 6, 2}, {3, 6, 9, 3},   {4, 8, 2, 2},
                                    {4, 12, 20, 2}, {1, 7, 5, 1},  {16, 64, 48, 2}};

    for (size_t i = 0; i < COUNT(shapes) * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const int *d = shapes[i / (size_t)pair_n_modes];
        const size_t n = (size_t)d[0] * (size_t)d[1] * (size_t)d[2];
        pair_use(m);
        pair_say("c %d h %d w %d p %d", d[0], d[1], d[2], d[3]);
        pair_array x = pair_random(m->in, n, 61, 1, 0), tokens = pair_poison(m->out, n);
        pair_array back = pair_poison(m->out, n);
        for (int s = 0; s < N_SIDES; s++) {
            const rp_backend *b = &pair_on[s];
            b->ops->patchify(b->self, x.at[s], d[0], d[1], d[2], d[3], tokens.at[s]);
            b->ops->unpatchify(b->self, x.at[s], d[0], d[1], d[2], d[3], -1.0f, back.at[s]);
        }
        (void)pair_check("patchify", &tokens, PAIR_EXACT);
        (void)pair_check("unpatchify", &back, PAIR_EXACT);
        pair_drop(&x);
        pair_drop(&tokens);
        pair_drop(&back);
    }
    pair_done();
}

static void transpose(void **state)
{
    (void)state;
    static const int shapes[][2] = {{1, 1},   {1, 9},     {9, 1},    {33, 17},
                                    {16, 64}, {512, 255}, {31, 1025}};

    for (size_t i = 0; i < COUNT(shapes) * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const int *d = shapes[i / (size_t)pair_n_modes];
        const size_t n = (size_t)d[0] * (size_t)d[1];
        pair_use(m);
        pair_say("%d x %d", d[0], d[1]);
        pair_array x = pair_random(m->in, n, 62, 1, 0), out = pair_poison(m->out, n);
        for (int s = 0; s < N_SIDES; s++) {
            pair_on[s].ops->transpose(pair_on[s].self, x.at[s], d[0], d[1], out.at[s]);
        }
        (void)pair_check("transpose", &out, PAIR_EXACT);
        pair_drop(&x);
        pair_drop(&out);
    }
    pair_done();
}

static void copy_rows(void **state)
{
    (void)state;
    static const int shapes[][4] = {/* rows cols strides: to, from */
                                    {1, 1, 1, 1},
                                    {3, 2, 3, 3},
                                    {5, 7, 7, 9},
                                    {33, 65, 70, 65},
                                    {4, 1000, 1003, 2000}};

    for (size_t i = 0; i < COUNT(shapes) * (size_t)pair_n_modes; i++) {
        const int *d = shapes[i / (size_t)pair_n_modes];
        pair_use(&pair_modes[i % (size_t)pair_n_modes]);
        pair_say("rows %d cols %d strides %d %d", d[0], d[1], d[2], d[3]);
        pair_array src = pair_random(PAIR_ALLOC, (size_t)(d[0] * d[3]), 63, 1, 0);
        pair_array dst = pair_random(PAIR_ALLOC, (size_t)(d[0] * d[2]), 64, 1, 0);
        for (int s = 0; s < N_SIDES; s++) {
            pair_on[s].ops->copy_rows(pair_on[s].self, dst.at[s], (size_t)d[2], src.at[s],
                                      (size_t)d[3], d[0], d[1]);
        }
        (void)pair_check("copy_rows", &dst, PAIR_EXACT);
        pair_drop(&src);
        pair_drop(&dst);
    }
    pair_done();
}

/* ---- pictures as the device keeps them: [c, hw], or rows [hw, c] ---- */

static bool by_rows(int side)
{
    return pair_on[side].ops->picture_rows(pair_on[side].self);
}

/* What the op of this side reads: x itself, or x turned into `turned`. */
static const float *as_kept(int side, const pair_array *x, const pair_array *turned, int c, int hw)
{
    if (!by_rows(side)) {
        return x->at[side];
    }
    pair_on[side].ops->transpose(pair_on[side].self, x->at[side], c, hw, turned->at[side]);
    return turned->at[side];
}

/* After the op wrote `turned` there: x, [c, hw] again. */
static void from_kept(int side, const pair_array *turned, const pair_array *x, int c, int hw)
{
    if (by_rows(side)) {
        pair_on[side].ops->transpose(pair_on[side].self, turned->at[side], hw, c, x->at[side]);
    }
}

/* ---- convolution ---- */

static const rp_conv_shape conv_cases[] = {
    /* c_in c_out h w kernel upsample */
    {1, 1, 1, 1, 1, 1},       {1, 2, 1, 1, 3, 1},       {3, 5, 1, 4, 3, 1},
    {2, 3, 5, 1, 3, 2},       {16, 8, 9, 7, 3, 1},      {16, 8, 9, 7, 3, 2},
    {16, 24, 9, 33, 1, 1},    {4, 4, 6, 5, 1, 2},       {8, 3, 40, 30, 3, 1},
    {130, 4, 16, 90, 3, 1},   {4, 24, 12, 20, 3, 1},    {24, 16, 13, 21, 3, 2},
    {16, 512, 17, 15, 3, 1},  {256, 128, 33, 31, 3, 1}, {128, 3, 65, 63, 3, 1},
    {512, 512, 16, 16, 3, 2}, {512, 256, 9, 9, 1, 1},   {4, 4, 12, 20, 1, 1},
};

/* The addend: none, another picture, or the one that is overwritten. */
typedef enum { ADD_NONE, ADD_OTHER, ADD_IN_PLACE, N_ADDS } add_kind;

typedef struct {
    const rp_conv_shape *shape;
    rp_dtype dtype;
    bool has_bias;
    add_kind add;
} conv_case;

static void one_conv(const pair_mode *m, const conv_case *one)
{
    const rp_conv_shape *c = one->shape;
    const size_t u = (size_t)c->upsample, n_pixels = (size_t)c->h * (size_t)c->w;
    const size_t n_out = (size_t)c->c_out * n_pixels * u * u;
    const int hw_out = (int)(n_pixels * u * u);
    const bool in_place = one->add == ADD_IN_PLACE;
    pair_array x = pair_random(m->in, (size_t)c->c_in * n_pixels, 65, 1, 0);
    pair_array add = pair_random(in_place ? m->out : m->in, n_out, 72, 1, 0);
    pair_array out = in_place ? add : pair_poison(m->out, n_out);
    pair_array x_rows = pair_poison(m->in, x.n);
    pair_array add_rows = pair_poison(in_place ? m->out : m->in, n_out);
    pair_array out_rows = in_place ? add_rows : pair_poison(m->out, n_out);
    pair_weight w = pair_weight_random(one->dtype, c->c_out, c->c_in, c->kernel, 66);
    pair_weight bias = pair_weight_random(one->dtype, c->c_out, 0, 0, 67);

    pair_say("%d -> %d, %d x %d, kernel %d upsample %d type %d bias %d add %d", c->c_in, c->c_out,
             c->h, c->w, c->kernel, c->upsample, (int)one->dtype, one->has_bias, (int)one->add);
    for (int s = 0; s < N_SIDES; s++) {
        const float *in = as_kept(s, &x, &x_rows, c->c_in, (int)n_pixels);
        const float *addend = as_kept(s, &add, &add_rows, c->c_out, hw_out);
        pair_on[s].ops->conv2d(pair_on[s].self, c, in, &w.at[s], one->has_bias ? &bias.at[s] : NULL,
                               one->add == ADD_NONE ? NULL : addend,
                               by_rows(s) ? out_rows.at[s] : out.at[s]);
        from_kept(s, &out_rows, &out, c->c_out, hw_out);
    }
    (void)pair_check("conv2d", &out, PAIR_CLOSE);
    (void)pair_check("the input of conv2d", &x, PAIR_EXACT);
    if (!in_place) {
        (void)pair_check("the addend of conv2d", &add, PAIR_EXACT);
        pair_drop(&out_rows);
        pair_drop(&out);
    }
    pair_weight_drop(&w);
    pair_weight_drop(&bias);
    pair_drop(&x_rows);
    pair_drop(&add_rows);
    pair_drop(&x);
    pair_drop(&add);
}

/* A limit that a real device reaches at millions of pixels, set so low that small pictures do. */
static void large_pictures_go_in_bands(void **state)
{
    (void)state;
    if (strcmp(pair_ops->name, "cuda") != 0) {
        skip();
    }
    for (size_t i = 0; i < COUNT(conv_cases) * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const rp_conv_shape *c = &conv_cases[i / (size_t)pair_n_modes];
        pair_use(m);
        if (!by_rows(GPU)) {
            continue;
        }
        rp_cuda *cuda = pair_on[GPU].self;
        const size_t usual = cuda->conv_elems;
        const int u2 = c->upsample * c->upsample, most = c->c_in > c->c_out ? c->c_in : c->c_out;
        /* bands of about a quarter of the limit: some 8 or more of them */
        cuda->conv_elems = (size_t)((most + 7) / 8 * 8) * (size_t)(u2 * c->w * (c->h / 2));
        for (int add = 0; add < N_ADDS; add++) {
            const conv_case one = {c, RP_BF16, i % 2 == 0, (add_kind)add};
            one_conv(m, &one);
        }
        cuda->conv_elems = usual;
    }
    pair_done();
}

static void conv2d(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(conv_cases) * (size_t)pair_n_modes; i++) {
        const size_t c = i / (size_t)pair_n_modes;
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        pair_use(m);
        for (int add = 0; add < N_ADDS; add++) {
            /* with and without a bias: another plan of the same shape */
            for (int bias = 0; bias < 2; bias++) {
                const conv_case one = {&conv_cases[c], (rp_dtype)((i + (size_t)bias) % 3),
                                       bias == 1, (add_kind)add};
                one_conv(m, &one);
            }
        }
    }
    pair_done();
}

/* ---- bytes ---- */

static void to_bytes(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 5, 64, 1021, 70001};

    for (size_t i = 0; i < COUNT(sizes) * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const size_t hw = sizes[i / (size_t)pair_n_modes], n = 3 * hw;
        uint8_t *want = malloc(n), *got = malloc(n + 1);
        pair_use(m);
        pair_say("hw %zu", hw);
        /* beyond -1 to 1 too */
        pair_array x = pair_random(m->in, n, 73, 1, 0), x_rows = pair_poison(m->in, n);
        const rp_backend *b = &pair_on[GPU];
        void *bytes = NULL;
        assert_non_null(want);
        assert_non_null(got);
        assert_int_equal(b->ops->alloc(b->self, n, "bytes", &bytes), RP_OK);
        const float *kept = as_kept(GPU, &x, &x_rows, 3, (int)hw);
        pair_on[CPU].ops->to_bytes(pair_on[CPU].self, x.at[CPU], hw, want);
        b->ops->to_bytes(b->self, kept, hw, bytes);
        got[n] = 77;
        b->ops->get(b->self, got, bytes, n);
        assert_int_equal(b->ops->sync(b->self), RP_OK);
        assert_memory_equal(want, got, n);
        assert_int_equal(got[n], 77);
        b->ops->release(b->self, bytes);
        pair_drop(&x);
        pair_drop(&x_rows);
        free(want);
        free(got);
    }
}

/* ---- group norm ---- */

static void one_group_norm(const pair_mode *m, const int *d, int variant)
{
    const size_t n = (size_t)d[0] * (size_t)d[1];
    const bool silu = variant % 2 == 1, in_place = variant / 2 == 1;
    /* a mean far from 0, where a one-pass variance fails */
    pair_array x = pair_random(in_place ? m->out : m->in, n, 68, 4.0f, 30.0f);
    pair_array out = in_place ? x : pair_poison(m->out, n);
    pair_array x_rows = pair_poison(in_place ? m->out : m->in, n);
    pair_array out_rows = in_place ? x_rows : pair_poison(m->out, n);
    pair_weight w = pair_weight_random((rp_dtype)(variant % 3), d[0], 0, 0, 69);
    pair_weight b = pair_weight_random((rp_dtype)(variant % 3), d[0], 0, 0, 70);

    pair_say("c %d hw %d groups %d silu %d in place %d", d[0], d[1], d[2], silu, in_place);
    for (int s = 0; s < N_SIDES; s++) {
        const float *in = as_kept(s, &x, &x_rows, d[0], d[1]);
        pair_on[s].ops->group_norm(pair_on[s].self, in, d[0], d[1], d[2], &w.at[s], &b.at[s], 1e-6f,
                                   silu, by_rows(s) ? out_rows.at[s] : out.at[s]);
        from_kept(s, &out_rows, &out, d[0], d[1]);
    }
    (void)pair_check("group_norm", &out, PAIR_CLOSE);
    if (!in_place) {
        pair_drop(&out);
        pair_drop(&out_rows);
    }
    pair_drop(&x);
    pair_drop(&x_rows);
    pair_weight_drop(&w);
    pair_weight_drop(&b);
}

static void group_norm(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 3, 1},      {6, 7, 2},      {8, 240, 4},   {32, 256, 8},
                                    {24, 960, 4},   {512, 289, 32}, {8, 70001, 4}, {128, 4096, 32},
                                    {32, 1025, 32}, {3, 65, 3}};

    for (size_t i = 0; i < COUNT(shapes) * (size_t)pair_n_modes; i++) {
        pair_use(&pair_modes[i % (size_t)pair_n_modes]);
        for (int variant = 0; variant < 4; variant++) {
            one_group_norm(&pair_modes[i % (size_t)pair_n_modes], shapes[i / (size_t)pair_n_modes],
                           variant);
        }
    }
    pair_done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches),
        cmocka_unit_test(transpose),
        cmocka_unit_test(copy_rows),
        cmocka_unit_test(conv2d),
        cmocka_unit_test(large_pictures_go_in_bands),
        cmocka_unit_test(to_bytes),
        cmocka_unit_test(group_norm),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_image", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
