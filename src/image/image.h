/*
 * image.h - pictures as PNG files that carry their settings.
 */
#ifndef RP_IMAGE_H
#define RP_IMAGE_H

#include <rankpool/status.h>

#include <stddef.h>
#include <stdint.h>

/* rgb [h, w, 3] is to be the file `path`. `settings` is JSON text in UTF-8 for the iTXt chunk
 * "rankpool" (at most 512 KiB), or NULL; the program's name and version go to "Software". Borrowed.
 */
typedef struct {
    const char *path;
    const uint8_t *rgb;
    const char *settings;
} rp_image_file;

/* Write n pictures of one size, one after the other, while up to n_threads threads compress those
 * that follow. The same pixels and text give the same bytes (no time stamp). The first that fails
 * ends it; those before it are there. RP_E_ARG (size not 1 to 65536, bad text: nothing is written),
 * RP_E_IO, RP_E_EXISTS, RP_E_NOMEM. */
rp_status rp_image_write_pngs(const rp_image_file *files, int n, int w, int h, int overwrite,
                              int n_threads);

/* One. */
rp_status rp_image_write_png(const char *path, const uint8_t *rgb, int w, int h,
                             const char *settings, int overwrite);

/* Text of the chunk "rankpool" of a PNG, from before or after the pixels, which are checked but not
 * decoded. RP_E_IO, RP_E_FORMAT (no PNG, damaged, not one such chunk, not UTF-8; logged). Free with
 * free(). */
rp_status rp_image_read_settings(const char *path, char **settings_out);
/* The same over bytes (fuzzing). */
rp_status rp_image_parse_settings(const char *name, const uint8_t *bytes, size_t n_bytes,
                                  char **settings_out);

/* n pictures of [h, w, 3] side by side, `columns` (or n, if that is less) a row, white where there
 * is none. RP_E_ARG, RP_E_IO, RP_E_EXISTS, RP_E_NOMEM. */
rp_status rp_image_write_sheet(const char *path, const uint8_t *const *rgb, int n, int w, int h,
                               int columns, int overwrite);

#endif
