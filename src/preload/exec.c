/*
 * The exec functions. All come down to start_program(): libc's own call each other inside, where we would not see it.
 */
#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

#include "preload/export.h"
#include "preload/start.h"

#pragma GCC diagnostic ignored "-Walloca" /* as libc does it: see start.c */

static const struct start plainly = {.how = START_EXECVE, .directory = AT_FDCWD};

static int failed(int rc)
{
    errno = rc < 0 ? -rc : rc;
    return -1;
}

PRELOAD_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    return failed(start_program(&plainly, path, argv, envp));
}

PRELOAD_EXPORT int execv(const char *path, char *const argv[])
{
    return failed(start_program(&plainly, path, argv, environ));
}

PRELOAD_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    return failed(start_searched(&plainly, file, argv, envp, true));
}

PRELOAD_EXPORT int execvp(const char *file, char *const argv[])
{
    return failed(start_searched(&plainly, file, argv, environ, true));
}

PRELOAD_EXPORT int execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags)
{
    const struct start how = {.how = START_EXECVEAT, .directory = directory, .flags = flags};

    return failed(start_program(&how, path, argv, envp));
}

PRELOAD_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
    const struct start how = {.how = START_FEXECVE, .directory = fd};

    if (fd < 0 || envp == NULL) {
        return failed(EINVAL); /* as libc */
    }
    return failed(start_program(&how, "", argv, envp));
}

/* How many arguments, `first` and the NULL included. */
static size_t count_arguments(const char *first, va_list args)
{
    size_t count = 1;

    for (const char *next = first; next != NULL; count++) {
        next = va_arg(args, const char *); // NOLINT(clang-analyzer-valist.Uninitialized): the callers have begun it
    }
    return count;
}

/* Into an array; then `args` is at what follows the NULL. */
static void collect(char **out, const char *first, va_list *args)
{
    union {
        const char *text;
        char *plain;
    } next = {first};

    while (next.text != NULL) {
        *out++ = next.plain;
        next.text = va_arg(*args, const char *); // NOLINT(clang-analyzer-valist.Uninitialized): as above
    }
    *out = NULL;
}

PRELOAD_EXPORT int execl(const char *path, const char *first, ...)
{
    char **argv;
    va_list args;

    va_start(args, first);
    argv = alloca(count_arguments(first, args) * sizeof *argv);
    va_end(args);
    va_start(args, first);
    collect(argv, first, &args);
    va_end(args);
    return execv(path, argv);
}

PRELOAD_EXPORT int execlp(const char *file, const char *first, ...)
{
    char **argv;
    va_list args;

    va_start(args, first);
    argv = alloca(count_arguments(first, args) * sizeof *argv);
    va_end(args);
    va_start(args, first);
    collect(argv, first, &args);
    va_end(args);
    return execvp(file, argv);
}

PRELOAD_EXPORT int execle(const char *path, const char *first, ...)
{
    char **argv, *const *envp;
    va_list args;

    va_start(args, first);
    argv = alloca(count_arguments(first, args) * sizeof *argv);
    va_end(args);
    va_start(args, first);
    collect(argv, first, &args);
    envp = va_arg(args, char *const *);
    va_end(args);
    return execve(path, argv, envp);
}
