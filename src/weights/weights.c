/* weights.c - the files of one network, opened and compared with their index. */
#include "weights/weights_parts.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#define MAX_INDEX_BYTES ((size_t)64 << 20)

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const rp_weights_entry *)a)->name, ((const rp_weights_entry *)b)->name);
}

/* For sorting: a tensor that two shards have comes in the order of the shards. */
static int compare_entries_and_files(const void *a, const void *b)
{
    const size_t x = ((const rp_weights_entry *)a)->file, y = ((const rp_weights_entry *)b)->file;
    const int order = compare_entries(a, b);

    return order != 0 ? order : (x > y) - (x < y);
}

rp_weights_entry *rp_weights_find(const rp_weights *weights, const char *name)
{
    const rp_weights_entry key = {.name = name};

    return weights->n_entries == 0 ? NULL
                                   : bsearch(&key, weights->entries, weights->n_entries,
                                             sizeof(*weights->entries), compare_entries);
}

/* ------------------------------------------------------------------ open */

/* Open `dir`/`file_names[i]` for all i. */
static rp_status open_files(rp_weights *weights)
{
    void *files = NULL;

    RP_TRY(rp_mem_new(weights->n_files, sizeof(*weights->files), "a table of files", &files));
    weights->files = files;
    for (size_t i = 0; i < weights->n_files; i++) {
        char *const path = rp_mem_printf("%s/%s", weights->dir, weights->file_names[i]);
        const rp_status st = path != NULL
                                 ? rp_safetensors_open(path, &weights->files[i])
                                 : RP_FAIL(RP_E_NOMEM, "no memory for opening %s", weights->dir);
        free(path);
        RP_TRY(st);
    }
    return RP_OK;
}

static rp_status collect_entries(rp_weights *weights)
{
    size_t n = 0;
    void *entries = NULL;

    for (size_t f = 0; f < weights->n_files; f++) {
        n += rp_safetensors_count(weights->files[f]);
    }
    RP_TRY(rp_mem_new(n, sizeof(rp_weights_entry), "a table of tensors", &entries));
    weights->entries = entries;
    for (size_t f = 0; f < weights->n_files; f++) {
        for (size_t i = 0; i < rp_safetensors_count(weights->files[f]); i++) {
            rp_weights_entry *const e = &weights->entries[weights->n_entries++];
            int known = 0;
            e->name = rp_safetensors_at(weights->files[f], i, &e->tensor, &known);
            e->type = rp_safetensors_type(weights->files[f], i);
            e->known = known != 0;
            e->file = f;
        }
    }
    if (weights->n_entries > 0) {
        qsort(weights->entries, weights->n_entries, sizeof(rp_weights_entry),
              compare_entries_and_files);
    }
    return RP_OK;
}

/* ---------------------------------------------------------------- shards */

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* The shards that weight_map names, each once. */
static rp_status collect_shards(rp_weights *weights, const char *index, const cJSON *map)
{
    const size_t n = (size_t)cJSON_GetArraySize(map);
    size_t n_all = 0, n_unique = 0;
    void *names = NULL;

    RP_TRY(rp_mem_new(n + 1, sizeof(char *), "a table of files", &names));
    weights->file_names = names;
    for (const cJSON *item = map->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item) || !is_plain_name(item->valuestring)) {
            return RP_FAIL(RP_E_FORMAT, "%s: tensor %s is not mapped to a file name without folder",
                           index, item->string);
        }
        weights->file_names[n_all++] = item->valuestring;
    }
    qsort(weights->file_names, n_all, sizeof(char *), compare_text);
    for (size_t i = 0; i < n_all; i++) {
        if (i == 0 || strcmp(weights->file_names[i], weights->file_names[n_unique - 1]) != 0) {
            weights->file_names[n_unique++] = weights->file_names[i];
        }
    }
    /* From here on owned, as n_files counts them. */
    for (size_t i = 0; i < n_unique; i++) {
        weights->file_names[i] = strdup(weights->file_names[i]);
        if (weights->file_names[i] == NULL) {
            return RP_FAIL(RP_E_NOMEM, "no memory for reading %s", index);
        }
        weights->n_files++;
    }
    return RP_OK;
}

