/* --fake-names: addresses that stand for names, in each kind of request. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/run_fake.h"
#include "harness.h"
#include "names.h"

static const struct siphash_key key = {1, 2};

static struct names names;

static int open_world(void **state)
{
    (void)state;
    names_zone = NULL;
    names_open(&names, "127.0.0.1 localhost\n192.0.2.7 printer.lan\n", "search corp.example\n", true);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    assert_int_equal(names_asked_count, 0); /* whatever was asked: never the proxy */
    names_close(&names);
    return 0;
}

/* The first address of a name. */
static struct run_addr address_of(const char *name, uint16_t family)
{
    char text[256];

    (void)snprintf(text, sizeof text, "%s", names_resolve(&names, name, family, 0));
    assert_non_null(strchr(text, ' '));
    *strchr(text, ' ') = '\0';
    return names_addr(text, 443);
}

static void test_name_has_one_address_that_stays(void **state)
{
    (void)state;
    assert_string_equal(names_resolve(&names, "www.example", AF_UNSPEC, 0), "198.18.0.1 =www.example");
    assert_string_equal(names_resolve(&names, "mail.example", AF_INET, 0), "198.18.0.2 =mail.example");
    assert_string_equal(names_resolve(&names, "WWW.example.", AF_INET, 0), "198.18.0.1 =WWW.example");
    assert_string_equal(names_resolve(&names, "single", AF_UNSPEC, 0), "198.18.0.3 =single");
    assert_string_equal(names_resolve(&names, "printer.lan", AF_UNSPEC, 0), "192.0.2.7 =printer.lan");
    assert_string_equal(names_resolve(&names, "localhost", AF_UNSPEC, 0), "127.0.0.1 =localhost");
    assert_string_equal(names_resolve(&names, "a b", AF_UNSPEC, 0), "EAI_NONAME");
    assert_string_equal(names_resolve(&names, "x.invalid", AF_UNSPEC, 0), "EAI_NONAME");
}

static void test_address_leads_back_to_the_name(void **state)
{
    static const uint16_t families[] = {AF_INET, AF_INET6};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct run_addr addr = address_of("Www.example", families[i]);
        struct socks6_addr out;

        assert_int_equal(addr.family, families[i]);
        assert_true(run_names_is_fake(names.run, &addr));
        assert_true(run_names_fake(names.run, &addr, &out));
        assert_int_equal(out.type, SOCKS6_ADDR_NAME);
        assert_int_equal(out.port, 443);
        assert_string_equal(out.u.name, "www.example");
    }
}

static void test_ipv6_addresses_are_unique_local(void **state)
{
    struct run_addr addr = address_of("www.example", AF_INET6);

    (void)state;
    assert_int_equal(addr.bytes[0], 0xfd);
}

static void test_addresses_that_stand_for_nothing_are_told(void **state)
{
    static const char *const none[] = {"198.18.0.1", "198.18.0.0", "198.18.0.255", "198.19.255.254",
                                       "::ffff:198.18.0.9"};
    struct run_addr addr = address_of("www.example", AF_INET6), real = names_addr("198.20.0.1", 80);
    struct socks6_addr out;

    (void)state;
    for (size_t i = 1; i < sizeof none / sizeof none[0]; i++) {
        struct run_addr at = names_addr(none[i], 80);

        assert_true(run_names_is_fake(names.run, &at));
        assert_false(run_names_fake(names.run, &at, &out));
        assert_string_equal(names_reverse(&names, none[i]), "EAI_NONAME");
    }
    addr.bytes[9] = 1;
    assert_true(run_names_is_fake(names.run, &addr));
    assert_false(run_names_fake(names.run, &addr, &out));
    memset(addr.bytes + 8, 0, 8);
    assert_false(run_names_fake(names.run, &addr, &out));
    assert_false(run_names_is_fake(names.run, &real));
    real.family = AF_UNSPEC;
    assert_false(run_names_is_fake(names.run, &real));
}

static void test_fake_address_has_its_name(void **state)
{
    (void)state;
    (void)address_of("www.example", AF_INET);
    assert_string_equal(names_reverse(&names, "198.18.0.1"), "www.example");
    assert_string_equal(names_reverse(&names, "192.0.2.7"), "printer.lan");
    assert_string_equal(names_reverse(&names, "192.0.2.8"), "EAI_NONAME");
}

