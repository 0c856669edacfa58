/* params.c - binding parameters by name and placing them on a backend; growing buffers. */
#include "model/params.h"

#include "base/check.h"
#include "base/log.h"

#include <xxhash.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 256 };

#define RANDOM_SEED 20u   /* any number: a parameter's own seed comes from its name too */
#define RANDOM_STD  0.02f /* what such networks are initialised with: activations stay near 1 */

rp_status rp_params_open(const rp_model_source *source, rp_params *params)
{
    *params = (rp_params){
        .backend = source->backend, .come = source->weights_come, .random = source->random_weights};
    return params->random ? RP_OK : rp_weights_open(source->dir, &params->file);
}

void rp_params_close(rp_params *params)
{
    for (size_t i = 0; i < params->n_placed; i++) {
        params->backend.ops->weight_release(params->backend.self, params->slot[i]);
    }
    free(params->slot);
    free(params->fill);
    rp_weights_close(params->file);
    *params = (rp_params){0};
}

static rp_status params_grow(rp_params *params)
{
    const size_t room = params->room == 0 ? 64 : 2 * params->room;
    rp_tensor **slot = realloc(params->slot, room * sizeof(*slot));
    rp_param_fill *fill = NULL;

    params->slot = slot != NULL ? slot : params->slot;
    if (slot != NULL && params->random) {
        fill = realloc(params->fill, room * sizeof(*fill));
        params->fill = fill != NULL ? fill : params->fill;
    }
    if (slot == NULL || (params->random && fill == NULL)) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a list of %zu parameters", room);
    }
    params->room = room;
    return RP_OK;
}

/* All weights that are vectors belong to norms, which multiply by them: 1 leaves a row as it is
 * (Gemma's 1 + w doubles it, and the next norm takes that back). */
static rp_param_fill params_fill(const char *name, int n_dims)
{
    const size_t n = strlen(name);
    const bool weight = n >= 7 && strcmp(name + n - 7, ".weight") == 0;

    return (rp_param_fill){.seed = XXH3_64bits_withSeed(name, n, RANDOM_SEED),
                           .std = weight && n_dims == 1 ? 0.0f : RANDOM_STD};
}

/* The shape of a parameter that no file holds. BF16: what such checkpoints are kept in. */
static rp_tensor params_shape(int n_dims, const int64_t *dims)
{
    rp_tensor shape = {.dtype = RP_BF16, .n_dims = n_dims, .dim = {1, 1, 1, 1}};

    memcpy(shape.dim, dims, (size_t)n_dims * sizeof(*dims));
    return shape;
}

static void params_bind(rp_params *params, rp_tensor *slot, int n_dims, const int64_t *dims,
                        const char *format, va_list args)
{
    char name[NAME_BYTES];

    if (params->status == RP_OK && params->n == params->room) {
        params->status = params_grow(params);
    }
    if (params->status != RP_OK) {
        return;
    }
    (void)vsnprintf(name, sizeof(name), format, args);
    if (params->random) {
        *slot = params_shape(n_dims, dims);
        params->fill[params->n] = params_fill(name, n_dims);
    } else {
        rp_weights_bind(params->file, slot, n_dims, dims, "%s", name);
    }
    params->slot[params->n++] = slot;
}

void rp_params_vector(rp_params *params, rp_tensor *slot, int n, const char *format, ...)
{
    const int64_t dims[] = {n};
    va_list args;

    va_start(args, format);
    params_bind(params, slot, 1, dims, format, args);
    va_end(args);
}

void rp_params_matrix(rp_params *params, rp_tensor *slot, int rows, int cols, const char *format,
                      ...)
{
    const int64_t dims[] = {rows, cols};
    va_list args;

    va_start(args, format);
    params_bind(params, slot, 2, dims, format, args);
    va_end(args);
}

void rp_params_matrix_narrow(rp_params *params, rp_tensor *slot, int rows, int cols,
                             const char *format, ...)
{
    const int64_t dims[] = {rows, cols};
    va_list args;

    va_start(args, format);
    params_bind(params, slot, 2, dims, format, args);
    va_end(args);
    slot->narrow = true;
}

void rp_params_conv(rp_params *params, rp_tensor *slot, int c_out, int c_in, int kernel,
                    const char *format, ...)
{
    const int64_t dims[] = {c_out, c_in, kernel, kernel};
    va_list args;

    va_start(args, format);
    params_bind(params, slot, 4, dims, format, args);
    va_end(args);
}

