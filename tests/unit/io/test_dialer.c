#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "io/dial_attempt.h"
#include "io/dialer.h"
#include "io/sock.h"

#define LIMIT_MS 30000u

struct call {
    struct loop *loop;
    struct dialer_config config;
    struct dialer *dialer;
    bool is_over;
    struct dialer_result result;
    unsigned fds_before;
};

static struct call call;

static void on_done(void *user, const struct dialer_result *result)
{
    struct call *mine = user;
    assert_false(mine->is_over);
    mine->is_over = true;
    mine->result = *result;
}

static bool is_over(void *context)
{
    return ((struct call *)context)->is_over;
}

static int open_loop(void **state)
{
    (void)state;
    harness_guard();
    memset(&call, 0, sizeof call);
    call.fds_before = harness_fd_count();
    return loop_new(&call.loop);
}

static int close_loop(void **state)
{
    (void)state;
    harness_fail(NULL, 0, 0);
    harness_connect_to_self(false);
    harness_connect_at_once(false);
    loop_free(call.loop);
    return harness_fd_count() == call.fds_before ? 0 : -1;
}

static void start(const struct socks6_addr *addrs, size_t count, uint64_t timeout_ms)
{
    call.is_over = false;
    call.config.timeout_ms = timeout_ms;
    assert_int_equal(dialer_start(call.loop, &call.config, addrs, count, on_done, &call, &call.dialer), 0);
    assert_false(call.is_over); /* never from within */
}

static void dial(const struct socks6_addr *addrs, size_t count, uint64_t timeout_ms)
{
    start(addrs, count, timeout_ms);
    harness_run_until(call.loop, is_over, &call);
}

/* ---- destinations ---- */

static struct socks6_addr ipv4(uint16_t port)
{
    return (struct socks6_addr){.type = SOCKS6_ADDR_IPV4, .len = 4, .port = port, .u.ipv4 = {127, 0, 0, 1}};
}

static struct socks6_addr ipv6(uint16_t port)
{
    struct socks6_addr addr = {.type = SOCKS6_ADDR_IPV6, .len = 16, .port = port};
    addr.u.ipv6[15] = 1;
    return addr;
}

/* A listening socket for all of 127.0.0.0/8; `addr` is 127.0.0.1. */
static int listen_at(struct socks6_addr *addr)
{
    struct socks6_addr any = {.type = SOCKS6_ADDR_IPV4, .len = 4};
    int fd = sock_listen(&any, 1000, true); /* nobody accepts */
    assert_true(fd >= 0);
    assert_int_equal(sock_local(fd, &any), 0);
    *addr = ipv4(any.port);
    return fd;
}

/* The same port, another address of this host. */
static struct socks6_addr beside(const struct socks6_addr *addr, uint8_t last)
{
    struct socks6_addr other = *addr;
    other.u.ipv4[3] = last;
    return other;
}

/* A port where nobody listens: bound (for all of 127.0.0.0/8), so that it stays so. */
static int refuse_at(struct socks6_addr *addr)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct socks6_addr any;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&sin, sizeof sin), 0);
    assert_int_equal(sock_local(fd, &any), 0);
    *addr = ipv4(any.port);
    return fd;
}

/* A listener that answers no more: its queue is full, so Linux drops the SYN. */
struct black_hole {
    int listener;
    int fds[8];
    size_t count;
    struct socks6_addr addr;
};

static void black_hole_open(struct black_hole *hole)
{
    struct sockaddr_storage sa;
    socklen_t len;
    hole->listener = refuse_at(&hole->addr);
    assert_int_equal(listen(hole->listener, 0), 0);
    assert_true(sock_from_addr(&hole->addr, &sa, &len));
    for (hole->count = 0; hole->count < 8;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        hole->fds[hole->count++] = fd;
        assert_int_equal(connect(fd, (const struct sockaddr *)&sa, len), -1);
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        if (poll(&waiting, 1, 100) == 0) {
            return; /* this one got no answer */
        }
    }
    fail_msg("the queue does not fill up");
}

static void black_hole_close(struct black_hole *hole)
{
    for (size_t i = 0; i < hole->count; i++) {
        (void)close(hole->fds[i]);
    }
    (void)close(hole->listener);
}

