/* test_model_list.c - every network fills its table, and refuses configs that it does not compute.
 */
#include "rp_test.h"

#include "model/model.h"
#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static rp_backend g_backend;

static int setup(void **state)
{
    const rp_backend_params params = {.n_threads = 1};
    size_t last = 0;

    (void)state;
    while (rp_backend_list[last + 1] != NULL) {
        last++; /* the CPU: it is always there */
    }
    g_backend.ops = rp_backend_list[last];
    assert_int_equal(g_backend.ops->open(&params, &g_backend.self), RP_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_backend.ops->close(g_backend.self);
    return 0;
}

static void all_slots_are_filled(void **state)
{
    (void)state;
    assert_non_null(rp_denoiser_list[0]);
    assert_non_null(rp_encoder_list[0]);
    assert_non_null(rp_vae_list[0]);
    for (size_t i = 0; rp_denoiser_list[i] != NULL; i++) {
        const rp_denoiser_ops *o = rp_denoiser_list[i];
        assert_true(o->class_name && o->help && o->open && o->close && o->info && o->fingerprint &&
                    o->need && o->begin && o->condition && o->predict && o->trim && o->cost);
        o->close(NULL);
    }
    for (size_t i = 0; rp_encoder_list[i] != NULL; i++) {
        const rp_encoder_ops *o = rp_encoder_list[i];
        assert_true(o->class_name && o->help && o->open && o->close && o->info && o->fingerprint &&
                    o->need && o->encode);
        o->close(NULL);
    }
    for (size_t i = 0; rp_vae_list[i] != NULL; i++) {
        const rp_vae_ops *o = rp_vae_list[i];
        assert_true(o->class_name && o->help && o->open && o->close && o->info && o->fingerprint &&
                    o->need && o->decode);
        o->close(NULL);
    }
}

/* ----------------------------------------------------------------- configs */

enum { DENOISER, ENCODER, VAE };

/* One edit of a good config, and what the refusal must name. */
typedef struct {
    int kind;
    const char *was, *is;
    const char *says;
} edit;

static const struct {
    const char *part, *weights;
} g_part[] = {
    {"transformer", "diffusion_pytorch_model.safetensors"},
    {"text_encoder", "model.safetensors"},
    {"vae", "diffusion_pytorch_model.safetensors"},
};

static rp_status open_and_close(int kind, const char *dir, bool random_weights,
                                uint64_t *fingerprint_out)
{
    const rp_model_source source = {
        .dir = dir, .backend = g_backend, .random_weights = random_weights};
    void *self = NULL;
    rp_status st = RP_OK;

    if (kind == DENOISER) {
        st = rp_denoiser_list[0]->open(&source, &self);
        *fingerprint_out = st == RP_OK ? rp_denoiser_list[0]->fingerprint(self) : 0;
        rp_denoiser_list[0]->close(self);
    } else if (kind == ENCODER) {
        st = rp_encoder_list[0]->open(&source, &self);
        *fingerprint_out = st == RP_OK ? rp_encoder_list[0]->fingerprint(self) : 0;
        rp_encoder_list[0]->close(self);
    } else {
        st = rp_vae_list[0]->open(&source, &self);
        *fingerprint_out = st == RP_OK ? rp_vae_list[0]->fingerprint(self) : 0;
        rp_vae_list[0]->close(self);
    }
    assert_true(st == RP_OK || self == NULL);
    return st;
}

static void read_text(const char *path, char *text, size_t n_bytes)
{
    FILE *file = fopen(path, "rb");

    assert_non_null(file);
    text[fread(text, 1, n_bytes - 1, file)] = '\0';
    (void)fclose(file);
}

/* A folder with the shipped network's config, `was` replaced by `is`. */
static char *config_folder_with(const edit *e)
{
    char path[1024], text[4096];
    char *dir = rpt_mkdir();

    (void)snprintf(path, sizeof(path), "%s/%s/config.json", RP_TEST_MODEL, g_part[e->kind].part);
    read_text(path, text, sizeof(text));
    const char *at = strstr(text, e->was);
    if (at == NULL) {
        fail_msg("%s has no %s", path, e->was);
    }
    (void)snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    (void)fprintf(file, "%.*s%s%s", (int)(at - text), text, e->is, at + strlen(e->was));
    assert_int_equal(fclose(file), 0);
    return dir;
}

static void add_weights(int kind, const char *dir)
{
    char path[1024], weights[1024];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, g_part[kind].weights);
    (void)snprintf(weights, sizeof(weights), "%s/%s/%s", RP_TEST_MODEL, g_part[kind].part,
                   g_part[kind].weights);
    assert_int_equal(symlink(weights, path), 0);
}

