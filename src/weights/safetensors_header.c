/* safetensors_header.c - the header of a safetensors file, read and checked whole. */
#include "weights/safetensors_parts.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES     8u
#define MAX_HEADER_BYTES 100000000u /* the reference implementation's limit */

/* Six or more values a tensor: room for 300 000 of them, at about 200 MB of memory. */
static const rp_json_limits header_limits = {.max_depth = 8, .max_values = 2u << 20};

static const rp_safetensors_row types[] = {
    {"F32", 32, RP_F32},
    {"F16", 16, RP_F16},
    {"BF16", 16, RP_BF16},
    {"I32", 32, RP_I32},
    {"U8", 8, RP_U8},
    {"BOOL", 8, RP_N_DTYPES},
    {"I8", 8, RP_N_DTYPES},
    {"I16", 16, RP_N_DTYPES},
    {"U16", 16, RP_N_DTYPES},
    {"U32", 32, RP_N_DTYPES},
    {"I64", 64, RP_N_DTYPES},
    {"U64", 64, RP_N_DTYPES},
    {"F64", 64, RP_N_DTYPES},
    {"C64", 64, RP_N_DTYPES},
    {"F8_E4M3", 8, RP_F8_E4M3},
    {"F8_E5M2", 8, RP_N_DTYPES},
    {"F8_E8M0", 8, RP_N_DTYPES},
    {"F8_E4M3FNUZ", 8, RP_N_DTYPES},
    {"F8_E5M2FNUZ", 8, RP_N_DTYPES},
    {"F6_E2M3", 6, RP_N_DTYPES},
    {"F6_E3M2", 6, RP_N_DTYPES},
    {"F4", 4, RP_N_DTYPES},
};

bool rp_safetensors_is_known(const rp_safetensors_entry *e)
{
    return e->tensor.dtype != RP_N_DTYPES;
}

/* ---------------------------------------------------------- one tensor */

static rp_status read_type(const rp_safetensors *file, rp_safetensors_entry *e, const cJSON *info)
{
    const cJSON *const dtype = cJSON_GetObjectItemCaseSensitive(info, "dtype");

    if (!cJSON_IsString(dtype)) {
        return RP_FAIL(RP_E_FORMAT, "%s: tensor %s has no dtype", file->name, e->name);
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, dtype->valuestring) == 0) {
            e->type = &types[i];
            return RP_OK;
        }
    }
    return RP_FAIL(RP_E_FORMAT, "%s: tensor %s has the unknown dtype %s", file->name, e->name,
                   dtype->valuestring);
}

/* Shape into the tensor, and its size in bytes. More than RP_TENSOR_DIMS dims are checked alike,
 * but leave an empty tensor that counts as unknown. */
static rp_status read_shape(const rp_safetensors *file, rp_safetensors_entry *e, const cJSON *info,
                            int64_t *n_bytes_out)
{
    const cJSON *const shape = cJSON_GetObjectItemCaseSensitive(info, "shape");
    const bool fits = cJSON_GetArraySize(shape) <= RP_TENSOR_DIMS;
    int64_t n_bits = e->type->n_bits;

    e->tensor = (rp_tensor){.dtype = fits ? e->type->dtype : RP_N_DTYPES, .dim = {1, 1, 1, 1}};
    if (!cJSON_IsArray(shape)) {
        return RP_FAIL(RP_E_FORMAT, "%s: tensor %s has no shape", file->name, e->name);
    }
    for (const cJSON *item = shape->child; item != NULL; item = item->next) {
        int64_t dim = 0;
        if (!rp_json_int(item, 0, RP_JSON_MAX_INT, &dim)) {
            return RP_FAIL(RP_E_FORMAT, "%s: the shape of tensor %s is not of whole numbers",
                           file->name, e->name);
        }
        if (__builtin_mul_overflow(n_bits, dim, &n_bits)) {
            return RP_FAIL(RP_E_FORMAT, "%s: the shape of tensor %s is too large", file->name,
                           e->name);
        }
        if (fits) {
            e->tensor.dim[e->tensor.n_dims++] = dim;
        }
    }
    if (n_bits % 8 != 0) {
        return RP_FAIL(RP_E_FORMAT, "%s: tensor %s does not fill whole bytes", file->name, e->name);
    }
    *n_bytes_out = n_bits / 8;
    return RP_OK;
}

