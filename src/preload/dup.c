/*
 * Theory of operation. That a descriptor was ever duplicated is remembered for good, since close(2) is not watched. When a socket
 * is to take the place of another, those are looked at for its cookie. Most programs have few.
 */
#include "preload/dup.h"

#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

#include "preload/bits.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/sys.h"

static struct bits duplicates;

static int remember(int old, int new)
{
    if (new >= 0) {
        bits_set(&duplicates, old);
        bits_set(&duplicates, new);
    }
    return new;
}

int dup_next(int from, uint64_t cookie)
{
    int fd = bits_next(&duplicates, from);

    while (fd >= 0 && sys_cookie(fd) != cookie) {
        fd = bits_next(&duplicates, fd + 1);
    }
    return fd;
}

bool dup_has(int fd)
{
    return bits_has(&duplicates, fd);
}

PRELOAD_HOOK(int, dup, int fd)
{
    return remember(fd, real(dup)(fd));
}

PRELOAD_HOOK(int, dup2, int fd, int to)
{
    return remember(fd, real(dup2)(fd, to));
}

PRELOAD_HOOK(int, dup3, int fd, int to, int flags)
{
    return remember(fd, real(dup3)(fd, to, flags));
}

static int control(int (*function)(int, int, ...), int fd, int command, void *argument)
{
    int rc = function(fd, command, argument);

    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? remember(fd, rc) : rc;
}

/* The third argument is an int, a long, a pointer or not there: a register's worth in any case. */
PRELOAD_HOOK(int, fcntl, int fd, int command, ...)
{
    va_list args;
    void *argument;

    va_start(args, command);
    argument = va_arg(args, void *);
    va_end(args);
    return control(real(fcntl), fd, command, argument);
}

PRELOAD_HOOK(int, fcntl64, int fd, int command, ...)
{
    va_list args;
    void *argument;

    va_start(args, command);
    argument = va_arg(args, void *);
    va_end(args);
    return control(real(fcntl64), fd, command, argument);
}
