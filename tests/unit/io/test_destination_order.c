#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "harness.h"
#include "io/destination_order.h"

static uint8_t read_bytes(const char *text, uint8_t out[16])
{
    memset(out, 0, 16);
    if (strchr(text, ':') != NULL) {
        assert_int_equal(inet_pton(AF_INET6, text, out), 1);
        return SOCKS6_ADDR_IPV6;
    }
    assert_int_equal(inet_pton(AF_INET, text, out), 1);
    return SOCKS6_ADDR_IPV4;
}

/* `source` NULL: there is no way to it. */
static struct destination make(const char *text, const char *source)
{
    struct destination destination = {.port = 80, .is_probed = true, .has_source = source != NULL};
    destination.family = read_bytes(text, destination.addr);
    if (source != NULL) {
        assert_int_equal(read_bytes(source, destination.source), destination.family);
    }
    return destination;
}

/* `first` from `first_source` goes before `second`, whichever way round they are compared. */
static void expect_with(enum destination_preference preference, const char *first, const char *first_source,
                        const char *second, const char *second_source)
{
    struct destination a = make(first, first_source), b = make(second, second_source);
    assert_true(destination_compare(&a, &b, preference) < 0);
    assert_true(destination_compare(&b, &a, preference) > 0);
    assert_int_equal(destination_compare(&a, &a, preference), 0);
}

static void expect(const char *first, const char *first_source, const char *second, const char *second_source)
{
    expect_with(DESTINATION_RFC6724, first, first_source, second, second_source);
}

/* The examples of RFC 6724 section 10.2, in their order. Those on deprecated sources and native transport are left out. */
static void test_examples_of_the_rfc_hold(void **state)
{
    (void)state;
    expect("2001:db8:1::1", "2001:db8:1::2", "198.51.100.121", "169.254.13.78");            /* matching scope */
    expect("198.51.100.121", "198.51.100.117", "2001:db8:1::1", "fe80::1");                 /* matching scope */
    expect("2001:db8:1::1", "2001:db8:1::2", "10.1.2.3", "10.1.2.4");                       /* precedence */
    expect("fe80::1", "fe80::2", "2001:db8:1::1", "2001:db8:1::2");                         /* smaller scope */
    expect("2001:db8:1::1", "2001:db8:1::2", "2002:c633:6401::1", "2002:c633:6401::2");     /* precedence */
    expect("2001:db8:3ffe::1", "2001:db8:3f44::2", "2001:db8:1::1", "2001:db8:3f44::2");    /* longest prefix */
    expect("2002:c633:6401::1", "2002:c633:6401::2", "2001:db8:1::1", "2002:c633:6401::2"); /* matching label */
}

static void test_no_way_to_it_goes_last(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        enum destination_preference preference = (enum destination_preference)i;
        expect_with(preference, "192.0.2.1", "192.0.2.9", "2001:db8::1", NULL);
        expect_with(preference, "2001:db8::1", "2001:db8::2", "192.0.2.1", NULL);
    }
}

static void test_preference_chooses_the_family(void **state)
{
    (void)state;
    expect_with(DESTINATION_IPV6, "2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.9");
    expect_with(DESTINATION_IPV4, "192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::2");
    expect_with(DESTINATION_RFC6724, "2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.9");
}

static void test_unique_local_addresses_depend_on_the_table(void **state)
{
    (void)state;
    expect_with(DESTINATION_IPV6, "fd01::1", "fd01::2", "192.0.2.1", "192.0.2.9");
    expect_with(DESTINATION_RFC6724, "192.0.2.1", "192.0.2.9", "fd01::1", "fd01::2");
    expect_with(DESTINATION_IPV4, "192.0.2.1", "192.0.2.9", "fd01::1", "fd01::2");
    /* An Internet address from a unique local one, and the other way round: of another kind. */
    expect_with(DESTINATION_IPV6, "192.0.2.1", "192.0.2.9", "2001:db8::1", "fd01::2");
    expect_with(DESTINATION_IPV6, "192.0.2.1", "192.0.2.9", "fd01::1", "2001:db8::2");
}

static void test_transition_addresses_come_after_ipv4(void **state)
{
    (void)state;
    expect_with(DESTINATION_IPV6, "192.0.2.1", "192.0.2.9", "2002:c000:201::1", "2002:c000:209::1");
    for (int i = 0; i < 3; i++) {
        expect_with((enum destination_preference)i, "192.0.2.1", "192.0.2.9", "2001::1", "2001::2");
    }
}

static void test_loopback_is_as_local_as_it_gets(void **state)
{
    (void)state;
    expect("::1", "::1", "2001:db8::1", "2001:db8::2");
    expect("::1", "::1", "127.0.0.1", "127.0.0.1");
    expect("127.0.0.1", "127.0.0.1", "192.0.2.1", "192.0.2.9");
}

