/* cli_help.c - help out of the tables, at most 100 columns wide. */
#include "cli/cli_help.h"

#include "cli/cli_log.h"

#include <ctype.h>
#include <string.h>

#define COLUMNS     98
#define HELP_COLUMN 30 /* where the text about an option begins */

const rp_cli_command *rp_cli_help_find(const char *name)
{
    for (size_t i = 0; rp_cli_commands[i] != NULL; i++) {
        if (strcmp(rp_cli_commands[i]->name, name) == 0) {
            return rp_cli_commands[i];
        }
    }
    return NULL;
}

const rp_cli_command *rp_cli_help_owner(const rp_option_info *row)
{
    for (size_t i = 0; rp_cli_commands[i] != NULL; i++) {
        const char *group = rp_cli_commands[i]->own_group;
        if (group != NULL && strcmp(group, row->group) == 0) {
            return rp_cli_commands[i];
        }
    }
    return NULL;
}

static const char *command_name(const void *arg, size_t i)
{
    (void)arg;
    return rp_cli_commands[i] == NULL ? NULL : rp_cli_commands[i]->name;
}

const rp_cli_command *rp_cli_help_find_or_say(const char *name)
{
    const rp_cli_command *command = rp_cli_help_find(name);

    if (command == NULL) {
        const char *nearest = rp_cli_args_nearest(name, command_name, NULL);
        if (nearest != NULL) {
            rp_cli_error("unknown command %s: did you mean %s?", name, nearest);
        } else {
            rp_cli_error("unknown command %s: `rankpool help` lists all", name);
        }
    }
    return command;
}

