/* The store of sessions, in memory; time is what the tests say it is. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/store_memory.h"

#define PLAIN "plain 192.0.2.1:1080 password"
#define TLS "tls 192.0.2.1:1443 password"

static struct store *store;
static struct store_limits limits;
static uint64_t now_ms;

static int setup(void **state)
{
    (void)state;
    now_ms = 1000;
    store_limits_init(&limits);
    return store_memory_new(&limits, &store);
}

static int teardown(void **state)
{
    (void)state;
    store_free(store);
    return 0;
}

static void use_limits(void)
{
    assert_int_equal(store_memory_set_limits(store, &limits), 0);
}

static struct socks6_slice text(const char *string)
{
    return (struct socks6_slice){(const uint8_t *)string, strlen(string)};
}

static struct socks6_addr address(uint32_t number)
{
    const uint8_t bytes[4] = {10, (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number};

    return socks6_addr_ipv4(bytes, 4321);
}

static struct socks6_slice id_of(const struct store_answer *answer)
{
    return (struct socks6_slice){answer->id, sizeof answer->id};
}

static struct store_answer start(const char *user, uint32_t client, const char *realm)
{
    struct store_query query = {.now_ms = now_ms};
    const struct store_owner owner = {.realm = realm, .user = text(user), .client = address(client)};

    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    return query.answer;
}

/* Not inlined: an answer is large, and some tests have many. */
__attribute__((noinline)) static enum store_status try_start(const char *user, uint32_t client, const char *realm)
{
    return start(user, client, realm).status;
}

static struct store_answer look_up(struct socks6_slice id, const char *realm)
{
    struct store_query query = {.now_ms = now_ms};

    assert_int_equal(store_session_lookup(store, &query, id, realm), STORE_NOW);
    return query.answer;
}

static struct store_answer end(struct socks6_slice id, const char *realm)
{
    struct store_query query = {.now_ms = now_ms};

    assert_int_equal(store_session_end(store, &query, id, realm), STORE_NOW);
    return query.answer;
}

static struct store_answer request_window(struct socks6_slice id, uint32_t size)
{
    struct store_query query = {.now_ms = now_ms};

    assert_int_equal(store_window_request(store, &query, id, PLAIN, size), STORE_NOW);
    return query.answer;
}

static struct store_answer spend(struct socks6_slice id, uint32_t token)
{
    struct store_query query = {.now_ms = now_ms};

    assert_int_equal(store_token_spend(store, &query, id, PLAIN, token), STORE_NOW);
    return query.answer;
}

static void test_a_session_is_found_with_its_user(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN), nobody = start("", 1, PLAIN), found;

    (void)state;
    assert_int_equal(alice.status, STORE_OK);
    assert_int_equal(nobody.status, STORE_OK);
    assert_memory_not_equal(alice.id, nobody.id, STORE_ID_LEN);
    assert_int_equal(store_session_count(store), 2);
    found = look_up(id_of(&alice), PLAIN);
    assert_int_equal(found.status, STORE_OK);
    assert_string_equal(found.user, "alice");
    assert_int_equal(found.user_len, 5);
    assert_int_equal(found.window.size, 0);
    found = look_up(id_of(&nobody), PLAIN);
    assert_int_equal(found.status, STORE_OK);
    assert_int_equal(found.user_len, 0);
}

