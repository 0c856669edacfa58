/* lumina2_tables.c - rotary and timestep tables of the Lumina2 denoiser. */
#include "model/lumina2.h"

#include <math.h>

#define LUMINA2_THETA       10000.0
#define LUMINA2_TRAIN_STEPS 1000.0f

/* cos and sin of one token at its three positions. */
static void tables_rope_row(const rp_lumina2_config *config, const int position[3], float *cos_out,
                            float *sin_out)
{
    int i = 0;

    for (int axis = 0; axis < 3; axis++) {
        const int dim = config->axes_dim[axis];
        for (int j = 0; j < dim; j += 2) {
            const double angle = position[axis] / pow(LUMINA2_THETA, (double)j / dim);
            cos_out[i] = (float)cos(angle);
            sin_out[i] = (float)sin(angle);
            i++;
        }
    }
}

void rp_lumina2_tables_rope(const rp_lumina2_config *config, int n_tokens, int rows, int cols,
                            float *cos_out, float *sin_out)
{
    const size_t half = (size_t)config->head_dim / 2;

    for (int i = 0; i < n_tokens; i++) {
        const int position[3] = {i, 0, 0};
        tables_rope_row(config, position, cos_out + (size_t)i * half, sin_out + (size_t)i * half);
    }
    for (int i = 0; i < rows * cols; i++) {
        const int position[3] = {n_tokens, i / cols, i % cols};
        const size_t at = (size_t)(n_tokens + i) * half;
        tables_rope_row(config, position, cos_out + at, sin_out + at);
    }
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
