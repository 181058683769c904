#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/limits.h"

static struct limits *limits;

static int setup(void **state)
{
    (void)state;
    return limits_new(&limits);
}

static int teardown(void **state)
{
    (void)state;
    limits_free(limits);
    return 0;
}

static void set_ipv4(struct socks6_addr *out, uint32_t number)
{
    const uint8_t bytes[4] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8),
                              (uint8_t)number};

    *out = socks6_addr_ipv4(bytes, 1234);
}

enum { TOTAL_FULL = 100 };

/* As a listener does it: a place first, then the client's count. enum limits_verdict, or TOTAL_FULL. */
static int take(const struct socks6_addr *client, uint32_t total_max, uint32_t per_client_max)
{
    enum limits_verdict verdict;

    if (!limits_reserve(limits, total_max)) {
        return TOTAL_FULL;
    }
    verdict = limits_acquire(limits, client, per_client_max);
    if (verdict != LIMITS_OK) {
        limits_unreserve(limits);
    }
    return (int)verdict;
}

static int acquire(uint32_t client, uint32_t total_max, uint32_t per_client_max)
{
    struct socks6_addr addr;

    set_ipv4(&addr, client);
    return take(&addr, total_max, per_client_max);
}

static void release(uint32_t client)
{
    struct socks6_addr addr;

    set_ipv4(&addr, client);
    limits_release(limits, &addr);
}

/* A host of the network 2001:db8:0:NETWORK::/64. */
static void set_ipv6(struct socks6_addr *out, uint8_t network, uint8_t host)
{
    const uint8_t bytes[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, network, [15] = host};

    *out = socks6_addr_ipv6(bytes, 1234);
}

static int acquire_ipv6(uint8_t network, uint8_t host, uint32_t per_client_max)
{
    struct socks6_addr addr;

    set_ipv6(&addr, network, host);
    return take(&addr, 0, per_client_max);
}

static void test_a_client_gets_its_share_and_no_more(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(acquire(1, 0, 3), LIMITS_OK);
    }
    assert_int_equal(acquire(1, 0, 3), LIMITS_CLIENT_FULL);
    assert_int_equal(acquire(2, 0, 3), LIMITS_OK);
    assert_int_equal(limits_total(limits), 4);
    release(1);
    assert_int_equal(acquire(1, 0, 3), LIMITS_OK);
    assert_int_equal(acquire(1, 0, 3), LIMITS_CLIENT_FULL);
    /* A reload may lower the limit below what there is, or lift it. */
    assert_int_equal(acquire(1, 0, 1), LIMITS_CLIENT_FULL);
    assert_int_equal(acquire(1, 0, 0), LIMITS_OK);
    assert_int_equal(limits_total(limits), 5);
}

static void test_the_total_is_a_limit_for_all(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(acquire(i, 5, 1), LIMITS_OK);
    }
    assert_int_equal(acquire(9, 5, 1), TOTAL_FULL);
    assert_int_equal(limits_total(limits), 5);
    /* What was refused was not counted for the client either. */
    release(0);
    assert_int_equal(acquire(9, 5, 1), LIMITS_OK);
    assert_int_equal(acquire(9, 0, 1), LIMITS_CLIENT_FULL);
}

static void test_the_port_of_a_client_does_not_matter(void **state)
{
    struct socks6_addr addr;

    (void)state;
    set_ipv4(&addr, 7);
    assert_int_equal(take(&addr, 0, 1), LIMITS_OK);
    addr.port = 4321;
    assert_int_equal(take(&addr, 0, 1), LIMITS_CLIENT_FULL);
    limits_release(limits, &addr);
    assert_int_equal(acquire(7, 0, 1), LIMITS_OK);
}

static void test_ipv6_clients_count_by_64(void **state)
{
    struct socks6_addr addr;

    (void)state;
    assert_int_equal(acquire_ipv6(1, 1, 2), LIMITS_OK);
    assert_int_equal(acquire_ipv6(1, 2, 2), LIMITS_OK);
    assert_int_equal(acquire_ipv6(1, 3, 2), LIMITS_CLIENT_FULL);
    assert_int_equal(acquire_ipv6(2, 1, 2), LIMITS_OK);
    set_ipv6(&addr, 1, 1);
    limits_release(limits, &addr);
    assert_int_equal(acquire_ipv6(1, 3, 2), LIMITS_OK);
}

