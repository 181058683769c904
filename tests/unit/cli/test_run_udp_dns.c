/* Ports at which programs that speak DNS over UDP are answered, and whom. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/run_udp_owner.h"
#include "harness.h"
#include "names.h"

static struct names names;
static struct reply reply;

static const struct names_row zone[] = {
    {"www.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.1", 0},
    {"slow.example.", DNS_TYPE_A, ROW_SILENT, NULL, 0},
    {NULL, 0, 0, NULL, 0},
};

static int open_world(void **state)
{
    (void)state;
    names_zone = zone;
    names_open(&names, "", "", false);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    names_close(&names);
    return 0;
}

static struct run_udp_dns ask_for(const char *destination, uint16_t port)
{
    struct run_addr addr = names_addr(destination, port);
    struct run_udp_dns out;

    names_ask(&names, &reply, RUN_UDP_DNS, &addr, sizeof addr);
    assert_int_equal(reply.times, 1);
    assert_int_equal(reply.status, 0);
    assert_int_equal(reply.len, sizeof out);
    memcpy(&out, reply.body, sizeof out);
    return out;
}

/* The status of asking whose a port is. */
static int whose(uint16_t port, struct run_udp_dns *out)
{
    const struct run_addr addr = {.family = AF_UNSPEC, .port = port};

    names_ask(&names, &reply, RUN_UDP_DNS, &addr, sizeof addr);
    assert_int_equal(reply.times, 1);
    if (reply.status == 0) {
        memcpy(out, reply.body, sizeof *out);
    }
    return reply.status;
}

static int open_client(int family, uint16_t port)
{
    struct sockaddr_in sin = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    if (family == AF_INET) {
        assert_int_equal(connect(fd, (const struct sockaddr *)&sin, sizeof sin), 0);
    } else {
        assert_int_equal(connect(fd, (const struct sockaddr *)&sin6, sizeof sin6), 0);
    }
    return fd;
}

static void send_query(int fd, uint16_t id, const char *text)
{
    struct dns_name name = name_of(text);
    const struct dns_query query = {
        .id = id, .flags = DNS_FLAG_RD, .name = &name, .type = DNS_TYPE_A, .class = DNS_CLASS_IN};
    uint8_t message[DNS_QUERY_MAX];
    size_t len;

    assert_int_equal(dns_query_build(&query, message, sizeof message, &len), 0);
    assert_int_equal(send(fd, message, len, 0), (ssize_t)len);
}

static void test_destination_has_a_pair_of_ports(void **state)
{
    struct run_udp_dns first = ask_for("192.0.2.53", 53), second = ask_for("2001:db8::53", 53), found;

    (void)state;
    assert_true(first.port_ipv4 != 0 && first.port_ipv6 != 0);
    assert_true(first.port_ipv4 != second.port_ipv4);
    assert_int_equal(ask_for("192.0.2.53", 53).port_ipv4, first.port_ipv4);
    assert_true(ask_for("192.0.2.53", 5353).port_ipv4 != first.port_ipv4);
    assert_int_equal(whose(first.port_ipv4, &found), 0);
    assert_memory_equal(found.destination.bytes, "\xc0\x00\x02\x35", 4);
    assert_int_equal(found.destination.port, 53);
    assert_int_equal(whose(second.port_ipv6, &found), 0);
    assert_int_equal(found.destination.family, AF_INET6);
    assert_int_equal(whose(0, &found), ENOENT);
    assert_int_equal(whose(1, &found), ENOENT);
}

static void test_queries_are_answered_there(void **state)
{
    struct run_udp_dns at = ask_for("192.0.2.53", 53);

    (void)state;
    for (int i = 0; i < 2; i++) {
        int fd = open_client(i == 0 ? AF_INET : AF_INET6, i == 0 ? at.port_ipv4 : at.port_ipv6);
        uint8_t message[512];
        ssize_t len;

        send_query(fd, (uint16_t)(700 + i), "www.example.");
        harness_run_until_quiet(names.loop);
        len = recv(fd, message, sizeof message, 0);
        assert_true(len > (ssize_t)DNS_HEADER_LEN);
        assert_int_equal(dns_get16(message), 700 + i);
        assert_int_equal(DNS_FLAGS_RCODE(dns_get16(message + 2)), DNS_RCODE_NOERROR);
        assert_int_equal(dns_get16(message + 6), 1);
        assert_int_equal(close(fd), 0);
    }
    assert_int_equal(names_asked_count, 1); /* the second time from the cache */
}

