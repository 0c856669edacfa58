/* job_options.c - the table of options as people and programs see it, and the check of one value.
 */
#include "job/job_options.h"

#include "base/log.h"
#include "base/text.h"
#include "guide/guide.h"
#include "sample/sample.h"
#include "sample/schedule.h"
#include "tensor/tensor_ops.h"
#include "xport/xport.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENV_BYTES 48

static const rp_option_rule g_rules[RP_N_OPTIONS] = {
#define X(id, name, kind, meta, def, min, max, choices, flags, group, help)                        \
    {RP_OPT_##kind, min, max, choices, RP_OPT_##flags},
    RP_OPTION_MAP(X)
#undef X
};

static rp_option_info g_infos[RP_N_OPTIONS] = {
#define X(id, name_, kind, meta_, def_, min, max, choices, flags, group_, help_)                   \
    {.name = name_, .meta = meta_, .def = def_, .help = help_, .group = group_},
    RP_OPTION_MAP(X)
#undef X
};

/* ---- choices out of registries: every row type begins with its name */

typedef struct {
    const char *name;
} named_row;

static void join_names(const void *const *rows, const char *first, char *text, size_t n_bytes)
{
    size_t used = (size_t)snprintf(text, n_bytes, "%s", first);

    for (size_t i = 0; rows[i] != NULL && used < n_bytes; i++) {
        const char *name = ((const named_row *)rows[i])->name;
        used += (size_t)snprintf(text + used, n_bytes - used, "%s%s", used > 0 ? "|" : "", name);
    }
}

#define CHOICES(function, list, first)                                                             \
    const char *function(void)                                                                     \
    {                                                                                              \
        static char text[256];                                                                     \
        if (text[0] == '\0') {                                                                     \
            join_names((const void *const *)(list), first, text, sizeof(text));                    \
        }                                                                                          \
        return text;                                                                               \
    }

CHOICES(rp_options_guiders, rp_guider_list, "")
CHOICES(rp_options_samplers, rp_sampler_list, "")
CHOICES(rp_options_schedules, rp_schedule_list, "")
CHOICES(rp_options_backends, rp_backend_list, "auto")
CHOICES(rp_options_transports, rp_xport_list, "auto")

const char *rp_options_precisions(void)
{
    return "auto|f32|bf16|fp8|fp8-attention";
}

const char *rp_options_bind(void)
{
    return "auto|none|print";
}

const char *rp_options_residency(void)
{
    return "run|job|step";
}

/* ---- rows for people */

static void fill_info(rp_option_id id)
{
    static char env[RP_N_OPTIONS][ENV_BYTES];
    static char range[RP_N_OPTIONS][64];
    const rp_option_rule *rule = &g_rules[id];
    rp_option_info *info = &g_infos[id];
    size_t used = (size_t)snprintf(env[id], ENV_BYTES, "RANKPOOL_");

    for (const char *c = info->name; *c != '\0' && used + 1 < ENV_BYTES; c++) {
        env[id][used++] = (char)(*c == '-' ? '_' : (*c >= 'a' && *c <= 'z') ? *c - 'a' + 'A' : *c);
    }
    info->env = env[id];
    info->range = range[id];
    switch (rule->kind) {
    case RP_OPT_INT:
    case RP_OPT_REAL:
        (void)snprintf(range[id], sizeof(range[id]), "%g to %g", rule->min, rule->max);
        break;
    case RP_OPT_U64:
        (void)snprintf(range[id], sizeof(range[id]), "0 to 18446744073709551615");
        break;
    case RP_OPT_SWITCH:
        info->range = "on|off";
        break;
    case RP_OPT_CHOICE:
        info->range = rule->choices();
        break;
    case RP_OPT_TEXT:
        break;
    }
    info->is_switch = rule->kind == RP_OPT_SWITCH;
    info->per_run = (rule->flags & RP_OPT_RUN) != 0;
}

size_t rp_option_count(void)
{
    return RP_N_OPTIONS;
}

const rp_option_info *rp_option_at(size_t index)
{
    if (index >= RP_N_OPTIONS) {
        return NULL;
    }
    if (g_infos[index].env == NULL) {
        fill_info((rp_option_id)index);
    }
    return &g_infos[index];
}

const rp_option_rule *rp_option_rule_at(rp_option_id id)
{
    return &g_rules[id];
}

rp_option_id rp_option_find(const char *name)
{
    int id = 0;

    while (id < RP_N_OPTIONS && strcmp(g_infos[id].name, name) != 0) {
        id++;
    }
    return (rp_option_id)id;
}

/* ---- values */

static bool is_choice(const char *choices, const char *text)
{
    const size_t n = strlen(text);

    for (const char *c = choices; n > 0 && c != NULL && strchr(text, '|') == NULL;
         c = strchr(c, '|')) {
        c += *c == '|';
        if (strncmp(c, text, n) == 0 && (c[n] == '|' || c[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static bool is_number(const rp_option_rule *rule, const char *text)
{
    char *end = NULL;

    errno = 0;
    if (rule->kind == RP_OPT_U64) {
        (void)strtoull(text, &end, 10);
        return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    }
    if (strpbrk(text, "xXpPnN \t\n") != NULL) { /* no hex, no nan, no blanks */
        return false;
    }
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < rule->min || value > rule->max) {
        return false;
    }
    return rule->kind == RP_OPT_REAL || (value == floor(value) && strpbrk(text, ".eE") == NULL);
}

static bool is_allowed(const rp_option_rule *rule, const char *text)
{
    switch (rule->kind) {
    case RP_OPT_TEXT:
        return true;
    case RP_OPT_SWITCH:
        return is_choice("on|off", text);
    case RP_OPT_CHOICE:
        return is_choice(rule->choices(), text);
    case RP_OPT_INT:
    case RP_OPT_U64:
    case RP_OPT_REAL:
        break;
    }
    return is_number(rule, text);
}

rp_status rp_option_check(rp_option_id id, const char *name, const char *text)
{
    const rp_option_rule *rule = &g_rules[id];
    const rp_option_info *info = rp_option_at(id);

    if (rule->kind == RP_OPT_TEXT) {
        const long bad = rp_text_bad_utf8(text);
        if (bad >= 0) {
            return RP_FAIL(RP_E_ARG, "%s: the text is not UTF-8 (byte %ld)", name, bad);
        }
        return RP_OK;
    }
    if ((text[0] == '\0' && info->def[0] == '\0') || is_allowed(rule, text)) {
        return RP_OK;
    }
    return RP_FAIL(RP_E_ARG, "%s: '%.80s' is not allowed; allowed is %s%s", name, text,
                   rule->kind == RP_OPT_INT ? "a whole number, " : "", info->range);
}
