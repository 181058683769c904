/*
 * SOCKS 4, 4a and 5: every message cut at every byte, its limits, its replies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxyd/legacy.h"

/* Feeds `bytes` in chunks as a connection does: what was not taken is offered again with more behind it. */
static enum legacy_status feed(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t chunk, size_t *taken)
{
    enum legacy_status status = LEGACY_MORE;
    size_t start = 0;

    for (size_t end = 0; end < len && status == LEGACY_MORE;) {
        size_t used = 0;
        end = end + chunk < len ? end + chunk : len;
        /* An exact copy, so that a read past the end is seen by the sanitizer. */
        uint8_t *copy = malloc(end - start);
        memcpy(copy, bytes + start, end - start);
        status = legacy_input(legacy, copy, end - start, &used);
        free(copy);
        assert_true(used <= end - start);
        start += used;
    }
    *taken = start;
    return status;
}

struct expected {
    enum legacy_status status;
    uint8_t command;
    const char *addr;
    uint8_t out[32];
    size_t out_len;
};

static void check(const uint8_t *bytes, size_t len, size_t taken_expected, const struct expected *expected)
{
    for (size_t chunk = 1; chunk <= len; chunk++) {
        struct legacy legacy;
        size_t taken = 0;
        legacy_init(&legacy, bytes[0], LEGACY_ANONYMOUS);
        assert_int_equal(feed(&legacy, bytes, len, chunk, &taken), expected->status);
        assert_int_equal(legacy.out_len, expected->out_len);
        assert_memory_equal(legacy.out, expected->out, expected->out_len);
        if (expected->status == LEGACY_REQUEST) {
            char text[SOCKS6_ADDR_TEXT_MAX];
            (void)socks6_addr_format(&legacy.addr, text, sizeof text);
            assert_string_equal(text, expected->addr);
            assert_int_equal(legacy.command, expected->command);
            assert_int_equal(taken, taken_expected);
        }
    }
}

#define CHECK(bytes, taken, ...)                                                                                       \
    check((const uint8_t *)(bytes), sizeof(bytes) - 1, taken, &(struct expected){__VA_ARGS__})

static void test_socks4_connect_parses(void **state)
{
    (void)state;
    CHECK("\x04\x01\x00\x50\xc0\x00\x02\x01user\0", 13, LEGACY_REQUEST, 1, "192.0.2.1:80", {0}, 0);
    CHECK("\x04\x01\x00\x50\xc0\x00\x02\x01\0", 9, LEGACY_REQUEST, 1, "192.0.2.1:80", {0}, 0);
}

static void test_socks4_data_behind_the_request_is_left(void **state)
{
    (void)state;
    CHECK("\x04\x01\x00\x50\xc0\x00\x02\x01u\0GET /", 10, LEGACY_REQUEST, 1, "192.0.2.1:80", {0}, 0);
}

static void test_socks4a_name_parses(void **state)
{
    (void)state;
    CHECK("\x04\x01\x01\xbb\0\0\0\x01u\0example.com\0", 22, LEGACY_REQUEST, 1, "example.com:443", {0}, 0);
}

static void test_socks4_address_zero_is_not_4a(void **state)
{
    (void)state;
    CHECK("\x04\x01\x01\xbb\0\0\0\0\0", 9, LEGACY_REQUEST, 1, "0.0.0.0:443", {0}, 0);
}

static void test_socks4a_empty_name_is_refused(void **state)
{
    (void)state;
    CHECK("\x04\x01\x01\xbb\0\0\0\x01\0\0", 0, LEGACY_REFUSED, 0, NULL, {0, 0x5b}, 8);
}

static void test_socks4_long_user_id_is_refused_before_it_ends(void **state)
{
    uint8_t bytes[8 + LEGACY_USERID_MAX + 2] = {4, 1, 0, 80, 192, 0, 2, 1};
    (void)state;
    memset(bytes + 8, 'u', LEGACY_USERID_MAX);
    check(bytes, 8 + LEGACY_USERID_MAX + 1, 8 + LEGACY_USERID_MAX + 1,
          &(struct expected){LEGACY_REQUEST, 1, "192.0.2.1:80", {0}, 0});
    bytes[8 + LEGACY_USERID_MAX] = 'u';
    check(bytes, 8 + LEGACY_USERID_MAX + 1, 0, &(struct expected){LEGACY_REFUSED, 0, NULL, {0, 0x5b}, 8});
}

