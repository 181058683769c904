/*
 * What main.c and the subcommands have in common: the table's row, and the options that both sides understand.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <getopt.h>

#include "cli/proxy.h"

/* One subcommand: a row of the table in main.c. */
struct command {
    const char *name;
    const char *arguments; /* for the overview: "HOST PORT" */
    const char *summary;   /* one line, no full stop */
    /* argv[0] is the subcommand's name. `options` holds what stood before it. Returns enum cli_exit. */
    int (*run)(struct proxy_options *options, int argc, char **argv);
};

/* Values of getopt_long() for long options without a letter. */
enum command_option { COMMAND_OPTION_USER = 256, COMMAND_OPTION_PASSWORD_FILE, COMMAND_OPTION_OWN };

/* Rows for a table of long options, and the letters beside them. */
#define COMMAND_LONG_OPTIONS                                                                                           \
    {"proxy", required_argument, NULL, 'x'}, {"proxy-user", required_argument, NULL, COMMAND_OPTION_USER},             \
        {"password-file", required_argument, NULL, COMMAND_OPTION_PASSWORD_FILE},                                      \
    {                                                                                                                  \
        "help", no_argument, NULL, 'h'                                                                                 \
    }
#define COMMAND_SHORT_OPTIONS "x:h"

/* The options' part of a help text. */
#define COMMAND_OPTIONS_HELP                                                                                           \
    "  -x, --proxy URL        socks6://[USER[:PASSWORD]@]HOST[:PORT][?draft=8|11|12]\n"                                \
    "                         or socks6s://... (TLS; its parameters: socks6(1))\n"                                     \
    "                         or socks5h://...; default: SOCKS6_PROXY, then ALL_PROXY\n"                               \
    "                         if its scheme is ours, then " PROXY_DEFAULT_URL "\n"                                     \
    "      --proxy-user NAME  user name at the proxy; its password comes from the\n"                                   \
    "                         variable SOCKS6_PASSWORD or from --password-file\n"                                      \
    "      --password-file FILE\n"                                                                                     \
    "                         read the password from the first line of FILE\n"

/* Stores one of the options above; 0 if `option` is none of them (or --help, which is the caller's). */
int command_take_option(struct proxy_options *options, int option, char *argument);

/* The sentence for what getopt_long() returned '?' or ':' for. Returns CLI_EXIT_USAGE. */
int command_bad_option(const char *command, int returned, char **argv);

/* Prints a help text on standard output. Returns CLI_EXIT_OK, or CLI_EXIT_REMOTE if it could not be written. */
int command_print_help(const char *command, const char *text);

#endif