static void test_ids_that_were_never_given_out_are_unknown(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN);
    uint8_t guess[256] = {0};

    (void)state;
    assert_int_equal(look_up((struct socks6_slice){guess, STORE_ID_LEN}, PLAIN).status, STORE_UNKNOWN);
    for (size_t bit = 0; bit < (size_t)8 * STORE_ID_LEN; bit++) {
        memcpy(guess, alice.id, sizeof alice.id);
        guess[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(look_up((struct socks6_slice){guess, STORE_ID_LEN}, PLAIN).status, STORE_UNKNOWN);
    }
    memcpy(guess, alice.id, sizeof alice.id);
    assert_int_equal(look_up((struct socks6_slice){guess, 4}, PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up((struct socks6_slice){guess, STORE_ID_LEN + 4}, PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up((struct socks6_slice){guess, sizeof guess}, PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up((struct socks6_slice){guess, STORE_ID_LEN}, PLAIN).status, STORE_OK);
}

static void test_a_session_is_bound_to_its_realm(void **state)
{
    struct store_answer alice = start("alice", 1, TLS);
    struct store_query query = {.now_ms = now_ms};

    (void)state;
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&alice), TLS "x").status, STORE_UNKNOWN);
    assert_int_equal(end(id_of(&alice), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(store_window_request(store, &query, id_of(&alice), PLAIN, 10), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_UNKNOWN);
    assert_int_equal(store_token_spend(store, &query, id_of(&alice), PLAIN, 0), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_UNKNOWN);
    assert_false(query.answer.accepted);
    assert_int_equal(look_up(id_of(&alice), TLS).status, STORE_OK); /* and none of it has ended it */
}

/* User and realm lie side by side in memory: where one ends and the other begins must count. */
static void test_user_and_realm_are_not_confused(void **state)
{
    struct store_answer a = start("ab", 1, "cd"), b = start("a", 1, "bcd");

    (void)state;
    assert_int_equal(look_up(id_of(&a), "bcd").status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&b), "cd").status, STORE_UNKNOWN);
    assert_string_equal(look_up(id_of(&a), "cd").user, "ab");
    assert_string_equal(look_up(id_of(&b), "bcd").user, "a");
}

static void test_teardown_ends_the_session(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN);

    (void)state;
    assert_int_equal(request_window(id_of(&alice), 10).status, STORE_OK);
    assert_int_equal(end(id_of(&alice), PLAIN).status, STORE_OK);
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(end(id_of(&alice), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(spend(id_of(&alice), 0).status, STORE_UNKNOWN);
    assert_int_equal(store_session_count(store), 0);
}

static void test_one_window_per_session(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN), window = request_window(id_of(&alice), 100), again;

    (void)state;
    assert_int_equal(window.status, STORE_OK);
    assert_int_equal(window.window.size, 100);
    assert_true(spend(id_of(&alice), window.window.base).accepted);
    again = request_window(id_of(&alice), 200);
    assert_int_equal(again.status, STORE_OK);
    assert_int_equal(again.window.size, 100);
    assert_int_equal(again.window.base, window.window.base + 1);
    assert_int_equal(look_up(id_of(&alice), PLAIN).window.base, window.window.base + 1);
}

static void test_windows_have_a_largest_size(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN), bob = start("bob", 1, PLAIN);

    (void)state;
    assert_int_equal(request_window(id_of(&alice), INT32_MAX).window.size, 4096);
    limits.window_size = 64;
    use_limits();
    assert_int_equal(request_window(id_of(&bob), 65).window.size, 64);
}

static void test_a_spend_tells_the_window_behind_it(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN), spent;
    uint32_t base = request_window(id_of(&alice), 100).window.base;

    (void)state;
    spent = spend(id_of(&alice), base + 1);
    assert_true(spent.accepted);
    assert_int_equal(spent.window.base, base);
    spent = spend(id_of(&alice), base);
    assert_true(spent.accepted);
    assert_int_equal(spent.window.base, base + 2);
    spent = spend(id_of(&alice), base);
    assert_int_equal(spent.status, STORE_OK);
    assert_false(spent.accepted);
    assert_int_equal(spent.window.base, base + 2);
    spent = spend(id_of(&alice), base + 70); /* over half a window ahead: the base follows */
    assert_true(spent.accepted);
    assert_int_equal(spent.window.base, base + 20);
    assert_false(spend(id_of(&alice), base + 19).accepted);
}

static void test_without_a_window_no_token_is_accepted(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN), spent = spend(id_of(&alice), 0);

    (void)state;
    assert_int_equal(spent.status, STORE_OK);
    assert_false(spent.accepted);
    assert_int_equal(spent.window.size, 0);
}

