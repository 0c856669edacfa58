/* job_settings.c - option names and values: from the environment, from text, from JSON, from a PNG.
 */
#include "job/job_settings.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "image/image.h"
#include "weights/json.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool put(rp_settings *settings, rp_option_id id, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        return false;
    }
    free(settings->text[id]);
    settings->text[id] = copy;
    return true;
}

/* A bad environment is remembered, not printed: nobody may be listening yet. */
static void read_environment(rp_settings *settings, rp_option_id id)
{
    const char *value = getenv(rp_option_at(id)->env);

    if (value == NULL || value[0] == '\0') {
        return;
    }
    char reason[RP_LOG_LINE_BYTES];
    rp_log_hold(true);
    const rp_status st = rp_option_check(id, rp_option_at(id)->env, value);
    rp_log_take(reason, sizeof(reason));
    rp_log_hold(false);
    if (st == RP_OK) {
        (void)put(settings, id, value);
    } else if (settings->env_error == NULL) {
        settings->env_error = rp_mem_printf("environment: %s", reason);
    }
}

rp_settings *rp_settings_new(void)
{
    rp_settings *settings = calloc(1, sizeof(*settings));

    for (int id = 0; settings != NULL && id < RP_N_OPTIONS; id++) {
        if (!put(settings, (rp_option_id)id, rp_option_at((size_t)id)->def)) {
            rp_settings_free(settings);
            return NULL;
        }
        read_environment(settings, (rp_option_id)id);
    }
    return settings;
}

rp_settings *rp_settings_copy(const rp_settings *settings)
{
    rp_settings *copy = calloc(1, sizeof(*copy));
    bool ok = copy != NULL;

    for (int id = 0; ok && id < RP_N_OPTIONS; id++) {
        ok = put(copy, (rp_option_id)id, settings->text[id]);
    }
    if (ok && settings->env_error != NULL) {
        copy->env_error = strdup(settings->env_error);
    }
    if (!ok) {
        rp_settings_free(copy);
        return NULL;
    }
    copy->picture_fingerprint = settings->picture_fingerprint;
    return copy;
}

void rp_settings_free(rp_settings *settings)
{
    if (settings == NULL) {
        return;
    }
    for (int id = 0; id < RP_N_OPTIONS; id++) {
        free(settings->text[id]);
    }
    free(settings->env_error);
    free(settings);
}

static rp_status unknown_option(const char *name)
{
    const char *names[RP_N_OPTIONS];

    for (int id = 0; id < RP_N_OPTIONS; id++) {
        names[id] = rp_option_at((size_t)id)->name;
    }
    const char *nearest = rp_text_nearest(name, names, RP_N_OPTIONS);
    return RP_FAIL(RP_E_ABSENT, "there is no option '%.60s'%s%s%s", name,
                   nearest != NULL ? "; did you mean '" : "", nearest != NULL ? nearest : "",
                   nearest != NULL ? "'?" : "; see rankpool sample --help");
}

rp_status rp_settings_set(rp_settings *settings, const char *name, const char *value)
{
    const rp_option_id id = rp_option_find(name);

    if (id == RP_N_OPTIONS) {
        return unknown_option(name);
    }
    RP_TRY(rp_option_check(id, name, value));
    return put(settings, id, value) ? RP_OK : RP_FAIL(RP_E_NOMEM, "no memory for option %s", name);
}

const char *rp_settings_get(const rp_settings *settings, const char *name)
{
    const rp_option_id id = rp_option_find(name);

    return id == RP_N_OPTIONS ? NULL : settings->text[id];
}

/* ---- JSON */

/* Value of a member as option text; numbers keep the digits that they need. */
static rp_status member_text(const cJSON *item, char *buffer, size_t n_bytes, const char **text_out)
{
    if (cJSON_IsString(item)) {
        *text_out = item->valuestring;
        return RP_OK;
    }
    if (cJSON_IsBool(item)) {
        *text_out = cJSON_IsTrue(item) ? "on" : "off";
        return RP_OK;
    }
    if (!cJSON_IsNumber(item)) {
        return RP_FAIL(RP_E_ARG, "key '%.60s': the value must be text, a number, true or false",
                       item->string);
    }
    const double value = item->valuedouble;
    if (fabs(value) >= 9007199254740992.0) { /* 2^53: from here on doubles skip whole numbers */
        return RP_FAIL(RP_E_ARG, "key '%.60s': a number this big loses digits; give it as text",
                       item->string);
    }
    if (value == floor(value)) {
        (void)snprintf(buffer, n_bytes, "%.0f", value);
    } else {
        (void)snprintf(buffer, n_bytes, "%.17g", value);
    }
    *text_out = buffer;
    return RP_OK;
}

