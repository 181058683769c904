/*
 * The memory is anonymous and shared, so that children made by fork(2) have it, too. Where a word lies in it is found by looking at what
 * changes: nothing here knows its layout.
 */
#include "run/share.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAYS_MAX 16u    /* more than any set will have */
#define MANY_RIVALS 64u /* so many that none of the first is left */

static struct run_share *share;
static uint8_t *bytes;  /* of it */
static uint8_t *before; /* what it was like */

static int setup(void **state)
{
    (void)state;
    bytes = mmap(NULL, run_share_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    before = malloc(run_share_len);
    share = (struct run_share *)(void *)bytes;
    return bytes == MAP_FAILED || before == NULL;
}

static int teardown(void **state)
{
    (void)state;
    free(before);
    return munmap(bytes, run_share_len);
}

/* --- a look at the memory --- */

static void remember(void)
{
    memcpy(before, bytes, run_share_len);
}

static void wipe(void)
{
    memset(bytes, 0, run_share_len);
}

/* Where the first word of `size` bytes is that has changed since remember(). */
static size_t first_change(size_t size)
{
    for (size_t at = 0; at + size <= run_share_len; at += size) {
        if (memcmp(bytes + at, before + at, size) != 0) {
            return at;
        }
    }
    fail_msg("nothing has changed");
    return 0;
}

static size_t count_changes(size_t size)
{
    size_t count = 0;

    for (size_t at = 0; at + size <= run_share_len; at += size) {
        count += memcmp(bytes + at, before + at, size) != 0;
    }
    return count;
}

static uint32_t peek32(size_t at)
{
    uint32_t value;

    memcpy(&value, bytes + at, sizeof value);
    return value;
}

static uint64_t peek64(size_t at)
{
    uint64_t value;

    memcpy(&value, bytes + at, sizeof value);
    return value;
}

static void poke32(size_t at, uint32_t value)
{
    memcpy(bytes + at, &value, sizeof value);
}

static void poke64(size_t at, uint64_t value)
{
    memcpy(bytes + at, &value, sizeof value);
}

/* --- values that can be recognised --- */

/* All of it follows from `value`. */
static struct run_addr addr_of(uint64_t value)
{
    struct run_addr addr = {.family = AF_INET6, .port = (uint16_t)(value * 7), .scope = (uint32_t)(value * 13)};

    for (size_t i = 0; i < sizeof addr.bytes; i++) {
        addr.bytes[i] = (uint8_t)(value * (2 * i + 1) >> 3);
    }
    return addr;
}

static bool is_addr_of(const struct run_addr *addr, uint64_t value)
{
    struct run_addr want = addr_of(value);

    return addr->family == want.family && addr->port == want.port && addr->scope == want.scope &&
           memcmp(addr->bytes, want.bytes, sizeof want.bytes) == 0;
}

/* The peer's scope says which version it is; everything else follows from that and the cookie. */
static void put_version(uint64_t cookie, uint32_t version)
{
    struct run_addr peer = addr_of(cookie ^ version);
    struct run_addr local = addr_of(~(cookie ^ version));

    peer.scope = version;
    run_share_put(share, cookie, &peer, &local);
}

static bool is_whole(uint64_t cookie, const struct run_addr *peer, const struct run_addr *local)
{
    struct run_addr plain = *peer;

    plain.scope = addr_of(cookie ^ peer->scope).scope;
    return is_addr_of(&plain, cookie ^ peer->scope) && is_addr_of(local, ~(cookie ^ peer->scope));
}

/* What is said of this cookie has been put for it. Its version, or -1. */
static int64_t version_of(uint64_t cookie)
{
    struct run_addr peer = {0}, local = {0};

    if (!run_share_get(share, cookie, &peer, &local)) {
        return -1;
    }
    assert_true(is_whole(cookie, &peer, &local));
    return peer.scope;
}

/* The route is the only one of its kind for `value`, any length of the session included. */
static struct run_route route_of(uint64_t value)
{
    struct run_route route = {.namespace = value, .proxy = addr_of(value)};

    route.session_len = (uint32_t)(value % (RUN_ROUTE_SESSION_MAX + 1));
    for (size_t i = 0; i < sizeof route.session; i++) {
        route.session[i] = (uint8_t)(value * 31 + i);
    }
    return route;
}

static bool is_route_whole(const struct run_route *route)
{
    struct run_route want = route_of(route->namespace);

    return route->serial != 0 && is_addr_of(&route->proxy, route->namespace) &&
           route->session_len == want.session_len && memcmp(route->session, want.session, sizeof want.session) == 0;
}

static void publish(uint64_t value)
{
    struct run_route route = route_of(value);

    run_share_publish(share, &route);
}

/* The serial of the route, which is that of `value`. */
static uint64_t expect_route(uint64_t value)
{
    struct run_route route;

    assert_true(run_share_route(share, &route));
    assert_true(is_route_whole(&route));
    assert_true(route.namespace == value);
    return route.serial;
}

static void expect_no_route(void)
{
    struct run_route route;

    assert_false(run_share_route(share, &route));
}

/* --- the route --- */

static void test_fresh_memory_knows_nothing(void **state)
{
    (void)state;
    expect_no_route();
    assert_int_equal(version_of(1), -1);
    assert_int_equal(version_of(0), -1);
    assert_true(run_share_is_patient(share));
    assert_int_equal(run_share_take_ipv6(share), RUN_SHARE_IPV6_NO_NEWS);
}

static void test_a_route_is_taken_as_it_was_published(void **state)
{
    uint64_t serial = 0;

    (void)state;
    for (uint64_t value = 0; value <= RUN_ROUTE_SESSION_MAX; value++) {
        uint64_t next;

        publish(value);
        next = expect_route(value);
        assert_true(next > serial);
        assert_true(expect_route(value) == next);
        serial = next;
    }
}

static void test_the_publisher_does_not_choose_the_serial(void **state)
{
    struct run_route route = route_of(5);

    (void)state;
    route.serial = 77;
    run_share_publish(share, &route);
    assert_true(expect_route(5) != 77);
    assert_true(route.serial == 77);
}

static void test_a_withdrawn_route_is_gone_and_its_serial_too(void **state)
{
    uint64_t serial;

    (void)state;
    publish(1);
    serial = expect_route(1);
    run_share_withdraw(share);
    expect_no_route();
    run_share_withdraw(share);
    expect_no_route();
    publish(1);
    assert_true(expect_route(1) > serial);
    run_share_doubt(share, expect_route(1));
    run_share_withdraw(share);
    expect_no_route();
}

static void test_a_withdrawn_route_leaves_no_session_behind(void **state)
{
    static const uint8_t secret[16] = "session-of-ours";
    struct run_route route = {.session_len = sizeof secret};

    (void)state;
    memcpy(route.session, secret, sizeof secret);
    run_share_publish(share, &route);
    assert_non_null(memmem(bytes, run_share_len, secret, sizeof secret));
    run_share_withdraw(share);
    assert_null(memmem(bytes, run_share_len, secret, sizeof secret));
}

static void test_a_doubted_route_is_not_taken_until_there_is_another(void **state)
{
    uint64_t serial;

    (void)state;
    publish(1);
    serial = expect_route(1);
    run_share_doubt(share, serial);
    expect_no_route();
    run_share_doubt(share, serial);
    expect_no_route();
    publish(1);
    assert_true(expect_route(1) > serial);
}

static void test_doubt_about_an_older_route_does_not_concern_this_one(void **state)
{
    uint64_t serial;

    (void)state;
    publish(1);
    serial = expect_route(1);
    publish(2);
    run_share_doubt(share, serial);
    (void)expect_route(2);
    run_share_doubt(share, 0);
    (void)expect_route(2);
}

static void test_a_late_doubt_does_not_end_that_about_this_route(void **state)
{
    uint64_t older, serial;

    (void)state;
    publish(1);
    older = expect_route(1);
    publish(2);
    serial = expect_route(2);
    run_share_doubt(share, serial);
    run_share_doubt(share, older);
    expect_no_route();
    run_share_doubt(share, 0);
    run_share_doubt(share, serial + 2);
    expect_no_route();
}

static void test_a_doubt_about_a_route_to_come_is_none(void **state)
{
    uint64_t serial;

    (void)state;
    publish(1);
    serial = expect_route(1);
    run_share_doubt(share, serial + 2);
    publish(2);
    (void)expect_route(2);
}

/* Where the number is behind which the route lies: it is all that is left of a route that was withdrawn. */
static size_t route_sequence(void)
{
    size_t at;

    remember();
    publish(3);
    run_share_withdraw(share);
    assert_int_equal(count_changes(sizeof(uint64_t)), 1);
    at = first_change(sizeof(uint64_t));
    wipe();
    return at;
}

static void test_a_route_of_a_dead_writer_is_passed_over(void **state)
{
    size_t sequence = route_sequence();

    (void)state;
    publish(1);
    poke64(sequence, peek64(sequence) + 1);
    expect_no_route();
    remember();
    publish(2); /* nobody can tell who else writes: better none than half of one */
    expect_no_route();
    run_share_withdraw(share);
    expect_no_route();
    assert_int_equal(count_changes(1), 0);
    poke64(sequence, peek64(sequence) + 1);
    publish(3);
    (void)expect_route(3);
}

static void test_serials_are_never_0_whatever_the_memory_says(void **state)
{
    size_t sequence = route_sequence();

    (void)state;
    for (uint64_t step = 0; step < 8; step++) {
        struct run_route route;

        poke64(sequence, UINT64_MAX - step);
        publish(1);
        assert_true(!run_share_route(share, &route) || (is_route_whole(&route) && route.namespace == 1));
    }
    poke64(sequence, UINT64_MAX - 1);
    publish(1);
    publish(2);
    (void)expect_route(2);
}

static void test_a_session_longer_than_its_place_is_no_route(void **state)
{
    static const uint32_t bad[] = {RUN_ROUTE_SESSION_MAX + 1, RUN_ROUTE_SESSION_MAX + 4, 0x10000, 0x80000000u,
                                   UINT32_MAX};
    const uint32_t mark = 253;
    struct run_route route = {.session_len = mark};
    size_t at = 0;

    (void)state;
    run_share_publish(share, &route);
    for (size_t i = 0; i + sizeof mark <= run_share_len; i += sizeof mark) {
        if (peek32(i) == mark) {
            assert_int_equal(at, 0);
            at = i;
        }
    }
    assert_true(at > 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        poke32(at, bad[i]);
        expect_no_route();
    }
    poke32(at, RUN_ROUTE_SESSION_MAX);
    assert_true(run_share_route(share, &route));
    assert_int_equal(route.session_len, RUN_ROUTE_SESSION_MAX);
}

/* --- the sockets --- */

static void test_a_socket_is_found_as_it_was_put(void **state)
{
    (void)state;
    put_version(1, 10);
    put_version(UINT64_MAX, 11);
    assert_int_equal(version_of(1), 10);
    assert_int_equal(version_of(UINT64_MAX), 11);
    assert_int_equal(version_of(2), -1);
}

static void test_an_unknown_socket_leaves_the_addresses_alone(void **state)
{
    struct run_addr peer = addr_of(1), local = addr_of(2);

    (void)state;
    put_version(5, 1);
    assert_false(run_share_get(share, 6, &peer, &local));
    assert_true(is_addr_of(&peer, 1));
    assert_true(is_addr_of(&local, 2));
}

static void test_cookie_0_is_no_socket(void **state)
{
    (void)state;
    put_version(0, 1);
    assert_int_equal(version_of(0), -1);
}

static void test_a_socket_put_again_has_one_entry(void **state)
{
    (void)state;
    put_version(1, 1);
    remember();
    put_version(1, 1);
    assert_int_equal(count_changes(sizeof(uint64_t)), 1); /* the sequence */
    for (uint32_t version = 2; version < 100; version++) {
        put_version(1, version);
        assert_int_equal(version_of(1), version);
    }
}

/* Where the sequence of the entry is that holds `cookie`. */
static size_t entry_sequence(uint64_t cookie)
{
    int64_t version = version_of(cookie);

    assert_true(version >= 0);
    remember();
    put_version(cookie, (uint32_t)version);
    assert_int_equal(count_changes(sizeof(uint64_t)), 1);
    return first_change(sizeof(uint64_t));
}

/* Cookies that contend for the same places, in memory that is empty before and after. */
static void find_rivals(uint64_t *out, size_t count)
{
    size_t place;
    size_t found = 1;

    out[0] = 1;
    put_version(1, 0);
    place = entry_sequence(1);
    wipe();
    for (uint64_t cookie = 2; found < count; cookie++) {
        assert_true(cookie < 1u << 24);
        put_version(cookie, 0);
        if (peek64(place) != 0) {
            out[found++] = cookie;
            wipe();
        }
    }
    wipe();
}

static void test_in_a_full_set_an_old_one_gives_way(void **state)
{
    uint64_t rivals[MANY_RIVALS];
    size_t known = 0;

    (void)state;
    find_rivals(rivals, MANY_RIVALS);
    for (size_t i = 0; i < MANY_RIVALS; i++) {
        size_t still = 0;

        put_version(rivals[i], (uint32_t)i);
        assert_int_equal(version_of(rivals[i]), i);
        for (size_t j = 0; j < i; j++) {
            int64_t version = version_of(rivals[j]);

            assert_true(version == -1 || version == (int64_t)j);
            still += version >= 0;
        }
        assert_true(still == known || still + 1 == known); /* one for one, once it is full */
        known = still + 1;
    }
    assert_true(known >= 2 && known < WAYS_MAX);
    for (size_t i = 0; i < known; i++) {
        assert_int_equal(version_of(rivals[i]), -1);
    }
}

/* The kernel counts cookies up. Of the latest sockets nearly all are known, whatever was before them, and the last one always. */
static void test_the_latest_sockets_are_known_after_many(void **state)
{
    static const uint64_t steps[] = {1, 2, 16, 4096};
    const uint64_t count = 40000, latest = 256;

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        uint64_t known = 0, known_of_latest = 0;

        wipe();
        for (uint64_t n = 1; n <= count; n++) {
            put_version(n * steps[i], (uint32_t)n);
        }
        for (uint64_t n = 1; n <= count; n++) {
            int64_t version = version_of(n * steps[i]);

            assert_true(version == -1 || version == (int64_t)n);
            known += version != -1;
            known_of_latest += version != -1 && n > count - latest;
        }
        assert_int_equal(version_of(count * steps[i]), count);
        assert_true(known < count);
        assert_true(known_of_latest * 100 >= latest * 95);
    }
}