/* Words of text from column `at` on; later lines begin at column `indent`. Returns the column. */
static int print_words(FILE *stream, const char *text, int at, int indent)
{
    bool first = true;

    while (*text != '\0') {
        const int n = (int)strcspn(text, " ");
        if (!first && at + 1 + n > COLUMNS) {
            (void)fprintf(stream, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            (void)fputc(' ', stream);
            at++;
        }
        (void)fprintf(stream, "%.*s", n, text);
        at += n;
        text += n + (text[n] == ' ');
        first = false;
    }
    return at;
}

/* "(RANGE; default X; ENV)" of one option; each of them may be missing. */
static void describe_values(const rp_option_info *o, char *text, size_t n_bytes)
{
    const bool own_default = strstr(o->help, "default:") != NULL;
    const bool long_def = strlen(o->def) > 40;
    const char *parts[6];
    size_t n = 0, used = 0;

    if (o->range[0] != '\0') {
        parts[n++] = o->range;
    }
    if (!own_default && o->def[0] != '\0') {
        parts[n++] = "default ";
        parts[n++] = long_def ? "as the model was trained" : o->def;
    }
    if (o->env[0] != '\0') {
        parts[n++] = o->env;
    }
    text[0] = '\0';
    for (size_t i = 0; i < n && used < n_bytes; i++) {
        const bool glued = i > 0 && strcmp(parts[i - 1], "default ") == 0;
        used += (size_t)snprintf(text + used, n_bytes - used, "%s%s",
                                 i == 0  ? "("
                                 : glued ? ""
                                         : "; ",
                                 parts[i]);
    }
    if (used > 0 && used + 1 < n_bytes) {
        (void)strcpy(text + used, ")");
    }
}

static void print_option(FILE *stream, const rp_option_info *o)
{
    char values[512];
    int at = fprintf(stream, "  --%s%s%s", o->name, o->is_switch ? "" : " ",
                     o->is_switch ? "" : o->meta);

    if (at > HELP_COLUMN - 2) {
        (void)fputc('\n', stream);
        at = 0;
    }
    (void)fprintf(stream, "%*s", HELP_COLUMN - at, "");
    at = print_words(stream, o->help, HELP_COLUMN, HELP_COLUMN);
    describe_values(o, values, sizeof(values));
    if (at + (int)strlen(values) > COLUMNS) { /* the brackets stay on one line where they can */
        (void)fprintf(stream, "\n%*s", HELP_COLUMN, "");
        at = HELP_COLUMN;
    } else if (values[0] != '\0') {
        (void)fputc(' ', stream);
        at++;
    }
    (void)print_words(stream, values, at, HELP_COLUMN);
    (void)fputc('\n', stream);
}

static void print_heading(FILE *stream, const char *text)
{
    (void)fprintf(stream, "\n%c%s:\n", toupper((unsigned char)text[0]), text + 1);
}

static void print_own_options(FILE *stream, const rp_cli_command *command)
{
    if (command->options[0].name != NULL) {
        print_heading(stream, command->name);
    }
    for (size_t i = 0; command->options[i].name != NULL; i++) {
        const rp_cli_option *o = &command->options[i];
        const rp_option_info info = {.name = o->name,
                                     .env = "",
                                     .meta = o->meta,
                                     .def = o->def,
                                     .range = o->range,
                                     .help = o->help,
                                     .is_switch = o->is_switch};
        print_option(stream, &info);
    }
}

/* Left out of the page: rows that the command refuses, or has an own option for. */
static bool is_hidden(const rp_cli_command *command, const rp_option_info *o)
{
    const rp_cli_command *owner = rp_cli_help_owner(o);
    bool hidden = command->rows == RP_CLI_ROWS_PER_RUN && !o->per_run;

    hidden = hidden || (owner != NULL && owner != command);
    hidden = hidden || (command->refused != NULL && strcmp(command->refused, o->name) == 0);
    for (size_t i = 0; command->options[i].name != NULL; i++) {
        hidden = hidden || strcmp(command->options[i].name, o->name) == 0;
    }
    return hidden;
}

static void print_rows(FILE *stream, const rp_cli_command *command)
{
    const char *group = "";

    for (size_t i = 0; command->rows != RP_CLI_ROWS_NONE && i < rp_option_count(); i++) {
        const rp_option_info *o = rp_option_at(i);
        if (is_hidden(command, o)) {
            continue;
        }
        if (strcmp(group, o->group) != 0) {
            group = o->group;
            print_heading(stream, group);
        }
        print_option(stream, o);
    }
}

/* Paragraphs are parted by '\n'. */
static void print_about(FILE *stream, const char *about)
{
    char paragraph[1024];

    while (*about != '\0') {
        const int n = (int)strcspn(about, "\n");
        (void)snprintf(paragraph, sizeof(paragraph), "%.*s", n, about);
        (void)fputc('\n', stream);
        (void)print_words(stream, paragraph, 0, 0);
        (void)fputc('\n', stream);
        about += n + (about[n] == '\n');
    }
}

static void print_forms(FILE *stream, const rp_cli_command *command)
{
    (void)fputs("\n", stream);
    if (command->rows == RP_CLI_ROWS_ALL) {
        (void)fputs(
            "Values are given as --name VALUE or --name=VALUE; switches as --name, --no-name or\n"
            "--name=on|off. The environment variable in brackets sets the default; the command\n"
            "line wins.\n",
            stream);
    }
    (void)fputs(
        "Exit codes: 0 all well, 1 something failed, 2 the command line is wrong, 128 + signal\n"
        "when a signal ended it (130 for Ctrl-C), 85 after SIGUSR1: what is done is kept, start me "
        "again.\n",
        stream);
}

void rp_cli_help_command(FILE *stream, const rp_cli_command *command)
{
    (void)fprintf(stream, "Usage: rankpool %s %s\n", command->name, command->usage);
    print_about(stream, command->about);
    print_own_options(stream, command);
    print_rows(stream, command);
    (void)fputs("\nExamples:\n", stream);
    for (size_t i = 0; command->examples[i] != NULL; i += 2) {
        (void)fprintf(stream, "  %s\n      %s\n", command->examples[i], command->examples[i + 1]);
    }
    print_forms(stream, command);
}

void rp_cli_help_short(FILE *stream)
{
    (void)fputs("Usage: rankpool COMMAND [options]\n"
                "Try:   rankpool sample --prompt \"red heart\" --out heart.png\n"
                "       rankpool help\n",
                stream);
}

void rp_cli_help_overview(FILE *stream)
{
    (void)fputs(
        "Usage: rankpool COMMAND [options]\n"
        "\n"
        "Pictures from diffusion models, sampled on a resident pool of MPI ranks: at every step\n"
        "the model evaluations of all pictures are spread over the ranks. One rank when started\n"
        "alone, N under `mpirun -n N`; the pictures are the same, byte for byte.\n"
        "\n"
        "Commands:\n",
        stream);
    for (size_t i = 0; rp_cli_commands[i] != NULL; i++) {
        (void)fprintf(stream, "  %-8s  %s\n", rp_cli_commands[i]->name,
                      rp_cli_commands[i]->summary);
    }
    (void)fputs("  help      this page, or the one of a command: rankpool help sample\n"
                "\n"
                "  rankpool --version prints the version.\n"
                "\n"
                "Start:\n"
                "  rankpool sample --prompt \"red heart\" --out heart.png\n"
                "  mpirun -n 2 rankpool sample --prompt \"red heart\" --out heart.png\n",
                stream);
}