static rp_status read_offsets(const rp_safetensors *file, rp_safetensors_entry *e,
                              const cJSON *info, int64_t n_bytes)
{
    const cJSON *const offsets = cJSON_GetObjectItemCaseSensitive(info, "data_offsets");

    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !rp_json_int(offsets->child, 0, RP_JSON_MAX_INT, &e->begin) ||
        !rp_json_int(offsets->child->next, 0, RP_JSON_MAX_INT, &e->end)) {
        return RP_FAIL(RP_E_FORMAT, "%s: data_offsets of tensor %s are not two whole numbers",
                       file->name, e->name);
    }
    if (e->begin > e->end || e->end > file->data_bytes) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: tensor %s is at bytes %" PRId64 " to %" PRId64 ", the file has %" PRId64
                       " of data%s",
                       file->name, e->name, e->begin, e->end, file->data_bytes,
                       e->begin > e->end ? "" : " (cut short?)");
    }
    if (e->end - e->begin != n_bytes) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: tensor %s has %" PRId64 " bytes, its shape and dtype need %" PRId64,
                       file->name, e->name, e->end - e->begin, n_bytes);
    }
    return RP_OK;
}

/* Point the tensor at its data. The format does not align data, so a tensor that lies askew (a
 * header of odd length, an odd neighbour) is copied to where every kernel may read it. */
static rp_status place_data(const rp_safetensors *file, rp_safetensors_entry *e)
{
    const uint8_t *const at = file->data + e->begin;
    const size_t n_bytes = (size_t)(e->end - e->begin);

    if (!rp_safetensors_is_known(e)) {
        return RP_OK;
    }
    e->tensor.data = at;
    if (n_bytes > 0 && (uintptr_t)at % rp_dtype_bytes(e->tensor.dtype) != 0) {
        RP_TRY(rp_mem_new(n_bytes, 1, e->name, &e->copy));
        memcpy(e->copy, at, n_bytes);
        e->tensor.data = e->copy;
    }
    return RP_OK;
}

static rp_status read_entry(const rp_safetensors *file, rp_safetensors_entry *e, const cJSON *info)
{
    int64_t n_bytes = 0;

    e->name = info->string;
    if (!cJSON_IsObject(info)) {
        return RP_FAIL(RP_E_FORMAT, "%s: tensor %s is not described by an object", file->name,
                       e->name);
    }
    RP_TRY(read_type(file, e, info));
    RP_TRY(read_shape(file, e, info, &n_bytes));
    RP_TRY(read_offsets(file, e, info, n_bytes));
    return place_data(file, e);
}

/* ------------------------------------------------------------ the header */

static int compare_begin(const void *a, const void *b)
{
    const int64_t x = (*(rp_safetensors_entry *const *)a)->begin;
    const int64_t y = (*(rp_safetensors_entry *const *)b)->begin;

    return (x > y) - (x < y);
}

int rp_safetensors_compare_name(const void *a, const void *b)
{
    return strcmp((*(rp_safetensors_entry *const *)a)->name,
                  (*(rp_safetensors_entry *const *)b)->name);
}

