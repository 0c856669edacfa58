/* mem.c - checked allocation. */
#include "base/mem.h"

#include "base/log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES 64u

rp_status rp_mem_new(size_t n_elems, size_t elem_bytes, const char *what, void **out)
{
    if (elem_bytes != 0 && n_elems > (SIZE_MAX - ALIGN_BYTES) / elem_bytes) {
        return RP_FAIL(RP_E_NOMEM, "no memory for %s: %zu x %zu bytes", what, n_elems, elem_bytes);
    }
    const size_t n_bytes = n_elems * elem_bytes;
    const size_t padded = (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    void *mem = NULL;

    if (padded != 0) {
        mem = aligned_alloc(ALIGN_BYTES, padded);
        if (mem == NULL) {
            return RP_FAIL(RP_E_NOMEM, "no memory for %s: %zu bytes", what, n_bytes);
        }
        memset(mem, 0, padded);
    }
    *out = mem;
    return RP_OK;
}

char *rp_mem_printf(const char *format, ...)
{
    va_list args;
    char *text = NULL;

    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n >= 0 && (text = malloc((size_t)n + 1)) != NULL) {
        va_start(args, format);
        (void)vsnprintf(text, (size_t)n + 1, format, args);
        va_end(args);
    }
    return text;
}
