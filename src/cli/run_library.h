/*
 * Where libsocks6-preload.so is. Used by cmd_run.c.
 */
#ifndef CLI_RUN_LIBRARY_H
#define CLI_RUN_LIBRARY_H

#include <stddef.h>

#include <socks6/types.h>

/*
 * The absolute path of the library that belongs to the program `exe` (an absolute path, NULL = this process's): in the build tree
 * for a program that lies there, else where it was installed. 0; or -errno with a sentence in `why`: -ENOENT if it is missing,
 * -EINVAL if LD_PRELOAD could not name it.
 */
SOCKS6_MUST_CHECK int run_library_find(const char *exe, char *out, size_t size, char *why, size_t why_size);

#endif