static void test_oldest_name_loses_its_address(void **state)
{
    struct run_fake *fake = run_fake_new(&key, 3);
    struct socks6_addr ipv4, ipv6;
    struct dns_name name, found;

    (void)state;
    assert_non_null(fake);
    for (int i = 0; i < 3; i++) {
        char text[32];

        (void)snprintf(text, sizeof text, "n%d.example", i);
        name = name_of(text);
        assert_int_equal(run_fake_addresses(fake, &name, &ipv4, &ipv6), 0);
        assert_int_equal(ipv4.u.ipv4[3], i + 1);
    }
    name = name_of("n0.example");
    assert_int_equal(run_fake_addresses(fake, &name, &ipv4, &ipv6), 0); /* used */
    name = name_of("new.example");
    assert_int_equal(run_fake_addresses(fake, &name, &ipv4, &ipv6), 0);
    assert_int_equal(ipv4.u.ipv4[3], 2);
    assert_true(run_fake_name(fake, &ipv6, &found));
    assert_true(dns_name_equal(&found, &name));
    name = name_of("n1.example");
    assert_int_equal(run_fake_addresses(fake, &name, &ipv4, &ipv6), 0);
    assert_int_equal(ipv4.u.ipv4[3], 3); /* n2's */
    run_fake_free(fake);
}

static void test_all_addresses_are_of_the_range_and_distinct(void **state)
{
    struct run_fake *fake = run_fake_new(&key, RUN_FAKE_NAMES_MAX);
    uint32_t last = 0;

    (void)state;
    assert_non_null(fake);
    for (unsigned i = 0; i < RUN_FAKE_NAMES_MAX; i++) {
        struct socks6_addr ipv4, ipv6;
        struct dns_name name, found;
        char text[32];

        (void)snprintf(text, sizeof text, "n%u.example", i);
        name = name_of(text);
        assert_int_equal(run_fake_addresses(fake, &name, &ipv4, &ipv6), 0);
        assert_true(run_fake_has(fake, &ipv4) && run_fake_has(fake, &ipv6));
        assert_true(dns_get32(ipv4.u.ipv4) > last);
        assert_true(ipv4.u.ipv4[3] != 0 && ipv4.u.ipv4[3] != 255);
        last = dns_get32(ipv4.u.ipv4);
        assert_true(run_fake_name(fake, &ipv4, &found) && dns_name_equal(&found, &name));
        assert_true(run_fake_name(fake, &ipv6, &found) && dns_name_equal(&found, &name));
    }
    for (unsigned block = 0; block < 4; block++) { /* which are nobody's, although all around them is */
        const uint8_t zero[4] = {198, 18, (uint8_t)block, 0}, ones[4] = {198, 18, (uint8_t)block, 255};
        const struct socks6_addr ends[2] = {dns_addr(SOCKS6_ADDR_IPV4, zero, 0), dns_addr(SOCKS6_ADDR_IPV4, ones, 0)};
        struct dns_name found;

        assert_false(run_fake_name(fake, &ends[0], &found) || run_fake_name(fake, &ends[1], &found));
    }
    run_fake_free(fake);
}

static void test_reverse_names_are_made_and_read(void **state)
{
    static const char *const pairs[][2] = {
        {"192.0.2.10", "10.2.0.192.in-addr.arpa."},
        {"255.100.0.9", "9.0.100.255.in-addr.arpa."},
        {"2001:db8::fa", "a.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."},
    };
    static const char *const bad[] = {"2.0.192.in-addr.arpa",
                                      "1.10.2.0.192.in-addr.arpa",
                                      "010.2.0.192.in-addr.arpa",
                                      "256.2.0.192.in-addr.arpa",
                                      "a.2.0.192.in-addr.arpa",
                                      "10.2.0.192.in-addr.arpb",
                                      "f.ip6.arpa",
                                      "aa.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
                                      "g.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
                                      "."};
    struct socks6_addr addr;
    struct dns_name name;
    char text[DNS_NAME_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct run_addr from = names_addr(pairs[i][0], 0);
        const struct socks6_addr wanted =
            dns_addr(from.family == AF_INET ? SOCKS6_ADDR_IPV4 : SOCKS6_ADDR_IPV6, from.bytes, 0);

        run_reverse_name(&wanted, &name);
        (void)dns_name_format(&name, text);
        assert_string_equal(text, pairs[i][1]);
        assert_true(run_reverse_addr(&name, &addr));
        assert_true(socks6_addr_equal(&addr, &wanted));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        name = name_of(bad[i]);
        assert_false(run_reverse_addr(&name, &addr));
    }
}

/* ---- messages ---- */

static struct reply reply;

/* The rcode of the answer, and its first record, if there is one. */
static unsigned ask(const char *text, uint16_t type, uint16_t class, struct dns_record *record)
{
    struct dns_name name = name_of(text);
    const struct dns_query query = {.id = 99, .flags = DNS_FLAG_RD, .name = &name, .type = type, .class = class};
    uint8_t message[DNS_QUERY_MAX];
    struct dns_records records;
    struct dns_edns edns;
    size_t len, end;

    assert_int_equal(dns_query_build(&query, message, sizeof message, &len), 0);
    names_ask(&names, &reply, RUN_QUERY, message, len);
    names_wait(&names, &reply);
    assert_int_equal(reply.status, 0);
    assert_int_equal(dns_get16(reply.body), 99);
    assert_int_equal(dns_message_check(reply.body, reply.len, &edns, &end), 0);
    assert_int_equal(end, reply.len);
    record->type = 0;
    assert_int_equal(dns_records_init(&records, reply.body, reply.len), 0);
    (void)!dns_records_next(&records, record);
    return DNS_FLAGS_RCODE(dns_get16(reply.body + 2));
}