static void test_idle_sessions_end(void **state)
{
    struct store_answer idle = start("alice", 1, PLAIN), used = start("alice", 1, PLAIN);

    (void)state;
    limits.idle_ms = 10000;
    use_limits();
    now_ms += 9999;
    assert_int_equal(look_up(id_of(&used), PLAIN).status, STORE_OK);
    now_ms += 1;
    assert_int_equal(look_up(id_of(&idle), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&used), PLAIN).status, STORE_OK);
    now_ms += 10000;
    store_expire(store, now_ms);
    assert_int_equal(store_session_count(store), 0);
}

static struct store_answer start_for(const char *user, uint64_t valid_ms)
{
    struct store_query query = {.now_ms = now_ms};
    const struct store_owner owner = {.realm = PLAIN, .user = text(user), .client = address(1), .valid_ms = valid_ms};

    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_OK);
    return query.answer;
}

static void test_sessions_can_have_an_end_however_much_they_are_used(void **state)
{
    struct store_answer first = start_for("alice", 5000), long_one, second, other = start("alice", 1, PLAIN);

    (void)state;
    now_ms += 1000;
    long_one = start_for("bob", 60000);
    second = start_for("alice", 5000);
    now_ms += 3999;
    assert_int_equal(look_up(id_of(&first), PLAIN).status, STORE_OK);
    now_ms += 1;
    assert_int_equal(look_up(id_of(&first), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&second), PLAIN).status, STORE_OK);
    now_ms += 1000;
    assert_int_equal(request_window(id_of(&second), 4).status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&long_one), PLAIN).status, STORE_OK);
    now_ms += 60000;
    store_expire(store, now_ms);
    assert_int_equal(store_session_count(store), 1);
    assert_int_equal(store_expired_count(store), 3);
    assert_int_equal(look_up(id_of(&other), PLAIN).status, STORE_OK);
}

/* Out of the list of those that end by themselves from its head, its middle, its tail. */
static void test_sessions_with_an_end_can_end_before(void **state)
{
    static struct store_answer all[300];

    (void)state;
    limits.per_user = 0;
    use_limits();
    for (unsigned i = 0; i < 300; i++) {
        all[i] = start_for("alice", 5000);
    }
    for (unsigned i = 0; i < 300; i++) {
        if (i % 3 != 0) {
            assert_int_equal(end(id_of(&all[299 - i]), PLAIN).status, STORE_OK);
        }
    }
    assert_int_equal(store_session_count(store), 100);
    now_ms += 4999;
    store_expire(store, now_ms);
    assert_int_equal(store_session_count(store), 100);
    now_ms += 1;
    store_expire(store, now_ms);
    assert_int_equal(store_session_count(store), 0);
}

static void test_all_users_can_be_dropped_at_once(void **state)
{
    struct store_answer nobody = start("", 1, PLAIN), alice = start("alice", 1, PLAIN), bob = start_for("bob", 5000);

    (void)state;
    store_drop_every_user(store);
    assert_int_equal(store_session_count(store), 1);
    assert_int_equal(look_up(id_of(&nobody), PLAIN).status, STORE_OK);
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&bob), PLAIN).status, STORE_UNKNOWN);
}

static void test_tokens_and_windows_count_as_use(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN);
    uint32_t base;

    (void)state;
    limits.idle_ms = 10000;
    use_limits();
    now_ms += 6000;
    base = request_window(id_of(&alice), 10).window.base;
    now_ms += 6000;
    assert_true(spend(id_of(&alice), base).accepted);
    now_ms += 6000;
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_OK);
}

static void test_without_an_idle_limit_sessions_stay(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN);

    (void)state;
    limits.idle_ms = 0;
    use_limits();
    now_ms = UINT64_MAX;
    store_expire(store, now_ms);
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_OK);
}

/* A worker whose clock was read earlier asks later. */
static void test_time_does_not_go_back(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN);

    (void)state;
    limits.idle_ms = 10000;
    use_limits();
    now_ms += 5000;
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_OK);
    now_ms -= 4000;
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_OK);
    now_ms += 13000; /* 9000 after the later look */
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_OK);
}