static void test_oldest_pair_gets_another_destination_when_there_are_too_many(void **state)
{
    struct run_udp_dns first = ask_for("192.0.2.53", 1), used = ask_for("192.0.2.53", 2), found;
    unsigned fds;
    int fd;

    (void)state;
    (void)ask_for("192.0.2.53", 1);
    (void)ask_for("192.0.2.53", 2);
    for (uint16_t port = 3; port <= 64; port++) {
        (void)ask_for("192.0.2.53", port);
    }
    (void)ask_for("192.0.2.53", 2);
    fds = harness_fd_count();
    assert_int_equal(ask_for("192.0.2.53", 65).port_ipv4, first.port_ipv4);
    assert_int_equal(harness_fd_count(), fds);
    assert_int_equal(whose(first.port_ipv6, &found), 0);
    assert_int_equal(found.destination.port, 65);
    assert_int_equal(whose(used.port_ipv4, &found), 0);
    assert_int_equal(found.destination.port, 2);
    assert_int_not_equal(ask_for("192.0.2.53", 1).port_ipv4, first.port_ipv4);
    fd = open_client(AF_INET, first.port_ipv4); /* a program that remembers is served as before */
    send_query(fd, 1, "www.example.");
    harness_run_until_quiet(names.loop);
    assert_true(recv(fd, &found, sizeof found, 0) > 0);
    assert_int_equal(close(fd), 0);
}

static void test_query_in_flight_at_the_end_is_no_matter(void **state)
{
    struct run_udp_dns at = ask_for("192.0.2.53", 53);
    int fd = open_client(AF_INET, at.port_ipv4);

    (void)state;
    send_query(fd, 1, "slow.example.");
    harness_run_until_quiet(names.loop);
    assert_int_equal(names_asked_count, 1);
    run_names_free(names.run);
    names.run = NULL;
    assert_int_equal(close(fd), 0);
}

static void test_sockets_and_memory_can_be_short(void **state)
{
    static const char *const calls[] = {"calloc", "socket", "setsockopt", "epoll_ctl", "getsockname"};
    const struct run_addr addr = names_addr("192.0.2.53", 53);
    unsigned fds = 0;

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        bool has_failed = true;

        for (unsigned n = 1; has_failed; n++) {
            run_names_free(names.run);
            const struct run_names_config config = {
                .loop = names.loop, .link = names_link, .hosts = names.hosts, .resolv_conf = names.resolv_conf};
            assert_int_equal(run_names_new(&config, &names.run), 0);
            assert_true(fds == 0 || fds == harness_fd_count());
            fds = harness_fd_count();
            harness_fail(calls[i], n, i == 0 ? ENOMEM : EMFILE);
            names_ask(&names, &reply, RUN_UDP_DNS, &addr, sizeof addr);
            has_failed = harness_has_failed();
            harness_fail(NULL, 0, 0);
            assert_int_equal(reply.times, 1);
            assert_true(has_failed || reply.status == 0);
            assert_true(reply.status == 0 || reply.status == ENOMEM || reply.status == EMFILE);
        }
    }
}

/* ---- whose a socket is ---- */

static const char table4[] = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  "
                             "timeout inode ref pointer drops\n"
                             "  100: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000       "
                             " 0 12345 2 0000000000000000 0\n"
                             "  101: 00000000:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000  1001       "
                             " 0 12346 2 0000000000000000 0\n"
                             "12345: 0200007F:1F92 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0       "
                             " 0 12347 2 0000000000000000 0\n"
                             "  102: 0100007F:1F93 0000\n"
                             "garbage\n:\n";
