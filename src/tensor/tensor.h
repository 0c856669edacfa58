/*
 * tensor.h - shape, element type and borrowed data.
 *
 * Shapes are written [slowest, ..., fastest] and tensors are contiguous. The same letters
 * everywhere: b images   t tokens   d dim   n heads   c channels   h w latent (or picture) pixels
 */
#ifndef RP_TENSOR_H
#define RP_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RP_TENSOR_DIMS 4

typedef enum {
    RP_F32,
    RP_F16,
    RP_BF16,
    RP_I32,
    RP_U8,
    RP_F8_E4M3, /* 1 sign, 4 exponent, 3 fraction bits; up to 448, no infinity (OCP "E4M3") */
    RP_N_DTYPES
} rp_dtype;

typedef struct {
    rp_dtype dtype;
    int n_dims;                  /* 0 (one element) to RP_TENSOR_DIMS */
    int64_t dim[RP_TENSOR_DIMS]; /* slowest first; unused ones are 1 */
    const void *data;            /* borrowed; lives as long as what it was taken from */
    const float *scale;          /* borrowed; of F8_E4M3: its elements are to be multiplied by it */
    int64_t n_scales;            /* 0: by nothing; 1: all by one; dim[0]: each row by its own */
    bool narrow; /* a weight that a backend may keep in 8 bits, when that precision is asked for */
} rp_tensor;

/* Bytes of one element: 4, 2, 2, 4, 1, 1. */
size_t rp_dtype_bytes(rp_dtype dtype);

/* Name as in a safetensors header: "F32", "F16", "BF16", "I32", "U8",
 * "F8_E4M3". Static storage. */
const char *rp_dtype_name(rp_dtype dtype);

/* What weights may be: F32, F16, BF16 or F8_E4M3. */
bool rp_dtype_is_float(rp_dtype dtype);

/* Product of dim[0..n_dims); 1 for n_dims 0. */
int64_t rp_tensor_elems(const rp_tensor *tensor);

#endif
