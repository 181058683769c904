/* Names for programs: what getaddrinfo(3) and getnameinfo(3) would say, over a proxy whose answers are scripted. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"
#include "names.h"

static struct names names;

static const char hosts_text[] = "127.0.0.1 localhost\n"
                                 "192.0.2.7 printer.lan printer\n"
                                 "2001:db8::7 printer.lan\n"
                                 "192.0.2.8 only4\n";

static const struct names_row zone[] = {
    {"www.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.1", 0},
    {"www.example.", DNS_TYPE_AAAA, ROW_ADDR, "2001:db8::1", 0},
    {"many.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.2", 0},
    {"many.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.3", 0},
    {"many.example.", DNS_TYPE_AAAA, ROW_NODATA, NULL, 0},
    {"nothing.example.", 0, ROW_NODATA, NULL, 0},
    {"alias.example.", 0, ROW_CNAME, "more.example.", 0},
    {"more.example.", 0, ROW_CNAME, "www.example.", 0},
    {"chased.example.", 0, ROW_BARE_CNAME, "alias.example.", 0},
    {"loop.example.", 0, ROW_BARE_CNAME, "loop.example.", 0},
    {"dangling.example.", 0, ROW_BARE_CNAME, "nobody.example.", 0},
    {"evil.example.", 0, ROW_CNAME, "$(reboot).example.", 0},
    {"$(reboot).example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.66", 0},
    {"failing.example.", 0, ROW_RCODE, NULL, DNS_RCODE_SERVFAIL},
    {"refused.example.", 0, ROW_RCODE, NULL, DNS_RCODE_REFUSED},
    {"formerr.example.", 0, ROW_RCODE, NULL, DNS_RCODE_FORMERR},
    {"junk.example.", 0, ROW_JUNK, NULL, 0},
    {"half.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.9", 0},
    {"half.example.", DNS_TYPE_AAAA, ROW_RCODE, NULL, DNS_RCODE_SERVFAIL},
    {"slow6.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.10", 0},
    {"slow6.example.", DNS_TYPE_AAAA, ROW_SILENT, NULL, 0},
    {"silent.example.", 0, ROW_SILENT, NULL, 0},
    {"gone.example.", 0, ROW_UNREACHABLE, NULL, 0},
    {"short.corp.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.20", 0},
    {"both.corp.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.21", 0},
    {"both.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.22", 0},
    {"empty.corp.example.", 0, ROW_NODATA, NULL, 0},
    {"broken.corp.example.", 0, ROW_RCODE, NULL, DNS_RCODE_SERVFAIL},
    {"broken.lab.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.23", 0},
    {"denied.corp.example.", 0, ROW_RCODE, NULL, DNS_RCODE_REFUSED},
    {"denied.lab.example.", DNS_TYPE_A, ROW_ADDR, "192.0.2.24", 0},
    {"tld.", DNS_TYPE_A, ROW_ADDR, "192.0.2.25", 0},
    {"1.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_PTR, "www.example.", 0},
    {"1.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_PTR, "web.example.", 0},
    {"2.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_CNAME, "2.sub.2.0.192.in-addr.arpa.", 0},
    {"2.sub.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_PTR, "classless.example.", 0},
    {"3.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_BARE_CNAME, "2.sub.2.0.192.in-addr.arpa.", 0},
    {"4.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_PTR, "`reboot`.example.", 0},
    {"5.2.0.192.in-addr.arpa.", DNS_TYPE_PTR, ROW_RCODE, NULL, DNS_RCODE_SERVFAIL},
    {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", DNS_TYPE_PTR, ROW_PTR, "six.example.",
     0},
    {NULL, 0, 0, NULL, 0},
};

static int open_world(void **state)
{
    (void)state;
    names_zone = zone;
    names_open(&names, hosts_text, "nameserver 192.0.2.53\nsearch corp.example lab.example\n", false);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    names_close(&names);
    return 0;
}

#define ASSERT_RESOLVES(name, family, text) assert_string_equal(names_resolve(&names, name, family, 0), text)

/* ---- RUN_RESOLVE ---- */

