/* cuda_why.c - why a GPU is not computed on, in words. */
#include "tensor/cuda/cuda_why.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rp_cuda_why_none(const rp_cuda_count *count, char *out, size_t n_out)
{
    const char *error = count->error != NULL ? count->error : "there is none";

    out[0] = '\0';
    if (count->error == NULL && count->n > 0) {
        return true;
    }
    if (count->driver == 0) {
        (void)snprintf(out, n_out, "there is no NVIDIA driver");
    } else if (count->driver_too_old) {
        (void)snprintf(out, n_out, "the driver is for CUDA %d.%d, this build needs %d.%d",
                       count->driver / 1000, count->driver % 1000 / 10, count->runtime / 1000,
                       count->runtime % 1000 / 10);
    } else if (count->visible != NULL) {
        (void)snprintf(out, n_out, "no GPU is visible with CUDA_VISIBLE_DEVICES=\"%.80s\" (%s)",
                       count->visible, error);
    } else {
        (void)snprintf(out, n_out, "%s", count->error == NULL ? "there is no GPU" : error);
    }
    return false;
}

/* ---- kernels ---- */

/*
 * One architecture of the list. Machine code runs on the same major number from its minor one on,
 * PTX on everything from its number on; with "a" both are for that one number, with "f" for that
 * major one.
 */
static bool runs_on(const char *word, size_t n_word, const rp_cuda_which *which)
{
    char *kind = NULL;
    const int number = (int)strtol(word, &kind, 10);
    const size_t n_digits = (size_t)(kind - word);
    const char suffix = n_digits < n_word && strchr("af", *kind) != NULL ? *kind++ : '\0';
    const size_t n_kind = n_word - (size_t)(kind - word);
    const bool real_only = n_kind == 5 && strncmp(kind, "-real", 5) == 0;
    const bool ptx_only = n_kind == 8 && strncmp(kind, "-virtual", 8) == 0;
    const int capability = 10 * which->major + which->minor;

    if (n_digits == 0 || (n_kind > 0 && !real_only && !ptx_only)) {
        return true; /* a word like "native" */
    }
    if (suffix == 'a') {
        return capability == number;
    }
    return capability >= number && (which->major == number / 10 || (suffix == '\0' && !real_only));
}

bool rp_cuda_why_can_run(const char *architectures, const rp_cuda_which *which)
{
    bool any = false;

    for (const char *word = architectures; *word != '\0';) {
        const size_t n = strcspn(word, ",");
        if (n > 0 && runs_on(word, n, which)) {
            return true;
        }
        any = any || n > 0;
        word += n + (word[n] == ',');
    }
    return !any;
}

void rp_cuda_why_no_kernels(const rp_cuda_which *which, char *out, size_t n_out)
{
    const bool hopper = which->major == 9 && which->minor == 0; /* our kernels for it are 90a's */

    (void)snprintf(out, n_out,
                   "GPU %d (%.63s) has compute capability %d.%d, for which this build has no "
                   "kernels; build with -DCMAKE_CUDA_ARCHITECTURES=%d%d%s",
                   which->index, which->name, which->major, which->minor, which->major,
                   which->minor, hopper ? "a" : "");
}

/* ---- precisions ---- */

rp_precision rp_cuda_why_precision(const rp_cuda_which *which, rp_precision precision)
{
    if (precision != RP_PRECISION_AUTO) {
        return precision;
    }
    return which->major >= 8 ? RP_PRECISION_BF16 : RP_PRECISION_F32;
}

bool rp_cuda_why_can_compute(const rp_cuda_which *which, rp_precision precision, char *out,
                             size_t n_out)
{
    const int needs = rp_precision_is_fp8(precision) ? 89 : precision == RP_PRECISION_BF16 ? 80 : 0;
    const char *name = rp_precision_name(precision);
    const bool can = 10 * which->major + which->minor >= needs;

    out[0] = '\0';
    if (!can) {
        (void)snprintf(out, n_out,
                       "precision %s: GPU %d (%.63s) has compute capability %d.%d, %s needs %d.%d; "
                       "use --precision %s",
                       name, which->index, which->name, which->major, which->minor, name,
                       needs / 10, needs % 10, which->major >= 8 ? "bf16" : "f32");
    }
    return can;
}