/* Each processor counts up in 4096 cookies of its own (include/linux/cookie.h of the kernel). */
static void test_processors_do_not_drive_each_other_out(void **state)
{
    const uint64_t processors = 16, each = 256; /* a quarter of the table */
    uint64_t known = 0;

    (void)state;
    for (uint64_t n = 1; n <= each; n++) {
        for (uint64_t processor = 0; processor < processors; processor++) {
            put_version(processor * 4096 + n, (uint32_t)n);
        }
    }
    for (uint64_t n = 1; n <= each; n++) {
        for (uint64_t processor = 0; processor < processors; processor++) {
            known += version_of(processor * 4096 + n) == (int64_t)n;
        }
    }
    assert_true(known * 100 >= processors * each * 85);
}

static void test_an_entry_of_a_dead_writer_is_passed_over(void **state)
{
    size_t dead;
    uint8_t entry[64];

    (void)state;
    put_version(1, 1);
    dead = entry_sequence(1);
    poke64(dead, peek64(dead) + 1);
    memcpy(entry, bytes + dead, sizeof entry);
    assert_int_equal(version_of(1), -1);
    put_version(1, 2);
    assert_int_equal(version_of(1), 2);
    put_version(1, 3);
    assert_int_equal(version_of(1), 3);
    assert_memory_equal(entry, bytes + dead, sizeof entry);
}

