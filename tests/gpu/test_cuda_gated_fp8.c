/*
 * test_cuda_gated_fp8.c - gated_linear in precision fp8: against the CPU's of the same rounded
 * numbers and against product and swiglu; rows that come and go in 8 bits. Shapes that one kernel
 * takes (on compute capability 9.0) and shapes that it does not.
 */
#include "fp8_arrays.h"

#include "tensor/cuda/cuda.h"

#include <stdbool.h>

/* Relative L2 error: results in bf16, and sums that e4m3 products keep less of. */
#define TOLERANCE 1e-2
#define GUARD     768.0f /* a value that bf16 keeps */

enum { GUARDS = 16, NEXT = 64 }; /* elements around out; rows of the next product's matrix */

typedef struct {
    int t, k, d;
} gated_case;

static const gated_case cases[] = {
    {1100, 128, 128}, {1024, 256, 384},  {1100, 2304, 1280}, {1300, 128, 1280}, {1025, 2304, 128},
    {1089, 512, 256}, {4224, 256, 1280}, {1024, 3968, 128},  {1000, 256, 128},  {1100, 144, 128},
    {1100, 256, 208}, {1024, 4096, 128}, {3, 32, 16},
};

/* ---- one op ---- */

/* One op with what it needs, and the product that takes what it gives. */
typedef struct {
    gated_case c;
    void *self;
    size_t n;                                 /* elements of out */
    float *host_x, *host_gate, *host_up;      /* borrowed by nobody */
    float *x, *room, *block, *out, *next_out; /* out lies within block, with guards around it */
    rp_tensor gate, up, next;
} gated_call;

static gated_call new_call(void *self, const gated_case *c)
{
    const size_t t = (size_t)c->t, k = (size_t)c->k, d = (size_t)c->d;
    const rp_tensor next = {
        .dtype = RP_BF16, .n_dims = 2, .dim = {NEXT, c->d, 1, 1}, .narrow = true};
    gated_call g = {.c = *c,
                    .self = self,
                    .n = t * d,
                    .host_x = values(t * k, 1, 1.0f),
                    .host_gate = values(d * k, 2, 0.0625f),
                    .host_up = values(d * k, 3, 0.0625f)};
    rp_tensor gate = matrix(c->d, c->k, g.host_gate), up = matrix(c->d, c->k, g.host_up);
    rp_tensor *const both[] = {&gate, &up};
    float *guards = malloc((g.n + 2 * GUARDS) * sizeof(*guards));

    assert_non_null(guards);
    for (size_t i = 0; i < g.n + 2 * GUARDS; i++) {
        guards[i] = GUARD;
    }
    assert_int_equal(g_ops->weights_begin(self, both, 2), RP_OK);
    assert_int_equal(g_ops->weight(self, &gate, &g.gate), RP_OK);
    assert_int_equal(g_ops->weight(self, &up, &g.up), RP_OK);
    assert_int_equal(g_ops->weight_fill(self, &next, 5, 0.02f, &g.next), RP_OK);
    assert_int_equal(g.gate.dtype, RP_F8_E4M3);
    g.x = on_device(self, g.host_x, t * k);
    g.room = on_device(self, NULL, 2 * g.n);
    g.block = on_device(self, guards, g.n + 2 * GUARDS);
    g.out = g.block + GUARDS;
    g.next_out = on_device(self, NULL, t * NEXT);
    free(guards);
    return g;
}

static void drop_call(gated_call *g)
{
    float *const arrays[] = {g->x, g->room, g->block, g->next_out};

    for (size_t i = 0; i < COUNT(arrays); i++) {
        g_ops->release(g->self, arrays[i]);
    }
    g_ops->weight_release(g->self, &g->gate);
    g_ops->weight_release(g->self, &g->up);
    g_ops->weight_release(g->self, &g->next);
    free(g->host_x);
    free(g->host_gate);
    free(g->host_up);
}

static void run(const gated_call *g)
{
    g_ops->gated_linear(g->self, g->x, g->c.t, g->c.k, &g->gate, &g->up, false, g->room, g->out);
}

static void run_next(const gated_call *g)
{
    const rp_tensor *const list[] = {&g->next};

    g_ops->linear(g->self, g->out, g->c.t, g->c.d, g->c.d, list, 1, NULL, g->next_out);
}