static void test_ipv4_addresses_keep_their_order(void **state)
{
    (void)state;
    struct destination a = make("192.0.2.1", "192.0.2.9"), b = make("198.51.100.1", "192.0.2.9");
    assert_int_equal(destination_compare(&a, &b, DESTINATION_IPV6), 0);
}

static void test_prefix_is_that_of_the_network(void **state)
{
    (void)state;
    struct destination a = make("2001:db8::9", "2001:db8::8"), b = make("2001:db8::1", "2001:db8::8");
    assert_int_equal(destination_compare(&a, &b, DESTINATION_IPV6), 0);
}

static void test_unprobed_is_judged_by_its_address(void **state)
{
    (void)state;
    struct destination a = make("2001:db8::1", NULL), b = make("192.0.2.1", "192.0.2.9");
    a.is_probed = false;
    assert_true(destination_compare(&a, &b, DESTINATION_IPV6) < 0);
    assert_true(destination_compare(&b, &a, DESTINATION_IPV6) > 0);
}

/* ---- conversions ---- */

static void test_addresses_come_back(void **state)
{
    (void)state;
    struct destination destination, other;
    struct socks6_addr addr = {.type = SOCKS6_ADDR_IPV6, .len = 16, .port = 443};
    (void)read_bytes("2001:db8::1", addr.u.ipv6);
    assert_true(destination_from_addr(&addr, &destination));
    struct socks6_addr back = destination_addr(&destination);
    assert_int_equal(back.type, SOCKS6_ADDR_IPV6);
    assert_int_equal(back.len, 16);
    assert_int_equal(back.port, 443);
    assert_memory_equal(back.u.ipv6, addr.u.ipv6, 16);
    (void)read_bytes("::ffff:192.0.2.1", addr.u.ipv6);
    assert_true(destination_from_addr(&addr, &other));
    back = destination_addr(&other);
    assert_int_equal(back.type, SOCKS6_ADDR_IPV4);
    assert_int_equal(back.len, 4);
    assert_memory_equal(back.u.ipv4, ((const uint8_t[4]){192, 0, 2, 1}), 4);
    assert_false(destination_equal(&destination, &other));
    assert_true(destination_equal(&other, &other));
    addr.type = SOCKS6_ADDR_NAME;
    assert_false(destination_from_addr(&addr, &other));
}

/* ---- the kernel ---- */

static void test_probe_finds_the_source(void **state)
{
    (void)state;
    unsigned fds = harness_fd_count();
    struct destination destination = make("127.0.0.5", NULL);
    destination.is_probed = false;
    destination_probe(&destination, NULL);
    assert_true(destination.is_probed && destination.has_source);
    assert_memory_equal(destination.source, ((const uint8_t[4]){127, 0, 0, 1}), 4);

    struct socks6_addr own = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = 1, .u.ipv4 = {127, 0, 0, 7}};
    destination_probe(&destination, &own);
    assert_true(destination.has_source);
    assert_memory_equal(destination.source, own.u.ipv4, 4);
    own.u.ipv4[0] = 240; /* nobody's */
    destination_probe(&destination, &own);
    assert_true(destination.is_probed && !destination.has_source);
    assert_int_equal(harness_fd_count(), fds);
}

static void test_probe_tells_no_way_from_no_answer(void **state)
{
    (void)state;
    struct destination destination = make("127.0.0.5", NULL);
    harness_fail("connect", 1, ENETUNREACH);
    destination_probe(&destination, NULL);
    assert_true(destination.is_probed && !destination.has_source);
    harness_fail("socket", 1, EAFNOSUPPORT);
    destination_probe(&destination, NULL);
    assert_true(destination.is_probed && !destination.has_source);
    harness_fail("socket", 1, EMFILE);
    destination_probe(&destination, NULL);
    assert_false(destination.is_probed);
    harness_fail(NULL, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_of_the_rfc_hold),
        cmocka_unit_test(test_no_way_to_it_goes_last),
        cmocka_unit_test(test_preference_chooses_the_family),
        cmocka_unit_test(test_unique_local_addresses_depend_on_the_table),
        cmocka_unit_test(test_transition_addresses_come_after_ipv4),
        cmocka_unit_test(test_loopback_is_as_local_as_it_gets),
        cmocka_unit_test(test_ipv4_addresses_keep_their_order),
        cmocka_unit_test(test_prefix_is_that_of_the_network),
        cmocka_unit_test(test_unprobed_is_judged_by_its_address),
        cmocka_unit_test(test_addresses_come_back),
        cmocka_unit_test(test_probe_finds_the_source),
        cmocka_unit_test(test_probe_tells_no_way_from_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
