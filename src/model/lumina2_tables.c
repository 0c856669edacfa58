/* lumina2_tables.c - rotary and timestep tables of the Lumina2 denoiser. */
#include "model/lumina2.h"

#include <math.h>
#include <string.h>

#define LUMINA2_THETA       10000.0
#define LUMINA2_TRAIN_STEPS 1000.0f

/* Of the columns of one axis, and of a row of all three. */
typedef struct {
    float *cos, *sin;
} rope_row;

static rope_row rope_at(rope_row rows, size_t elems)
{
    return (rope_row){rows.cos + elems, rows.sin + elems};
}

static void rope_fill(rope_row out, int dim, int position)
{
    for (int j = 0; j < dim; j += 2) {
        const double angle = position / pow(LUMINA2_THETA, (double)j / dim);
        out.cos[j / 2] = (float)cos(angle);
        out.sin[j / 2] = (float)sin(angle);
    }
}

static void rope_copy(rope_row out, rope_row from, size_t n)
{
    memcpy(out.cos, from.cos, n * sizeof(float));
    memcpy(out.sin, from.sin, n * sizeof(float));
}

/* Token i has the positions i, 0, 0. */
static void rope_text(const rp_lumina2_config *c, int n_tokens, rope_row out)
{
    const size_t half = (size_t)c->head_dim / 2, own = (size_t)c->axes_dim[0] / 2;

    for (int i = 0; i < n_tokens; i++) {
        const rope_row row = rope_at(out, (size_t)i * half);
        rope_fill(row, c->axes_dim[0], i);
        if (i == 0) {
            rope_fill(rope_at(row, own), c->axes_dim[1], 0);
            rope_fill(rope_at(row, own + (size_t)c->axes_dim[1] / 2), c->axes_dim[2], 0);
        } else {
            rope_copy(rope_at(row, own), rope_at(out, own), half - own);
        }
    }
}

/* The patch of row r and column k has n_tokens, r, k. So the first patch of each row has what all
 * of its row share, the first row what all of a column share. */
static void rope_image(const rp_lumina2_config *c, int n_tokens, int rows, int cols, rope_row out)
{
    const size_t half = (size_t)c->head_dim / 2;
    const size_t axis1 = (size_t)c->axes_dim[0] / 2, axis2 = axis1 + (size_t)c->axes_dim[1] / 2;

    for (int i = 0; i < rows * cols; i++) {
        const int r = i / cols, k = i % cols;
        const rope_row row = rope_at(out, (size_t)i * half);
        if (k == 0) {
            rope_fill(row, c->axes_dim[0], n_tokens);
            rope_fill(rope_at(row, axis1), c->axes_dim[1], r);
        } else {
            rope_copy(row, rope_at(out, (size_t)(i - k) * half), axis2);
        }
        if (r == 0) {
            rope_fill(rope_at(row, axis2), c->axes_dim[2], k);
        } else {
            rope_copy(rope_at(row, axis2), rope_at(out, (size_t)k * half + axis2), half - axis2);
        }
    }
}

void rp_lumina2_tables_rope(const rp_lumina2_config *config, int n_tokens, int rows, int cols,
                            float *cos_out, float *sin_out)
{
    const rope_row out = {cos_out, sin_out};

    rope_text(config, n_tokens, out);
    rope_image(config, n_tokens, rows, cols,
               rope_at(out, (size_t)n_tokens * (size_t)config->head_dim / 2));
}

void rp_lumina2_tables_time(float sigma, float *out)
{
    /* all in float, step by step as the pipeline does: timestep = 1000 sigma, t = 1 - timestep /
     * 1000 */
    const float timestep = sigma * LUMINA2_TRAIN_STEPS;
    const float t = 1.0f - timestep / LUMINA2_TRAIN_STEPS;
    const int half = RP_LUMINA2_TIME_DIM / 2;

    for (int i = 0; i < half; i++) {
        const float exponent = (float)-log(LUMINA2_THETA) * (float)i / (float)half;
        const float angle = t * expf(exponent);
        out[i] = cosf(angle);
        out[half + i] = sinf(angle);
    }
}
