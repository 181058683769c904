/*
 * Which interpreter does the kernel's binfmt_misc start for a file? The part of program.c that reads /proc/sys/fs/binfmt_misc. System
 * calls only, as there; errno is not kept.
 */
#ifndef RUN_BINFMT_H
#define RUN_BINFMT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * True: an entry matches, and `out` is its interpreter, cut off (so that it exists nowhere) if it has no room. `head`: the first bytes
 * of the file, `path`: its name, for entries that go by the extension.
 */
bool binfmt_find(const char *head, size_t head_len, const char *path, char *out, size_t size);

/* For it, and for tests: does the text of an entry, NUL-terminated, match? */
bool binfmt_matches(const char *entry, const char *head, size_t head_len, const char *path, char *out, size_t size);

#endif
