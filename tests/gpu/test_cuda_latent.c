/*
 * test_cuda_latent.c - vectors of latents and time marks on the CUDA backend. What is computed
 * element by element has the bits of the host's loops; sums are the same in every run.
 */
#include "cuda_pair.h"

#include <rankpool/rankpool.h>

static const size_t lengths[] = {1, 3, 4, 31, 1000, 65536, 262144, 1 << 20};

/* Latents are f32 in every precision: the modes with plain memory of it. */
static void use_f32(void)
{
    pair_use(&pair_modes[0]);
}

/* ---- combine ---- */

/* `shift`: vectors that do not begin at 16 bytes */
static void one_combine(size_t n, int n_terms, size_t shift)
{
    static const float coef[RP_VEC_TERMS] = {1.0f, -0.037f, 1.9f, 0.3f};
    pair_array in[RP_VEC_TERMS], out = pair_poison(PAIR_ALLOC, n);

    pair_say("%d terms, n %zu, shift %zu", n_terms, n, shift);
    for (int k = 0; k < RP_VEC_TERMS; k++) {
        in[k] = pair_random(PAIR_ALLOC, n + shift, 40 + (unsigned)k, 1, 0);
    }
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        const float *const at[] = {in[0].at[s] + shift, in[1].at[s] + shift, in[2].at[s] + shift,
                                   in[3].at[s] + shift};
        b->ops->combine(b->self, out.at[s], n, n_terms, coef, at);
        b->ops->combine(b->self, in[1].at[s] + shift, n, n_terms, coef, at); /* in place */
    }
    (void)pair_check("combine", &out, PAIR_EXACT);
    (void)pair_check("combine in place", &in[1], PAIR_EXACT);
    for (int k = 0; k < RP_VEC_TERMS; k++) {
        pair_drop(&in[k]);
    }
    pair_drop(&out);
}

static void combine(void **state)
{
    (void)state;
    use_f32();
    for (size_t i = 0; i < COUNT(lengths); i++) {
        for (int n_terms = 0; n_terms <= RP_VEC_TERMS; n_terms++) {
            one_combine(lengths[i], n_terms, 0);
            one_combine(lengths[i], n_terms, 1);
        }
    }
    pair_done();
}

/* ---- sums ---- */

static void one_projection(size_t n)
{
    pair_array a = pair_random(PAIR_ALLOC, n, 50, 1, 0.2f);
    pair_array b = pair_random(PAIR_ALLOC, n, 51, 1, 0.3f);
    float first[2], again[2];

    pair_say("n %zu", n);
    for (int run = 0; run < 2; run++) {
        pair_array room = pair_poison(PAIR_ALLOC, RP_VEC_ROOM);
        for (int s = 0; s < N_SIDES; s++) {
            const rp_backend *be = &pair_on[s];
            be->ops->project(be->self, a.at[s], b.at[s], n, room.at[s]);
        }
        pair_get(room.at[GPU], run == 0 ? first : again, 1);
        pair_on[CPU].ops->get(pair_on[CPU].self, &first[1], room.at[CPU], sizeof(float));
        pair_drop(&room);
    }
    assert_true(first[0] == again[0]);
    assert_true(fabsf(first[0] - first[1]) <= 2e-6f * fabsf(first[1]));
    pair_drop(&a);
    pair_drop(&b);
}

static void project(void **state)
{
    (void)state;
    use_f32();
    for (size_t i = 0; i < COUNT(lengths); i++) {
        one_projection(lengths[i]);
    }
}

/* ---- rows ---- */

static const int row_shapes[][2] = {{1, 1}, {3, 7}, {5, 31}, {256, 16}, {2048, 128}, {17, 1000}};

static void one_extrapolation(const int *shape, bool keep_length, bool factor, int alias)
{
    const size_t n = (size_t)shape[0] * (size_t)shape[1];
    const float value = 0.71f;
    pair_array to = pair_random(PAIR_ALLOC, n, 60, 1, 0);
    pair_array away = pair_random(PAIR_ALLOC, n, 61, 1, 0);
    pair_array by = pair_of(PAIR_ALLOC, 1, &value);
    pair_array apart = pair_poison(PAIR_ALLOC, n);
    pair_array *const out = alias == 0 ? &apart : alias == 1 ? &to : &away;

    pair_say("%d rows of %d, keep_length %d, factor %d, out %d", shape[0], shape[1], keep_length,
             factor, alias);
    for (int s = 0; s < N_SIDES; s++) {
        const rp_vec_rows rows = {to.at[s], away.at[s],  factor ? by.at[s] : NULL,
                                  4.0f,     keep_length, (size_t)shape[0],
                                  shape[1]};
        pair_on[s].ops->extrapolate(pair_on[s].self, &rows, out->at[s]);
    }
    (void)pair_check("extrapolate", out, keep_length ? PAIR_CLOSE : PAIR_EXACT);
    pair_drop(&to);
    pair_drop(&away);
    pair_drop(&by);
    pair_drop(&apart);
}