/* Where there are two addresses, each is asked for its source first, which makes as many calls. */
#define PROBES 2

/* ---- outcomes ---- */

static int int_option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void test_connection_has_its_options(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    dial(&addr, 1, LIMIT_MS);
    int fd = call.result.fd;
    assert_true(fd >= 0);
    assert_int_equal(call.result.error, 0);
    assert_int_equal(call.result.attempts, 1);
    assert_int_equal(call.result.peer.port, addr.port);
    struct socks6_addr local;
    assert_int_equal(sock_local(fd, &local), 0);
    assert_int_equal(local.port, call.result.local.port);
    assert_memory_equal(local.u.ipv4, call.result.local.u.ipv4, 4);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(int_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(int_option(fd, SOL_SOCKET, SO_OOBINLINE), 1);
    assert_int_equal(int_option(fd, IPPROTO_IP, IP_RECVERR), 0);
    /* It is in the loop still, for somebody else to take. */
    struct loop_io io = {.fd = fd};
    assert_true(call.result.is_parked);
    assert_int_equal(loop_modify(call.loop, &io, 0), 0);
    loop_close(call.loop, &io);
    (void)close(listener);
}

static void test_connection_at_once_is_reported_later(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    harness_connect_at_once(true);
    dial(&addr, 1, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, 1);
    assert_false(call.result.is_parked);
    (void)close(call.result.fd);
    start(&addr, 1, LIMIT_MS);
    dialer_cancel(call.dialer); /* closes the connection that was not yet reported */
    (void)close(listener);
}

static void test_refused_is_reported(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int holder = refuse_at(&addr);
    dial(&addr, 1, LIMIT_MS);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.error, ECONNREFUSED);
    assert_int_equal(call.result.attempts, 1);
    assert_int_equal(call.result.peer.port, addr.port);
    (void)close(holder);
}

static void test_refused_ipv6_goes_on_to_ipv4(void **state)
{
    (void)state;
    struct socks6_addr addrs[2];
    int listener = listen_at(&addrs[1]);
    addrs[0] = ipv6(addrs[1].port);
    dial(addrs, 2, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, 2);
    assert_int_equal(call.result.peer.type, SOCKS6_ADDR_IPV4);
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_mapped_address_is_ipv4(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    struct socks6_addr mapped = {.type = SOCKS6_ADDR_IPV6, .len = 16, .port = addr.port};
    memcpy(mapped.u.ipv6, (const uint8_t[16]){[10] = 255, [11] = 255, [12] = 127, [15] = 1}, 16);
    dial(&mapped, 1, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.peer.type, SOCKS6_ADDR_IPV4);
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_silence_times_out(void **state)
{
    (void)state;
    struct black_hole hole;
    black_hole_open(&hole);
    uint64_t start_ms = loop_now_ms(call.loop);
    dial(&hole.addr, 1, LIMIT_MS);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.error, ETIMEDOUT);
    assert_in_range(loop_now_ms(call.loop) - start_ms, LIMIT_MS, 2 * LIMIT_MS);
    black_hole_close(&hole);
}

static void test_silent_address_leaves_time_for_the_next(void **state)
{
    (void)state;
    struct black_hole hole;
    struct socks6_addr addrs[3];
    black_hole_open(&hole);
    int listener = listen_at(&addrs[2]);
    addrs[0] = hole.addr;
    addrs[1] = beside(&hole.addr, 2);
    addrs[2].u.ipv4[3] = 3; /* not the first, which would be known already */
    uint64_t start_ms = loop_now_ms(call.loop);
    dial(addrs, 3, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, 3);
    /* A third, and half of the rest. */
    assert_in_range(loop_now_ms(call.loop) - start_ms, LIMIT_MS / 3 * 2, LIMIT_MS - 1000);
    (void)close(call.result.fd);
    (void)close(listener);
    black_hole_close(&hole);
}

static void test_limit_of_zero_times_out(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    dial(&addr, 1, 0);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.error, ETIMEDOUT);
    assert_int_equal(call.result.attempts, 0);
    assert_int_equal(call.result.peer.type, 0);
    (void)close(listener);
}

