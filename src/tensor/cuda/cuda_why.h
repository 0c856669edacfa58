/*
 * cuda_why.h - why a GPU is not computed on, in words.
 *
 * Decisions and texts from what the CUDA runtime has answered; nothing here asks it, so that they
 * are tested without a GPU. Texts are clauses on one line, at most n_out - 1 characters; where
 * there is no cause they are "".
 */
#ifndef RP_CUDA_WHY_H
#define RP_CUDA_WHY_H

#include "tensor/tensor_ops.h"

#include <stdbool.h>
#include <stddef.h>

#define RP_CUDA_WHY_BYTES 256 /* room for any of the texts */

/* What counting the devices has found. */
typedef struct {
    int n;               /* devices, when there was no error */
    const char *error;   /* of counting, in CUDA's words; NULL: none */
    bool driver_too_old; /* that was the error */
    int driver;          /* what the driver can, 13000 for CUDA 13.0; 0: there is none */
    int runtime;         /* what this build has, likewise */
    const char *visible; /* CUDA_VISIBLE_DEVICES; NULL: not set */
} rp_cuda_count;

/* One device. */
typedef struct {
    int index;
    const char *name;
    int major, minor; /* compute capability */
} rp_cuda_which;

/* Is there a device? If not, why. */
bool rp_cuda_why_none(const rp_cuda_count *count, char *out, size_t n_out);

/* Does a build for `architectures` (as CMAKE_CUDA_ARCHITECTURES has them, commas between: 80-real,
 * 90a-real,120) hold code for this device? Yes where the list says too little ("native"): then
 * only the device itself knows. */
bool rp_cuda_why_can_run(const char *architectures, const rp_cuda_which *which);
/* That it does not, and how to build. */
void rp_cuda_why_no_kernels(const rp_cuda_which *which, char *out, size_t n_out);

/* What `auto` is on a device; the others are themselves. */
rp_precision rp_cuda_why_precision(const rp_cuda_which *which, rp_precision precision);
/* Can the device compute in it (not `auto`)? If not, why, and what it can. */
bool rp_cuda_why_can_compute(const rp_cuda_which *which, rp_precision precision, char *out,
                             size_t n_out);

#endif
