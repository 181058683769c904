/*
 * `dns:`: every key, exact errors, printing and reading again; and the rules as the DNS service sees them.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct config *load(const char *text)
{
    struct config_error error = {.text = ""};
    const struct config *config = NULL;

    if (config_load_memory("etc/f.yaml", text, strlen(text), NULL, 0, &config, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return config;
}

static void assert_addr(const struct socks6_addr *addr, const char *expected)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(addr, text, sizeof text);
    assert_string_equal(text, expected);
}

static void test_every_key_is_taken(void **state)
{
    const struct config *config =
        load("dns:\n"
             "  upstream: [udp://192.0.2.1, \"udp://192.0.2.2:5353\", tcp://2001:db8::1, \"tcp://[2001:db8::2]:54\",\n"
             "             \"tls://192.0.2.3#dns.example.net\", \"tls://[2001:db8::3]:8853\"]\n"
             "  resolv_conf: /run/resolv.conf\n"
             "  hosts: my.hosts\n"
             "  ca: certs/ca.pem\n"
             "  timeout: 1500ms\n"
             "  attempts: 3\n"
             "  cache: 512KiB\n"
             "  service: false\n"
             "  service_socks5: true\n"
             "  relay: dns.example.net:5300\n"
             "  idle: 5s\n"
             "  queries_in_flight: 7\n"
             "  queries_per_second: 9\n");
    const struct config_dns *dns = &config->dns;
    static const struct {
        enum dns_transport transport;
        const char *addr, *name;
    } servers[] = {
        {DNS_UDP, "192.0.2.1:53", ""},
        {DNS_UDP, "192.0.2.2:5353", ""},
        {DNS_TCP, "[2001:db8::1]:53", ""},
        {DNS_TCP, "[2001:db8::2]:54", ""},
        {DNS_TLS, "192.0.2.3:853", "dns.example.net"},
        {DNS_TLS, "[2001:db8::3]:8853", ""},
    };

    (void)state;
    assert_int_equal(dns->server_count, COUNT(servers));
    for (size_t i = 0; i < COUNT(servers); i++) {
        assert_int_equal(dns->servers[i].transport, servers[i].transport);
        assert_addr(&dns->servers[i].addr, servers[i].addr);
        assert_string_equal(dns->servers[i].name, servers[i].name);
    }
    assert_string_equal(dns->resolv_conf, "/run/resolv.conf");
    assert_string_equal(dns->hosts, "etc/my.hosts");
    assert_string_equal(dns->ca, "etc/certs/ca.pem");
    assert_int_equal(dns->timeout_ms, 1500);
    assert_int_equal(dns->attempts, 3);
    assert_int_equal(dns->cache_len, 512 * 1024);
    assert_false(dns->service);
    assert_true(dns->service_socks5);
    assert_addr(&dns->relay, "dns.example.net:5300");
    assert_int_equal(dns->idle_ms, 5000);
    assert_int_equal(dns->queries_in_flight, 7);
    assert_int_equal(dns->queries_per_second, 9);

    struct dns_settings settings;
    config_dns_settings(dns, &settings);
    assert_int_equal(settings.server_count, COUNT(servers));
    assert_ptr_equal(settings.servers, dns->servers);
    assert_ptr_equal(settings.hosts, dns->hosts);
    assert_int_equal(settings.cache_len, 512 * 1024);
    config_release(config);
}

static void test_words_stand_for_defaults_and_nothing(void **state)
{
    const struct config *config =
        load("dns: {upstream: system, hosts: none, ca: system, timeout: auto, attempts: auto,\n"
             "  cache: none, relay: none, queries_per_second: none}\n");

    (void)state;
    assert_int_equal(config->dns.server_count, 0);
    assert_string_equal(config->dns.hosts, "");
    assert_null(config->dns.ca);
    assert_int_equal(config->dns.timeout_ms, 0);
    assert_int_equal(config->dns.attempts, 0);
    assert_int_equal(config->dns.cache_len, 0);
    assert_int_equal(config->dns.relay.type, 0);
    assert_int_equal(config->dns.queries_per_second, 0);
    assert_true(config->dns.service);
    config_release(config);
}

static void test_errors_are_exact(void **state)
{
#define SERVER                                                                                                         \
    " is not a DNS server; write 'system', or servers such as udp://192.0.2.53, \"tcp://[2001:db8::53]:5353\" or "     \
    "tls://192.0.2.53#dns.example.net, with addresses"
#define KEYS                                                                                                           \
    "(keys here: upstream, resolv_conf, hosts, ca, timeout, attempts, cache, service, service_socks5, relay, idle, "   \
    "queries_in_flight, queries_per_second)"
#define SIZE " is not a size; write a number and a unit, such as 512KiB, 32MiB or 1GiB, or 'none'"
#define RELAY " is not a server and a port; write 192.0.2.53:53, \"[2001:db8::53]:53\" or dns.example.net:53, or 'none'"
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"dns: {upstream: 192.0.2.1}\n", "f.yaml:1:17: '192.0.2.1'" SERVER},
        {"dns: {upstream: udp://dns.example.net}\n", "f.yaml:1:17: 'udp://dns.example.net'" SERVER},
        {"dns: {upstream: \"udp://192.0.2.1:0\"}\n", "f.yaml:1:17: 'udp://192.0.2.1:0'" SERVER},
        {"dns: {upstream: \"udp://192.0.2.1:65536\"}\n", "f.yaml:1:17: 'udp://192.0.2.1:65536'" SERVER},
        {"dns: {upstream: https://192.0.2.1}\n", "f.yaml:1:17: 'https://192.0.2.1'" SERVER},
        {"dns: {upstream: [system]}\n", "f.yaml:1:18: 'system'" SERVER},
        {"dns: {upstream: \"udp://192.0.2.1#a.b\"}\n",
         "f.yaml:1:17: 'udp://192.0.2.1#a.b': a name after '#' is for tls:// only; remove it"},
        {"dns: {upstream: \"tls://192.0.2.1#\"}\n",
         "f.yaml:1:17: 'tls://192.0.2.1#': what follows '#' is not the name of a server"},
        {"dns: {upstream: \"tls://192.0.2.1#*.b\"}\n",
         "f.yaml:1:17: 'tls://192.0.2.1#*.b': what follows '#' is not the name of a server"},
        {"dns: {upstream: [udp://1.1.1.1, udp://1.1.1.2, udp://1.1.1.3, udp://1.1.1.4, udp://1.1.1.5, udp://1.1.1.6,\n"
         "  udp://1.1.1.7, udp://1.1.1.8, udp://1.1.1.9]}\n",
         "f.yaml:2:33: more than 8 servers; remove some"},
        {"dns: {timeout: 49ms}\n", "f.yaml:1:16: '49ms' is out of range; write a time from 50ms to 20s, or 'auto'"},
        {"dns: {timeout: 21s}\n", "f.yaml:1:16: '21s' is out of range; write a time from 50ms to 20s, or 'auto'"},
        {"dns: {attempts: 6}\n", "f.yaml:1:17: '6' is not a number from 1 to 5; write one, or 'auto'"},
        {"dns: {cache: 32}\n", "f.yaml:1:14: '32'" SIZE},
        {"dns: {cache: 32MB}\n", "f.yaml:1:14: '32MB'" SIZE},
        {"dns: {cache: 0KiB}\n", "f.yaml:1:14: '0KiB'" SIZE},
        {"dns: {cache: 999999999999GiB}\n", "f.yaml:1:14: '999999999999GiB'" SIZE},
        {"dns: {service: built-in}\n", "f.yaml:1:16: 'built-in' is neither 'true' nor 'false'; write one of them"},
        {"dns: {relay: 192.0.2.1}\n", "f.yaml:1:14: '192.0.2.1'" RELAY},
        {"dns: {relay: \"192.0.2.1:\"}\n", "f.yaml:1:14: '192.0.2.1:'" RELAY},
        {"dns: {relay: \"192.0.2.1:0\"}\n", "f.yaml:1:14: '192.0.2.1:0'" RELAY},
        {"dns: {relay: \"2001:db8::1:53\"}\n", "f.yaml:1:14: '2001:db8::1:53'" RELAY},
        {"dns: {relay: \"a:53x\"}\n", "f.yaml:1:14: 'a:53x'" RELAY},
        {"dns: {idle: 0}\n", "f.yaml:1:13: this cannot be without a limit; write a time such as 10s"},
        {"dns: {queries_in_flight: 0}\n", "f.yaml:1:26: '0' is not a number from 1 to 65535; write one"},
        {"dns: {queries_per_second: 0}\n", "f.yaml:1:27: '0' is not a number from 1 to 10000000; write one, or 'none'"},
        {"dns: {server: x}\n", "f.yaml:1:7: unknown key 'server'; write 'service' " KEYS},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct config_error error = {.text = ""};
        const struct config *config;
        assert_int_equal(config_load_memory("f.yaml", cases[i].text, strlen(cases[i].text), NULL, 0, &config, &error),
                         -1);
        assert_string_equal(error.text, cases[i].error);
    }
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    config_print(config, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_printed_settings_load_to_the_same(void **state)
{
    static const char *const texts[] = {
        "",
        ("dns: {upstream: [udp://192.0.2.1, \"tcp://[2001:db8::2]:54\", \"tls://192.0.2.3#a.example\"], hosts: none,\n"
         "  ca: /ca.pem, timeout: 3s, attempts: 1, cache: 3KiB, relay: \"[::1]:53\", queries_per_second: none}\n"),
        "dns: {cache: none, resolv_conf: /x, hosts: /y, service: false, queries_per_second: 4}\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        const struct config *config = load(texts[i]);
        char *first = print(config);
        const struct config *again = load(first);
        char *second = print(again);
        assert_string_equal(first, second);
        free(first);
        free(second);
        config_release(config);
        config_release(again);
    }
}

/* ---- rules ---- */

