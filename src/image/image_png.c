/*
 * image_png.c - write PNG files that carry their settings.
 *
 * libpng reports errors by longjmp: setjmp stands in a function of its own whose locals do not
 * change after it, and whatever must be freed belongs to the caller.
 */
#include "image/image.h"

#include "base/check.h"
#include "base/log.h"
#include "base/outfile.h"
#include "base/text.h"

#include <rankpool/rankpool.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

#define MAX_SIDE_PX        65536
#define MAX_SETTINGS_BYTES ((size_t)512 << 10)
#define ZLIB_LEVEL         6
#define SETTINGS_KEY       "rankpool"

/* The message of png_error, for the one line that our caller logs. */
typedef struct {
    char message[128];
} fault;

static void on_error(png_structp png, png_const_charp message)
{
    fault *const f = png_get_error_ptr(png);

    (void)snprintf(f->message, sizeof(f->message), "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void write_bytes(png_structp png, png_bytep bytes, size_t n_bytes)
{
    if (fwrite(bytes, 1, n_bytes, png_get_io_ptr(png)) != n_bytes) {
        png_error(png, "write failed");
    }
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
    png_set_compression_level(png, ZLIB_LEVEL);
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

static rp_status check_picture(const char *path, const uint8_t *rgb, int w, int h,
                               const char *settings)
{
    if (rgb == NULL || w < 1 || h < 1 || w > MAX_SIDE_PX || h > MAX_SIDE_PX) {
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

rp_status rp_image_write_png(const char *path, const uint8_t *rgb, int w, int h,
                             const char *settings, int overwrite)
{
    rp_status st = RP_OK;
    rp_outfile *file = NULL;
    fault f = {""};
    png_structp png = NULL;
    png_infop info = NULL;

    RP_TRY_OUT(check_picture(path, rgb, w, h, settings));
    RP_TRY_OUT(rp_outfile_open(path, overwrite, &file));
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &f, on_error, on_warning);
    info = png != NULL ? png_create_info_struct(png) : NULL;
    if (info == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for writing %s", path);
        goto out;
    }
    png_set_write_fn(png, rp_outfile_stream(file), write_bytes, flush_nothing);
    if (!encode(png, info, rgb, w, h, settings) && !ferror(rp_outfile_stream(file))) {
        st = RP_FAIL(RP_E_NOMEM, "cannot encode %s: %s", path, f.message);
        goto out;
    }
    st = rp_outfile_commit(file); /* finds and names a failed write */
    file = NULL;

out:
    png_destroy_write_struct(&png, &info);
    rp_outfile_abandon(file);
    return st;
}
