/* safetensors_write.c - write tensors to a file that other programs read. */
#include "weights/safetensors.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/outfile.h"
#include "base/text.h"
#include "weights/json.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES 8u /* of the data's start, padded with spaces as the reference does */

typedef struct {
    const rp_named_tensor *named;
    size_t n_bytes;
    size_t order; /* as given; keeps the sort stable */
} item;

static rp_status check_tensor(const char *path, const rp_named_tensor *named, size_t *n_bytes_out)
{
    const rp_tensor *const tensor = &named->tensor;
    const char *const name = named->name;

    if (name == NULL || name[0] == '\0' || strcmp(name, "__metadata__") == 0 ||
        rp_text_bad_utf8(name) >= 0) {
        return RP_FAIL(RP_E_ARG, "%s: a tensor needs a name in UTF-8, not \"__metadata__\"", path);
    }
    if ((unsigned)tensor->dtype >= RP_N_DTYPES || tensor->n_dims < 0 ||
        tensor->n_dims > RP_TENSOR_DIMS) {
        return RP_FAIL(RP_E_ARG, "%s: tensor %s has dtype %d and %d dims", path, name,
                       (int)tensor->dtype, tensor->n_dims);
    }
    int64_t n_bytes = (int64_t)rp_dtype_bytes(tensor->dtype);
    for (int i = 0; i < tensor->n_dims; i++) {
        if (tensor->dim[i] < 0 || __builtin_mul_overflow(n_bytes, tensor->dim[i], &n_bytes)) {
            return RP_FAIL(RP_E_ARG, "%s: dim %d of tensor %s is %" PRId64, path, i, name,
                           tensor->dim[i]);
        }
    }
    if (n_bytes > 0 && tensor->data == NULL) {
        return RP_FAIL(RP_E_ARG, "%s: tensor %s has no data", path, name);
    }
    *n_bytes_out = (size_t)n_bytes;
    return RP_OK;
}

static int compare_name(const void *a, const void *b)
{
    return strcmp(((const item *)a)->named->name, ((const item *)b)->named->name);
}

/* Widest element first: from an aligned start every tensor is then aligned. */
static int compare_width(const void *a, const void *b)
{
    const item *const x = a, *const y = b;
    const size_t x_bytes = rp_dtype_bytes(x->named->tensor.dtype);
    const size_t y_bytes = rp_dtype_bytes(y->named->tensor.dtype);

    return x_bytes != y_bytes ? (x_bytes < y_bytes) - (x_bytes > y_bytes)
                              : (x->order > y->order) - (x->order < y->order);
}

static rp_status sort_items(const char *path, const rp_named_tensor *tensors, size_t n, item *items)
{
    for (size_t i = 0; i < n; i++) {
        items[i] = (item){.named = &tensors[i], .order = i};
        RP_TRY(check_tensor(path, &tensors[i], &items[i].n_bytes));
    }
    if (n == 0) {
        return RP_OK; /* qsort takes no NULL */
    }
    qsort(items, n, sizeof(*items), compare_name);
    for (size_t i = 1; i < n; i++) {
        if (compare_name(&items[i - 1], &items[i]) == 0) {
            return RP_FAIL(RP_E_ARG, "%s: two tensors are named %s", path, items[i].named->name);
        }
    }
    qsort(items, n, sizeof(*items), compare_width);
    return RP_OK;
}

/* Numbers are written by printf: cJSON holds doubles. */
static bool add_shape(cJSON *info, const rp_tensor *tensor)
{
    char text[RP_TENSOR_DIMS * 24] = "";
    size_t n = 0;

    for (int i = 0; i < tensor->n_dims; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%" PRId64, i > 0 ? "," : "",
                              tensor->dim[i]);
    }
    char *const array = rp_mem_printf("[%s]", text);
    const bool ok = array != NULL && cJSON_AddRawToObject(info, "shape", array) != NULL;

    free(array);
    return ok;
}

static bool add_tensor(cJSON *header, const item *it, size_t begin)
{
    const rp_tensor *const tensor = &it->named->tensor;
    cJSON *const info = cJSON_AddObjectToObject(header, it->named->name);
    char offsets[64];

    (void)snprintf(offsets, sizeof(offsets), "[%zu,%zu]", begin, begin + it->n_bytes);
    return info != NULL &&
           cJSON_AddStringToObject(info, "dtype", rp_dtype_name(tensor->dtype)) != NULL &&
           add_shape(info, tensor) && cJSON_AddRawToObject(info, "data_offsets", offsets) != NULL;
}

static bool add_metadata(cJSON *header, const char *const *metadata)
{
    cJSON *const object = metadata != NULL ? cJSON_AddObjectToObject(header, "__metadata__") : NULL;

    if (metadata == NULL) {
        return true;
    }
    for (; object != NULL && metadata[0] != NULL; metadata += 2) {
        if (cJSON_AddStringToObject(object, metadata[0], metadata[1]) == NULL) {
            return false;
        }
    }
    return object != NULL;
}

/* The header as text; NULL when out of memory. Free with cJSON_free. */
static char *header_text(const item *items, size_t n, const char *const *metadata)
{
    cJSON *const header = cJSON_CreateObject();
    bool ok = header != NULL && add_metadata(header, metadata);
    size_t begin = 0;

    for (size_t i = 0; i < n && ok; i++) {
        ok = add_tensor(header, &items[i], begin);
        begin += items[i].n_bytes;
    }
    char *const text = ok ? cJSON_PrintUnformatted(header) : NULL;

    cJSON_Delete(header);
    return text;
}

/* Errors of the stream are found by commit. */
static void write_file(FILE *stream, const char *header, const item *items, size_t n)
{
    const size_t n_text = strlen(header);
    const size_t n_pad = (ALIGN_BYTES - n_text % ALIGN_BYTES) % ALIGN_BYTES;
    uint64_t n_header = n_text + n_pad;

    for (int i = 0; i < 8; i++) {
        (void)fputc((int)(n_header & 0xFF), stream);
        n_header >>= 8;
    }
    (void)fwrite(header, 1, n_text, stream);
    (void)fprintf(stream, "%*s", (int)n_pad, "");
    for (size_t i = 0; i < n; i++) {
        if (items[i].n_bytes > 0) {
            (void)fwrite(items[i].named->tensor.data, 1, items[i].n_bytes, stream);
        }
    }
}

rp_status rp_safetensors_write(const char *path, const rp_named_tensor *tensors, size_t n,
                               const char *const *metadata, int overwrite)
{
    rp_status st = RP_OK;
    void *items = NULL;
    char *header = NULL;
    rp_outfile *file = NULL;

    for (size_t i = 0; metadata != NULL && metadata[i] != NULL; i += 2) {
        if (metadata[i + 1] == NULL || rp_text_bad_utf8(metadata[i]) >= 0 ||
            rp_text_bad_utf8(metadata[i + 1]) >= 0) {
            return RP_FAIL(RP_E_ARG, "%s: metadata must be pairs of text in UTF-8", path);
        }
    }
    RP_TRY_OUT(rp_mem_new(n, sizeof(item), "a table of tensors", &items));
    RP_TRY_OUT(sort_items(path, tensors, n, items));
    header = header_text(items, n, metadata);
    if (header == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for the header of %s", path);
        goto out;
    }
    RP_TRY_OUT(rp_outfile_open(path, overwrite, &file));
    write_file(rp_outfile_stream(file), header, items, n);
    st = rp_outfile_commit(file);

out:
    cJSON_free(header);
    free(items);
    return st;
}
