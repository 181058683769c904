#include "cli/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_distance_counts_each_slip_once(void **state)
{
    (void)state;
    assert_int_equal(suggest_distance("connect", "connect"), 0);
    assert_int_equal(suggest_distance("", ""), 0);
    assert_int_equal(suggest_distance("", "abc"), 3);
    assert_int_equal(suggest_distance("abc", ""), 3);
    assert_int_equal(suggest_distance("conect", "connect"), 1);
    assert_int_equal(suggest_distance("connnect", "connect"), 1);
    assert_int_equal(suggest_distance("konnect", "connect"), 1);
    assert_int_equal(suggest_distance("conenct", "connect"), 1);
    assert_int_equal(suggest_distance("ocnnetc", "connect"), 2);
    assert_int_equal(suggest_distance("abc", "xyz"), 3);
    assert_int_equal(suggest_distance("connect", "dns"), suggest_distance("dns", "connect"));
}

static void test_overlong_words_have_no_distance(void **state)
{
    char word[40];

    (void)state;
    memset(word, 'a', sizeof word);
    word[32] = '\0';
    assert_int_equal(suggest_distance(word, ""), 32);
    word[32] = 'a';
    word[33] = '\0';
    assert_true(suggest_distance(word, "a") == SIZE_MAX);
    assert_true(suggest_distance("a", word) == SIZE_MAX);
}

static void test_nearest_is_found_or_nothing(void **state)
{
    static const char *const words[] = {"connect", "listen", "udp"};

    (void)state;
    assert_string_equal(suggest_nearest("conect", words, 3), "connect");
    assert_string_equal(suggest_nearest("lsiten", words, 3), "listen");
    assert_string_equal(suggest_nearest("upd", words, 3), "udp");
    assert_string_equal(suggest_nearest("con", words, 3), "connect");
    assert_null(suggest_nearest("probe", words, 3));
    assert_null(suggest_nearest("", words, 3));
    assert_null(suggest_nearest("connect", words, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance_counts_each_slip_once),
        cmocka_unit_test(test_overlong_words_have_no_distance),
        cmocka_unit_test(test_nearest_is_found_or_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
