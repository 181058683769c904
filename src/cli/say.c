#include "cli/say.h"

#include <stdarg.h>
#include <stdio.h>

#include "cli/exit.h"

__attribute__((format(printf, 2, 0))) static void vsay(const char *command, const char *format, va_list args)
{
    char text[2048];

    (void)vsnprintf(text, sizeof text, format, args);
    (void)fprintf(stderr, "socks6: %s%s%s\n", command != NULL ? command : "", command != NULL ? ": " : "", text);
}

void say(const char *command, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsay(command, format, args);
    va_end(args);
}

int say_usage(const char *command, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsay(command, format, args);
    va_end(args);
    (void)fprintf(stderr, "Try 'socks6%s%s --help'.\n", command != NULL ? " " : "", command != NULL ? command : "");
    return CLI_EXIT_USAGE;
}