static void test_a_set_of_dead_writers_takes_nothing_more(void **state)
{
    size_t dead[WAYS_MAX];
    uint64_t rivals[2];
    size_t count = 0;

    (void)state;
    find_rivals(rivals, 2);
    for (;;) {
        put_version(rivals[0], (uint32_t)count);
        if (version_of(rivals[0]) < 0) {
            break;
        }
        assert_int_equal(version_of(rivals[0]), count);
        assert_true(count < WAYS_MAX);
        dead[count] = entry_sequence(rivals[0]);
        poke64(dead[count], peek64(dead[count]) + 1);
        count++;
    }
    assert_true(count >= 2);
    remember();
    put_version(rivals[0], 100);
    put_version(rivals[1], 101);
    assert_int_equal(count_changes(1), 0);
    assert_int_equal(version_of(rivals[1]), -1);
    for (size_t i = 0; i < count; i++) {
        poke64(dead[i], peek64(dead[i]) + 1);
        put_version(rivals[1], (uint32_t)(200 + i));
        assert_int_equal(version_of(rivals[1]), 200 + i);
    }
}

/* --- networks --- */

static struct run_addr host(const char *text)
{
    struct run_addr addr = {.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET, .port = 80};

    assert_int_equal(inet_pton(addr.family, text, addr.bytes), 1);
    return addr;
}

