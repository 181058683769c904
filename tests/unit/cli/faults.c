/*
 * What tests of the helper with failing calls have in common: see faults.h.
 */
#include "faults.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

_Thread_local unsigned faults_countdown;
bool faults_has_failed;
const char *faults_what;
int faults_errno;

/* --- calls --- */

static bool fails(const char *what)
{
    if (faults_countdown == 0 || --faults_countdown > 0) {
        return false;
    }
    faults_has_failed = true;
    faults_what = what;
    errno = faults_errno;
    return true;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return fails("calloc") ? NULL : __real_calloc(count, size);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return fails("malloc") ? NULL : __real_malloc(size);
}

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    return op != EPOLL_CTL_DEL && fails("epoll_ctl") ? -1 : __real_epoll_ctl(epoll, op, fd, event);
}

int __real_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    return fails("accept4") ? -1 : __real_accept4(fd, addr, len, flags);
}

int __wrap_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol)
{
    return fails("socket") ? -1 : __real_socket(domain, type, protocol);
}

ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    return fails("recvmsg") ? -1 : __real_recvmsg(fd, message, flags);
}

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    return fails("sendmsg") ? -1 : __real_sendmsg(fd, message, flags);
}

ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags)
{
    return fails("recv") ? -1 : __real_recv(fd, buf, size, flags);
}

/* What recv(2) is called in builds with _FORTIFY_SOURCE. */
ssize_t __wrap___recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
ssize_t __wrap___recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
    return size > room ? -1 : __wrap_recv(fd, buf, size, flags);
}

ssize_t __wrap_send(int fd, const void *buf, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t size, int flags)
{
    return fails("send") ? -1 : __real_send(fd, buf, size, flags);
}

/* But for F_SETFL, which cannot fail. */
int __real_fcntl(int fd, int command, int argument);
int __wrap_fcntl(int fd, int command, int argument);
int __wrap_fcntl(int fd, int command, int argument)
{
    return command == F_DUPFD_CLOEXEC && fails("fcntl") ? -1 : __real_fcntl(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, int argument);
int __wrap_fcntl64(int fd, int command, int argument)
{
    return __wrap_fcntl(fd, command, argument);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return fails("getsockopt") ? -1 : __real_getsockopt(fd, level, name, value, len);
}

int __real_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    return fails("getsockname") ? -1 : __real_getsockname(fd, addr, len);
}

/* But for the end of a connection, which cannot fail. */
int __real_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    return addr->sa_family != AF_UNSPEC && fails("connect") ? -1 : __real_connect(fd, addr, len);
}

/* --- the proxy --- */

struct socks6_proxy faults_proxy;
struct proxy_addresses faults_addresses;

static int listener = -1;
static _Atomic(enum faults_manner) manners[2]; /* for the others, for the program's own */
static atomic_bool is_gated, is_reset_wanted;
static atomic_int end_error;
static sem_t has_asked, gate, has_ended;

void faults_proxy_behave(enum faults_manner own, enum faults_manner others, bool waits)
{
    atomic_store(&manners[0], others);
    atomic_store(&manners[1], own);
    atomic_store(&is_gated, waits);
    atomic_store(&is_reset_wanted, false);
}

void faults_proxy_reset_after(void)
{
    atomic_store(&is_reset_wanted, true);
}

/* The program's own request is for a port of its own. */
static bool is_own(const uint8_t *request, ssize_t len)
{
    return len > 6 && request[4] == 0 && request[5] == FAULTS_OWN_PORT;
}

static void answer(int fd, enum faults_manner manner)
{
    static const uint8_t yes[] = {6, 0, 0, 0, 6, 0, 0, 0, 0, 80, 0, 1, 203, 0, 113, 1};
    static const uint8_t refused[] = {6, 0, 0, 0, 6, 5, 0, 0, 0, 80, 0, 1, 203, 0, 113, 1};
    static const uint8_t useless[] = {6, 1, 0, 0};

    switch (manner) {
    case FAULTS_YES:
        (void)__real_send(fd, yes, sizeof yes, MSG_NOSIGNAL);
        break;
    case FAULTS_REFUSED:
        (void)__real_send(fd, refused, sizeof refused, MSG_NOSIGNAL);
        break;
    case FAULTS_USELESS:
        (void)__real_send(fd, useless, sizeof useless, MSG_NOSIGNAL);
        break;
    }
}

/* Until somebody ends it. The error that it ended with, or 0. */
static int echo(int fd)
{
    const struct linger reset = {1, 0};
    static char buf[2048]; /* one thread has it */
    ssize_t n;

    while ((n = __real_recv(fd, buf, sizeof buf, 0)) > 0) {
        (void)__real_send(fd, buf, (size_t)n, MSG_NOSIGNAL);
        if (atomic_load(&is_reset_wanted)) {
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            return 0;
        }
    }
    return n < 0 ? errno : 0;
}