static rp_status set_member(rp_settings *settings, const cJSON *item, bool job_line)
{
    const rp_option_id id = rp_option_find(item->string);
    const char *text = NULL;
    char buffer[64];

    if (id == RP_N_OPTIONS) {
        return unknown_option(item->string);
    }
    if (job_line && (rp_option_rule_at(id)->flags & RP_OPT_RUN) != 0) {
        return RP_FAIL(RP_E_ARG, "key '%s' is fixed for the whole run: give it on the command line",
                       item->string);
    }
    if (rp_option_rule_at(id)->kind == RP_OPT_TEXT && !cJSON_IsString(item)) {
        return RP_FAIL(RP_E_ARG, "key '%s': the value must be text, in quotes", item->string);
    }
    RP_TRY(member_text(item, buffer, sizeof(buffer), &text));
    return rp_settings_set(settings, item->string, text);
}

static rp_status parse_object(const char *json, cJSON **out)
{
    cJSON *root = NULL;

    RP_TRY(rp_json_parse("JSON", json, strlen(json), &rp_json_default, &root));
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return RP_FAIL(RP_E_FORMAT,
                       "not a JSON object: a job line looks like {\"prompt\": \"sun\"}");
    }
    *out = root;
    return RP_OK;
}

/* All or nothing: members go into a copy whose values are then taken over. */
static rp_status set_members(rp_settings *settings, const cJSON *root)
{
    rp_status st = RP_OK;
    rp_settings *next = rp_settings_copy(settings);

    if (next == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for a job's settings");
    }
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        RP_TRY_OUT(set_member(next, item, true));
    }
    for (int id = 0; id < RP_N_OPTIONS; id++) {
        char *swap = settings->text[id];
        settings->text[id] = next->text[id];
        next->text[id] = swap;
    }
out:
    rp_settings_free(next);
    return st;
}

rp_status rp_settings_set_json(rp_settings *settings, const char *json)
{
    cJSON *root = NULL;
    const long bad = rp_text_bad_utf8(json);

    if (bad >= 0) {
        return RP_FAIL(RP_E_FORMAT, "the line is not UTF-8 (byte %ld)", bad);
    }
    RP_TRY(parse_object(json, &root));
    const rp_status st = set_members(settings, root);
    cJSON_Delete(root);
    return st;
}

/* ---- PNG */

/* Keys of the chunk that are not options of a picture (versions, names) are left alone. */
static rp_status set_picture(rp_settings *settings, const cJSON *root)
{
    const cJSON *print = cJSON_GetObjectItemCaseSensitive(root, "model_fingerprint");

    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        const rp_option_id id = rp_option_find(item->string);
        if (id != RP_N_OPTIONS && (rp_option_rule_at(id)->flags & RP_OPT_PICTURE) != 0) {
            RP_TRY(set_member(settings, item, false));
        }
    }
    settings->picture_fingerprint =
        cJSON_IsString(print) ? strtoull(print->valuestring, NULL, 16) : 0;
    if (cJSON_GetObjectItemCaseSensitive(root, "latents_file") != NULL) {
        RP_WARN("the picture was made from a latents file: give it again with --latents-in");
    }
    return RP_OK;
}

rp_status rp_settings_set_png(rp_settings *settings, const char *path)
{
    rp_status st = RP_OK;
    char *json = NULL;
    cJSON *root = NULL;
    rp_settings *next = NULL;

    RP_TRY_OUT(rp_image_read_settings(path, &json));
    RP_TRY_OUT(parse_object(json, &root));
    next = rp_settings_copy(settings);
    if (next == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for the settings of %s", path);
        goto out;
    }
    RP_TRY_OUT(set_picture(next, root));
    rp_settings swap = *settings;
    *settings = *next;
    *next = swap;
out:
    rp_settings_free(next);
    cJSON_Delete(root);
    free(json);
    return st;
}

/* ---- typed values */

const char *rp_settings_text(const rp_settings *settings, rp_option_id id)
{
    return settings->text[id];
}

long rp_settings_int(const rp_settings *settings, rp_option_id id, long unset)
{
    const char *text = settings->text[id];

    return text[0] == '\0' ? unset : strtol(text, NULL, 10);
}

bool rp_settings_on(const rp_settings *settings, rp_option_id id)
{
    return strcmp(settings->text[id], "on") == 0;
}

