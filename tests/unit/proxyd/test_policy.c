#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/config_internal.h"
#include "proxyd/local_addrs.h"
#include "proxyd/policy_addr.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The interface addresses of these tests, in place of local_addrs.c. */
struct local_addrs {
    const char *addresses[4];
};

static const struct local_addrs interfaces = {{"192.0.2.7", "127.0.0.1", "2001:db8::7", "fe80::7"}};

static struct socks6_addr ip_addr(const char *text, uint16_t port)
{
    uint8_t bytes[16];

    if (inet_pton(AF_INET, text, bytes) == 1) {
        return socks6_addr_ipv4(bytes, port);
    }
    assert_int_equal(inet_pton(AF_INET6, text, bytes), 1);
    return socks6_addr_ipv6(bytes, port);
}

bool local_addrs_has(const struct local_addrs *local, const struct socks6_addr *addr)
{
    for (size_t i = 0; i < COUNT(local->addresses); i++) {
        struct socks6_addr own = ip_addr(local->addresses[i], addr->port);

        if (addr->type == own.type && addr->len == own.len && memcmp(&addr->u, &own.u, own.len) == 0) {
            return true;
        }
    }
    return false;
}

static const struct config *load(const char *rules)
{
    static char text[4096];
    const struct config *config = NULL;
    struct config_error error = {""};

    (void)snprintf(text, sizeof text, "rules:\n%s", rules);
    if (config_load_memory("rules", text, strlen(text), NULL, 0, &config, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return config;
}

/* One request. Without `client` it comes from 198.51.100.9, which is nobody's; without `command` it is a CONNECT. */
struct query {
    const char *client;
    const char *user;
    const char *name;
    const char *address;
    uint16_t port;
    enum { CONNECT, NOOP, BIND, UDP } command;
};

static const uint8_t commands[] = {SOCKS6_COMMAND_CONNECT, SOCKS6_COMMAND_NOOP, SOCKS6_COMMAND_BIND,
                                   SOCKS6_COMMAND_UDP_ASSOCIATE};

static struct policy_result ask(const struct policy *policy, const struct query *query)
{
    struct socks6_addr client = ip_addr(query->client == NULL ? "198.51.100.9" : query->client, 40000), addr = {0};
    struct policy_request request = {.client = &client,
                                     .user = query->user,
                                     .command = commands[query->command],
                                     .name = query->name,
                                     .addr = &addr};

    if (query->address == NULL) {
        assert_int_equal(socks6_addr_name(query->name, strlen(query->name), query->port, &addr), 1);
        return policy_check_name(policy, &request);
    }
    addr = ip_addr(query->address, query->port);
    return policy_check_addr(policy, &interfaces, &request);
}

struct policy_case {
    struct query query;
    enum policy_verdict verdict;
    unsigned line; /* the first rule stands in line 2 */
    const char *why;
};

static void check(const char *rules, const struct policy_case *cases, size_t count)
{
    const struct config *config = load(rules);

    for (size_t i = 0; i < count; i++) {
        struct policy_result got = ask(config->policy, &cases[i].query);

        if (got.verdict != cases[i].verdict || got.line != cases[i].line || strcmp(got.why, cases[i].why) != 0) {
            fail_msg("case %zu of\n%s: verdict %d, line %u, %s", i, rules, (int)got.verdict, got.line, got.why);
        }
    }
    config_release(config);
}

#define ALLOWED(at) POLICY_ALLOW, (at), "allowed by rule"
#define DENIED(at) POLICY_DENY, (at), "denied by rule"
#define ALLOWED_BY_DEFAULT POLICY_ALLOW, 0, "allowed: no rule denies it"
#define DENIED_BY_DEFAULT POLICY_DENY, 0, "denied: no rule allows it"
#define UNDECIDED POLICY_UNDECIDED, 0, "undecided"
#define PROTECTED(why) POLICY_DENY, 0, (why)
#define CHECK(rules, ...)                                                                                              \
    do {                                                                                                               \
        const struct policy_case cases_[] = {__VA_ARGS__};                                                             \
                                                                                                                       \
        check((rules), cases_, COUNT(cases_));                                                                         \
    } while (0)

/* -- rules on an address -- */

static void test_without_rules_everything_is_allowed(void **state)
{
    (void)state;
    CHECK("", {{.address = "203.0.113.1", .port = 80}, ALLOWED_BY_DEFAULT}, {{.name = "example.org"}, UNDECIDED},
          {{.address = "2001:db8:1::1"}, ALLOWED_BY_DEFAULT}, {{.address = "10.0.0.1"}, ALLOWED_BY_DEFAULT});
}

static void test_first_match_decides(void **state)
{
    (void)state;
    CHECK("  - allow: {to: 10.1.0.0/16}\n"
          "  - deny: {to: 10.0.0.0/8}\n"
          "  - allow: {to: 10.2.0.0/16}\n",
          {{.address = "10.1.2.3"}, ALLOWED(2)}, {{.address = "10.2.2.3"}, DENIED(3)},
          {{.address = "11.0.0.1"}, DENIED_BY_DEFAULT});
    CHECK("  - deny: {to: 10.0.0.0/8}\n", {{.address = "10.1.2.3"}, DENIED(2)},
          {{.address = "9.255.255.255"}, ALLOWED_BY_DEFAULT}, {{.address = "11.0.0.0"}, ALLOWED_BY_DEFAULT});
}

static void test_each_criterion_is_judged(void **state)
{
    (void)state;
    CHECK("  - allow: {users: [bob, alice]}\n", {{.address = "203.0.113.1", .user = "alice"}, ALLOWED(2)},
          {{.address = "203.0.113.1", .user = "bob"}, ALLOWED(2)},
          {{.address = "203.0.113.1", .user = "Alice"}, DENIED_BY_DEFAULT},
          {{.address = "203.0.113.1", .user = "carol"}, DENIED_BY_DEFAULT},
          {{.address = "203.0.113.1"}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {from: [192.0.2.0/24, \"2001:db8:5::/48\"]}\n",
          {{.address = "203.0.113.1", .client = "192.0.2.200"}, ALLOWED(2)},
          {{.address = "203.0.113.1", .client = "::ffff:192.0.2.200"}, ALLOWED(2)},
          {{.address = "203.0.113.1", .client = "192.0.3.0"}, DENIED_BY_DEFAULT},
          {{.address = "203.0.113.1", .client = "2001:db8:5:ffff::1"}, ALLOWED(2)},
          {{.address = "203.0.113.1", .client = "2001:db8:6::"}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {from: 0.0.0.0/0}\n", {{.address = "203.0.113.1", .client = "192.0.2.200"}, ALLOWED(2)},
          {{.address = "203.0.113.1", .client = "2001:db8::1"}, DENIED_BY_DEFAULT});
    CHECK(
        "  - allow: {ports: [443, 8000-8999, 9000-9001, 80]}\n", {{.address = "203.0.113.1", .port = 443}, ALLOWED(2)},
        {{.address = "203.0.113.1", .port = 442}, DENIED_BY_DEFAULT},
        {{.address = "203.0.113.1", .port = 444}, DENIED_BY_DEFAULT},
        {{.address = "203.0.113.1", .port = 8000}, ALLOWED(2)}, {{.address = "203.0.113.1", .port = 8999}, ALLOWED(2)},
        {{.address = "203.0.113.1", .port = 9001}, ALLOWED(2)},
        {{.address = "203.0.113.1", .port = 9002}, DENIED_BY_DEFAULT},
        {{.address = "203.0.113.1", .port = 80}, ALLOWED(2)},
        {{.address = "203.0.113.1", .port = 0}, DENIED_BY_DEFAULT},
        {{.address = "203.0.113.1", .port = 65535}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {ports: [8000-8999, 8100-8200, 8300]}\n", {{.address = "203.0.113.1", .port = 8900}, ALLOWED(2)},
          {{.address = "203.0.113.1", .port = 8999}, ALLOWED(2)},
          {{.address = "203.0.113.1", .port = 9000}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {commands: [bind, udp-associate]}\n",
          {{.address = "203.0.113.1", .command = CONNECT}, DENIED_BY_DEFAULT},
          {{.address = "203.0.113.1", .command = BIND}, ALLOWED(2)},
          {{.address = "203.0.113.1", .command = UDP}, ALLOWED(2)},
          {{.address = "203.0.113.1", .command = NOOP}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {from: 192.0.2.1, to: 203.0.113.1, ports: 80, commands: connect}\n",
          {{.client = "192.0.2.1", .address = "203.0.113.1", .port = 80}, ALLOWED(2)},
          {{.client = "192.0.2.2", .address = "203.0.113.1", .port = 80}, DENIED_BY_DEFAULT},
          {{.client = "192.0.2.1", .address = "203.0.113.2", .port = 80}, DENIED_BY_DEFAULT},
          {{.client = "192.0.2.1", .address = "203.0.113.1", .port = 81}, DENIED_BY_DEFAULT},
          {{.client = "192.0.2.1", .address = "203.0.113.1", .port = 80, .command = BIND}, DENIED_BY_DEFAULT});
}

static const char *first_of(const struct dialer_sources *outgoing)
{
    static char text[SOCKS6_ADDR_TEXT_MAX];

    assert_non_null(outgoing);
    if (outgoing->ipv4_count == 0) {
        return "";
    }
    (void)socks6_addr_format(&outgoing->ipv4[0], text, sizeof text);
    return text;
}

static void test_an_allowed_request_has_its_outgoing_addresses(void **state)
{
    const struct config *config = load("  - allow: {ports: 1, outgoing: 192.0.2.1}\n"
                                       "  - allow: {ports: 2, outgoing: []}\n"
                                       "  - allow: {ports: 3, outgoing: \"2001:db8::1\"}\n"
                                       "  - allow: {ports: 4}\n"
                                       "  - deny: {ports: 5}\n"
                                       "outgoing: 192.0.2.9\n");
    static const char *const expected[] = {"192.0.2.1:0", "", "", "192.0.2.9:0", NULL, "192.0.2.9:0"};

    (void)state;
    for (uint16_t i = 0; i < COUNT(expected); i++) {
        const struct query query = {.address = "203.0.113.1", .port = (uint16_t)(i + 1)};
        struct policy_result got = ask(config->policy, &query);

        if (expected[i] == NULL) {
            assert_int_equal(got.verdict, POLICY_DENY);
            assert_null(got.outgoing);
        } else {
            assert_int_equal(got.verdict, POLICY_ALLOW);
            assert_string_equal(first_of(got.outgoing), expected[i]);
        }
    }
    config_release(config);
}

static void test_names_are_compared_without_case_and_final_dot(void **state)
{
    (void)state;
    CHECK("  - allow: {to: [Example.ORG., \"*.example.COM\"]}\n", {{.name = "example.org"}, UNDECIDED},
          {{.name = "EXAMPLE.org."}, UNDECIDED}, {{.name = "example.org.."}, DENIED_BY_DEFAULT},
          {{.name = "www.example.org"}, DENIED_BY_DEFAULT}, {{.name = "example.com"}, DENIED_BY_DEFAULT},
          {{.name = "a.example.com"}, UNDECIDED}, {{.name = "a.b.C.Example.com."}, UNDECIDED},
          {{.name = "aexample.com"}, DENIED_BY_DEFAULT}, {{.name = "example.com.evil"}, DENIED_BY_DEFAULT},
          {{.name = "."}, DENIED_BY_DEFAULT}, {{.name = "example.org", .address = "203.0.113.1"}, ALLOWED(2)},
          {{.name = "example.net", .address = "203.0.113.1"}, DENIED_BY_DEFAULT},
          {{.address = "203.0.113.1"}, DENIED_BY_DEFAULT});
}

static void test_keywords_hold_their_networks(void **state)
{
    static const char *const inside[] = {
        "10.0.0.1",        "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.9.9",     "100.64.0.1",
        "100.127.255.255", "fc00::1",        "fdff::1",    "fec0::1",        "127.0.0.1",       "::1",
        "169.254.1.1",     "fe80::1",        "192.0.2.7",  "2001:db8::7",    "::ffff:10.0.0.1",
    };
    static const char *const outside[] = {
        "9.255.255.255",   "11.0.0.0",       "172.15.255.255", "172.32.0.0",  "192.167.255.255",
        "192.169.0.0",     "100.63.255.255", "100.128.0.0",    "fbff::1",     "fe00::1",
        "126.255.255.255", "128.0.0.0",      "192.0.2.8",      "2001:db8::8", "::ffff:11.0.0.1",
    };
    const struct config *config = load("  - deny: {to: private}\n");

    (void)state;
    for (size_t i = 0; i < COUNT(inside); i++) {
        /* From loopback, where nothing is protected. */
        struct policy_result got = ask(config->policy, &(struct query){.client = "127.0.0.1", .address = inside[i]});

        if (got.verdict != POLICY_DENY || got.line != 2) {
            fail_msg("%s is not private", inside[i]);
        }
    }
    for (size_t i = 0; i < COUNT(outside); i++) {
        struct policy_result got = ask(config->policy, &(struct query){.client = "::1", .address = outside[i]});

        if (got.verdict != POLICY_ALLOW) {
            fail_msg("%s is private", outside[i]);
        }
    }
    config_release(config);
    CHECK("  - deny: {to: loopback}\n", {{.client = "127.9.9.9", .address = "127.255.0.1"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "::1"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "::ffff:127.0.0.1"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "10.0.0.1"}, ALLOWED_BY_DEFAULT},
          {{.client = "127.9.9.9", .address = "169.254.0.1"}, ALLOWED_BY_DEFAULT});
    CHECK("  - deny: {to: link-local}\n", {{.client = "127.9.9.9", .address = "169.254.169.254"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "fe80::1"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "febf:ffff::1"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "fd00:ec2::254"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "168.63.129.16"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "168.63.129.17"}, ALLOWED_BY_DEFAULT},
          {{.client = "127.9.9.9", .address = "fd00:ec2::255"}, ALLOWED_BY_DEFAULT},
          {{.client = "127.9.9.9", .address = "169.253.255.255"}, ALLOWED_BY_DEFAULT});
    CHECK("  - deny: {to: own}\n", {{.client = "127.9.9.9", .address = "192.0.2.7"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "2001:db8::7"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "fe80::7"}, DENIED(2)},
          {{.client = "127.9.9.9", .address = "127.0.0.1"}, ALLOWED_BY_DEFAULT},
          {{.client = "127.9.9.9", .address = "192.0.2.8"}, ALLOWED_BY_DEFAULT});
    CHECK("  - deny: {to: any}\n  - allow: {}\n", {{.address = "203.0.113.1"}, DENIED(2)},
          {{.name = "x.org"}, DENIED(2)}, {{.address = "2001:db8::9"}, DENIED(2)});
}

static void test_a_noop_has_no_destination(void **state)
{
    struct socks6_addr client = ip_addr("198.51.100.9", 1);
    struct policy_request request = {.client = &client, .command = SOCKS6_COMMAND_NOOP};
    const struct config *config =
        load("  - deny: {to: any}\n  - deny: {ports: 1-65535}\n  - allow: {commands: noop}\n");

    (void)state;
    assert_int_equal(policy_check_addr(config->policy, NULL, &request).verdict, POLICY_ALLOW);
    assert_int_equal(policy_check_addr(config->policy, NULL, &request).line, 4);
    config_release(config);
    CHECK("", {{.address = "0.0.0.0", .command = NOOP}, ALLOWED_BY_DEFAULT},
          {{.address = "127.0.0.1", .command = NOOP}, ALLOWED_BY_DEFAULT}, {{.name = "x", .command = NOOP}, UNDECIDED});
    CHECK("  - deny: {ports: 80}\n", {{.address = "203.0.113.1", .port = 80, .command = NOOP}, ALLOWED_BY_DEFAULT});
    CHECK("  - allow: {to: any}\n", {{.address = "0.0.0.0", .command = NOOP}, DENIED_BY_DEFAULT},
          {{.name = "x", .command = NOOP}, DENIED_BY_DEFAULT});
}

/* -- rules on a name that is not resolved yet -- */

static void test_a_name_that_no_address_could_allow_is_denied(void **state)
{
    (void)state;
    /* A deny rule on networks may match or not: what follows it decides what is still possible. */
    CHECK("  - deny: {to: [10.0.0.0/8, \"*.bad.org\"]}\n", {{.name = "good.org"}, UNDECIDED},
          {{.name = "x.bad.org"}, DENIED(2)});
    CHECK("  - deny: {to: 10.0.0.0/8}\n  - deny: {to: x.org}\n  - allow: {}\n", {{.name = "x.org"}, DENIED(3)},
          {{.name = "y.org"}, UNDECIDED});
    CHECK("  - allow: {to: 10.0.0.0/8}\n", {{.name = "x.org"}, UNDECIDED});
    CHECK("  - allow: {to: own}\n", {{.name = "x.org"}, UNDECIDED});
    /* The allow rule on networks comes too late, or is bound to something else. */
    CHECK("  - deny: {to: x.org}\n  - allow: {to: 10.0.0.0/8}\n", {{.name = "x.org"}, DENIED(2)},
          {{.name = "y.org"}, UNDECIDED});
    CHECK("  - allow: {to: 10.0.0.0/8, ports: 443}\n", {{.name = "x.org", .port = 443}, UNDECIDED},
          {{.name = "x.org", .port = 80}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {to: 10.0.0.0/8, from: 192.0.2.0/24}\n", {{.name = "x.org", .client = "192.0.2.1"}, UNDECIDED},
          {{.name = "x.org"}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {to: 10.0.0.0/8, users: alice}\n", {{.name = "x.org", .user = "alice"}, UNDECIDED},
          {{.name = "x.org"}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {to: 10.0.0.0/8, commands: connect}\n", {{.name = "x.org"}, UNDECIDED},
          {{.name = "x.org", .command = BIND}, DENIED_BY_DEFAULT});
    /* Everything there is is denied, in one family after the other. */
    CHECK("  - deny: {to: 0.0.0.0/0}\n  - allow: {}\n", {{.name = "x.org"}, UNDECIDED});
    CHECK("  - deny: {to: 0.0.0.0/0}\n  - deny: {to: \"::/0\"}\n  - allow: {}\n", {{.name = "x.org"}, DENIED(2)});
    CHECK("  - deny: {to: [0.0.0.0/1, 128.0.0.0/1, \"::/0\"]}\n  - allow: {}\n", {{.name = "x.org"}, DENIED(2)});
    CHECK("  - deny: {to: 0.0.0.0/0}\n  - allow: {to: 10.0.0.0/8}\n", {{.name = "x.org"}, DENIED(2)});
    CHECK("  - deny: {to: 0.0.0.0/0}\n  - allow: {to: \"2001:db8::/32\"}\n", {{.name = "x.org"}, UNDECIDED});
    CHECK("  - deny: {}\n  - allow: {}\n", {{.name = "x.org"}, DENIED(2)});
}

static void test_an_address_is_judged_with_the_name_it_came_from(void **state)
{
    (void)state;
    CHECK("  - allow: {to: [intern.example.org]}\n  - deny: {to: 10.0.0.0/8}\n  - allow: {}\n",
          {{.name = "intern.example.org", .address = "10.0.0.1"}, ALLOWED(2)},
          {{.name = "rebind.example.org", .address = "10.0.0.1"}, DENIED(3)}, {{.address = "10.0.0.1"}, DENIED(3)},
          {{.name = "rebind.example.org", .address = "203.0.113.1"}, ALLOWED(4)});
}

/* -- protection of the proxy's own network -- */

static const struct {
    const char *address;
    const char *why;
} protected[] = {
    {"127.0.0.1", "denied: loopback"},
    {"127.255.255.254", "denied: loopback"},
    {"::1", "denied: loopback"},
    {"::ffff:127.0.0.1", "denied: loopback"},
    {"169.254.169.254", "denied: link-local"},
    {"fe80::1", "denied: link-local"},
    {"168.63.129.16", "denied: link-local"},
    {"100.100.100.200", "denied: link-local"},
    {"fd00:ec2::254", "denied: link-local"},
    {"fd00:ec2::23", "denied: link-local"},
    {"fd20:ce::254", "denied: link-local"},
    {"fd00:42::42", "denied: link-local"},
    {"192.0.2.7", "denied: own address"},
    {"2001:db8::7", "denied: own address"},
    {"::ffff:192.0.2.7", "denied: own address"},
    /* by what they embed */
    {"64:ff9b::127.0.0.1", "denied: loopback"},
    {"64:ff9b::169.254.169.254", "denied: link-local"},
    {"64:ff9b::192.0.2.7", "denied: own address"},
    {"64:ff9b:1::127.0.0.1", "denied: loopback"},
    {"64:ff9b:1:7f00:0:100::", "denied: loopback"},
    {"64:ff9b:1:7f:0:1::", "denied: loopback"},
    {"64:ff9b:1:0:7f:0:100:0", "denied: loopback"},
    {"2002:7f00:1::", "denied: loopback"},
    {"2002:a9fe:a9fe::1", "denied: link-local"},
    {"2002:c000:207::1", "denied: own address"},
    {"2001:0:7f00:1::34ff:8efe", "denied: loopback"},
    {"2001:0:cb00:7101:0:0:80ff:fffe", "denied: loopback"},
    {"::127.0.0.1", "denied: loopback"},
    {"::ffff:0:127.0.0.1", "denied: loopback"},
};

static void test_clients_elsewhere_do_not_reach_the_proxys_own_network(void **state)
{
    static const char *const rules[] = {
        "",
        "  - allow: {}\n",
        "  - allow: {to: any}\n",
        "  - allow: {to: [0.0.0.0/0, \"::/0\"]}\n",
        "  - allow: {to: [\"*.example.org\", www.example.org]}\n",
        "  - allow: {to: private}\n  - allow: {to: any}\n",
        "  - deny: {to: 203.0.112.0/24}\n",
        "  - allow: {from: 198.51.100.0/24, ports: 1-65535, commands: connect}\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rules); i++) {
        const struct config *config = load(rules[i]);

        for (size_t j = 0; j < COUNT(protected); j++) {
            struct query query = {.name = "www.example.org", .address = protected[j].address, .port = 80};
            struct policy_result got = ask(config->policy, &query);

            if (got.verdict != POLICY_DENY || got.line != 0 || strcmp(got.why, protected[j].why) != 0) {
                fail_msg("%s by\n%s: verdict %d, %s", protected[j].address, rules[i], (int)got.verdict, got.why);
            }
        }
        config_release(config);
    }
}

static void test_clients_on_loopback_reach_it(void **state)
{
    static const char *const clients[] = {"127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"};
    const struct config *config = load("");

    (void)state;
    for (size_t i = 0; i < COUNT(clients); i++) {
        for (size_t j = 0; j < COUNT(protected); j++) {
            struct query query = {.client = clients[i], .address = protected[j].address, .port = 80};

            if (ask(config->policy, &query).verdict != POLICY_ALLOW) {
                fail_msg("%s from %s", protected[j].address, clients[i]);
            }
        }
    }
    config_release(config);
    /* An own address is not loopback. */
    CHECK("", {{.client = "192.0.2.7", .address = "127.0.0.1"}, PROTECTED("denied: loopback")},
          {{.client = "64:ff9b::127.0.0.1", .address = "127.0.0.1"}, PROTECTED("denied: loopback")});
}

static void test_a_rule_that_names_the_network_lifts_the_protection(void **state)
{
    (void)state;
    CHECK("  - allow: {to: [loopback, x.org]}\n", {{.address = "127.0.0.1"}, ALLOWED(2)},
          {{.address = "::1"}, ALLOWED(2)}, {{.address = "169.254.0.1"}, DENIED_BY_DEFAULT},
          {{.name = "x.org", .address = "127.0.0.1"}, ALLOWED(2)},
          {{.name = "x.org", .address = "169.254.0.1"}, PROTECTED("denied: link-local")});
    CHECK("  - allow: {to: [own, any]}\n", {{.address = "192.0.2.7"}, ALLOWED(2)},
          {{.address = "2001:db8::7"}, ALLOWED(2)}, {{.address = "127.0.0.1"}, PROTECTED("denied: loopback")},
          {{.address = "fe80::1"}, PROTECTED("denied: link-local")}, {{.address = "fe80::7"}, ALLOWED(2)});
    CHECK("  - allow: {to: [link-local, 0.0.0.0/0]}\n", {{.address = "169.254.169.254"}, ALLOWED(2)},
          {{.address = "168.63.129.16"}, ALLOWED(2)}, {{.address = "192.0.2.7"}, PROTECTED("denied: own address")});
    CHECK("  - allow: {to: [192.0.2.7, 127.0.0.8/31, any]}\n", {{.address = "192.0.2.7"}, ALLOWED(2)},
          {{.address = "127.0.0.9"}, ALLOWED(2)}, {{.address = "127.0.0.10"}, PROTECTED("denied: loopback")});
    /* Only the rule that decides counts. */
    CHECK("  - allow: {ports: 80}\n  - allow: {to: loopback}\n",
          {{.address = "127.0.0.1", .port = 80}, PROTECTED("denied: loopback")},
          {{.address = "127.0.0.1", .port = 81}, ALLOWED(3)});
    CHECK("  - deny: {to: loopback}\n  - allow: {to: loopback}\n", {{.address = "127.0.0.1"}, DENIED(2)});
}

static void test_an_embedded_address_needs_to_be_named_itself(void **state)
{
    (void)state;
    /* A deny rule matches by what is embedded; an allow rule does not, and lifts nothing from it. */
    CHECK("  - deny: {to: 10.0.0.0/8}\n", {{.address = "64:ff9b::10.0.0.1"}, DENIED(2)},
          {{.address = "2002:a00:1::"}, DENIED(2)}, {{.address = "64:ff9b::11.0.0.1"}, ALLOWED_BY_DEFAULT},
          {{.address = "2001:0:cb00:7101::f5ff:fffe"}, DENIED(2)});
    CHECK("  - deny: {to: \"64:ff9b::/96\"}\n", {{.address = "64:ff9b::11.0.0.1"}, DENIED(2)},
          {{.address = "11.0.0.1"}, ALLOWED_BY_DEFAULT});
    CHECK("  - deny: {to: private}\n", {{.address = "64:ff9b::10.0.0.1"}, DENIED(2)},
          {{.address = "2002:7f00:1::"}, DENIED(2)});
    CHECK("  - allow: {to: 203.0.113.0/24}\n", {{.address = "64:ff9b::203.0.113.1"}, DENIED_BY_DEFAULT});
    CHECK("  - allow: {to: \"64:ff9b::/96\"}\n", {{.address = "64:ff9b::203.0.113.1"}, ALLOWED(2)},
          {{.address = "64:ff9b::127.0.0.1"}, PROTECTED("denied: loopback")});
    CHECK("  - allow: {to: [\"64:ff9b::/96\", loopback]}\n", {{.address = "64:ff9b::127.0.0.1"}, ALLOWED(2)});
    CHECK("  - allow: {to: \"64:ff9b::127.0.0.1\"}\n",
          {{.address = "64:ff9b::127.0.0.1"}, PROTECTED("denied: loopback")});
}

static void test_some_addresses_are_never_dialled(void **state)
{
    static const struct {
        const char *address;
        const char *why;
    } never[] = {
        {"0.0.0.0", "denied: unspecified"},
        {"0.1.2.3", "denied: unspecified"},
        {"::", "denied: unspecified"},
        {"::ffff:0.0.0.0", "denied: unspecified"},
        {"224.0.0.1", "denied: multicast"},
        {"239.255.255.255", "denied: multicast"},
        {"ff02::1", "denied: multicast"},
        {"255.255.255.255", "denied: broadcast"},
        {"64:ff9b::", "denied: unspecified"},
        {"64:ff9b::224.0.0.1", "denied: multicast"},
        {"2002:e000:1::", "denied: multicast"},
        {"::0.0.0.2", "denied: unspecified"},
        {"2002:ffff:ffff::1", "denied: broadcast"},
    };
    const struct config *config =
        load("  - allow: {to: [any, 0.0.0.0/8, \"::\", \"ff00::/8\", 224.0.0.0/3, loopback, private, link-local]}\n");

    (void)state;
    for (size_t i = 0; i < COUNT(never); i++) {
        for (int local = 0; local < 2; local++) {
            struct query query = {.client = local ? "127.0.0.1" : NULL, .address = never[i].address};
            struct policy_result got = ask(config->policy, &query);

            if (got.verdict != POLICY_DENY || got.line != 0 || strcmp(got.why, never[i].why) != 0) {
                fail_msg("%s: verdict %d, %s", never[i].address, (int)got.verdict, got.why);
            }
        }
    }
    /* 240.0.0.0/4 but its last address is just unused. */
    assert_int_equal(ask(config->policy, &(struct query){.address = "240.0.0.1"}).verdict, POLICY_ALLOW);
    assert_int_equal(ask(config->policy, &(struct query){.address = "1.0.0.0"}).verdict, POLICY_ALLOW);
    config_release(config);
}

static void test_without_interface_addresses_none_is_own(void **state)
{
    struct socks6_addr client = ip_addr("198.51.100.9", 1), addr = ip_addr("192.0.2.7", 80);
    struct policy_request request = {.client = &client, .command = SOCKS6_COMMAND_CONNECT, .addr = &addr};
    const struct config *config = load("");

    (void)state;
    assert_int_equal(policy_check_addr(config->policy, NULL, &request).verdict, POLICY_ALLOW);
    config_release(config);
}

static void test_a_name_in_place_of_an_address_is_denied(void **state)
{
    struct socks6_addr client = ip_addr("127.0.0.1", 1), addr;
    struct policy_request request = {.client = &client, .command = SOCKS6_COMMAND_CONNECT, .addr = &addr};
    const struct config *config = load("");

    (void)state;
    assert_int_equal(socks6_addr_name("x.org", 5, 80, &addr), 1);
    assert_int_equal(policy_check_addr(config->policy, NULL, &request).verdict, POLICY_DENY);
    request.addr = NULL;
    assert_int_equal(policy_check_addr(config->policy, NULL, &request).verdict, POLICY_DENY);
    config_release(config);
}

/* -- what an address embeds -- */

static void test_embedded_addresses_are_found(void **state)
{
    static const struct {
        const char *address;
        const char *embedded[POLICY_EMBEDDED_MAX + 1];
    } cases[] = {
        {"192.0.2.1", {0}},
        {"2001:db8::1", {0}},
        {"::", {0}},
        {"::1", {0}},
        {"::192.0.2.1", {"192.0.2.1"}},
        {"::1:192.0.2.1", {0}},
        {"::ffff:0:192.0.2.1", {"192.0.2.1"}},
        {"64:ff9b::192.0.2.1", {"192.0.2.1"}},
        {"64:ff9b::1:192.0.2.1", {0}},
        {"64:ff9c::192.0.2.1", {0}},
        /* RFC 6052, section 2.4, with our prefix in place of its own; some can be read in two ways. */
        {"64:ff9b:1:c000:2:2100::", {"192.0.2.33", "2.33.0.0"}},
        {"64:ff9b:1:c0:0:221::", {"192.0.2.33"}},
        {"64:ff9b:1:aa:c0:2:2100::", {"192.0.2.33", "33.0.0.0"}},
        {"64:ff9b:1:aa::192.0.2.33", {"192.0.2.33"}},
        /* Bits 64 to 71 are not zero: no such address. */
        {"64:ff9b:1:c000:102:2100::", {0}},
        {"2002:c000:201::1", {"192.0.2.1"}},
        {"2003:c000:201::1", {0}},
        {"2001:0:4136:e378:8000:63bf:3fff:fdd2", {"65.54.227.120", "192.0.2.45"}},
        {"2001:1::", {0}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct socks6_addr addr = ip_addr(cases[i].address, 0);
        struct policy_addr found;
        size_t expected = 0;
        struct ip ip;

        assert_true(ip_from_addr(&addr, &ip));
        found = policy_addr_from_ip(&ip);
        assert_true(ip_equal(&found.all[0], &ip));
        for (; cases[i].embedded[expected] != NULL; expected++) {
            bool there = false;
            struct ip want;

            addr = ip_addr(cases[i].embedded[expected], 0);
            assert_true(ip_from_addr(&addr, &want));
            for (size_t j = 1; j < found.count; j++) {
                there = there || ip_equal(&found.all[j], &want);
            }
            if (!there) {
                fail_msg("%s: %s is not found", cases[i].address, cases[i].embedded[expected]);
            }
        }
        if (found.count != expected + 1) {
            fail_msg("%s: %zu embedded", cases[i].address, found.count - 1);
        }
    }
}

/* -- open to everybody -- */

static void test_open_means_any_client_and_any_destination(void **state)
{
    static const struct {
        const char *rules;
        bool open;
    } cases[] = {
        {"", true},
        {"  - allow: {}\n", true},
        {"  - allow: {to: any}\n", true},
        {"  - allow: {ports: 443}\n", true},
        {"  - allow: {commands: connect}\n", true},
        {"  - allow: {commands: [noop, connect]}\n", true},
        {"  - allow: {commands: noop}\n", false},
        {"  - allow: {from: 0.0.0.0/0}\n", true},
        {"  - allow: {from: \"::/0\"}\n", true},
        {"  - allow: {from: [10.0.0.0/8, 0.0.0.0/0]}\n", true},
        {"  - allow: {from: [0.0.0.0/1, 128.0.0.0/1]}\n", true},
        {"  - allow: {to: 0.0.0.0/0}\n", true},
        {"  - allow: {to: \"::/0\"}\n", true},
        {"  - allow: {to: [x.org, \"::/0\"]}\n", true},
        {"  - allow: {from: 10.0.0.0/8}\n", false},
        {"  - allow: {from: 10.0.0.0/8, to: any}\n", false},
        {"  - allow: {to: 203.0.113.1}\n", false},
        {"  - allow: {to: \"*.org\"}\n", false},
        {"  - allow: {to: private}\n", false},
        {"  - allow: {users: alice}\n", false},
        /* What no rule matches is the opposite of the last. */
        {"  - deny: {to: private}\n", true},
        {"  - deny: {from: 10.0.0.0/8}\n", true},
        {"  - deny: {}\n", false},
        {"  - deny: {to: any}\n", false},
        {"  - deny: {ports: 25}\n", true},
        {"  - deny: {commands: connect}\n", true},
        {"  - deny: {users: alice}\n", true},
        {"  - deny: {to: 0.0.0.0/0}\n", true},
        {"  - deny: {to: [0.0.0.0/0, \"::/0\"]}\n", false},
        {"  - deny: {from: 0.0.0.0/0}\n", true},
        {"  - deny: {from: [0.0.0.0/0, \"::/0\"]}\n", false},
        {"  - deny: {from: 0.0.0.0/0}\n  - deny: {from: \"::/0\"}\n", false},
        /* A rule that denies everything ends the walk, before it does not. */
        {"  - deny: {}\n  - allow: {}\n", false},
        {"  - allow: {from: 10.0.0.0/8}\n  - deny: {}\n  - allow: {}\n", false},
        {"  - allow: {}\n  - deny: {}\n", true},
        {"  - allow: {from: 10.0.0.0/8}\n  - allow: {to: x.org}\n  - allow: {ports: 80}\n", true},
        {"  - deny: {from: 0.0.0.0/0}\n  - allow: {from: 0.0.0.0/0}\n", false},
        {"  - deny: {from: 0.0.0.0/0}\n  - allow: {}\n", true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct config *config = load(cases[i].rules);

        if (policy_is_open(config->policy) != cases[i].open) {
            fail_msg("%sis %s", cases[i].rules, cases[i].open ? "not open" : "open");
        }
        config_release(config);
    }
}

/* -- sets -- */

static struct net net_of(const char *text)
{
    char why[CONFIG_WHY_MAX];
    struct net net;

    if (!net_parse(text, &net, why)) {
        fail_msg("%s", why);
    }
    return net;
}

static struct ip ip_of(const char *text)
{
    struct socks6_addr addr = ip_addr(text, 0);
    struct ip ip;

    assert_true(ip_from_addr(&addr, &ip));
    return ip;
}

static void test_sets_join_what_touches(void **state)
{
    static const char *const nets[] = {"10.1.0.0/16",
                                       "10.0.0.0/16",
                                       "10.0.5.0/24",
                                       "192.0.2.1",
                                       "192.0.2.3",
                                       "192.0.2.2",
                                       "2001:db8::/33",
                                       "2001:db8:8000::/33",
                                       "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                                       "255.255.255.255",
                                       "::ffff:ffff:ffff:ffff:ffff",
                                       "0:0:0:1::"};
    struct netset set = {0};

    (void)state;
    assert_true(netset_is_empty(&set));
    for (size_t i = 0; i < COUNT(nets); i++) {
        struct net net = net_of(nets[i]);

        assert_int_equal(netset_add(&set, &net), 0);
    }
    netset_finish(&set);
    assert_false(netset_is_empty(&set));
    assert_int_equal(set.ranges[NET_IPV4].count, 3);
    assert_int_equal(set.ranges[NET_IPV6].count, 4);
    for (size_t i = 0; i < COUNT(nets); i++) {
        struct net net = net_of(nets[i]);

        assert_true(netset_has(&set, &net.ip));
    }
    assert_true(netset_has(&set, &(struct ip){NET_IPV4, 0, 0x0a01ffff}));
    assert_false(netset_has(&set, &(struct ip){NET_IPV4, 0, 0x0a020000}));
    assert_false(netset_has(&set, &(struct ip){NET_IPV4, 0, 0x09ffffff}));
    assert_false(netset_has(&set, &(struct ip){NET_IPV4, 0, 0xc0000204}));
    netset_done(&set);
}

static void test_a_set_of_thousands_answers_as_its_networks_do(void **state)
{
    struct netset set = {0};
    uint32_t seed = 12345;
    static struct net nets[2000];

    (void)state;
    for (size_t i = 0; i < COUNT(nets); i++) {
        seed = seed * 1664525 + 1013904223;
        nets[i] = net_mask((struct ip){NET_IPV4, 0, seed >> 8 | 0x10000000}, 17 + seed % 16);
        assert_int_equal(netset_add(&set, &nets[i]), 0);
    }
    netset_finish(&set);
    for (size_t i = 0; i < 5000; i++) {
        struct ip ip = {.family = NET_IPV4};
        bool expected = false;

        seed = seed * 1664525 + 1013904223;
        ip.lo = seed >> 8 | 0x10000000;
        for (size_t j = 0; j < COUNT(nets); j++) {
            expected = expected || net_has(&nets[j], &ip);
        }
        assert_int_equal(netset_has(&set, &ip), expected);
    }
    netset_done(&set);
}

static void test_all_of_a_family_names_no_network(void **state)
{
    struct net everything = net_of("0.0.0.0/0"), part = net_of("10.0.0.0/8");
    struct ip inside = ip_of("10.0.0.1"), outside = ip_of("11.0.0.1"), other = ip_of("2001:db8::1");
    struct netset set = {0};

    (void)state;
    assert_int_equal(netset_add(&set, &everything), 0);
    assert_int_equal(netset_add(&set, &part), 0);
    netset_finish(&set);
    assert_true(netset_has(&set, &inside) && netset_has(&set, &outside));
    assert_true(netset_names(&set, &inside));
    assert_false(netset_names(&set, &outside));
    assert_false(netset_has(&set, &other));
    netset_done(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_rules_everything_is_allowed),
        cmocka_unit_test(test_first_match_decides),
        cmocka_unit_test(test_each_criterion_is_judged),
        cmocka_unit_test(test_an_allowed_request_has_its_outgoing_addresses),
        cmocka_unit_test(test_names_are_compared_without_case_and_final_dot),
        cmocka_unit_test(test_keywords_hold_their_networks),
        cmocka_unit_test(test_a_noop_has_no_destination),
        cmocka_unit_test(test_a_name_that_no_address_could_allow_is_denied),
        cmocka_unit_test(test_an_address_is_judged_with_the_name_it_came_from),
        cmocka_unit_test(test_clients_elsewhere_do_not_reach_the_proxys_own_network),
        cmocka_unit_test(test_clients_on_loopback_reach_it),
        cmocka_unit_test(test_a_rule_that_names_the_network_lifts_the_protection),
        cmocka_unit_test(test_an_embedded_address_needs_to_be_named_itself),
        cmocka_unit_test(test_some_addresses_are_never_dialled),
        cmocka_unit_test(test_without_interface_addresses_none_is_own),
        cmocka_unit_test(test_a_name_in_place_of_an_address_is_denied),
        cmocka_unit_test(test_embedded_addresses_are_found),
        cmocka_unit_test(test_open_means_any_client_and_any_destination),
        cmocka_unit_test(test_sets_join_what_touches),
        cmocka_unit_test(test_a_set_of_thousands_answers_as_its_networks_do),
        cmocka_unit_test(test_all_of_a_family_names_no_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
