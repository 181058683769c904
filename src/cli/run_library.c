#include "cli/run_library.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY "libsocks6-preload.so"

/* How a path ends in the build tree. */
static const char in_build_tree[] = "/src/cli/socks6";

static bool is_file(const char *path, struct stat *st)
{
    return stat(path, st) == 0 && S_ISREG(st->st_mode);
}

/*
 * Beside a program of the build tree. Whoever could put another library there could as well have changed the program: it must belong to
 * the same user, and nobody else may write it.
 */
static bool find_built(const char *exe, char *out, size_t size)
{
    size_t len = strlen(exe), tail = sizeof in_build_tree - 1;
    struct stat program, library;
    int n;

    if (exe[0] != '/' || len < tail || strcmp(exe + len - tail, in_build_tree) != 0) {
        return false;
    }
    n = snprintf(out, size, "%.*s/src/preload/" LIBRARY, (int)(len - tail), exe);
    return n > 0 && (size_t)n < size && is_file(exe, &program) && is_file(out, &library) &&
           program.st_uid == library.st_uid && (library.st_mode & (S_IWGRP | S_IWOTH) & ~program.st_mode) == 0;
}

/* The same for this process. */
static bool find_own_built(char *out, size_t size)
{
    char *exe = malloc(PATH_MAX);
    ssize_t n = exe == NULL ? 0 : readlink("/proc/self/exe", exe, PATH_MAX - 1);
    bool is_found = false;

    if (n > 0) {
        exe[n] = '\0';
        is_found = find_built(exe, out, size);
    }
    free(exe);
    return is_found;
}

int run_library_find(const char *exe, char *out, size_t size, char *why, size_t why_size)
{
    struct stat st;

    if (!(exe != NULL ? find_built(exe, out, size) : find_own_built(out, size))) {
        int n = snprintf(out, size, "%s", RUN_LIBRARY_FOLDER "/" LIBRARY);

        if (n < 0 || (size_t)n >= size || !is_file(out, &st)) {
            (void)snprintf(why, why_size, "%s is missing: it is installed together with socks6", out);
            return -ENOENT;
        }
    }
    if (strpbrk(out, ": \t\n$") != NULL) {
        (void)snprintf(why, why_size, "%s: LD_PRELOAD cannot name a path with a colon, a blank or a dollar sign", out);
        return -EINVAL;
    }
    return 0;
}
