/*
 * config.h - typed reading of a JSON config file, with limits.
 *
 * Each getter takes the allowed range and reports the file, the key, the value and what is allowed.
 * Errors are kept: read all fields, then ask rp_config_finish once.
 *
 * A key "a.b" is member b of the object a (rope_parameters.rope_theta); absent when there is no a.
 */
#ifndef RP_CONFIG_H
#define RP_CONFIG_H

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rp_config rp_config;

/* Read and parse `dir`/`file`. RP_E_IO (absent, unreadable, over 16 MiB), RP_E_FORMAT (not a JSON
 * object, nested deeper than 64, a key twice, NaN or Infinity, which Python's json writes). Logged.
 */
rp_status rp_config_open(const char *dir, const char *file, rp_config **out);
/* The same over text in memory (fuzzing, tests). */
rp_status rp_config_parse(const char *name, const char *text, size_t n_bytes, rp_config **out);
void rp_config_close(rp_config *config); /* NULL is allowed */

/* Has the key, and it is not null. */
bool rp_config_has(const rp_config *config, const char *key);

/* Whole number in [min, max]. `fallback` is used when the key is absent or null; a fallback outside
 * [min, max] means the key is required. */
int64_t rp_config_int(rp_config *config, const char *key, int64_t min, int64_t max,
                      int64_t fallback);
/* Finite number in [min, max]; a NaN fallback means required. */
double rp_config_real(rp_config *config, const char *key, double min, double max, double fallback);
bool rp_config_bool(rp_config *config, const char *key, bool fallback);
/* String, borrowed until close; fallback NULL means required ("" after an error). */
const char *rp_config_text(rp_config *config, const char *key, const char *fallback);
/* Array of whole numbers in [min, max]; exactly n of them, or with n < 0 one up to -n. Required.
 * Returns how many; 0 after an error. */
int rp_config_ints(rp_config *config, const char *key, int n, int64_t min, int64_t max,
                   int64_t *out);
/* Element i of an array of strings (model_index.json's ["diffusers", "Class"]), NULL if there is
 * none. Notes nothing. */
const char *rp_config_text_at(const rp_config *config, const char *key, int i);

/* Note an error of the caller's own about `key` (kept like the getters' own). */
void rp_config_refuse(rp_config *config, const char *key, const char *allowed);

/* RP_OK, or RP_E_FORMAT with one line: the file and the first thing that was wrong. */
rp_status rp_config_finish(const rp_config *config);

/* Checksum of the text, for comparing two ranks. */
uint64_t rp_config_fingerprint(const rp_config *config);

#endif
