/*
 * Failing calls on demand: socks6d-faults is the daemon linked with ld's --wrap, so that the calls below come here first.
 *
 * The test that started it controls it through a file both have mapped (its path is in SOCKS6_FAULTS): which call is to fail, the how-manieth, how
 * often, and with which error. Without the variable nothing fails. Calls that libraries make inside of themselves are not wrapped.
 *
 * The same file switches off what keeps replays from acting, so that the tests of replays can prove that they would notice; and it chooses where the
 * windows of tokens begin.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proxyd/door.h"
#include "proxyd/store.h"

/* Numbers that the test knows by the order of these names. */
enum fault {
    FAULT_NONE,
    FAULT_MALLOC,
    FAULT_CALLOC,
    FAULT_REALLOC,
    FAULT_ACCEPT4,
    FAULT_SOCKET,
    FAULT_CONNECT,
    FAULT_SETSOCKOPT,
    FAULT_GETSOCKOPT,
    FAULT_GETSOCKNAME,
    FAULT_GETPEERNAME,
    FAULT_EPOLL_CTL,
    FAULT_RECV,
    FAULT_SEND,
    FAULT_SHUTDOWN,
    FAULT_RECVMSG,
    FAULT_SPLICE,
    FAULT_PIPE2,
    FAULT_FCNTL,
    FAULT_MMAP,
    FAULT_COUNT
};

/* The layout of the file; all in the host's byte order. */
struct control {
    _Atomic uint32_t armed; /* enum fault */
    _Atomic int32_t skip;   /* calls of it that still go through */
    _Atomic int32_t count;  /* calls of it that fail then */
    _Atomic int32_t error;  /* errno */
    _Atomic uint32_t hits;  /* calls that failed */
    _Atomic uint32_t calls[FAULT_COUNT];
    _Atomic uint32_t no_token_check; /* not 0: every token of a session is accepted, as often as it comes */
    _Atomic uint32_t no_wait;        /* not 0: requests without a token act as soon as those with one */
    _Atomic uint32_t has_base, base; /* has_base not 0: windows of tokens begin at `base` */
};

static struct control *control;

__attribute__((constructor)) static void faults_open(void)
{
    const char *path = getenv("SOCKS6_FAULTS");
    if (path == NULL)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        perror(path);
        _exit(3);
    }
    close(fd);
    control = mapped;
}

/* Whether this call is one that has to fail; sets errno then. */
static int fails(enum fault fault)
{
    if (control == NULL)
        return 0;
    atomic_fetch_add(&control->calls[fault], 1);
    if (atomic_load(&control->armed) != (uint32_t)fault || atomic_fetch_sub(&control->skip, 1) > 0)
        return 0;
    if (atomic_fetch_sub(&control->count, 1) <= 0)
        return 0;
    atomic_fetch_add(&control->hits, 1);
    errno = atomic_load(&control->error);
    return 1;
}

/* clang-format off */
#define WRAP(result, name, fault, failure, params, args)                                                               \
    result __real_##name params;                                                                                       \
    result __wrap_##name params;                                                                                       \
    result __wrap_##name params { return fails(fault) ? (failure) : __real_##name args; }
/* clang-format on */

WRAP(void *, malloc, FAULT_MALLOC, NULL, (size_t size), (size))
WRAP(void *, calloc, FAULT_CALLOC, NULL, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, FAULT_REALLOC, NULL, (void *ptr, size_t size), (ptr, size))
WRAP(void *, reallocarray, FAULT_REALLOC, NULL, (void *ptr, size_t count, size_t size), (ptr, count, size))
WRAP(void *, aligned_alloc, FAULT_MALLOC, NULL, (size_t align, size_t size), (align, size))
WRAP(int, accept4, FAULT_ACCEPT4, -1, (int fd, struct sockaddr *sa, socklen_t *len, int flags), (fd, sa, len, flags))
WRAP(int, socket, FAULT_SOCKET, -1, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, connect, FAULT_CONNECT, -1, (int fd, const struct sockaddr *sa, socklen_t len), (fd, sa, len))
WRAP(int, setsockopt, FAULT_SETSOCKOPT, -1, (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len))
WRAP(int, getsockopt, FAULT_GETSOCKOPT, -1, (int fd, int level, int name, void *value, socklen_t *len),
     (fd, level, name, value, len))
