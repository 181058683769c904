/*
 * System calls that fail, are interrupted, or take less than they were given: replaced by the linker (--wrap), and only in the
 * thread that dials.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_proxy.h"

#define REQUEST                                                                                                        \
    "\x06\x01\x00\x00\x00\x51\x00\x03\x0b"                                                                             \
    "example.com"
#define REQUEST_LEN (sizeof REQUEST - 1)
#define REPLIES                                                                                                        \
    "\x06\x00\x00\x00"                                                                                                 \
    "\x06\x00\x00\x00\x12\x34\x00\x01\x7f\x00\x00\x01"

enum call {
    CALL_SOCKET,
    CALL_CONNECT,
    CALL_SENDMSG,
    CALL_RECV,
    CALL_POLL,
    CALL_GETSOCKOPT,
    CALL_GETPEERNAME,
    CALL_FCNTL
};

/* In the dialing thread, the calls number `from` .. `to` of one kind fail with `error`; 0 = the call returns 0. */
static _Thread_local struct {
    int armed;
    enum call call;
    int from, to, error;
    int count[CALL_FCNTL + 1];
    size_t send_max; /* the most bytes that one sendmsg() takes; 0 = no limit */
    int self_connected;
    int not_yet;  /* getpeername() says so: poll() and SO_ERROR are asked */
    int may_miss; /* how many calls there are is a matter of time: there may be too few for a fault */
} plan;

static int is_hit(enum call call)
{
    int number;

    if (!plan.armed) {
        return 0;
    }
    number = plan.count[call]++;
    if (call != plan.call || number < plan.from || number > plan.to) {
        return 0;
    }
    errno = plan.error;
    return 1;
}

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __real_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __real_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int __real_fcntl(int fd, int command, long argument);
int __wrap_fcntl(int fd, int command, long argument);
int __wrap_fcntl64(int fd, int command, long argument);

int __wrap_socket(int domain, int type, int protocol)
{
    return is_hit(CALL_SOCKET) ? -1 : __real_socket(domain, type, protocol);
}

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    if (is_hit(CALL_CONNECT)) {
        if (plan.error == EINTR) { /* it goes on in the background */
            (void)__real_connect(fd, addr, len);
            errno = EINTR;
        }
        return -1;
    }
    return __real_connect(fd, addr, len);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct iovec one;
    struct msghdr less = {.msg_iov = &one, .msg_iovlen = 1};

    if (is_hit(CALL_SENDMSG)) {
        return -1;
    }
    if (!plan.armed || plan.send_max == 0) {
        return __real_sendmsg(fd, msg, flags);
    }
    one = msg->msg_iov[0];
    one.iov_len = one.iov_len < plan.send_max ? one.iov_len : plan.send_max;
    return __real_sendmsg(fd, &less, flags);
}

ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags)
{
    if (is_hit(CALL_RECV)) {
        return plan.error == 0 ? 0 : -1;
    }
    return __real_recv(fd, buf, len, flags);
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    return is_hit(CALL_POLL) ? -1 : __real_poll(fds, count, timeout);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return is_hit(CALL_GETSOCKOPT) ? -1 : __real_getsockopt(fd, level, name, value, len);
}

int __wrap_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (is_hit(CALL_GETPEERNAME)) {
        return -1;
    }
    if (plan.armed && plan.not_yet) {
        errno = ENOTCONN;
        return -1;
    }
    return plan.armed && plan.self_connected ? getsockname(fd, addr, len) : __real_getpeername(fd, addr, len);
}

int __wrap_fcntl(int fd, int command, long argument)
{
    return is_hit(CALL_FCNTL) ? -1 : __real_fcntl(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, long argument)
{
    return __wrap_fcntl(fd, command, argument);
}

/* Dials a proxy that reads the request and `early`, and then answers. */
static int dial(const char *early, struct socks6_dial_result *result, struct fake_proxy *fake)
{
    static struct fake_step script[] = {
        {FAKE_READ, NULL, 0}, {FAKE_SEND, FAKE_BYTES(REPLIES "app")}, {FAKE_END, NULL, 0}};
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    int status;

    script[0].len = REQUEST_LEN + strlen(early);
    fake_start(fake, "127.0.0.1", script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake->port);
    socks6_dial_config_init(&config);
    config.proxy = &proxy;
    config.timeout_ms = 30000;
    config.early = (struct socks6_slice){(const uint8_t *)early, strlen(early)};
    assert_true(socks6_addr_name("example.com", 11, 81, &config.addr));
    plan.armed = 1;
    status = socks6_dial(&config, result);
    plan.armed = 0;
    return status;
}

static void assert_good(const char *early)
{
    struct socks6_dial_result result;
    struct fake_proxy fake;
    char buf[3];

    if (dial(early, &result, &fake) != SOCKS6_DIAL_OK) {
        fail_msg("%s", result.error);
    }
    assert_int_equal(recv(result.fd, buf, 3, MSG_WAITALL), 3);
    assert_memory_equal(buf, "app", 3);
    close(result.fd);
    fake_wait(&fake);
    assert_int_equal(fake.got_len, REQUEST_LEN + strlen(early));
    assert_memory_equal(fake.got, REQUEST, REQUEST_LEN);
    assert_memory_equal(fake.got + REQUEST_LEN, early, strlen(early));
    fake_done(&fake);
}

/* The proxy may see half a request or none; its script would abort, so it has none of its own here. */
static void assert_bad(int status, const char *error)
{
    static const struct fake_step script[] = {{FAKE_END, NULL, 0}};
    static const struct fake_step answering[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES(REPLIES)}, {FAKE_END, NULL, 0}};
    size_t before = fake_open_descriptors();
    struct socks6_dial_result result;
    struct socks6_dial_config config;
    static struct socks6_proxy proxy;
    struct fake_proxy fake;
    int got;

    fake_start(&fake, "127.0.0.1", plan.call == CALL_RECV || plan.call == CALL_FCNTL ? answering : script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake.port);
    socks6_dial_config_init(&config);
    config.proxy = &proxy;
    config.timeout_ms = 30000;
    assert_true(socks6_addr_name("example.com", 11, 81, &config.addr));
    plan.armed = 1;
    got = socks6_dial(&config, &result);
    plan.armed = 0;
    if (plan.may_miss && plan.count[plan.call] <= plan.from && got == SOCKS6_DIAL_OK) {
        close(result.fd);
        fake_done(&fake);
        return;
    }
    if (got != status || strstr(result.error, error) == NULL) {
        fail_msg("status %d: \"%s\" instead of \"%s\"", got, result.error, error);
    }
    assert_int_equal(result.fd, -1);
    fake_done(&fake);
    assert_int_equal(fake_open_descriptors(), before);
}