static void test_both_families_come_with_ipv6_first(void **state)
{
    (void)state;
    ASSERT_RESOLVES("www.example", AF_UNSPEC, "2001:db8::1 192.0.2.1 =www.example");
    assert_string_equal(names_asked, "www.example./28 www.example./1");
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    ASSERT_RESOLVES("www.example.", AF_INET6, "2001:db8::1 =www.example");
    assert_int_equal(names_asked_count, 2); /* the cache had the others */
    ASSERT_RESOLVES("many.example", AF_UNSPEC, "192.0.2.2 192.0.2.3 =many.example");
}

static void test_one_family_is_asked_for_alone(void **state)
{
    (void)state;
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    assert_string_equal(names_asked, "www.example./1");
}

static void test_ipv6_comes_last_while_the_proxy_has_no_way_to_it(void **state)
{
    (void)state;
    run_names_connected(names.run, AF_INET6, false);
    ASSERT_RESOLVES("www.example", AF_UNSPEC, "192.0.2.1 2001:db8::1 =www.example");
    run_names_connected(names.run, AF_INET, true);
    ASSERT_RESOLVES("www.example", AF_UNSPEC, "192.0.2.1 2001:db8::1 =www.example");
    run_names_connected(names.run, AF_INET6, true);
    ASSERT_RESOLVES("www.example", AF_UNSPEC, "2001:db8::1 192.0.2.1 =www.example");
}

static const char *with_addrconfig(const char *name, uint16_t family)
{
    harness_advance(1100); /* so that the machine is looked at again */
    return names_resolve(&names, name, family, RUN_RESOLVE_ADDRCONFIG);
}

static void test_addrconfig_leaves_out_a_family_that_the_machine_has_not(void **state)
{
    (void)state;
    assert_string_equal(with_addrconfig("www.example", AF_UNSPEC), "2001:db8::1 192.0.2.1 =www.example");
    names_has_ipv6 = false;
    assert_string_equal(with_addrconfig("www.example", AF_UNSPEC), "192.0.2.1 =www.example");
    assert_string_equal(with_addrconfig("www.example", AF_INET6), "2001:db8::1 =www.example"); /* there is no other */
    ASSERT_RESOLVES("www.example", AF_UNSPEC, "2001:db8::1 192.0.2.1 =www.example");
    names_has_ipv4 = false;
    assert_string_equal(with_addrconfig("www.example", AF_UNSPEC), "2001:db8::1 192.0.2.1 =www.example");
    names_has_ipv6 = true;
    assert_string_equal(with_addrconfig("www.example", AF_UNSPEC), "2001:db8::1 =www.example");
    assert_string_equal(with_addrconfig("many.example", AF_UNSPEC), "192.0.2.2 192.0.2.3 =many.example");
}

static void test_aliases_are_followed_to_the_canonical_name(void **state)
{
    (void)state;
    ASSERT_RESOLVES("alias.example", AF_UNSPEC, "2001:db8::1 192.0.2.1 =www.example");
    ASSERT_RESOLVES("chased.example", AF_INET, "192.0.2.1 =www.example");
    ASSERT_RESOLVES("loop.example.", AF_INET, "EAI_AGAIN");
    ASSERT_RESOLVES("dangling.example.", AF_INET, "EAI_NONAME");
}

static void test_canonical_name_that_is_no_host_name_is_not_told(void **state)
{
    (void)state;
    ASSERT_RESOLVES("evil.example", AF_INET, "192.0.2.66 =evil.example");
}

static void test_errors_are_those_of_getaddrinfo(void **state)
{
    (void)state;
    ASSERT_RESOLVES("nobody.example.", AF_UNSPEC, "EAI_NONAME");
    ASSERT_RESOLVES("nothing.example.", AF_UNSPEC, "EAI_NODATA");
    ASSERT_RESOLVES("many.example.", AF_INET6, "EAI_NODATA");
    ASSERT_RESOLVES("failing.example.", AF_UNSPEC, "EAI_AGAIN");
    ASSERT_RESOLVES("refused.example.", AF_UNSPEC, "EAI_AGAIN");
    ASSERT_RESOLVES("formerr.example.", AF_UNSPEC, "EAI_FAIL");
    ASSERT_RESOLVES("gone.example", AF_UNSPEC, "EAI_AGAIN");
    ASSERT_RESOLVES("junk.example", AF_UNSPEC, "EAI_AGAIN");
    ASSERT_RESOLVES("half.example", AF_UNSPEC, "192.0.2.9 =half.example");
}

