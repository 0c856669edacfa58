/* plain_memory.h - memory of the C library for a pool's slots. */
#ifndef RP_PLAIN_MEMORY_H
#define RP_PLAIN_MEMORY_H

#include "pool/pool.h"

#include <stdlib.h>

static inline rp_status plain_alloc(void *self, size_t n_bytes, const char *what, void **out)
{
    (void)self;
    (void)what;
    *out = calloc(1, n_bytes);
    return *out != NULL ? RP_OK : RP_E_NOMEM;
}

static inline void plain_release(void *self, void *mem)
{
    (void)self;
    free(mem);
}

static const rp_pool_memory plain_memory = {plain_alloc, plain_release, NULL};

#endif
