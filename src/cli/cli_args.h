/*
 * cli_args.h - a command's arguments: which there are, and what was given.
 *
 * Most options are the library's rows (rp_option_at); a command adds a few of its own. Forms:
 * --name VALUE, --name=VALUE, for switches --name, --name=on|off and --no-name; `--` ends the
 * options. Names are never abbreviated. What is given twice counts as given last.
 */
#ifndef RP_CLI_ARGS_H
#define RP_CLI_ARGS_H

#include <rankpool/rankpool.h>

#include <stdbool.h>

#define RP_CLI_MAX_OPTIONS 16
#define RP_CLI_MAX_WORDS   1

/* Exit codes of every command; a cancelled job gives 128 + signal as shells do, but after SIGUSR1
 * "state is kept, start me again". */
enum { RP_CLI_OK = 0, RP_CLI_FAILED = 1, RP_CLI_USAGE = 2, RP_CLI_REQUEUE = 85 };

/* An option of one command; the fields are those of rp_option_info. */
typedef struct {
    const char *name, *meta, *def, *range, *help;
    bool is_switch;
} rp_cli_option;

/* Which of the library's rows --help of a command shows. */
typedef enum { RP_CLI_ROWS_NONE, RP_CLI_ROWS_PER_RUN, RP_CLI_ROWS_ALL } rp_cli_rows;

typedef struct rp_cli_args rp_cli_args;

typedef struct {
    const char *name;             /* "sample" */
    const char *summary;          /* one line of `rankpool help` */
    const char *usage;            /* what follows the name: "[options]" */
    const char *about;            /* paragraphs of --help, parted by empty lines */
    const char *const *examples;  /* what it does, the command line; in pairs, NULL ends */
    const rp_cli_option *options; /* a row without a name ends */
    rp_cli_rows rows;
    const char *refused;          /* NULL, or a row that this command does not take ... */
    const char *refused_why;      /* ... and what to do instead */
    const char *own_group;        /* NULL, or the heading of rows that no other command takes */
    int n_words_min, n_words_max; /* arguments that are not options */
    const char *word;             /* what such an argument is: "JOBS.jsonl" */

    /* Returns the exit code. */
    int (*run)(const rp_cli_args *args);
} rp_cli_command;

struct rp_cli_args {
    const rp_cli_command *command;
    rp_settings *settings;                  /* defaults < environment < --from < command line */
    bool *row_given;                        /* [rp_option_count()] named on the command line */
    const char *values[RP_CLI_MAX_OPTIONS]; /* as command->options; the default when not given */
    const char *words[RP_CLI_MAX_WORDS];    /* borrowed from argv */
    int n_words;
    bool help; /* --help was there: nothing else counts */
};

/*
 * argv[0] is the command's name. RP_E_ARG, RP_E_ABSENT (both logged), RP_E_NOMEM, or what
 * rp_settings_set_png returns for --from. Free with rp_cli_args_fini, also after an error.
 */
rp_status rp_cli_args_init(rp_cli_args *args, const rp_cli_command *command, int argc, char **argv);
void rp_cli_args_fini(rp_cli_args *args);

/* Value of the command's own option; NULL when not given and without default. The name must exist.
 */
const char *rp_cli_args_get(const rp_cli_args *args, const char *name);
bool rp_cli_args_on(const rp_cli_args *args, const char *name);

/* The same as a whole number, min <= *out <= max; RP_E_ARG (logged). */
rp_status rp_cli_args_number(const rp_cli_args *args, const char *name, int min, int max, int *out);

/* Was this row of the library named on the command line? */
bool rp_cli_args_given(const rp_cli_args *args, const char *row);

/* A row's value is "on". */
bool rp_cli_args_setting_on(const rp_settings *settings, const char *row);

/* The name closest to `word`, if it is close enough to be a slip, else NULL.
 *   next  gives candidate i, NULL past the end */
typedef const char *(*rp_cli_name_fn)(const void *arg, size_t i);
const char *rp_cli_args_nearest(const char *word, rp_cli_name_fn next, const void *arg);

/* This process's rank as the launcher's environment tells it, before the pool is open; 0 without.
 */
int rp_cli_args_rank_hint(void);

#endif