static rp_status params_place(const rp_params *params, size_t i, const rp_tensor *host,
                              rp_tensor *out)
{
    const rp_backend_ops *ops = params->backend.ops;

    if (params->come) {
        return ops->weight_place(params->backend.self, host, out);
    }
    if (params->random) {
        const rp_param_fill *fill = &params->fill[i];
        return ops->weight_fill(params->backend.self, host, fill->seed, fill->std, out);
    }
    return ops->weight(params->backend.self, host, out);
}

rp_status rp_params_finish(rp_params *params)
{
    RP_TRY(params->status);
    if (!params->random) {
        RP_TRY(rp_weights_finish(params->file));
    }
    RP_TRY(params->backend.ops->weights_begin(params->backend.self, params->slot, params->n));
    for (; params->n_placed < params->n; params->n_placed++) {
        rp_tensor *slot = params->slot[params->n_placed];
        const rp_tensor host = *slot;
        RP_TRY(params_place(params, params->n_placed, &host, slot));
        if (!params->come && !params->random) {
            params->n_read += (size_t)rp_tensor_elems(&host) * rp_dtype_bytes(host.dtype);
        }
    }
    return RP_OK;
}

int64_t rp_params_count(const rp_params *params)
{
    int64_t count = 0;

    for (size_t i = 0; i < params->n; i++) {
        count += rp_tensor_elems(params->slot[i]);
    }
    return count;
}

size_t rp_params_bytes(const rp_params *params, rp_precision precision)
{
    const size_t wide = precision == RP_PRECISION_F32 ? 4 : 2;
    size_t n_bytes = 0;

    for (size_t i = 0; i < params->n; i++) {
        const rp_tensor *t = params->slot[i];
        const bool narrow = t->narrow && rp_precision_is_fp8(precision);
        n_bytes += (size_t)rp_tensor_elems(t) * (t->n_dims < 2 ? 4 : narrow ? 1 : wide);
    }
    return n_bytes;
}

uint64_t rp_params_fingerprint(const rp_params *params)
{
    return params->random ? RANDOM_SEED : rp_weights_fingerprint(params->file);
}

rp_status rp_buffer_grow(const rp_backend *backend, rp_buffer *buffer, size_t n_elems,
                         const char *what)
{
    void *data = NULL;

    if (n_elems <= buffer->n_elems) {
        return RP_OK;
    }
    if (n_elems > SIZE_MAX / sizeof(float)) {
        return RP_FAIL(RP_E_NOMEM, "%s: %zu elements are more than memory can hold", what, n_elems);
    }
    rp_buffer_free(backend, buffer);
    RP_TRY(backend->ops->alloc(backend->self, n_elems * sizeof(float), what, &data));
    *buffer = (rp_buffer){.data = data, .n_elems = n_elems};
    return RP_OK;
}

rp_status rp_buffer_grow_act(const rp_backend *backend, rp_buffer *buffer, size_t n_elems,
                             const char *what)
{
    void *data = NULL;

    if (n_elems <= buffer->n_elems) {
        return RP_OK;
    }
    rp_buffer_free(backend, buffer);
    RP_TRY(backend->ops->alloc_act(backend->self, n_elems, what, &data));
    *buffer = (rp_buffer){.data = data, .n_elems = n_elems};
    return RP_OK;
}

void rp_buffer_free(const rp_backend *backend, rp_buffer *buffer)
{
    if (buffer->data != NULL) {
        backend->ops->release(backend->self, buffer->data);
    }
    *buffer = (rp_buffer){0};
}

rp_status rp_buffers_grow(const rp_backend *backend, const rp_buffer_want *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        RP_TRY((want[i].act ? rp_buffer_grow_act : rp_buffer_grow)(backend, want[i].buffer,
                                                                   want[i].n_elems, want[i].what));
    }
    return RP_OK;
}

size_t rp_buffers_bytes(const rp_buffer_want *want, size_t n, rp_precision precision)
{
    size_t n_bytes = 0;

    for (size_t i = 0; i < n; i++) {
        n_bytes += want[i].n_elems * (want[i].act && precision != RP_PRECISION_F32 ? 2 : 4);
    }
    return n_bytes;
}
