/* params.c - binding parameters by name and placing them on a backend; growing buffers. */
#include "model/params.h"

#include "base/check.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_BYTES = 256 };

rp_status rp_params_open(const rp_model_source *source, rp_params *params)
{
    *params = (rp_params){.backend = source->backend};
    return rp_weights_open(source->dir, &params->file);
}

void rp_params_close(rp_params *params)
{
    for (size_t i = 0; i < params->n_placed; i++) {
        params->backend.ops->weight_release(params->backend.self, params->slot[i]);
    }
    free(params->slot);
    rp_weights_close(params->file);
    *params = (rp_params){0};
}

static void params_bind(rp_params *params, rp_tensor *slot, int n_dims, const int64_t *dims,
                        const char *format, va_list args)
{
    char name[NAME_BYTES];

    if (params->status != RP_OK) {
        return;
    }
    if (params->n == params->room) {
        const size_t room = params->room == 0 ? 64 : 2 * params->room;
        rp_tensor **grown = realloc(params->slot, room * sizeof(*grown));
        if (grown == NULL) {
            params->status = RP_FAIL(RP_E_NOMEM, "no memory for a list of %zu parameters", room);
            return;
        }
        params->slot = grown;
        params->room = room;
    }
    (void)vsnprintf(name, sizeof(name), format, args);
    rp_weights_bind(params->file, slot, n_dims, dims, "%s", name);
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

void rp_params_conv(rp_params *params, rp_tensor *slot, int c_out, int c_in, int kernel,
                    const char *format, ...)
{
    const int64_t dims[] = {c_out, c_in, kernel, kernel};
    va_list args;

    va_start(args, format);
    params_bind(params, slot, 4, dims, format, args);
    va_end(args);
}

rp_status rp_params_finish(rp_params *params)
{
    RP_TRY(params->status);
    RP_TRY(rp_weights_finish(params->file));
    for (; params->n_placed < params->n; params->n_placed++) {
        rp_tensor *slot = params->slot[params->n_placed];
        const rp_tensor host = *slot;
        RP_TRY(params->backend.ops->weight(params->backend.self, &host, slot));
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
