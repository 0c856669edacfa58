/*
 * test_cuda_gated.c - gated_linear of the CUDA backend against the CPU's: shapes that one kernel
 * takes (on compute capability 9.0) and shapes that it leaves to products and swiglu.
 */
#include "cuda_pair.h"

#include "tensor/cuda/cuda.h"

typedef struct {
    int t, k, d;
} gated_case;

static const gated_case gated_cases[] = {
    {1, 1, 1},         {3, 7, 5},         {2, 65, 130},     {97, 256, 300},   {130, 64, 128},
    {1023, 64, 128},   {1024, 96, 128},   {1024, 256, 200}, {1024, 64, 128},  {1100, 64, 256},
    {1025, 128, 384},  {1100, 192, 1280}, {1160, 256, 256}, {1089, 448, 384}, {1024, 2304, 256},
    {4224, 128, 1280}, {2000, 320, 2560},
};

/* One call on each side, and what it needs. */
typedef struct {
    gated_case c;
    pair_array x, room, out;
    pair_weight gate, up;
} gated_call;

/* Sums of both products are about normal(0, 2). */
static gated_call new_call(const pair_mode *m, const gated_case *c, rp_dtype dtype)
{
    const size_t t = (size_t)c->t, k = (size_t)c->k, d = (size_t)c->d;

    return (gated_call){.c = *c,
                        .x = pair_random(m->in, t * k, 61, 2.0f / sqrtf((float)c->k), 0),
                        .room = pair_poison(m->out, 2 * t * d),
                        .out = pair_poison(m->out, t * d),
                        .gate = pair_weight_random(dtype, c->d, c->k, 0, 62),
                        .up = pair_weight_random(dtype, c->d, c->k, 0, 63)};
}

static void drop_call(gated_call *g)
{
    pair_drop(&g->x);
    pair_drop(&g->room);
    pair_drop(&g->out);
    pair_weight_drop(&g->gate);
    pair_weight_drop(&g->up);
}

static void run(const gated_call *g, int side, float *out)
{
    const rp_backend *b = &pair_on[side];

    b->ops->gated_linear(b->self, g->x.at[side], g->c.t, g->c.k, &g->gate.at[side], &g->up.at[side],
                         false, g->room.at[side], out);
}

static void gated_linear(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(gated_cases) * (size_t)pair_n_modes; i++) {
        const pair_mode *m = &pair_modes[i % (size_t)pair_n_modes];
        const gated_case *c = &gated_cases[i / (size_t)pair_n_modes];
        pair_use(m);
        for (int dtype = RP_F32; dtype <= RP_BF16; dtype++) {
            if (dtype != RP_BF16 && (size_t)c->t * (size_t)c->k * (size_t)c->d > (size_t)1 << 24) {
                continue; /* long on the CPU; the device keeps them all as bf16 */
            }
            pair_say("t %d k %d d %d type %d", c->t, c->k, c->d, dtype);
            gated_call g = new_call(m, c, (rp_dtype)dtype);
            for (int s = 0; s < N_SIDES; s++) {
                run(&g, s, g.out.at[s]);
            }
            (void)pair_check("gated_linear", &g.out, PAIR_CLOSE);
            (void)pair_check("the input of gated_linear", &g.x, PAIR_EXACT);
            drop_call(&g);
        }
    }
    pair_done();
}

/* Rows do not touch each other; what is not finite stays that, what is large does not become it. */
static void nan_stays_in_its_row(void **state)
{
    (void)state;
    enum { T = 1100, K = 64, D = 128 };
    static const gated_case c = {T, K, D};
    static float x[T * K], got[T * D];

    for (int m = 0; m < pair_n_modes; m++) {
        pair_use(&pair_modes[m]);
        gated_call g = new_call(&pair_modes[m], &c, RP_BF16);
        rpt_fill(x, (size_t)T * K, 64);
        x[5 * K + 3] = NAN;
        for (int i = 0; i < K; i++) {
            x[700 * K + i] *= 4096.0f;
        }
        pair_ops->put(pair_on[GPU].self, g.x.at[GPU], x, sizeof(x));
        run(&g, GPU, g.out.at[GPU]);
        pair_get(g.out.at[GPU], got, (size_t)T * D);
        for (int i = 0; i < T * D; i++) {
            assert_true(i / D == 5 ? isnan(got[i]) : isfinite(got[i]));
        }
        drop_call(&g);
    }
}

