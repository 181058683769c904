/*
 * socks6: the client program. This file knows the subcommands and what stands before them; each has a file of its own.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd_connect.h"
#include "cli/cmd_dns.h"
#include "cli/cmd_passwd.h"
#include "cli/cmd_probe.h"
#include "cli/cmd_run.h"
#include "cli/command.h"
#include "cli/exit.h"
#include "cli/say.h"
#include "cli/suggest.h"

static const struct command commands[] = {
    {"connect", "HOST PORT", "standard input and output to HOST and PORT", cmd_connect},
    {"dns", "NAME [TYPE]...", "DNS questions, as of dig(1); or a local DNS server", cmd_dns},
    {"run", "PROGRAM [ARG]...", "a program, with all its connections and names", cmd_run},
    {"probe", "[PROXY]", "what a proxy is and can do", cmd_probe},
    {"passwd", "FILE NAME", "set a password in the users file of socks6d", cmd_passwd},
};
#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static int print_help(void)
{
    static const char after[] = "\n"
                                "Options, before the subcommand or behind it:\n" COMMAND_OPTIONS_HELP
                                "  -h, --help             show this, or the help of the subcommand\n"
                                "Before it only:\n"
                                "  -V, --version          show the version\n"
                                "\n"
                                "Exit status: 0 done; 1 the remote end failed; 2 usage; 3 the proxy cannot be\n"
                                "reached or refused us.\n";

    (void)printf("Usage: socks6 [OPTION]... SUBCOMMAND [ARGUMENT]...\n"
                 "A client of SOCKS proxies, version 6 of the protocol and version 5.\n"
                 "\n"
                 "Subcommands ('socks6 SUBCOMMAND --help' tells more):\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        (void)printf("  %s %-*s %s\n", commands[i].name, (int)(21 - strlen(commands[i].name)), commands[i].arguments,
                     commands[i].summary);
    }
    return command_print_help(NULL, after); /* which looks for errors of the stream */
}

static int unknown_command(const char *word)
{
    const char *names[COMMAND_COUNT];
    const char *nearest;

    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        names[i] = commands[i].name;
    }
    nearest = suggest_nearest(word, names, COMMAND_COUNT);
    if (nearest != NULL) {
        return say_usage(NULL, "there is no subcommand '%s'; did you mean '%s'?", word, nearest);
    }
    return say_usage(NULL, "there is no subcommand '%s'", word);
}

/*
 * A program started with descriptor 0, 1 or 2 closed would get its socket under that number, and read its "standard
 * input" from it. The gaps are filled so that reading finds the end at once and writing fails as on a closed descriptor.
 */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)open("/dev/null", O_RDONLY); /* gets the lowest free number, which is `fd` */
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        COMMAND_LONG_OPTIONS, {"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0}};
    struct proxy_options options = {NULL, NULL, NULL};
    int option;

    fill_standard_descriptors();
    opterr = 0;
    /* '+': stop at the subcommand, whose options are its own business. */
    while ((option = getopt_long(argc, argv, "+:V" COMMAND_SHORT_OPTIONS, longs, NULL)) != -1) {
        if (command_take_option(&options, option, optarg)) {
            continue;
        }
        if (option == 'h') {
            return print_help();
        }
        if (option == 'V') {
            return command_print_help(NULL, "socks6 " SOCKS6_PROGRAM_VERSION "\n");
        }
        return command_bad_option(NULL, option, argv);
    }
    if (optind == argc) {
        return say_usage(NULL, "which subcommand?");
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[optind], commands[i].name) == 0) {
            return commands[i].run(&options, argc - optind, argv + optind);
        }
    }
    return unknown_command(argv[optind]);
}
