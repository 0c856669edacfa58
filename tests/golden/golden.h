/* golden.h - what the golden tests share: a backend, a file of reference values. */
#ifndef RP_GOLDEN_H
#define RP_GOLDEN_H

#include "rp_test.h"

#include "model/model.h"
#include "weights/safetensors.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN_EMOJI  RP_TEST_DATA "/emoji-lumina2-reference"
#define GOLDEN_SECOND RP_TEST_DATA "/second-lumina2"

/*
 * The tolerances of the tests were measured on the CPU backend. Another device sums in another
 * order; bf16 rounds every activation: one network, and a run of steps in which guidance multiplies
 * what the networks differ by.
 */
#define GOLDEN_DEVICE_FACTOR 4
#define GOLDEN_BF16_REL      2e-2
#define GOLDEN_BF16_RUN      1e-1

/* RP_TEST_BACKEND and RP_TEST_PRECISION: the same tests on another device. */
static inline const char *golden_backend_name(void)
{
    const char *name = getenv("RP_TEST_BACKEND");

    return name != NULL && name[0] != '\0' ? name : "cpu";
}

/* NULL when none was asked for: the backend's own choice. */
static inline const char *golden_precision_name(void)
{
    const char *name = getenv("RP_TEST_PRECISION");

    return name != NULL && name[0] != '\0' && strcmp(name, "auto") != 0 ? name : NULL;
}

static inline const rp_backend_ops *golden_backend_ops(void)
{
    for (size_t i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, golden_backend_name()) == 0) {
            return rp_backend_list[i];
        }
    }
    return NULL;
}

/* First in main(): exits with 77, ctest's "skipped", where the backend cannot run. */
static inline void golden_skip_unless_usable(void)
{
    const rp_backend_ops *ops = golden_backend_ops();

    if (ops == NULL || !ops->usable()) {
        print_message("SKIP: %s: %s\n", golden_backend_name(),
                      ops == NULL ? "this build has no such backend" : ops->why_not());
        exit(77);
    }
}

static inline rp_backend golden_backend(int n_threads)
{
    const char *precision = golden_precision_name();
    rp_backend_params params = {.n_threads = n_threads};
    rp_backend backend = {.ops = golden_backend_ops()};

    if (precision != NULL) {
        params.precision = rp_precision_named(precision);
    }
    assert_non_null(backend.ops);
    assert_int_equal(backend.ops->open(&params, &backend.self), RP_OK);
    return backend;
}

/* Does the backend compute in bf16? A device does unless it is told otherwise. */
static inline bool golden_is_bf16(void)
{
    const char *precision = golden_precision_name();

    return precision != NULL ? strcmp(precision, "bf16") == 0
                             : strcmp(golden_backend_name(), "cpu") != 0;
}

/* What a tolerance measured on the CPU is where the tests run now; `bf16` is its counterpart there.
 */
static inline double golden_tolerance(double cpu, double bf16)
{
    if (strcmp(golden_backend_name(), "cpu") == 0) {
        return cpu;
    }
    return golden_is_bf16() ? bf16 : cpu * GOLDEN_DEVICE_FACTOR;
}

static inline rp_safetensors *golden_file(const char *path)
{
    rp_safetensors *file = NULL;

    assert_int_equal(rp_safetensors_open(path, &file), RP_OK);
    return file;
}

static inline rp_tensor golden_tensor(const rp_safetensors *file, const char *name, rp_dtype dtype)
{
    rp_tensor tensor = {0};

    if (rp_safetensors_find(file, name, &tensor) != RP_OK) {
        fail_msg("no reference tensor %s", name);
    }
    assert_int_equal(tensor.dtype, dtype);
    return tensor;
}

static inline float *golden_new(size_t n)
{
    float *mem = calloc(n, sizeof(float));

    assert_non_null(mem);
    return mem;
}

#endif
