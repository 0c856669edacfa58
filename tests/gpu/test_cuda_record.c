/*
 * test_cuda_record.c - recorded sequences of the CUDA backend: plain, while it is recorded and when
 * it is replayed, a sequence gives the same bits; and what makes the backend forget it.
 */
#include "cuda_pair.h"

enum { T = 37, D = 96, HEADS = 3, TIMES = 5 };

/* A small network block: products, attention, norms, a gated unit. */
typedef struct {
    int t;
    pair_array in, out;             /* f32, as latents and velocities are */
    pair_array x, wide, mid, angle; /* activations; angle is the rotary table */
    pair_weight qkv[3], up, down, norm;
} block;

static block new_block(int t, unsigned seed)
{
    const size_t n = (size_t)t * D;
    block b = {.t = t};

    b.in = pair_random(PAIR_ALLOC, n, seed, 1, 0);
    b.out = pair_poison(PAIR_ALLOC, n);
    b.x = pair_poison(PAIR_ACT, n);
    b.wide = pair_poison(PAIR_ACT, 3 * n);
    b.mid = pair_poison(PAIR_ACT, n);
    b.angle = pair_random(PAIR_ALLOC, n, 81, 0.3f, 0);
    for (int i = 0; i < 3; i++) {
        b.qkv[i] = pair_weight_random(RP_BF16, D, D, 0, 82 + (unsigned)i);
    }
    b.up = pair_weight_random(RP_BF16, 2 * D, D, 0, 86);
    b.down = pair_weight_random(RP_BF16, D, D, 0, 87);
    b.norm = pair_weight_random(RP_BF16, D, 0, 0, 88);
    return b;
}

static void drop_block(block *b)
{
    pair_array *arrays[] = {&b->in, &b->out, &b->x, &b->wide, &b->mid, &b->angle};
    pair_weight *weights[] = {&b->qkv[0], &b->qkv[1], &b->qkv[2], &b->up, &b->down, &b->norm};

    for (size_t i = 0; i < COUNT(arrays); i++) {
        pair_drop(arrays[i]);
    }
    for (size_t i = 0; i < COUNT(weights); i++) {
        pair_weight_drop(weights[i]);
    }
}

static void run_block(const block *b)
{
    const rp_backend_ops *o = pair_ops;
    void *self = pair_on[GPU].self;
    const rp_tensor *const qkv[] = {&b->qkv[0].at[GPU], &b->qkv[1].at[GPU], &b->qkv[2].at[GPU]};
    const rp_tensor *const up[] = {&b->up.at[GPU]}, *const down[] = {&b->down.at[GPU]};
    const rp_tensor *norm = &b->norm.at[GPU];
    float *x = b->x.at[GPU], *wide = b->wide.at[GPU], *mid = b->mid.at[GPU];
    const float *angle = b->angle.at[GPU];
    const rp_attention_shape s = {.n_q = b->t,
                                  .n_kv = b->t,
                                  .n_heads = HEADS,
                                  .n_kv_heads = HEADS,
                                  .head_dim = D / HEADS,
                                  .q_stride = 3 * D,
                                  .k_stride = 3 * D,
                                  .v_stride = 3 * D,
                                  .out_stride = D,
                                  .scale = 0.1f};
    const rp_rope_shape rope = {.t = b->t,
                                .n_q = HEADS,
                                .head_dim = D / HEADS,
                                .row_stride = 3 * D,
                                .eps = 1e-5f,
                                .kind = RP_ROPE_PAIRS};

    o->copy(self, x, b->in.at[GPU], (size_t)(b->t * D) * sizeof(float));
    o->rms_norm(self, x, b->t, D, norm, 0, 1e-5f, NULL, mid, true);
    o->linear(self, mid, b->t, D, D, qkv, 3, NULL, wide);
    o->head_norm_rope(self, &rope, wide, NULL, NULL, angle, angle);
    o->attention(self, &s, wide, wide + D, wide + 2 * D, mid);
    o->add_rms_norm(self, x, mid, b->t, D, norm, 0, 1e-5f, NULL);
    o->linear(self, x, b->t, D, D, up, 1, NULL, wide);
    o->swiglu(self, wide, b->t, D, mid);
    o->linear(self, mid, b->t, D, D, down, 1, NULL, b->out.at[GPU]);
    o->add(self, b->out.at[GPU], x, (size_t)(b->t * D));
}

