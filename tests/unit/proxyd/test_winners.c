#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "proxyd/winners.h"

#define LIFETIME_MS 600000u

static struct winners *winners;

static int open_table(void **state)
{
    (void)state;
    return winners_new(&winners);
}

static int close_table(void **state)
{
    (void)state;
    winners_free(winners);
    return 0;
}

static struct socks6_addr name(const char *text, uint16_t port)
{
    struct socks6_addr addr;
    assert_true(socks6_addr_name(text, strlen(text), port, &addr));
    return addr;
}

static struct socks6_addr address(const char *text, uint16_t port)
{
    struct socks6_addr addr;
    assert_int_equal(socks6_addr_parse(text, port, &addr), 0);
    return addr;
}

static void put(const char *text, const char *winner, uint64_t now_ms)
{
    struct socks6_addr key = name(text, 80), addr = address(winner, 80);
    winners_put(winners, &key, &addr, now_ms, LIFETIME_MS);
}

/* The winner of `text` is `expected` (NULL: nobody). */
static void expect(const char *text, uint16_t port, uint64_t now_ms, const char *expected)
{
    struct socks6_addr key = name(text, port), found;
    bool has_one = winners_find(winners, &key, now_ms, &found);
    assert_int_equal(has_one, expected != NULL);
    if (expected != NULL) {
        struct socks6_addr wanted = address(expected, port);
        assert_true(socks6_addr_equal(&found, &wanted));
    }
}

static void test_winner_is_found_by_name_and_port(void **state)
{
    (void)state;
    expect("a.test", 80, 1, NULL);
    put("a.test", "192.0.2.1", 1);
    put("b.test", "2001:db8::1", 1);
    expect("a.test", 80, 2, "192.0.2.1");
    expect("b.test", 80, 2, "2001:db8::1");
    expect("A.TEST.", 80, 2, "192.0.2.1");
    expect("a.test", 81, 2, NULL);
    expect("c.test", 80, 2, NULL);
    put("a.test", "192.0.2.2", 3);
    expect("a.test", 80, 4, "192.0.2.2");
}

static void test_memory_fades(void **state)
{
    (void)state;
    put("a.test", "192.0.2.1", 1000);
    expect("a.test", 80, 1000 + LIFETIME_MS - 1, "192.0.2.1");
    expect("a.test", 80, 1000 + LIFETIME_MS, NULL);
    put("a.test", "192.0.2.1", 1000 + LIFETIME_MS); /* it won again */
    expect("a.test", 80, 1000 + LIFETIME_MS + 1, "192.0.2.1");
}

static void test_winning_because_it_was_remembered_prolongs_nothing(void **state)
{
    (void)state;
    put("a.test", "192.0.2.1", 0);
    put("a.test", "192.0.2.1", LIFETIME_MS - 1);
    expect("a.test", 80, LIFETIME_MS, NULL);
    put("a.test", "192.0.2.1", LIFETIME_MS);
    put("a.test", "192.0.2.2", LIFETIME_MS + 10); /* another one: anew */
    expect("a.test", 80, 2 * LIFETIME_MS + 9, "192.0.2.2");
}

static void test_nothing_is_kept_without_a_lifetime(void **state)
{
    (void)state;
    struct socks6_addr key = name("a.test", 80), addr = address("192.0.2.1", 80);
    winners_put(winners, &key, &addr, 5, 0);
    expect("a.test", 80, 5, NULL);
}

static void test_forgotten_is_gone(void **state)
{
    (void)state;
    struct socks6_addr a = name("a.test", 80), other = name("other.test", 80);
    put("a.test", "192.0.2.1", 1);
    winners_forget(winners, &other);
    expect("a.test", 80, 2, "192.0.2.1");
    winners_forget(winners, &a);
    expect("a.test", 80, 2, NULL);
    winners_forget(winners, &a);
    winners_free(NULL);
}

/* Far more names than there is room for: the last ones are there, and the memory is that of the table. */
static void test_old_ones_make_way(void **state)
{
    (void)state;
    char text[32];
    unsigned found = 0;
    for (unsigned i = 0; i < 50000; i++) {
        (void)snprintf(text, sizeof text, "n%u.test", i);
        put(text, "192.0.2.1", i + 1);
        expect(text, 80, i + 2, "192.0.2.1");
    }
    for (unsigned i = 0; i < 50000; i++) {
        struct socks6_addr key, addr;
        (void)snprintf(text, sizeof text, "n%u.test", i);
        key = name(text, 80);
        found += winners_find(winners, &key, 50001, &addr);
    }
    assert_in_range(found, 4000, 4096);
}

static void *work(void *arg)
{
    char text[32];
    (void)arg;
    for (unsigned i = 0; i < 20000; i++) {
        struct socks6_addr key, addr;
        (void)snprintf(text, sizeof text, "n%u.test", i % 500);
        put(text, i % 2 == 0 ? "192.0.2.1" : "2001:db8::1", i);
        key = name(text, 80);
        if (winners_find(winners, &key, i, &addr)) {
            assert_true(addr.type == SOCKS6_ADDR_IPV4 || addr.type == SOCKS6_ADDR_IPV6);
        }
        if (i % 7 == 0) {
            winners_forget(winners, &key);
        }
    }
    return NULL;
}

static void test_workers_share_it(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    put("n1.test", "192.0.2.9", 30000);
    expect("n1.test", 80, 30001, "192.0.2.9");
}

#define TABLE_TEST(test) cmocka_unit_test_setup_teardown(test, open_table, close_table)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TABLE_TEST(test_winner_is_found_by_name_and_port),
        TABLE_TEST(test_memory_fades),
        TABLE_TEST(test_winning_because_it_was_remembered_prolongs_nothing),
        TABLE_TEST(test_nothing_is_kept_without_a_lifetime),
        TABLE_TEST(test_forgotten_is_gone),
        TABLE_TEST(test_old_ones_make_way),
        TABLE_TEST(test_workers_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
