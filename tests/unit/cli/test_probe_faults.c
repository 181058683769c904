/*
 * Every call of the system that probe makes fails in turn, at its n-th use: the run ends, says something, and leaks
 * nothing (the sanitizers look). The proxy is a thread of this program.
 */
#include "cli/probe_plan.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* The calls that are made to fail. */
enum call {
    CALL_CALLOC,
    CALL_REALLOC,
    CALL_SOCKET,
    CALL_SETSOCKOPT,
    CALL_CONNECT,
    CALL_POLL,
    CALL_SEND,
    CALL_RECV,
    CALL_COUNT
};

static const int call_errors[CALL_COUNT] = {ENOMEM, ENOMEM, EMFILE, ENOBUFS, ENETUNREACH, ENOMEM, ENOBUFS, ENOBUFS};

static pthread_t prober; /* the proxy's own calls work */
static enum call failing;
static unsigned countdown; /* 0 = none fails */
static unsigned failures;

static int fails(enum call call)
{
    if (!pthread_equal(pthread_self(), prober) || call != failing || countdown == 0 || --countdown > 0) {
        return 0;
    }
    failures++;
    errno = call_errors[call];
    return 1;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return fails(CALL_CALLOC) ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
    return fails(CALL_REALLOC) ? NULL : __real_realloc(old, size);
}

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol)
{
    return fails(CALL_SOCKET) ? -1 : __real_socket(domain, type, protocol);
}

int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
    return fails(CALL_SETSOCKOPT) ? -1 : __real_setsockopt(fd, level, option, value, len);
}

int __real_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    return fails(CALL_CONNECT) ? -1 : __real_connect(fd, addr, len);
}

int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    return fails(CALL_POLL) ? -1 : __real_poll(fds, count, timeout);
}

ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
    return fails(CALL_SEND) ? -1 : __real_send(fd, buf, len, flags);
}

ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags)
{
    return fails(CALL_RECV) ? -1 : __real_recv(fd, buf, len, flags);
}

/* One connection after the other: a request of any length gets the same two replies, then the end. */
static void *serve(void *listener)
{
    static const uint8_t answer[16] = {6, 0, 0, 0, 6, 0, 0, 0, 0, 80, 0, 1, 127, 0, 0, 1};
    int fd;

    while ((fd = accept(*(int *)listener, NULL, NULL)) >= 0) {
        static uint8_t buf[32768]; /* there is one such thread */

        if (recv(fd, buf, sizeof buf, 0) > 0 && buf[0] == 6) {
            (void)send(fd, answer, sizeof answer, MSG_NOSIGNAL);
        }
        (void)shutdown(fd, SHUT_WR);
        while (recv(fd, buf, sizeof buf, 0) > 0) {
        }
        (void)close(fd);
    }
    return NULL;
}

static int listener = -1;
static pthread_t server;
static struct probe_settings settings;
static struct probe_report report;

static int setup(void **state)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;

    (void)state;
    prober = pthread_self();
    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    assert_int_equal(pthread_create(&server, NULL, serve, &listener), 0);
    settings = (struct probe_settings){.dns_name = ".", .timeout_ms = 60000, .family = AF_UNSPEC};
    settings.proxy.draft = SOCKS6_DRAFT_11;
    settings.proxy.addr = socks6_addr_ipv4((const uint8_t *)&addr.sin_addr, ntohs(addr.sin_port));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)shutdown(listener, SHUT_RDWR);
    (void)pthread_join(server, NULL);
    return close(listener);
}

static int run(void)
{
    probe_report_init(&report);
    return probe_plan_run(&settings, &report);
}

static void test_without_a_failure_it_can_be_used(void **state)
{
    (void)state;
    countdown = 0;
    assert_int_equal(run(), 0);
    assert_int_equal(report.kind, PROBE_KIND_SOCKS6);
    assert_int_equal(report.rows[PROBE_ROW_CONNECT].state, PROBE_YES);
}

static void test_each_failing_call_is_survived(void **state)
{
    (void)state;
    for (unsigned call = 0; call < CALL_COUNT; call++) {
        unsigned nth = 0;

        failing = (enum call)call;
        do {
            int rc;

            failures = 0;
            countdown = ++nth;
            rc = run();
            assert_true(rc == 0 || (rc == -ENOMEM && failing == CALL_CALLOC));
            assert_true(rc != 0 || report.summary[0] != '\0');
        } while (failures > 0);
        assert_true(nth > 1); /* it was called, and failed at least once */
    }
    countdown = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_failure_it_can_be_used),
        cmocka_unit_test(test_each_failing_call_is_survived),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
