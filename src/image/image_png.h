/*
 * image_png.h - the steps from a picture to its file, for image_files.c.
 */
#ifndef RP_IMAGE_PNG_H
#define RP_IMAGE_PNG_H

#include "image/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A PNG file's bytes; or why there are none. free(bytes), also after a failure. */
typedef struct {
    uint8_t *bytes;
    size_t n_bytes, room;
    char message[128];
} rp_png;

/* RP_E_ARG (logged): what rp_image_write_png refuses. */
rp_status rp_png_check(const rp_image_file *file, int w, int h);

/* false: not made, and out->message says why. Logs nothing; several threads may be in it. */
bool rp_png_encode(const rp_image_file *file, int w, int h, rp_png *out);

/* RP_E_IO, RP_E_EXISTS (logged). */
rp_status rp_png_write(const rp_image_file *file, const rp_png *png, int overwrite);

#endif
