/* Names for people: there is one for everything, and each is its own. */
#include <socks6/error.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const int errors[] = {
    SOCKS6_OK,          SOCKS6_NEED_MORE,    SOCKS6_ERR_VERSION, SOCKS6_ERR_MALFORMED, SOCKS6_ERR_TOO_LONG,
    SOCKS6_ERR_ADDRESS, SOCKS6_ERR_PROTOCOL, SOCKS6_ERR_NOMEM,   SOCKS6_ERR_INVALID,   SOCKS6_ERR_TIMEOUT,
};

static void test_every_error_has_its_own_words(void **state)
{
    const char *unknown = socks6_strerror(-4711);

    (void)state;
    assert_string_equal(unknown, "unknown error");
    assert_string_equal(socks6_strerror(1), unknown);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        assert_true(strlen(socks6_strerror(errors[i])) > 5);
        assert_string_not_equal(socks6_strerror(errors[i]), unknown);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(socks6_strerror(errors[i]), socks6_strerror(errors[j]));
        }
    }
}

static void test_reply_names(void **state)
{
    (void)state;
    assert_string_equal(socks6_reply_name(SOCKS6_REPLY_SUCCESS), "success");
    assert_string_equal(socks6_reply_name(SOCKS6_REPLY_REFUSED), "connection refused");
    assert_string_equal(socks6_reply_name(SOCKS6_REPLY_TTL_EXPIRED), "TTL expired");
    assert_string_equal(socks6_reply_name(SOCKS6_REPLY_TIMED_OUT), "connection attempt timed out");
    assert_string_equal(socks6_reply_name(10), "unassigned reply code");
    assert_string_equal(socks6_reply_name(0xffffffffu), "unassigned reply code");
}

static void test_command_names(void **state)
{
    (void)state;
    assert_string_equal(socks6_command_name(SOCKS6_COMMAND_NOOP), "NOOP");
    assert_string_equal(socks6_command_name(SOCKS6_COMMAND_CONNECT), "CONNECT");
    assert_string_equal(socks6_command_name(SOCKS6_COMMAND_BIND), "BIND");
    assert_string_equal(socks6_command_name(SOCKS6_COMMAND_UDP_ASSOCIATE), "UDP ASSOCIATE");
    assert_string_equal(socks6_command_name(4), "unknown command");
    assert_string_equal(socks6_command_name(0xffffffffu), "unknown command");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_error_has_its_own_words),
        cmocka_unit_test(test_reply_names),
        cmocka_unit_test(test_command_names),
    };

    return cmocka_run_group_tests_name("wire/names", tests, NULL, NULL);
}