static void test_connection_with_itself_is_refused(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int holder = refuse_at(&addr);
    (void)close(holder);
    harness_connect_to_self(true);
    dial(&addr, 1, LIMIT_MS);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.error, ECONNREFUSED);
}

/* ---- which error says most ---- */

/* The first address meets `error`, the second a refusal or silence. */
static int error_after(int error, const struct socks6_addr *second)
{
    struct socks6_addr addrs[2] = {ipv4(9), *second};
    harness_fail("connect", 1 + PROBES, error);
    dial(addrs, 2, LIMIT_MS);
    assert_int_equal(call.result.attempts, 2);
    assert_int_equal(call.result.peer.port, second->port);
    return call.result.error;
}

static void test_most_telling_error_wins(void **state)
{
    (void)state;
    struct black_hole hole;
    struct socks6_addr refusing;
    int holder = refuse_at(&refusing);
    black_hole_open(&hole);
    assert_int_equal(error_after(ENETUNREACH, &refusing), ECONNREFUSED);
    assert_int_equal(error_after(ENETUNREACH, &hole.addr), ETIMEDOUT);
    assert_int_equal(error_after(ECONNREFUSED, &hole.addr), ECONNREFUSED);
    assert_int_equal(error_after(EADDRNOTAVAIL, &hole.addr), ETIMEDOUT);
    assert_int_equal(error_after(EACCES, &refusing), ECONNREFUSED);
    assert_int_equal(error_after(EPERM, &hole.addr), ETIMEDOUT);
    assert_int_equal(error_after(EHOSTUNREACH, &hole.addr), ETIMEDOUT);
    black_hole_close(&hole);
    (void)close(holder);
}

static void test_immediate_error_is_reported_later(void **state)
{
    (void)state;
    struct socks6_addr addr = ipv4(9);
    harness_fail("connect", 1, ENETUNREACH);
    dial(&addr, 1, LIMIT_MS);
    assert_int_equal(call.result.error, ENETUNREACH);
}

struct syn {
    struct iphdr ip;
    struct tcphdr tcp;
};

/* ICMP "time exceeded" for a SYN, as a router would send it. */
static void send_time_exceeded(int icmp, const struct syn *syn)
{
    struct {
        struct icmphdr icmp;
        struct iphdr ip;
        uint8_t tcp[8];
    } message = {.icmp.type = ICMP_TIME_EXCEEDED, .ip = syn->ip};
    memcpy(message.tcp, &syn->tcp, sizeof message.tcp);
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof message; i += 2) {
        uint16_t word;
        memcpy(&word, (const uint8_t *)&message + i, 2);
        sum += word;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    message.icmp.checksum = (uint16_t) ~(sum + (sum >> 16));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(sendto(icmp, &message, sizeof message, 0, (const struct sockaddr *)&to, sizeof to),
                     (ssize_t)sizeof message);
}

/* Waits for the SYN to the black hole that is not of its own making. */
static void wait_for_syn(int tcp, const struct black_hole *hole, struct syn *syn)
{
    bool is_ours;
    do {
        assert_true(recv(tcp, syn, sizeof *syn, 0) >= (ssize_t)sizeof *syn);
        is_ours = ntohs(syn->tcp.dest) == hole->addr.port && syn->tcp.syn && !syn->tcp.ack;
        for (size_t i = 0; i < hole->count; i++) {
            struct socks6_addr local;
            assert_int_equal(sock_local(hole->fds[i], &local), 0);
            is_ours = is_ours && ntohs(syn->tcp.source) != local.port;
        }
    } while (!is_ours);
}

static void test_time_exceeded_is_told_from_unreachable(void **state)
{
    (void)state;
    int tcp = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    int icmp = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    if (tcp < 0 || icmp < 0) {
        print_message("raw sockets are not permitted here\n");
        skip();
    }
    struct black_hole hole;
    struct socks6_addr addrs[2];
    black_hole_open(&hole);
    addrs[0] = hole.addr;
    addrs[1] = beside(&hole.addr, 2);
    start(addrs, 2, LIMIT_MS);
    struct syn syn;
    wait_for_syn(tcp, &hole, &syn);
    send_time_exceeded(icmp, &syn);
    harness_run_until(call.loop, is_over, &call);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.attempts, 2);
    assert_int_equal(call.result.error, DIALER_TTL_EXPIRED); /* says more than the second's silence */
    black_hole_close(&hole);
    (void)close(tcp);
    (void)close(icmp);
}

