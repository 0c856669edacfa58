/* text.h - small questions about text. */
#ifndef RP_TEXT_H
#define RP_TEXT_H

#include <stddef.h>

/* Offset of the first byte that is not valid UTF-8 (RFC 3629: no overlong forms, no surrogates), or
 * -1. */
long rp_text_bad_utf8(const char *text);

/* The candidate with the smallest edit distance to `word`, if it is close enough to be a slip
 * (distance at most 1 + length / 3), else NULL. */
const char *rp_text_nearest(const char *word, const char *const *candidates, size_t n);

#endif