/* The bf16 mode whose arrays one kernel takes. */
static const pair_mode *act_mode(void)
{
    for (int m = 0; m < pair_n_modes; m++) {
        if (pair_modes[m].precision == RP_PRECISION_BF16 && pair_modes[m].in == PAIR_ACT &&
            pair_modes[m].out == PAIR_ACT) {
            return &pair_modes[m];
        }
    }
    return NULL;
}

static void recorded_it_gives_the_same_bits(void **state)
{
    (void)state;
    enum { TIMES = 4 };
    static const gated_case c = {1100, 256, 256};
    const pair_mode *m = act_mode();
    const size_t n = (size_t)c.t * (size_t)c.d;

    if (m == NULL) {
        skip();
    }
    pair_use(m);
    void *const self = pair_on[GPU].self;
    gated_call g = new_call(m, &c, RP_BF16);
    float *want = malloc(n * sizeof(*want)), *got = malloc(n * sizeof(*got));
    bool known = false;
    assert_true(want != NULL && got != NULL);
    run(&g, GPU, g.out.at[GPU]);
    pair_get(g.out.at[GPU], want, n);
    for (int i = 0; i < TIMES; i++) {
        memset(got, 0, n * sizeof(*got));
        pair_ops->put(self, g.out.at[GPU], got, n * sizeof(*got));
        known = pair_ops->replay(self, 9);
        if (!known) {
            run(&g, GPU, g.out.at[GPU]);
            pair_ops->recorded(self);
        }
        pair_get(g.out.at[GPU], got, n);
        assert_memory_equal(got, want, n * sizeof(*got));
    }
    assert_true(known);
    free(want);
    free(got);
    drop_call(&g);
}

/* Order of tiles and who is ahead change the time, not the bits. */
static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    static const gated_case cases[] = {
        {1024, 64, 256}, {1100, 256, 512}, {4000, 320, 1280}, {1300, 192, 2560}};
    static const int group_rows[] = {1, 5, 8, 1000};
    const pair_mode *m = act_mode();

    if (m == NULL) {
        skip();
    }
    pair_use(m);
    rp_cuda *cuda = pair_on[GPU].self;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const size_t n = (size_t)cases[i].t * (size_t)cases[i].d;
        gated_call g = new_call(m, &cases[i], RP_BF16);
        pair_array out = pair_poison(PAIR_ACT, n);
        const rp_cuda_gated job = {.dtype = RP_BF16,
                                   .x = rp_cuda_at(cuda, g.x.at[GPU]).data,
                                   .w_gate = g.gate.at[GPU].data,
                                   .w_up = g.up.at[GPU].data,
                                   .t = cases[i].t,
                                   .k = cases[i].k,
                                   .d = cases[i].d,
                                   .out = rp_cuda_at(cuda, out.at[GPU]).data};
        float *want = malloc(n * sizeof(*want)), *got = malloc(n * sizeof(*got));
        assert_true(want != NULL && got != NULL);
        if (!rp_cuda_gated_can(&job, cuda->capability)) {
            print_message("not on this device: compute capability %d\n", cuda->capability);
            skip();
        }
        run(&g, GPU, g.out.at[GPU]);
        pair_get(g.out.at[GPU], want, n);
        for (int j = 0; j < 4 * (int)COUNT(group_rows); j++) {
            const rp_cuda_gated_way way = {.lead = j % 4, .group_rows = group_rows[j / 4]};
            memset(got, 0xff, n * sizeof(*got));
            pair_ops->put(cuda, out.at[GPU], got, n * sizeof(*got));
            assert_int_equal(rp_cuda_k_gated(cuda->stream, &job, &way), cudaSuccess);
            pair_get(out.at[GPU], got, n);
            assert_memory_equal(got, want, n * sizeof(*got));
        }
        free(want);
        free(got);
        pair_drop(&out);
        drop_call(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gated_linear),
        cmocka_unit_test(nan_stays_in_its_row),
        cmocka_unit_test(recorded_it_gives_the_same_bits),
        cmocka_unit_test(every_way_gives_the_same_bits),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_gated", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
