#include "preload/addr.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

static struct run_addr make(const char *text, uint16_t port)
{
    struct run_addr addr = {.port = port};

    addr.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    assert_int_equal(inet_pton(addr.family, text, addr.bytes), 1);
    return addr;
}

/* In memory of exactly `len` bytes. */
static bool parse_copy(const void *addr, socklen_t len, struct run_addr *out, bool *is_mapped)
{
    void *copy = malloc(len);
    bool is_good;

    assert_non_null(copy);
    memcpy(copy, addr, len);
    is_good = addr_parse(copy, len, out, is_mapped);
    free(copy);
    return is_good;
}

static void test_ipv4_there_and_back(void **state)
{
    struct run_addr addr = make("192.0.2.7", 8080), parsed;
    struct sockaddr_storage shown;
    bool is_mapped = true;

    (void)state;
    assert_int_equal(addr_show(&addr, AF_INET, &shown), sizeof(struct sockaddr_in));
    assert_true(parse_copy(&shown, sizeof(struct sockaddr_in), &parsed, &is_mapped));
    assert_true(addr_equal(&parsed, &addr));
    assert_false(is_mapped);
    assert_false(parse_copy(&shown, sizeof(struct sockaddr_in) - 1, &parsed, NULL));
    assert_false(parse_copy(&shown, 1, &parsed, NULL));
    assert_false(addr_parse(NULL, sizeof shown, &parsed, NULL));
    assert_false(addr_parse(&shown, sizeof shown + 1, &parsed, NULL));
}

static void test_ipv6_keeps_scope_of_link_local_addresses(void **state)
{
    struct run_addr local = make("fe80::1", 1), global = make("2001:db8::1", 2), parsed;
    struct sockaddr_storage shown;

    (void)state;
    local.scope = global.scope = 7;
    assert_int_equal(addr_show(&local, AF_INET6, &shown), sizeof(struct sockaddr_in6));
    assert_true(parse_copy(&shown, sizeof(struct sockaddr_in6), &parsed, NULL));
    assert_int_equal(parsed.scope, 7);
    assert_true(parse_copy(&shown, 24, &parsed, NULL)); /* RFC 2133: no scope */
    assert_int_equal(parsed.scope, 0);
    assert_false(parse_copy(&shown, 23, &parsed, NULL));
    (void)addr_show(&global, AF_INET6, &shown);
    assert_true(parse_copy(&shown, sizeof(struct sockaddr_in6), &parsed, NULL));
    assert_int_equal(parsed.scope, 0);
}

static void test_mapped_addresses_are_ipv4(void **state)
{
    struct run_addr addr = make("192.0.2.7", 443), parsed;
    struct sockaddr_storage shown;
    bool is_mapped = false;

    (void)state;
    assert_int_equal(addr_show(&addr, AF_INET6, &shown), sizeof(struct sockaddr_in6));
    assert_true(parse_copy(&shown, sizeof(struct sockaddr_in6), &parsed, &is_mapped));
    assert_true(is_mapped);
    assert_true(addr_equal(&parsed, &addr));
}

static void test_ipv6_in_an_ipv4_socket_shows_the_wildcard(void **state)
{
    struct run_addr addr = make("2001:db8::1", 99);
    struct sockaddr_storage shown;
    struct sockaddr_in in;

    (void)state;
    assert_int_equal(addr_show(&addr, AF_INET, &shown), sizeof in);
    memcpy(&in, &shown, sizeof in);
    assert_int_equal(in.sin_addr.s_addr, INADDR_ANY);
    assert_int_equal(ntohs(in.sin_port), 99);
}

static void test_given_addresses_are_cut(void **state)
{
    struct run_addr addr = make("192.0.2.7", 443);
    struct sockaddr_storage shown;
    char small[4] = {1, 1, 1, 1};
    socklen_t len = addr_show(&addr, AF_INET, &shown), room = 3;

    (void)state;
    assert_int_equal(addr_give(&shown, len, small, &room), 0);
    assert_int_equal(room, sizeof(struct sockaddr_in));
    assert_memory_equal(small, &shown, 3);
    assert_int_equal(small[3], 1);
    room = (socklen_t)-1;
    assert_int_equal(addr_give(&shown, len, small, &room), -EINVAL);
}

static void test_kinds_of_addresses(void **state)
{
    static const struct {
        const char *text;
        bool is_loopback, is_wildcard, is_multicast, is_link_local;
    } cases[] = {
        {"127.0.0.1", true, false, false, false},
        {"127.255.0.53", true, false, false, false},
        {"126.255.255.255", false, false, false, false},
        {"128.0.0.0", false, false, false, false},
        {"::1", true, false, false, false},
        {"::2", false, false, false, false},
        {"0.0.0.0", false, true, false, false},
        {"::", false, true, false, false},
        {"0.0.0.1", false, false, false, false},
        {"224.0.0.1", false, false, true, false},
        {"239.255.255.255", false, false, true, false},
        {"240.0.0.1", false, false, false, false},
        {"255.255.255.255", false, false, true, false},
        {"ff02::1", false, false, true, false},
        {"fe80::1", false, false, false, true},
        {"febf::1", false, false, false, true},
        {"fec0::1", false, false, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct run_addr addr = make(cases[i].text, 0);

        assert_int_equal(addr_is_loopback(&addr), cases[i].is_loopback);
        assert_int_equal(addr_is_wildcard(&addr), cases[i].is_wildcard);
        assert_int_equal(addr_is_multicast(&addr), cases[i].is_multicast);
        assert_int_equal(addr_is_link_local(&addr), cases[i].is_link_local);
    }
}

static void test_texts(void **state)
{
    struct run_addr addr = make("192.0.2.7", 443);
    char text[ADDR_TEXT_LEN];

    (void)state;
    assert_string_equal(addr_text(&addr, text), "192.0.2.7:443");
    addr = make("1111:2222:3333:4444:5555:6666:7777:8888", 65535);
    assert_string_equal(addr_text(&addr, text), "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ipv4_there_and_back),
        cmocka_unit_test(test_ipv6_keeps_scope_of_link_local_addresses),
        cmocka_unit_test(test_mapped_addresses_are_ipv4),
        cmocka_unit_test(test_ipv6_in_an_ipv4_socket_shows_the_wildcard),
        cmocka_unit_test(test_given_addresses_are_cut),
        cmocka_unit_test(test_kinds_of_addresses),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