/* Product and swiglu. */
static float *apart(const gated_call *g)
{
    const rp_tensor *const both[] = {&g->gate, &g->up};
    float *out = on_device(g->self, NULL, g->n);

    g_ops->linear(g->self, g->x, g->c.t, g->c.k, g->c.k, both, 2, NULL, g->room);
    g_ops->swiglu(g->self, g->room, g->c.t, g->c.d, out);
    float *host = from_device(g->self, out, g->n);
    g_ops->release(g->self, out);
    return host;
}

/* The job of the one kernel, without x. */
static rp_cuda_gated job_of(const gated_call *g)
{
    rp_cuda *cuda = g->self;

    return (rp_cuda_gated){.dtype = RP_F8_E4M3,
                           .w_gate = g->gate.data,
                           .w_up = g->up.data,
                           .t = g->c.t,
                           .k = g->c.k,
                           .d = g->c.d,
                           .out = rp_cuda_at(cuda, g->out).data,
                           .gate_scale = g->gate.scale,
                           .up_scale = g->up.scale,
                           .row_most = rp_cuda_at(cuda, g->room).data};
}

static bool is_one_kernel(const gated_call *g)
{
    const rp_cuda_gated job = job_of(g);

    return rp_cuda_gated_can(&job, ((rp_cuda *)g->self)->capability) && g->c.k < RP_CUDA_LONG_K;
}

static rp_cuda_gated job_or_skip(const gated_call *g)
{
    if (!is_one_kernel(g)) {
        print_message("not on this device\n");
        skip();
    }
    return job_of(g);
}

/* ---- results ---- */

static float *on_cpu(const gated_call *g)
{
    const gated_case *c = &g->c;
    float *x = rounded(g->host_x, c->t, c->k), *w_gate = rounded(g->host_gate, c->d, c->k);
    float *w_up = rounded(g->host_up, c->d, c->k);
    float *room = malloc(2 * g->n * sizeof(*room)), *out = malloc(g->n * sizeof(*out));
    const rp_tensor gate = matrix(c->d, c->k, w_gate), up = matrix(c->d, c->k, w_up);

    assert_true(room != NULL && out != NULL);
    g_cpu_ops->gated_linear(g_cpu, x, c->t, c->k, &gate, &up, false, room, out);
    assert_int_equal(g_cpu_ops->sync(g_cpu), RP_OK);
    free(x);
    free(w_gate);
    free(w_up);
    free(room);
    return out;
}

static void one_case(const gated_case *c)
{
    gated_call g = new_call(g_fp8, c);
    const bool one = is_one_kernel(&g);

    run(&g);
    float *block = from_device(g_fp8, g.block, g.n + 2 * GUARDS), *got = block + GUARDS;
    float *want = on_cpu(&g), *plain = apart(&g);
    const double error = rpt_rel_l2(got, want, g.n), beside = rpt_rel_l2(got, plain, g.n);
    print_message("    t %d k %d d %d%s: error %.2g (product and swiglu %.2g), beside them %.2g\n",
                  c->t, c->k, c->d, one ? ", one kernel" : "", error, rpt_rel_l2(plain, want, g.n),
                  beside);
    assert_true(error <= TOLERANCE && beside <= TOLERANCE);
    assert_true(one || memcmp(got, plain, g.n * sizeof(float)) == 0);
    for (int i = 0; i < GUARDS; i++) {
        assert_true(block[i] == GUARD && got[g.n + (size_t)i] == GUARD);
    }
    run(&g);
    float *again = from_device(g_fp8, g.out, g.n);
    assert_memory_equal(again, got, g.n * sizeof(float));
    float *x = from_device(g_fp8, g.x, (size_t)c->t * (size_t)c->k);
    assert_memory_equal(x, g.host_x, (size_t)c->t * (size_t)c->k * sizeof(float));
    drop_call(&g);
    free(block);
    free(want);
    free(plain);
    free(again);
    free(x);
}

static void gated_linear(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        one_case(&cases[i]);
    }
}

/* ---- rows in 8 bits ---- */

