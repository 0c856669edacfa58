/*
 * safetensors.h - tensors by name in a memory-mapped file.
 *
 * The format: 8 bytes little-endian n, n bytes of JSON {"name": {"dtype": "BF16", "shape": [..],
 * "data_offsets": [begin, end]}, ..., "__metadata__": {..}}, then the data that offsets count from.
 * Source: github.com/huggingface/safetensors, "Format".
 *
 * Files come from strangers. Everything is checked at open: header length, JSON, types, shapes
 * against byte counts, offsets inside the file and without overlap, names without duplicates.
 */
#ifndef RP_SAFETENSORS_H
#define RP_SAFETENSORS_H

#include "tensor/tensor.h"

#include <rankpool/status.h>

#include <stddef.h>
#include <stdint.h>

typedef struct rp_safetensors rp_safetensors;

/* Map and check a file. RP_E_IO, RP_E_FORMAT, RP_E_NOMEM, logged with the path. Pages are shared with
 * every other process that maps the file. Release with rp_safetensors_close. */
rp_status rp_safetensors_open(const char *path, rp_safetensors **out);

/* The same over bytes in memory (tests, fuzzing); `name` is for messages, bytes are borrowed. */
rp_status rp_safetensors_open_bytes(const char *name, const void *bytes, size_t n_bytes,
                                    rp_safetensors **out);
void rp_safetensors_close(rp_safetensors *file); /* NULL is allowed */

/* Number of tensors; the i-th in file order. Names and data are borrowed until close. Element types
 * that rankpool has no use for (I64, F64, F8 ...) have *known = 0 and data NULL. */
size_t rp_safetensors_count(const rp_safetensors *file);
const char *rp_safetensors_at(const rp_safetensors *file, size_t i, rp_tensor *tensor_out, int *known);

/* RP_E_ABSENT without a log line when there is no such (usable) tensor. */
rp_status rp_safetensors_find(const rp_safetensors *file, const char *name, rp_tensor *out);

/* A string of __metadata__, or NULL. Borrowed. */
const char *rp_safetensors_metadata(const rp_safetensors *file, const char *key);

/* Checksum of header, size and a sample of the data (first 4 KiB of every tensor), for comparing the
 * files of two ranks without reading them whole. */
uint64_t rp_safetensors_fingerprint(const rp_safetensors *file);

typedef struct {
    const char *name;
    rp_tensor tensor;
} rp_named_tensor;

/* Write a file whole (base/outfile.h: temporary name, then rename). `metadata` is NULL or pairs key,
 * value, ..., NULL. RP_E_IO, RP_E_EXISTS. */
rp_status rp_safetensors_write(const char *path, const rp_named_tensor *tensors, size_t n,
                               const char *const *metadata, int overwrite);

#endif
