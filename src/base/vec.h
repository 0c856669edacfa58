/*
 * vec.h - arithmetic on latents wherever they are: what samplers and guiders call in place of
 * loops.
 *
 * A vector is an array of floats in the memory that the implementation works on: host memory for
 * rp_vec_host, a backend's own for the slots of the same names in tensor_ops.h. A call may only
 * queue its work, and no result comes back to the host: a step has nothing to wait for. Nothing is
 * allocated.
 *
 * Every product and every sum is rounded on its own, in the order written here, so that all
 * implementations give the same bits; only sums over many elements may differ in the last one.
 */
#ifndef RP_VEC_H
#define RP_VEC_H

#include <stdbool.h>
#include <stddef.h>

#define RP_VEC_TERMS 4   /* of combine, at most */
#define RP_VEC_ROOM  512 /* floats that project may use */

/*
 * Rows [n_rows, w]:  out = a + scale (to - a),  a = factor away.  With keep_length a row is then
 * multiplied by |to| / |out|; one of length 0 stays.
 */
typedef struct {
    const float *to, *away;
    const float *factor; /* one float in the same memory; NULL for 1 */
    float scale;
    bool keep_length;
    size_t n_rows;
    int w;
} rp_vec_rows;

typedef struct {
    /* out[n] = coef[0] in[0] + coef[1] in[1] + ..., summed from the left; zeros for no terms.
     * out may be one of in. */
    void (*combine)(void *self, float *out, size_t n, int n_terms, const float *coef,
                    const float *const *in);
    /* room[0] = <a, b> / (|b|^2 + 1e-8), sums in double; room [RP_VEC_ROOM],
     * its address a multiple of 8 */
    void (*project)(void *self, const float *a, const float *b, size_t n, float *room);
    /* out [n_rows, w] may be one of rows' inputs */
    void (*extrapolate)(void *self, const rp_vec_rows *rows, float *out);
    void *self;
} rp_vec;

/* Host memory; self is not looked at. */
extern const rp_vec rp_vec_host;
void rp_vec_host_combine(void *self, float *out, size_t n, int n_terms, const float *coef,
                         const float *const *in);
void rp_vec_host_project(void *self, const float *a, const float *b, size_t n, float *room);
void rp_vec_host_extrapolate(void *self, const rp_vec_rows *rows, float *out);

/* out[n] = x, and out[n] = a x + b y */
void rp_vec_copy(const rp_vec *vec, float *out, size_t n, const float *x);
void rp_vec_two(const rp_vec *vec, float *out, size_t n, float a, const float *x, float b,
                const float *y);

#endif