static void test_caps_hold_each_by_itself(void **state)
{
    struct store_answer first;

    (void)state;
    limits.total = 7;
    limits.per_user = 2;
    limits.per_client = 3;
    limits.anonymous = 2;
    use_limits();
    first = start("alice", 1, PLAIN);
    assert_int_equal(try_start("alice", 1, TLS), STORE_OK); /* both realms count together */
    assert_int_equal(try_start("alice", 2, PLAIN), STORE_FULL_USER);
    assert_int_equal(try_start("bob", 1, PLAIN), STORE_OK);
    assert_int_equal(try_start("bob", 1, PLAIN), STORE_FULL_CLIENT);
    assert_int_equal(try_start("", 1, PLAIN), STORE_FULL_CLIENT);
    assert_int_equal(try_start("", 3, PLAIN), STORE_OK);
    assert_int_equal(try_start("", 4, PLAIN), STORE_OK);
    assert_int_equal(try_start("", 5, PLAIN), STORE_FULL_ANONYMOUS);
    assert_int_equal(try_start("bob", 2, PLAIN), STORE_OK);
    assert_int_equal(try_start("carol", 2, PLAIN), STORE_OK);
    assert_int_equal(store_session_count(store), 7);
    assert_int_equal(try_start("dave", 9, PLAIN), STORE_FULL);
    assert_int_equal(end(id_of(&first), PLAIN).status, STORE_OK);
    assert_int_equal(try_start("alice", 9, PLAIN), STORE_OK); /* a place that was given back */
    assert_int_equal(try_start("dave", 9, PLAIN), STORE_FULL);
}

/* A refusal must count for nothing, or caps would close for good. */
static void test_refusals_take_no_place(void **state)
{
    (void)state;
    limits.total = 100;
    limits.per_user = 1;
    limits.per_client = 50;
    limits.anonymous = 1;
    use_limits();
    assert_int_equal(try_start("alice", 1, PLAIN), STORE_OK);
    assert_int_equal(try_start("", 1, PLAIN), STORE_OK);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(try_start("alice", 1, PLAIN), STORE_FULL_USER);
        assert_int_equal(try_start("", 1, PLAIN), STORE_FULL_ANONYMOUS);
    }
    assert_int_equal(store_session_count(store), 2);
    for (int i = 0; i < 48; i++) {
        char name[16];

        (void)snprintf(name, sizeof name, "user%d", i);
        assert_int_equal(try_start(name, 1, PLAIN), STORE_OK);
    }
    assert_int_equal(try_start("last", 1, PLAIN), STORE_FULL_CLIENT);
}

static void test_addresses_of_one_network_are_one_client(void **state)
{
    struct store_query query = {.now_ms = now_ms};
    struct store_owner owner = {.realm = PLAIN, .user = text("alice")};
    uint8_t bytes[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};

    (void)state;
    limits.per_client = 1;
    use_limits();
    owner.client = socks6_addr_ipv6(bytes, 1);
    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_OK);
    bytes[15] = 2;
    owner.client = socks6_addr_ipv6(bytes, 1);
    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_FULL_CLIENT);
    bytes[7] = 1;
    owner.client = socks6_addr_ipv6(bytes, 1);
    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_OK);
}

