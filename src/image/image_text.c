/*
 * image_text.c - the settings inside a PNG.
 *
 * A PNG is a signature and chunks: length, type, data, CRC of type and data, big-endian (W3C,
 * "Portable Network Graphics", section 5). Reading text needs no more than a walk over them, in
 * linear time and without decoding a pixel, which libpng has no way to leave out.
 */
#include "image/image.h"

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TEXT_BYTES ((size_t)1 << 20)
#define SETTINGS_KEY   "rankpool"
#define IHDR_BYTES     13u
#define CHUNK_OVERHEAD 12u /* length, type and CRC */

typedef struct {
    const uint8_t *type; /* 4 letters */
    const uint8_t *data;
    size_t n_bytes;
} chunk;

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* CRC-32 as in the PNG specification, appendix D; a nibble at a time keeps the table readable. */
static uint32_t crc_of(const uint8_t *bytes, size_t n_bytes)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
        0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
        0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static bool is_type(const chunk *c, const char *type)
{
    return memcmp(c->type, type, 4) == 0;
}

/* The chunk at bytes[*at], and *at behind it. NULL, or what is wrong. */
static const char *next_chunk(const uint8_t *bytes, size_t n_bytes, size_t *at, chunk *out)
{
    const size_t left = n_bytes - *at;

    if (left < CHUNK_OVERHEAD) {
        return "it is cut short";
    }
    const size_t n = read_u32(bytes + *at);
    if (n > 0x7FFFFFFFu) {
        return "a chunk has an impossible length";
    }
    if (n > left - CHUNK_OVERHEAD) {
        return "it is cut short";
    }
    out->type = bytes + *at + 4;
    out->data = bytes + *at + 8;
    out->n_bytes = n;
    if (crc_of(out->type, n + 4) != read_u32(out->data + n)) {
        return "a checksum is wrong";
    }
    *at += n + CHUNK_OVERHEAD;
    return NULL;
}

static bool is_settings(const chunk *c)
{
    return (is_type(c, "iTXt") || is_type(c, "tEXt") || is_type(c, "zTXt")) &&
           c->n_bytes >= sizeof(SETTINGS_KEY) &&
           memcmp(c->data, SETTINGS_KEY, sizeof(SETTINGS_KEY)) == 0; /* with the NUL */
}

/* iTXt: key NUL, compressed?, method, language NUL, translated key NUL, text. tEXt: key NUL, text;
 * some programs turn the one into the other. */
static rp_status take_text(const char *name, const chunk *c, char **settings_out)
{
    const uint8_t *text = c->data + sizeof(SETTINGS_KEY);
    const uint8_t *const end = c->data + c->n_bytes;

    if (is_type(c, "zTXt") || (is_type(c, "iTXt") && text < end && *text != 0)) {
        return RP_FAIL(RP_E_FORMAT,
                       "%s: the settings inside are compressed, which is not supported", name);
    }
    if (is_type(c, "iTXt")) {
        text += 2;
        for (int i = 0; i < 2; i++) {
            text = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
            if (text == NULL) {
                return RP_FAIL(RP_E_FORMAT, "%s is a damaged PNG: a text chunk is malformed", name);
            }
            text++;
        }
    }
    const size_t n_bytes = (size_t)(end - text);
    if (n_bytes > MAX_TEXT_BYTES) {
        return RP_FAIL(RP_E_FORMAT, "%s: the settings inside have %zu bytes, at most %zu are read",
                       name, n_bytes, MAX_TEXT_BYTES);
    }
    char *const copy = strndup((const char *)text, n_bytes);
    if (copy == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for the settings in %s", name);
    }
    if (strlen(copy) != n_bytes || rp_text_bad_utf8(copy) >= 0) {
        free(copy);
        return RP_FAIL(RP_E_FORMAT, "%s: the settings inside are not UTF-8", name);
    }
    *settings_out = copy;
    return RP_OK;
}

/* Walk all chunks, also behind the settings: a file that is damaged anywhere is refused. */
static rp_status find_settings(const char *name, const uint8_t *bytes, size_t n_bytes, size_t at,
                               chunk *found_out)
{
    const char *why = NULL;
    chunk c = {0}, found = {0};
    bool has_pixels = false;

    for (int i = 0; why == NULL && (i == 0 || !is_type(&c, "IEND")); i++) {
        why = next_chunk(bytes, n_bytes, &at, &c);
        if (why != NULL) {
            break;
        }
        if ((i == 0) != is_type(&c, "IHDR") || (i == 0 && c.n_bytes != IHDR_BYTES)) {
            why = "its header is not in its place";
        }
        has_pixels = has_pixels || is_type(&c, "IDAT");
        if (why == NULL && is_settings(&c)) {
            why = found.data != NULL ? "more than one chunk \"" SETTINGS_KEY "\"" : NULL;
            found = c;
        }
    }
    if (why == NULL && !has_pixels) {
        why = "it has no pixels";
    }
    if (why != NULL) {
        return RP_FAIL(RP_E_FORMAT, "%s is a damaged PNG: %s", name, why);
    }
    if (found.data == NULL) {
        return RP_FAIL(RP_E_FORMAT, "%s has no settings of rankpool inside", name);
    }
    *found_out = found;
    return RP_OK;
}

rp_status rp_image_parse_settings(const char *name, const uint8_t *bytes, size_t n_bytes,
                                  char **settings_out)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    chunk found = {0};

    if (n_bytes < sizeof(signature) || memcmp(bytes, signature, sizeof(signature)) != 0) {
        return RP_FAIL(RP_E_FORMAT, "%s is not a PNG", name);
    }
    RP_TRY(find_settings(name, bytes, n_bytes, sizeof(signature), &found));
    return take_text(name, &found, settings_out);
}

rp_status rp_image_read_settings(const char *path, char **settings_out)
{
    rp_status st = RP_OK;
    struct stat about = {0};
    void *map = NULL;
    size_t n_bytes = 0;
    /* O_NONBLOCK: opening a pipe must not wait for its writer. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &about) != 0) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(about.st_mode)) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: it is not a regular file", path);
        goto out;
    }
    n_bytes = (size_t)about.st_size;
    if (n_bytes > 0) {
        map = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            map = NULL;
            st = RP_FAIL(RP_E_IO, "cannot map %s: %s", path, strerror(errno));
            goto out;
        }
    }
    st = rp_image_parse_settings(path, map != NULL ? map : (const void *)"", n_bytes, settings_out);

out:
    if (map != NULL) {
        (void)munmap(map, n_bytes);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return st;
}
