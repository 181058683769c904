/*
 * The helper of `socks6 run` when calls fail: the server runs in this thread, where the nth call of those that are wrapped fails; the
 * program and the proxy are threads of their own. Whatever fails, the program gets an answer or an end, and nothing leaks.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <socks6/error.h>

#include "run/protocol.h"

#include "cli/run_serve.h"

#define PAD 1000u
#define TIMEOUT_MS 20000

static _Thread_local unsigned countdown; /* 1 = the next call fails; 0 = none does */
static bool has_failed;
static const char *what_failed;
static int failure;

static bool fails(const char *what)
{
    if (countdown == 0 || --countdown > 0) {
        return false;
    }
    has_failed = true;
    what_failed = what;
    errno = failure;
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

int __real_socket(int domain, int type, int protocol);
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

ssize_t __real_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags)
{
    return fails("recv") ? -1 : __real_recv(fd, buf, size, flags);
}

ssize_t __real_send(int fd, const void *buf, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t size, int flags)
{
    return fails("send") ? -1 : __real_send(fd, buf, size, flags);
}

/* --- a proxy that says yes, and an echo --- */

static int listener = -1;
static struct socks6_proxy proxy;
static struct proxy_addresses addresses;

static void converse(int fd)
{
    static const uint8_t answer[] = {6, 0, 0, 0, 6, 0, 0, 0, 0, 80, 0, 1, 203, 0, 113, 1};
    char buf[2048];
    ssize_t n = __real_recv(fd, buf, sizeof buf, 0);
    const ssize_t request_len = n < 4 ? 0 : 12 + 256 * (uint8_t)buf[2] + (uint8_t)buf[3];

    if (n > 0) {
        (void)__real_send(fd, answer, sizeof answer, MSG_NOSIGNAL);
        if (n > request_len) { /* --early */
            (void)__real_send(fd, buf + request_len, (size_t)(n - request_len), MSG_NOSIGNAL);
        }
        while ((n = __real_recv(fd, buf, sizeof buf, 0)) > 0) {
            (void)__real_send(fd, buf, (size_t)n, MSG_NOSIGNAL);
        }
    }
    (void)close(fd);
}

static void *serve_proxy(void *arg)
{
    int fd;

    while ((fd = __real_accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        converse(fd);
    }
    return arg;
}

/* --- the program --- */

struct program {
    struct run_serve *serve;
    uint32_t flags;
    int own; /* the socket that goes along; -1 = none */
    bool is_hung;
    bool is_served; /* the echo came back */
};

static int open_talk(const struct program *p, uint8_t secret[RUN_SECRET_LEN])
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *text = run_serve_variable(p->serve) + 2;
    int fd = __real_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval timeout = {TIMEOUT_MS / 1000, 0};

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
    if (connect(fd, (const struct sockaddr *)&addr,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + RUN_ADDRESS_LEN)) != 0) {
        abort();
    }
    return fd;
}

/* With a descriptor, unless that is -1. */
static void send_with(int fd, void *bytes, size_t len, int own)
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

static void ask(const struct program *p, int fd, const uint8_t *secret)
{
    struct {
        struct run_request header;
        struct run_connect body;
    } whole = {.header = {.len = sizeof whole, .version = RUN_VERSION, .kind = RUN_CONNECT}};

    _Static_assert(sizeof whole == sizeof(struct run_request) + sizeof(struct run_connect), "nothing between");
    memcpy(whole.header.secret, secret, RUN_SECRET_LEN);
    whole.body.destination = (struct run_addr){.family = AF_INET, .port = 80, .bytes = {192, 0, 2, 1}};
    whole.body.cookie = 1;
    whole.body.flags = p->flags;
    whole.body.pad_len = PAD;
    send_with(fd, &whole, sizeof whole, p->own);
}

static bool receive(struct program *p, int fd, void *buf, size_t len)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = __real_recv(fd, (char *)buf + got, len - got, 0);

        if (n <= 0) {
            p->is_hung = p->is_hung || (n < 0 && errno == EAGAIN);
            return false;
        }
        got += (size_t)n;
    }
    return true;
}

/* The reply, and the socket that came along in the place of `*fd`. */
static bool receive_verdict(struct program *p, int *fd, struct run_connected *out)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct {
        struct run_reply header;
        struct run_connected body;
    } whole;
    struct iovec iov = {&whole, sizeof whole};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = __real_recvmsg(*fd, &message, MSG_CMSG_CLOEXEC);

    p->is_hung = p->is_hung || (n < 0 && errno == EAGAIN);
    if (n != (ssize_t)sizeof whole) {
        return false;
    }
    *out = whole.body;
    if (CMSG_FIRSTHDR(&message) != NULL) {
        (void)close(*fd);
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *fd);
    }
    return true;
}

