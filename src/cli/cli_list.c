/* cli_list.c - `rankpool list`: what can stand behind --sampler, --schedule and the like. */
#include "cli/cli_commands.h"
#include "cli/cli_log.h"

#include <stdio.h>
#include <string.h>

static const char *const g_kinds[] = {"samplers",   "schedules", "guiders", "models",
                                      "transports", "backends",  NULL};

static const char *kind_name(const void *arg, size_t i)
{
    (void)arg;
    return g_kinds[i];
}

static void print_kind(const char *kind, const char *indent)
{
    const char *name = NULL, *help = NULL;
    size_t widest = 0;

    for (size_t i = 0; rp_list(kind, i, &name, &help) == RP_OK; i++) {
        widest = strlen(name) > widest ? strlen(name) : widest;
    }
    for (size_t i = 0; rp_list(kind, i, &name, &help) == RP_OK; i++) {
        (void)printf("%s%-*s  %s\n", indent, (int)widest, name, help);
    }
}

static int unknown_kind(const char *kind)
{
    const char *nearest = rp_cli_args_nearest(kind, kind_name, NULL);

    rp_cli_error(
        "unknown kind %s%s%s%s: samplers, schedules, guiders, models, transports or backends", kind,
        nearest != NULL ? ", did you mean " : "", nearest != NULL ? nearest : "",
        nearest != NULL ? "?" : "");
    return RP_CLI_USAGE;
}

static int list_run(const rp_cli_args *args)
{
    const bool speaks = rp_cli_args_rank_hint() == 0;

    if (args->n_words == 1) {
        for (size_t i = 0; g_kinds[i] != NULL; i++) {
            if (strcmp(g_kinds[i], args->words[0]) == 0) {
                if (speaks) {
                    print_kind(g_kinds[i], "");
                }
                return RP_CLI_OK;
            }
        }
        return speaks ? unknown_kind(args->words[0]) : RP_CLI_USAGE;
    }
    for (size_t i = 0; speaks && g_kinds[i] != NULL; i++) {
        (void)printf("%s%s:\n", i > 0 ? "\n" : "", g_kinds[i]);
        print_kind(g_kinds[i], "  ");
    }
    return RP_CLI_OK;
}

static const rp_cli_option list_options[] = {{0}};

static const char *const list_examples[] = {
    "everything",
    "rankpool list",
    "the samplers",
    "rankpool list samplers",
    "the noise levels",
    "rankpool list schedules",
    "known model classes",
    "rankpool list models",
    NULL,
};

const rp_cli_command rp_cli_list = {
    .name = "list",
    .summary = "samplers, schedules, guiders, models, transports, backends of this build",
    .usage = "[samplers|schedules|guiders|models|transports|backends]",
    .about = "Lists what this build has, with a line about each.",
    .examples = list_examples,
    .options = list_options,
    .rows = RP_CLI_ROWS_NONE,
    .n_words_max = 1,
    .word = "KIND",
    .run = list_run,
};
