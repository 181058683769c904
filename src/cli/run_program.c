#include "cli/run_program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run_launch.h"
#include "cli/say.h"
#include "run/program.h"

static const char command[] = "run";

/* As execvp(3), without /etc/shells and the like: a file that may be executed. 0 or -errno. */
static int is_program(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return -EACCES;
    }
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 ? 0 : -errno;
}

/* `len` bytes of a folder, empty for the working directory, and the name. */
static int join(const char *folder, size_t len, const char *name, char *out, size_t size)
{
    int n = snprintf(out, size, "%.*s%s%s", (int)len, folder, len > 0 ? "/" : "", name);

    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

int run_program_find(const char *name, const char *path, char *out, size_t size)
{
    static const char usual[] = "/bin:/usr/bin";
    int rc = -ENOENT;

    if (strchr(name, '/') != NULL) {
        rc = join("", 0, name, out, size);
        return rc == 0 ? is_program(out) : rc;
    }
    if (*name == '\0') {
        return -ENOENT;
    }
    for (path = path != NULL ? path : usual;; path++) {
        size_t len = strcspn(path, ":");
        int found = join(path, len, name, out, size);

        found = found == 0 ? is_program(out) : found;
        if (found == 0) {
            return 0;
        }
        rc = found == -EACCES ? -EACCES : rc; /* goes on, as the shell does */
        path += len;
        if (*path == '\0') {
            return rc;
        }
    }
}

static int check(const char *name, const char *library, bool allow_direct, char *path, size_t size)
{
    int rc = run_program_find(name, getenv("PATH"), path, size);

    if (rc != 0) {
        say(command, "cannot run '%s': %s", name,
            rc == -ENOENT && strchr(name, '/') == NULL ? "no such program in PATH" : strerror(-rc));
        return rc == -ENOENT ? RUN_EXIT_NOT_FOUND : RUN_EXIT_CANNOT;
    }
    rc = allow_direct ? PROGRAM_FITS : program_judge(AT_FDCWD, path, 0, library);
    if (rc < 0) {
        say(command, "cannot run '%s': %s", name, strerror(-rc));
        return RUN_EXIT_CANNOT;
    }
    if (rc != PROGRAM_FITS) {
        say(command, "cannot run '%s': it %s; with --allow-direct it would run, past the proxy", name,
            program_reason((enum program_verdict)rc));
        return RUN_EXIT_CANNOT;
    }
    return 0;
}

int run_program_check(const char *name, const char *library, bool allow_direct)
{
    char *path = malloc(PATH_MAX);
    int rc;

    if (path == NULL) {
        say(command, "out of memory");
        return RUN_EXIT_CANNOT;
    }
    rc = check(name, library, allow_direct, path, PATH_MAX);
    free(path);
    return rc;
}
