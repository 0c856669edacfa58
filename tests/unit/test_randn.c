/* test_randn.c - noise bit for bit against torch.randn (tests/ref/make_randn.py, reference
 * latents). */
#include "rp_test.h"

#include "base/randn.h"
#include "weights/json.h"
#include "weights/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define MAX_N 70000

static uint64_t fnv1a(const void *data, size_t n_bytes)
{
    const unsigned char *bytes = data;
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n_bytes; i++) {
        h = (h ^ bytes[i]) * 0x100000001b3u;
    }
    return h;
}

static double number(const cJSON *row, const char *key)
{
    return cJSON_GetObjectItem(row, key)->valuedouble;
}

static const char *string(const cJSON *row, const char *key)
{
    return cJSON_GetObjectItem(row, key)->valuestring;
}

static void every_length_and_seed_has_the_bits_of_torch(void **state)
{
    (void)state;
    static float x[MAX_N];
    const char *path = RP_TEST_DATA "/randn.json";
    char *text = NULL;
    cJSON *file = NULL;
    const cJSON *row = NULL;
    size_t n_bytes = 0;
    int n_rows = 0;

    assert_int_equal(rp_json_read(path, 1 << 20, &text, &n_bytes), RP_OK);
    assert_int_equal(rp_json_parse(path, text, n_bytes, &rp_json_default, &file), RP_OK);
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(file, "rows"))
    {
        const uint64_t seed = strtoull(string(row, "seed"), NULL, 10);
        const size_t n = (size_t)number(row, "n");

        assert_true(n < MAX_N);
        x[n] = 9.0f;
        rp_randn(seed, x, n);
        if (fnv1a(x, n * sizeof(x[0])) != strtoull(string(row, "fnv1a"), NULL, 16)) {
            fail_msg("seed %llu, n %zu: first %.9g, want %.9g; last %.9g, want %.9g",
                     (unsigned long long)seed, n, (double)x[0], number(row, "first"),
                     (double)x[n - 1], number(row, "last"));
        }
        assert_true(x[n] == 9.0f); /* nothing is written past the end */
        n_rows++;
    }
    assert_int_equal(n_rows, 6 * 44 + 2);
    cJSON_Delete(file);
    free(text);
}

/* With and without what this processor has. */
static void the_bits_are_those_of_any_processor(void **state)
{
    (void)state;
    static float x[MAX_N], y[MAX_N];

    for (uint64_t seed = 0; seed < 50; seed++) {
        const size_t n = MAX_N - seed * 7;
        rp_randn(seed * 1000003, x, n);
        rp_randn_anywhere(seed * 1000003, y, n);
        assert_memory_equal(x, y, n * sizeof(*x));
    }
}

/* torch 2.11.0 on another machine made these. */
static void reference_latents_are_met(void **state)
{
    (void)state;
    static const char *const paths[2] = {RP_TEST_DATA "/emoji-lumina2-reference/p0.safetensors",
                                         RP_TEST_DATA "/emoji-lumina2-reference/p1.safetensors"};
    float x[16 * 16 * 16];

    for (int i = 0; i < 2; i++) {
        rp_safetensors *file = NULL;
        rp_tensor want;

        assert_int_equal(rp_safetensors_open(paths[i], &file), RP_OK);
        assert_int_equal(rp_safetensors_find(file, "latents_init", &want), RP_OK);
        rp_randn(42 + (uint64_t)i, x, 16 * 16 * 16);
        assert_memory_equal(x, want.data, sizeof(x));
        rp_safetensors_close(file);
    }
}

static void zero_values_are_allowed(void **state)
{
    (void)state;
    float x = 3.0f;

    rp_randn(1, &x, 0);
    assert_true(x == 3.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_and_seed_has_the_bits_of_torch),
        cmocka_unit_test(the_bits_are_those_of_any_processor),
        cmocka_unit_test(reference_latents_are_met),
        cmocka_unit_test(zero_values_are_allowed),
    };
    return cmocka_run_group_tests_name("randn", tests, NULL, NULL);
}
