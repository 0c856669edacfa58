/* rankpool.c - the public functions: argument checks, and nothing else. */
#include <rankpool/rankpool.h>

#include "base/log.h"
#include "image/image.h"
#include "job/job.h"

#include <stdlib.h>
#include <string.h>

rp_status rp_open(const rp_settings *settings, rankpool **pool_out)
{
    if (settings == NULL || pool_out == NULL) {
        return RP_FAIL(RP_E_ARG, "rp_open: settings and pool_out must not be NULL");
    }
    return rp_resident_open(settings, pool_out);
}

void rp_close(rankpool *pool)
{
    rp_resident_close(pool);
}

int rp_rank(const rankpool *pool)
{
    return pool != NULL ? rp_ctrl_rank(pool->ctrl) : 0;
}

int rp_n_ranks(const rankpool *pool)
{
    return pool != NULL ? rp_ctrl_n_ranks(pool->ctrl) : 1;
}

rp_status rp_serve(rankpool *pool)
{
    if (pool == NULL) {
        return RP_FAIL(RP_E_ARG, "rp_serve: no pool");
    }
    return rp_resident_serve(pool);
}

rp_status rp_generate(rankpool *pool, const rp_settings *job, const rp_hooks *hooks,
                      rp_result **result_out)
{
    if (pool == NULL || job == NULL) {
        return RP_FAIL(RP_E_ARG, "rp_generate: no pool or no settings");
    }
    if (rp_ctrl_rank(pool->ctrl) != 0) {
        return RP_FAIL(RP_E_ARG, "rp_generate is for rank 0; rank %d serves",
                       rp_ctrl_rank(pool->ctrl));
    }
    if (pool->failed != RP_OK) {
        return RP_FAIL(RP_E_ARG, "rp_generate: the pool failed before (%s); close it",
                       rp_status_text(pool->failed));
    }
    return rp_job_run(pool, job, hooks, result_out);
}

int rp_result_n_images(const rp_result *result)
{
    return result->n_images;
}

const uint8_t *rp_result_rgb(const rp_result *result, int i, int *width_out, int *height_out)
{
    if (i < 0 || i >= result->n_images) {
        return NULL;
    }
    *width_out = result->width;
    *height_out = result->height;
    return result->rgb[i];
}

const char *rp_result_report(const rp_result *result)
{
    return result->report;
}

char *rp_result_timeline(const rp_result *result)
{
    return rp_timeline_json(result->units, result->n_units);
}

/* ---- registries: every row begins with name and help */

typedef struct {
    const char *name, *help;
} list_row;

rp_status rp_list(const char *kind, size_t index, const char **name_out, const char **help_out)
{
    const struct {
        const char *kind;
        const void *const *rows;
    } lists[] = {
        {"samplers", (const void *const *)rp_sampler_list},
        {"schedules", (const void *const *)rp_schedule_list},
        {"guiders", (const void *const *)rp_guider_list},
        {"models", (const void *const *)rp_denoiser_list},
        {"models", (const void *const *)rp_encoder_list},
        {"models", (const void *const *)rp_vae_list},
        {"transports", (const void *const *)rp_xport_list},
        {"backends", (const void *const *)rp_backend_list},
    };

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        for (size_t k = 0; strcmp(kind, lists[i].kind) == 0 && lists[i].rows[k] != NULL; k++) {
            if (index-- == 0) {
                const list_row *row = lists[i].rows[k];
                *name_out = row->name;
                *help_out = row->help;
                return RP_OK;
            }
        }
    }
    return RP_E_ABSENT;
}

char *rp_info(rankpool *pool)
{
    return rp_info_text(pool);
}

char *rp_ranks(rankpool *pool)
{
    return pool != NULL ? rp_ranks_text(pool) : NULL;
}

void rp_free(void *text)
{
    free(text);
}

rp_status rp_write_sheet(const char *path, const uint8_t *const *rgb, int n, int width, int height,
                         int columns, int overwrite)
{
    if (path == NULL || rgb == NULL || n < 1 || width < 1 || height < 1 || columns < 1) {
        return RP_FAIL(RP_E_ARG, "rp_write_sheet: no path or pictures, or a size below 1");
    }
    return rp_image_write_sheet(path, rgb, n, width, height, columns, overwrite);
}