/* Has the op left in 8 bits what quantising its result gives, which the next product takes? */
static void check_rows(const gated_call *g)
{
    rp_cuda *cuda = g->self;
    const size_t n_scales = (size_t)g->c.t * sizeof(float);
    void *data = NULL, *scale = NULL;

    run(g);
    assert_true(cuda->narrowed.x == g->out && cuda->narrowed.t == g->c.t &&
                cuda->narrowed.k == g->c.d && !cuda->narrowed.only);
    run_next(g);
    float *direct = from_device(cuda, g->next_out, (size_t)g->c.t * NEXT);

    run(g);
    const rp_cuda_view out = {rp_cuda_at(cuda, g->out).data, RP_BF16};
    const rp_cuda_narrow left = rp_cuda_narrow_for(cuda, out, g->c.t, g->c.d);
    assert_int_equal(g_ops->sync(cuda), RP_OK);
    uint8_t *codes = device_bytes(left.data, g->n);
    float *scales = device_bytes(left.scale, n_scales);

    assert_int_equal(g_ops->alloc(cuda, g->n, "test", &data), RP_OK);
    assert_int_equal(g_ops->alloc(cuda, n_scales, "test", &scale), RP_OK);
    const rp_cuda_narrow made = {data, scale};
    rp_cuda_k_quantize_rows(cuda->stream, out, g->c.t, g->c.d, g->c.d, made);
    assert_int_equal(g_ops->sync(cuda), RP_OK);
    uint8_t *want_codes = device_bytes(data, g->n);
    float *want_scales = device_bytes(scale, n_scales);
    assert_memory_equal(scales, want_scales, n_scales);
    assert_memory_equal(codes, want_codes, g->n);

    run_next(g);
    float *later = from_device(cuda, g->next_out, (size_t)g->c.t * NEXT);
    assert_memory_equal(direct, later, (size_t)g->c.t * NEXT * sizeof(float));
    g_ops->release(cuda, data);
    g_ops->release(cuda, scale);
    free(direct);
    free(codes);
    free(scales);
    free(want_codes);
    free(want_scales);
    free(later);
}

static void rows_are_left_in_8_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        gated_call g = new_call(g_fp8, &cases[i]);
        run(&g);
        run_next(&g); /* so that there is room also where product and swiglu are taken */
        check_rows(&g);
        drop_call(&g);
    }
}

/* A row of zeros, of large numbers, with a NaN; a matrix with one, which is in a column of all. */
static void rows_that_are_not_finite(void **state)
{
    (void)state;
    static const gated_case c = {1100, 256, 256};

    for (int in_matrix = 0; in_matrix < 2; in_matrix++) {
        gated_call g = new_call(g_fp8, &c);
        memset(g.host_x + (size_t)3 * (size_t)c.k, 0, (size_t)c.k * sizeof(float));
        for (int i = 0; i < c.k; i++) {
            g.host_x[700 * c.k + i] *= 4096.0f;
        }
        g.host_x[5 * c.k + 9] = NAN;
        g_ops->put(g_fp8, g.x, g.host_x, (size_t)c.t * (size_t)c.k * sizeof(float));
        if (in_matrix) {
            g.host_up[77 * c.k + 9] = NAN;
            const rp_tensor up = matrix(c.d, c.k, g.host_up);
            g_ops->weight_release(g_fp8, &g.up);
            assert_int_equal(g_ops->weight(g_fp8, &up, &g.up), RP_OK);
        }
        run(&g);
        run_next(&g);
        check_rows(&g);
        float *got = from_device(g_fp8, g.out, g.n);
        for (int i = 0; i < c.t * c.d; i++) {
            const bool lost = i / c.d == 5 || (in_matrix && i % c.d == 77);
            assert_true(lost ? isnan(got[i]) : isfinite(got[i]));
            assert_true(i / c.d != 3 || lost || got[i] == 0.0f);
        }
        drop_call(&g);
        free(got);
    }
}

/* What the op before has left is taken: also where room for wider rows is made first, and where it
 * lies nowhere else. */
