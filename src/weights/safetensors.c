/* safetensors.c - map a file, check all of its header, find tensors by name. */
#include "weights/safetensors.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#define PREFIX_BYTES     8u
#define MAX_HEADER_BYTES 100000000u /* the reference implementation's limit */
#define SAMPLE_BYTES     4096u      /* of each tensor, for the fingerprint */
#define METADATA_KEY     "__metadata__"

/* Six or more values a tensor: room for 300 000 of them, at about 200 MB of memory. */
static const rp_json_limits header_limits = {.max_depth = 8, .max_values = 2u << 20};

typedef struct {
    const char *name;
    int n_bits;
    rp_dtype dtype; /* RP_N_DTYPES: rankpool has no use for it */
} type_row;

static const type_row types[] = {
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

typedef struct {
    const char *name; /* the header tree's */
    const type_row *type;
    rp_tensor tensor;
    int64_t begin, end; /* bytes, counted from the data's start */
    void *copy;         /* aligned copy, or NULL */
} entry;

struct rp_safetensors {
    char *name; /* for messages */
    void *map;  /* NULL over borrowed bytes */
    const uint8_t *bytes;
    size_t n_bytes;
    const uint8_t *data;
    int64_t data_bytes;
    cJSON *header;
    entry *entries; /* in file order */
    entry **by_name;
    size_t n_entries;
};

static bool is_known(const entry *e)
{
    return e->tensor.dtype != RP_N_DTYPES;
}

/* ---------------------------------------------------------- one tensor */

static rp_status read_type(const rp_safetensors *file, entry *e, const cJSON *info)
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
static rp_status read_shape(const rp_safetensors *file, entry *e, const cJSON *info,
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

static rp_status read_offsets(const rp_safetensors *file, entry *e, const cJSON *info,
                              int64_t n_bytes)
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
static rp_status place_data(const rp_safetensors *file, entry *e)
{
    const uint8_t *const at = file->data + e->begin;
    const size_t n_bytes = (size_t)(e->end - e->begin);

    if (!is_known(e)) {
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

static rp_status read_entry(const rp_safetensors *file, entry *e, const cJSON *info)
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
    const int64_t x = (*(entry *const *)a)->begin, y = (*(entry *const *)b)->begin;

    return (x > y) - (x < y);
}

static int compare_name(const void *a, const void *b)
{
    return strcmp((*(entry *const *)a)->name, (*(entry *const *)b)->name);
}

/* Uses by_name for an order by offset; sort it by name afterwards. */
static rp_status check_overlap(const rp_safetensors *file)
{
    const entry *last = NULL;

    qsort(file->by_name, file->n_entries, sizeof(*file->by_name), compare_begin);
    for (size_t i = 0; i < file->n_entries; i++) {
        const entry *const e = file->by_name[i];
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

    RP_TRY(rp_mem_new(n_keys, sizeof(entry), "a table of tensors", &entries));
    file->entries = entries;
    RP_TRY(rp_mem_new(n_keys, sizeof(entry *), "a table of tensors", &by_name));
    file->by_name = by_name;
    for (const cJSON *item = file->header->child; item != NULL; item = item->next) {
        if (strcmp(item->string, METADATA_KEY) == 0) {
            RP_TRY(check_metadata(file, item));
            continue;
        }
        entry *const e = &file->entries[file->n_entries];

        file->by_name[file->n_entries++] = e; /* counted first: close frees its copy */
        RP_TRY(read_entry(file, e, item));
    }
    if (file->n_entries == 0) {
        return RP_OK; /* qsort takes no NULL */
    }
    RP_TRY(check_overlap(file));
    qsort(file->by_name, file->n_entries, sizeof(*file->by_name), compare_name);
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

static rp_status read_header(rp_safetensors *file)
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

/* ---------------------------------------------------------- open, close */

static rp_status map_file(rp_safetensors *file)
{
    rp_status st = RP_OK;
    struct stat about = {0};
    /* O_NONBLOCK: opening a pipe must not wait for its writer. */
    const int fd = open(file->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &about) != 0) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: %s", file->name, strerror(errno));
        goto out;
    }
    if (!S_ISREG(about.st_mode)) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: it is not a regular file", file->name);
        goto out;
    }
    if (about.st_size == 0) {
        goto out; /* no bytes to map; read_header says so */
    }
    void *const map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        st = RP_FAIL(RP_E_IO, "cannot map %s: %s", file->name, strerror(errno));
        goto out;
    }
    file->map = map;
    file->bytes = map;
    file->n_bytes = (size_t)about.st_size;
    (void)madvise(map, file->n_bytes, MADV_WILLNEED);

out:
    if (fd >= 0) {
        (void)close(fd);
    }
    return st;
}

/* Over borrowed bytes, or over the file of that name when bytes is NULL. */
static rp_status open_either(const char *name, const void *bytes, size_t n_bytes,
                             rp_safetensors **out)
{
    rp_status st = RP_OK;
    rp_safetensors *file = calloc(1, sizeof(*file));

    if (file == NULL || (file->name = strdup(name)) == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for opening %s", name);
        goto out;
    }
    if (bytes != NULL) {
        file->bytes = bytes;
        file->n_bytes = n_bytes;
    } else {
        RP_TRY_OUT(map_file(file));
    }
    RP_TRY_OUT(read_header(file));
    *out = file;
    file = NULL;

out:
    rp_safetensors_close(file);
    return st;
}

rp_status rp_safetensors_open(const char *path, rp_safetensors **out)
{
    return open_either(path, NULL, 0, out);
}

rp_status rp_safetensors_open_bytes(const char *name, const void *bytes, size_t n_bytes,
                                    rp_safetensors **out)
{
    return open_either(name, bytes != NULL ? bytes : "", n_bytes, out);
}

void rp_safetensors_close(rp_safetensors *file)
{
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < file->n_entries; i++) {
        free(file->entries[i].copy);
    }
    if (file->map != NULL && munmap(file->map, file->n_bytes) != 0) {
        RP_WARN("cannot unmap %s: %s", file->name, strerror(errno));
    }
    free(file->entries);
    free(file->by_name);
    cJSON_Delete(file->header);
    free(file->name);
    free(file);
}

