/* The table of sockets by cookie: states, errors told once, twins and who gives way; addresses and errors of connect(2). */
#include "cli/run_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <socks6/error.h>

#include "cli/run_errno.h"
#include "run/addr.h"

static int open_tcp(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static struct run_state status(struct run_sockets *sockets, uint64_t cookie, uint32_t flags)
{
    const struct run_status ask = {.cookie = cookie, .flags = flags};
    struct run_state state;

    run_sockets_status(sockets, &ask, &state);
    return state;
}

static struct run_sockets *make(void)
{
    struct run_sockets *sockets = NULL;

    assert_int_equal(run_sockets_new(&sockets), 0);
    return sockets;
}

static void test_an_error_is_told_once_to_who_takes_it(void **state)
{
    struct run_sockets *sockets = make();
    struct run_socket *one = run_sockets_add(sockets, 7, open_tcp());

    (void)state;
    assert_non_null(one);
    assert_int_equal(status(sockets, 7, 0).state, RUN_STATE_CONNECTING);
    assert_int_equal(status(sockets, 8, 0).state, RUN_STATE_UNKNOWN);
    assert_null(run_sockets_add(sockets, 7, -1)); /* it is alive */
    run_sockets_bury(sockets, one, RUN_STATE_FAILED, ECONNREFUSED, false);
    assert_int_equal(status(sockets, 7, 0).error, ECONNREFUSED);
    assert_int_equal(status(sockets, 7, RUN_STATUS_TAKE_ERROR).error, ECONNREFUSED);
    assert_int_equal(status(sockets, 7, RUN_STATUS_TAKE_ERROR).error, 0);
    assert_int_equal(status(sockets, 7, 0).state, RUN_STATE_FAILED);
    assert_non_null(run_sockets_add(sockets, 7, -1)); /* the dead one gives way */
    assert_int_equal(status(sockets, 7, 0).state, RUN_STATE_CONNECTING);
    run_sockets_free(sockets);
}

static void test_a_twin_is_kept_for_the_next_attempt(void **state)
{
    struct run_sockets *sockets = make();
    int twin = open_tcp(), closed = open_tcp(), bound = open_tcp();
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};

    (void)state;
    run_sockets_bury(sockets, run_sockets_add(sockets, 1, twin), RUN_STATE_FAILED, EACCES, false);
    assert_int_equal(run_sockets_take_twin(sockets, 1), twin);
    assert_int_equal(run_sockets_take_twin(sockets, 1), -1);
    assert_true(is_open(twin));
    assert_int_equal(close(twin), 0);

    run_sockets_bury(sockets, run_sockets_add(sockets, 2, closed), RUN_STATE_ENDED, 0, true);
    assert_false(is_open(closed));
    assert_int_equal(run_sockets_take_twin(sockets, 2), -1);

    /* The port would be in use for whoever binds it next. */
    assert_int_equal(bind(bound, (const struct sockaddr *)&any, sizeof any), 0);
    run_sockets_bury(sockets, run_sockets_add(sockets, 3, bound), RUN_STATE_ENDED, 0, false);
    assert_false(is_open(bound));
    run_sockets_free(sockets);
}

static void test_the_oldest_dead_give_way(void **state)
{
    struct run_sockets *sockets = make();
    struct run_socket *alive = run_sockets_add(sockets, 1, -1);

    (void)state;
    for (uint64_t i = 0; i < RUN_SOCKETS_DEAD_MAX + 2u; i++) {
        struct run_socket *one = run_sockets_add(sockets, 100 + i, -1);

        assert_non_null(one);
        run_sockets_bury(sockets, one, RUN_STATE_ENDED, 0, false);
        if (i == 5) {
            (void)status(sockets, 100, 0); /* somebody still asks for it, so that 101 is the oldest */
        }
    }
    assert_int_equal(status(sockets, 100, 0).state, RUN_STATE_ENDED);
    assert_int_equal(status(sockets, 101, 0).state, RUN_STATE_UNKNOWN);
    assert_int_equal(status(sockets, 102, 0).state, RUN_STATE_UNKNOWN);
    assert_int_equal(status(sockets, 103, 0).state, RUN_STATE_ENDED);
    assert_int_equal(status(sockets, 1, 0).state, RUN_STATE_CONNECTING);
    assert_ptr_equal(run_sockets_find(sockets, 1), alive);
    run_sockets_free(sockets);
}

