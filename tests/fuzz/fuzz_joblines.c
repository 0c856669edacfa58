/* fuzz_joblines.c - bytes as one line of a batch file: settings stay whole, whatever the line holds. */
#include "job/job_settings.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void ignore_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

/* Every value that was accepted is one that the option's own row accepts. */
static void check(const rp_settings *settings)
{
    rp_job_params params;

    for (size_t i = 0; i < rp_option_count(); i++) {
        const char *name = rp_option_at(i)->name;
        assert(rp_option_check((rp_option_id)i, name, rp_settings_get(settings, name)) == RP_OK);
    }
    assert(rp_job_params_read(settings, &params) == RP_OK);
    assert(params.steps >= 1 && params.steps <= 1000 && params.images >= 1);
    assert(params.guider != NULL && params.sampler != NULL && params.schedule != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    char *line            = malloc(n_bytes + 1);
    rp_settings *settings = rp_settings_new();

    rp_set_log(ignore_line, NULL);
    memcpy(line, bytes, n_bytes);
    line[n_bytes] = '\0';
    if (rp_settings_set_json(settings, line) == RP_OK) {
        check(settings);
        char *json = rp_settings_json(settings, RP_OPT_PICTURE, NULL);
        assert(json != NULL && rp_settings_set_json(settings, json) == RP_OK); /* what goes out comes in */
        free(json);
    }
    rp_settings_free(settings);
    free(line);
    return 0;
}
