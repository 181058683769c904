#include "preload/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "preload/fdinfo.h"

#define ADDRESS "000102030405060708090a0b0c0d0e0f"
#define SECRET "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"

static void test_variable_is_taken_apart(void **state)
{
    static struct preload_config config;

    (void)state;
    assert_true(preload_config_parse("1:" ADDRESS ":" SECRET ":vd", &config));
    assert_true(config.is_valid && config.verbose && config.allow_direct && !config.fake_names);
    assert_int_equal(config.helper.sun_family, AF_UNIX);
    assert_int_equal(config.helper.sun_path[0], 0);
    assert_int_equal(config.helper.sun_path[16], 0xf);
    assert_int_equal(config.helper_len, offsetof(struct sockaddr_un, sun_path) + 17);
    assert_int_equal(config.secret[0], 0xf0);
    assert_string_equal(config.variable, "SOCKS6_RUN=1:" ADDRESS ":" SECRET ":vd");
    assert_true(preload_config_parse("1:" ADDRESS ":" SECRET ":", &config));
    assert_false(config.verbose || config.allow_direct || config.fake_names);
}

static void test_what_makes_no_sense_is_nothing(void **state)
{
    static const char *const texts[] = {
        "",
        "1",
        "1:",
        "2:" ADDRESS ":" SECRET ":",
        "1:" ADDRESS,
        "1:" ADDRESS ":",
        "1:" ADDRESS ":" SECRET,
        "1:" ADDRESS ":" SECRET ":x",
        "1:" ADDRESS "0:" SECRET ":",
        "1:" ADDRESS ":" SECRET "00:",
        "1:0:" SECRET ":",
        "1:0G0102030405060708090a0b0c0d0e0f:" SECRET ":",
        "1:" ADDRESS ":" SECRET
        ":vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
    };
    static const struct preload_config nothing;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        static struct preload_config config;

        memset(&config, 0xff, sizeof config);
        assert_false(preload_config_parse(texts[i], &config));
        assert_memory_equal(&config, &nothing, sizeof config);
    }
}

static void test_registrations_are_read(void **state)
{
    struct epoll_event event = {0};

    (void)state;
    assert_true(
        fdinfo_parse_epoll("tfd:       12 events: 8000201d data: 7f000000000000c  pos:0 ino:1a2b sdev:9", 12, &event));
    assert_true(event.events == 0x8000201du);
    assert_true(event.data.u64 == 0x7f000000000000cu);
    assert_true(fdinfo_parse_epoll("tfd: 3 events: 19 data: ffffffffffffffff", 3, &event));
    assert_true(event.data.u64 == UINT64_MAX);
    event.events = 1;
    assert_false(fdinfo_parse_epoll("tfd:       12 events: 8000201d data: c", 13, &event));
    assert_false(fdinfo_parse_epoll("tfd:       12 events: 8000201d", 12, &event));
    assert_false(fdinfo_parse_epoll("tfd:       12 data: c", 12, &event));
    assert_false(fdinfo_parse_epoll("tfd: events: 1 data: c", 0, &event));
    assert_false(fdinfo_parse_epoll("pos:\t0", 0, &event));
    assert_false(fdinfo_parse_epoll("", 0, &event));
    assert_int_equal(event.events, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variable_is_taken_apart),
        cmocka_unit_test(test_what_makes_no_sense_is_nothing),
        cmocka_unit_test(test_registrations_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
