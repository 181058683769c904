/*
 * The cache in virtual time: life, replacement, memory, eviction; and the table's hash.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dns/cache.h"
#include "support.h"

static const struct siphash_key key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
static struct draft draft;

/* The answers of the reference implementation to 00, 00 01, ... under the key 00 01 .. 0f (first, ninth, sixteenth). */
static void test_siphash_is_the_reference(void **state)
{
    uint8_t bytes[15];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    assert_true(siphash(&key, bytes, 0) == UINT64_C(0x726fdb47dd0e0e31));
    assert_true(siphash(&key, bytes, 8) == UINT64_C(0x93f5f5799a932462));
    assert_true(siphash(&key, bytes, 15) == UINT64_C(0xa129ca6149be45e5));
}

static struct dns_key key_of(const char *name)
{
    struct dns_request request = question_of(name, 1);
    struct dns_key out;
    dns_key_init(&out, &request);
    return out;
}

/* Keeps an answer of `ttl_s` and about `len` bytes for `name`, which came at `now_ms`. */
static void keep(struct dns_cache *cache, const char *name, uint32_t ttl_s, size_t len, uint64_t now_ms)
{
    static uint8_t filler[60000];
    struct dns_request request = question_of(name, 1);
    struct dns_key its = key_of(name);
    struct dns_answer *answer;

    draft_response(&draft, 1, 0, name, 1);
    draft_record(&draft, DNS_ANSWER, "", 1, ttl_s, filler, len);
    assert_int_equal(dns_answer_new(draft.bytes, draft.len, &request, now_ms, &answer), 0);
    dns_cache_put(cache, &its, answer, now_ms);
    dns_answer_release(answer);
}

static bool has(struct dns_cache *cache, const char *name, uint64_t now_ms)
{
    struct dns_key its = key_of(name);
    struct dns_answer *answer = dns_cache_get(cache, &its, now_ms);
    dns_answer_release(answer);
    return answer != NULL;
}

static struct dns_cache_counters count(struct dns_cache *cache)
{
    struct dns_cache_counters counters;
    dns_cache_count(cache, &counters);
    return counters;
}

static struct dns_cache *cache_of(size_t cap_len)
{
    struct dns_cache *cache;
    assert_int_equal(dns_cache_new(cap_len, &key, &cache), 0);
    return cache;
}

static void test_answers_live_as_long_as_their_ttl(void **state)
{
    struct dns_cache *cache = cache_of(1 << 20);
    (void)state;

    keep(cache, "a.example", 10, 4, 5000);
    keep(cache, "zero.example", 0, 4, 5000);
    assert_true(has(cache, "a.example", 5000));
    assert_true(has(cache, "A.EXAMPLE.", 14999));
    assert_false(has(cache, "zero.example", 5000));
    assert_false(has(cache, "b.example", 5000));
    assert_int_equal(count(cache).entries, 1);
    assert_false(has(cache, "a.example", 15000));
    assert_int_equal(count(cache).entries, 0);
    assert_int_equal(count(cache).evictions, 0);
    dns_cache_free(cache);
}

static void test_a_new_answer_replaces_the_old(void **state)
{
    struct dns_cache *cache = cache_of(1 << 20);
    struct dns_key its = key_of("a.example");
    (void)state;

    keep(cache, "a.example", 10, 4, 0);
    keep(cache, "a.example", 10, 8, 5000);
    assert_int_equal(count(cache).entries, 1);
    struct dns_answer *answer = dns_cache_get(cache, &its, 14000);
    assert_non_null(answer);
    assert_int_equal(dns_answer_came_ms(answer), 5000);
    dns_cache_clear(cache);
    assert_int_equal(count(cache).entries, 0);
    assert_false(has(cache, "a.example", 14000));
    assert_int_equal(dns_answer_ttl_s(answer), 10); /* a reference outlives the entry */
    dns_answer_release(answer);
    dns_cache_free(cache);
}

static void test_memory_is_bounded_and_the_least_used_go(void **state)
{
    enum { CAP = 300000 };
    struct dns_cache *cache = cache_of(CAP); /* one shard */
    char name[64];
    (void)state;

    for (int i = 0; i < 5000; i++) {
        (void)snprintf(name, sizeof name, "n%d.example", i);
        keep(cache, name, 1000, 4, 0);
        assert_true(count(cache).bytes <= CAP);
        assert_true(has(cache, "n0.example", 0)); /* used all the time */
    }
    struct dns_cache_counters counters = count(cache);
    assert_true(counters.entries > 500 && counters.entries < 5000);
    assert_int_equal(counters.evictions, 5000 - counters.entries);
    assert_true(has(cache, "n4999.example", 0));
    assert_false(has(cache, "n1.example", 0));

    /* one long answer takes the place of many short ones; one that is longer than all is not kept at all */
    keep(cache, "long.example", 1000, 60000, 0);
    assert_true(has(cache, "long.example", 0));
    assert_true(count(cache).bytes <= CAP);
    dns_cache_resize(cache, 50000, 0);
    assert_true(count(cache).bytes <= 50000);
    assert_false(has(cache, "long.example", 0));
    keep(cache, "long.example", 1000, 60000, 0);
    assert_false(has(cache, "long.example", 0));
    dns_cache_resize(cache, 0, 0);
    assert_int_equal(count(cache).entries, 0);
    keep(cache, "a.example", 1000, 4, 0);
    assert_false(has(cache, "a.example", 0));
    dns_cache_free(cache);
}

static void test_dead_entries_count_as_no_evictions(void **state)
{
    struct dns_cache *cache = cache_of(100000);
    char name[64];
    (void)state;

    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, "n%d.example", i);
        keep(cache, name, 1, 4, (uint64_t)i * 1000);
    }
    assert_int_equal(count(cache).evictions, 0);
    dns_cache_free(cache);
}

static void test_nothing_is_kept_without_a_cap(void **state)
{
    struct dns_cache *cache = cache_of(0);
    (void)state;
    keep(cache, "a.example", 1000, 4, 0);
    assert_false(has(cache, "a.example", 0));
    assert_int_equal(count(cache).bytes, 0);
    dns_cache_free(cache);
}

static void test_many_shards_keep_all(void **state)
{
    struct dns_cache *cache = cache_of(32 << 20);
    char name[64];
    (void)state;

    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof name, "n%d.example", i);
        keep(cache, name, 1000, 4, 0);
    }
    assert_int_equal(count(cache).entries, 20000);
    for (int i = 0; i < 20000; i += 7) {
        (void)snprintf(name, sizeof name, "N%d.example", i);
        assert_true(has(cache, name, 999999));
    }
    dns_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash_is_the_reference),
        cmocka_unit_test(test_answers_live_as_long_as_their_ttl),
        cmocka_unit_test(test_a_new_answer_replaces_the_old),
        cmocka_unit_test(test_memory_is_bounded_and_the_least_used_go),
        cmocka_unit_test(test_dead_entries_count_as_no_evictions),
        cmocka_unit_test(test_nothing_is_kept_without_a_cap),
        cmocka_unit_test(test_many_shards_keep_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
