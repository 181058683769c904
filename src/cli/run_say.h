/*
 * What the helper of `socks6 run` prints on standard error, which it shares with the program: whole lines, "socks6 run: curl[1234]: ...".
 *
 * It never waits for whoever reads them: a line that the terminal or pipe does not take now is dropped, since everything that the
 * program does over the network would wait as well.
 */
#ifndef CLI_RUN_SAY_H
#define CLI_RUN_SAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A line of our own. */
__attribute__((format(printf, 1, 2))) void run_say(const char *format, ...);
/* A line about a process; 0 = it is not known. */
__attribute__((format(printf, 2, 3))) void run_say_of(pid_t pid, const char *format, ...);

/* Texts that were said lately, so that they are said once. Zero-initialise. */
#define RUN_SAY_ONCE_MAX 256u
struct run_say_once {
    uint64_t hashes[RUN_SAY_ONCE_MAX]; /* 0 = none; the oldest gives way */
    unsigned next;
};
/* Whether it is new, together with `number`. It is not from then on. */
bool run_say_is_new(struct run_say_once *once, uint64_t number, const char *text);

/* Makes `len` bytes fit to be printed: control characters and what is not ASCII become '?'. Ends it with NUL. */
void run_say_clean(char *text, size_t len);

#endif
