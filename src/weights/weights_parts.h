/* weights_parts.h - what weights.c (files, shards) and weights_bind.c (tensors by name) share. */
#ifndef RP_WEIGHTS_PARTS_H
#define RP_WEIGHTS_PARTS_H

#include "weights/safetensors.h"
#include "weights/weights.h"

#define RP_WEIGHTS_IGNORED     16
#define RP_WEIGHTS_NAMES_BYTES 320

typedef struct {
    const char *name; /* its file's */
    const char *type;
    rp_tensor tensor;
    float *scale; /* of a bound tensor in F8_E4M3, or NULL */
    size_t file;
    bool known, used;
} rp_weights_entry;

/* One kind of trouble: how often, and the first names. */
typedef struct {
    int n;
    char names[RP_WEIGHTS_NAMES_BYTES];
} rp_weights_note;

struct rp_weights {
    char *dir;
    rp_safetensors **files;
    char **file_names; /* without the folder */
    size_t n_files;
    rp_weights_entry *entries; /* sorted by name */
    size_t n_entries;
    char *ignored[RP_WEIGHTS_IGNORED];
    size_t n_ignored;
    rp_weights_note missing, misshapen, mistyped;
};

/* NULL when there is none. */
rp_weights_entry *rp_weights_find(const rp_weights *weights, const char *name);

#endif