static size_t heap_in_use(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* A million requests, each from an address of its own: memory as well as sessions stop at the cap. */
static void test_a_full_store_keeps_its_sessions(void **state)
{
    struct store_answer alice = start("alice", 1, PLAIN);
    size_t full = 0;

    (void)state;
    limits.per_client = 0;
    limits.anonymous = 1000;
    use_limits();
    for (uint32_t i = 0; i < 1000000; i++) {
        enum store_status wanted = i < 1000 ? STORE_OK : STORE_FULL_ANONYMOUS;

        assert_int_equal(try_start("", i, PLAIN), wanted);
        if (i == 2000) {
            full = heap_in_use();
        }
    }
    assert_in_range(heap_in_use(), 0, full + 65536);
    assert_int_equal(store_session_count(store), 1001);
    assert_int_equal(look_up(id_of(&alice), PLAIN).status, STORE_OK);
    assert_int_equal(try_start("bob", 1, PLAIN), STORE_OK);
}

static void test_users_are_dropped_with_all_their_sessions(void **state)
{
    static struct store_answer alice[20];
    struct store_answer alicia = start("alicia", 1, PLAIN), nobody = start("", 1, PLAIN), bob = start("bob", 1, PLAIN),
                        carol = start("carol", 1, PLAIN);
    const struct socks6_slice names[] = {text("alice"), text("bob"), text("zed")};

    (void)state;
    for (size_t i = 0; i < 20; i++) {
        alice[i] = start("alice", 1, i % 2 == 0 ? PLAIN : TLS);
        assert_int_equal(alice[i].status, STORE_OK);
    }
    store_drop_users(store, names, 0);
    assert_int_equal(store_session_count(store), 24);
    store_drop_users(store, names, 3);
    assert_int_equal(store_session_count(store), 3);
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(look_up(id_of(&alice[i]), i % 2 == 0 ? PLAIN : TLS).status, STORE_UNKNOWN);
    }
    assert_int_equal(look_up(id_of(&bob), PLAIN).status, STORE_UNKNOWN);
    assert_int_equal(look_up(id_of(&alicia), PLAIN).status, STORE_OK);
    assert_int_equal(look_up(id_of(&nobody), PLAIN).status, STORE_OK);
    assert_int_equal(look_up(id_of(&carol), PLAIN).status, STORE_OK);
    assert_int_equal(try_start("alice", 1, PLAIN), STORE_OK);
}

/* Many sessions with windows come and go; what they took is given back. (Sanitizers have their own heap: no figures.) */
static void test_memory_is_given_back(void **state)
{
    size_t before = heap_in_use();

    (void)state;
    limits.per_client = 0;
    limits.idle_ms = 1000;
    use_limits();
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 10000; i++) {
            struct store_answer session = start("", i, PLAIN);

            assert_int_equal(session.status, STORE_OK);
            assert_int_equal(request_window(id_of(&session), 4096).window.size, 4096);
        }
        assert_int_equal(store_session_count(store), 10000);
        if (before > 0) {
            assert_in_range(heap_in_use() - before, (size_t)10000 * 512, (size_t)10000 * 1024);
        }
        now_ms += 1000;
        store_expire(store, now_ms);
        assert_int_equal(store_session_count(store), 0);
        if (before > 0) {
            assert_in_range(heap_in_use(), 0, before + 200000);
        }
    }
}

static void test_limits_out_of_range_are_refused(void **state)
{
    struct store *other = NULL;

    (void)state;
    limits.total = 0;
    assert_int_equal(store_memory_set_limits(store, &limits), -EINVAL);
    assert_int_equal(store_memory_new(&limits, &other), -EINVAL);
    assert_null(other);
    limits.total = 1;
    limits.window_size = 0;
    assert_int_equal(store_memory_set_limits(store, &limits), -EINVAL);
    limits.window_size = 4097;
    assert_int_equal(store_memory_set_limits(store, &limits), -EINVAL);
    store_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_session_is_found_with_its_user),
        TEST(test_ids_that_were_never_given_out_are_unknown),
        TEST(test_a_session_is_bound_to_its_realm),
        TEST(test_user_and_realm_are_not_confused),
        TEST(test_teardown_ends_the_session),
        TEST(test_one_window_per_session),
        TEST(test_windows_have_a_largest_size),
        TEST(test_a_spend_tells_the_window_behind_it),
        TEST(test_without_a_window_no_token_is_accepted),
        TEST(test_idle_sessions_end),
        TEST(test_sessions_can_have_an_end_however_much_they_are_used),
        TEST(test_sessions_with_an_end_can_end_before),
        TEST(test_all_users_can_be_dropped_at_once),
        TEST(test_tokens_and_windows_count_as_use),
        TEST(test_without_an_idle_limit_sessions_stay),
        TEST(test_time_does_not_go_back),
        TEST(test_caps_hold_each_by_itself),
        TEST(test_refusals_take_no_place),
        TEST(test_addresses_of_one_network_are_one_client),
        TEST(test_a_full_store_keeps_its_sessions),
        TEST(test_users_are_dropped_with_all_their_sessions),
        TEST(test_memory_is_given_back),
        TEST(test_limits_out_of_range_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
