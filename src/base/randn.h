/*
 * randn.h - the noise that PyTorch draws on a CPU.
 */
#ifndef RP_RANDN_H
#define RP_RANDN_H

#include <stddef.h>
#include <stdint.h>

/*
 * out[n] = torch.manual_seed(seed); torch.randn(n)   bit for bit (PyTorch on a CPU with AVX2 or
 * newer; the shape does not matter, only the number of elements). mt19937 uses the low 32 bits of
 * the seed. Source: PyTorch, ATen/native/cpu/DistributionTemplates.h (normal_fill),
 * ATen/core/MT19937RNGEngine.h; Box & Muller 1958. Thread-safe, allocates nothing, cannot fail.
 */
void rp_randn(uint64_t seed, float *out, size_t n);

/* The same without what only some processors have: for tests. */
void rp_randn_anywhere(uint64_t seed, float *out, size_t n);

#endif
