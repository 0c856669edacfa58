/* cli_sheet.h - copies of a batch's pictures, for one overview picture at its end. */
#ifndef RP_CLI_SHEET_H
#define RP_CLI_SHEET_H

#include "cli/cli_jobs.h"

typedef struct {
    const char *path; /* NULL: no sheet is wanted, and the calls below do nothing */
    int columns, overwrite;
    uint8_t **rgb; /* n pictures [height, width, 3] */
    int n, width, height;
} rp_cli_sheet;

/* Can there be a sheet? All jobs must have one size; RP_E_ARG, RP_E_EXISTS, RP_E_IO (logged). */
rp_status rp_cli_sheet_check(const rp_cli_sheet *sheet, const rp_cli_jobs *jobs);

/* Keep the pictures of one job. RP_E_NOMEM (logged). */
rp_status rp_cli_sheet_add(rp_cli_sheet *sheet, const rp_result *result);

/* Write the sheet if there is a picture. n_missing: pictures that belong to the batch and are not
 * on it; a warning tells. */
rp_status rp_cli_sheet_write(const rp_cli_sheet *sheet, int n_missing);

void rp_cli_sheet_fini(rp_cli_sheet *sheet);

#endif
