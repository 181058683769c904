/*
 * The resolver as a whole over a scripted server: cache, merging, private questions; and look-ups: aliases, local names,
 * failures.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dns/ask.h"
#include "dns/lookup.h"
#include "harness.h"
#include "support.h"

static struct loop *loop;
static struct dns_resolver *resolver;
static struct dns_client *client;
static struct fake fake;
static struct draft draft;
static char hosts[] = "/tmp/socks6-test-lookup-XXXXXX";

static int open_world(void **state)
{
    struct dns_settings settings = {.hosts = hosts, .server_count = 1, .cache_len = 1 << 20, .timeout_ms = 1000};
    (void)state;

    harness_guard();
    assert_int_equal(loop_new(&loop), 0);
    fake_open(&fake, loop, fake_answer);
    const struct dns_server_setting server = fake_setting(&fake, DNS_UDP);
    settings.servers = &server;
    assert_int_equal(dns_resolver_new(&settings, &resolver), 0);
    assert_int_equal(dns_client_new(resolver, loop, &client), 0);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    dns_client_free(client);
    dns_resolver_free(resolver);
    fake_close(&fake);
    loop_free(loop);
    return 0;
}

static uint64_t found;
static const char *wanted;

static void match(void *user, const char *name, uint64_t value)
{
    (void)user;
    if (strcmp(name, wanted) == 0) {
        found = value;
    }
}

static uint64_t counted(const char *name)
{
    wanted = name;
    found = UINT64_MAX;
    dns_resolver_count(resolver, match, NULL);
    assert_true(found != UINT64_MAX);
    return found;
}

/* ---- whole messages ---- */

struct asked {
    struct dns_ask *ask;
    unsigned times;
    struct dns_answer *answer;
};

static unsigned told;

static void on_told(void *user, struct dns_answer *answer, const char *why)
{
    struct asked *asked = user;
    assert_true((answer == NULL) == (why[0] != '\0'));
    asked->ask = NULL;
    asked->times++;
    asked->answer = answer != NULL ? dns_answer_retain(answer) : NULL;
    told++;
}

static bool enough_told(void *context)
{
    return told >= *(unsigned *)context;
}

static void ask(struct asked *asked, const struct dns_request *request)
{
    memset(asked, 0, sizeof *asked);
    assert_int_equal(dns_ask_start(client, DNS_ASKER_SERVICE, request, on_told, asked, &asked->ask), 0);
    assert_int_equal(asked->times, 0);
}

static void run_asks(unsigned count)
{
    harness_run_until(loop, enough_told, &count);
    told = 0;
}

static void test_answers_are_kept(void **state)
{
    struct dns_request request = question_of("www.example", 1), other = question_of("WWW.EXAMPLE", 1);
    struct asked asked;
    (void)state;

    assert_null(dns_ask_at_once(client, &request));
    ask(&asked, &request);
    run_asks(1);
    struct dns_answer *known = dns_ask_at_once(client, &other);
    assert_ptr_equal(known, asked.answer);
    dns_answer_release(known);
    dns_answer_release(asked.answer);
    other.edns_flags = DNS_EDNS_DO;
    assert_null(dns_ask_at_once(client, &other));
    harness_advance(300 * 1000);
    assert_null(dns_ask_at_once(client, &request));
    assert_int_equal(counted("hits"), 1);
    assert_int_equal(counted("misses"), 3);
    assert_int_equal(counted("upstream_answers"), 1);
}

static void test_the_same_question_is_asked_once(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct asked asked[10];
    (void)state;

    for (unsigned i = 0; i < 10; i++) {
        ask(&asked[i], &request);
    }
    dns_ask_cancel(asked[3].ask); /* one that waits, and the first, who asked */
    dns_ask_cancel(asked[0].ask);
    run_asks(8);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(asked[i].times, i == 3 || i == 0 ? 0 : 1);
        dns_answer_release(asked[i].answer);
    }
    assert_int_equal(fake.udp_count, 1);
    assert_int_equal(counted("merged"), 9);
}

static struct asked pair[2];

