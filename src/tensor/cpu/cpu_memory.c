/* cpu_memory.c - memory and weights of the CPU backend: host memory, borrowed or from the heap. */
#include "tensor/cpu/cpu.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/randn.h"

#include <stdlib.h>
#include <string.h>

rp_status rp_cpu_alloc(void *self, size_t n_bytes, const char *what, void **out)
{
    (void)self;
    return rp_mem_new(n_bytes, 1, what, out);
}

rp_status rp_cpu_alloc_act(void *self, size_t n_elems, const char *what, void **out)
{
    (void)self;
    return rp_mem_new(n_elems, sizeof(float), what, out);
}

void rp_cpu_release(void *self, void *mem)
{
    (void)self;
    free(mem);
}

void rp_cpu_put(void *self, void *dst, const void *host, size_t n_bytes)
{
    (void)self;
    memcpy(dst, host, n_bytes);
}

void rp_cpu_get(void *self, void *host, const void *src, size_t n_bytes)
{
    (void)self;
    memcpy(host, src, n_bytes);
}

void rp_cpu_copy(void *self, void *dst, const void *src, size_t n_bytes)
{
    (void)self;
    memmove(dst, src, n_bytes);
}

void rp_cpu_copy_rows(void *self, float *dst, size_t dst_stride, const float *src,
                      size_t src_stride, int n_rows, int n_cols)
{
    (void)self;
    for (int i = 0; i < n_rows; i++) {
        memcpy(dst + (size_t)i * dst_stride, src + (size_t)i * src_stride,
               (size_t)n_cols * sizeof(float));
    }
}

void rp_cpu_check_finite(void *self, const float *x, size_t n)
{
    rp_cpu *cpu = self;
    float sum = 0; /* 0 * x is NaN for infinite and NaN x; one pass, no branch */

    for (size_t i = 0; i < n; i++) {
        sum += 0.0f * x[i];
    }
    if (sum != 0.0f && cpu->failed == RP_OK) {
        cpu->failed =
            RP_FAIL(RP_E_MODEL, "the prediction is not finite (latents or weights too large?)");
    }
}

/* Weights are borrowed where they are. */
rp_status rp_cpu_weights_begin(void *self, rp_tensor *const *host, size_t n)
{
    (void)self;
    (void)host;
    (void)n;
    return RP_OK;
}

void *rp_cpu_weights_span(void *self, size_t *n_bytes)
{
    (void)self;
    *n_bytes = 0;
    return NULL;
}

rp_status rp_cpu_weight_place(void *self, const rp_tensor *host, rp_tensor *out)
{
    return rp_cpu_weight(self, host, out);
}

rp_status rp_cpu_weight(void *self, const rp_tensor *host, rp_tensor *out)
{
    (void)self;
    if (!rp_dtype_is_float(host->dtype)) {
        return RP_FAIL(RP_E_UNSUP, "weight of type %s; F32, F16, BF16 and F8_E4M3 are supported",
                       rp_dtype_name(host->dtype));
    }
    *out = *host;
    return RP_OK;
}

rp_status rp_cpu_weight_fill(void *self, const rp_tensor *shape, uint64_t seed, float std,
                             rp_tensor *out)
{
    rp_cpu *cpu = self;
    const size_t n = (size_t)rp_tensor_elems(shape);
    void *mem = NULL;

    RP_TRY(rp_mem_new(n, sizeof(float), "a random weight", &mem));
    void **const grown = realloc(cpu->made, (size_t)(cpu->n_made + 1) * sizeof(*grown));
    if (grown == NULL) {
        free(mem);
        return RP_FAIL(RP_E_NOMEM, "no memory for a list of %d weights", cpu->n_made + 1);
    }
    cpu->made = grown;
    cpu->made[cpu->n_made++] = mem;

    float *const x = mem;
    if (std != 0.0f) {
        rp_randn(seed, x, n);
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = std == 0.0f ? 1.0f : std * x[i];
    }
    *out = *shape;
    out->dtype = RP_F32;
    out->data = mem;
    out->n_scales = 0;
    return RP_OK;
}

/* A borrowed weight is only forgotten. */
void rp_cpu_weight_release(void *self, rp_tensor *weight)
{
    rp_cpu *cpu = self;

    for (int i = 0; i < cpu->n_made; i++) {
        if (cpu->made[i] == weight->data) {
            free(cpu->made[i]);
            cpu->made[i] = cpu->made[--cpu->n_made];
            break;
        }
    }
    weight->data = NULL;
}
