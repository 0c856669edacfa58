/*
 * fuzz_png.c - bytes as a PNG with settings.
 *
 * The checksums stop nearly every mutation, so each input is tried twice: as it is, and with all
 * checksums made right, which lets the mutations reach what stands inside the chunks.
 */
#include "base/log.h"
#include "base/text.h"
#include "image/image.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void ignore_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Bit by bit, on purpose not the reader's table. */
static uint32_t crc_of(const uint8_t *bytes, size_t n_bytes)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) {
            crc = crc & 1 ? 0xEDB88320u ^ crc >> 1 : crc >> 1;
        }
    }
    return ~crc;
}

static void repair_checksums(uint8_t *bytes, size_t n_bytes)
{
    size_t at = 8;

    while (at + 12 <= n_bytes && read_u32(bytes + at) <= n_bytes - at - 12) {
        const size_t n = read_u32(bytes + at);
        const uint32_t crc = crc_of(bytes + at + 4, n + 4);
        for (int i = 0; i < 4; i++) {
            bytes[at + 8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        }
        at += n + 12;
    }
}

static void parse(const uint8_t *bytes, size_t n_bytes)
{
    char *text = NULL;

    if (rp_image_parse_settings("fuzz", bytes, n_bytes, &text) == RP_OK) {
        assert(strlen(text) < n_bytes && rp_text_bad_utf8(text) < 0);
        free(text);
    } else {
        assert(text == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    uint8_t *const copy = malloc(n_bytes > 0 ? n_bytes : 1);

    rp_set_log(ignore_line, NULL);
    parse(bytes, n_bytes);
    memcpy(copy, bytes, n_bytes);
    repair_checksums(copy, n_bytes);
    parse(copy, n_bytes);
    free(copy);
    return 0;
}
