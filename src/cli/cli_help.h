/* cli_help.h - help out of the tables: no option is described anywhere else. */
#ifndef RP_CLI_HELP_H
#define RP_CLI_HELP_H

#include "cli/cli_args.h"

#include <stdio.h>

/* The commands in the order of the overview, NULL at the end. */
extern const rp_cli_command *const rp_cli_commands[];

/* NULL: no such command. */
const rp_cli_command *rp_cli_help_find(const char *name);

/* As rp_cli_help_find, and logs the nearest name when there is none. */
const rp_cli_command *rp_cli_help_find_or_say(const char *name);

/* The only command that takes this row; NULL: all do. */
const rp_cli_command *rp_cli_help_owner(const rp_option_info *row);

/* What `rankpool help` prints, and three lines for who gave no command at all. */
void rp_cli_help_overview(FILE *stream);
void rp_cli_help_short(FILE *stream);

/* What `rankpool COMMAND --help` prints. */
void rp_cli_help_command(FILE *stream, const rp_cli_command *command);

#endif