static const char table6[] = "  sl  local_address                         remote_address                        st "
                             "tx_queue rx_queue tr tm->when "
                             "retrnsmt   uid  timeout inode ref pointer drops\n"
                             "  200: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 07 "
                             "00000000:00000000 00:00000000 "
                             "00000000  1000        0 1 2 0 0\n"
                             "  201: 00000000000000000000000000000000:1F95 00000000000000000000000000000000:0000 07 "
                             "00000000:00000000 00:00000000 "
                             "00000000  1000        0 1 2 0 0\n"
                             "  202: 0000000000000000FFFF00000100007F:1F96 00000000000000000000000000000000:0000 07 "
                             "00000000:00000000 00:00000000 "
                             "00000000  1000        0 1 2 0 0\n";

static bool is_in(const char *table, const char *addr, uint16_t port, uid_t real, uid_t effective)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    char text[2048];
    FILE *file;
    bool found;

    (void)snprintf(text, sizeof text, "%s", table);
    file = fmemopen(text, strlen(text), "r");
    assert_non_null(file);
    if (strchr(addr, ':') != NULL) {
        assert_int_equal(inet_pton(AF_INET6, addr, &sin6.sin6_addr), 1);
        found = run_udp_owner_in(file, (const struct sockaddr *)&sin6, real, effective);
    } else {
        assert_int_equal(inet_pton(AF_INET, addr, &sin.sin_addr), 1);
        found = run_udp_owner_in(file, (const struct sockaddr *)&sin, real, effective);
    }
    assert_int_equal(fclose(file), 0);
    return found;
}

static void test_owner_is_found_in_the_kernels_table(void **state)
{
    (void)state;
    assert_true(is_in(table4, "127.0.0.1", 8080, 1000, 1000));
    assert_true(is_in(table4, "127.0.0.1", 8080, 5, 1000));
    assert_false(is_in(table4, "127.0.0.1", 8080, 1001, 1001));
    assert_false(is_in(table4, "127.0.0.2", 8080, 1000, 1000));
    assert_true(is_in(table4, "127.0.0.1", 8081, 1001, 5)); /* bound to all */
    assert_true(is_in(table4, "127.0.0.2", 8082, 0, 0));
    assert_false(is_in(table4, "127.0.0.1", 8083, 0, 0)); /* a line cut short */
    assert_true(is_in(table6, "::1", 8080, 1000, 1000));
    assert_false(is_in(table6, "::1", 8080, 1001, 1001));
    assert_true(is_in(table6, "::1", 8085, 1000, 1000));
    assert_true(is_in(table6, "127.0.0.1", 8085, 1000, 1000)); /* an IPv6 socket that speaks IPv4 */
    assert_true(is_in(table6, "127.0.0.1", 8086, 1000, 1000));
    assert_false(is_in(table6, "127.0.0.2", 8086, 1000, 1000));
    assert_false(is_in("", "127.0.0.1", 1, 0, 0));
}

static void test_own_socket_is_ours(void **state)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    FILE *table;

    (void)state;
    assert_int_equal(bind(fd, (const struct sockaddr *)&sin, sizeof sin), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    assert_true(run_udp_owner_is_ours((const struct sockaddr *)&sin));
    table = fopen("/proc/net/udp", "re");
    if (table != NULL) {
        assert_true(run_udp_owner_in(table, (const struct sockaddr *)&sin, getuid(), geteuid()));
        rewind(table);
        assert_false(run_udp_owner_in(table, (const struct sockaddr *)&sin, getuid() + 1, geteuid() + 1));
        assert_int_equal(fclose(table), 0);
    }
    assert_int_equal(close(fd), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_destination_has_a_pair_of_ports),
        TEST(test_queries_are_answered_there),
        TEST(test_oldest_pair_gets_another_destination_when_there_are_too_many),
        TEST(test_query_in_flight_at_the_end_is_no_matter),
        TEST(test_sockets_and_memory_can_be_short),
        cmocka_unit_test(test_owner_is_found_in_the_kernels_table),
        cmocka_unit_test(test_own_socket_is_ours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
