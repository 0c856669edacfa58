/*
 * json.h - JSON from strangers: strict RFC 8259, bounded, with the place of the fault.
 *
 * cJSON alone is lenient (NUL and other control bytes count as space, numbers like "1.e", keys that
 * come twice) and has no bound on the memory that many small values take. So the text is walked
 * once before cJSON builds the tree, and the tree once after.
 */
#ifndef RP_JSON_H
#define RP_JSON_H

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

/* Whole numbers are exact in a double up to here: 2^53 - 1. */
#define RP_JSON_MAX_INT 9007199254740991

typedef struct {
    int max_depth;     /* nested objects and arrays; at most 900 (cJSON's own limit is 1000) */
    size_t max_values; /* values of any kind; each takes about 100 bytes of memory */
} rp_json_limits;

/* 64 deep, 1 Mi values: any file that a person or a library writes to be read as settings. */
extern const rp_json_limits rp_json_default;

/*
 * One JSON value, UTF-8, nothing but space after it. Keys are unique in their object, strings hold
 * no U+0000, numbers are finite. `name` is for messages ("x.json: line 3, column 7: NaN is not
 * JSON"). RP_E_FORMAT, RP_E_NOMEM, logged. Free with cJSON_Delete.
 */
rp_status rp_json_parse(const char *name, const char *text, size_t n_bytes,
                        const rp_json_limits *limits, cJSON **out);

/* A regular file of at most max_bytes, whole, with a NUL behind it. RP_E_IO, RP_E_NOMEM, logged.
 * Free with free(). */
rp_status rp_json_read(const char *path, size_t max_bytes, char **text_out, size_t *n_bytes_out);

/* Is it a whole number in [min, max], where both are at most RP_JSON_MAX_INT from 0? */
bool rp_json_int(const cJSON *item, int64_t min, int64_t max, int64_t *out);

#endif
