/* text.c - small questions about text. */
#include "base/text.h"

#include <string.h>

/* Longer words are no slips of an option's or a sampler's name. */
#define NEAREST_MAX_BYTES 63

/* Bytes of the UTF-8 sequence at `s`, 0 when it is none. The ranges of the second byte keep out
 * overlong forms, surrogates and what lies above U+10FFFF (RFC 3629, section 4). */
static int sequence_bytes(const unsigned char *s)
{
    unsigned char low = 0x80, high = 0xBF;
    int n;

    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        n = 2;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        n = 3;
        low = s[0] == 0xE0 ? 0xA0 : 0x80;
        high = s[0] == 0xED ? 0x9F : 0xBF;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        n = 4;
        low = s[0] == 0xF0 ? 0x90 : 0x80;
        high = s[0] == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (s[1] < low || s[1] > high) { /* also stops at the end of the text */
        return 0;
    }
    for (int i = 2; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return n;
}

long rp_text_bad_utf8(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    while (*s != 0) {
        const int n = sequence_bytes(s);
        if (n == 0) {
            return (long)(s - (const unsigned char *)text);
        }
        s += n;
    }
    return -1;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* Levenshtein distance, one row at a time: row[j] holds the distance of a[0..i) and b[0..j). */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t row[NEAREST_MAX_BYTES + 1];

    for (size_t j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (size_t i = 0; i < n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n_b; j++) {
            const size_t above = row[j + 1];
            row[j + 1] = min3(above + 1, row[j] + 1, diagonal + (a[i] != b[j] ? 1u : 0u));
            diagonal = above;
        }
    }
    return row[n_b];
}

const char *rp_text_nearest(const char *word, const char *const *candidates, size_t n)
{
    const size_t n_word = strlen(word);
    size_t best = n_word / 3 + 2; /* the first distance that is too far */
    const char *nearest = NULL;

    if (n_word > NEAREST_MAX_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t n_candidate = strlen(candidates[i]);
        if (n_candidate > NEAREST_MAX_BYTES) {
            continue;
        }
        const size_t distance = edit_distance(word, n_word, candidates[i], n_candidate);
        if (distance < best) {
            best = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}
