/* vec.c - vectors in host memory: plain loops, the reference of every other implementation. */
#include "base/vec.h"

#include <math.h>
#include <string.h>

/* ---- combine */

static void combine_one(float *out, size_t n, float a, const float *x)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = a * x[i];
    }
}

static void combine_two(float *out, size_t n, const float *coef, const float *const *in)
{
    const float a = coef[0], b = coef[1];
    const float *x = in[0], *y = in[1];

    for (size_t i = 0; i < n; i++) {
        out[i] = a * x[i] + b * y[i];
    }
}

/* Element by element: out may be one of in. */
static void combine_many(float *out, size_t n, int n_terms, const float *coef,
                         const float *const *in)
{
    for (size_t i = 0; i < n; i++) {
        float sum = coef[0] * in[0][i];
        for (int k = 1; k < n_terms; k++) {
            sum = sum + coef[k] * in[k][i];
        }
        out[i] = sum;
    }
}

void rp_vec_host_combine(void *self, float *out, size_t n, int n_terms, const float *coef,
                         const float *const *in)
{
    (void)self;
    switch (n_terms) {
    case 0:
        memset(out, 0, n * sizeof(*out));
        break;
    case 1:
        combine_one(out, n, coef[0], in[0]);
        break;
    case 2:
        combine_two(out, n, coef, in);
        break;
    default:
        combine_many(out, n, n_terms, coef, in);
    }
}

/* ---- sums */

void rp_vec_host_project(void *self, const float *a, const float *b, size_t n, float *room)
{
    double dot = 0, square = 0;

    (void)self;
    for (size_t i = 0; i < n; i++) {
        dot += (double)a[i] * b[i];
        square += (double)b[i] * b[i];
    }
    room[0] = (float)(dot / (square + 1e-8));
}

static void extrapolate_row(const rp_vec_rows *rows, float factor, const float *to,
                            const float *away, float *out)
{
    double to_sum = 0, out_sum = 0; /* double: the sum hardly depends on the order */

    for (int i = 0; i < rows->w; i++) {
        const float from = away[i] * factor;
        const float moved = from + rows->scale * (to[i] - from);
        to_sum += (double)to[i] * to[i];
        out_sum += (double)moved * moved;
        out[i] = moved;
    }
    if (rows->keep_length && out_sum > 0) {
        const float ratio = (float)sqrt(to_sum) / (float)sqrt(out_sum);
        for (int i = 0; i < rows->w; i++) {
            out[i] = out[i] * ratio;
        }
    }
}

void rp_vec_host_extrapolate(void *self, const rp_vec_rows *rows, float *out)
{
    const float factor = rows->factor != NULL ? *rows->factor : 1.0f;

    (void)self;
    for (size_t row = 0; row < rows->n_rows; row++) {
        const size_t at = row * (size_t)rows->w;
        extrapolate_row(rows, factor, rows->to + at, rows->away + at, out + at);
    }
}

const rp_vec rp_vec_host = {
    .combine = rp_vec_host_combine,
    .project = rp_vec_host_project,
    .extrapolate = rp_vec_host_extrapolate,
};

/* ---- the two that are used most, for any implementation */

void rp_vec_copy(const rp_vec *vec, float *out, size_t n, const float *x)
{
    static const float one = 1.0f;

    vec->combine(vec->self, out, n, 1, &one, &x);
}

void rp_vec_two(const rp_vec *vec, float *out, size_t n, float a, const float *x, float b,
                const float *y)
{
    const float coef[] = {a, b};
    const float *const in[] = {x, y};

    vec->combine(vec->self, out, n, 2, coef, in);
}
