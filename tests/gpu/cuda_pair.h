/*
 * cuda_pair.h - for the tests of the CUDA backend: the same data on the CPU backend, the reference,
 * and on the device.
 *
 * A case loops over the modes (precision x kind of memory), makes arrays and weights, calls one op
 * on both sides and lets pair_check() compare. A difference is printed with the case and counted;
 * pair_done() at the end of a test fails it. So one run names all that is wrong.
 */
#ifndef RP_CUDA_PAIR_H
#define RP_CUDA_PAIR_H

#include "rp_test.h"

#include "tensor/tensor_ops.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { CPU, GPU, N_SIDES };

/* INSIDE: activations that begin at an odd element within a block, as rows of odd width do. */
typedef enum { PAIR_ALLOC, PAIR_ACT, PAIR_INSIDE } pair_kind;

typedef struct {
    rp_precision precision;
    pair_kind in, out;
    const char *name;
} pair_mode;

/* n floats on both sides, with guard values around them. */
typedef struct {
    size_t n, before;
    float *at[N_SIDES];
    void *block[N_SIDES];
} pair_array;

typedef struct {
    void *host; /* stays until pair_weight_drop: the CPU borrows it */
    rp_tensor at[N_SIDES];
} pair_weight;

extern const pair_mode pair_modes[];
extern int pair_n_modes;
extern rp_backend pair_on[N_SIDES];    /* GPU: in the precision of the mode in use */
extern const rp_backend_ops *pair_ops; /* of the device */

/* Exits with 77 and a line "SKIP: why" when there is no usable device. */
void pair_open_or_skip(void);
void pair_close(void);

/* From now on arrays, weights and pair_on[GPU] are of this mode. */
void pair_use(const pair_mode *mode);

/* What is compared from now on, for messages. */
void pair_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* About normal(offset, scale); in bf16 modes values that bf16 keeps, so that only the op's own
 * arithmetic differs. */
pair_array pair_random(pair_kind kind, size_t n, unsigned seed, float scale, float offset);
pair_array pair_of(pair_kind kind, size_t n, const float *host);
/* All NaN: an element that the op leaves out is found. */
pair_array pair_poison(pair_kind kind, size_t n);
void pair_drop(pair_array *array);

/* 1 dimension for cols 0, else 2; 4 with kernel > 0: [rows, cols, kernel, kernel]. */
pair_weight pair_weight_random(rp_dtype dtype, int rows, int cols, int kernel, unsigned seed);
void pair_weight_drop(pair_weight *weight);

/* Waits for both sides; compares the array (also the guards of the device's). Returns the relative
 * L2 error. EXACT: no difference is allowed. */
typedef enum { PAIR_CLOSE, PAIR_EXACT } pair_how;
double pair_check(const char *op, const pair_array *out, pair_how how);

/* Prints the worst errors since the last call, fails the test if one was too large. */
void pair_done(void);

/* n floats of the device's memory, after a sync that must succeed. */
void pair_get(const float *src, float *host, size_t n);

/* Reads weight [rows, cols] of the device by way of embed(). */
void pair_read_weight(const rp_tensor *weight, int rows, int cols, float *host);

#endif