static void cancel_the_other(void *user, struct dns_answer *answer, const char *why)
{
    struct asked *asked = user;
    struct asked *other = asked == &pair[0] ? &pair[1] : &pair[0];
    (void)answer;
    (void)why;
    asked->ask = NULL;
    asked->times++;
    told++;
    dns_ask_cancel(other->ask);
    other->ask = NULL;
}

static void test_an_answer_may_cancel_others_who_wait(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    (void)state;

    memset(pair, 0, sizeof pair);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(dns_ask_start(client, DNS_ASKER_LOOKUP, &request, cancel_the_other, &pair[i], &pair[i].ask),
                         0);
    }
    run_asks(1);
    harness_run_until_quiet(loop);
    assert_int_equal(pair[0].times + pair[1].times, 1);
}

/* ECS: asked each for itself, and nobody gets what another was told. */
static void test_private_questions_are_neither_kept_nor_merged(void **state)
{
    static const uint8_t ecs[] = {0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2};
    struct dns_request request = question_of("www.example", 1), private = request;
    struct asked asked[3];
    (void)state;

    private.is_private = true;
    private.options = (struct socks6_slice){ecs, sizeof ecs};
    ask(&asked[0], &private);
    ask(&asked[1], &private);
    ask(&asked[2], &request);
    run_asks(3);
    assert_int_equal(fake.udp_count, 3);
    assert_int_equal(counted("entries"), 1);
    assert_null(dns_ask_at_once(client, &private)); /* not even what is kept for all */
    for (unsigned i = 0; i < 3; i++) {
        dns_answer_release(asked[i].answer);
    }
    ask(&asked[0], &private);
    dns_ask_cancel(asked[0].ask);
    harness_run_until_quiet(loop);
    assert_int_equal(asked[0].times, 0);
}

static void be_silent(struct fake_query *query)
{
    (void)query;
}

static void test_questions_in_flight_are_bounded(void **state)
{
    static struct asked asked[DNS_FLIGHTS_MAX + 1];
    struct dns_request request;
    char name[32];
    unsigned count = 0;
    int err = 0;
    (void)state;

    fake.handle = be_silent;
    while (count <= DNS_FLIGHTS_MAX && err == 0) {
        (void)snprintf(name, sizeof name, "n%u.example", count);
        request = question_of(name, 1);
        err = dns_ask_start(client, DNS_ASKER_SERVICE, &request, on_told, &asked[count], &asked[count].ask);
        count += err == 0;
    }
    assert_int_equal(err, -EAGAIN);
    assert_int_equal(count, DNS_FLIGHTS_SERVICE_MAX);
    /* look-ups of the proxy itself still have room */
    assert_int_equal(dns_ask_start(client, DNS_ASKER_LOOKUP, &request, on_told, &asked[count], &asked[count].ask), 0);
    for (unsigned i = 0; i <= count; i++) {
        dns_ask_cancel(asked[i].ask);
    }
}

static void test_other_servers_empty_the_cache(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct asked asked;
    struct fake second;
    (void)state;

    ask(&asked, &request);
    run_asks(1);
    dns_answer_release(asked.answer);
    assert_int_equal(counted("entries"), 1);
    fake_open(&second, loop, fake_answer);
    struct dns_settings settings = {.hosts = "", .server_count = 1, .cache_len = 1 << 20};
    const struct dns_server_setting server = fake_setting(&second, DNS_TCP);
    settings.servers = &server;
    assert_int_equal(dns_resolver_configure(resolver, &settings), 0);
    assert_int_equal(counted("entries"), 0);
    ask(&asked, &request);
    run_asks(1);
    dns_answer_release(asked.answer);
    assert_int_equal(second.tcp_count, 1);
    fake_close(&second);
    harness_run_until_quiet(loop);
}

/* ---- look-ups ---- */

struct result {
    unsigned times;
    enum dns_lookup_status status;
    char why[64];
    size_t count;
    struct socks6_addr first;
};

static struct result results[2]; /* IPv4, IPv6 */
static struct dns_lookup *lookup;
static bool cancels;