static bool add_network(const char *text, unsigned bits)
{
    struct run_addr addr = host(text);

    return run_share_add_network(share, &addr, bits);
}

static bool is_left_out(const char *text)
{
    struct run_addr addr = host(text);

    return run_share_has_network(share, &addr);
}

static void test_networks_hold_what_begins_like_them(void **state)
{
    static const struct {
        const char *network;
        unsigned bits;
        const char *within[4], *outside[4];
    } cases[] = {
        {"192.0.2.1", 32, {"192.0.2.1", "::ffff:192.0.2.1"}, {"192.0.2.0", "192.0.2.3", "::192.0.2.1", "c000:201::"}},
        {"10.1.2.3", 8, {"10.0.0.0", "10.255.255.255"}, {"9.255.255.255", "11.0.0.0", "::ffff:11.0.0.0"}},
        {"192.0.2.130", 25, {"192.0.2.128", "192.0.2.255"}, {"192.0.2.127", "192.0.3.128"}},
        {"0.0.0.0", 0, {"0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"}, {"::", "::1", "::fffe:0:0", "2001:db8::"}},
        {"::", 0, {"::", "ffff::", "192.0.2.1"}, {NULL}},
        {"2001:db8::1", 128, {"2001:db8::1"}, {"2001:db8::", "2001:db8::3", "2001:db9::1"}},
        {"2001:db8::", 32, {"2001:db8::", "2001:db8:ffff::ffff"}, {"2001:db7::", "2001:db9::", "32.1.13.184"}},
        {"2001:db8:1:2::", 64, {"2001:db8:1:2::", "2001:db8:1:2:8000::"}, {"2001:db8:1:3::", "2001:db8:1:1::"}},
        {"2001:db8:1:2:8000::", 65, {"2001:db8:1:2:8000::", "2001:db8:1:2:ffff::"}, {"2001:db8:1:2:7fff::"}},
        {"fe80::", 10, {"fe80::1", "febf::"}, {"fec0::", "fe7f::"}},
        {"::1", 127, {"::1", "::"}, {"::2"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wipe();
        assert_true(add_network(cases[i].network, cases[i].bits));
        for (size_t k = 0; k < 4 && cases[i].within[k] != NULL; k++) {
            assert_true(is_left_out(cases[i].within[k]));
        }
        for (size_t k = 0; k < 4 && cases[i].outside[k] != NULL; k++) {
            assert_false(is_left_out(cases[i].outside[k]));
        }
    }
}

static void test_networks_stay(void **state)
{
    (void)state;
    assert_false(is_left_out("192.0.2.1"));
    assert_true(add_network("192.0.2.1", 32));
    publish(1);
    assert_true(add_network("2001:db8::", 32));
    run_share_withdraw(share);
    publish(2);
    assert_true(is_left_out("192.0.2.1"));
    assert_true(is_left_out("2001:db8::1"));
    assert_false(is_left_out("192.0.2.2"));
    (void)expect_route(2);
}

static struct run_addr numbered(unsigned number)
{
    return (struct run_addr){.family = AF_INET, .bytes = {10, 0, (uint8_t)(number >> 8), (uint8_t)number}};
}

static bool add_numbered(unsigned number)
{
    struct run_addr addr = numbered(number);

    return run_share_add_network(share, &addr, 32);
}

static void test_networks_take_room_once(void **state)
{
    (void)state;
    assert_true(add_network("192.0.2.0", 24));
    for (unsigned i = 0; i < RUN_SHARE_NETWORKS_MAX; i++) { /* all in that one */
        assert_true(add_network("192.0.2.0", 24));
        assert_true(add_network("192.0.2.7", 32));
    }
    for (unsigned i = 1; i < RUN_SHARE_NETWORKS_MAX; i++) {
        assert_true(add_numbered(i));
    }
    assert_false(add_numbered(0));
    assert_false(add_network("192.0.0.0", 16)); /* more than that one */
    assert_true(add_numbered(1));
    assert_true(add_network("192.0.2.128", 25));
    assert_true(is_left_out("10.0.0.255"));
    assert_false(is_left_out("10.0.0.0"));
}

static void test_a_damaged_count_of_networks_leads_nowhere(void **state)
{
    size_t at;

    (void)state;
    remember();
    assert_true(add_network("::", 0)); /* which is all zero */
    assert_int_equal(count_changes(sizeof(uint32_t)), 1);
    at = first_change(sizeof(uint32_t));
    wipe();
    for (unsigned i = 1; i <= RUN_SHARE_NETWORKS_MAX; i++) {
        assert_true(add_numbered(i));
    }
    poke32(at, UINT32_MAX);
    remember();
    assert_false(add_numbered(0));
    assert_false(is_left_out("10.0.0.0"));
    assert_true(add_numbered(RUN_SHARE_NETWORKS_MAX));
    assert_int_equal(count_changes(1), 0);
}

/* --- tokens --- */

/* The next token is this one; whether its taker is to tell the helper. */
static bool expect_token(uint32_t want)
{
    uint32_t token = ~want;
    bool is_low;

    assert_true(run_share_take_token(share, &token, &is_low));
    assert_int_equal(token, want);
    return is_low;
}

static void expect_no_token(void)
{
    uint32_t token = 4711;
    bool is_low = true;

    assert_int_equal(run_share_tokens_left(share), 0);
    assert_false(run_share_take_token(share, &token, &is_low));
    assert_int_equal(token, 4711);
    assert_false(is_low);
}

static void test_tokens_are_given_out_in_order_and_once(void **state)
{
    static const uint32_t firsts[] = {0, 1, 0x7ffffff0u, 0xffffffe0u}; /* and around the end */

    (void)state;
    expect_no_token();
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        run_share_put_tokens(share, firsts[i], 64);
        for (uint32_t j = 0; j < 64; j++) {
            assert_int_equal(run_share_tokens_left(share), 64 - j);
            (void)expect_token(firsts[i] + j);
        }
        expect_no_token();
    }
}

static void test_tokens_behind_those_that_are_left_join_them(void **state)
{
    (void)state;
    run_share_put_tokens(share, 100, 3);
    (void)expect_token(100);
    run_share_put_tokens(share, 103, 2);
    assert_int_equal(run_share_tokens_left(share), 4);
    run_share_put_tokens(share, 105, 1);
    for (uint32_t token = 101; token < 106; token++) {
        (void)expect_token(token);
    }
    expect_no_token();

    run_share_put_tokens(share, UINT32_MAX - 1, 2); /* the next one is 0 */
    run_share_put_tokens(share, 0, 2);
    assert_int_equal(run_share_tokens_left(share), 4);
    (void)expect_token(UINT32_MAX - 1);
    (void)expect_token(UINT32_MAX);
    (void)expect_token(0);
    (void)expect_token(1);
    expect_no_token();
}

static void test_other_tokens_take_the_place_of_those_that_are_left(void **state)
{
    static const uint32_t others[] = {104, 102, 101, 99, 0}; /* 103 would be next */

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        run_share_put_tokens(share, 100, 3);
        run_share_put_tokens(share, others[i], 2);
        assert_int_equal(run_share_tokens_left(share), 2);
        (void)expect_token(others[i]);
        (void)expect_token(others[i] + 1);
        expect_no_token();
    }
    run_share_put_tokens(share, 100, 1);
    (void)expect_token(100);
    run_share_put_tokens(share, 101, 1); /* there is nothing any more that it could follow */
    (void)expect_token(101);
    expect_no_token();
}

