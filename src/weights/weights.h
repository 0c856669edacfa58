/*
 * weights.h - the tensors of one network: a single safetensors file or shards with an index.
 *
 *   <dir>/<stem>.safetensors                                  one file
 *   <dir>/<stem>.safetensors.index.json {"weight_map": {..}}  shards
 *
 * stem is "diffusion_pytorch_model" (diffusers) or "model" (transformers); both are tried, and the
 * one file goes before the shards. Index and shards must agree on every tensor.
 *
 * A network binds its tensors one after the other (rp_weights_bind) and then asks once whether all
 * was well (rp_weights_finish): what is missing, left over, misshapen or of a wrong type is named
 * in ONE error.
 */
#ifndef RP_WEIGHTS_H
#define RP_WEIGHTS_H

#include "tensor/tensor.h"

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rp_weights rp_weights;

/* Open all files of a network's folder. RP_E_IO, RP_E_FORMAT, RP_E_NOMEM (logged). */
rp_status rp_weights_open(const char *dir, rp_weights **out);
void rp_weights_close(rp_weights *weights); /* NULL is allowed; all bound tensors die with it */

/* printf-style name -> *out, which must have exactly these dims (n_dims of them) and be F32, F16,
 * BF16 or F8_E4M3. Of F8_E4M3 "X.weight", an "X.scale_weight" (or "X.weight_scale") beside it of
 * one number or one for each row comes along as out->scale. Problems are noted, and *out is then an
 * empty tensor; see rp_weights_finish. */
void rp_weights_bind(rp_weights *weights, rp_tensor *out, int n_dims, const int64_t *dims,
                     const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 5, 6)))
#endif
    ;

/* Is there such a tensor? For prefixes that vary ("model."). Notes nothing. NULL has none. */
bool rp_weights_has(const rp_weights *weights, const char *name);

/* Tensors whose names start with this are not "left over" (the VAE's "encoder."); up to 16
 * prefixes. NULL is allowed: nothing is left over there. */
void rp_weights_ignore(rp_weights *weights, const char *prefix);

/* RP_OK, or RP_E_FORMAT with one line that counts and names what is wrong (the first few of each
 * kind). */
rp_status rp_weights_finish(rp_weights *weights);

/* Over all files; see rp_safetensors_fingerprint. */
uint64_t rp_weights_fingerprint(const rp_weights *weights);
uint64_t rp_weights_bytes(const rp_weights *weights);

#endif