static void on_looked_up(void *user, const struct dns_lookup_answer *answer)
{
    struct result *result = &results[answer->family == AF_INET6];
    assert_null(user);
    assert_int_equal(answer->count > 0, answer->status == DNS_LOOKUP_OK);
    result->times++;
    result->status = answer->status;
    result->count = answer->count;
    (void)snprintf(result->why, sizeof result->why, "%s", answer->why);
    if (answer->count > 0) {
        result->first = answer->addrs[0];
        assert_int_equal(result->first.port, 443);
    }
    told++;
    if (cancels) {
        dns_lookup_cancel(lookup);
    }
}

static void look_up_families(const char *name, unsigned families, unsigned count)
{
    memset(results, 0, sizeof results);
    told = 0;
    assert_int_equal(dns_lookup_start(client, name, 443, families, on_looked_up, NULL, &lookup), 0);
    assert_int_equal(told, 0); /* never from within the call */
    run_asks(count);
}

static void look_up(const char *name)
{
    look_up_families(name, DNS_LOOKUP_BOTH, 2);
    assert_int_equal(results[0].times, 1);
    assert_int_equal(results[1].times, 1);
}

static void assert_addr(const struct result *result, const char *expected)
{
    char text[INET6_ADDRSTRLEN];
    bool is_ipv4 = result == &results[0];

    assert_int_equal(result->status, DNS_LOOKUP_OK);
    assert_non_null(inet_ntop(is_ipv4 ? AF_INET : AF_INET6, &result->first.u, text, sizeof text));
    assert_string_equal(text, expected);
}

static void test_both_families_are_looked_up(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) { /* asked, then from the cache */
        look_up(i == 0 ? "www.example" : "WWW.example.");
        assert_addr(&results[0], "192.0.2.1");
        assert_addr(&results[1], "2001:db8::1");
    }
    assert_int_equal(fake.udp_count, 2);
}

static void test_one_family_alone(void **state)
{
    (void)state;
    look_up_families("www.example", DNS_LOOKUP_IPV6, 1);
    assert_addr(&results[1], "2001:db8::1");
    harness_run_until_quiet(loop);
    assert_int_equal(results[0].times, 0);
    assert_int_equal(fake.udp_count, 1);
}

static void test_local_names_and_numbers_ask_nobody(void **state)
{
    static const struct {
        const char *name, *ipv4, *ipv6; /* NULL = no address */
    } cases[] = {
        {"localhost", "127.0.0.1", "::1"},
        {"LocalHost.", "127.0.0.1", "::1"},
        {"a.b.localhost", "127.0.0.1", "::1"},
        {"secret.onion", NULL, NULL},
        {"x.invalid", NULL, NULL},
        {"192.0.2.7", "192.0.2.7", NULL},
        {"127.1", "127.0.0.1", NULL},
        {"0x7f000001", "127.0.0.1", NULL},
        {"2001:db8::7", NULL, "2001:db8::7"},
        {"fe80::1%lo", NULL, NULL},
        {"[::1]", NULL, NULL},
        {"1.2.3.400", NULL, NULL},
        {"foo.123", NULL, NULL},
        {"a b", NULL, NULL},
        {"a..b", NULL, NULL},
        {".", NULL, NULL},
        {"", NULL, NULL},
        {"a\\.b", NULL, NULL},
        {"caf\xc3\xa9", NULL, NULL},
        {"mine.example", "192.0.2.99", NULL}, /* the hosts file has IPv4 only, and has the say */
        {"both.example", "192.0.2.98", "2001:db8::98"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const expected[2] = {cases[i].ipv4, cases[i].ipv6};
        look_up(cases[i].name);
        for (int family = 0; family < 2; family++) {
            if (expected[family] != NULL) {
                assert_addr(&results[family], expected[family]);
            } else {
                assert_int_equal(results[family].status, DNS_LOOKUP_NO_ADDRESS);
            }
        }
    }
    assert_int_equal(fake.udp_count, 0);
}

static unsigned rcode;

static void answer_rcode(struct fake_query *query)
{
    draft_response(&draft, query->id, rcode, query->name, query->type);
    draft_opt(&draft, 512, 0, 0, NULL, 0);
    fake_send(query, draft.bytes, draft.len);
}

static void test_failures_are_told_apart(void **state)
{
    static const struct {
        unsigned rcode;
        enum dns_lookup_status status;
        const char *why;
    } cases[] = {
        {DNS_RCODE_NXDOMAIN, DNS_LOOKUP_NO_ADDRESS, "no such name"},
        {DNS_RCODE_NOERROR, DNS_LOOKUP_NO_ADDRESS, "no address of this family"},
        {DNS_RCODE_SERVFAIL, DNS_LOOKUP_FAILED, "server failure"},
        {DNS_RCODE_REFUSED, DNS_LOOKUP_FAILED, "refused by the upstream server"},
    };
    (void)state;

    fake.handle = answer_rcode;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rcode = cases[i].rcode;
        harness_advance(2000); /* a failure is remembered for a second */
        look_up("www.example");
        for (int family = 0; family < 2; family++) {
            assert_int_equal(results[family].status, cases[i].status);
            assert_string_equal(results[family].why, cases[i].why);
        }
    }
    fake.handle = be_silent;
    harness_advance(2000);
    look_up("www.example");
    assert_int_equal(results[0].status, DNS_LOOKUP_FAILED);
    assert_string_equal(results[0].why, "upstream server does not answer");
}

