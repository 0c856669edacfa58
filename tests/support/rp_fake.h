/*
 * rp_fake.h - backend "fake": the CPU's table as that of a device with so many bytes, on which
 * things fail as ordered. A test that is linked with rp_fake.c has it, before cpu, in
 * rp_backend_list.
 */
#ifndef RP_FAKE_H
#define RP_FAKE_H

#include "tensor/tensor_ops.h"

#define RP_FAKE_ENOUGH ((size_t)1 << 40)

typedef struct {
    size_t budget;         /* bytes of the device */
    size_t used, most;     /* now, and the most there were */
    int n_networks;        /* placed on it since the start */
    const char *name, *id; /* NULL: "fake GPU", "" */
    bool absent;           /* usable() is false */
    bool host_memory;      /* its memory is not a device's */
    int n_units;           /* evaluated: calls of check_finite */
    size_t scratch_of;     /* scratch that linear() takes for each element of its input, bytes */
    size_t scratch;        /* taken now; part of `used` */
    int n_trims;           /* calls of trim */
    int fail_unit;         /* the sync after so many units fails with RP_E_CUDA; 0: never */
    int n_pictures;        /* decoded: calls of to_bytes */
    int fail_picture;      /* the same after so many pictures */
    unsigned lacks;        /* precisions that it says it cannot: RP_PRECISION_BIT of each */
    size_t scratch_room;   /* bytes_scratch_room */
} rp_fake_state;

extern rp_fake_state rp_fake;

/* The row of rp_backend_list, for a test that spoils it and puts back what it was. */
extern rp_backend_ops rp_fake_ops;

#endif