static void converse(int fd)
{
    uint8_t buf[2048];
    ssize_t n = __real_recv(fd, buf, sizeof buf, 0);
    const ssize_t request_len = n < 4 ? 0 : 12 + 256 * buf[2] + buf[3];
    const bool is_programs = is_own(buf, n);

    if (is_programs) {
        (void)sem_post(&has_asked);
        if (atomic_load(&is_gated)) {
            (void)sem_wait(&gate);
        }
    }
    if (n > 0) {
        answer(fd, atomic_load(&manners[is_programs]));
        if (n > request_len) { /* --early */
            (void)__real_send(fd, buf + request_len, (size_t)(n - request_len), MSG_NOSIGNAL);
        }
        atomic_store(&end_error, echo(fd));
    }
    (void)close(fd);
    if (is_programs) {
        (void)sem_post(&has_ended);
    }
}

static void *serve_proxy(void *arg)
{
    int fd;

    while ((fd = __real_accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        converse(fd);
    }
    return arg;
}

int faults_proxy_start(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;
    char url[64], why[256];
    static pthread_t thread;

    faults_proxy_behave(FAULTS_YES, FAULTS_YES, false);
    listener = __real_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sem_init(&has_asked, 0, 0) != 0 || sem_init(&gate, 0, 0) != 0 || sem_init(&has_ended, 0, 0) != 0 ||
        bind(listener, (const struct sockaddr *)&addr, sizeof addr) != 0 || listen(listener, 16) != 0 ||
        __real_getsockname(listener, (struct sockaddr *)&addr, &len) != 0) {
        return -1;
    }
    (void)snprintf(url, sizeof url, "socks6://127.0.0.1:%u", (unsigned)ntohs(addr.sin_port));
    if (socks6_proxy_parse(url, &faults_proxy, why, sizeof why) != SOCKS6_OK) {
        return -1;
    }
    faults_addresses.list[0] = faults_proxy.addr;
    faults_addresses.count = 1;
    return pthread_create(&thread, NULL, serve_proxy, NULL);
}

static void must(bool is_so, const char *what)
{
    if (!is_so) {
        perror(what);
        abort();
    }
}

static void wait_for(sem_t *sem)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FAULTS_TIMEOUT_MS / 1000;
    must(sem_timedwait(sem, &until) == 0, "the proxy");
}

int faults_proxy_ask(void)
{
    static const uint8_t request[] = {6, 1, 0, 0, 0, FAULTS_OWN_PORT, 0, 1, 192, 0, 2, 1};
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    int fd = __real_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must(__real_getsockname(listener, (struct sockaddr *)&addr, &len) == 0, "getsockname");
    must(__real_connect(fd, (const struct sockaddr *)&addr, len) == 0, "connect");
    must(__real_send(fd, request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request, "send");
    wait_for(&has_asked);
    return fd;
}

void faults_proxy_go_on(void)
{
    (void)sem_post(&gate);
}

int faults_proxy_end(void)
{
    wait_for(&has_ended);
    return atomic_load(&end_error);
}

/* --- the program --- */

int faults_open_talk(const struct run_serve *serve, uint8_t secret[RUN_SECRET_LEN])
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *text = run_serve_variable(serve) + 2;
    int fd = __real_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval timeout = {FAULTS_TIMEOUT_MS / 1000, 0};

    for (unsigned i = 0; i < RUN_ADDRESS_LEN + RUN_SECRET_LEN; i++) {
        char digits[3] = {text[2 * i + (i >= RUN_ADDRESS_LEN)], text[2 * i + 1 + (i >= RUN_ADDRESS_LEN)], '\0'};
        uint8_t byte = (uint8_t)strtoul(digits, NULL, 16);

        if (i < RUN_ADDRESS_LEN) {
            addr.sun_path[1 + i] = (char)byte;
        } else {
            secret[i - RUN_ADDRESS_LEN] = byte;
        }
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (__real_connect(fd, (const struct sockaddr *)&addr,
                       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + RUN_ADDRESS_LEN)) != 0) {
        abort();
    }
    return fd;
}

void faults_send_with(int fd, void *bytes, size_t len, int own)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof own), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {bytes, len};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    memcpy(CMSG_DATA(&control.header), &own, sizeof own);
    if (own >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    (void)__real_sendmsg(fd, &message, MSG_NOSIGNAL);
}

bool faults_receive(int fd, void *buf, size_t len, bool *is_hung)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = __real_recv(fd, (char *)buf + got, len - got, 0);

        if (n <= 0) {
            *is_hung = *is_hung || (n < 0 && errno == EAGAIN);
            return false;
        }
        got += (size_t)n;
    }
    return true;
}

bool faults_receive_reply(int fd, int *status, void *body, size_t len, int *passed, bool *is_hung)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct run_reply header;
    struct iovec iov[] = {{&header, sizeof header}, {body, len}};
    struct msghdr message = {
        .msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = __real_recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

    *is_hung = *is_hung || (n < 0 && errno == EAGAIN);
    *passed = -1;
    if (n >= 0 && CMSG_FIRSTHDR(&message) != NULL) {
        memcpy(passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *passed);
    }
    if (n != (ssize_t)(sizeof header + len) || header.len != (size_t)n) {
        return false;
    }
    *status = header.status;
    return true;
}

static unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    must(dir != NULL, "/proc/self/fd");
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

unsigned faults_count_fds(void)
{
    return count_fds();
}

bool faults_has_fds(unsigned count)
{
    for (unsigned i = 0; i < FAULTS_TIMEOUT_MS && count_fds() != count; i++) {
        (void)poll(NULL, 0, 1); /* the proxy's thread closes what it has */
    }
    return count_fds() == count;
}
