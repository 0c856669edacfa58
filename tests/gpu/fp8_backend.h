/* fp8_backend.h - a device in a precision of 8 bits and the CPU beside it, for the tests of that.
 */
#ifndef RP_TEST_FP8_BACKEND_H
#define RP_TEST_FP8_BACKEND_H

#include "rp_test.h"

#include "tensor/tensor_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const rp_backend_ops *g_ops, *g_cpu_ops;
static void *g_fp8, *g_cpu;

static const rp_backend_ops *fp8_row(const char *name)
{
    for (int i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, name) == 0) {
            return rp_backend_list[i];
        }
    }
    return NULL;
}

/* Exit 77 where there is no such device. k_max, n_kv_max, head_dim_max: what the CPU reserves. */
static void fp8_open_or_skip(rp_precision precision, int k_max, int n_kv_max, int head_dim_max)
{
    const rp_backend_params cpu = {.n_threads = 4};
    const rp_backend_params fp8 = {.n_threads = 4, .precision = precision};

    g_ops = fp8_row("cuda");
    g_cpu_ops = fp8_row("cpu");
    if (g_ops == NULL || !g_ops->usable() || g_ops->open(&fp8, &g_fp8) == RP_E_UNSUP) {
        printf("SKIP: no device that multiplies in fp8\n");
        exit(77);
    }
    if (g_fp8 == NULL || g_cpu_ops->open(&cpu, &g_cpu) != RP_OK ||
        g_cpu_ops->reserve(g_cpu, k_max, n_kv_max, head_dim_max) != RP_OK) {
        print_error("a backend does not open\n");
        exit(1);
    }
}

static void fp8_close(void)
{
    g_ops->close(g_fp8);
    g_cpu_ops->close(g_cpu);
}

/* Activations in `self`, of n floats of the host, or only room. */
static inline float *on_device(void *self, const float *host, size_t n)
{
    void *mem = NULL;

    assert_int_equal(g_ops->alloc_act(self, n, "test", &mem), RP_OK);
    if (host != NULL) {
        g_ops->put(self, mem, host, n * sizeof(float));
        assert_int_equal(g_ops->sync(self), RP_OK);
    }
    return mem;
}

static inline float *from_device(void *self, const float *mem, size_t n)
{
    float *host = malloc(n * sizeof(*host));

    assert_non_null(host);
    g_ops->get(self, host, mem, n * sizeof(float));
    if (g_ops->sync(self) != RP_OK) {
        fail_msg("%s", rpt_log_last());
    }
    return host;
}

#endif