static char *folder_with(const edit *e)
{
    char *dir = config_folder_with(e);

    add_weights(e->kind, dir);
    return dir;
}

static void other_arithmetic_and_absurd_sizes_are_refused(void **state)
{
    static const edit edits[] = {
        {DENOISER, "\"hidden_size\": 256", "\"hidden_size\": 2000000000", "hidden_size"},
        {DENOISER, "\"hidden_size\": 256", "\"hidden_size\": -256", "hidden_size"},
        {DENOISER, "\"hidden_size\": 256", "\"hidden_size\": \"256\"", "hidden_size"},
        {DENOISER, "\"hidden_size\": 256", "\"other\": 256", "hidden_size"},
        {DENOISER, "\"hidden_size\": 256", "\"hidden_size\": 512", "axes_dim_rope"},
        {DENOISER, "\"num_layers\": 8", "\"num_layers\": 0", "num_layers"},
        {DENOISER, "\"num_layers\": 8", "\"num_layers\": 7", "layers.7"},
        {DENOISER, "\"num_layers\": 8", "\"num_layers\": 9", "layers.8"},
        {DENOISER, "\"num_attention_heads\": 4", "\"num_attention_heads\": 3",
         "num_attention_heads"},
        {DENOISER, "\"num_kv_heads\": 2", "\"num_kv_heads\": 3", "num_kv_heads"},
        {DENOISER, "\"num_kv_heads\": 2", "\"num_kv_heads\": null", "to_k"},
        {DENOISER, "\"multiple_of\": 256", "\"multiple_of\": 0", "multiple_of"},
        {DENOISER, "\"multiple_of\": 256", "\"multiple_of\": 3", "feed_forward"},
        {DENOISER, "\"ffn_dim_multiplier\": 0.5", "\"ffn_dim_multiplier\": 1e9",
         "ffn_dim_multiplier"},
        {DENOISER, "\"ffn_dim_multiplier\": 0.5", "\"ffn_dim_multiplier\": null", "feed_forward"},
        {DENOISER, "\"scaling_factor\": 1.0", "\"scaling_factor\": 0.5", "scaling_factor"},
        {DENOISER, "\"out_channels\": null", "\"out_channels\": 32", "out_channels"},
        {DENOISER, "\"patch_size\": 2", "\"patch_size\": 0", "patch_size"},
        {DENOISER, "16,\n    24,\n    24", "15, 25, 24", "axes_dim_rope"},
        {DENOISER, "16,\n    24,\n    24", "16, 24", "axes_dim_rope"},
        {DENOISER, "300,", "1,", "axes_lens"},
        {DENOISER, "Lumina2Transformer2DModel", "FluxTransformer2DModel", "_class_name"},
        {ENCODER, "\"hidden_activation\": \"gelu_pytorch_tanh\"", "\"hidden_activation\": \"silu\"",
         "hidden_activation"},
        {ENCODER, "\"attention_bias\": false", "\"attention_bias\": true", "attention_bias"},
        {ENCODER, "\"model_type\": \"gemma2\"", "\"model_type\": \"gemma3\"", "model_type"},
        {ENCODER, "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 100000", "num_hidden_layers"},
        {ENCODER, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
         "num_key_value_heads"},
        {ENCODER, "\"head_dim\": 32", "\"head_dim\": 33", "head_dim"},
        {ENCODER, "\"rope_theta\": 10000.0", "\"rope_theta\": 0", "rope_theta"},
        {ENCODER, "\"rope_theta\": 10000.0", "\"rope_parameters\": {\"rope_type\": \"linear\"}",
         "rope_parameters"},
        {ENCODER, "\"rope_theta\": 10000.0", "\"rope_scaling\": {\"type\": \"dynamic\"}",
         "rope_scaling"},
        {ENCODER, "\"use_cache\": true", "\"use_bidirectional_attention\": true",
         "use_bidirectional_attention"},
        {ENCODER, "\"use_cache\": true", "\"layer_types\": [\"full_attention\"]", "layer_types"},
        {ENCODER, "\"use_cache\": true",
         "\"layer_types\": [\"full_attention\", \"chunked_attention\", \"a\", \"b\"]",
         "layer_types"},
        {ENCODER, "\"query_pre_attn_scalar\": 32", "\"query_pre_attn_scalar\": 0",
         "query_pre_attn_scalar"},
        {VAE, "\"act_fn\": \"silu\"", "\"act_fn\": \"relu\"", "act_fn"},
        {VAE, "\"DownEncoderBlock2D\"", "\"AttnDownEncoderBlock2D\"", "down_block_types"},
        {VAE, "\"UpDecoderBlock2D\"", "\"AttnUpDecoderBlock2D\"", "up_block_types"},
        {VAE, "\"UpDecoderBlock2D\",", "", "up_block_types"},
        {VAE, "\"norm_num_groups\": 8", "\"norm_num_groups\": 7", "norm_num_groups"},
        {VAE, "\"layers_per_block\": 1", "\"layers_per_block\": 1000", "layers_per_block"},
        {VAE, "\"layers_per_block\": 1", "\"layers_per_block\": 2", "resnets.2"},
        {VAE, "\"latents_mean\": null", "\"latents_mean\": [0.5]", "latents_mean"},
        {VAE, "\"scaling_factor\": 0.5424", "\"scaling_factor\": 0", "scaling_factor"},
        {VAE, "\"use_post_quant_conv\": false", "\"use_post_quant_conv\": true",
         "post_quant_conv.weight"},
        {VAE, "\"mid_block_add_attention\": true", "\"mid_block_add_attention\": false",
         "attentions.0"},
        {VAE, "\"out_channels\": 3", "\"out_channels\": 4", "out_channels"},
    };

    (void)state;
    rpt_log_collect();
    for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
        char *dir = folder_with(&edits[i]);
        uint64_t fingerprint = 0;
        rpt_log_clear();
        if (open_and_close(edits[i].kind, dir, false, &fingerprint) != RP_E_FORMAT) {
            fail_msg("%s was not refused", edits[i].is);
        }
        if (strstr(rpt_log_last(), edits[i].says) == NULL) {
            fail_msg("%s: \"%s\" does not name %s", edits[i].is, rpt_log_last(), edits[i].says);
        }
        rpt_rmdir(dir);
    }
}

