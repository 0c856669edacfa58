/* test_gemma2.c - the text encoder of the shipped model against transformers. */
#include "golden.h"

#include <stdio.h>

/* Observed on the CPU backend: up to 2e-7. */
#define TOLERANCE 1e-5

enum { DIM = 192, N_STATES = 5 };

typedef struct {
    rp_backend backend;
    const rp_encoder_ops *ops;
    void *self;
    rp_safetensors *file[2];
} fixture;

static fixture g_fix;

static int setup(void **state)
{
    const rp_model_source source = {.dir = RP_TEST_MODEL "/text_encoder",
                                    .backend = golden_backend(2)};

    (void)state;
    g_fix.backend = source.backend;
    g_fix.ops = rp_encoder_list[0];
    assert_string_equal(g_fix.ops->class_name, "Gemma2Model");
    assert_int_equal(g_fix.ops->open(&source, &g_fix.self), RP_OK);
    g_fix.file[0] = golden_file(GOLDEN_EMOJI "/p0.safetensors");
    g_fix.file[1] = golden_file(GOLDEN_EMOJI "/p1.safetensors");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_fix.ops->close(g_fix.self);
    g_fix.backend.ops->close(g_fix.backend.self);
    rp_safetensors_close(g_fix.file[0]);
    rp_safetensors_close(g_fix.file[1]);
    return 0;
}

/* hidden state `layer` of the first n ids against want[n, DIM] */
static void check(const char *name, const rp_tensor *ids, int n, int softcap, int layer,
                  const float *want)
{
    float *got = golden_new((size_t)n * DIM);

    assert_int_equal(g_fix.ops->encode(g_fix.self, ids->data, n, softcap, layer, got), RP_OK);
    rpt_assert_close(name, got, want, (size_t)n * DIM,
                     golden_tolerance(TOLERANCE, GOLDEN_BF16_REL));
    free(got);
}

static void embeddings_are_those_of_the_pipeline(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        const rp_tensor ids = golden_tensor(g_fix.file[p], "input_ids", RP_I32);
        const rp_tensor sdpa = golden_tensor(g_fix.file[p], "prompt_embeds", RP_F32);
        const rp_tensor eager = golden_tensor(g_fix.file[p], "prompt_embeds_softcap", RP_F32);
        const rp_tensor none = golden_tensor(g_fix.file[p], "negative_input_ids", RP_I32);
        const rp_tensor negative = golden_tensor(g_fix.file[p], "negative_prompt_embeds", RP_F32);
        const int n = (int)sdpa.dim[0];
        check("prompt_embeds", &ids, n, 0, -2, sdpa.data);
        check("prompt_embeds_softcap", &ids, n, 1, -2, eager.data);
        check("negative_prompt_embeds", &none, 1, 0, -2, negative.data);
        /* the two kinds of attention differ by 0.3%: far more than the tolerance */
        assert_true(rpt_rel_l2(sdpa.data, eager.data, (size_t)n * DIM) > 100 * TOLERANCE);
    }
}

static void every_hidden_state_is_right_counted_from_either_end(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        const rp_tensor ids = golden_tensor(g_fix.file[p], "input_ids", RP_I32);
        const rp_tensor all = golden_tensor(g_fix.file[p], "text_hidden_states", RP_F32);
        const int n = (int)all.dim[1];
        assert_int_equal(all.dim[0], N_STATES);
        for (int layer = 0; layer < N_STATES; layer++) {
            const float *want = (const float *)all.data + (size_t)layer * (size_t)n * DIM;
            char name[64];
            (void)snprintf(name, sizeof(name), "p%d hidden state %d", p, layer);
            check(name, &ids, n, 0, layer, want);
            check(name, &ids, n, 0, layer - N_STATES, want);
        }
    }
}

static void info_is_that_of_the_config(void **state)
{
    rp_encoder_info info = {0};

    (void)state;
    g_fix.ops->info(g_fix.self, &info);
    assert_int_equal(info.dim, DIM);
    assert_int_equal(info.vocab, 2560);
    assert_int_equal(info.max_tokens, 512);
}

static void bad_arguments_are_refused_and_leave_out_alone(void **state)
{
    static const int32_t good[2] = {2, 2559};
    static const int32_t too_big[2] = {2, 2560};
    static const int32_t negative[2] = {2, -1};
    float out[2 * DIM] = {9.0f};
    const rp_encoder_ops *ops = g_fix.ops;

    (void)state;
    rpt_log_collect();
    assert_int_equal(ops->encode(g_fix.self, too_big, 2, 0, -2, out), RP_E_ARG);
    assert_non_null(strstr(rpt_log_last(), "2560"));
    assert_int_equal(ops->encode(g_fix.self, negative, 2, 0, -2, out), RP_E_ARG);
    assert_int_equal(ops->encode(g_fix.self, good, 0, 0, -2, out), RP_E_ARG);
    assert_int_equal(ops->encode(g_fix.self, good, 513, 0, -2, out), RP_E_ARG);
    assert_int_equal(ops->encode(g_fix.self, good, 2, 0, 5, out), RP_E_ARG);
    assert_int_equal(ops->encode(g_fix.self, good, 2, 0, -6, out), RP_E_ARG);
    assert_true(out[0] == 9.0f);
    assert_int_equal(ops->encode(g_fix.self, good, 2, 0, -1, out), RP_OK);
    assert_true(out[0] != 9.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings_are_those_of_the_pipeline),
        cmocka_unit_test(every_hidden_state_is_right_counted_from_either_end),
        cmocka_unit_test(info_is_that_of_the_config),
        cmocka_unit_test(bad_arguments_are_refused_and_leave_out_alone),
    };

    golden_skip_unless_usable();
    return cmocka_run_group_tests_name("gemma2", tests, setup, teardown);
}
