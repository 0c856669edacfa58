/* cli_args.c - parse a command's arguments: rows of the library first, then the command's own. */
#include "cli/cli_args.h"

#include "cli/cli_help.h"
#include "cli/cli_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME 64

/* A setting waits here until --from has been read: the command line wins over the picture. */
typedef struct {
    size_t row;
    const char *value;
} pending_set;

typedef struct {
    rp_cli_args *args;
    pending_set *sets;
    size_t n_sets;
    int argc;
    char **argv;
    int at;          /* argument being read */
    bool words_only; /* `--` was there */
} parser;

/* One option of either kind. */
typedef struct {
    bool own;     /* the command's, else a row of the library */
    size_t index; /* into command->options, or for rp_option_at */
    const char *name, *meta, *range;
    bool is_switch;
} found_option;

int rp_cli_args_rank_hint(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *text = getenv(names[i]);
        if (text != NULL && text[0] != '\0') {
            return atoi(text);
        }
    }
    return 0;
}

/* ------------------------------------------------------------- nearest name */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to insert, delete, change, or swap with their neighbour (optimal string alignment); words
 * longer than MAX_NAME are cut. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][MAX_NAME + 1]; /* of a's letters i - 2, i - 1, i */
    const size_t n_a = strnlen(a, MAX_NAME), n_b = strnlen(b, MAX_NAME);

    for (size_t j = 0; j <= n_b; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        const size_t *before = rows[(i + 1) % 3], *last = rows[(i - 1) % 3];
        size_t *now = rows[i % 3];
        now[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = least(now[j], before[j - 2] + 1);
            }
        }
    }
    return rows[n_a % 3][n_b];
}

const char *rp_cli_args_nearest(const char *word, rp_cli_name_fn next, const void *arg)
{
    const char *best = NULL;
    size_t limit = 2 + strlen(word) / 3; /* one more than a slip may be away */
    const char *name = NULL;

    for (size_t i = 0; (name = next(arg, i)) != NULL; i++) {
        const size_t distance = edit_distance(word, name);
        if (distance < limit) {
            limit = distance;
            best = name;
        }
    }
    return best;
}