/* As networks do it; true when it was replayed. */
static bool run_recorded(const block *b, uint64_t key)
{
    const bool known = pair_ops->replay(pair_on[GPU].self, key);

    if (!known) {
        run_block(b);
        pair_ops->recorded(pair_on[GPU].self);
    }
    return known;
}

static void put_input(const block *b, unsigned seed, float *host)
{
    rpt_fill(host, (size_t)b->t * D, seed);
    pair_ops->put(pair_on[GPU].self, b->in.at[GPU], host, (size_t)(b->t * D) * sizeof(float));
}

static void same_bits(const block *plain, const block *recorded, const char *what, int time)
{
    static float want[2 * T * D], got[2 * T * D];
    const size_t n = (size_t)plain->t * D;

    pair_get(plain->out.at[GPU], want, n);
    pair_get(recorded->out.at[GPU], got, n);
    assert_true(isfinite(want[0]));
    if (memcmp(want, got, n * sizeof(float)) != 0) {
        fail_msg("%s, time %d: other bits than without recording, error %.3g", what, time,
                 rpt_rel_l2(got, want, n));
    }
}

/* Every time with another input, and the plain sequence on memory of its own beside it. */
static void every_time_gives_the_same_bits(void **state)
{
    (void)state;
    static float host[2 * T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        pair_use(&pair_modes[m]);
        block plain = new_block(T, 1), recorded = new_block(T, 1);
        bool known = false;
        for (int i = 0; i < TIMES; i++) {
            put_input(&plain, 100 + (unsigned)i, host);
            put_input(&recorded, 100 + (unsigned)i, host);
            known = run_recorded(&recorded, 5);
            run_block(&plain);
            same_bits(&plain, &recorded, pair_modes[m].name, i);
        }
        assert_true(known || pair_n_modes == 2); /* else nothing was recorded at all */
        drop_block(&plain);
        drop_block(&recorded);
    }
}

static void two_keys_do_not_mix(void **state)
{
    (void)state;
    static float host[2 * T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        pair_use(&pair_modes[m]);
        block plain[2] = {new_block(T, 1), new_block(2 * T, 2)};
        block recorded[2] = {new_block(T, 1), new_block(2 * T, 2)};
        bool known = false;
        for (int i = 0; i < 3 * TIMES; i++) {
            const int k = i % 3 == 2; /* 0 0 1 0 0 1: also the same key twice in a row */
            put_input(&plain[k], 200 + (unsigned)i, host);
            put_input(&recorded[k], 200 + (unsigned)i, host);
            known = run_recorded(&recorded[k], 1000 + (uint64_t)k);
            run_block(&plain[k]);
            same_bits(&plain[k], &recorded[k], "two keys", i);
        }
        assert_true(known || pair_n_modes == 2);
        for (int k = 0; k < 2; k++) {
            drop_block(&plain[k]);
            drop_block(&recorded[k]);
        }
    }
}

/* Replays queued one after the other without a sync in between run in order. */
static void replays_follow_each_other(void **state)
{
    (void)state;
    static float host[2 * T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        pair_use(&pair_modes[m]);
        const rp_backend *g = &pair_on[GPU];
        block plain = new_block(T, 1), recorded = new_block(T, 1);
        block *both[] = {&plain, &recorded};
        put_input(&plain, 300, host);
        put_input(&recorded, 300, host);
        for (int i = 0; i < 2 * TIMES; i++) {
            for (int k = 0; k < 2; k++) {
                if (k == 0) {
                    run_block(both[k]);
                } else {
                    (void)run_recorded(both[k], 7);
                }
                g->ops->rms_norm(g->self, both[k]->out.at[GPU], T, D, NULL, 0, 1e-5f, NULL,
                                 both[k]->in.at[GPU], false);
            }
        }
        same_bits(&plain, &recorded, "in a row", 0);
        drop_block(&plain);
        drop_block(&recorded);
    }
}

static void releasing_memory_forgets(void **state)
{
    (void)state;
    static float host[2 * T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        pair_use(&pair_modes[m]);
        block plain = new_block(T, 1), recorded = new_block(T, 1);
        for (int round = 0; round < 3; round++) {
            bool known = false;
            for (int i = 0; i < TIMES; i++) {
                put_input(&plain, 400 + (unsigned)i, host);
                put_input(&recorded, 400 + (unsigned)i, host);
                known = run_recorded(&recorded, 9);
                assert_false(i == 0 && known);
                run_block(&plain);
                same_bits(&plain, &recorded, "after a release", i);
            }
            assert_true(known || pair_n_modes == 2);
            pair_array other = pair_random(round == 0 ? PAIR_ALLOC : PAIR_ACT, 64, 1, 1, 0);
            pair_drop(&other);
        }
        drop_block(&plain);
        drop_block(&recorded);
    }
}