static void test_who_takes_one_of_the_last_is_told(void **state)
{
    (void)state;
    run_share_put_tokens(share, 7, 40);
    for (uint32_t left = 40; left-- > 0;) {
        assert_int_equal(expect_token(46 - left), left == RUN_SHARE_TOKENS_LOW || left == 0);
    }
    for (unsigned count = 1; count <= RUN_SHARE_TOKENS_LOW;
         count++) { /* few from the beginning: only the last one tells */
        run_share_put_tokens(share, 1000, count);
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(expect_token(1000 + i), i + 1 == count);
        }
    }
}

static void test_tokens_that_are_left_can_be_taken_back(void **state)
{
    uint32_t first = 0;

    (void)state;
    assert_int_equal(run_share_take_tokens_back(share, &first), 0);
    run_share_put_tokens(share, 500, 20);
    (void)expect_token(500);
    (void)expect_token(501);
    assert_int_equal(run_share_take_tokens_back(share, &first), 18);
    assert_int_equal(first, 502);
    expect_no_token();
    assert_int_equal(run_share_take_tokens_back(share, &first), 0);
    run_share_put_tokens(share, 502, 18); /* and be lent again */
    (void)expect_token(502);
}

static void test_tokens_go_with_their_route(void **state)
{
    uint32_t base, size;

    (void)state;
    publish(1);
    run_share_put_tokens(share, 500, 20);
    run_share_tell_window(share, 500, 4096);
    publish(2);
    expect_no_token();
    assert_false(run_share_take_window(share, &base, &size));
    run_share_put_tokens(share, 600, 20); /* of the new one */
    (void)expect_token(600);
    run_share_doubt(share, expect_route(2));
    publish(2);
    expect_no_token();
}

static void test_a_window_is_taken_once_and_the_last_one_counts(void **state)
{
    uint32_t base, size;

    (void)state;
    assert_false(run_share_take_window(share, &base, &size));
    run_share_tell_window(share, 0xfffffff0u, 4096);
    assert_true(run_share_take_window(share, &base, &size));
    assert_int_equal(base, 0xfffffff0u);
    assert_int_equal(size, 4096);
    assert_false(run_share_take_window(share, &base, &size));
    run_share_tell_window(share, 1, 2);
    run_share_tell_window(share, 0, UINT32_MAX);
    assert_true(run_share_take_window(share, &base, &size));
    assert_int_equal(base, 0);
    assert_int_equal(size, UINT32_MAX);
    assert_false(run_share_take_window(share, &base, &size));
    run_share_tell_window(share, 77, 0); /* that is none */
    assert_false(run_share_take_window(share, &base, &size));
    assert_false(run_share_take_window(share, &base, &size));
}