static void test_names_that_are_none_are_asked_nowhere(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a b",
        "-a.example",
        "a\\.b",
        "a\\065",
        "caf\xc3\xa9",
        "a/b",
        "a\nb",
        "%s",
        "a:b",
        "1.2.3.256.",
        "x.1.",
        "secret.invalid.",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ASSERT_RESOLVES(bad[i], AF_UNSPEC, "EAI_NONAME");
    }
    assert_int_equal(names_asked_count, 0);
}

static void test_numeric_names_are_their_addresses(void **state)
{
    (void)state;
    ASSERT_RESOLVES("192.0.2.1", AF_UNSPEC, "192.0.2.1 =192.0.2.1");
    ASSERT_RESOLVES("127.1", AF_INET, "127.0.0.1 =127.1");
    ASSERT_RESOLVES("2001:db8::1", AF_INET6, "2001:db8::1 =2001:db8::1");
    ASSERT_RESOLVES("192.0.2.1", AF_INET6, "EAI_NONAME");
    assert_int_equal(names_asked_count, 0);
}

static void test_hosts_file_comes_first_with_its_canonical_name_and_aliases(void **state)
{
    (void)state;
    ASSERT_RESOLVES("printer", AF_UNSPEC, "192.0.2.7 =printer.lan+printer");
    ASSERT_RESOLVES("PRINTER.lan", AF_UNSPEC, "2001:db8::7 192.0.2.7 =printer.lan+printer");
    ASSERT_RESOLVES("printer.lan.", AF_INET6, "2001:db8::7 =printer.lan");
    assert_int_equal(names_asked_count, 0);
    ASSERT_RESOLVES("only4.", AF_INET6, "EAI_NONAME"); /* which the file does not say: asked for */
    assert_int_equal(names_asked_count, 1);
}

static void test_localhost_is_loopback(void **state)
{
    (void)state;
    ASSERT_RESOLVES("localhost", AF_UNSPEC, "127.0.0.1 =localhost");
    ASSERT_RESOLVES("localhost", AF_INET6, "::1 =localhost");
    ASSERT_RESOLVES("a.LOCALHOST.", AF_UNSPEC, "::1 127.0.0.1 =a.LOCALHOST");
    assert_int_equal(names_asked_count, 0);
}

static void test_hosts_file_is_read_again_when_it_changes(void **state)
{
    (void)state;
    ASSERT_RESOLVES("printer", AF_INET, "192.0.2.7 =printer.lan+printer");
    names_write(names.hosts, "192.0.2.77 printer\n");
    harness_advance(1100);
    ASSERT_RESOLVES("printer", AF_INET, "192.0.2.77 =printer");
}

static void test_resolv_conf_is_read_again_when_it_changes(void **state)
{
    (void)state;
    ASSERT_RESOLVES("tld", AF_INET, "192.0.2.25 =tld");
    names_write(names.resolv_conf, "options ndots:3\nsearch example\n");
    harness_advance(1100);
    ASSERT_RESOLVES("short.corp", AF_INET, "192.0.2.20 =short.corp.example");
    assert_non_null(strstr(names_asked, "tld./1 short.corp.example./1"));
}

static void test_search_domains_are_tried_in_turn(void **state)
{
    (void)state;
    ASSERT_RESOLVES("short", AF_INET, "192.0.2.20 =short.corp.example");
    assert_string_equal(names_asked, "short.corp.example./1");
    ASSERT_RESOLVES("short.", AF_INET, "EAI_NONAME");
    ASSERT_RESOLVES("empty", AF_INET, "EAI_NODATA"); /* tells more than the others' NXDOMAIN */
    ASSERT_RESOLVES("broken", AF_INET, "192.0.2.23 =broken.lab.example");
    ASSERT_RESOLVES("denied", AF_INET, "EAI_NONAME"); /* stops the search, and then the name alone is tried */
}

