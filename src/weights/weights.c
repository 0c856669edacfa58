/* weights.c - the tensors of one network, bound one after the other, complained about once. */
#include "weights/weights.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "tensor/float_bits.h"
#include "weights/json.h"
#include "weights/safetensors.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#define MAX_INDEX_BYTES  ((size_t)64 << 20)
#define MAX_NAME_BYTES   512
#define MAX_IGNORED      16
#define N_NAMES          4 /* of each kind in the one error line */
#define NOTE_NAMES_BYTES 320

typedef struct {
    const char *name; /* its file's */
    const char *type;
    rp_tensor tensor;
    float *scale; /* of a bound tensor in F8_E4M3, or NULL */
    size_t file;
    bool known, used;
} entry;

/* One kind of trouble: how often, and the first names. */
typedef struct {
    int n;
    char names[NOTE_NAMES_BYTES];
} note;

struct rp_weights {
    char *dir;
    rp_safetensors **files;
    char **file_names; /* without the folder */
    size_t n_files;
    entry *entries; /* sorted by name */
    size_t n_entries;
    char *ignored[MAX_IGNORED];
    size_t n_ignored;
    note missing, misshapen, mistyped;
};

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* For sorting: a tensor that two shards have comes in the order of the shards. */
static int compare_entries_and_files(const void *a, const void *b)
{
    const size_t x = ((const entry *)a)->file, y = ((const entry *)b)->file;
    const int order = compare_entries(a, b);

    return order != 0 ? order : (x > y) - (x < y);
}

