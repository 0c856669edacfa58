/* golden.h - what the golden tests share: a backend, a file of reference values. */
#ifndef RP_GOLDEN_H
#define RP_GOLDEN_H

#include "rp_test.h"

#include "model/model.h"
#include "weights/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define GOLDEN_EMOJI  RP_TEST_DATA "/emoji-lumina2-reference"
#define GOLDEN_SECOND RP_TEST_DATA "/second-lumina2"

/* The CPU backend, the one that the tolerances were measured with. */
static inline rp_backend golden_backend(int n_threads)
{
    const rp_backend_params params = {.n_threads = n_threads};
    rp_backend backend = {0};

    for (size_t i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, "cpu") == 0) {
            backend.ops = rp_backend_list[i];
        }
    }
    assert_non_null(backend.ops);
    assert_int_equal(backend.ops->open(&params, &backend.self), RP_OK);
    return backend;
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