/* A message that the kernel has only queued, because a system call held the socket, is as good as SO_ERROR. */
static void test_queued_message_is_an_error(void **state)
{
    (void)state;
    const int on = 1;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); /* a datagram gets one at once */
    struct sockaddr_in nobody = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pollfd pfd = {fd, 0, 0};

    assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&nobody, sizeof nobody), 0);
    assert_int_equal(dial_attempt_error(fd), 0);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    assert_int_equal(poll(&pfd, 1, -1), 1);
    assert_int_equal(sock_error(fd), ECONNREFUSED); /* which takes it; the message stays */
    assert_int_equal(sock_error(fd), 0);
    assert_int_equal(dial_attempt_error(fd), ECONNREFUSED);
    assert_int_equal(dial_attempt_error(fd), 0);
    (void)close(fd);
}

/* ---- our own trouble ---- */

static void test_no_descriptor_ends_it_at_once(void **state)
{
    static const int errors[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS};
    (void)state;
    struct socks6_addr addrs[2];
    int listener = listen_at(&addrs[0]);
    addrs[1] = beside(&addrs[0], 2);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        harness_fail("socket", 1 + PROBES, errors[i]);
        dial(addrs, 2, LIMIT_MS);
        assert_int_equal(call.result.error, errors[i]);
        assert_int_equal(call.result.attempts, 1);
    }
    harness_fail("getsockopt", 1, ENOMEM); /* while an attempt is under way */
    dial(addrs, 2, LIMIT_MS);
    assert_int_equal(call.result.error, ENOMEM);
    assert_int_equal(call.result.attempts, 1);
    (void)close(listener);
}

static void test_family_without_support_goes_on(void **state)
{
    (void)state;
    struct socks6_addr addrs[2];
    int listener = listen_at(&addrs[1]);
    addrs[0] = ipv6(addrs[1].port);
    harness_fail("socket", 1 + PROBES, EAFNOSUPPORT);
    dial(addrs, 2, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    (void)close(call.result.fd);
    (void)close(listener);
}

/* Each call on the path fails at each place: one answer, nothing left open. */
static void test_failing_calls_leave_nothing_behind(void **state)
{
    static const char *const calls[] = {"socket", "setsockopt", "connect", "epoll_ctl", "getsockopt", "getsockname"};
    (void)state;
    struct socks6_addr addrs[2];
    int listener = listen_at(&addrs[0]);
    addrs[1] = beside(&addrs[0], 2);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        bool has_failed = true;
        unsigned n;
        for (n = 1; has_failed; n++) {
            harness_fail(calls[i], n, EINVAL);
            dial(addrs, 2, LIMIT_MS);
            has_failed = harness_has_failed();
            assert_true(call.result.fd >= 0); /* the second address makes up for it */
            assert_in_range(call.result.attempts, 1, 2);
            (void)close(call.result.fd);
        }
        assert_true(n > 2);
    }
    (void)close(listener);
}

static void test_bad_arguments_are_refused(void **state)
{
    (void)state;
    struct dialer *dialer = NULL;
    struct socks6_addr addr = ipv4(1);
    struct socks6_addr name = {.type = SOCKS6_ADDR_NAME, .len = 1, .port = 1, .u.name = "x"};
    assert_int_equal(dialer_start(call.loop, &call.config, &addr, 0, on_done, &call, &dialer), -EINVAL);
    assert_int_equal(dialer_start(call.loop, &call.config, &name, 1, on_done, &call, &dialer), -EINVAL);
    assert_int_equal(dialer_start(call.loop, &call.config, &addr, DIALER_ADDRESSES_MAX + 1, on_done, &call, &dialer),
                     -EINVAL);
    harness_fail("calloc", 1, ENOMEM);
    assert_int_equal(dialer_start(call.loop, &call.config, &addr, 1, on_done, &call, &dialer), -ENOMEM);
    assert_null(dialer);
}

/* ---- racing ---- */

static void race(void)
{
    call.config.eyeballs = (struct happy_eyeballs_config){
        .race = true,
        .resolution_delay_ms = HAPPY_EYEBALLS_RESOLUTION_DELAY_MS,
        .attempt_delay_ms = HAPPY_EYEBALLS_ATTEMPT_DELAY_MS,
        .first_family_count = 1,
    };
}