/* trim() too: scratch addresses are inside the sequences. Plans stay, and find new scratch. */
static void trimming_frees_forgets_and_keeps_the_bits(void **state)
{
    (void)state;
    static float host[2 * T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        pair_use(&pair_modes[m]);
        const rp_backend *g = &pair_on[GPU];
        block plain = new_block(T, 1), recorded = new_block(T, 1);
        for (int round = 0; round < 3; round++) {
            rp_device_info before, after;
            bool known = false;
            for (int i = 0; i < TIMES; i++) {
                put_input(&plain, 450 + (unsigned)i, host);
                put_input(&recorded, 450 + (unsigned)i, host);
                known = run_recorded(&recorded, 10);
                assert_false(i == 0 && known);
                run_block(&plain);
                same_bits(&plain, &recorded, "after a trim", i);
            }
            assert_true(known || pair_n_modes == 2);
            (void)run_recorded(&recorded, 10); /* still queued when its scratch goes */
            g->ops->info(g->self, &before);
            g->ops->trim(g->self);
            g->ops->info(g->self, &after);
            assert_int_equal(g->ops->sync(g->self), RP_OK);
            assert_true(before.bytes_scratch > 0 || pair_n_modes == 2);
            assert_int_equal(after.bytes_scratch, 0);
            assert_true(after.bytes_free >= before.bytes_free + before.bytes_scratch / 2);
            same_bits(&plain, &recorded, "before a trim", round);
        }
        drop_block(&plain);
        drop_block(&recorded);
    }
}

/* restart() drops plans and sequences; memory and weights stay, and the numbers too. */
static void restart_keeps_memory_weights_and_bits(void **state)
{
    (void)state;
    static float host[2 * T * D], before[T * D], after[T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        pair_use(&pair_modes[m]);
        void *self = pair_on[GPU].self;
        block b = new_block(T, 1);
        put_input(&b, 500, host);
        for (int i = 0; i < 3; i++) {
            (void)run_recorded(&b, 11);
        }
        pair_get(b.out.at[GPU], before, T * D);
        for (int i = 0; i < 4; i++) {
            if (i < 2) {
                assert_int_equal(pair_ops->restart(self), RP_OK);
            }
            (void)run_recorded(&b, 11);
            pair_get(b.out.at[GPU], after, T * D);
            assert_memory_equal(before, after, sizeof(before));
        }
        drop_block(&b);
    }
}

/* The plain sequence again and again, and on a second backend of the same device. */
static void the_same_bits_every_time_and_from_a_second_backend(void **state)
{
    (void)state;
    static float host[2 * T * D], first[T * D], again[T * D];

    for (int m = 0; m < pair_n_modes; m += pair_n_modes - 1) {
        const rp_backend_params params = {.n_threads = 1, .precision = pair_modes[m].precision};
        pair_use(&pair_modes[m]);
        void *self = pair_on[GPU].self;
        for (int i = 0; i < 4; i++) {
            if (i == 3) {
                assert_int_equal(pair_ops->open(&params, &pair_on[GPU].self), RP_OK);
                assert_int_equal(pair_ops->reserve(pair_on[GPU].self, 2 * D, 2 * T, D), RP_OK);
            }
            block b = new_block(T, 1);
            put_input(&b, 600, host);
            run_block(&b);
            pair_get(b.out.at[GPU], i == 0 ? first : again, T * D);
            assert_memory_equal(first, i == 0 ? first : again, sizeof(first));
            drop_block(&b);
        }
        pair_ops->close(pair_on[GPU].self);
        pair_on[GPU].self = self;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_time_gives_the_same_bits),
        cmocka_unit_test(two_keys_do_not_mix),
        cmocka_unit_test(replays_follow_each_other),
        cmocka_unit_test(releasing_memory_forgets),
        cmocka_unit_test(trimming_frees_forgets_and_keeps_the_bits),
        cmocka_unit_test(restart_keeps_memory_weights_and_bits),
        cmocka_unit_test(the_same_bits_every_time_and_from_a_second_backend),
    };
    pair_open_or_skip();
    const int n_failed = cmocka_run_group_tests_name("cuda_record", tests, NULL, NULL);
    pair_close();
    return n_failed;
}