static entry *find(const rp_weights *weights, const char *name)
{
    const entry key = {.name = name};

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
    RP_TRY(rp_mem_new(n, sizeof(entry), "a table of tensors", &entries));
    weights->entries = entries;
    for (size_t f = 0; f < weights->n_files; f++) {
        for (size_t i = 0; i < rp_safetensors_count(weights->files[f]); i++) {
            entry *const e = &weights->entries[weights->n_entries++];
            int known = 0;
            e->name = rp_safetensors_at(weights->files[f], i, &e->tensor, &known);
            e->type = rp_safetensors_type(weights->files[f], i);
            e->known = known != 0;
            e->file = f;
        }
    }
    if (weights->n_entries > 0) {
        qsort(weights->entries, weights->n_entries, sizeof(entry), compare_entries_and_files);
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
        const entry *const e = &weights->entries[i];
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

/* ------------------------------------------------------------------ bind */

static void note_add(note *kind, const char *format, ...) RP_PRINTF(2, 3);

/* One more; the first N_NAMES are kept by name, as far as they fit. */
static void note_add(note *kind, const char *format, ...)
{
    const size_t n_used = strlen(kind->names);
    size_t n = n_used;
    va_list args;

    if (kind->n++ >= N_NAMES) {
        return;
    }
    if (n > 0) {
        n += (size_t)snprintf(kind->names + n, sizeof(kind->names) - n, ", ");
    }
    va_start(args, format);
    if (n >= sizeof(kind->names) || vsnprintf(kind->names + n, sizeof(kind->names) - n, format,
                                              args) >= (int)(sizeof(kind->names) - n)) {
        (void)strcpy(kind->names + sizeof(kind->names) - 4, "..."); /* cut, and shown as cut */
    }
    va_end(args);
}

/* "[8, 4]" */
static const char *print_shape(char *text, size_t n_bytes, int n_dims, const int64_t *dims)
{
    size_t n = (size_t)snprintf(text, n_bytes, "[");

    for (int i = 0; i < n_dims && n < n_bytes; i++) {
        n += (size_t)snprintf(text + n, n_bytes - n, "%s%" PRId64, i > 0 ? ", " : "", dims[i]);
    }
    if (n < n_bytes) {
        (void)snprintf(text + n, n_bytes - n, "]");
    }
    return text;
}

/* Notes what is wrong with e as a tensor of these dims; true when nothing is. */
static bool check_entry(rp_weights *weights, const entry *e, int n_dims, const int64_t *dims)
{
    char is[120], should_be[120];

    (void)print_shape(should_be, sizeof(should_be), n_dims, dims);
    if (e->known && rp_dtype_is_float(e->tensor.dtype)) {
        if (e->tensor.n_dims == n_dims &&
            (n_dims == 0 || memcmp(e->tensor.dim, dims, (size_t)n_dims * sizeof(*dims)) == 0)) {
            return true;
        }
        note_add(&weights->misshapen, "%s is %s, should be %s", e->name,
                 print_shape(is, sizeof(is), e->tensor.n_dims, e->tensor.dim), should_be);
    } else if (strcmp(e->type, "F32") == 0 || strcmp(e->type, "F16") == 0 ||
               strcmp(e->type, "BF16") == 0 || strcmp(e->type, "F8_E4M3") == 0) {
        note_add(&weights->misshapen, "%s has more than %d dims, should be %s", e->name,
                 RP_TENSOR_DIMS, should_be);
    } else {
        note_add(&weights->mistyped, "%s is %s, should be F32, F16, BF16 or F8_E4M3", e->name,
                 e->type);
    }
    return false;
}

/* Has the tensor "<stem><ending>"; it then belongs to the one that is being bound. */
static entry *take_companion(rp_weights *weights, const char *stem, int n_stem, const char *ending)
{
    char name[MAX_NAME_BYTES];
    const int n = snprintf(name, sizeof(name), "%.*s%s", n_stem, stem, ending);
    entry *const e = n >= 0 && n < (int)sizeof(name) ? find(weights, name) : NULL;

    if (e != NULL) {
        e->used = true;
    }
    return e;
}

/* One number, or one for each of the rows: [rows] or [rows, 1]. */
static bool check_scale(rp_weights *weights, const entry *e, const entry *of)
{
    const int64_t rows = of->tensor.n_dims > 0 ? of->tensor.dim[0] : 1;
    const int64_t n = e->known ? rp_tensor_elems(&e->tensor) : 0;
    char is[120];

    if (!e->known || !rp_dtype_is_float(e->tensor.dtype) || e->tensor.dtype == RP_F8_E4M3) {
        note_add(&weights->mistyped, "%s is %s, should be F32, F16 or BF16", e->name, e->type);
        return false;
    }
    if (n == 1 || (n == rows && e->tensor.dim[0] == rows)) {
        return true;
    }
    note_add(&weights->misshapen, "%s is %s, should be [] or [%" PRId64 "]", e->name,
             print_shape(is, sizeof(is), e->tensor.n_dims, e->tensor.dim), rows);
    return false;
}

/* The scales as f32, kept by the entry that they belong to. */
static void read_scale(rp_weights *weights, entry *e, const entry *scale)
{
    const int64_t n = rp_tensor_elems(&scale->tensor);
    const void *const data = scale->tensor.data;

    if (e->scale == NULL) { /* bound before: the same again */
        e->scale = calloc((size_t)n, sizeof(*e->scale));
    }
    if (e->scale == NULL) {
        note_add(&weights->misshapen, "%s finds no memory", scale->name);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        e->scale[i] = scale->tensor.dtype == RP_F32 ? ((const float *)data)[i]
                      : scale->tensor.dtype == RP_F16
                          ? rp_float_of_f16(((const uint16_t *)data)[i])
                          : rp_float_of_bf16(((const uint16_t *)data)[i]);
    }
    e->tensor.scale = e->scale;
    e->tensor.n_scales = n;
}

/*
 * What lies beside "X.weight" in F8_E4M3: its scale, under one of two names, and what is of no use
 * here (a scale for activations, which get theirs as they come; marks of the program that wrote
 * it).
 */
static void bind_companions(rp_weights *weights, entry *e)
{
    static const char *const of_weight[] = {"scale_weight", "weight_scale"};
    static const char *const of_no_use[] = {"scale_input", "input_scale", "comfy_quant"};
    const int n_stem = (int)strlen(e->name) - (int)strlen("weight");
    const entry *scale = NULL;

    (void)take_companion(weights, "", 0, "scaled_fp8");
    if (n_stem < 0 || strcmp(e->name + n_stem, "weight") != 0) {
        return;
    }
    for (int i = 0; i < 2 && scale == NULL; i++) {
        scale = take_companion(weights, e->name, n_stem, of_weight[i]);
    }
    for (int i = 0; i < 3; i++) {
        (void)take_companion(weights, e->name, n_stem, of_no_use[i]);
    }
    if (scale != NULL && check_scale(weights, scale, e)) {
        read_scale(weights, e, scale);
    }
}

void rp_weights_bind(rp_weights *weights, rp_tensor *out, int n_dims, const int64_t *dims,
                     const char *format, ...)
{
    char name[MAX_NAME_BYTES];
    va_list args;

    va_start(args, format);
    const int n = vsnprintf(name, sizeof(name), format, args);
    va_end(args);

    entry *const e = n >= 0 && n < (int)sizeof(name) ? find(weights, name) : NULL;
    *out = (rp_tensor){.dim = {1, 1, 1, 1}};
    if (e == NULL) {
        note_add(&weights->missing, "%s", name);
        return;
    }
    e->used = true;
    if (check_entry(weights, e, n_dims, dims)) {
        if (e->tensor.dtype == RP_F8_E4M3) {
            bind_companions(weights, e);
        }
        *out = e->tensor;
    }
}

bool rp_weights_has(const rp_weights *weights, const char *name)
{
    return weights != NULL && find(weights, name) != NULL;
}

void rp_weights_ignore(rp_weights *weights, const char *prefix)
{
    if (weights == NULL) {
        return;
    }
    char *const copy = weights->n_ignored < MAX_IGNORED ? strdup(prefix) : NULL;

    if (copy == NULL) {
        RP_WARN("%s: cannot leave out tensors %s...", weights->dir, prefix);
        return;
    }
    weights->ignored[weights->n_ignored++] = copy;
}

/* ---------------------------------------------------------------- finish */

static bool is_left_over(const rp_weights *weights, const entry *e)
{
    for (size_t i = 0; i < weights->n_ignored; i++) {
        if (strncmp(e->name, weights->ignored[i], strlen(weights->ignored[i])) == 0) {
            return false;
        }
    }
    return !e->used;
}

/* Append "3 tensors missing (a, b, c)" to line; nothing for none. */
static void append_note(char *line, size_t n_bytes, const note *kind, const char *what)
{
    const size_t n = strlen(line);

    if (kind->n == 0) {
        return;
    }
    (void)snprintf(line + n, n_bytes - n, "%s%d%s %s (%s", n > 0 ? ", " : "", kind->n,
                   n > 0          ? ""
                   : kind->n == 1 ? " tensor"
                                  : " tensors",
                   what, kind->names);
    const size_t used = strlen(line);
    if (kind->n > N_NAMES) {
        (void)snprintf(line + used, n_bytes - used, " and %d more)", kind->n - N_NAMES);
    } else {
        (void)snprintf(line + used, n_bytes - used, ")");
    }
}

rp_status rp_weights_finish(rp_weights *weights)
{
    char line[4 * (NOTE_NAMES_BYTES + 64)] = "";
    note left_over = {0};

    for (size_t i = 0; i < weights->n_entries; i++) {
        if (is_left_over(weights, &weights->entries[i])) {
            note_add(&left_over, "%s", weights->entries[i].name);
        }
    }
    append_note(line, sizeof(line), &weights->missing, "missing");
    append_note(line, sizeof(line), &weights->misshapen, "misshapen");
    append_note(line, sizeof(line), &weights->mistyped, "of a wrong type");
    append_note(line, sizeof(line), &left_over, "left over");
    return line[0] == '\0' ? RP_OK : RP_FAIL(RP_E_FORMAT, "%s: %s", weights->dir, line);
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
