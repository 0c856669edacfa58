/*
 * params.h - the parameters of one network: bound to its files by name, then placed on its backend.
 *
 * Or drawn there instead, without files: the same on every rank that uses the same backend.
 *
 * Also the growing buffers that networks compute in.
 */
#ifndef RP_PARAMS_H
#define RP_PARAMS_H

#include "model/model.h"
#include "weights/weights.h"

/* How a parameter is drawn: normal(0, std), or ones for std 0. */
typedef struct {
    uint64_t seed;
    float std;
} rp_param_fill;

typedef struct {
    rp_backend backend;
    bool come;           /* placed only: another rank sends them */
    bool random;         /* no files: all parameters are drawn */
    rp_weights *file;    /* stays open: backends may borrow the mapped bytes; NULL when random */
    rp_tensor **slot;    /* [n] where each parameter goes */
    rp_param_fill *fill; /* [n] when random, else NULL */
    size_t n, room;
    size_t n_placed;  /* slots that hold a tensor of the backend */
    size_t n_read;    /* bytes of files that were placed */
    rp_status status; /* first failure of binding itself */
} rp_params;

/* Open the files in source->dir, or none for random weights. On failure `params` is empty and may
 * be closed. */
rp_status rp_params_open(const rp_model_source *source, rp_params *params);

/* Give back everything on the backend and unmap the files. Zeroed params are allowed. */
void rp_params_close(rp_params *params);

/* The parameter of this name (printf style) and shape goes to *slot, which must stay where it is
 * until close. Problems are kept for rp_params_finish. */
void rp_params_vector(rp_params *params, rp_tensor *slot, int n, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void rp_params_matrix(rp_params *params, rp_tensor *slot, int rows, int cols, const char *format,
                      ...) __attribute__((format(printf, 5, 6)));
/* The same for the large matrices of blocks: they may be kept in 8 bits (fp8). */
void rp_params_matrix_narrow(rp_params *params, rp_tensor *slot, int rows, int cols,
                             const char *format, ...) __attribute__((format(printf, 5, 6)));
/* [c_out, c_in, kernel, kernel] */
void rp_params_conv(rp_params *params, rp_tensor *slot, int c_out, int c_in, int kernel,
                    const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Check that all were found and none is left over, then place them; random ones are drawn.
 * RP_E_FORMAT, RP_E_NOMEM. */
rp_status rp_params_finish(rp_params *params);

/* Number of elements bound. */
int64_t rp_params_count(const rp_params *params);

/* Bytes that they take on a device in this precision (not AUTO), before or after finish. */
size_t rp_params_bytes(const rp_params *params, rp_precision precision);

/* Of the files, or of how random weights are drawn. */
uint64_t rp_params_fingerprint(const rp_params *params);

/* ---- buffers: backend memory that only grows ---- */

typedef struct {
    float *data;
    size_t n_elems;
} rp_buffer;

/* At least n_elems floats; what was in it is lost when it grows. RP_E_NOMEM (logged with `what`).
 */
rp_status rp_buffer_grow(const rp_backend *backend, rp_buffer *buffer, size_t n_elems,
                         const char *what);
/* The same for activations: elements as the backend computes with them, addressed like floats. */
rp_status rp_buffer_grow_act(const rp_backend *backend, rp_buffer *buffer, size_t n_elems,
                             const char *what);
void rp_buffer_free(const rp_backend *backend, rp_buffer *buffer);

/* A buffer and how large it is to be: a network's list of them. */
typedef struct {
    rp_buffer *buffer;
    size_t n_elems;
    const char *what;
    bool act; /* input or output of products: the backend's own element type */
} rp_buffer_want;

/* All n of the list; up to the first that fails. */
rp_status rp_buffers_grow(const rp_backend *backend, const rp_buffer_want *want, size_t n);
/* Bytes that they take on a device in this precision (not AUTO). */
size_t rp_buffers_bytes(const rp_buffer_want *want, size_t n, rp_precision precision);

#endif