static void test_name_with_dots_is_tried_as_it_is_first(void **state)
{
    (void)state;
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    ASSERT_RESOLVES("no.such", AF_INET, "EAI_NONAME");
    assert_string_equal(names_asked, "www.example./1 no.such./1 no.such.corp.example./1 no.such.lab.example./1");
    ASSERT_RESOLVES("no.such.", AF_INET, "EAI_NONAME");
    assert_int_equal(names_asked_count, 4);
}

static void test_lost_proxy_stops_the_search(void **state)
{
    (void)state;
    ASSERT_RESOLVES("gone.example", AF_INET, "EAI_AGAIN");
    assert_int_equal(names_asked_count, 1);
}

static void test_silence_ends_after_the_time_of_resolv_conf(void **state)
{
    uint64_t before = loop_now_ms(names.loop), after;

    (void)state;
    ASSERT_RESOLVES("silent.example", AF_UNSPEC, "EAI_AGAIN");
    after = loop_now_ms(names.loop);
    assert_in_range(after - before, 10000, 10100);
}

static void test_one_family_waits_little_for_the_other(void **state)
{
    uint64_t before = loop_now_ms(names.loop);

    (void)state;
    ASSERT_RESOLVES("slow6.example", AF_UNSPEC, "192.0.2.10 =slow6.example");
    assert_in_range(loop_now_ms(names.loop) - before, 2000, 2100);
}

static void test_same_question_is_asked_once(void **state)
{
    static struct reply replies[3];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        names_ask_resolve(&names, &replies[i], i == 1 ? "WWW.example" : "www.example", AF_INET, 0);
    }
    assert_int_equal(names_asked_count, 1);
    run_names_cancel(names.run, &replies[0].ask);
    names_wait(&names, &replies[1]);
    names_wait(&names, &replies[2]);
    assert_int_equal(replies[0].times, 0);
    assert_int_equal(replies[1].status | replies[2].status, 0);
    run_names_cancel(names.run, &replies[1].ask); /* after its end: nothing */
}

static void test_cache_forgets_when_its_time_is_over(void **state)
{
    (void)state;
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    ASSERT_RESOLVES("nobody.example.", AF_INET, "EAI_NONAME");
    harness_advance(299000);
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    ASSERT_RESOLVES("nobody.example.", AF_INET, "EAI_NONAME");
    assert_int_equal(names_asked_count, 2);
    harness_advance(2000);
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    ASSERT_RESOLVES("nobody.example.", AF_INET, "EAI_NONAME");
    assert_int_equal(names_asked_count, 4);
}

static void test_malformed_requests_are_refused(void **state)
{
    static struct reply reply;
    struct run_resolve request = {.family = AF_INET, .name_len = 3};
    uint8_t body[sizeof request + 3];

    (void)state;
    memcpy(body, &request, sizeof request);
    memcpy(body + sizeof request, "a\0b", 3);
    names_ask(&names, &reply, RUN_RESOLVE, body, sizeof body);
    assert_int_equal(reply.status, EAI_NONAME);
    for (size_t len = 0; len < sizeof body; len++) {
        names_ask(&names, &reply, RUN_RESOLVE, body, len);
        assert_int_equal(reply.status, EAI_FAIL);
        names_ask(&names, &reply, RUN_REVERSE, body, len);
        assert_int_equal(reply.status, EAI_FAIL);
        names_ask(&names, &reply, RUN_UDP_DNS, body, len);
        assert_int_equal(reply.status, EINVAL);
    }
    body[0] = 99;
    names_ask(&names, &reply, RUN_RESOLVE, body, sizeof body);
    assert_int_equal(reply.status, EAI_FAMILY);
    names_ask(&names, &reply, RUN_CONNECT, body, sizeof body);
    assert_int_equal(reply.status, EINVAL);
}

static bool is_corp(void *user, const char *name)
{
    size_t len = strlen(name);

    (void)user;
    return len >= 12 && strcmp(name + len - 12, "corp.example") == 0;
}

static bool is_private(void *user, const struct socks6_addr *addr)
{
    (void)user;
    return addr->type == SOCKS6_ADDR_IPV4 && addr->u.ipv4[0] == 10;
}