static void test_socks4a_longest_name_parses_and_longer_is_refused(void **state)
{
    uint8_t bytes[9 + SOCKS6_NAME_MAX + 2] = {4, 1, 0, 80, 0, 0, 0, 1, 0};
    struct legacy legacy;
    size_t taken;

    (void)state;
    memset(bytes + 9, 'n', SOCKS6_NAME_MAX + 1);
    legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
    assert_int_equal(feed(&legacy, bytes, 9 + SOCKS6_NAME_MAX + 1, 1, &taken), LEGACY_REFUSED);
    bytes[9 + SOCKS6_NAME_MAX] = 0;
    legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
    assert_int_equal(feed(&legacy, bytes, 9 + SOCKS6_NAME_MAX + 1, 1, &taken), LEGACY_REQUEST);
    assert_int_equal(legacy.addr.len, SOCKS6_NAME_MAX);
    assert_int_equal(taken, 9 + SOCKS6_NAME_MAX + 1);
    assert_true(9 + SOCKS6_NAME_MAX + 1 <= LEGACY_MESSAGE_MAX);
}

static void test_socks5_each_address_type_parses(void **state)
{
    (void)state;
    CHECK("\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01\x1f\x90", 13, LEGACY_REQUEST, 1, "127.0.0.1:8080", {5, 0}, 2);
    CHECK("\x05\x01\0\x05\x01\0\x03\x0b"
          "example.com\0\x50",
          21, LEGACY_REQUEST, 1, "example.com:80", {5, 0}, 2);
    CHECK("\x05\x01\0\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50", 25, LEGACY_REQUEST, 1,
          "[2001:db8::1]:80", {5, 0}, 2);
}

static void test_socks5_methods_without_none_are_refused(void **state)
{
    uint8_t many[2 + 255] = {5, 255};

    (void)state;
    CHECK("\x05\0", 0, LEGACY_REFUSED, 0, NULL, {5, 0xff}, 2);
    CHECK("\x05\x02\x01\x02", 0, LEGACY_REFUSED, 0, NULL, {5, 0xff}, 2);
    memset(many + 2, 2, 255);
    check(many, sizeof many, 0, &(struct expected){LEGACY_REFUSED, 0, NULL, {5, 0xff}, 2});
}

static void test_socks5_255_methods_with_none_last_go_on(void **state)
{
    uint8_t bytes[2 + 255 + 10] = {5, 255};

    (void)state;
    memset(bytes + 2, 0x80, 254);
    memcpy(bytes + 2 + 255, "\x05\x01\0\x01\x7f\0\0\x01\0\x50", 10);
    check(bytes, sizeof bytes, sizeof bytes, &(struct expected){LEGACY_REQUEST, 1, "127.0.0.1:80", {5, 0}, 2});
}

static void test_socks5_unknown_address_type_is_reply_8(void **state)
{
    (void)state;
    CHECK("\x05\x01\0\x05\x01\0\x05\x7f\0\0\x01\0\x50", 0, LEGACY_REFUSED, 0, NULL,
          {5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0}, 12);
}