static int set_up(void **state)
{
    (void)state;
    memset(&plan, 0, sizeof plan);
    plan.from = plan.to = -1;
    return 0;
}

static void plan_fault(enum call call, int from, int to, int error)
{
    memset(&plan, 0, sizeof plan);
    plan.call = call;
    plan.from = from;
    plan.to = to;
    plan.error = error;
}

/* A send takes as little as a byte: request and early data still arrive whole and in order. */
static void test_short_writes_keep_the_order(void **state)
{
    (void)state;
    for (size_t max = 1; max <= 25; max++) {
        plan.send_max = max;
        assert_good("early data");
    }
}

static void test_interruptions_change_nothing(void **state)
{
    static const enum call calls[] = {CALL_CONNECT, CALL_SENDMSG, CALL_RECV, CALL_POLL};

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (int n = 0; n < 4; n++) {
            plan_fault(calls[i], n, n, EINTR);
            assert_good("early data");
        }
    }
}

static void test_full_socket_is_waited_for(void **state)
{
    (void)state;
    plan_fault(CALL_SENDMSG, 0, 2, EAGAIN);
    assert_good("");
    plan_fault(CALL_SENDMSG, 1, 5, EAGAIN);
    plan.send_max = 7;
    assert_good("early data");
}

static void test_failures_are_told(void **state)
{
    (void)state;
    plan_fault(CALL_SOCKET, 0, 0, EMFILE);
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "Too many open files");
    plan_fault(CALL_CONNECT, 0, 0, ENETUNREACH);
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "Network is unreachable");
    plan_fault(CALL_CONNECT, 0, 0, EINTR); /* so that the outcome is asked for */
    assert_good("");
    plan_fault(CALL_GETSOCKOPT, 0, 0, ENOBUFS);
    plan.not_yet = 1;
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "No buffer space available");
    plan_fault(CALL_SENDMSG, 0, 0, EPIPE);
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "lost: Broken pipe");
    plan_fault(CALL_RECV, 0, 0, ETIMEDOUT);
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "lost: Connection timed out");
    plan_fault(CALL_POLL, 0, 99, ENOMEM);
    assert_bad(SOCKS6_DIAL_NOMEM, "Cannot allocate memory");
    plan_fault(CALL_FCNTL, 0, 0, EBADF);
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "lost: Bad file descriptor");
}

/* Bytes that were seen are gone when they are to be taken: somebody else reads the same socket. */
static void test_stolen_bytes_are_noticed(void **state)
{
    (void)state;
    /*
     * The first look may come before the answer, or not; so every later call of recv() is hit in turn. The second one is
     * always made: a look, or the taking of what the first one saw.
     */
    for (int n = 1; n <= 3; n++) {
        plan_fault(CALL_RECV, n, 99, 0);
        plan.may_miss = n > 1;
        assert_bad(SOCKS6_DIAL_PROXY_FAILED, "proxy 127.0.0.1:");
    }
}

static void test_meeting_itself_is_a_refusal(void **state)
{
    (void)state;
    plan_fault(CALL_FCNTL, -1, -1, 0);
    plan.self_connected = 1;
    assert_bad(SOCKS6_DIAL_PROXY_FAILED, "Connection refused");
}

static void test_unknown_peer_name_is_no_self_connection(void **state)
{
    (void)state;
    plan_fault(CALL_GETPEERNAME, 0, 99, ENOTCONN);
    assert_good("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_short_writes_keep_the_order, set_up),
        cmocka_unit_test_setup(test_interruptions_change_nothing, set_up),
        cmocka_unit_test_setup(test_full_socket_is_waited_for, set_up),
        cmocka_unit_test_setup(test_failures_are_told, set_up),
        cmocka_unit_test_setup(test_stolen_bytes_are_noticed, set_up),
        cmocka_unit_test_setup(test_meeting_itself_is_a_refusal, set_up),
        cmocka_unit_test_setup(test_unknown_peer_name_is_no_self_connection, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