static void rows_come_in_8_bits(void **state)
{
    (void)state;
    static const gated_case c = {1100, 256, 1280};
    const rp_backend_params params = {.n_threads = 1, .precision = RP_PRECISION_FP8};
    const size_t n_x = (size_t)c.t * (size_t)c.k;
    float *plain = NULL;

    for (int only = 0; only < 2; only++) {
        void *self = NULL;
        rp_cuda_narrow rows;
        assert_int_equal(g_ops->open(&params, &self), RP_OK);
        rp_cuda *cuda = self;
        gated_call g = new_call(self, &c);
        assert_true(cuda->narrow.n_bytes < g.n);
        const rp_cuda_view x = rp_cuda_at(cuda, g.x);
        assert_int_equal(rp_cuda_narrow_room(cuda, c.t, c.k, &rows), RP_OK);
        rp_cuda_k_quantize_rows(cuda->stream, x, c.t, c.k, c.k, rows);
        if (only) {
            assert_int_equal(cudaMemsetAsync(x.data, 0xff, n_x * 2, cuda->stream), cudaSuccess);
            rp_cuda_narrow_only(cuda, g.x, c.t, c.k);
        } else {
            rp_cuda_narrow_done(cuda, rows, g.x, c.t, c.k);
        }
        run(&g);
        float *got = from_device(self, g.out, g.n);
        if (plain == NULL) {
            run(&g); /* nothing is left by now: x itself */
            plain = from_device(self, g.out, g.n);
        }
        assert_memory_equal(got, plain, g.n * sizeof(float));
        drop_call(&g);
        g_ops->close(self);
        free(got);
    }
    free(plain);
}

static void recorded_it_gives_the_same_bits(void **state)
{
    (void)state;
    enum { TIMES = 4 };
    static const gated_case c = {1100, 256, 384};
    const size_t n_next = (size_t)c.t * NEXT;
    gated_call g = new_call(g_fp8, &c);
    float *zeros = calloc(g.n, sizeof(*zeros)), *first = NULL;
    bool known = false;

    assert_non_null(zeros);
    for (int i = 0; i < TIMES; i++) {
        g_ops->put(g_fp8, g.out, zeros, g.n * sizeof(float));
        g_ops->put(g_fp8, g.next_out, zeros, n_next * sizeof(float));
        known = g_ops->replay(g_fp8, 9);
        if (!known) {
            run(&g);
            run_next(&g);
            g_ops->recorded(g_fp8);
        }
        float *got = from_device(g_fp8, g.next_out, n_next);
        if (first == NULL) {
            first = got;
        } else {
            assert_memory_equal(got, first, n_next * sizeof(float));
            free(got);
        }
    }
    assert_true(known);
    drop_call(&g);
    free(zeros);
    free(first);
}

/* Order of tiles and who is ahead change the time, not the bits. */
static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    static const gated_case ways[] = {{1024, 128, 256}, {1100, 512, 512}, {4000, 640, 1280}};
    static const int group_rows[] = {1, 5, 8, 1000};
    rp_cuda *cuda = g_fp8;

    for (size_t i = 0; i < COUNT(ways); i++) {
        gated_call g = new_call(g_fp8, &ways[i]);
        rp_cuda_narrow x;
        rp_cuda_gated job = job_or_skip(&g);
        run(&g);
        float *want = from_device(g_fp8, g.out, g.n), *most = NULL;
        const size_t n_most = (size_t)job.t * sizeof(float);
        assert_int_equal(rp_cuda_narrow_room(cuda, job.t, job.k, &x), RP_OK);
        rp_cuda_k_quantize_rows(cuda->stream, rp_cuda_at(cuda, g.x), job.t, job.k, job.k, x);
        job.x = x.data;
        job.x_scale = x.scale;
        for (int j = 0; j < 4 * (int)COUNT(group_rows); j++) {
            const rp_cuda_gated_way way = {.lead = j % 4, .group_rows = group_rows[j / 4]};
            assert_int_equal(cudaMemsetAsync(job.out, 0xff, g.n * 2, cuda->stream), cudaSuccess);
            assert_int_equal(rp_cuda_k_gated(cuda->stream, &job, &way), cudaSuccess);
            float *got = from_device(g_fp8, g.out, g.n), *now = device_bytes(job.row_most, n_most);
            assert_memory_equal(got, want, g.n * sizeof(float));
            assert_true(most == NULL || memcmp(most, now, n_most) == 0);
            free(got);
            free(most);
            most = now;
        }
        free(want);
        free(most);
        drop_call(&g);
    }
}

/* ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gated_linear),
        cmocka_unit_test(rows_are_left_in_8_bits),
        cmocka_unit_test(rows_that_are_not_finite),
        cmocka_unit_test(rows_come_in_8_bits),
        cmocka_unit_test(recorded_it_gives_the_same_bits),
        cmocka_unit_test(every_way_gives_the_same_bits),
    };
    fp8_open_or_skip(RP_PRECISION_FP8, 4096, 1, 1);
    const int n_failed = cmocka_run_group_tests_name("cuda_gated_fp8", tests, NULL, NULL);
    fp8_close();
    return n_failed;
}