static void test_socks5_bad_names_are_reply_1(void **state)
{
    (void)state;
    CHECK("\x05\x01\0\x05\x01\0\x03\0\0\x50", 0, LEGACY_REFUSED, 0, NULL, {5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 12);
    CHECK("\x05\x01\0\x05\x01\0\x03\x03"
          "a\0b\0\x50",
          0, LEGACY_REFUSED, 0, NULL, {5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 12);
}

static void test_socks5_wrong_version_in_the_request_is_reply_1(void **state)
{
    (void)state;
    CHECK("\x05\x01\0\x04", 0, LEGACY_REFUSED, 0, NULL, {5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 12);
}

static void test_commands_that_the_old_versions_lack_stay_unknown(void **state)
{
    (void)state;
    CHECK("\x04\0\0\x50\xc0\x00\x02\x01\0", 9, LEGACY_REQUEST, 0xff, "192.0.2.1:80", {0}, 0);
    CHECK("\x05\x01\0\x05\0\0\x01\x7f\0\0\x01\0\x50", 13, LEGACY_REQUEST, 0xff, "127.0.0.1:80", {5, 0}, 2);
    CHECK("\x05\x01\0\x05\x03\0\x01\x7f\0\0\x01\0\x50", 13, LEGACY_REQUEST, 3, "127.0.0.1:80", {5, 0}, 2);
}

static void test_reply_carries_the_bound_address(void **state)
{
    static const uint8_t ip6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
    const struct socks6_addr v4 = socks6_addr_ipv4((const uint8_t[]){192, 0, 2, 7}, 0x1234);
    const struct socks6_addr v6 = socks6_addr_ipv6(ip6, 0x1234);
    struct legacy legacy;

    (void)state;
    legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
    legacy_reply(&legacy, SOCKS6_REPLY_SUCCESS, &v4);
    assert_int_equal(legacy.out_len, 8);
    assert_memory_equal(legacy.out, "\0\x5a\x12\x34\xc0\0\x02\x07", 8);

    legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
    legacy_reply(&legacy, SOCKS6_REPLY_SUCCESS, &v6);
    assert_memory_equal(legacy.out, "\0\x5a\0\0\0\0\0\0", 8);

    legacy_init(&legacy, 5, LEGACY_ANONYMOUS);
    legacy_reply(&legacy, SOCKS6_REPLY_SUCCESS, &v6);
    assert_int_equal(legacy.out_len, 22);
    assert_memory_equal(legacy.out, "\x05\0\0\x04\x20\x01\x0d\xb8", 8);
    assert_memory_equal(legacy.out + 19, "\x01\x12\x34", 3);
}

static void test_replies_use_each_version_s_codes(void **state)
{
    (void)state;
    for (int code = 0; code < SOCKS6_REPLY_COUNT; code++) {
        struct legacy legacy;
        legacy_init(&legacy, 5, LEGACY_ANONYMOUS);
        legacy_reply(&legacy, (enum socks6_reply_code)code, NULL);
        assert_int_equal(legacy.out[1], code == SOCKS6_REPLY_TIMED_OUT ? SOCKS6_REPLY_HOST_UNREACHABLE : code);
        legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
        legacy_reply(&legacy, (enum socks6_reply_code)code, NULL);
        assert_int_equal(legacy.out[1], code == 0 ? 0x5a : 0x5b);
    }
}

static void test_protocol_names_the_variant(void **state)
{
    struct legacy legacy;
    size_t used;

    (void)state;
    legacy_init(&legacy, 5, LEGACY_ANONYMOUS);
    assert_string_equal(legacy_protocol(&legacy), "socks5");
    legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
    assert_int_equal(legacy_input(&legacy, (const uint8_t *)"\x04\x01\x01\xbb\0\0\0\x01\0x\0", 11, &used),
                     LEGACY_REQUEST);
    assert_string_equal(legacy_protocol(&legacy), "socks4a");
    legacy_init(&legacy, 4, LEGACY_ANONYMOUS);
    assert_int_equal(legacy_input(&legacy, (const uint8_t *)"\x04\x01\x01\xbb\x01\0\0\x01\0", 9, &used),
                     LEGACY_REQUEST);
    assert_string_equal(legacy_protocol(&legacy), "socks4");
}

/* -- logging in -- */

/* "\x05\x01\x02", then the name alice and the password secret, then CONNECT to 127.0.0.1:80. */
#define LOGIN                                                                                                          \
    "\x01\x05"                                                                                                         \
    "alice\x06"                                                                                                        \
    "secret"
#define ASK "\x05\x01\0\x01\x7f\0\0\x01\0\x50"

/* The client's bytes in chunks; `is_good` answers its credentials. The last status; `*taken` of all. */
static enum legacy_status log_in(struct legacy *legacy, const char *bytes, size_t len, size_t chunk, bool is_good,
                                 size_t *taken)
{
    size_t part;
    enum legacy_status status = feed(legacy, (const uint8_t *)bytes, len, chunk, taken);

    if (status == LEGACY_CREDENTIALS) {
        assert_int_equal(legacy->credentials.username.len, 5);
        assert_int_equal(legacy->credentials.password.len, 6);
        legacy_auth_done(legacy, is_good);
        if (!is_good) {
            return LEGACY_REFUSED;
        }
        status = feed(legacy, (const uint8_t *)bytes + *taken, len - *taken, chunk, &part);
        *taken += part;
    }
    return status;
}

static void test_a_password_lets_in_however_it_is_cut(void **state)
{
    static const char bytes[] = "\x05\x02\0\x02" LOGIN ASK "data";

    (void)state;
    for (size_t chunk = 1; chunk <= sizeof bytes; chunk++) {
        struct legacy legacy;
        size_t taken;

        legacy_init(&legacy, 5, LEGACY_PASSWORD);
        assert_int_equal(log_in(&legacy, bytes, sizeof bytes - 1, chunk, true, &taken), LEGACY_REQUEST);
        assert_int_equal(taken, sizeof bytes - 1 - 4);
        assert_int_equal(legacy.command, 1);
        assert_int_equal(legacy.out_len, 4);
        assert_memory_equal(legacy.out, "\x05\x02\x01\0", 4);
    }
}

static void test_the_credentials_are_those_that_were_sent(void **state)
{
    static const char greeting[] = "\x05\x01\x02", login[] = LOGIN;
    struct legacy legacy;
    size_t used;

    (void)state;
    legacy_init(&legacy, 5, LEGACY_PASSWORD | LEGACY_ANONYMOUS);
    assert_int_equal(legacy_input(&legacy, (const uint8_t *)greeting, 3, &used), LEGACY_MORE);
    assert_int_equal(legacy_input(&legacy, (const uint8_t *)login, sizeof login - 1, &used), LEGACY_CREDENTIALS);
    assert_int_equal(used, sizeof login - 1);
    assert_memory_equal(legacy.credentials.username.data, "alice", 5);
    assert_memory_equal(legacy.credentials.password.data, "secret", 6);
    /* Until there is a verdict nothing more is taken. */
    assert_int_equal(legacy_input(&legacy, (const uint8_t *)ASK, sizeof ASK - 1, &used), LEGACY_MORE);
    assert_int_equal(used, 0);
    legacy_auth_done(&legacy, true);
    assert_null(legacy.credentials.username.data);
}

static void test_a_wrong_password_is_told_and_ends_it(void **state)
{
    static const char bytes[] = "\x05\x01\x02" LOGIN ASK;
    struct legacy legacy;
    size_t taken;

    (void)state;
    legacy_init(&legacy, 5, LEGACY_PASSWORD);
    assert_int_equal(log_in(&legacy, bytes, sizeof bytes - 1, 100, false, &taken), LEGACY_REFUSED);
    assert_int_equal(legacy.out_len, 4);
    assert_memory_equal(legacy.out, "\x05\x02\x01\x01", 4);
}

static void test_the_method_is_chosen_from_both_sides(void **state)
{
    static const struct {
        unsigned methods;
        const char *greeting;
        size_t len;
        uint8_t chosen;
    } cases[] = {
        {LEGACY_PASSWORD, "\x05\x01\x02", 3, 2},
        {LEGACY_PASSWORD, "\x05\x03\x01\0\x02", 5, 2},
        {LEGACY_PASSWORD, "\x05\x01\0", 3, 0xff},
        {LEGACY_PASSWORD, "\x05\0", 2, 0xff},
        {LEGACY_ANONYMOUS, "\x05\x02\0\x02", 4, 0},
        {LEGACY_ANONYMOUS, "\x05\x01\x02", 3, 0xff},
        /* Who can say who it is shall. */
        {LEGACY_ANONYMOUS | LEGACY_PASSWORD, "\x05\x02\0\x02", 4, 2},
        {LEGACY_ANONYMOUS | LEGACY_PASSWORD, "\x05\x01\0", 3, 0},
        {0, "\x05\x02\0\x02", 4, 0xff},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct legacy legacy;
        size_t used;

        legacy_init(&legacy, 5, cases[i].methods);
        assert_int_equal(legacy_input(&legacy, (const uint8_t *)cases[i].greeting, cases[i].len, &used),
                         cases[i].chosen == 0xff ? LEGACY_REFUSED : LEGACY_MORE);
        assert_int_equal(legacy.out_len, 2);
        assert_int_equal(legacy.out[1], cases[i].chosen);
        assert_int_equal(legacy.needs_login, cases[i].chosen == 0xff);
    }
}

static void test_malformed_logins_are_refused_as_soon_as_they_are(void **state)
{
    static const char *const bad[] = {"\x05", "\x01\0"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct legacy legacy;
        size_t used;

        legacy_init(&legacy, 5, LEGACY_PASSWORD);
        assert_int_equal(legacy_input(&legacy, (const uint8_t *)"\x05\x01\x02", 3, &used), LEGACY_MORE);
        assert_int_equal(legacy_input(&legacy, (const uint8_t *)bad[i], i + 1, &used), LEGACY_REFUSED);
        assert_memory_equal(legacy.out, "\x05\x02\x01\x01", 4);
    }
}

static void test_socks4_does_not_log_in(void **state)
{
    struct legacy legacy;
    size_t used;

    (void)state;
    legacy_init(&legacy, 4, LEGACY_PASSWORD);
    assert_int_equal(legacy_input(&legacy,
                                  (const uint8_t *)"\x04\x01\0\x50\xc0\0\x02\x01"
                                                   "alice\0",
                                  14, &used),
                     LEGACY_REFUSED);
    assert_int_equal(legacy.out_len, 8);
    assert_memory_equal(legacy.out, "\0\x5b", 2);
    assert_int_equal(legacy.needs_login, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_socks4_connect_parses),
        cmocka_unit_test(test_a_password_lets_in_however_it_is_cut),
        cmocka_unit_test(test_the_credentials_are_those_that_were_sent),
        cmocka_unit_test(test_a_wrong_password_is_told_and_ends_it),
        cmocka_unit_test(test_the_method_is_chosen_from_both_sides),
        cmocka_unit_test(test_malformed_logins_are_refused_as_soon_as_they_are),
        cmocka_unit_test(test_socks4_does_not_log_in),
        cmocka_unit_test(test_socks4_data_behind_the_request_is_left),
        cmocka_unit_test(test_socks4a_name_parses),
        cmocka_unit_test(test_socks4_address_zero_is_not_4a),
        cmocka_unit_test(test_socks4a_empty_name_is_refused),
        cmocka_unit_test(test_socks4_long_user_id_is_refused_before_it_ends),
        cmocka_unit_test(test_socks4a_longest_name_parses_and_longer_is_refused),
        cmocka_unit_test(test_socks5_each_address_type_parses),
        cmocka_unit_test(test_socks5_methods_without_none_are_refused),
        cmocka_unit_test(test_socks5_255_methods_with_none_last_go_on),
        cmocka_unit_test(test_socks5_unknown_address_type_is_reply_8),
        cmocka_unit_test(test_socks5_bad_names_are_reply_1),
        cmocka_unit_test(test_socks5_wrong_version_in_the_request_is_reply_1),
        cmocka_unit_test(test_commands_that_the_old_versions_lack_stay_unknown),
        cmocka_unit_test(test_reply_carries_the_bound_address),
        cmocka_unit_test(test_replies_use_each_version_s_codes),
        cmocka_unit_test(test_protocol_names_the_variant),
    };
    return cmocka_run_group_tests_name("legacy", tests, NULL, NULL);
}
