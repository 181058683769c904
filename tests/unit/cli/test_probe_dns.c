#include "cli/probe_dns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t query[PROBE_DNS_QUERY_MAX];

static void test_queries_have_the_documented_bytes(void **state)
{
    static const char root[] = "\x00\x11\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
    static const char name[] = "\x00\x16\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01"
                               "a\x02"
                               "bc\x00\x00\x01\x00\x01";

    (void)state;
    assert_int_equal(probe_dns_query(".", 0x1234, query), sizeof root - 1);
    assert_memory_equal(query, root, sizeof root - 1);
    assert_int_equal(probe_dns_query("a.bc", 0x1234, query), sizeof name - 1);
    assert_memory_equal(query, name, sizeof name - 1);
    assert_int_equal(probe_dns_query("a.bc.", 0x1234, query), sizeof name - 1);
    assert_memory_equal(query, name, sizeof name - 1);
}

static void test_names_have_limits(void **state)
{
    char name[256];

    (void)state;
    assert_int_equal(probe_dns_query("", 0, query), 0);
    assert_int_equal(probe_dns_query("..", 0, query), 0);
    assert_int_equal(probe_dns_query("a..b", 0, query), 0);
    assert_int_equal(probe_dns_query(".a", 0, query), 0);
    memset(name, 'a', sizeof name);
    name[64] = '\0';
    assert_int_equal(probe_dns_query(name, 0, query), 0);
    name[63] = '\0';
    assert_int_not_equal(probe_dns_query(name, 0, query), 0);
    memset(name, 'a', sizeof name);
    name[63] = name[127] = name[191] = '.';
    name[253] = '\0';
    assert_int_equal(probe_dns_query(name, 0, query), PROBE_DNS_QUERY_MAX);
    name[253] = '.';
    name[254] = '\0';
    assert_int_equal(probe_dns_query(name, 0, query), PROBE_DNS_QUERY_MAX);
    name[253] = 'a';
    assert_int_equal(probe_dns_query(name, 0, query), 0);
}

static void test_need_follows_the_length(void **state)
{
    (void)state;
    assert_int_equal(probe_dns_need((const uint8_t *)"", 0), 2);
    assert_int_equal(probe_dns_need((const uint8_t *)"\x01", 1), 2);
    assert_int_equal(probe_dns_need((const uint8_t *)"\x01\x02", 2), 2 + 0x102);
}

static void test_answers_are_judged(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        int good;
        const char *words;
    } cases[] = {
        {"\x00\x0c\x00\x07\x81\x80\x00\x01\x00\x0d\x00\x00\x00\x00", 14, 1, "NOERROR, 13 records"},
        {"\x00\x0c\x00\x07\x81\x83\x00\x01\x00\x01\x00\x00\x00\x00", 14, 1, "NXDOMAIN, 1 record"},
        {"\x00\x0c\x00\x07\x81\x8f\x00\x01\x00\x00\x00\x00\x00\x00", 14, 1, "code 15, 0 records"},
        {"\x00\x0c\x00\x08\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00", 14, 0, "the answer has another id than the query"},
        {"\x00\x0c\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", 14, 0, "what came back is a query, not an answer"},
        {"\x00\x0b\x00\x07\x81\x80\x00\x01\x00\x00\x00\x00\x00", 13, 0, "the answer is shorter than a DNS message"},
        {"\x00\x0c\x00\x07", 4, 0, "the answer is shorter than a DNS message"},
        {"", 0, 0, "the answer is shorter than a DNS message"},
    };
    char words[80];

    (void)state;
    assert_int_not_equal(probe_dns_query(".", 7, query), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(probe_dns_judge(query, (const uint8_t *)cases[i].bytes, cases[i].len, words, sizeof words),
                         cases[i].good);
        assert_string_equal(words, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queries_have_the_documented_bytes),
        cmocka_unit_test(test_names_have_limits),
        cmocka_unit_test(test_need_follows_the_length),
        cmocka_unit_test(test_answers_are_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
