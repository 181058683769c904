/*
 * The program that `socks6 run` starts: found as the shell finds it, and judged before. Called by cmd_run.c.
 */
#ifndef CLI_RUN_PROGRAM_H
#define CLI_RUN_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

#include <socks6/types.h>

/* Looks for `name` in `path` (the variable's value; NULL = execvp(3)'s default), unless it has a slash. 0, or -ENOENT, -EACCES, -ENAMETOOLONG. */
SOCKS6_MUST_CHECK int run_program_find(const char *name, const char *path, char *out, size_t size);

/* 0, or an exit status after an error was printed: 127, or 126 for what must not be started. */
int run_program_check(const char *name, const char *library, bool allow_direct);

#endif