static void test_names_of_no_proxy_are_the_systems(void **state)
{
    struct run_names_config config = {.loop = names.loop,
                                      .link = names_link,
                                      .is_direct_name = is_corp,
                                      .is_direct_addr = is_private,
                                      .hosts = names.hosts,
                                      .resolv_conf = names.resolv_conf};
    struct run_names *plain = names.run;

    (void)state;
    assert_int_equal(run_names_new(&config, &names.run), 0);
    ASSERT_RESOLVES("www.corp.example.", AF_UNSPEC, "ASK_SYSTEM");
    ASSERT_RESOLVES("short", AF_UNSPEC, "ASK_SYSTEM"); /* by its first candidate */
    ASSERT_RESOLVES("no.such", AF_INET, "EAI_NONAME"); /* of which the system must not hear */
    assert_string_equal(names_asked, "no.such./1 no.such.lab.example./1");
    names_asked[0] = '\0';
    ASSERT_RESOLVES("www.example", AF_INET, "192.0.2.1 =www.example");
    assert_string_equal(names_reverse(&names, "10.1.2.3"), "ASK_SYSTEM");
    assert_string_equal(names_reverse(&names, "::ffff:10.1.2.3"), "ASK_SYSTEM");
    assert_string_equal(names_reverse(&names, "192.0.2.1"), "www.example web.example");
    run_names_free(names.run);
    names.run = plain;
}

static void test_end_ends_what_is_open(void **state)
{
    static struct reply resolve, reverse, query;
    const struct run_addr addr = names_addr("192.0.2.1", 0);
    uint8_t message[DNS_QUERY_MAX];
    struct dns_name name = name_of("silent.example.");
    const struct dns_query question = {.id = 7, .name = &name, .type = DNS_TYPE_TXT, .class = DNS_CLASS_IN};
    size_t len;

    (void)state;
    assert_int_equal(dns_query_build(&question, message, sizeof message, &len), 0);
    names_ask_resolve(&names, &resolve, "www.example", AF_UNSPEC, 0);
    names_ask(&names, &reverse, RUN_REVERSE, &addr, sizeof addr);
    names_ask(&names, &query, RUN_QUERY, message, len);
    run_names_free(names.run);
    names.run = NULL;
    assert_int_equal(resolve.status, EAI_AGAIN);
    assert_int_equal(reverse.status, EAI_AGAIN);
    assert_int_equal(query.status, ECONNREFUSED);
    assert_int_equal(resolve.times + reverse.times + query.times, 3);
}

/* ---- RUN_REVERSE ---- */

static void test_addresses_have_the_names_of_their_ptr_records(void **state)
{
    (void)state;
    assert_string_equal(names_reverse(&names, "192.0.2.1"), "www.example web.example");
    assert_string_equal(names_reverse(&names, "::ffff:192.0.2.1"), "www.example web.example");
    assert_string_equal(names_reverse(&names, "192.0.2.2"), "classless.example");
    assert_string_equal(names_reverse(&names, "192.0.2.3"), "classless.example");
    assert_string_equal(names_reverse(&names, "2001:db8::1"), "six.example");
    assert_string_equal(names_reverse(&names, "192.0.2.4"), "EAI_NONAME");
    assert_string_equal(names_reverse(&names, "192.0.2.5"), "EAI_AGAIN");
    assert_string_equal(names_reverse(&names, "192.0.2.250"), "EAI_NONAME");
}

static void test_names_of_local_addresses_are_known_here(void **state)
{
    (void)state;
    assert_string_equal(names_reverse(&names, "192.0.2.7"), "printer.lan printer");
    assert_string_equal(names_reverse(&names, "2001:db8::7"), "printer.lan");
    assert_string_equal(names_reverse(&names, "127.0.0.1"), "localhost");
    assert_string_equal(names_reverse(&names, "127.9.9.9"), "localhost");
    assert_string_equal(names_reverse(&names, "::1"), "localhost");
    assert_string_equal(names_reverse(&names, "fe80::1"), "EAI_NONAME");
    assert_int_equal(names_asked_count, 0);
}

/* ---- RUN_QUERY ---- */