static void test_the_oldest_twins_give_way(void **state)
{
    struct run_sockets *sockets = make();
    int first = -1;

    (void)state;
    for (uint64_t i = 0; i <= RUN_SOCKETS_DEAD_TWINS_MAX; i++) {
        int twin = open_tcp();

        first = i == 0 ? twin : first;
        run_sockets_bury(sockets, run_sockets_add(sockets, 1 + i, twin), RUN_STATE_FAILED, EACCES, false);
        assert_int_equal(is_open(first), i < RUN_SOCKETS_DEAD_TWINS_MAX);
    }
    assert_int_equal(status(sockets, 1, 0).state, RUN_STATE_FAILED);
    run_sockets_free(sockets);
}

static void test_options_are_the_twins_and_pointers_are_refused(void **state)
{
    struct run_sockets *sockets = make();
    int twin = open_tcp(), one = 1, real = open_tcp();
    struct run_socket *socket = run_sockets_add(sockets, 1, twin);
    uint8_t value[256] = {0};
    uint32_t len = sizeof value;
    socklen_t size = sizeof one;

    (void)state;
    socket->real = real;
    assert_int_equal(run_sockopt_set(socket, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one, false), 0);
    assert_int_equal(getsockopt(real, SOL_SOCKET, SO_KEEPALIVE, &one, &size), 0);
    assert_int_equal(one, 1);
    assert_int_equal(run_sockopt_get(socket, SOL_SOCKET, SO_KEEPALIVE, value, &len), 0);
    assert_int_equal(len, sizeof one);
    len = sizeof value;
    assert_int_equal(run_sockopt_get(socket, IPPROTO_TCP, TCP_INFO, value, &len), 0);
    assert_int_equal(value[0], TCP_SYN_SENT);
    socket->state = RUN_STATE_CONNECTED;
    assert_int_equal(run_sockopt_get(socket, IPPROTO_TCP, TCP_INFO, value, &len), 0);
    assert_int_equal(value[0], TCP_CLOSE);
    assert_int_equal(run_sockopt_set(socket, SOL_SOCKET, SO_ATTACH_FILTER, value, 16, true), ENOPROTOOPT);
    assert_int_equal(run_sockopt_set(socket, IPPROTO_IP, 64, value, 16, true), ENOPROTOOPT);
    assert_int_equal(run_sockopt_get(socket, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, value, &len), ENOPROTOOPT);
    assert_int_equal(run_sockopt_set(socket, SOL_SOCKET, SO_MARK, &one, sizeof one, false), EPERM);
    assert_int_equal(run_sockopt_set(socket, 271, 1, &one, sizeof one, true), ENOPROTOOPT);
    assert_false(run_sockopt_is_abortive(socket));
    assert_int_equal(run_sockopt_set(socket, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, 8, false), 0);
    assert_true(run_sockopt_is_abortive(socket));
    assert_int_equal(close(real), 0);
    run_sockets_free(sockets);
}

static void test_what_was_set_before_is_carried_over(void **state)
{
    struct run_sockets *sockets = make();
    int real = open_tcp(), value = 0;
    struct run_socket *socket = run_sockets_add(sockets, 1, open_tcp());
    const int idle = 77, tos = 0x20, one = 1;
    socklen_t size = sizeof value;

    (void)state;
    assert_int_equal(setsockopt(socket->twin, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one), 0);
    assert_int_equal(setsockopt(socket->twin, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle), 0);
    assert_int_equal(setsockopt(socket->twin, IPPROTO_IP, IP_TOS, &tos, sizeof tos), 0);
    socket->peer.family = AF_INET;
    socket->real = real;
    run_sockopt_carry_over(socket);
    assert_int_equal(getsockopt(real, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size), 0);
    assert_int_equal(value, idle);
    assert_int_equal(getsockopt(real, IPPROTO_IP, IP_TOS, &value, &size), 0);
    assert_int_equal(value, tos);
    assert_int_equal(close(real), 0);
    run_sockets_free(sockets);
}

