/* safetensors.c - map a file, find tensors by name. */
#include "weights/safetensors_parts.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#define SAMPLE_BYTES 4096u /* of each tensor, for the fingerprint */

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
        goto out; /* no bytes to map; rp_safetensors_read_header says so */
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
    RP_TRY_OUT(rp_safetensors_read_header(file));
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
    const rp_safetensors_entry *const e = &file->entries[i];

    *tensor_out = e->tensor;
    *known = rp_safetensors_is_known(e);
    return e->name;
}

const char *rp_safetensors_type(const rp_safetensors *file, size_t i)
{
    return file->entries[i].type->name;
}

rp_status rp_safetensors_find(const rp_safetensors *file, const char *name, rp_tensor *out)
{
    rp_safetensors_entry key = {.name = name};
    rp_safetensors_entry *const p = &key;
    rp_safetensors_entry *const *const e =
        file->n_entries == 0 ? NULL
                             : bsearch(&p, file->by_name, file->n_entries, sizeof(*file->by_name),
                                       rp_safetensors_compare_name);

    if (e == NULL || !rp_safetensors_is_known(*e)) {
        return RP_E_ABSENT;
    }
    *out = (*e)->tensor;
    return RP_OK;
}

const char *rp_safetensors_metadata(const rp_safetensors *file, const char *key)
{
    const cJSON *const metadata =
        cJSON_GetObjectItemCaseSensitive(file->header, RP_SAFETENSORS_METADATA);

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
        const rp_safetensors_entry *const e = &file->entries[i];
        const size_t n_bytes = (size_t)(e->end - e->begin);
        hash = XXH3_64bits_withSeed(file->data + e->begin,
                                    n_bytes < SAMPLE_BYTES ? n_bytes : SAMPLE_BYTES, hash);
    }
    return hash;
}
