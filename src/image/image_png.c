/*
 * image_png.c - pictures to PNG files that carry their settings.
 *
 * libpng reports errors by longjmp: setjmp stands in a function of its own whose locals do not
 * change after it, and whatever must be freed belongs to the caller.
 *
 * Photographs hardly repeat themselves, so zlib looks for runs alone: several times as fast as
 * its level 6, and the files are about as large (src/README.md). Patterns would be larger.
 */
#include "image/image_png.h"

#include "base/check.h"
#include "base/log.h"
#include "base/outfile.h"
#include "base/text.h"

#include <rankpool/rankpool.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>
#include <zlib.h>

#define MAX_SIDE_PX        65536
#define MAX_SETTINGS_BYTES ((size_t)512 << 10)
#define SETTINGS_KEY       "rankpool"

static void on_error(png_structp png, png_const_charp message)
{
    rp_png *const to = png_get_error_ptr(png);

    (void)snprintf(to->message, sizeof(to->message), "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void keep_bytes(png_structp png, png_bytep bytes, size_t n_bytes)
{
    rp_png *const to = png_get_io_ptr(png);

    if (n_bytes > to->room - to->n_bytes) {
        const size_t room = 2 * to->room + n_bytes + 65536;
        uint8_t *const grown = realloc(to->bytes, room);
        if (grown == NULL) {
            png_error(png, "no memory");
        }
        to->bytes = grown;
        to->room = room;
    }
    memcpy(to->bytes + to->n_bytes, bytes, n_bytes);
    to->n_bytes += n_bytes;
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

static void put_text(png_structp png, png_infop info, const char *settings)
{
    png_text text[2] = {
        {.compression = PNG_TEXT_COMPRESSION_NONE, .key = "Software"},
        {.compression = PNG_ITXT_COMPRESSION_NONE, .key = SETTINGS_KEY, .lang = "", .lang_key = ""},
    };
    char software[64];

    (void)snprintf(software, sizeof(software), "rankpool %s", rp_version());
    text[0].text = software;
    text[1].text = (char *)(uintptr_t)settings; /* libpng copies it and writes nothing there */
    png_set_text(png, info, text, settings != NULL ? 2 : 1);
}

/* False after an error of libpng. Text goes before the pixels: readers find it without decoding. */
static bool encode(png_structp png, png_infop info, const uint8_t *rgb, int w, int h,
                   const char *settings)
{
    if (setjmp(png_jmpbuf(png)) != 0) {
        return false;
    }
    png_set_user_limits(png, MAX_SIDE_PX, MAX_SIDE_PX);
    png_set_compression_level(png, 1);
    png_set_compression_strategy(png, Z_RLE);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    put_text(png, info, settings);
    png_write_info(png, info);
    for (int y = 0; y < h; y++) {
        png_write_row(png, rgb + (size_t)y * (size_t)w * 3);
    }
    png_write_end(png, NULL);
    return true;
}

rp_status rp_png_check(const rp_image_file *file, int w, int h)
{
    const char *path = file->path, *settings = file->settings;

    if (file->rgb == NULL || w < 1 || h < 1 || w > MAX_SIDE_PX || h > MAX_SIDE_PX) {
        return RP_FAIL(RP_E_ARG, "%s: a picture of %d x %d pixels, 1 to %d each way", path, w, h,
                       MAX_SIDE_PX);
    }
    if (settings != NULL && strlen(settings) > MAX_SETTINGS_BYTES) {
        return RP_FAIL(RP_E_ARG, "%s: settings of %zu bytes, at most %zu fit", path,
                       strlen(settings), MAX_SETTINGS_BYTES);
    }
    if (settings != NULL && rp_text_bad_utf8(settings) >= 0) {
        return RP_FAIL(RP_E_ARG, "%s: byte %ld of the settings is not UTF-8", path,
                       rp_text_bad_utf8(settings));
    }
    return RP_OK;
}

bool rp_png_encode(const rp_image_file *file, int w, int h, rp_png *out)
{
    png_structp png;
    png_infop info;
    bool ok;

    *out = (rp_png){.message = "no memory"};
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, out, on_error, on_warning);
    info = png != NULL ? png_create_info_struct(png) : NULL;
    ok = info != NULL;
    if (ok) {
        png_set_write_fn(png, out, keep_bytes, flush_nothing);
        ok = encode(png, info, file->rgb, w, h, file->settings);
    }
    png_destroy_write_struct(&png, &info);
    return ok;
}

rp_status rp_png_write(const rp_image_file *file, const rp_png *png, int overwrite)
{
    rp_outfile *out = NULL;

    RP_TRY(rp_outfile_open(file->path, overwrite, &out));
    (void)fwrite(png->bytes, 1, png->n_bytes, rp_outfile_stream(out));
    return rp_outfile_commit(out); /* finds and names a failed write */
}