/* --- hints --- */

/* How many calls go without waiting before one is patient. */
static unsigned count_hurries(void)
{
    unsigned count = 0;

    while (!run_share_is_patient(share)) {
        count++;
        assert_true(count <= RUN_SHARE_PATIENCE_MAX);
    }
    return count;
}

static void test_patience_halves_with_each_miss_and_comes_back_at_once(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (unsigned want = 1; want <= RUN_SHARE_PATIENCE_MAX; want *= 2) {
            run_share_was_quick(share, false);
            assert_int_equal(count_hurries(), want);
            assert_int_equal(count_hurries(), 0);
        }
        run_share_was_quick(share, false);
        assert_int_equal(count_hurries(), RUN_SHARE_PATIENCE_MAX);
        run_share_was_quick(share, false);
        run_share_was_quick(share, true);
        assert_int_equal(count_hurries(), 0);
    }
}

/* The counters are what one miss has changed: how many there were, and how many calls are left. */
static void test_damaged_patience_comes_back(void **state)
{
    static const uint32_t garbage[] = {10, 257, 0x7fffffff, 0x80000000u, UINT32_MAX - 1, UINT32_MAX};
    size_t at[2];
    size_t count = 0;

    (void)state;
    remember();
    run_share_was_quick(share, false);
    assert_int_equal(count_changes(sizeof(uint32_t)), 2);
    for (size_t i = first_change(sizeof(uint32_t)); count < 2; i += sizeof(uint32_t)) {
        if (peek32(i) != 0) {
            at[count++] = i;
        }
    }
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        for (unsigned which = 1; which < 4; which++) {
            for (size_t j = 0; j < 2; j++) {
                if ((which & 1u << j) != 0) {
                    poke32(at[j], garbage[i]);
                }
            }
            (void)count_hurries(); /* at most RUN_SHARE_PATIENCE_MAX */
            run_share_was_quick(share, false);
            (void)count_hurries();
            run_share_was_quick(share, true);
            assert_int_equal(count_hurries(), 0);
            run_share_was_quick(share, false);
            assert_int_equal(count_hurries(), 1);
        }
    }
}

static void test_ipv6_news_is_taken_once_and_the_last_one_counts(void **state)
{
    (void)state;
    run_share_tell_ipv6(share, RUN_SHARE_IPV6_WORKS);
    assert_int_equal(run_share_take_ipv6(share), RUN_SHARE_IPV6_WORKS);
    assert_int_equal(run_share_take_ipv6(share), RUN_SHARE_IPV6_NO_NEWS);
    run_share_tell_ipv6(share, RUN_SHARE_IPV6_WORKS);
    run_share_tell_ipv6(share, RUN_SHARE_IPV6_UNREACHABLE);
    assert_int_equal(run_share_take_ipv6(share), RUN_SHARE_IPV6_UNREACHABLE);
    assert_int_equal(run_share_take_ipv6(share), RUN_SHARE_IPV6_NO_NEWS);
}

static void test_ipv6_garbage_is_no_news(void **state)
{
    static const uint32_t garbage[] = {
        3, 255, 256 + RUN_SHARE_IPV6_WORKS, 0x10000 + RUN_SHARE_IPV6_UNREACHABLE, 0x80000000u, UINT32_MAX};
    size_t at;

    (void)state;
    remember();
    run_share_tell_ipv6(share, RUN_SHARE_IPV6_WORKS);
    assert_int_equal(count_changes(sizeof(uint32_t)), 1);
    at = first_change(sizeof(uint32_t));
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        poke32(at, garbage[i]);
        assert_int_equal(run_share_take_ipv6(share), RUN_SHARE_IPV6_NO_NEWS);
        assert_int_equal(peek32(at), 0);
    }
}

/* --- everything at once --- */

/* Whatever is there: one less after one was taken, and what is put is there. */
static void use_tokens(uint32_t first)
{
    unsigned left = run_share_tokens_left(share);
    uint32_t token, base, size;
    bool is_low;

    assert_int_equal(run_share_take_token(share, &token, &is_low), left > 0);
    left -= left > 0;
    assert_int_equal(run_share_tokens_left(share), left);
    assert_int_equal(run_share_take_tokens_back(share, &token), left);
    run_share_put_tokens(share, first, 1);
    assert_int_equal(run_share_tokens_left(share), 1);
    (void)run_share_take_window(share, &base, &size);
    assert_false(run_share_take_window(share, &base, &size));
}

static void test_random_memory_does_no_harm(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < run_share_len; i++) {
            random = random * 1664525u + 1013904223u;
            bytes[i] = (uint8_t)(random >> 24);
        }
        for (uint64_t cookie = 1; cookie < 1000; cookie++) {
            struct run_addr peer, local;
            struct run_route route;

            if (run_share_route(share, &route)) {
                assert_true(route.serial != 0 && route.session_len <= RUN_ROUTE_SESSION_MAX);
            }
            put_version(cookie, 5);
            if (run_share_get(share, cookie, &peer, &local)) {
                assert_true(is_whole(cookie, &peer, &local));
            }
            (void)run_share_is_patient(share);
            run_share_was_quick(share, cookie % 2 == 0);
            (void)run_share_take_ipv6(share);
            (void)is_left_out("192.0.2.1");
            (void)add_numbered((unsigned)cookie);
            use_tokens((uint32_t)cookie);
            run_share_doubt(share, cookie);
            publish(cookie);
            expect_no_token();
        }
        run_share_withdraw(share);
        expect_no_route();
    }
}