/* a -> b -> c in one answer, in any order; the address is that of c. */
static void answer_chain(struct fake_query *query)
{
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_a(&draft, "c.example", 60, "192.0.2.3");
    draft_a(&draft, "x.example", 60, "192.0.2.66"); /* not in the chain */
    draft_cname(&draft, "B.example", 60, "c.EXAMPLE");
    draft_cname(&draft, "", 60, "b.example");
    fake_send(query, draft.bytes, draft.len);
}

static void test_aliases_are_followed_within_an_answer(void **state)
{
    (void)state;
    fake.handle = answer_chain;
    look_up_families("a.example", DNS_LOOKUP_IPV4, 1);
    assert_addr(&results[0], "192.0.2.3");
    assert_int_equal(results[0].count, 1);
}

/* An authority that knows the alias only: the target has to be asked for. */
static void answer_alias_alone(struct fake_query *query)
{
    if (strcmp(query->name, "target.example.") == 0) {
        fake_answer(query);
        return;
    }
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_cname(&draft, "", 60, "target.example");
    fake_send(query, draft.bytes, draft.len);
}

static void test_aliases_are_asked_for(void **state)
{
    (void)state;
    fake.handle = answer_alias_alone;
    look_up("www.example");
    assert_addr(&results[0], "192.0.2.1");
    assert_addr(&results[1], "2001:db8::1");
    assert_int_equal(fake.udp_count, 4);
}

/* With an SOA record the end of the chain is known to have nothing: nobody is asked again. */
static void answer_alias_without_data(struct fake_query *query)
{
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_cname(&draft, "", 60, "target.example");
    draft_soa(&draft, "example", 60, 60);
    fake_send(query, draft.bytes, draft.len);
}

static void test_an_alias_without_address_is_the_end(void **state)
{
    (void)state;
    fake.handle = answer_alias_without_data;
    look_up("www.example");
    assert_int_equal(results[0].status, DNS_LOOKUP_NO_ADDRESS);
    assert_int_equal(fake.udp_count, 2);
}

static void answer_endless(struct fake_query *query)
{
    static unsigned n;
    char target[32];
    (void)snprintf(target, sizeof target, "n%u.example", n++);
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_cname(&draft, "", 60, target);
    fake_send(query, draft.bytes, draft.len);
}

static void answer_circle(struct fake_query *query)
{
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_cname(&draft, "", 60, "b.example");
    draft_cname(&draft, "b.example", 60, query->name);
    fake_send(query, draft.bytes, draft.len);
}

static void test_endless_aliases_end(void **state)
{
    (void)state;
    fake.handle = answer_endless;
    look_up("www.example");
    assert_int_equal(results[0].status, DNS_LOOKUP_FAILED);
    assert_string_equal(results[0].why, "too many aliases");
    assert_in_range(fake.udp_count, 4, 40);
    fake.handle = answer_circle;
    fake.udp_count = 0;
    look_up("circle.example");
    assert_string_equal(results[0].why, "too many aliases");
    assert_int_equal(fake.udp_count, 2);
}