static void extrapolate(void **state)
{
    (void)state;
    use_f32();
    for (size_t i = 0; i < COUNT(row_shapes); i++) {
        for (int k = 0; k < 12; k++) {
            one_extrapolation(row_shapes[i], k % 2 == 1, k / 2 % 2 == 1, k / 4);
        }
    }
    pair_done();
}

static void a_row_of_zeros_stays_zero(void **state)
{
    (void)state;
    static const float to[4] = {1, 2, 0, 0}, away[4] = {2, 4, 0, 0};
    float got[4];

    use_f32();
    pair_array a = pair_of(PAIR_ALLOC, 4, to), b = pair_of(PAIR_ALLOC, 4, away);
    const rp_vec_rows rows = {a.at[GPU], b.at[GPU], NULL, 2.0f, true, 2, 2};
    pair_on[GPU].ops->extrapolate(pair_on[GPU].self, &rows, a.at[GPU]);
    pair_get(a.at[GPU], got, 4);
    for (int i = 0; i < 4; i++) {
        assert_true(got[i] == 0.0f); /* not NaN */
    }
    pair_drop(&a);
    pair_drop(&b);
}

static void too_many_terms_are_told(void **state)
{
    (void)state;
    const rp_backend *b = &pair_on[GPU];

    use_f32();
    if (strcmp(b->ops->name, "cuda") == 0) {
        b->ops->combine(b->self, NULL, 1, RP_VEC_TERMS + 1, NULL, NULL);
        assert_int_equal(b->ops->peek(b->self), RP_E_ARG);
        assert_int_equal(b->ops->sync(b->self), RP_E_ARG);
        assert_int_equal(b->ops->peek(b->self), RP_OK);
        assert_int_equal(b->ops->sync(b->self), RP_OK);
    }
}

/* ---- time marks ---- */

static void marks_count_the_time_of_the_device(void **state)
{
    (void)state;
    enum { N = 1 << 24, MARKS = 6 };
    const rp_backend *b = &pair_on[GPU];
    void *x = NULL;
    double ms[MARKS];

    use_f32();
    assert_int_equal(b->ops->marks_reserve(b->self, 2), RP_OK);
    assert_int_equal(b->ops->marks_reserve(b->self, MARKS), RP_OK);
    assert_int_equal(b->ops->alloc(b->self, N * sizeof(float), "test", &x), RP_OK);
    b->ops->silu(b->self, x, N, x); /* loads the kernel */
    for (int i = 0; i < MARKS; i++) {
        b->ops->mark(b->self, i);
        for (int k = 0; k <= i; k++) { /* every interval is longer than the one before */
            b->ops->silu(b->self, x, N, x);
        }
    }
    b->ops->mark(b->self, 1 << 20); /* no room: nothing */
    assert_int_equal(b->ops->sync(b->self), RP_OK);
    assert_int_equal(b->ops->marks_read(b->self, MARKS, ms), RP_OK);
    assert_true(ms[0] == 0);
    for (int i = 1; i < MARKS; i++) {
        assert_true(ms[i] > ms[i - 1] && ms[i] < 1e4);
    }
    assert_true(ms[MARKS - 1] - ms[MARKS - 2] > ms[1] - ms[0]);
    assert_int_equal(b->ops->marks_read(b->self, 1 << 20, ms), RP_E_ARG);
    b->ops->release(b->self, x);
}

/* What was queued behind the mark may fail as well, but later. */
static void waiting_for_a_mark_tells_what_failed_before_it(void **state)
{
    (void)state;
    const rp_backend *b = &pair_on[GPU];
    const float bad[4] = {1.0f, NAN, 0.0f, 2.0f}, good[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    void *x = NULL, *y = NULL;

    use_f32();
    assert_int_equal(b->ops->marks_reserve(b->self, 2), RP_OK);
    assert_int_equal(b->ops->alloc(b->self, sizeof(bad), "test", &x), RP_OK);
    assert_int_equal(b->ops->alloc(b->self, sizeof(bad), "test", &y), RP_OK);
    b->ops->put(b->self, x, bad, sizeof(bad));
    b->ops->put(b->self, y, good, sizeof(good));
    assert_int_equal(b->ops->sync(b->self), RP_OK);
    b->ops->check_finite(b->self, y, 4);
    b->ops->mark(b->self, 0);
    assert_int_equal(b->ops->wait(b->self, 0), RP_OK);
    b->ops->check_finite(b->self, x, 4);
    b->ops->mark(b->self, 1);
    assert_int_equal(b->ops->wait(b->self, 1), RP_E_MODEL);
    assert_int_equal(b->ops->wait(b->self, 1), RP_OK); /* once */
    b->ops->check_finite(b->self, x, 4);
    assert_int_equal(b->ops->wait(b->self, 1 << 20), RP_E_MODEL); /* no such mark: for everything */
    b->ops->release(b->self, x);
    b->ops->release(b->self, y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(combine),
        cmocka_unit_test(project),
        cmocka_unit_test(extrapolate),
        cmocka_unit_test(a_row_of_zeros_stays_zero),
        cmocka_unit_test(too_many_terms_are_told),
        cmocka_unit_test(marks_count_the_time_of_the_device),
        cmocka_unit_test(waiting_for_a_mark_tells_what_failed_before_it),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_latent", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
