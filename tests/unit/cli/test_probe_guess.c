#include "cli/probe_guess.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum probe_kind guess(const char *bytes, size_t len)
{
    return probe_guess((const uint8_t *)bytes, len);
}

#define GUESS(literal) guess(literal, sizeof(literal) - 1)

static void test_greetings_of_servers_are_known(void **state)
{
    (void)state;
    assert_int_equal(GUESS("HTTP/1.1 400 Bad Request\r\n"), PROBE_KIND_WEB);
    assert_int_equal(GUESS("<HTML><head>"), PROBE_KIND_WEB);
    assert_int_equal(GUESS("SSH-2.0-OpenSSH"), PROBE_KIND_SSH);
    assert_int_equal(GUESS("220-mail"), PROBE_KIND_MAIL_OR_FTP);
    assert_int_equal(GUESS("-ERR unknown command"), PROBE_KIND_REDIS);
    assert_int_equal(GUESS("\x15\x03\x03\x00\x02\x02\x46"), PROBE_KIND_TLS);
    assert_int_equal(GUESS("\xff\xfb\x01"), PROBE_KIND_TELNET);
}

static void test_socks_is_known_by_its_replies(void **state)
{
    (void)state;
    assert_int_equal(GUESS("\x06\x00\x00\x00"), PROBE_KIND_SOCKS6);
    assert_int_equal(GUESS("\x05\xff"), PROBE_KIND_SOCKS5);
    assert_int_equal(GUESS("\x00\x5b\x00\x00\x00\x00\x00\x00"), PROBE_KIND_SOCKS4);
    assert_int_equal(GUESS("\xcf"), PROBE_KIND_SOCKS6_PRIVATE);
    assert_int_equal(GUESS("\xd4"), PROBE_KIND_SOCKS6_PRIVATE);
}

static void test_the_rest_is_something_else(void **state)
{
    (void)state;
    assert_int_equal(GUESS(""), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("HTTP"), PROBE_KIND_OTHER); /* cut: too little to tell */
    assert_int_equal(GUESS("\x06"), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("\x06\x02\x00\x00"), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("\x05\x77"), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("\x00\x5e\x00\x00\x00\x00\x00\x00"), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("\xcf\xcf"), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("\x15\x03\x05"), PROBE_KIND_OTHER);
    assert_int_equal(GUESS("\xff\xfa\x01"), PROBE_KIND_OTHER);
}

static void test_every_kind_has_its_words(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < PROBE_KIND_COUNT; kind++) {
        assert_non_null(probe_kind_key((enum probe_kind)kind));
        assert_non_null(probe_kind_sentence((enum probe_kind)kind));
    }
}

static void test_quotes_are_printable_and_cut(void **state)
{
    char text[PROBE_QUOTE_MAX];
    uint8_t bytes[30];

    (void)state;
    probe_quote((const uint8_t *)"a\"\\\n", 4, text);
    assert_string_equal(text, "a\\x22\\x5c\\x0a");
    probe_quote((const uint8_t *)"", 0, text);
    assert_string_equal(text, "");
    memset(bytes, 0xff, sizeof bytes);
    probe_quote(bytes, sizeof bytes, text);
    assert_int_equal(strlen(text), PROBE_QUOTE_MAX - 1);
    assert_string_equal(text + strlen(text) - 7, "\\xff...");
    probe_quote(bytes, 24, text);
    assert_int_equal(strlen(text), 24 * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greetings_of_servers_are_known), cmocka_unit_test(test_socks_is_known_by_its_replies),
        cmocka_unit_test(test_the_rest_is_something_else),     cmocka_unit_test(test_every_kind_has_its_words),
        cmocka_unit_test(test_quotes_are_printable_and_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
