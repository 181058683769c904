#include "cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/exit.h"
#include "cli/say.h"

int command_take_option(struct proxy_options *options, int option, char *argument)
{
    switch (option) {
    case 'x':
        options->url = argument;
        return 1;
    case COMMAND_OPTION_USER:
        options->user = argument;
        return 1;
    case COMMAND_OPTION_PASSWORD_FILE:
        options->password_file = argument;
        return 1;
    default:
        return 0;
    }
}

/*
 * getopt_long(3) tells of a short option in `optopt`; of a long one only that it is argv[optind - 1]. What stands behind
 * a '=' is not repeated: it can be a password.
 */
int command_bad_option(const char *command, int returned, char **argv)
{
    const char *word = argv[optind - 1];
    int is_long = strncmp(word, "--", 2) == 0;
    int name_len = (int)strcspn(word, "=");

    if (returned == ':') {
        if (is_long) {
            return say_usage(command, "option '%.*s' needs an argument", name_len, word);
        }
        return say_usage(command, "option '-%c' needs an argument", optopt);
    }
    if (is_long && optopt != 0) {
        return say_usage(command, "option '%.*s' takes no argument", name_len, word);
    }
    if (is_long) {
        return say_usage(command, "unknown option '%.*s'", name_len, word);
    }
    return say_usage(command, "unknown option '-%c'", optopt);
}

int command_print_help(const char *command, const char *text)
{
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF || ferror(stdout)) {
        say(command, "cannot write to standard output: %s", strerror(errno));
        return CLI_EXIT_REMOTE;
    }
    return CLI_EXIT_OK;
}