/*
 * Writers and readers at the same few places. Each is a function of a number and returns whether all that it saw was whole; they end
 * by themselves, the readers once nobody writes any more.
 */
#define RIVALS 6u
#define WRITERS 3u
#define READERS 2u
#define ROUNDS 20000u

static uint64_t rivals[RIVALS];

struct hammer {
    atomic_uint writing; /* writers that are at it */
    atomic_uint torn;
    atomic_ulong seen;
};

static struct hammer *hammer; /* in shared memory */

static void note_torn(bool is_whole_one)
{
    if (is_whole_one) {
        atomic_fetch_add_explicit(&hammer->seen, 1, memory_order_relaxed);
    } else {
        atomic_fetch_add(&hammer->torn, 1);
    }
}

static void look_up_all(void)
{
    for (size_t i = 0; i < RIVALS; i++) {
        struct run_addr peer, local;

        if (run_share_get(share, rivals[i], &peer, &local)) {
            note_torn(is_whole(rivals[i], &peer, &local));
        }
    }
}

static void look_at_route(uint64_t *last)
{
    struct run_route route;

    if (run_share_route(share, &route)) {
        note_torn(is_route_whole(&route) && route.serial >= *last);
        *last = route.serial;
        if (route.namespace % 1024 == 0) {
            run_share_doubt(share, route.serial);
        }
    }
}

static void *write_sockets(void *arg)
{
    uint32_t number = *(const uint32_t *)arg;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        put_version(rivals[(i * (number + 1) + number) % RIVALS], i * WRITERS + number);
        if (i % 16 == 0) {
            look_up_all();
        }
    }
    atomic_fetch_sub(&hammer->writing, 1);
    return NULL;
}

static void *write_routes(void *arg)
{
    (void)arg;
    for (uint64_t i = 1; i < ROUNDS; i++) {
        publish(i);
        if (i % 256 == 0) {
            run_share_withdraw(share);
        }
    }
    publish(1);
    atomic_fetch_sub(&hammer->writing, 1);
    return NULL;
}

static void *read_all(void *arg)
{
    uint64_t last = 0;
    bool goes_on;

    (void)arg;
    do {
        goes_on = atomic_load(&hammer->writing) > 0;
        look_up_all();
        look_at_route(&last);
        (void)run_share_is_patient(share);
        run_share_was_quick(share, last % 8 == 0);
        run_share_tell_ipv6(share, RUN_SHARE_IPV6_WORKS);
        note_torn(run_share_take_ipv6(share) <= RUN_SHARE_IPV6_WORKS);
    } while (goes_on);
    return NULL;
}

#define HANDS (WRITERS + 1u + READERS)

/* Hand `i`: writers of sockets, the one writer of routes, readers. */
static void *(*hand(size_t i))(void *)
{
    return i < WRITERS ? write_sockets : i == WRITERS ? write_routes : read_all;
}

static uint32_t numbers[HANDS];

static void begin_hammering(void)
{
    find_rivals(rivals, RIVALS);
    hammer = mmap(NULL, sizeof *hammer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(hammer != MAP_FAILED);
    atomic_store(&hammer->writing, WRITERS + 1);
    for (uint32_t i = 0; i < HANDS; i++) {
        numbers[i] = i;
    }
}

static void end_hammering(void)
{
    struct run_route route;
    size_t known = 0;

    assert_int_equal(atomic_load(&hammer->writing), 0);
    assert_int_equal(atomic_load(&hammer->torn), 0);
    assert_true(atomic_load(&hammer->seen) > ROUNDS / 16);
    for (size_t i = 0; i < RIVALS; i++) { /* nobody is left writing */
        known += version_of(rivals[i]) >= 0;
    }
    assert_true(known >= 1);
    assert_true(run_share_route(share, &route));
    assert_true(is_route_whole(&route) && route.namespace == 1);
    assert_int_equal(munmap(hammer, sizeof *hammer), 0);
}

static void test_threads_read_what_is_whole(void **state)
{
    pthread_t threads[HANDS];

    (void)state;
    begin_hammering();
    for (size_t i = 0; i < HANDS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hand(i), &numbers[i]), 0);
    }
    for (size_t i = 0; i < HANDS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    end_hammering();
}

static void test_processes_read_what_is_whole(void **state)
{
    pid_t children[HANDS];

    (void)state;
    begin_hammering();
    for (size_t i = 0; i < HANDS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            (void)hand(i)(&numbers[i]);
            _exit(0);
        }
    }
    for (size_t i = 0; i < HANDS; i++) {
        int status;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    end_hammering();
}

/* Those who take tokens while one puts others. Each one may be taken once. */
#define TAKERS 4u
#define BLOCKS 32768u
#define BLOCK_LEN 4u
#define TOKENS (BLOCKS * BLOCK_LEN)
#define FIRST_TOKEN 0xffff0000u /* they go round */

struct purse {
    atomic_uint is_over;
    atomic_uint wrong; /* tokens that were not put, or taken twice */
    atomic_uint told;  /* takers that were told that there are few */
    atomic_uchar spent[TOKENS];
};

static struct purse *purse;

static void spend(uint32_t token)
{
    uint32_t place = token - FIRST_TOKEN;

    if (place >= TOKENS || atomic_fetch_add_explicit(&purse->spent[place], 1, memory_order_relaxed) != 0) {
        atomic_fetch_add(&purse->wrong, 1);
    }
}