static void test_reply_codes_become_errors_of_connect(void **state)
{
    static const int want[SOCKS6_REPLY_COUNT] = {
        [SOCKS6_REPLY_FAILURE] = ENETUNREACH,
        [SOCKS6_REPLY_NOT_ALLOWED] = EACCES,
        [SOCKS6_REPLY_NET_UNREACHABLE] = ENETUNREACH,
        [SOCKS6_REPLY_HOST_UNREACHABLE] = EHOSTUNREACH,
        [SOCKS6_REPLY_REFUSED] = ECONNREFUSED,
        [SOCKS6_REPLY_TTL_EXPIRED] = EHOSTUNREACH,
        [SOCKS6_REPLY_COMMAND_UNSUPPORTED] = ENETUNREACH,
        [SOCKS6_REPLY_ADDRESS_UNSUPPORTED] = ENETUNREACH,
        [SOCKS6_REPLY_TIMED_OUT] = ETIMEDOUT,
    };
    struct socks6_dial_result result = {.has_reply = 1};

    (void)state;
    for (unsigned code = 1; code < 256; code++) {
        result.reply = code;
        assert_int_equal(run_errno(SOCKS6_DIAL_REMOTE_FAILED, &result),
                         code < SOCKS6_REPLY_COUNT ? want[code] : ENETUNREACH);
    }
    assert_int_equal(run_errno(SOCKS6_DIAL_PROXY_FAILED, &result), ENETUNREACH);
    assert_int_equal(run_errno(SOCKS6_DIAL_INVALID, &result), ENETUNREACH);
    assert_int_equal(run_errno(SOCKS6_DIAL_TIMED_OUT, &result), ENETUNREACH);
    result.sent = 1;
    assert_int_equal(run_errno(SOCKS6_DIAL_TIMED_OUT, &result), ETIMEDOUT);
    assert_int_equal(run_errno(SOCKS6_DIAL_NOMEM, &result), ENOBUFS);
}

static void test_addresses_fit_the_programs_family(void **state)
{
    struct socks6_addr addr;
    struct run_addr out = {0};

    (void)state;
    assert_int_equal(socks6_addr_parse("192.0.2.1", 80, &addr), SOCKS6_OK);
    assert_true(run_addr_from_socks(&addr, AF_INET6, &out));
    assert_int_equal(out.family, AF_INET6);
    assert_int_equal(out.bytes[10], 0xff);
    assert_int_equal(out.bytes[15], 1);
    assert_true(run_addr_to_socks(&out, &addr));
    assert_int_equal(addr.type, SOCKS6_ADDR_IPV4);
    assert_int_equal(addr.port, 80);
    assert_true(run_addr_from_socks(&addr, AF_INET, &out));
    assert_int_equal(out.family, AF_INET);
    assert_int_equal(socks6_addr_parse("2001:db8::1", 80, &addr), SOCKS6_OK);
    assert_false(run_addr_from_socks(&addr, AF_INET, &out));
    assert_int_equal(out.family, AF_INET);
    assert_int_equal(socks6_addr_parse("name.test", 80, &addr), SOCKS6_OK);
    assert_false(run_addr_from_socks(&addr, AF_INET6, &out));
    assert_false(run_addr_to_socks(&(struct run_addr){.family = AF_UNIX}, &addr));
    assert_int_equal(socks6_addr_parse("::", 80, &addr), SOCKS6_OK);
    assert_true(run_addr_is_any(&addr));
    assert_int_equal(socks6_addr_parse("0.0.0.1", 80, &addr), SOCKS6_OK);
    assert_false(run_addr_is_any(&addr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_error_is_told_once_to_who_takes_it),
        cmocka_unit_test(test_a_twin_is_kept_for_the_next_attempt),
        cmocka_unit_test(test_the_oldest_dead_give_way),
        cmocka_unit_test(test_the_oldest_twins_give_way),
        cmocka_unit_test(test_options_are_the_twins_and_pointers_are_refused),
        cmocka_unit_test(test_what_was_set_before_is_carried_over),
        cmocka_unit_test(test_reply_codes_become_errors_of_connect),
        cmocka_unit_test(test_addresses_fit_the_programs_family),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