static struct policy_result check_service(const char *rules, const char *client, const char *asked)
{
    const struct config *config = load(rules);
    struct socks6_addr from, to;

    assert_int_equal(socks6_addr_parse(client, 1234, &from), 0);
    assert_int_equal(socks6_addr_parse(asked, 53, &to), 0);
    socks6_addr_normalize(&from);
    socks6_addr_normalize(&to);
    const struct policy_request request = {.client = &from, .command = SOCKS6_COMMAND_CONNECT, .addr = &to};
    struct policy_result result = policy_check_dns(config->policy, &request);
    config_release(config);
    return result;
}

static void test_rules_say_who_may_use_the_service(void **state)
{
    static const struct {
        const char *rules, *client, *asked;
        enum policy_verdict verdict;
    } cases[] = {
        {"", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
        {"rules: [deny: {to: private}]\n", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
        {"rules: [deny: {to: [loopback, link-local, own]}]\n", "192.0.2.1", "::", POLICY_ALLOW},
        {"rules: [deny: {to: dns}]\n", "192.0.2.1", "0.0.0.0", POLICY_DENY},
        {"rules: [deny: {to: dns}]\n", "192.0.2.1", "::", POLICY_DENY},
        {"rules: [deny: {to: any}]\n", "192.0.2.1", "::", POLICY_DENY},
        {"rules: [deny: {}]\n", "192.0.2.1", "::", POLICY_DENY},
        {"rules: [deny: {to: 0.0.0.0/0}]\n", "192.0.2.1", "0.0.0.0", POLICY_DENY},
        {"rules: [deny: {to: 0.0.0.0/0}]\n", "192.0.2.1", "::", POLICY_ALLOW},
        {"rules: [deny: {to: \"*.example\"}]\n", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
        {"rules: [allow: {to: \"*.example\"}]\n", "192.0.2.1", "0.0.0.0", POLICY_DENY},
        {"rules: [allow: {to: 10.0.0.0/8}]\n", "192.0.2.1", "0.0.0.0", POLICY_DENY},
        {"rules: [allow: {to: dns, from: 192.0.2.0/24}]\n", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
        {"rules: [allow: {to: dns, from: 192.0.2.0/24}]\n", "192.0.3.1", "0.0.0.0", POLICY_DENY},
        {"rules: [deny: {ports: 53}]\n", "192.0.2.1", "0.0.0.0", POLICY_DENY},
        {"rules: [deny: {ports: [1-52, 54-99]}]\n", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
        {"rules: [deny: {commands: connect}]\n", "192.0.2.1", "0.0.0.0", POLICY_DENY},
        {"rules: [deny: {commands: bind}]\n", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
        {"rules: [deny: {users: x}]\n", "192.0.2.1", "0.0.0.0", POLICY_ALLOW},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct policy_result result = check_service(cases[i].rules, cases[i].client, cases[i].asked);
        if (result.verdict != cases[i].verdict) {
            fail_msg("%s%s: %s", cases[i].rules, cases[i].asked, result.why);
        }
        assert_int_equal(result.line != 0, strstr(result.why, "by rule") != NULL);
    }
}

static void test_the_service_word_is_no_address(void **state)
{
    const struct config *config = load("rules: [deny: {to: dns}]\n");
    struct socks6_addr client, to;

    (void)state;
    assert_int_equal(socks6_addr_parse("127.0.0.1", 1, &client), 0);
    assert_int_equal(socks6_addr_parse("192.0.2.1", 53, &to), 0);
    socks6_addr_normalize(&client);
    socks6_addr_normalize(&to);
    struct policy_request request = {.client = &client, .command = SOCKS6_COMMAND_CONNECT, .addr = &to};
    assert_int_equal(policy_check_addr(config->policy, NULL, &request).verdict, POLICY_ALLOW);
    request.name = "dns";
    assert_int_equal(policy_check_name(config->policy, &request).verdict, POLICY_UNDECIDED);
    config_release(config);
}

static void test_a_resolver_for_everybody_must_be_meant(void **state)
{
    struct config_error error;
    const struct config *config;
    const char *open = "listeners: [{address: \"192.0.2.1:1080\"}]\nrules: [allow: {to: dns}]\n";
    const char *bound = "listeners: [{address: \"192.0.2.1:1080\"}]\nrules: [allow: {to: dns, from: 10.0.0.0/8}]\n";

    (void)state;
    assert_int_equal(config_load_memory("f", open, strlen(open), NULL, 0, &config, &error), -1);
    assert_non_null(strstr(error.text, "open to everybody"));
    config_release(load(bound));
}

static void test_names_are_denied_by_rules_that_name_them(void **state)
{
    static const struct {
        const char *rules, *name;
        bool denied, any;
    } cases[] = {
        {"", "www.example", false, false},
        {"rules: [deny: {}]\n", "www.example", false, false},
        {"rules: [deny: {to: any}]\n", "www.example", false, false},
        {"rules: [allow: {to: dns}, deny: {}]\n", "www.example", false, false},
        {"rules: [deny: {to: \"*.example\"}]\n", "www.example", true, true},
        {"rules: [deny: {to: \"*.example\"}]\n", "WWW.Example", true, true},
        {"rules: [deny: {to: \"*.example\"}]\n", "example", false, true},
        {"rules: [deny: {to: www.example}]\n", "www.example", true, true},
        {"rules: [deny: {to: www.example}]\n", "x.www.example", false, true},
        {"rules: [allow: {to: www.example}, deny: {to: \"*.example\"}]\n", "www.example", false, true},
        {"rules: [allow: {to: www.example, ports: 443}, deny: {to: \"*.example\"}]\n", "www.example", false, true},
        {"rules: [allow: {to: www.example, from: 10.0.0.0/8}, deny: {to: \"*.example\"}]\n", "www.example", true, true},
        {"rules: [deny: {to: \"*.example\", ports: 25}]\n", "www.example", false, true},
        {"rules: [deny: {to: \"*.example\", commands: bind}]\n", "www.example", false, true},
        {"rules: [deny: {to: \"*.example\", from: 10.0.0.0/8}]\n", "www.example", false, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct config *config = load(cases[i].rules);
        struct socks6_addr client;
        assert_int_equal(socks6_addr_parse("192.0.2.1", 1, &client), 0);
        socks6_addr_normalize(&client);
        const struct policy_request request = {
            .client = &client, .command = SOCKS6_COMMAND_CONNECT, .name = cases[i].name};
        bool denied = policy_check_dns_name(config->policy, &request).verdict == POLICY_DENY;
        if (denied != cases[i].denied) {
            fail_msg("%s%s", cases[i].rules, cases[i].name);
        }
        assert_int_equal(policy_denies_names(config->policy), cases[i].any);
        config_release(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_key_is_taken),
        cmocka_unit_test(test_words_stand_for_defaults_and_nothing),
        cmocka_unit_test(test_errors_are_exact),
        cmocka_unit_test(test_printed_settings_load_to_the_same),
        cmocka_unit_test(test_rules_say_who_may_use_the_service),
        cmocka_unit_test(test_the_service_word_is_no_address),
        cmocka_unit_test(test_a_resolver_for_everybody_must_be_meant),
        cmocka_unit_test(test_names_are_denied_by_rules_that_name_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
