#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness.h"
#include "io/sock.h"

static struct socks6_addr ipv4_loopback(void)
{
    return (struct socks6_addr){.type = SOCKS6_ADDR_IPV4, .len = 4, .u.ipv4 = {127, 0, 0, 1}};
}

static struct socks6_addr ipv6_loopback(void)
{
    return (struct socks6_addr){.type = SOCKS6_ADDR_IPV6, .len = 16, .u.ipv6 = {[15] = 1}};
}

static void assert_same(const struct socks6_addr *a, const struct socks6_addr *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->len, b->len);
    assert_int_equal(a->port, b->port);
    assert_memory_equal(&a->u, &b->u, a->len);
}

/* ---- conversions ---- */

static void test_addresses_survive_the_round_trip(void **state)
{
    (void)state;
    struct socks6_addr addrs[2] = {ipv4_loopback(), ipv6_loopback()};
    for (size_t i = 0; i < 2; i++) {
        struct sockaddr_storage sa;
        socklen_t len;
        struct socks6_addr back;
        addrs[i].port = 50001;
        assert_true(sock_from_addr(&addrs[i], &sa, &len));
        assert_int_equal(sa.ss_family, i == 0 ? AF_INET : AF_INET6);
        assert_int_equal(len, i == 0 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        assert_true(sock_to_addr((const struct sockaddr *)&sa, len, &back));
        assert_same(&addrs[i], &back);
    }
}

static void test_what_is_no_ip_address_is_refused(void **state)
{
    (void)state;
    struct sockaddr_storage sa;
    socklen_t len;
    struct socks6_addr out = ipv4_loopback();
    struct socks6_addr name = {.type = SOCKS6_ADDR_NAME, .len = 1, .u.name = "x"};
    assert_false(sock_from_addr(&name, &sa, &len));
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    assert_false(sock_to_addr((const struct sockaddr *)&local, sizeof local, &out));
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};
    assert_false(sock_to_addr((const struct sockaddr *)&sin6, sizeof sin6 - 1, &out));
    struct sockaddr_in sin = {.sin_family = AF_INET};
    assert_false(sock_to_addr((const struct sockaddr *)&sin, sizeof sin - 1, &out));
    assert_int_equal(out.u.ipv4[0], 127); /* untouched */
}

static void test_mapped_address_becomes_ipv4(void **state)
{
    (void)state;
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
    sin6.sin6_addr = (struct in6_addr){.s6_addr = {[10] = 255, [11] = 255, 192, 0, 2, 1}};
    struct socks6_addr out;
    assert_true(sock_to_addr((const struct sockaddr *)&sin6, sizeof sin6, &out));
    assert_int_equal(out.type, SOCKS6_ADDR_IPV4);
    assert_int_equal(out.len, 4);
    assert_int_equal(out.port, 7);
    assert_memory_equal(out.u.ipv4, ((uint8_t[]){192, 0, 2, 1}), 4);
}

static void test_names_of_a_pair_match(void **state)
{
    (void)state;
    int fds[2];
    struct socks6_addr local, peer;
    harness_pair(fds);
    assert_int_equal(sock_local(fds[0], &local), 0);
    assert_int_equal(sock_peer(fds[1], &peer), 0);
    assert_same(&local, &peer);
    (void)close(fds[0]);
    (void)close(fds[1]);
    assert_int_equal(sock_local(fds[0], &local), -EBADF);
    assert_int_equal(sock_peer(fds[0], &local), -EBADF);
    int unix_fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_fds), 0);
    assert_int_equal(sock_local(unix_fds[0], &local), -EAFNOSUPPORT);
    assert_int_equal(sock_peer(unix_fds[0], &local), -EAFNOSUPPORT);
    (void)close(unix_fds[0]);
    (void)close(unix_fds[1]);
}

/* ---- listening ---- */

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static int connect_to(const struct socks6_addr *addr)
{
    struct sockaddr_storage sa;
    socklen_t len;
    assert_true(sock_from_addr(addr, &sa, &len));
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&sa, len), 0);
    return fd;
}

static void assert_connection_options(int fd)
{
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(fd, SOL_SOCKET, SO_OOBINLINE), 1);
    assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), SOCK_KEEPALIVE_S);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), SOCK_KEEPALIVE_INTERVAL_S);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), SOCK_KEEPALIVE_COUNT);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), SOCK_USER_TIMEOUT_MS);
}