static void test_messages_are_answered_with_fake_addresses(void **state)
{
    struct run_addr ipv4 = address_of("www.example", AF_INET), ipv6 = address_of("www.example", AF_INET6);
    struct dns_record record;
    struct dns_name name, wanted = name_of("www.example.");

    (void)state;
    assert_int_equal(ask("www.example.", DNS_TYPE_A, DNS_CLASS_IN, &record), DNS_RCODE_NOERROR);
    assert_int_equal(record.type, DNS_TYPE_A);
    assert_memory_equal(record.rdata.data, ipv4.bytes, 4);
    assert_int_equal(ask("www.example.", DNS_TYPE_AAAA, DNS_CLASS_IN, &record), DNS_RCODE_NOERROR);
    assert_memory_equal(record.rdata.data, ipv6.bytes, 16);
    assert_int_equal(ask("1.0.18.198.in-addr.arpa.", DNS_TYPE_PTR, DNS_CLASS_IN, &record), DNS_RCODE_NOERROR);
    assert_int_equal(record.type, DNS_TYPE_PTR);
    assert_int_equal(dns_name_read(reply.body, reply.len, record.rdata_offset, &name, NULL), 0);
    assert_true(dns_name_equal(&name, &wanted));
    assert_int_equal(ask("9.0.18.198.in-addr.arpa.", DNS_TYPE_PTR, DNS_CLASS_IN, &record), DNS_RCODE_NXDOMAIN);
    assert_int_equal(ask("a.localhost.", DNS_TYPE_A, DNS_CLASS_IN, &record), DNS_RCODE_NOERROR);
    assert_int_equal(record.rdata.data[0], 127);
    assert_int_equal(ask("x.invalid.", DNS_TYPE_A, DNS_CLASS_IN, &record), DNS_RCODE_NXDOMAIN);
}

static void test_types_that_cannot_be_faked_are_not_implemented(void **state)
{
    struct dns_record record;

    (void)state;
    assert_int_equal(ask("www.example.", DNS_TYPE_MX, DNS_CLASS_IN, &record), DNS_RCODE_NOTIMP);
    assert_int_equal(ask("www.example.", DNS_TYPE_ANY, DNS_CLASS_IN, &record), DNS_RCODE_NOTIMP);
    assert_int_equal(ask("version.bind.", DNS_TYPE_A, 3, &record), DNS_RCODE_NOTIMP);
}

static void test_each_allocation_can_fail(void **state)
{
    static const char *const calls[] = {"calloc", "malloc"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        bool has_failed = true;

        for (unsigned n = 1; has_failed; n++) {
            struct dns_name name = name_of("fail.example.");
            const struct dns_query query = {.id = 1, .name = &name, .type = DNS_TYPE_A, .class = DNS_CLASS_IN};
            uint8_t message[DNS_QUERY_MAX];
            char text[64];
            size_t len;

            assert_true(n < 50);
            (void)snprintf(text, sizeof text, "n%u.%zu.example", n, i);
            assert_int_equal(dns_query_build(&query, message, sizeof message, &len), 0);
            harness_fail(calls[i], n, ENOMEM);
            names_ask_resolve(&names, &reply, text, AF_INET, 0);
            assert_int_equal(reply.times, 1);
            assert_true(reply.status == 0 || reply.status == EAI_MEMORY);
            names_ask(&names, &reply, RUN_QUERY, message, len);
            names_wait(&names, &reply);
            assert_true(reply.status == 0 || reply.status == ENOMEM);
            has_failed = harness_has_failed();
            harness_fail(NULL, 0, 0);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_name_has_one_address_that_stays),
        TEST(test_address_leads_back_to_the_name),
        TEST(test_ipv6_addresses_are_unique_local),
        TEST(test_addresses_that_stand_for_nothing_are_told),
        TEST(test_fake_address_has_its_name),
        cmocka_unit_test(test_oldest_name_loses_its_address),
        cmocka_unit_test(test_all_addresses_are_of_the_range_and_distinct),
        cmocka_unit_test(test_reverse_names_are_made_and_read),
        TEST(test_messages_are_answered_with_fake_addresses),
        TEST(test_types_that_cannot_be_faked_are_not_implemented),
        TEST(test_each_allocation_can_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
