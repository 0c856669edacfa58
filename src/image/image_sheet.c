/* image_sheet.c - several pictures in one. */
#include "image/image.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SIDE_PX 65536

rp_status rp_image_write_sheet(const char *path, const uint8_t *const *rgb, int n, int w, int h,
                               int columns, int overwrite)
{
    void *mem = NULL;

    if (n < 1 || w < 1 || h < 1 || columns < 1) {
        return RP_FAIL(RP_E_ARG, "%s: %d pictures of %d x %d in %d columns: all must be at least 1",
                       path, n, w, h, columns);
    }
    const int n_columns = columns < n ? columns : n;
    const int n_rows = (n - 1) / n_columns + 1;
    const int64_t sheet_w = (int64_t)w * n_columns, sheet_h = (int64_t)h * n_rows;
    if (sheet_w > MAX_SIDE_PX || sheet_h > MAX_SIDE_PX) {
        return RP_FAIL(RP_E_ARG, "%s: a sheet of %lld x %lld pixels, at most %d each way", path,
                       (long long)sheet_w, (long long)sheet_h, MAX_SIDE_PX);
    }
    const size_t row_bytes = (size_t)w * 3, sheet_row_bytes = (size_t)sheet_w * 3;
    RP_TRY(rp_mem_new((size_t)sheet_h, sheet_row_bytes, "a sheet", &mem));
    uint8_t *const sheet = mem; /* [sheet_h, sheet_w, 3] */

    memset(sheet, 0xFF, (size_t)sheet_h * sheet_row_bytes);
    for (int i = 0; i < n; i++) {
        uint8_t *to = sheet + (size_t)(i / n_columns) * (size_t)h * sheet_row_bytes +
                      (size_t)(i % n_columns) * row_bytes;
        for (int y = 0; y < h; y++, to += sheet_row_bytes) {
            memcpy(to, rgb[i] + (size_t)y * row_bytes, row_bytes);
        }
    }
    const rp_status st =
        rp_image_write_png(path, sheet, (int)sheet_w, (int)sheet_h, NULL, overwrite);

    free(mem);
    return st;
}
