/*
 * System calls for our own use, without libc's wrappers: the wrappers may be replaced by us or by another library, be points of
 * cancellation, and set errno. These give their result or -errno and leave errno alone.
 */
#ifndef PRELOAD_SYS_H
#define PRELOAD_SYS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* For all that has no function below. */
#define SYS_CALL(...) sys_result(errno, syscall(__VA_ARGS__))

static inline long sys_result(int saved, long rc)
{
    if (rc < 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

static inline int sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return (int)SYS_CALL(SYS_getsockopt, fd, level, name, value, len);
}

static inline int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return (int)SYS_CALL(SYS_setsockopt, fd, level, name, value, len);
}

/* An option that is a number: it, or -errno. Of no use for options whose values can be negative. */
static inline int sys_get_int(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof value;
    int rc = sys_getsockopt(fd, level, name, &value, &len);

    return rc < 0 ? rc : value;
}

/* 0 = no socket: the kernel gives no cookie 0. */
static inline uint64_t sys_cookie(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;

    return sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

static inline int sys_getpeername(int fd, void *addr, socklen_t *len)
{
    return (int)SYS_CALL(SYS_getpeername, fd, addr, len);
}

static inline int sys_getsockname(int fd, void *addr, socklen_t *len)
{
    return (int)SYS_CALL(SYS_getsockname, fd, addr, len);
}

static inline int sys_fcntl(int fd, int command, long value)
{
    return (int)SYS_CALL(SYS_fcntl, fd, command, value);
}

static inline void sys_close(int fd)
{
    (void)SYS_CALL(SYS_close, fd);
}

/* What poll(2) says of `events` now; 0 for nothing, also if it cannot say. */
short sys_poll_now(int fd, short events);

#endif