static void answer_many(struct fake_query *query)
{
    char addr[32];
    draft_response(&draft, query->id, 0, query->name, query->type);
    for (int i = 0; i < 60 && query->type == DNS_TYPE_A; i++) {
        for (int j = 0; j < 2; j++) {
            (void)snprintf(addr, sizeof addr, "192.0.%d.%d", j, i);
            draft_a(&draft, "", 60, addr);
        }
    }
    fake_send(query, draft.bytes, draft.len);
}

static void test_addresses_are_bounded(void **state)
{
    (void)state;
    fake.handle = answer_many;
    look_up("many.example");
    assert_int_equal(results[0].count, DNS_LOOKUP_ADDRESSES_MAX);
    assert_int_equal(results[1].status, DNS_LOOKUP_NO_ADDRESS);
}

static void test_cancelled_look_ups_are_not_told(void **state)
{
    (void)state;
    static const char *const names[] = {"www.example", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        memset(results, 0, sizeof results);
        assert_int_equal(dns_lookup_start(client, names[i], 443, DNS_LOOKUP_BOTH, on_looked_up, NULL, &lookup), 0);
        dns_lookup_cancel(lookup);
        harness_run_until_quiet(loop);
        assert_int_equal(results[0].times + results[1].times, 0);
    }
    cancels = true; /* from within its own call */
    look_up_families("localhost", DNS_LOOKUP_BOTH, 1);
    harness_run_until_quiet(loop);
    assert_int_equal(results[0].times + results[1].times, 1);
    look_up_families("www.example", DNS_LOOKUP_BOTH, 1);
    harness_run_until_quiet(loop);
    assert_int_equal(results[0].times + results[1].times, 1);
    cancels = false;
    dns_lookup_cancel(NULL);
}

static void test_without_memory_every_family_is_answered(void **state)
{
    (void)state;
    static const char *const calls[] = {"malloc", "calloc"};
    for (size_t i = 0; i < 2; i++) {
        for (unsigned n = 1; n < 12; n++) {
            char name[32];
            (void)snprintf(name, sizeof name, "n%zu-%u.example", i, n);
            memset(results, 0, sizeof results);
            told = 0;
            harness_fail(calls[i], n, ENOMEM);
            int err = dns_lookup_start(client, name, 443, DNS_LOOKUP_BOTH, on_looked_up, NULL, &lookup);
            if (err == 0) {
                run_asks(2);
                assert_int_equal(results[0].times, 1);
                assert_int_equal(results[1].times, 1);
            } else {
                assert_int_equal(err, -ENOMEM);
            }
            harness_fail(NULL, 0, 0);
        }
    }
}

static int make_hosts(void **state)
{
    static const char text[] = "192.0.2.99 mine.example\n192.0.2.98 both.example\n2001:db8::98 both.example\n";
    int fd = mkstemp(hosts);
    (void)state;
    return fd < 0 || write(fd, text, sizeof text - 1) != sizeof text - 1 || close(fd) != 0 ? -1 : 0;
}

static int remove_hosts(void **state)
{
    (void)state;
    return unlink(hosts);
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD(test_answers_are_kept),
        WORLD(test_the_same_question_is_asked_once),
        WORLD(test_an_answer_may_cancel_others_who_wait),
        WORLD(test_private_questions_are_neither_kept_nor_merged),
        WORLD(test_questions_in_flight_are_bounded),
        WORLD(test_other_servers_empty_the_cache),
        WORLD(test_both_families_are_looked_up),
        WORLD(test_one_family_alone),
        WORLD(test_local_names_and_numbers_ask_nobody),
        WORLD(test_failures_are_told_apart),
        WORLD(test_aliases_are_followed_within_an_answer),
        WORLD(test_aliases_are_asked_for),
        WORLD(test_an_alias_without_address_is_the_end),
        WORLD(test_endless_aliases_end),
        WORLD(test_addresses_are_bounded),
        WORLD(test_cancelled_look_ups_are_not_told),
        WORLD(test_without_memory_every_family_is_answered),
    };
    return cmocka_run_group_tests(tests, make_hosts, remove_hosts);
}