static void open_dialer(uint64_t timeout_ms)
{
    call.is_over = false;
    call.config.timeout_ms = timeout_ms;
    assert_int_equal(dialer_open(call.loop, &call.config, on_done, &call, &call.dialer), 0);
}

static void add(enum socks6_addr_type family, const struct socks6_addr *addrs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dialer_add(call.dialer, &addrs[i], NULL);
    }
    dialer_add_end(call.dialer, family);
}

static void add4(const struct socks6_addr *addrs, size_t count)
{
    add(SOCKS6_ADDR_IPV4, addrs, count);
}

static void add6(const struct socks6_addr *addrs, size_t count)
{
    add(SOCKS6_ADDR_IPV6, addrs, count);
}

static void test_race_goes_round_a_black_hole(void **state)
{
    (void)state;
    struct black_hole hole;
    struct socks6_addr addrs[3];
    black_hole_open(&hole);
    int listener = listen_at(&addrs[2]);
    addrs[0] = hole.addr;
    addrs[1] = beside(&hole.addr, 2);
    addrs[2].u.ipv4[3] = 3;
    race();
    unsigned fds = harness_fd_count();
    uint64_t start_ms = loop_now_ms(call.loop);
    dial(addrs, 3, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, 3);
    assert_int_equal(call.result.peer.port, addrs[2].port);
    assert_int_equal(call.result.peer.u.ipv4[3], 3);
    assert_in_range(loop_now_ms(call.loop) - start_ms, 2 * HAPPY_EYEBALLS_ATTEMPT_DELAY_MS, 2000);
    assert_int_equal(harness_fd_count(), fds + 1); /* the losers are closed */
    (void)close(call.result.fd);
    (void)close(listener);
    black_hole_close(&hole);
}

static void test_race_without_a_live_address_ends_in_time(void **state)
{
    (void)state;
    struct black_hole hole;
    static struct socks6_addr addrs[20], refusing;
    black_hole_open(&hole);
    int holder = refuse_at(&refusing);
    for (uint8_t i = 0; i < 20; i++) {
        addrs[i] = beside(&hole.addr, (uint8_t)(i + 1));
    }
    race();
    uint64_t start_ms = loop_now_ms(call.loop);
    dial(addrs, 20, LIMIT_MS);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.error, ETIMEDOUT);
    assert_int_equal(call.result.attempts, 20);
    assert_in_range(loop_now_ms(call.loop) - start_ms, LIMIT_MS, LIMIT_MS + 1000);
    addrs[3] = refusing;
    dial(addrs, 4, LIMIT_MS);
    assert_int_equal(call.result.error, ECONNREFUSED);
    black_hole_close(&hole);
    (void)close(holder);
}

static void test_no_descriptor_in_a_race_leaves_the_others_running(void **state)
{
    (void)state;
    struct black_hole hole;
    struct socks6_addr addrs[2];
    black_hole_open(&hole);
    int listener = listen_at(&addrs[1]);
    addrs[0] = hole.addr;
    addrs[1].u.ipv4[3] = 2;
    race();
    harness_fail("socket", 2 + PROBES, EMFILE);
    dial(addrs, 2, LIMIT_MS);
    assert_true(harness_has_failed());
    assert_true(call.result.fd >= 0); /* when the first had had its time */
    assert_int_equal(call.result.attempts, 2);
    (void)close(call.result.fd);
    harness_fail("socket", 1 + PROBES, EMFILE);
    dial(addrs, 2, LIMIT_MS);
    assert_int_equal(call.result.error, EMFILE);
    (void)close(listener);
    black_hole_close(&hole);
}