static size_t build(uint8_t *message, uint16_t id, const char *name, uint16_t type, bool with_edns)
{
    struct dns_name wire = name_of(name);
    const struct dns_query query = {.id = id,
                                    .flags = DNS_FLAG_RD,
                                    .name = &wire,
                                    .type = type,
                                    .class = DNS_CLASS_IN,
                                    .with_edns = with_edns,
                                    .edns_udp_len = 1232};
    size_t len;

    assert_int_equal(dns_query_build(&query, message, DNS_QUERY_MAX, &len), 0);
    return len;
}

static void test_message_is_answered_with_its_own_id_and_question(void **state)
{
    static struct reply reply;
    uint8_t message[DNS_QUERY_MAX];
    struct dns_edns edns;

    (void)state;
    for (unsigned id = 1; id <= 2; id++) { /* from the proxy, and from the cache */
        size_t len = build(message, (uint16_t)id, id == 1 ? "www.example." : "WwW.eXample.", DNS_TYPE_A, id == 1);

        names_ask(&names, &reply, RUN_QUERY, message, len);
        names_wait(&names, &reply);
        assert_int_equal(reply.status, 0);
        assert_int_equal(dns_get16(reply.body), id);
        assert_memory_equal(reply.body + DNS_HEADER_LEN, message + DNS_HEADER_LEN, 17);
        assert_int_equal(dns_get16(reply.body + 6), 1);
        assert_int_equal(dns_message_check(reply.body, reply.len, &edns, NULL), 0);
        assert_int_equal(edns.present, id == 1);
    }
    assert_int_equal(names_asked_count, 1);
}

static void test_messages_that_cannot_be_answered_are_errors(void **state)
{
    static struct reply reply;
    uint8_t message[DNS_QUERY_MAX];
    size_t len = build(message, 9, "silent.example.", DNS_TYPE_TXT, false);

    (void)state;
    names_ask(&names, &reply, RUN_QUERY, message, len);
    names_wait(&names, &reply);
    assert_int_equal(reply.status, ETIMEDOUT);
    len = build(message, 9, "gone.example.", DNS_TYPE_TXT, false);
    names_ask(&names, &reply, RUN_QUERY, message, len);
    names_wait(&names, &reply);
    assert_int_equal(reply.status, ECONNREFUSED);
    len = build(message, 9, "junk.example.", DNS_TYPE_TXT, false);
    names_ask(&names, &reply, RUN_QUERY, message, len);
    names_wait(&names, &reply);
    assert_int_equal(reply.status, 0);
    assert_int_equal(DNS_FLAGS_RCODE(dns_get16(reply.body + 2)), DNS_RCODE_SERVFAIL);
    for (size_t cut = 0; cut < DNS_HEADER_LEN; cut++) {
        names_ask(&names, &reply, RUN_QUERY, message, cut);
        assert_int_equal(reply.status, EINVAL);
    }
    for (size_t cut = DNS_HEADER_LEN; cut < len; cut++) {
        names_ask(&names, &reply, RUN_QUERY, message, cut);
        names_wait(&names, &reply);
        assert_int_equal(reply.status, 0);
        assert_int_equal(DNS_FLAGS_RCODE(dns_get16(reply.body + 2)), DNS_RCODE_FORMERR);
    }
    message[2] |= 0x80;
    names_ask(&names, &reply, RUN_QUERY, message, len);
    assert_int_equal(reply.status, EINVAL);
    message[2] = 0x28; /* UPDATE */
    names_ask(&names, &reply, RUN_QUERY, message, len);
    names_wait(&names, &reply);
    assert_int_equal(DNS_FLAGS_RCODE(dns_get16(reply.body + 2)), DNS_RCODE_NOTIMP);
}