static const char *option_name(const void *arg, size_t i)
{
    const rp_cli_command *command = arg;
    const size_t n_rows = command->rows == RP_CLI_ROWS_NONE ? 0 : rp_option_count();

    if (i < n_rows) {
        return rp_option_at(i)->name;
    }
    for (size_t k = 0; command->options[k].name != NULL; k++) {
        if (k == i - n_rows) {
            return command->options[k].name;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------- lookup */

static bool find_option(const rp_cli_command *command, const char *name, found_option *out)
{
    for (size_t i = 0; command->options[i].name != NULL; i++) {
        const rp_cli_option *o = &command->options[i];
        if (strcmp(o->name, name) == 0) {
            *out = (found_option){true, i, o->name, o->meta, o->range, o->is_switch};
            return true;
        }
    }
    for (size_t i = 0; command->rows != RP_CLI_ROWS_NONE && i < rp_option_count(); i++) {
        const rp_option_info *o = rp_option_at(i);
        if (strcmp(o->name, name) == 0) {
            *out = (found_option){false, i, o->name, o->meta, o->range, o->is_switch != 0};
            return true;
        }
    }
    return false;
}

static rp_status unknown_option(const parser *p, const char *name)
{
    const rp_cli_command *command = p->args->command;
    const char *nearest = rp_cli_args_nearest(name, option_name, command);

    if (nearest != NULL) {
        rp_cli_error("unknown option --%s: did you mean --%s?", name, nearest);
    } else {
        rp_cli_error("unknown option --%s: `rankpool %s --help` lists all", name, command->name);
    }
    return RP_E_ABSENT;
}

/* Is the argument an option by its own form, so that the value before it was forgotten? */
static bool looks_like_option(const rp_cli_command *command, const char *text)
{
    char name[MAX_NAME];
    found_option unused;

    if (strncmp(text, "--", 2) != 0) {
        return false;
    }
    const size_t n = strcspn(text + 2, "=");
    if (n == 0 || n >= sizeof(name)) {
        return false;
    }
    memcpy(name, text + 2, n);
    name[n] = '\0';
    return strcmp(name, "help") == 0 || find_option(command, name, &unused) ||
           (strncmp(name, "no-", 3) == 0 && find_option(command, name + 3, &unused));
}

/* ------------------------------------------------------------------ parsing */

static rp_status missing_value(const found_option *o, const char *next)
{
    const char *range = o->range[0] != '\0' ? o->range : "any text";

    if (next == NULL) {
        rp_cli_error("--%s needs a value: --%s %s (%s)", o->name, o->name, o->meta, range);
    } else {
        rp_cli_error(
            "--%s needs a value, but %s follows: --%s %s (%s; write --%s=%s if that is it)",
            o->name, next, o->name, o->meta, range, o->name, next);
    }
    return RP_E_ARG;
}

static rp_status take(parser *p, const found_option *o, const char *value)
{
    rp_cli_args *args = p->args;
    const rp_cli_command *owner = o->own ? NULL : rp_cli_help_owner(rp_option_at(o->index));

    if (o->own && o->is_switch && strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
        rp_cli_error("--%s %s is not allowed: on or off", o->name, value);
        return RP_E_ARG;
    }
    if (o->own) {
        args->values[o->index] = value;
        return RP_OK;
    }
    if (args->command->refused != NULL && strcmp(args->command->refused, o->name) == 0) {
        rp_cli_error("--%s is not for `rankpool %s`: %s", o->name, args->command->name,
                     args->command->refused_why);
        return RP_E_ARG;
    }
    if (owner != NULL && owner != args->command) {
        rp_cli_error("--%s is for `rankpool %s` only", o->name, owner->name);
        return RP_E_ARG;
    }
    args->row_given[o->index] = true;
    p->sets[p->n_sets++] = (pending_set){o->index, value};
    return RP_OK;
}

/* text is "name" or "name=value", the dashes are gone. */
static rp_status parse_option(parser *p, char *text)
{
    const rp_cli_command *command = p->args->command;
    char *equals = strchr(text, '=');
    const char *value = equals != NULL ? equals + 1 : NULL;
    found_option o;

    if (equals != NULL) {
        *equals = '\0'; /* argv is ours to write; put back below for messages */
    }
    rp_status st = RP_OK;
    if (find_option(command, text, &o)) {
        const char *next = p->at + 1 < p->argc ? p->argv[p->at + 1] : NULL;
        if (value == NULL && o.is_switch) {
            value = "on";
        } else if (value == NULL && (next == NULL || looks_like_option(command, next))) {
            return missing_value(&o, next);
        } else if (value == NULL) {
            value = next;
            p->at++;
        }
        st = take(p, &o, value);
    } else if (strncmp(text, "no-", 3) == 0 && find_option(command, text + 3, &o) && o.is_switch) {
        if (value != NULL) {
            rp_cli_error("--%s takes no value: --%s=on or --%s=off says the same", text, o.name,
                         o.name);
            return RP_E_ARG;
        }
        st = take(p, &o, "off");
    } else {
        st = unknown_option(p, text);
    }
    if (equals != NULL) {
        *equals = '=';
    }
    return st;
}

static rp_status parse_word(parser *p, const char *word)
{
    rp_cli_args *args = p->args;
    const char *before = p->argv[p->at - 1];
    const bool for_switch = p->at > 1 && strncmp(before, "--", 2) == 0 &&
                            (strcmp(word, "on") == 0 || strcmp(word, "off") == 0);

    if (args->n_words < args->command->n_words_max) {
        args->words[args->n_words++] = word;
        return RP_OK;
    }
    if (for_switch) {
        rp_cli_error("unexpected argument \"%s\" after %s: write %s=%s", word, before, before,
                     word);
    } else if (args->command->rows == RP_CLI_ROWS_ALL && args->command->n_words_max == 0) {
        rp_cli_error(
            "unexpected argument \"%s\": every option begins with two dashes; a text to draw "
            "is --prompt \"%s\"",
            word, word);
    } else {
        rp_cli_error("unexpected argument \"%s\": usage is rankpool %s %s", word,
                     args->command->name, args->command->usage);
    }
    return RP_E_ARG;
}

static rp_status parse_one(parser *p)
{
    char *text = p->argv[p->at];

    if (p->words_only || text[0] != '-' || text[1] == '\0') {
        return parse_word(p, text);
    }
    if (strcmp(text, "--") == 0) {
        p->words_only = true;
        return RP_OK;
    }
    if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
        p->args->help = true;
        return RP_OK;
    }
    if (text[1] != '-') {
        rp_cli_error("unknown option %s: options begin with two dashes, as --steps", text);
        return RP_E_ABSENT;
    }
    return parse_option(p, text + 2);
}

static rp_status parse_all(parser *p)
{
    rp_cli_args *args = p->args;

    for (p->at = 1; p->at < p->argc && !args->help; p->at++) {
        const rp_status st = parse_one(p);
        if (st != RP_OK) {
            return st;
        }
    }
    if (!args->help && args->n_words < args->command->n_words_min) {
        rp_cli_error("%s is missing: usage is rankpool %s %s", args->command->word,
                     args->command->name, args->command->usage);
        return RP_E_ARG;
    }
    return RP_OK;
}

/* The environment is there for all commands: rows that only another one takes are as if not set. */
static rp_status forget_others(rp_cli_args *args)
{
    for (size_t i = 0; i < rp_option_count(); i++) {
        const rp_option_info *row = rp_option_at(i);
        const rp_cli_command *owner = rp_cli_help_owner(row);
        if (owner != NULL && owner != args->command) {
            const rp_status st = rp_settings_set(args->settings, row->name, row->def);
            if (st != RP_OK) {
                return st;
            }
        }
    }
    return RP_OK;
}

static rp_status apply_settings(parser *p)
{
    rp_cli_args *args = p->args;
    const rp_status forgot = forget_others(args);

    if (forgot != RP_OK) {
        return forgot;
    }
    /* of a command that makes pictures --from is one; elsewhere it is the command's own */
    const bool takes_png = args->command->rows != RP_CLI_ROWS_NONE;
    for (size_t i = 0; takes_png && args->command->options[i].name != NULL; i++) {
        if (strcmp(args->command->options[i].name, "from") == 0 && args->values[i] != NULL) {
            const rp_status st = rp_settings_set_png(args->settings, args->values[i]);
            if (st != RP_OK) {
                return st;
            }
        }
    }
    for (size_t i = 0; i < p->n_sets; i++) {
        const rp_status st =
            rp_settings_set(args->settings, rp_option_at(p->sets[i].row)->name, p->sets[i].value);
        if (st != RP_OK) {
            return st;
        }
    }
    return RP_OK;
}

rp_status rp_cli_args_init(rp_cli_args *args, const rp_cli_command *command, int argc, char **argv)
{
    parser p = {.args = args, .argc = argc, .argv = argv};

    *args = (rp_cli_args){.command = command};
    args->settings = rp_settings_new();
    args->row_given = calloc(rp_option_count() + 1, sizeof(*args->row_given));
    p.sets = calloc((size_t)argc + 1, sizeof(*p.sets));
    if (args->settings == NULL || args->row_given == NULL || p.sets == NULL) {
        free(p.sets);
        rp_cli_error("out of memory for %d arguments", argc);
        return RP_E_NOMEM;
    }
    for (size_t i = 0; command->options[i].name != NULL; i++) {
        args->values[i] = command->options[i].def[0] != '\0' ? command->options[i].def : NULL;
    }
    rp_status st = parse_all(&p);
    if (st == RP_OK && !args->help) {
        st = apply_settings(&p);
    }
    free(p.sets);
    return st;
}

void rp_cli_args_fini(rp_cli_args *args)
{
    rp_settings_free(args->settings);
    free(args->row_given);
    *args = (rp_cli_args){0};
}

/* ------------------------------------------------------------------ reading */

const char *rp_cli_args_get(const rp_cli_args *args, const char *name)
{
    const rp_cli_option *options = args->command->options;

    for (size_t i = 0; options[i].name != NULL; i++) {
        if (strcmp(options[i].name, name) == 0) {
            return args->values[i];
        }
    }
    return NULL;
}

bool rp_cli_args_on(const rp_cli_args *args, const char *name)
{
    const char *value = rp_cli_args_get(args, name);
    return value != NULL && strcmp(value, "on") == 0;
}

rp_status rp_cli_args_number(const rp_cli_args *args, const char *name, int min, int max, int *out)
{
    const char *text = rp_cli_args_get(args, name);
    char *end = NULL;

    errno = 0;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max) {
        rp_cli_error("--%s %s is not allowed: a whole number, %d to %d", name, text, min, max);
        return RP_E_ARG;
    }
    *out = (int)value;
    return RP_OK;
}

bool rp_cli_args_given(const rp_cli_args *args, const char *row)
{
    for (size_t i = 0; i < rp_option_count(); i++) {
        if (strcmp(rp_option_at(i)->name, row) == 0) {
            return args->row_given[i];
        }
    }
    return false;
}

bool rp_cli_args_setting_on(const rp_settings *settings, const char *row)
{
    const char *value = rp_settings_get(settings, row);
    return value != NULL && strcmp(value, "on") == 0;
}