/* -------------------------------------------------------------- look-up */

size_t rp_safetensors_count(const rp_safetensors *file)
{
    return file->n_entries;
}

const char *rp_safetensors_at(const rp_safetensors *file, size_t i, rp_tensor *tensor_out,
                              int *known)
{
    const entry *const e = &file->entries[i];

    *tensor_out = e->tensor;
    *known = is_known(e);
    return e->name;
}

const char *rp_safetensors_type(const rp_safetensors *file, size_t i)
{
    return file->entries[i].type->name;
}

rp_status rp_safetensors_find(const rp_safetensors *file, const char *name, rp_tensor *out)
{
    entry key = {.name = name};
    entry *const p = &key;
    entry *const *const e = file->n_entries == 0 ? NULL
                                                 : bsearch(&p, file->by_name, file->n_entries,
                                                           sizeof(*file->by_name), compare_name);

    if (e == NULL || !is_known(*e)) {
        return RP_E_ABSENT;
    }
    *out = (*e)->tensor;
    return RP_OK;
}

const char *rp_safetensors_metadata(const rp_safetensors *file, const char *key)
{
    const cJSON *const metadata = cJSON_GetObjectItemCaseSensitive(file->header, METADATA_KEY);

    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, key));
}

uint64_t rp_safetensors_bytes(const rp_safetensors *file)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < file->n_entries; i++) {
        sum += (uint64_t)(file->entries[i].end - file->entries[i].begin);
    }
    return sum;
}

/* A chain: every hash is the seed of the next. */
uint64_t rp_safetensors_fingerprint(const rp_safetensors *file)
{
    const size_t n_header = file->n_bytes - (size_t)file->data_bytes;
    uint64_t hash = XXH3_64bits_withSeed(file->bytes, n_header, file->n_bytes);

    for (size_t i = 0; i < file->n_entries; i++) {
        const entry *const e = &file->entries[i];
        const size_t n_bytes = (size_t)(e->end - e->begin);
        hash = XXH3_64bits_withSeed(file->data + e->begin,
                                    n_bytes < SAMPLE_BYTES ? n_bytes : SAMPLE_BYTES, hash);
    }
    return hash;
}
