/*
 * mem.h - host memory: checked allocation, and text that grows.
 */
#ifndef RP_MEM_H
#define RP_MEM_H

#include <rankpool/status.h>

#include <stddef.h>

/*
 * n_elems * elem_bytes bytes of zeros, aligned to 64. *out = NULL for 0 bytes.
 * RP_E_NOMEM: overflow or no memory, logged with `what` for the message ("latents of 3 images").
 * Free with free().
 */
rp_status rp_mem_new(size_t n_elems, size_t elem_bytes, const char *what, void **out);

/* A formatted string in new memory; free with free(). NULL only when out of memory. */
char *rp_mem_printf(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

#endif
