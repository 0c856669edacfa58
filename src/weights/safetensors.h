/*
 * safetensors.h - tensors by name in a memory-mapped file.
 *
 * The format: 8 bytes little-endian n, n bytes of JSON {"name": {"dtype": "BF16", "shape": [..],
 * "data_offsets": [begin, end]}, ..., "__metadata__": {..}}, then the data that offsets count from.
 * Source: github.com/huggingface/safetensors, "Format".
 *
 * Files come from strangers. Everything is checked at open: header length (at most 100 MB, as in
 * the reference), JSON, types, shapes against byte counts, offsets inside the file and without
 * overlap, names without duplicates. Gaps between tensors are allowed. A file that another program
 * cuts short while it is mapped ends the process with SIGBUS: replace files by renaming, never in
 * place.
 */
#ifndef RP_SAFETENSORS_H
#define RP_SAFETENSORS_H

#include "tensor/tensor.h"

#include <rankpool/status.h>

#include <stddef.h>
#include <stdint.h>

typedef struct rp_safetensors rp_safetensors;

/* Map and check a file. RP_E_IO, RP_E_FORMAT, RP_E_NOMEM, logged with the path. Pages are shared
 * with every other process that maps the file. Release with rp_safetensors_close. */
rp_status rp_safetensors_open(const char *path, rp_safetensors **out);

/* The same over bytes in memory (tests, fuzzing); `name` is for messages, bytes are borrowed. */
rp_status rp_safetensors_open_bytes(const char *name, const void *bytes, size_t n_bytes,
                                    rp_safetensors **out);
void rp_safetensors_close(rp_safetensors *file); /* NULL is allowed */

/* Number of tensors; the i-th in file order. Names and data are borrowed until close. Data is
 * aligned to its element (a tensor that is not in the file is copied). Element types that rankpool
 * has no use for (I64, F64, F8_E5M2 ...) and more than RP_TENSOR_DIMS dims have *known = 0, dtype
 * RP_N_DTYPES, data NULL. */
size_t rp_safetensors_count(const rp_safetensors *file);
const char *rp_safetensors_at(const rp_safetensors *file, size_t i, rp_tensor *tensor_out,
                              int *known);

/* Element type of the i-th tensor as the header names it, "BF16" or "I64", for messages. Static. */
const char *rp_safetensors_type(const rp_safetensors *file, size_t i);

/* Bytes of all tensors together. */
uint64_t rp_safetensors_bytes(const rp_safetensors *file);

/* RP_E_ABSENT without a log line when there is no such (usable) tensor. */
rp_status rp_safetensors_find(const rp_safetensors *file, const char *name, rp_tensor *out);

/* A string of __metadata__, or NULL. Borrowed. */
const char *rp_safetensors_metadata(const rp_safetensors *file, const char *key);

/* Checksum of header, size and a sample of the data (first 4 KiB of every tensor), for comparing
 * the files of two ranks without reading them whole. */
uint64_t rp_safetensors_fingerprint(const rp_safetensors *file);

typedef struct {
    const char *name;
    rp_tensor tensor;
} rp_named_tensor;

/* Write a file whole (base/outfile.h: temporary name, then rename). `metadata` is NULL or pairs
 * key, value, ..., NULL. Data is laid out widest element first, so that every tensor is aligned;
 * the same arguments give the same bytes. RP_E_ARG (a name twice, empty or not UTF-8, a bad shape
 * or no data), RP_E_IO, RP_E_EXISTS, RP_E_NOMEM. */
rp_status rp_safetensors_write(const char *path, const rp_named_tensor *tensors, size_t n,
                               const char *const *metadata, int overwrite);

#endif