static void test_private_questions_are_not_shared(void **state)
{
    static const uint8_t ecs[] = {0, DNS_OPTION_ECS, 0, 7, 0, 1, 24, 0, 192, 0, 2};
    static struct reply replies[2], resolve;
    struct dns_name name = name_of("www.example.");
    const struct dns_query query = {.id = 3,
                                    .flags = DNS_FLAG_RD,
                                    .name = &name,
                                    .type = DNS_TYPE_A,
                                    .class = DNS_CLASS_IN,
                                    .with_edns = true,
                                    .edns_udp_len = 1232,
                                    .edns_options = {ecs, sizeof ecs}};
    uint8_t message[DNS_QUERY_MAX + sizeof ecs];
    size_t len;

    (void)state;
    assert_int_equal(dns_query_build(&query, message, sizeof message, &len), 0);
    names_ask(&names, &replies[0], RUN_QUERY, message, len);
    names_ask(&names, &replies[1], RUN_QUERY, message, len);
    assert_int_equal(names_asked_count, 2);
    names_ask_resolve(&names, &resolve, "www.example", AF_INET, 0); /* nor is a public one part of them */
    assert_int_equal(names_asked_count, 3);
    names_wait(&names, &replies[0]);
    names_wait(&names, &replies[1]);
    names_wait(&names, &resolve);
    names_ask(&names, &replies[0], RUN_QUERY, message, len); /* what is known now is another answer */
    assert_int_equal(names_asked_count, 4);
    names_wait(&names, &replies[0]);
}

/* ---- memory ---- */

static void test_each_allocation_can_fail(void **state)
{
    static const char *const calls[] = {"calloc", "malloc"};
    static struct reply resolve, reverse;
    const struct run_addr addr = names_addr("192.0.2.3", 0);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        bool has_failed = true;

        for (unsigned n = 1; has_failed; n++) {
            struct run_names_config config = {
                .loop = names.loop, .link = names_link, .hosts = names.hosts, .resolv_conf = names.resolv_conf};
            struct run_names *run = NULL, *plain = names.run;
            int rc;

            assert_true(n < 200);
            harness_fail(calls[i], n, ENOMEM);
            rc = run_names_new(&config, &run);
            assert_true(rc == 0 || rc == -ENOMEM);
            if (rc == 0) {
                names.run = run;
                names_ask_resolve(&names, &resolve, "chased.example", AF_UNSPEC, 0);
                names_ask(&names, &reverse, RUN_REVERSE, &addr, sizeof addr);
                names_wait(&names, &resolve);
                names_wait(&names, &reverse);
                assert_true(resolve.status == 0 || resolve.status == EAI_MEMORY || resolve.status == EAI_AGAIN);
                assert_true(reverse.status == 0 || reverse.status == EAI_MEMORY || reverse.status == EAI_AGAIN);
                names.run = plain;
                run_names_free(run);
            }
            has_failed = harness_has_failed();
            assert_true(has_failed || (rc == 0 && resolve.status == 0 && reverse.status == 0));
            harness_fail(NULL, 0, 0);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_both_families_come_with_ipv6_first),
        TEST(test_one_family_is_asked_for_alone),
        TEST(test_ipv6_comes_last_while_the_proxy_has_no_way_to_it),
        TEST(test_addrconfig_leaves_out_a_family_that_the_machine_has_not),
        TEST(test_aliases_are_followed_to_the_canonical_name),
        TEST(test_canonical_name_that_is_no_host_name_is_not_told),
        TEST(test_errors_are_those_of_getaddrinfo),
        TEST(test_names_that_are_none_are_asked_nowhere),
        TEST(test_numeric_names_are_their_addresses),
        TEST(test_hosts_file_comes_first_with_its_canonical_name_and_aliases),
        TEST(test_localhost_is_loopback),
        TEST(test_hosts_file_is_read_again_when_it_changes),
        TEST(test_resolv_conf_is_read_again_when_it_changes),
        TEST(test_search_domains_are_tried_in_turn),
        TEST(test_name_with_dots_is_tried_as_it_is_first),
        TEST(test_lost_proxy_stops_the_search),
        TEST(test_silence_ends_after_the_time_of_resolv_conf),
        TEST(test_one_family_waits_little_for_the_other),
        TEST(test_same_question_is_asked_once),
        TEST(test_cache_forgets_when_its_time_is_over),
        TEST(test_malformed_requests_are_refused),
        TEST(test_names_of_no_proxy_are_the_systems),
        TEST(test_end_ends_what_is_open),
        TEST(test_addresses_have_the_names_of_their_ptr_records),
        TEST(test_names_of_local_addresses_are_known_here),
        TEST(test_message_is_answered_with_its_own_id_and_question),
        TEST(test_messages_that_cannot_be_answered_are_errors),
        TEST(test_private_questions_are_not_shared),
        TEST(test_each_allocation_can_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