static void *run_program(void *arg)
{
    struct program *p = arg;
    static char pad[PAD];
    uint8_t secret[RUN_SECRET_LEN];
    struct run_connected connected;
    char echo[4];
    int fd = open_talk(p, secret);

    ask(p, fd, secret);
    if (receive_verdict(p, &fd, &connected) && connected.verdict != RUN_VERDICT_FAILED) {
        if (connected.verdict == RUN_VERDICT_WAIT) {
            (void)__real_send(fd, pad, sizeof pad, MSG_NOSIGNAL);
        }
        (void)__real_send(fd, "ping", 4, MSG_NOSIGNAL);
        p->is_served = receive(p, fd, echo, sizeof echo) && memcmp(echo, "ping", 4) == 0;
    }
    (void)close(fd);
    loop_stop(run_serve_loop(p->serve));
    return NULL;
}

/* --- the tests --- */

static int set_up(void **state)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;
    char url[64], why[256];
    static pthread_t thread;

    (void)state;
    listener = __real_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (const struct sockaddr *)&addr, sizeof addr) != 0 || listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) != 0) {
        return -1;
    }
    (void)snprintf(url, sizeof url, "socks6://127.0.0.1:%u", (unsigned)ntohs(addr.sin_port));
    if (socks6_proxy_parse(url, &proxy, why, sizeof why) != SOCKS6_OK) {
        return -1;
    }
    addresses.list[0] = proxy.addr;
    addresses.count = 1;
    return pthread_create(&thread, NULL, serve_proxy, NULL);
}

/* Runs one program with the nth call failing. Whether there were that many. */
static bool run_once(struct program *p, bool is_early, unsigned n)
{
    const struct run_serve_config config = {.proxy = &proxy,
                                            .addresses = &addresses,
                                            .family = AF_UNSPEC,
                                            .timeout_ms = TIMEOUT_MS,
                                            .is_early = is_early,
                                            .no_session = true};
    pthread_t thread;

    assert_int_equal(run_serve_new(&config, &p->serve), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_program, p), 0);
    has_failed = false;
    countdown = n;
    assert_int_equal(loop_run(run_serve_loop(p->serve)), 0);
    countdown = 0;
    assert_int_equal(pthread_join(thread, NULL), 0);
    run_serve_free(p->serve);
    return has_failed;
}

static void check_with(uint32_t flags, bool is_early, int error, bool has_own)
{
    bool has_more = true;
    unsigned n;

    failure = error;
    for (n = 0; has_more; n++) {
        struct program p = {.flags = flags, .own = has_own ? __real_socket(AF_INET, SOCK_STREAM, 0) : -1};

        has_more = run_once(&p, is_early, n) || n == 0;
        if (has_own) {
            assert_int_equal(close(p.own), 0);
        }
        if (p.is_hung) {
            fail_msg("the program hung when call %u, %s(), failed with %s", n, what_failed, strerror(error));
        }
        if (!has_failed && !p.is_served) {
            fail_msg("no call failed, and yet it was not served");
        }
    }
    assert_true(n > 10);
}

static void check(uint32_t flags, bool is_early, int error)
{
    check_with(flags, is_early, error, true);
    check_with(flags, is_early, error, false);
}

static void test_blocking_connect(void **state)
{
    (void)state;
    check(0, false, ENOMEM);
    check(0, false, ECONNRESET);
}

static void test_non_blocking_connect(void **state)
{
    (void)state;
    check(RUN_CONNECT_NON_BLOCKING, false, ENOMEM);
    check(RUN_CONNECT_NON_BLOCKING, false, ECONNRESET);
}

static void test_early_connect(void **state)
{
    (void)state;
    check(RUN_CONNECT_NON_BLOCKING, true, ENOMEM);
    check(RUN_CONNECT_NON_BLOCKING, true, ECONNRESET);
}

static void test_without_descriptors_programs_wait(void **state)
{
    (void)state;
    check(RUN_CONNECT_NON_BLOCKING, false, EMFILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking_connect),
        cmocka_unit_test(test_non_blocking_connect),
        cmocka_unit_test(test_early_connect),
        cmocka_unit_test(test_without_descriptors_programs_wait),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