static int compare_items(const void *a, const void *b)
{
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

static rp_status refuse_row(const char *index, const cJSON *row)
{
    return RP_FAIL(RP_E_FORMAT, "%s: tensor %s should be in %s, which does not have it", index,
                   row->string, row->valuestring);
}

/* Shards and index must say the same: walk the tensors found and `rows`, which is weight_map, side
 * by side; both are sorted by tensor. */
static rp_status compare_with_index(const rp_weights *weights, const char *index,
                                    const cJSON *const *rows, size_t n_rows)
{
    size_t r = 0;

    for (size_t i = 0; i < weights->n_entries; i++) {
        const rp_weights_entry *const e = &weights->entries[i];
        const char *const shard = weights->file_names[e->file];
        const int order = r < n_rows ? strcmp(rows[r]->string, e->name) : 1;

        if (i > 0 && strcmp(e[-1].name, e->name) == 0) {
            return RP_FAIL(RP_E_FORMAT, "%s: tensor %s is in %s and in %s", index, e->name,
                           weights->file_names[e[-1].file], shard);
        }
        if (order < 0) {
            return refuse_row(index, rows[r]);
        }
        if (order > 0) {
            return RP_FAIL(RP_E_FORMAT, "%s does not list tensor %s, which is in %s", index,
                           e->name, shard);
        }
        if (strcmp(rows[r]->valuestring, shard) != 0) {
            return RP_FAIL(RP_E_FORMAT, "%s: tensor %s should be in %s, but is in %s", index,
                           e->name, rows[r]->valuestring, shard);
        }
        r++;
    }
    return r < n_rows ? refuse_row(index, rows[r]) : RP_OK;
}

static rp_status check_index(const rp_weights *weights, const char *index, const cJSON *map)
{
    const size_t n_rows = (size_t)cJSON_GetArraySize(map);
    void *rows_mem = NULL;
    size_t n = 0;

    RP_TRY(rp_mem_new(n_rows, sizeof(cJSON *), "an index of tensors", &rows_mem));
    const cJSON **const rows = rows_mem;
    for (const cJSON *item = map->child; item != NULL; item = item->next) {
        rows[n++] = item;
    }
    if (n > 0) {
        qsort(rows, n, sizeof(*rows), compare_items);
    }
    const rp_status st = compare_with_index(weights, index, rows, n);

    free(rows_mem);
    return st;
}

static rp_status open_shards(rp_weights *weights, const char *index)
{
    rp_status st = RP_OK;
    char *text = NULL;
    cJSON *root = NULL;
    size_t n_bytes = 0;

    RP_TRY_OUT(rp_json_read(index, MAX_INDEX_BYTES, &text, &n_bytes));
    RP_TRY_OUT(rp_json_parse(index, text, n_bytes, &rp_json_default, &root));
    const cJSON *const map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    if (!cJSON_IsObject(root) || !cJSON_IsObject(map)) {
        st = RP_FAIL(RP_E_FORMAT, "%s has no object \"weight_map\"", index);
        goto out;
    }
    RP_TRY_OUT(collect_shards(weights, index, map));
    RP_TRY_OUT(open_files(weights));
    RP_TRY_OUT(collect_entries(weights));
    st = check_index(weights, index, map);

out:
    cJSON_Delete(root);
    free(text);
    return st;
}

static rp_status open_single(rp_weights *weights, const char *file_name)
{
    void *names = NULL;

    RP_TRY(rp_mem_new(1, sizeof(char *), "a table of files", &names));
    weights->file_names = names;
    weights->file_names[0] = strdup(file_name);
    if (weights->file_names[0] == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for opening %s", weights->dir);
    }
    weights->n_files = 1;
    RP_TRY(open_files(weights));
    return collect_entries(weights);
}

/* The whole file goes before the index where both are there. */
static rp_status open_stems(rp_weights *weights)
{
    static const char *const stems[] = {"diffusion_pytorch_model", "model"};

    for (size_t i = 0; i < sizeof(stems) / sizeof(stems[0]); i++) {
        for (int sharded = 0; sharded <= 1; sharded++) {
            char *const path = rp_mem_printf("%s/%s.safetensors%s", weights->dir, stems[i],
                                             sharded ? ".index.json" : "");
            if (path == NULL) {
                return RP_FAIL(RP_E_NOMEM, "no memory for opening %s", weights->dir);
            }
            if (access(path, F_OK) == 0) {
                const rp_status st = sharded ? open_shards(weights, path)
                                             : open_single(weights, strrchr(path, '/') + 1);
                free(path);
                return st;
            }
            free(path);
        }
    }
    return access(weights->dir, F_OK) != 0
               ? RP_FAIL(RP_E_IO, "folder %s does not exist or cannot be read", weights->dir)
               : RP_FAIL(RP_E_IO,
                         "no weights in %s: looked for diffusion_pytorch_model.safetensors and "
                         "model.safetensors, each also with .index.json",
                         weights->dir);
}

rp_status rp_weights_open(const char *dir, rp_weights **out)
{
    rp_status st = RP_OK;
    rp_weights *weights = calloc(1, sizeof(*weights));

    if (weights == NULL || (weights->dir = strdup(dir)) == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for opening %s", dir);
        goto out;
    }
    RP_TRY_OUT(open_stems(weights));
    *out = weights;
    weights = NULL;

out:
    rp_weights_close(weights);
    return st;
}

void rp_weights_close(rp_weights *weights)
{
    if (weights == NULL) {
        return;
    }
    for (size_t i = 0; i < weights->n_files; i++) {
        if (weights->files != NULL) {
            rp_safetensors_close(weights->files[i]);
        }
        free(weights->file_names[i]);
    }
    for (size_t i = 0; i < weights->n_ignored; i++) {
        free(weights->ignored[i]);
    }
    for (size_t i = 0; i < weights->n_entries; i++) {
        free(weights->entries[i].scale);
    }
    free(weights->files);
    free(weights->file_names);
    free(weights->entries);
    free(weights->dir);
    free(weights);
}

uint64_t rp_weights_fingerprint(const rp_weights *weights)
{
    uint64_t hash = weights->n_files;

    for (size_t i = 0; i < weights->n_files; i++) {
        const uint64_t part = rp_safetensors_fingerprint(weights->files[i]);
        hash = XXH3_64bits_withSeed(&part, sizeof(part), hash);
    }
    return hash;
}

uint64_t rp_weights_bytes(const rp_weights *weights)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < weights->n_files; i++) {
        sum += rp_safetensors_bytes(weights->files[i]);
    }
    return sum;
}
