#include "cli/probe_walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct probe_walk walk;

#define WALK(literal) probe_walk((const uint8_t *)(literal), sizeof(literal) - 1, false, &walk)
#define AUTH_OK "\x06\x00\x00\x00"

static void test_good_replies_are_walked(void **state)
{
    const struct probe_option *option;
    bool in_reply = false;

    (void)state;
    WALK("\x06\x00\x00\x08\x00\x06\x00\x08"
         "abcd"
         "\x06\x05\x00\x10\x00\x50\x00\x01\x7f\x00\x00\x01"
         "\x00\x01\x00\x08\x82\x01\x00\x0c"
         "\x00\x01\x00\x08\x41\x01\x20\x00");
    assert_string_equal(walk.fault, "");
    assert_true(walk.has_auth && walk.has_reply);
    assert_int_equal(walk.code, 5);
    option = probe_walk_find(&walk, PROBE_OPTION_SESSION_ID, &in_reply);
    assert_non_null(option);
    assert_memory_equal(option->data, "abcd", 4);
    assert_false(in_reply);
    assert_null(probe_walk_stack(&walk, 2, 4, 1)); /* level 2, as the byte says */
    option = probe_walk_stack(&walk, 2, 2, 1);
    assert_non_null(option);
    assert_int_equal(option->data[3], 12);
    assert_non_null(probe_walk_stack(&walk, 1, 1, 1));
    assert_null(probe_walk_stack(&walk, 2, 1, 1));
}

static void test_names_and_ipv6_are_stepped_over(void **state)
{
    (void)state;
    WALK(AUTH_OK "\x06\x00\x00\x04\x00\x50\x00\x03\x02"
                 "ab\x00"
                 "\x00\x01\x00\x04");
    assert_true(walk.has_reply && walk.count == 1 && walk.fault[0] == '\0');
    WALK(AUTH_OK "\x06\x00\x00\x00\x00\x50\x00\x04"
                 "0123456789abcdef");
    assert_true(walk.has_reply && walk.fault[0] == '\0');
}

static void test_a_selection_is_found(void **state)
{
    (void)state;
    WALK("\x06\x01\x00\x08\x00\x03\x00\x08\x02\x00\x00\x00");
    assert_int_equal(walk.selection, 2);
    WALK("\x06\x01\x00\x08\x00\x03\x00\x08\xff\x00\x00\x00");
    assert_int_equal(walk.selection, -1);
    WALK("\x06\x00\x00\x08\x00\x03\x00\x08\x02\x00\x00\x00");
    assert_int_equal(walk.selection, -1);
}

static void test_a_negotiation_is_stepped_over(void **state)
{
    static const char bytes[] = "\x06\x01\x00\x08\x00\x03\x00\x08\x02\x00\x00\x00"
                                "\x01\x00" AUTH_OK "\x06\x07\x00\x00\x00\x50\x00\x01\x7f\x00\x00\x01";

    (void)state;
    probe_walk((const uint8_t *)bytes, sizeof bytes - 1, true, &walk);
    assert_true(walk.has_reply);
    assert_int_equal(walk.code, 7);
    assert_int_equal(walk.selection, 2);
    probe_walk((const uint8_t *)bytes, sizeof bytes - 1, false, &walk);
    assert_false(walk.has_reply);
}

static void test_faults_have_exact_words(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *words;
    } cases[] = {
        {"\x05\x00", 2, "Authentication Reply: starts with byte 5, not with version 6"},
        {"\x06\x02", 2, "Authentication Reply: type 2, where only 0 and 1 are known"},
        {"\x06\x00\xff\xff", 4, "Authentication Reply: 65535 bytes of options, more than the draft's 20480"},
        {"\x06\x00\x00\x04\x00\x06\x00\x03", 8,
         "Authentication Reply: option kind 6 has length 3, below the 4 bytes of its own header"},
        {"\x06\x00\x00\x06\x00\x08\x00\x04\x00\x00", 10,
         "Authentication Reply: 2 bytes behind the last option, too few for one"},
        {AUTH_OK "\x07", 5, "Operation Reply: starts with byte 7, not with version 6"},
        {AUTH_OK "\x06\x00\x00\x00\x00\x50\x00\x02", 12, "Operation Reply: address type 2 is not known"},
        {AUTH_OK "\x06\x00\x00\x00\x00\x50\x00\x03\x00", 13, "Operation Reply: an empty domain name as address"},
        {AUTH_OK "\x06\x00\x00\x04\x00\x50\x00\x01\x01\x01\x01\x01\x00\x01\x00\x08", 20,
         "Operation Reply: option kind 1 has length 8, but only 4 bytes of options are left"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        probe_walk((const uint8_t *)cases[i].bytes, cases[i].len, false, &walk);
        assert_string_equal(walk.fault, cases[i].words);
        assert_false(walk.has_reply);
    }
}

static void test_an_odd_length_is_no_fault(void **state)
{
    (void)state;
    WALK("\x06\x00\x00\x07\x00\x04\x00\x07\x02\x01\x00" AUTH_OK);
    assert_string_equal(walk.fault, "");
    assert_true(walk.has_auth);
    assert_int_equal(walk.options[0].len, 3);
    assert_string_equal(walk.oddity, "option kind 4 has length 7, which is not a multiple of 4");
}

/* Any beginning of a good answer is no fault, and is not taken for a whole one; an exact buffer shows reads beyond it. */
static void test_cut_answers_are_no_fault(void **state)
{
    static const char bytes[] = "\x06\x00\x00\x08\x00\x06\x00\x08"
                                "abcd"
                                "\x06\x00\x00\x08\x00\x50\x00\x03\x02"
                                "ab\x00"
                                "\x00\x01\x00\x08\x82\x01\x00\x0c";
    const size_t len = sizeof bytes - 1;

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        uint8_t *exact = malloc(cut > 0 ? cut : 1);

        assert_non_null(exact);
        memcpy(exact, bytes, cut);
        probe_walk(exact, cut, false, &walk);
        assert_string_equal(walk.fault, "");
        assert_true(walk.has_reply == (cut == len));
        free(exact);
    }
}

static void test_more_options_than_kept_are_walked(void **state)
{
    static uint8_t bytes[4 + 400];

    (void)state;
    memcpy(bytes, "\x06\x00\x01\x90", 4);
    for (size_t at = 4; at < sizeof bytes; at += 4) {
        memcpy(bytes + at, "\x70\x00\x00\x04", 4);
    }
    probe_walk(bytes, sizeof bytes, false, &walk);
    assert_true(walk.has_auth);
    assert_int_equal(walk.count, PROBE_WALK_OPTIONS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_replies_are_walked),  cmocka_unit_test(test_names_and_ipv6_are_stepped_over),
        cmocka_unit_test(test_a_selection_is_found),     cmocka_unit_test(test_a_negotiation_is_stepped_over),
        cmocka_unit_test(test_faults_have_exact_words),  cmocka_unit_test(test_an_odd_length_is_no_fault),
        cmocka_unit_test(test_cut_answers_are_no_fault), cmocka_unit_test(test_more_options_than_kept_are_walked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