static void test_addresses_may_come_later(void **state)
{
    (void)state;
    struct socks6_addr addr, none = ipv6(9);
    int listener = listen_at(&addr);
    race();
    open_dialer(LIMIT_MS);
    harness_run_until_quiet(call.loop);
    assert_false(call.is_over);
    add4(&addr, 1);
    assert_false(call.is_over); /* never from within */
    harness_run_until(call.loop, is_over, &call);
    assert_true(call.result.fd >= 0); /* after the resolution delay */
    (void)close(call.result.fd);

    none.port = addr.port; /* nobody listens there over IPv6 */
    open_dialer(LIMIT_MS);
    add4(&addr, 1);
    add6(&none, 1);
    harness_run_until(call.loop, is_over, &call);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, 2); /* looked at together: IPv6 went first */
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_long_answer_leaves_room_for_the_other_family(void **state)
{
    (void)state;
    static struct socks6_addr addr, refusing[DIALER_ADDRESSES_MAX];
    int listener = listen_at(&addr);
    for (uint8_t i = 0; i < DIALER_ADDRESSES_MAX; i++) {
        refusing[i] = ipv6(9);
        refusing[i].u.ipv6[0] = 0xff; /* no TCP towards multicast: fails at once */
        refusing[i].u.ipv6[14] = i;
    }
    race();
    open_dialer(LIMIT_MS);
    add6(refusing, DIALER_ADDRESSES_MAX);
    harness_run_until_quiet(call.loop);
    add4(&addr, 1);
    harness_run_until(call.loop, is_over, &call);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, DIALER_ADDRESSES_MAX / 2 + 1);
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_no_address_is_told(void **state)
{
    (void)state;
    open_dialer(LIMIT_MS);
    add4(NULL, 0);
    add6(NULL, 0);
    harness_run_until(call.loop, is_over, &call);
    assert_int_equal(call.result.error, DIALER_NO_ADDRESS);
    assert_int_equal(call.result.attempts, 0);
    open_dialer(LIMIT_MS);
    add4(NULL, 0);
    harness_run_until(call.loop, is_over, &call);
    assert_int_equal(call.result.error, ETIMEDOUT);
    harness_fail("calloc", 1, ENOMEM);
    assert_int_equal(dialer_open(call.loop, &call.config, on_done, &call, &call.dialer), -ENOMEM);
}