static double real_of(const rp_settings *settings, rp_option_id id)
{
    const char *text = settings->text[id];

    return text[0] == '\0' ? 0.0 : strtod(text, NULL);
}

#define FIND_ROW(type, list, name)                                                                 \
    static const type *find_##type(const char *wanted)                                             \
    {                                                                                              \
        const type *const *row = list;                                                             \
        while (*row != NULL && strcmp((*row)->name, wanted) != 0) {                                \
            row++;                                                                                 \
        }                                                                                          \
        return *row;                                                                               \
    }

FIND_ROW(rp_guider, rp_guider_list, name)
FIND_ROW(rp_sampler, rp_sampler_list, name)
FIND_ROW(rp_schedule, rp_schedule_list, name)

rp_status rp_job_params_read(const rp_settings *s, rp_job_params *out)
{
    if (s->env_error != NULL) {
        return RP_FAIL(RP_E_ARG, "%s", s->env_error);
    }
    *out = (rp_job_params){
        .prompt = s->text[RP_OPTION_PROMPT],
        .negative = s->text[RP_OPTION_NEGATIVE],
        .system_prompt = s->text[RP_OPTION_SYSTEM_PROMPT],
        .out = s->text[RP_OPTION_OUT],
        .latents_in = s->text[RP_OPTION_LATENTS_IN],
        .latents_out = s->text[RP_OPTION_LATENTS_OUT],
        .report = s->text[RP_OPTION_REPORT],
        .trace = s->text[RP_OPTION_TRACE],
        .checkpoint = s->text[RP_OPTION_CHECKPOINT],
        .seed = strtoull(s->text[RP_OPTION_SEED], NULL, 10),
        .images = (int)rp_settings_int(s, RP_OPTION_IMAGES, 1),
        .width = (int)rp_settings_int(s, RP_OPTION_WIDTH, 0),
        .height = (int)rp_settings_int(s, RP_OPTION_HEIGHT, 0),
        .steps = (int)rp_settings_int(s, RP_OPTION_STEPS, 1),
        .max_tokens = (int)rp_settings_int(s, RP_OPTION_MAX_TOKENS, 1),
        .prompt_tokens = (int)rp_settings_int(s, RP_OPTION_PROMPT_TOKENS, 1),
        .overwrite = rp_settings_on(s, RP_OPTION_OVERWRITE),
        .softcap = rp_settings_on(s, RP_OPTION_SOFTCAP),
        .shift = real_of(s, RP_OPTION_SHIFT),
        .guide = {.scale = (float)real_of(s, RP_OPTION_GUIDANCE),
                  .renorm = rp_settings_on(s, RP_OPTION_GUIDANCE_RENORM),
                  .truncation = real_of(s, RP_OPTION_GUIDANCE_TRUNCATION)},
        .guider = find_rp_guider(s->text[RP_OPTION_GUIDER]),
        .sampler = find_rp_sampler(s->text[RP_OPTION_SAMPLER]),
        .schedule = find_rp_schedule(s->text[RP_OPTION_SCHEDULE]),
        .residency = s->text[RP_OPTION_RESIDENCY][0],
    };
    return RP_OK;
}

/* ---- out as JSON */

static bool add_value(cJSON *root, rp_option_id id, const char *text)
{
    const char *name = rp_option_at(id)->name;

    switch (rp_option_rule_at(id)->kind) {
    case RP_OPT_INT:
    case RP_OPT_REAL:
        return text[0] == '\0' || cJSON_AddNumberToObject(root, name, strtod(text, NULL)) != NULL;
    case RP_OPT_SWITCH:
        return cJSON_AddBoolToObject(root, name, strcmp(text, "on") == 0) != NULL;
    case RP_OPT_U64: /* as text: a JSON number has 53 bits */
    case RP_OPT_TEXT:
    case RP_OPT_CHOICE:
        break;
    }
    return cJSON_AddStringToObject(root, name, text) != NULL;
}

char *rp_settings_json(const rp_settings *settings, int flag, const char *const *extra)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL;
    char *json = NULL;

    for (; ok && extra != NULL && extra[0] != NULL; extra += 2) {
        ok = cJSON_AddStringToObject(root, extra[0], extra[1]) != NULL;
    }
    for (int id = 0; ok && id < RP_N_OPTIONS; id++) {
        if (flag == 0 || (rp_option_rule_at((rp_option_id)id)->flags & flag) != 0) {
            ok = add_value(root, (rp_option_id)id, settings->text[id]);
        }
    }
    if (ok) {
        json = cJSON_PrintUnformatted(root);
    }
    cJSON_Delete(root);
    return json;
}
