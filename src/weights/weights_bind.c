/* weights_bind.c - tensors of one network, bound one after the other, complained about once. */
#include "weights/weights_parts.h"

#include "base/check.h"
#include "base/log.h"
#include "base/float_bits.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME_BYTES 512
#define N_NAMES        4 /* of each kind in the one error line */

/* ------------------------------------------------------------------ bind */

static void note_add(rp_weights_note *kind, const char *format, ...) RP_PRINTF(2, 3);

/* One more; the first N_NAMES are kept by name, as far as they fit. */
static void note_add(rp_weights_note *kind, const char *format, ...)
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
static bool check_entry(rp_weights *weights, const rp_weights_entry *e, int n_dims,
                        const int64_t *dims)
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
static rp_weights_entry *take_companion(rp_weights *weights, const char *stem, int n_stem,
                                        const char *ending)
{
    char name[MAX_NAME_BYTES];
    const int n = snprintf(name, sizeof(name), "%.*s%s", n_stem, stem, ending);
    rp_weights_entry *const e =
        n >= 0 && n < (int)sizeof(name) ? rp_weights_find(weights, name) : NULL;

    if (e != NULL) {
        e->used = true;
    }
    return e;
}

/* One number, or one for each of the rows: [rows] or [rows, 1]. */
static bool check_scale(rp_weights *weights, const rp_weights_entry *e, const rp_weights_entry *of)
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
static void read_scale(rp_weights *weights, rp_weights_entry *e, const rp_weights_entry *scale)
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
static void bind_companions(rp_weights *weights, rp_weights_entry *e)
{
    static const char *const of_weight[] = {"scale_weight", "weight_scale"};
    static const char *const of_no_use[] = {"scale_input", "input_scale", "comfy_quant"};
    const int n_stem = (int)strlen(e->name) - (int)strlen("weight");
    const rp_weights_entry *scale = NULL;

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

    rp_weights_entry *const e =
        n >= 0 && n < (int)sizeof(name) ? rp_weights_find(weights, name) : NULL;
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
    return weights != NULL && rp_weights_find(weights, name) != NULL;
}

void rp_weights_ignore(rp_weights *weights, const char *prefix)
{
    if (weights == NULL) {
        return;
    }
    char *const copy = weights->n_ignored < RP_WEIGHTS_IGNORED ? strdup(prefix) : NULL;

    if (copy == NULL) {
        RP_WARN("%s: cannot leave out tensors %s...", weights->dir, prefix);
        return;
    }
    weights->ignored[weights->n_ignored++] = copy;
}

/* ---------------------------------------------------------------- finish */

static bool is_left_over(const rp_weights *weights, const rp_weights_entry *e)
{
    for (size_t i = 0; i < weights->n_ignored; i++) {
        if (strncmp(e->name, weights->ignored[i], strlen(weights->ignored[i])) == 0) {
            return false;
        }
    }
    return !e->used;
}

/* Append "3 tensors missing (a, b, c)" to line; nothing for none. */
static void append_note(char *line, size_t n_bytes, const rp_weights_note *kind, const char *what)
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
    char line[4 * (RP_WEIGHTS_NAMES_BYTES + 64)] = "";
    rp_weights_note left_over = {0};

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