static void test_remembered_address_goes_first(void **state)
{
    (void)state;
    struct socks6_addr addrs[2];
    int listener = listen_at(&addrs[0]);
    addrs[1] = beside(&addrs[0], 2);
    race();
    call.config.remembered = &addrs[1];
    dial(addrs, 2, LIMIT_MS);
    assert_int_equal(call.result.peer.u.ipv4[3], 2);
    assert_int_equal(call.result.attempts, 1);
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_cancelled_race_leaves_nothing(void **state)
{
    (void)state;
    struct black_hole hole;
    struct socks6_addr addrs[3];
    black_hole_open(&hole);
    for (uint8_t i = 0; i < 3; i++) {
        addrs[i] = beside(&hole.addr, (uint8_t)(i + 1));
    }
    race();
    unsigned fds = harness_fd_count();
    start(addrs, 3, LIMIT_MS);
    for (int i = 0; i < 3; i++) {
        harness_run_until_quiet(call.loop);
        harness_advance(HAPPY_EYEBALLS_ATTEMPT_DELAY_MS + LOOP_TICK_MS);
    }
    assert_int_equal(harness_fd_count(), fds + 3);
    dialer_cancel(call.dialer);
    assert_int_equal(harness_fd_count(), fds);
    harness_run_until_quiet(call.loop);
    assert_false(call.is_over);
    open_dialer(LIMIT_MS);
    add4(addrs, 1); /* asked to look at it, but not yet done */
    dialer_cancel(call.dialer);
    harness_run_until_quiet(call.loop);
    assert_false(call.is_over);
    black_hole_close(&hole);
}

/* ---- our own end ---- */

static struct socks6_addr loopback(uint8_t last)
{
    struct socks6_addr addr = ipv4(0);
    addr.u.ipv4[3] = last;
    return addr;
}

static void test_sources_take_turns(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    const struct socks6_addr ends[] = {loopback(2), loopback(3), loopback(4)};
    const struct dialer_sources sources = {.ipv4 = ends, .ipv4_count = 3};
    unsigned turn = UINT_MAX - 1; /* it may run over */
    const uint8_t expected[] = {2 + (UINT_MAX - 1) % 3, 2 + UINT_MAX % 3, 2, 3, 4, 2};
    call.config.sources = &sources;
    call.config.turn = &turn;
    for (size_t i = 0; i < sizeof expected; i++) {
        dial(&addr, 1, LIMIT_MS);
        assert_true(call.result.fd >= 0);
        assert_int_equal(call.result.local.u.ipv4[3], expected[i]);
        assert_int_equal(call.result.unavailable_count, 0);
        assert_int_equal(int_option(call.result.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), 1);
        (void)close(call.result.fd);
    }
    (void)close(listener);
}

static void test_each_address_has_its_own_sources(void **state)
{
    (void)state;
    struct socks6_addr addr, dead = ipv4(9);
    int listener = listen_at(&addr);
    const struct socks6_addr ends[] = {loopback(2), loopback(3), loopback(4)};
    const struct dialer_sources for_all = {.ipv4 = &ends[0], .ipv4_count = 1},
                                its_own = {.ipv4 = &ends[1], .ipv4_count = 1}, none = {0};
    const struct dialer_sources *cases[] = {NULL, &its_own, &none};
    const uint8_t expected[] = {2, 3, 1};

    dead.u.ipv4[3] = 77; /* nobody listens there */
    call.config.sources = &for_all;
    for (size_t i = 0; i < sizeof expected; i++) {
        open_dialer(LIMIT_MS);
        dialer_add(call.dialer, &dead, &its_own);
        dialer_add(call.dialer, &addr, cases[i]);
        dialer_add(call.dialer, &addr, &its_own); /* known already: the first one counts */
        dialer_add_end(call.dialer, SOCKS6_ADDR_IPV4);
        dialer_add_end(call.dialer, SOCKS6_ADDR_IPV6);
        harness_run_until(call.loop, is_over, &call);
        assert_true(call.result.fd >= 0);
        assert_int_equal(call.result.local.u.ipv4[3], expected[i]);
        (void)close(call.result.fd);
    }
    (void)close(listener);
}

static void test_missing_source_leads_to_the_next(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    struct socks6_addr ends[] = {loopback(2), loopback(2), loopback(3)};
    const struct dialer_sources sources = {.ipv4 = ends, .ipv4_count = 3};
    memcpy(ends[0].u.ipv4, (const uint8_t[4]){240, 0, 0, 1}, 4);
    memcpy(ends[1].u.ipv4, (const uint8_t[4]){240, 0, 0, 2}, 4);
    call.config.sources = &sources;
    dial(&addr, 1, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.attempts, 1);
    assert_int_equal(call.result.local.u.ipv4[3], 3);
    assert_int_equal(call.result.unavailable_count, 2);
    assert_memory_equal(call.result.unavailable.u.ipv4, ends[1].u.ipv4, 4);
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_no_source_at_all_is_told(void **state)
{
    (void)state;
    struct socks6_addr addr = ipv4(9), end = ipv4(0);
    const struct dialer_sources sources = {.ipv4 = &end, .ipv4_count = 1};
    memcpy(end.u.ipv4, (const uint8_t[4]){240, 0, 0, 1}, 4);
    call.config.sources = &sources;
    dial(&addr, 1, LIMIT_MS);
    assert_int_equal(call.result.fd, -1);
    assert_int_equal(call.result.error, EADDRNOTAVAIL);
    assert_int_equal(call.result.unavailable_count, 1);
    call.config.sources = NULL; /* the kernel's choice */
    harness_fail("connect", 1, EADDRNOTAVAIL);
    dial(&addr, 1, LIMIT_MS);
    assert_int_equal(call.result.error, EADDRNOTAVAIL);
    assert_int_equal(call.result.unavailable_count, 1);
    assert_int_equal(call.result.unavailable.type, 0);
}

/* connect(2) finds no port: with a source of its own or by the kernel, the next one is tried. */
static void test_source_without_ports_leads_to_the_next(void **state)
{
    (void)state;
    struct socks6_addr addr;
    int listener = listen_at(&addr);
    const struct socks6_addr ends[] = {loopback(2), loopback(3)};
    const struct dialer_sources sources = {.ipv4 = ends, .ipv4_count = 2};
    call.config.sources = &sources;
    harness_fail("connect", 1, EADDRNOTAVAIL);
    dial(&addr, 1, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.local.u.ipv4[3], 3);
    assert_int_equal(call.result.unavailable.u.ipv4[3], 2);
    (void)close(call.result.fd);
    (void)close(listener);
}

static void test_family_without_source_is_the_kernels(void **state)
{
    (void)state;
    struct socks6_addr addr, end = ipv6(0);
    int listener = listen_at(&addr);
    const struct dialer_sources sources = {.ipv6 = &end, .ipv6_count = 1};
    call.config.sources = &sources;
    dial(&addr, 1, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(call.result.local.u.ipv4[3], 1);
    (void)close(call.result.fd);
    (void)close(listener);
    listener = sock_listen(&end, 10, true);
    if (listener < 0) {
        print_message("no IPv6 here\n");
        skip();
    }
    assert_int_equal(sock_local(listener, &addr), 0);
    dial(&addr, 1, LIMIT_MS);
    assert_true(call.result.fd >= 0);
    assert_int_equal(int_option(call.result.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), 1);
    (void)close(call.result.fd);
    (void)close(listener);
}

/* ---- cancelling ---- */

static void test_cancel_at_each_stage_is_silent(void **state)
{
    (void)state;
    struct black_hole hole;
    struct socks6_addr addr;
    black_hole_open(&hole);
    int listener = listen_at(&addr);

    dialer_cancel(NULL);
    start(&hole.addr, 1, LIMIT_MS); /* under way, the loop has not run */
    dialer_cancel(call.dialer);
    start(&hole.addr, 1, LIMIT_MS); /* under way, the loop has run */
    harness_run_until_quiet(call.loop);
    dialer_cancel(call.dialer);
    harness_fail("connect", 1, ENETUNREACH); /* failed already, not yet reported */
    start(&addr, 1, LIMIT_MS);
    assert_true(harness_has_failed());
    dialer_cancel(call.dialer);
    start(&addr, 1, LIMIT_MS); /* connected, not yet reported */
    dialer_cancel(call.dialer);
    harness_run_until_quiet(call.loop);
    assert_false(call.is_over);
    (void)close(listener);
    black_hole_close(&hole);
}

#define DIALER_TEST(name) cmocka_unit_test_setup_teardown(name, open_loop, close_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DIALER_TEST(test_connection_has_its_options),
        DIALER_TEST(test_connection_at_once_is_reported_later),
        DIALER_TEST(test_refused_is_reported),
        DIALER_TEST(test_refused_ipv6_goes_on_to_ipv4),
        DIALER_TEST(test_mapped_address_is_ipv4),
        DIALER_TEST(test_silence_times_out),
        DIALER_TEST(test_silent_address_leaves_time_for_the_next),
        DIALER_TEST(test_limit_of_zero_times_out),
        DIALER_TEST(test_connection_with_itself_is_refused),
        DIALER_TEST(test_most_telling_error_wins),
        DIALER_TEST(test_immediate_error_is_reported_later),
        DIALER_TEST(test_time_exceeded_is_told_from_unreachable),
        DIALER_TEST(test_queued_message_is_an_error),
        DIALER_TEST(test_no_descriptor_ends_it_at_once),
        DIALER_TEST(test_family_without_support_goes_on),
        DIALER_TEST(test_failing_calls_leave_nothing_behind),
        DIALER_TEST(test_bad_arguments_are_refused),
        DIALER_TEST(test_race_goes_round_a_black_hole),
        DIALER_TEST(test_race_without_a_live_address_ends_in_time),
        DIALER_TEST(test_no_descriptor_in_a_race_leaves_the_others_running),
        DIALER_TEST(test_addresses_may_come_later),
        DIALER_TEST(test_long_answer_leaves_room_for_the_other_family),
        DIALER_TEST(test_no_address_is_told),
        DIALER_TEST(test_remembered_address_goes_first),
        DIALER_TEST(test_cancelled_race_leaves_nothing),
        DIALER_TEST(test_sources_take_turns),
        DIALER_TEST(test_each_address_has_its_own_sources),
        DIALER_TEST(test_missing_source_leads_to_the_next),
        DIALER_TEST(test_no_source_at_all_is_told),
        DIALER_TEST(test_source_without_ports_leads_to_the_next),
        DIALER_TEST(test_family_without_source_is_the_kernels),
        DIALER_TEST(test_cancel_at_each_stage_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