static void test_accepted_connections_inherit_the_options(void **state)
{
    (void)state;
    struct socks6_addr addrs[2] = {ipv4_loopback(), ipv6_loopback()};
    harness_guard();
    for (size_t i = 0; i < 2; i++) {
        int listener = sock_listen(&addrs[i], 8, true);
        if (listener == -EADDRNOTAVAIL && i == 1) {
            continue; /* a host without ::1 */
        }
        assert_true(listener >= 0);
        assert_true((fcntl(listener, F_GETFL) & O_NONBLOCK) != 0);
        assert_true((fcntl(listener, F_GETFD) & FD_CLOEXEC) != 0);
        assert_int_equal(sock_local(listener, &addrs[i]), 0);
        int client = connect_to(&addrs[i]);
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        assert_int_equal(poll(&waiting, 1, -1), 1);
        int server = accept(listener, NULL, NULL);
        assert_true(server >= 0);
        assert_connection_options(server);
        (void)close(server);
        (void)close(client);
        (void)close(listener);
    }
}

static void test_exclusive_listener_refuses_strangers_and_lets_own_join(void **state)
{
    (void)state;
    struct socks6_addr addr = ipv4_loopback();
    int first = sock_listen(&addr, 8, true);
    assert_true(first >= 0);
    assert_int_equal(sock_local(first, &addr), 0);
    assert_int_equal(sock_listen(&addr, 8, true), -EADDRINUSE); /* a second daemon */
    int second = sock_listen(&addr, 8, false);
    assert_true(second >= 0);
    assert_int_equal(sock_listen(&addr, 8, true), -EADDRINUSE);
    (void)close(first);
    assert_int_equal(sock_listen(&addr, 8, true), -EADDRINUSE);
    (void)close(second);
    int again = sock_listen(&addr, 8, true);
    assert_true(again >= 0);
    (void)close(again);
}

static void test_ipv6_listener_leaves_ipv4_alone(void **state)
{
    (void)state;
    int ipv4 = -EADDRINUSE;
    for (int i = 0; i < 20 && ipv4 == -EADDRINUSE; i++) { /* somebody else may hold that port of IPv4 */
        struct socks6_addr any = {.type = SOCKS6_ADDR_IPV6, .len = 16};
        int ipv6 = sock_listen(&any, 8, true);
        if (ipv6 == -EAFNOSUPPORT) {
            skip();
        }
        assert_true(ipv6 >= 0);
        assert_int_equal(option(ipv6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
        assert_int_equal(sock_local(ipv6, &any), 0);
        struct socks6_addr any4 = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = any.port};
        ipv4 = sock_listen(&any4, 8, true);
        (void)close(ipv6);
    }
    assert_true(ipv4 >= 0);
    (void)close(ipv4);
}

static void test_failing_calls_close_the_listener(void **state)
{
    (void)state;
    struct socks6_addr addr = ipv4_loopback();
    struct socks6_addr name = {.type = SOCKS6_ADDR_NAME, .len = 1, .u.name = "x"};
    unsigned before = harness_fd_count();
    assert_int_equal(sock_listen(&name, 1, true), -EAFNOSUPPORT);
    harness_fail("socket", 1, EMFILE);
    assert_int_equal(sock_listen(&addr, 1, true), -EMFILE);
    unsigned n = 0;
    for (bool has_failed = true; has_failed;) {
        harness_fail("setsockopt", ++n, ENOMEM);
        int fd = sock_listen(&addr, 1, true);
        has_failed = harness_has_failed();
        if (has_failed) {
            assert_int_equal(fd, -ENOMEM);
        } else {
            (void)close(fd);
        }
    }
    harness_fail(NULL, 0, 0);
    assert_true(n > 8);
    struct socks6_addr foreign = {.type = SOCKS6_ADDR_IPV4, .len = 4, .u.ipv4 = {192, 0, 2, 1}};
    assert_int_equal(sock_listen(&foreign, 1, true), -EADDRNOTAVAIL);
    assert_int_equal(harness_fd_count(), before);
}

/* ---- connections ---- */

/* Sends until the socket takes no more. */
static size_t fill(int fd)
{
    static const uint8_t zeros[65536];
    size_t total = 0;
    for (;;) {
        ssize_t sent = send(fd, zeros, sizeof zeros, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            assert_int_equal(errno, EAGAIN);
            struct pollfd waiting = {.fd = fd, .events = POLLOUT};
            if (poll(&waiting, 1, 100) == 0) {
                return total;
            }
            continue;
        }
        total += (size_t)sent;
    }
}

static void drain(int fd, size_t len)
{
    static uint8_t buf[65536];
    while (len > 0) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&waiting, 1, -1), 1);
        ssize_t got = recv(fd, buf, len < sizeof buf ? len : sizeof buf, 0);
        assert_true(got > 0);
        len -= (size_t)got;
    }
}

