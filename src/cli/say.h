/*
 * Sentences for people on standard error. One write per line, so that lines of several programs do not mix.
 */
#ifndef CLI_SAY_H
#define CLI_SAY_H

/* "socks6: connect: <sentence>"; `command` may be NULL. */
__attribute__((format(printf, 2, 3))) void say(const char *command, const char *format, ...);

/* The same, followed by how to see the help. Returns CLI_EXIT_USAGE. */
__attribute__((format(printf, 2, 3))) int say_usage(const char *command, const char *format, ...);

#endif