static void test_an_ipv4_mapped_client_is_the_ipv4_client(void **state)
{
    const uint8_t mapped[16] = {[10] = 0xff, 0xff, 192, 0, 2, 1};
    const uint8_t low[16] = {[4] = 192, 0, 2, 1};
    struct socks6_addr addr = socks6_addr_ipv6(mapped, 1);

    (void)state;
    assert_int_equal(take(&addr, 0, 1), LIMITS_OK);
    assert_int_equal(acquire(0xc0000201, 0, 1), LIMITS_CLIENT_FULL);
    /* A /64 with the same number is another client. */
    addr = socks6_addr_ipv6(low, 1);
    assert_int_equal(take(&addr, 0, 1), LIMITS_OK);
}

/* Many clients at once, leaving in another order than they came: growing, closing gaps, shrinking. */
static void test_many_clients_come_and_go(void **state)
{
    enum { CLIENTS = 20000 };
    static uint8_t held[CLIENTS];
    uint32_t seed = 1, total = 0;

    (void)state;
    memset(held, 0, sizeof held);
    for (int i = 0; i < 300000; i++) {
        uint32_t client;

        seed = seed * 1664525 + 1013904223;
        client = (seed >> 8) % CLIENTS;
        /* Two thirds of the way more come than go; then more go. */
        if ((seed >> 4) % 3 < (i < 200000 ? 2u : 1u)) {
            assert_int_equal(acquire(client, 0, 3), held[client] < 3 ? LIMITS_OK : LIMITS_CLIENT_FULL);
            total += held[client] < 3;
            held[client] = (uint8_t)(held[client] < 3 ? held[client] + 1 : 3);
        } else if (held[client] > 0) {
            release(client);
            held[client]--;
            total--;
        }
        assert_int_equal(limits_total(limits), total);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        while (held[i] > 0) {
            release(i);
            held[i]--;
        }
    }
    assert_int_equal(limits_total(limits), 0);
    for (uint32_t i = 0; i < CLIENTS; i += 7) {
        assert_int_equal(acquire(i, 0, 1), LIMITS_OK);
    }
}

enum { THREADS = 8, ROUNDS = 20000, TOTAL_MAX = 20 };
static atomic_uint most, refused;

static void *come_and_go(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;

    for (int i = 0; i < ROUNDS; i++) {
        struct socks6_addr client;
        unsigned total, before;

        seed = seed * 1664525 + 1013904223;
        set_ipv4(&client, (seed >> 8) % 5);
        if (take(&client, TOTAL_MAX, 6) != LIMITS_OK) {
            atomic_fetch_add(&refused, 1);
            continue;
        }
        total = limits_total(limits);
        before = atomic_load(&most);
        while (total > before && !atomic_compare_exchange_weak(&most, &before, total)) {
            ;
        }
        limits_release(limits, &client);
    }
    return NULL;
}

static void test_threads_share_exact_counts(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    /* Eighteen places are taken: eight threads meet at the last two. */
    for (int i = 0; i < TOTAL_MAX - 2; i++) {
        assert_int_equal(acquire(100, 0, 0), LIMITS_OK);
    }
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_in_range(atomic_load(&most), TOTAL_MAX - 1, TOTAL_MAX);
    assert_int_equal(limits_total(limits), TOTAL_MAX - 2);
    for (int i = 0; i < TOTAL_MAX - 2; i++) {
        release(100);
    }
    assert_int_equal(limits_total(limits), 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(acquire(i, 0, 1), LIMITS_OK);
    }
}

static void test_free_takes_null(void **state)
{
    (void)state;
    limits_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_client_gets_its_share_and_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_total_is_a_limit_for_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_port_of_a_client_does_not_matter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ipv6_clients_count_by_64, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_ipv4_mapped_client_is_the_ipv4_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_clients_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads_share_exact_counts, setup, teardown),
        cmocka_unit_test(test_free_takes_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