static void test_paused_reader_is_seen(void **state)
{
    (void)state;
    int fds[2];
    harness_guard();
    harness_pair(fds);
    assert_false(sock_peer_window_is_closed(fds[0])); /* nothing to send */
    assert_int_equal(sock_unacked(fds[0]), 0);
    assert_true(sock_send_room(fds[0]) > 16384);

    size_t total = fill(fds[0]);
    for (int i = 0; i < 2000 && !sock_peer_window_is_closed(fds[0]); i++) { /* the last acknowledgement can be late */
        (void)poll(NULL, 0, 1);
    }
    assert_true(sock_peer_window_is_closed(fds[0]));
    assert_false(sock_peer_window_is_closed(fds[1]));
    assert_true(sock_unacked(fds[0]) > 0);
    assert_true(sock_unacked(fds[0]) < total);

    drain(fds[1], total);
    while (sock_unacked(fds[0]) > 0) { /* acknowledgements can be late */
        (void)poll(NULL, 0, 1);
    }
    assert_false(sock_peer_window_is_closed(fds[0]));
    assert_true(sock_send_room(fds[0]) > 16384);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* The prediction that caps the residue: what send() takes is about the room, never much less. */
static void test_send_room_predicts_what_is_taken(void **state)
{
    (void)state;
    static const uint8_t zeros[1 << 20];
    int fds[2];
    harness_guard();
    harness_pair(fds);
    size_t queued = fill(fds[0]);
    for (int i = 0; i < 20; i++) {
        size_t part = queued < 300000 ? queued : 300000;
        drain(fds[1], part);
        queued -= part;
        size_t room = sock_send_room(fds[0]);
        size_t len = room < sizeof zeros ? room : sizeof zeros;
        if (len == 0) {
            continue;
        }
        ssize_t sent = send(fds[0], zeros, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        assert_true(sent >= 0 || errno == EAGAIN);
        size_t taken = sent > 0 ? (size_t)sent : 0;
        assert_true(taken + 65536 >= len);
        queued += taken;
    }
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void test_reset_on_close_resets(void **state)
{
    (void)state;
    int fds[2];
    char byte;
    harness_guard();
    harness_pair(fds);
    sock_reset_on_close(fds[0]);
    (void)close(fds[0]);
    struct pollfd waiting = {.fd = fds[1], .events = POLLIN};
    assert_int_equal(poll(&waiting, 1, -1), 1);
    assert_int_equal(sock_error(fds[1]), ECONNRESET);
    assert_int_equal(sock_error(fds[1]), 0); /* fetched */
    assert_int_equal(recv(fds[1], &byte, 1, 0), 0);
    (void)close(fds[1]);
}

static void test_bad_descriptors_are_harmless(void **state)
{
    (void)state;
    assert_false(sock_peer_window_is_closed(-1));
    assert_int_equal(sock_unacked(-1), 0);
    assert_int_equal(sock_send_room(-1), 0);
    assert_int_equal(sock_error(-1), EBADF);
    sock_set_user_timeout(-1, 1);
    sock_reset_on_close(-1);
    assert_int_equal(sock_set_connection_options(-1), -EBADF);
    assert_int_equal(sock_set_dialling_options(-1), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_survive_the_round_trip),
        cmocka_unit_test(test_what_is_no_ip_address_is_refused),
        cmocka_unit_test(test_mapped_address_becomes_ipv4),
        cmocka_unit_test(test_names_of_a_pair_match),
        cmocka_unit_test(test_accepted_connections_inherit_the_options),
        cmocka_unit_test(test_exclusive_listener_refuses_strangers_and_lets_own_join),
        cmocka_unit_test(test_ipv6_listener_leaves_ipv4_alone),
        cmocka_unit_test(test_failing_calls_close_the_listener),
        cmocka_unit_test(test_paused_reader_is_seen),
        cmocka_unit_test(test_send_room_predicts_what_is_taken),
        cmocka_unit_test(test_reset_on_close_resets),
        cmocka_unit_test(test_bad_descriptors_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