/* What changes nothing is accepted, and another config has another fingerprint. */
static void harmless_edits_are_accepted_and_seen_by_the_fingerprint(void **state)
{
    static const edit edits[] = {
        {DENOISER, "\"sample_size\": 16", "\"sample_size\": 32", ""},
        {ENCODER, "\"rope_theta\": 10000.0",
         "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}", ""},
        {ENCODER, "\"rope_theta\": 10000.0", "\"rope_theta\": 10000.0, \"rope_scaling\": null", ""},
        {ENCODER, "\"attn_logit_softcapping\": 50.0", "\"attn_logit_softcapping\": null", ""},
        {ENCODER, "\"sliding_window\": 4096", "\"sliding_window\": null", ""},
        {VAE, "\"sample_size\": 128", "\"sample_size\": 256", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
        const edit same = {edits[i].kind, edits[i].was, edits[i].was, ""};
        char *as_it_is = folder_with(&same);
        char *edited = folder_with(&edits[i]);
        uint64_t was = 0;
        uint64_t is = 0;
        assert_int_equal(open_and_close(same.kind, as_it_is, false, &was), RP_OK);
        assert_int_equal(open_and_close(edits[i].kind, edited, false, &is), RP_OK);
        assert_true(was != is);
        rpt_rmdir(as_it_is);
        rpt_rmdir(edited);
    }
}

/* Lumina-Image 2.0, Gemma 2 2B and the Flux VAE as published: their configs are understood, and the
 * weights are what is missing from these folders. */
static void configs_of_the_full_size_models_are_accepted(void **state)
{
    (void)state;
    rpt_log_collect();
    for (int kind = DENOISER; kind <= VAE; kind++) {
        char dir[1024];
        uint64_t fingerprint = 0;
        (void)snprintf(dir, sizeof(dir), "%s/../lumina-image-2.0-config/%s", RP_TEST_MODEL,
                       g_part[kind].part);
        assert_int_equal(open_and_close(kind, dir, false, &fingerprint), RP_E_IO);
        assert_non_null(strstr(rpt_log_last(), "no weights"));
    }
}

/* ---------------------------------------------------------- random weights */

static void random_weights_need_the_config_only(void **state)
{
    static const char *const key[] = {"\"norm_eps\"", "\"use_cache\"", "\"sample_size\""};

    (void)state;
    for (int kind = DENOISER; kind <= VAE; kind++) {
        const edit same = {kind, key[kind], key[kind], ""};
        char *dir = config_folder_with(&same);
        uint64_t with_files = 0;
        uint64_t random[2] = {0};
        for (int i = 0; i < 2; i++) {
            assert_int_equal(open_and_close(kind, dir, true, &random[i]), RP_OK);
        }
        add_weights(kind, dir);
        assert_int_equal(open_and_close(kind, dir, false, &with_files), RP_OK);
        assert_true(random[0] == random[1] && random[0] != with_files);
        rpt_rmdir(dir);
    }
}

static void random_weights_follow_from_names(void **state)
{
    const rp_model_source source = {
        .dir = "/nowhere", .backend = g_backend, .random_weights = true};
    rp_params params;
    rp_tensor norm, bias, linear, again, other;
    double sum = 0.0;

    (void)state;
    assert_int_equal(rp_params_open(&source, &params), RP_OK);
    rp_params_vector(&params, &norm, 64, "layers.%d.norm1.weight", 0);
    rp_params_vector(&params, &bias, 64, "layers.%d.to_q.bias", 0);
    rp_params_matrix(&params, &linear, 64, 32, "layers.%d.to_q.weight", 0);
    rp_params_matrix(&params, &again, 64, 32, "layers.%d.to_q.weight", 0);
    rp_params_matrix(&params, &other, 64, 32, "layers.%d.to_q.weight", 1);
    assert_int_equal(rp_params_finish(&params), RP_OK);
    assert_int_equal(rp_params_count(&params), 2 * 64 + 3 * 64 * 32);

    for (int i = 0; i < 64; i++) {
        assert_true(((const float *)norm.data)[i] == 1.0f);
        assert_true(fabsf(((const float *)bias.data)[i]) < 0.2f);
    }
    for (int i = 0; i < 64 * 32; i++) {
        const float x = ((const float *)linear.data)[i];
        sum += (double)x * (double)x;
    }
    assert_true(fabs(sqrt(sum / (64 * 32)) - 0.02) < 0.002);
    assert_memory_equal(linear.data, again.data, 64 * 32 * sizeof(float));
    assert_memory_not_equal(linear.data, other.data, 64 * 32 * sizeof(float));
    rp_params_close(&params);
}

static void a_folder_that_is_not_there_is_an_io_error(void **state)
{
    uint64_t fingerprint = 0;

    (void)state;
    rpt_log_collect();
    for (int kind = DENOISER; kind <= VAE; kind++) {
        assert_int_equal(open_and_close(kind, "/nowhere", false, &fingerprint), RP_E_IO);
        assert_non_null(strstr(rpt_log_last(), "/nowhere"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_slots_are_filled),
        cmocka_unit_test(other_arithmetic_and_absurd_sizes_are_refused),
        cmocka_unit_test(harmless_edits_are_accepted_and_seen_by_the_fingerprint),
        cmocka_unit_test(configs_of_the_full_size_models_are_accepted),
        cmocka_unit_test(random_weights_need_the_config_only),
        cmocka_unit_test(random_weights_follow_from_names),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_io_error),
    };

    return cmocka_run_group_tests_name("model_list", tests, setup, teardown);
}