/* Uses by_name for an order by offset; sort it by name afterwards. */
static rp_status check_overlap(const rp_safetensors *file)
{
    const rp_safetensors_entry *last = NULL;

    qsort(file->by_name, file->n_entries, sizeof(*file->by_name), compare_begin);
    for (size_t i = 0; i < file->n_entries; i++) {
        const rp_safetensors_entry *const e = file->by_name[i];
        if (e->begin == e->end) {
            continue; /* nothing in it, so it overlaps nothing */
        }
        if (last != NULL && e->begin < last->end) {
            return RP_FAIL(RP_E_FORMAT, "%s: the data of tensors %s and %s overlaps", file->name,
                           last->name, e->name);
        }
        last = e;
    }
    return RP_OK;
}

static rp_status check_metadata(const rp_safetensors *file, const cJSON *metadata)
{
    if (!cJSON_IsObject(metadata)) {
        return RP_FAIL(RP_E_FORMAT, "%s: __metadata__ is not an object", file->name);
    }
    for (const cJSON *item = metadata->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item)) {
            return RP_FAIL(RP_E_FORMAT, "%s: __metadata__ has %s, which is not a string",
                           file->name, item->string);
        }
    }
    return RP_OK;
}

static rp_status read_entries(rp_safetensors *file)
{
    const size_t n_keys = (size_t)cJSON_GetArraySize(file->header);
    void *entries = NULL, *by_name = NULL;

    RP_TRY(rp_mem_new(n_keys, sizeof(rp_safetensors_entry), "a table of tensors", &entries));
    file->entries = entries;
    RP_TRY(rp_mem_new(n_keys, sizeof(rp_safetensors_entry *), "a table of tensors", &by_name));
    file->by_name = by_name;
    for (const cJSON *item = file->header->child; item != NULL; item = item->next) {
        if (strcmp(item->string, RP_SAFETENSORS_METADATA) == 0) {
            RP_TRY(check_metadata(file, item));
            continue;
        }
        rp_safetensors_entry *const e = &file->entries[file->n_entries];

        file->by_name[file->n_entries++] = e; /* counted first: close frees its copy */
        RP_TRY(read_entry(file, e, item));
    }
    if (file->n_entries == 0) {
        return RP_OK; /* qsort takes no NULL */
    }
    RP_TRY(check_overlap(file));
    qsort(file->by_name, file->n_entries, sizeof(*file->by_name), rp_safetensors_compare_name);
    return RP_OK;
}

static uint64_t read_u64_le(const uint8_t *bytes)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

rp_status rp_safetensors_read_header(rp_safetensors *file)
{
    static const char lfs[] = "version https://git-lfs";

    if (file->n_bytes >= sizeof(lfs) - 1 && memcmp(file->bytes, lfs, sizeof(lfs) - 1) == 0) {
        return RP_FAIL(RP_E_FORMAT, "%s is a pointer of git-lfs, not the file itself: git lfs pull",
                       file->name);
    }
    if (file->n_bytes < PREFIX_BYTES) {
        return RP_FAIL(RP_E_FORMAT, "%s has %zu bytes: no safetensors file, or cut short",
                       file->name, file->n_bytes);
    }
    const uint64_t n_header = read_u64_le(file->bytes);
    if (n_header < 2 || n_header > MAX_HEADER_BYTES) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: header of %" PRIu64 " bytes (2 to %u): not a safetensors file",
                       file->name, n_header, MAX_HEADER_BYTES);
    }
    if (n_header > file->n_bytes - PREFIX_BYTES) {
        return RP_FAIL(RP_E_FORMAT, "%s: header of %" PRIu64 " bytes in a file of %zu: cut short?",
                       file->name, n_header, file->n_bytes);
    }
    file->data = file->bytes + PREFIX_BYTES + n_header;
    file->data_bytes = (int64_t)(file->n_bytes - PREFIX_BYTES - (size_t)n_header);
    RP_TRY(rp_json_parse(file->name, (const char *)file->bytes + PREFIX_BYTES, (size_t)n_header,
                         &header_limits, &file->header));
    if (!cJSON_IsObject(file->header)) {
        return RP_FAIL(RP_E_FORMAT, "%s: the header is not a JSON object", file->name);
    }
    return read_entries(file);
}
