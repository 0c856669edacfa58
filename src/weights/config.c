/* config.c - typed reading of a JSON config file, with limits. */
#include "weights/config.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define MAX_BYTES   ((size_t)16 << 20)
#define VALUE_BYTES 80 /* of a value in a message */

struct rp_config {
    char *name;
    cJSON *root;
    uint64_t fingerprint;
    char error[512]; /* the first one; "" for none */
};

rp_status rp_config_parse(const char *name, const char *text, size_t n_bytes, rp_config **out)
{
    rp_status st = RP_OK;
    rp_config *config = calloc(1, sizeof(*config));

    if (config == NULL || (config->name = strdup(name)) == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for reading %s", name);
        goto out;
    }
    RP_TRY_OUT(rp_json_parse(name, text, n_bytes, &rp_json_default, &config->root));
    if (!cJSON_IsObject(config->root)) {
        st = RP_FAIL(RP_E_FORMAT, "%s is not a JSON object", name);
        goto out;
    }
    config->fingerprint = XXH3_64bits(text, n_bytes);
    *out = config;
    config = NULL;

out:
    rp_config_close(config);
    return st;
}

rp_status rp_config_open(const char *dir, const char *file, rp_config **out)
{
    rp_status st = RP_OK;
    char *text = NULL;
    size_t n_bytes = 0;
    char *const path = rp_mem_printf("%s/%s", dir, file);

    if (path == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for reading %s/%s", dir, file);
        goto out;
    }
    RP_TRY_OUT(rp_json_read(path, MAX_BYTES, &text, &n_bytes));
    st = rp_config_parse(path, text, n_bytes, out);

out:
    free(text);
    free(path);
    return st;
}

void rp_config_close(rp_config *config)
{
    if (config != NULL) {
        cJSON_Delete(config->root);
        free(config->name);
        free(config);
    }
}

/* ---------------------------------------------------------------- errors */

/* The item of a key, or of "a.b" member b of object a; NULL when there is none. */
static const cJSON *item_at(const rp_config *config, const char *key)
{
    const cJSON *const whole = cJSON_GetObjectItemCaseSensitive(config->root, key);
    const char *const dot = strchr(key, '.');
    char group[64];

    if (whole != NULL || dot == NULL || (size_t)(dot - key) >= sizeof(group)) {
        return whole;
    }
    (void)snprintf(group, sizeof(group), "%.*s", (int)(dot - key), key);
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(config->root, group),
                                            dot + 1);
}

/* The value as JSON, cut to what a message can hold. */
static void print_value(const cJSON *item, char text[VALUE_BYTES])
{
    char *const json = cJSON_PrintUnformatted(item);

    if (json == NULL) {
        (void)snprintf(text, VALUE_BYTES, "?");
    } else if (strlen(json) < VALUE_BYTES) {
        (void)snprintf(text, VALUE_BYTES, "%s", json);
    } else {
        (void)snprintf(text, VALUE_BYTES, "%.*s...", VALUE_BYTES - 4, json);
    }
    cJSON_free(json);
}

void rp_config_refuse(rp_config *config, const char *key, const char *allowed)
{
    const cJSON *const item = item_at(config, key);
    char value[VALUE_BYTES];

    if (config->error[0] != '\0') {
        return;
    }
    if (item == NULL) {
        (void)snprintf(config->error, sizeof(config->error), "%s: \"%s\" is missing, it must be %s",
                       config->name, key, allowed);
    } else {
        print_value(item, value);
        (void)snprintf(config->error, sizeof(config->error), "%s: \"%s\" is %s, it must be %s",
                       config->name, key, value, allowed);
    }
}

static void refuse(rp_config *config, const char *key, const char *format, ...) RP_PRINTF(3, 4);

static void refuse(rp_config *config, const char *key, const char *format, ...)
{
    char allowed[160];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(allowed, sizeof(allowed), format, args);
    va_end(args);
    rp_config_refuse(config, key, allowed);
}

rp_status rp_config_finish(const rp_config *config)
{
    return config->error[0] == '\0' ? RP_OK : RP_FAIL(RP_E_FORMAT, "%s", config->error);
}

/* --------------------------------------------------------------- getters */

/* The value of a key, NULL when it is absent or null. */
static const cJSON *find(const rp_config *config, const char *key)
{
    const cJSON *const item = item_at(config, key);

    return cJSON_IsNull(item) ? NULL : item;
}

bool rp_config_has(const rp_config *config, const char *key)
{
    return find(config, key) != NULL;
}

int64_t rp_config_int(rp_config *config, const char *key, int64_t min, int64_t max,
                      int64_t fallback)
{
    const cJSON *const item = find(config, key);
    int64_t value = min;

    if (item == NULL && fallback >= min && fallback <= max) {
        return fallback;
    }
    if (!rp_json_int(item, min, max, &value)) {
        refuse(config, key, "a whole number from %" PRId64 " to %" PRId64, min, max);
    }
    return value;
}

double rp_config_real(rp_config *config, const char *key, double min, double max, double fallback)
{
    const cJSON *const item = find(config, key);

    if (item == NULL && !isnan(fallback)) {
        return fallback;
    }
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max)) {
        refuse(config, key, "a number from %g to %g", min, max);
        return min;
    }
    return item->valuedouble;
}

bool rp_config_bool(rp_config *config, const char *key, bool fallback)
{
    const cJSON *const item = find(config, key);

    if (item != NULL && !cJSON_IsBool(item)) {
        rp_config_refuse(config, key, "true or false");
        return fallback;
    }
    return item != NULL ? cJSON_IsTrue(item) : fallback;
}

const char *rp_config_text(rp_config *config, const char *key, const char *fallback)
{
    const cJSON *const item = find(config, key);

    if (cJSON_IsString(item)) {
        return item->valuestring;
    }
    if (item != NULL || fallback == NULL) {
        rp_config_refuse(config, key, "text");
    }
    return fallback != NULL ? fallback : "";
}

int rp_config_ints(rp_config *config, const char *key, int n, int64_t min, int64_t max,
                   int64_t *out)
{
    const cJSON *const array = find(config, key);
    const int size = cJSON_IsArray(array) ? cJSON_GetArraySize(array) : 0;
    int i = 0;

    if (cJSON_IsArray(array) && (n >= 0 ? size == n : size >= 1 && size <= -n)) {
        for (const cJSON *item = array->child; item != NULL; item = item->next, i++) {
            if (!rp_json_int(item, min, max, &out[i])) {
                break;
            }
        }
        if (i == size) {
            return size;
        }
    }
    refuse(config, key, "%s%d whole number%s from %" PRId64 " to %" PRId64, n < 0 ? "1 to " : "",
           abs(n), abs(n) == 1 ? "" : "s", min, max);
    return 0;
}

const char *rp_config_text_at(const rp_config *config, const char *key, int i)
{
    const cJSON *const array = find(config, key);

    return cJSON_IsArray(array) && i >= 0 ? cJSON_GetStringValue(cJSON_GetArrayItem(array, i))
                                          : NULL;
}

uint64_t rp_config_fingerprint(const rp_config *config)
{
    return config->fingerprint;
}