WRAP(int, getsockname, FAULT_GETSOCKNAME, -1, (int fd, struct sockaddr *sa, socklen_t *len), (fd, sa, len))
WRAP(int, getpeername, FAULT_GETPEERNAME, -1, (int fd, struct sockaddr *sa, socklen_t *len), (fd, sa, len))
WRAP(int, epoll_ctl, FAULT_EPOLL_CTL, -1, (int epoll, int op, int fd, struct epoll_event *event),
     (epoll, op, fd, event))
WRAP(ssize_t, recv, FAULT_RECV, -1, (int fd, void *buf, size_t len, int flags), (fd, buf, len, flags))
WRAP(ssize_t, __recv_chk, FAULT_RECV, -1, (int fd, void *buf, size_t len, size_t size, int flags),
     (fd, buf, len, size, flags))
WRAP(ssize_t, recvmsg, FAULT_RECVMSG, -1, (int fd, struct msghdr *msg, int flags), (fd, msg, flags))
WRAP(ssize_t, send, FAULT_SEND, -1, (int fd, const void *buf, size_t len, int flags), (fd, buf, len, flags))
WRAP(int, shutdown, FAULT_SHUTDOWN, -1, (int fd, int how), (fd, how))
WRAP(ssize_t, splice, FAULT_SPLICE, -1, (int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned flags),
     (in, in_at, out, out_at, len, flags))
WRAP(int, pipe2, FAULT_PIPE2, -1, (int fds[2], int flags), (fds, flags))
/* Under the names that 64-bit file offsets give them. */
WRAP(int, fcntl64, FAULT_FCNTL, -1, (int fd, int command, long value), (fd, command, value))
WRAP(void *, mmap64, FAULT_MMAP, MAP_FAILED, (void *at, size_t len, int prot, int flags, int fd, off_t offset),
     (at, len, prot, flags, fd, offset))

/* ---- what keeps replays from acting ---- */

enum store_timing __real_store_token_spend(struct store *store, struct store_query *query, struct socks6_slice id,
                                           const char *realm, uint32_t token);
enum store_timing __wrap_store_token_spend(struct store *store, struct store_query *query, struct socks6_slice id,
                                           const char *realm, uint32_t token);
enum store_timing __wrap_store_token_spend(struct store *store, struct store_query *query, struct socks6_slice id,
                                           const char *realm, uint32_t token)
{
    enum store_timing timing = __real_store_token_spend(store, query, id, realm, token);
    if (control != NULL && atomic_load(&control->no_token_check) != 0 && timing == STORE_NOW &&
        query->answer.status == STORE_OK)
        query->answer.accepted = true;
    return timing;
}

/* Asked for who may act before the client's handshake has ended; the copy is good until the next call. */
const struct door_request *__real_door_request(const struct door *door);
const struct door_request *__wrap_door_request(const struct door *door);
const struct door_request *__wrap_door_request(const struct door *door)
{
    static _Thread_local struct door_request copy;
    const struct door_request *request = __real_door_request(door);
    if (control == NULL || atomic_load(&control->no_wait) == 0)
        return request;
    copy = *request;
    copy.token_spent = true;
    return &copy;
}

/* The base of a window is all that the store draws from four random bytes. */
ssize_t __real_getrandom(void *buf, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    if (control != NULL && len == sizeof(uint32_t) && atomic_load(&control->has_base) != 0) {
        uint32_t base = atomic_load(&control->base);
        memcpy(buf, &base, sizeof base);
        return (ssize_t)len;
    }
    return __real_getrandom(buf, len, flags);
}
