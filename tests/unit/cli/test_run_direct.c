/* NO_PROXY: what it matches, and what it does not; addresses that are remembered. */
#include "cli/run_direct.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <socks6/error.h>

#define NETWORKS_TEXT 256u

static unsigned complaints;

static void count(const char *entry)
{
    assert_non_null(entry);
    complaints++;
}

static struct run_direct *make(const char *text)
{
    struct run_direct *direct = NULL;

    complaints = 0;
    assert_int_equal(run_direct_new(text, count, &direct), 0);
    return direct;
}

static bool has(const struct run_direct *direct, const char *text)
{
    struct socks6_addr addr;

    assert_int_equal(socks6_addr_parse(text, 80, &addr), SOCKS6_OK);
    return addr.type == SOCKS6_ADDR_NAME ? run_direct_has_name(direct, text) : run_direct_has_addr(direct, &addr);
}

static void check(const char *text, const char *const *inside, const char *const *outside)
{
    struct run_direct *direct = make(text);

    for (; *inside != NULL; inside++) {
        if (!has(direct, *inside)) {
            fail_msg("'%s' should have %s", text, *inside);
        }
    }
    for (; *outside != NULL; outside++) {
        if (has(direct, *outside)) {
            fail_msg("'%s' should not have %s", text, *outside);
        }
    }
    run_direct_free(direct);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_names_match_themselves_and_what_is_below(void **state)
{
    (void)state;
    check("example.com", LIST("example.com", "EXAMPLE.com", "a.b.example.com", "example.com."),
          LIST("notexample.com", "example.org", "com", "example.com.org", "192.0.2.1"));
    check(".example.com", LIST("example.com", "www.example.com"), LIST("xexample.com"));
    check("*.example.com.", LIST("www.example.com", "example.com"), LIST("example.co"));
    check(" a.test,b.test\tc.test ,, d.test", LIST("a.test", "b.test", "c.test", "x.d.test"), LIST("e.test"));
    check("localhost", LIST("localhost"), LIST("localhost.example"));
}

static void test_addresses_and_networks_match(void **state)
{
    (void)state;
    check("192.0.2.1", LIST("192.0.2.1"), LIST("192.0.2.2", "::ffff:1.2.3.4"));
    check("[2001:db8::1],2001:db8::2", LIST("2001:db8::1", "2001:db8::2"), LIST("2001:db8::3"));
    check("10.0.0.0/8, 192.168.16.0/20", LIST("10.255.0.1", "192.168.31.255"), LIST("11.0.0.0", "192.168.32.0", "a10"));
    check("2001:db8::/33", LIST("2001:db8:7fff::1"), LIST("2001:db8:8000::1"));
    check("0.0.0.0/0", LIST("203.0.113.9"), LIST("2001:db8::1", "name.test"));
    check("192.0.2.0/31", LIST("192.0.2.1"), LIST("192.0.2.2"));
    check("::ffff:192.0.2.7", LIST("192.0.2.7"), LIST("192.0.2.8"));
}

static void test_star_alone_matches_everything(void **state)
{
    (void)state;
    check(" * ", LIST("example.com", "192.0.2.1", "2001:db8::1"), LIST(NULL));
    check("*,example.com", LIST("example.com"), LIST("example.org", "192.0.2.1"));
}

static void test_nothing_matches_nothing(void **state)
{
    (void)state;
    check(NULL, LIST(NULL), LIST("example.com", "192.0.2.1", "::2"));
    check("", LIST(NULL), LIST("example.com"));
    check(",. ,", LIST(NULL), LIST("example.com", ".", "a."));
}

static void test_nonsense_is_told_and_matches_nothing(void **state)
{
    static const char *const words[] = {"10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/x", "2001:db8::/129",
                                        "name.test/8", "10.0.0.0/-1", ".",          "1.2.3.4/0008"};

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct run_direct *direct = make(words[i]);

        assert_int_equal(complaints, 1);
        assert_false(has(direct, "10.0.0.0"));
        assert_false(has(direct, "2001:db8::"));
        run_direct_free(direct);
    }
}

