/* cli_sheet.c - one overview picture of a batch. */
#include "cli/cli_sheet.h"

#include "cli/cli_commands.h"
#include "cli/cli_log.h"

#include <stdlib.h>
#include <string.h>

rp_status rp_cli_sheet_check(const rp_cli_sheet *sheet, const rp_cli_jobs *jobs)
{
    static const char *const keys[] = {"width", "height"};
    const rp_cli_job *first = NULL;

    if (sheet->path == NULL) {
        return RP_OK;
    }
    for (size_t i = 0; i < jobs->n; i++) {
        const rp_cli_job *job = &jobs->jobs[i];
        if (job->settings == NULL) {
            continue;
        }
        first = first == NULL ? job : first;
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            const char *want = rp_settings_get(first->settings, keys[k]);
            const char *have = rp_settings_get(job->settings, keys[k]);
            if (strcmp(want, have) != 0) {
                rp_cli_error(
                    "--sheet needs pictures of one size: %s is '%s' in line %ld and '%s' in "
                    "line %ld of %s",
                    keys[k], want, first->line, have, job->line, jobs->file);
                return RP_E_ARG;
            }
        }
    }
    return rp_cli_check_output(sheet->path, sheet->overwrite);
}

rp_status rp_cli_sheet_add(rp_cli_sheet *sheet, const rp_result *result)
{
    const int n = rp_result_n_images(result);

    if (sheet->path == NULL || n == 0) {
        return RP_OK;
    }
    uint8_t **more = realloc(sheet->rgb, (size_t)(sheet->n + n) * sizeof(*more));
    if (more != NULL) {
        sheet->rgb = more;
    }
    for (int i = 0; more != NULL && i < n; i++) {
        const uint8_t *rgb = rp_result_rgb(result, i, &sheet->width, &sheet->height);
        const size_t n_bytes = (size_t)sheet->width * (size_t)sheet->height * 3;
        sheet->rgb[sheet->n] = malloc(n_bytes);
        if (rgb == NULL || sheet->rgb[sheet->n] == NULL) {
            free(sheet->rgb[sheet->n]);
            more = NULL;
        } else {
            memcpy(sheet->rgb[sheet->n++], rgb, n_bytes);
        }
    }
    if (more == NULL) {
        rp_cli_error("no memory for picture %d of the sheet %s", sheet->n + 1, sheet->path);
        return RP_E_NOMEM;
    }
    return RP_OK;
}

rp_status rp_cli_sheet_write(const rp_cli_sheet *sheet, int n_missing)
{
    if (sheet->path == NULL) {
        return RP_OK;
    }
    if (sheet->n == 0) {
        rp_cli_warn("no sheet %s: it would show what was made now, and no picture was; "
                    "--overwrite makes kept ones again",
                    sheet->path);
        return RP_OK;
    }
    if (n_missing > 0) {
        rp_cli_warn(
            "the sheet %s shows what was made now: %d of the jobs were kept, failed or not run",
            sheet->path, n_missing);
    }
    return rp_write_sheet(sheet->path, (const uint8_t *const *)sheet->rgb, sheet->n, sheet->width,
                          sheet->height, sheet->columns, sheet->overwrite);
}

void rp_cli_sheet_fini(rp_cli_sheet *sheet)
{
    for (int i = 0; i < sheet->n; i++) {
        free(sheet->rgb[i]);
    }
    free(sheet->rgb);
    *sheet = (rp_cli_sheet){0};
}
