/* safetensors_parts.h - what safetensors.c (files, look-up) and safetensors_header.c share. */
#ifndef RP_SAFETENSORS_PARTS_H
#define RP_SAFETENSORS_PARTS_H

#include "weights/safetensors.h"

#include <stdbool.h>

#include <cjson/cJSON.h>

#define RP_SAFETENSORS_METADATA "__metadata__"

/* An element type of the format. */
typedef struct {
    const char *name;
    int n_bits;
    rp_dtype dtype; /* RP_N_DTYPES: rankpool has no use for it */
} rp_safetensors_row;

typedef struct {
    const char *name; /* the header tree's */
    const rp_safetensors_row *type;
    rp_tensor tensor;
    int64_t begin, end; /* bytes, counted from the data's start */
    void *copy;         /* aligned copy, or NULL */
} rp_safetensors_entry;

struct rp_safetensors {
    char *name; /* for messages */
    void *map;  /* NULL over borrowed bytes */
    const uint8_t *bytes;
    size_t n_bytes;
    const uint8_t *data;
    int64_t data_bytes;
    cJSON *header;
    rp_safetensors_entry *entries; /* in file order */
    rp_safetensors_entry **by_name;
    size_t n_entries;
};

/* Read the header of file->bytes, check all of it, and fill in what follows from it: data, header,
 * entries. RP_E_FORMAT, RP_E_NOMEM (logged); rp_safetensors_close frees what is there by then. */
rp_status rp_safetensors_read_header(rp_safetensors *file);

/* Is the tensor of a kind that rankpool has a use for? */
bool rp_safetensors_is_known(const rp_safetensors_entry *e);

/* Order of by_name, for qsort and bsearch. */
int rp_safetensors_compare_name(const void *a, const void *b);

#endif