static struct socks6_addr number(uint32_t value)
{
    const uint8_t bytes[4] = {198, (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};

    return socks6_addr_ipv4(bytes, 1);
}

static void test_remembered_addresses_give_way_oldest_first(void **state)
{
    struct run_direct *direct = make(NULL);

    (void)state;
    for (uint32_t i = 0; i < 2 * RUN_DIRECT_ADDRESSES_MAX + 10; i++) {
        struct socks6_addr addr = number(i);

        assert_false(run_direct_has_addr(direct, &addr));
        run_direct_remember(direct, &addr);
        run_direct_remember(direct, &addr);
        addr.port = 9;
        assert_true(run_direct_has_addr(direct, &addr));
    }
    for (uint32_t i = 0; i < 2 * RUN_DIRECT_ADDRESSES_MAX + 10; i++) {
        struct socks6_addr addr = number(i);

        assert_int_equal(run_direct_has_addr(direct, &addr), i >= RUN_DIRECT_ADDRESSES_MAX + 10);
    }
    run_direct_free(direct);
}

/* Each network with its bits, in the order of the list, and a blank behind it. */
static void note_network(void *arg, const struct socks6_addr *addr, unsigned bits)
{
    char *text = arg, written[SOCKS6_ADDR_TEXT_MAX];
    size_t len = strlen(text);

    (void)socks6_addr_format_host(addr, written, sizeof written);
    (void)snprintf(text + len, NETWORKS_TEXT - len, "%s/%u ", written, bits);
}

static void expect_networks(const char *list, const char *expected)
{
    struct run_direct *direct = make(list);
    char text[NETWORKS_TEXT] = "";

    run_direct_visit(direct, note_network, text);
    run_direct_free(direct);
    assert_string_equal(text, expected);
}

static void test_networks_are_told(void **state)
{
    (void)state;
    expect_networks(NULL, "");
    expect_networks("", "");
    expect_networks("example.com,.name.test", "");
    expect_networks("10.0.0.0/33", "");
    expect_networks("192.0.2.1", "192.0.2.1/32 ");
    expect_networks("localhost,127.0.0.0/8,::1,10.0.0.0/8", "127.0.0.0/8 ::1/128 10.0.0.0/8 ");
    expect_networks("[2001:db8::1] fe80::/10 ::ffff:192.0.2.1", "2001:db8::1/128 fe80::/10 192.0.2.1/32 ");
    expect_networks("*", "0.0.0.0/0 ::/0 ");
    expect_networks("*,192.0.2.1", "192.0.2.1/32 ");
}

static void test_remembered_addresses_are_not_told(void **state)
{
    struct run_direct *direct = make("192.0.2.1");
    struct socks6_addr addr = number(1);
    char text[NETWORKS_TEXT] = "";

    (void)state;
    run_direct_remember(direct, &addr);
    run_direct_visit(direct, note_network, text);
    assert_string_equal(text, "192.0.2.1/32 ");
    run_direct_free(direct);
}

static void test_loopback_and_names_are_not_remembered(void **state)
{
    static const char *const hosts[] = {"name.test", "127.0.0.1", "::1"};
    struct run_direct *direct = make("name.test");

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct socks6_addr addr;

        assert_int_equal(socks6_addr_parse(hosts[i], 80, &addr), SOCKS6_OK);
        run_direct_remember(direct, &addr);
        assert_false(run_direct_has_addr(direct, &addr));
    }
    run_direct_free(direct);
}

static void test_the_lower_case_variable_comes_first(void **state)
{
    (void)state;
    assert_int_equal(setenv("NO_PROXY", "upper", 1), 0);
    assert_int_equal(setenv("no_proxy", "lower", 1), 0);
    assert_string_equal(run_direct_environment(), "lower");
    assert_int_equal(setenv("no_proxy", "", 1), 0);
    assert_string_equal(run_direct_environment(), "upper");
    assert_int_equal(unsetenv("NO_PROXY"), 0);
    assert_null(run_direct_environment());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_match_themselves_and_what_is_below),
        cmocka_unit_test(test_addresses_and_networks_match),
        cmocka_unit_test(test_star_alone_matches_everything),
        cmocka_unit_test(test_nothing_matches_nothing),
        cmocka_unit_test(test_nonsense_is_told_and_matches_nothing),
        cmocka_unit_test(test_remembered_addresses_give_way_oldest_first),
        cmocka_unit_test(test_networks_are_told),
        cmocka_unit_test(test_remembered_addresses_are_not_told),
        cmocka_unit_test(test_loopback_and_names_are_not_remembered),
        cmocka_unit_test(test_the_lower_case_variable_comes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