static void *take_tokens(void *arg)
{
    bool goes_on;

    (void)arg;
    do {
        uint32_t token;
        bool is_low;

        goes_on = atomic_load(&purse->is_over) == 0;
        while (run_share_take_token(share, &token, &is_low)) {
            spend(token);
            atomic_fetch_add_explicit(&purse->told, is_low, memory_order_relaxed);
        }
        (void)sched_yield();
    } while (goes_on);
    return NULL;
}

/* While there are many it waits; more so before it replaces them. */
static void wait_until_used(bool is_next)
{
    while (run_share_tokens_left(share) > (is_next ? 100 * BLOCK_LEN : RUN_SHARE_TOKENS_LOW)) {
        (void)sched_yield();
    }
}

static void take_back(void)
{
    uint32_t first;
    unsigned count = run_share_take_tokens_back(share, &first);

    for (unsigned i = 0; i < count; i++) {
        spend(first + i);
    }
}

/* Most blocks follow the one before, so that they are put while others are taken; some do not. */
static void put_tokens(void)
{
    uint32_t last = BLOCKS;

    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t block = i ^ (i % 64 < 60 ? 0 : 1);

        wait_until_used(block == last + 1);
        if (i % 256 == 0) {
            take_back();
        }
        run_share_put_tokens(share, FIRST_TOKEN + block * BLOCK_LEN, BLOCK_LEN);
        last = block;
    }
    atomic_store(&purse->is_over, 1);
}

static void open_purse(void)
{
    purse = mmap(NULL, sizeof *purse, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(purse != MAP_FAILED);
}

static void close_purse(void)
{
    unsigned spent = 0;

    expect_no_token();
    assert_int_equal(atomic_load(&purse->wrong), 0);
    for (size_t i = 0; i < TOKENS; i++) {
        spent += atomic_load(&purse->spent[i]);
    }
    assert_true(spent <= TOKENS);
    assert_true(spent >= TOKENS - BLOCKS / 64 * 4 * RUN_SHARE_TOKENS_LOW); /* the rest was replaced */
    assert_true(atomic_load(&purse->told) > 0);
    assert_int_equal(munmap(purse, sizeof *purse), 0);
}

static void test_threads_take_no_token_twice(void **state)
{
    pthread_t threads[TAKERS];

    (void)state;
    open_purse();
    for (size_t i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_tokens, NULL), 0);
    }
    put_tokens();
    for (size_t i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    close_purse();
}

static void test_processes_take_no_token_twice(void **state)
{
    pid_t children[TAKERS];

    (void)state;
    open_purse();
    for (size_t i = 0; i < TAKERS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            (void)take_tokens(NULL);
            _exit(0);
        }
    }
    put_tokens();
    for (size_t i = 0; i < TAKERS; i++) {
        int status;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    close_purse();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(test_fresh_memory_knows_nothing),
        TEST(test_a_route_is_taken_as_it_was_published),
        TEST(test_the_publisher_does_not_choose_the_serial),
        TEST(test_a_withdrawn_route_is_gone_and_its_serial_too),
        TEST(test_a_withdrawn_route_leaves_no_session_behind),
        TEST(test_a_doubted_route_is_not_taken_until_there_is_another),
        TEST(test_doubt_about_an_older_route_does_not_concern_this_one),
        TEST(test_a_late_doubt_does_not_end_that_about_this_route),
        TEST(test_a_doubt_about_a_route_to_come_is_none),
        TEST(test_a_route_of_a_dead_writer_is_passed_over),
        TEST(test_serials_are_never_0_whatever_the_memory_says),
        TEST(test_a_session_longer_than_its_place_is_no_route),
        TEST(test_a_socket_is_found_as_it_was_put),
        TEST(test_an_unknown_socket_leaves_the_addresses_alone),
        TEST(test_cookie_0_is_no_socket),
        TEST(test_a_socket_put_again_has_one_entry),
        TEST(test_in_a_full_set_an_old_one_gives_way),
        TEST(test_the_latest_sockets_are_known_after_many),
        TEST(test_processors_do_not_drive_each_other_out),
        TEST(test_an_entry_of_a_dead_writer_is_passed_over),
        TEST(test_a_set_of_dead_writers_takes_nothing_more),
        TEST(test_networks_hold_what_begins_like_them),
        TEST(test_networks_stay),
        TEST(test_networks_take_room_once),
        TEST(test_a_damaged_count_of_networks_leads_nowhere),
        TEST(test_tokens_are_given_out_in_order_and_once),
        TEST(test_tokens_behind_those_that_are_left_join_them),
        TEST(test_other_tokens_take_the_place_of_those_that_are_left),
        TEST(test_who_takes_one_of_the_last_is_told),
        TEST(test_tokens_that_are_left_can_be_taken_back),
        TEST(test_tokens_go_with_their_route),
        TEST(test_a_window_is_taken_once_and_the_last_one_counts),
        TEST(test_patience_halves_with_each_miss_and_comes_back_at_once),
        TEST(test_damaged_patience_comes_back),
        TEST(test_ipv6_news_is_taken_once_and_the_last_one_counts),
        TEST(test_ipv6_garbage_is_no_news),
        TEST(test_random_memory_does_no_harm),
        TEST(test_threads_read_what_is_whole),
        TEST(test_processes_read_what_is_whole),
        TEST(test_threads_take_no_token_twice),
        TEST(test_processes_take_no_token_twice),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
