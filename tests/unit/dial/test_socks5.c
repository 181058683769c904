/* The SOCKS 5 machine without I/O: each reply in one piece and cut at every byte, and never a byte too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dial/socks5.h"

#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

static struct socks6_credentials credentials(const char *user, const char *password)
{
    struct socks6_credentials c;

    c.username = (struct socks6_slice){(const uint8_t *)user, strlen(user)};
    c.password = (struct socks6_slice){(const uint8_t *)password, strlen(password)};
    return c;
}

static struct socks6_addr destination(void)
{
    struct socks6_addr addr;

    assert_true(socks6_addr_name("example.com", 11, 443, &addr));
    return addr;
}

static void assert_output(struct s6_socks5 *m, const uint8_t *bytes, size_t len)
{
    struct socks6_slice out = s6_socks5_output(m);

    assert_int_equal(out.len, len);
    assert_memory_equal(out.data, bytes, len);
    s6_socks5_output_sent(m, 1);
    assert_ptr_equal(s6_socks5_output(m).data, out.data + 1);
    s6_socks5_output_sent(m, len - 1);
    assert_int_equal(s6_socks5_output(m).len, 0);
}

/* Feeds `len` bytes in pieces of `piece`. Returns how many were taken. */
static size_t feed(struct s6_socks5 *m, const uint8_t *bytes, size_t len, size_t piece)
{
    size_t total = 0;

    while (total < len) {
        size_t n = len - total < piece ? len - total : piece;
        size_t used = s6_socks5_input(m, bytes + total, n);

        total += used;
        if (used < n) {
            break;
        }
    }
    return total;
}

static void start(struct s6_socks5 *m)
{
    struct socks6_addr dest = destination();

    s6_socks5_init(m, &dest, NULL);
    assert_output(m, BYTES("\x05\x01\x00"));
}

/* A machine that waits for the reply. */
static void start_requested(struct s6_socks5 *m)
{
    start(m);
    assert_int_equal(s6_socks5_input(m, BYTES("\x05\x00")), 2);
    assert_output(m, BYTES("\x05\x01\x00\x03\x0b"
                           "example.com\x01\xbb"));
}

static void test_request_has_each_address_form(void **state)
{
    static const uint8_t v4[4] = {192, 0, 2, 1};
    static const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
    struct socks6_addr dest = socks6_addr_ipv4(v4, 80);
    struct s6_socks5 m;

    (void)state;
    s6_socks5_init(&m, &dest, NULL);
    assert_int_equal(s6_socks5_input(&m, BYTES("\x05\x00")), 2);
    assert_output(&m, BYTES("\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"));
    dest = socks6_addr_ipv6(v6, 80);
    s6_socks5_init(&m, &dest, NULL);
    assert_int_equal(s6_socks5_input(&m, BYTES("\x05\x00")), 2);
    assert_output(&m, BYTES("\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50"));
}

static void test_longest_name_and_credentials_fit(void **state)
{
    char name[256], text[256];
    struct socks6_credentials c;
    struct socks6_addr dest;
    struct s6_socks5 m;

    (void)state;
    memset(name, 'n', 255);
    memset(text, 't', 255);
    name[255] = text[255] = '\0';
    c = credentials(text, text);
    assert_true(socks6_addr_name(name, 255, 1, &dest));
    s6_socks5_init(&m, &dest, &c);
    assert_output(&m, BYTES("\x05\x02\x00\x02"));
    assert_int_equal(s6_socks5_input(&m, BYTES("\x05\x02")), 2);
    assert_int_equal(s6_socks5_output(&m).len, 3 + 255 + 255);
    s6_socks5_output_sent(&m, 3 + 255 + 255);
    assert_int_equal(s6_socks5_input(&m, BYTES("\x01\x00")), 2);
    assert_int_equal(s6_socks5_output(&m).len, 4 + 1 + 255 + 2);
}

static void test_success_leaves_what_follows(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        uint8_t type;
        uint16_t port;
    } replies[] = {
        {"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34", 10, SOCKS6_ADDR_IPV4, 0x1234},
        {"\x05\x00\x00\x03\x02hi\x12\x34", 9, SOCKS6_ADDR_NAME, 0x1234},
        {"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x34", 22, SOCKS6_ADDR_IPV6, 0x1234},
        {"\x05\x00\x00\x03\x00\x12\x34", 7, 0, 0}, /* an empty name: no address */
    };

    (void)state;
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        for (size_t piece = 1; piece <= replies[i].len + 4; piece++) {
            uint8_t stream[64];
            struct s6_socks5 m;

            memcpy(stream, replies[i].bytes, replies[i].len);
            memcpy(stream + replies[i].len,
                   "\x05"
                   "app",
                   4);
            start_requested(&m);
            assert_int_equal(feed(&m, stream, replies[i].len + 4, piece), replies[i].len);
            assert_int_equal(m.state, S6_SOCKS5_CONNECTED);
            assert_int_equal(m.bound.type, replies[i].type);
            assert_int_equal(m.bound.port, replies[i].port);
            assert_int_equal(s6_socks5_input(&m, BYTES("x")), 0);
        }
    }
}

/* The whole stream of a proxy with authentication, cut in every way, gives one end. */
static void test_authentication_in_pieces(void **state)
{
    struct socks6_credentials c = credentials("alice", "pw");
    struct socks6_addr dest = destination();

    (void)state;
    for (size_t piece = 1; piece <= 16; piece++) {
        struct s6_socks5 m;

        s6_socks5_init(&m, &dest, &c);
        assert_output(&m, BYTES("\x05\x02\x00\x02"));
        assert_int_equal(feed(&m, BYTES("\x05\x02"), piece), 2);
        assert_output(&m, BYTES("\x01\x05"
                                "alice\x02pw"));
        assert_int_equal(feed(&m, BYTES("\x05\x00"), piece), 2); /* some servers answer with 5 there */
        assert_int_equal(feed(&m, BYTES("\x05\x00\x00\x01\0\0\0\0\0\0"), piece), 10);
        assert_int_equal(m.state, S6_SOCKS5_CONNECTED);
    }
}

static void test_password_is_wiped_once_sent(void **state)
{
    struct socks6_credentials c = credentials("alice", "hunter2");
    struct socks6_addr dest = destination();
    struct s6_socks5 m;

    (void)state;
    s6_socks5_init(&m, &dest, &c);
    (void)s6_socks5_input(&m, BYTES("\x05\x02"));
    assert_non_null(memmem(m.out, sizeof m.out, "hunter2", 7));
    (void)s6_socks5_input(&m, BYTES("\x01\x00"));
    assert_null(memmem(m.out, sizeof m.out, "hunter2", 7));
    s6_socks5_done(&m);
    assert_int_equal(m.out_len, 0);
}

/* Every reply code; some servers send only the code and close. */
static void test_refusal_needs_two_bytes_only(void **state)
{
    (void)state;
    for (unsigned code = 1; code <= 255; code++) {
        const uint8_t bytes[2] = {5, (uint8_t)code};
        struct s6_socks5 m;

        start_requested(&m);
        assert_int_equal(feed(&m, bytes, 2, 1), 2);
        assert_int_equal(m.state, S6_SOCKS5_REFUSED);
        assert_int_equal(m.reply, code);
    }
}

static void assert_fails(const uint8_t *method, const uint8_t *reply, size_t reply_len, enum s6_socks5_failure failure)
{
    for (size_t piece = 1; piece <= 16; piece++) {
        struct s6_socks5 m;

        start(&m);
        (void)feed(&m, method, 2, piece);
        if (reply != NULL) {
            (void)feed(&m, reply, reply_len, piece);
        }
        assert_int_equal(m.state, S6_SOCKS5_FAILED);
        assert_int_equal(m.failure, failure);
        assert_int_equal(s6_socks5_input(&m, BYTES("\x05\x00")), 0);
    }
}

static void test_wrong_replies_fail(void **state)
{
    static const uint8_t fine[] = {5, 0};

    (void)state;
    assert_fails((const uint8_t *)"HT", NULL, 0, S6_SOCKS5_NOT_SOCKS5);
    assert_fails((const uint8_t *)"\x06\x00", NULL, 0, S6_SOCKS5_NOT_SOCKS5);
    assert_fails((const uint8_t *)"\x05\xff", NULL, 0, S6_SOCKS5_NO_METHOD);
    assert_fails((const uint8_t *)"\x05\x02", NULL, 0, S6_SOCKS5_FOREIGN_METHOD); /* without credentials */
    assert_fails((const uint8_t *)"\x05\x01", NULL, 0, S6_SOCKS5_FOREIGN_METHOD);
    assert_fails(fine, BYTES("\x04\x00\x00\x01\0\0\0\0\0\0"), S6_SOCKS5_NOT_SOCKS5);
    assert_fails(fine, BYTES("\x05\x00\x00\x02\0\0\0\0\0\0"), S6_SOCKS5_MALFORMED);
    assert_fails(fine, BYTES("\x05\x00\x00\x00\0\0\0\0\0\0"), S6_SOCKS5_MALFORMED);
}

static void test_refused_password_fails(void **state)
{
    struct socks6_credentials c = credentials("alice", "pw");
    struct socks6_addr dest = destination();
    struct s6_socks5 m;

    (void)state;
    s6_socks5_init(&m, &dest, &c);
    (void)s6_socks5_input(&m, BYTES("\x05\x02"));
    (void)s6_socks5_input(&m, BYTES("\x01\x01"));
    assert_int_equal(m.failure, S6_SOCKS5_AUTH_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_has_each_address_form),
        cmocka_unit_test(test_longest_name_and_credentials_fit),
        cmocka_unit_test(test_success_leaves_what_follows),
        cmocka_unit_test(test_authentication_in_pieces),
        cmocka_unit_test(test_password_is_wiped_once_sent),
        cmocka_unit_test(test_refusal_needs_two_bytes_only),
        cmocka_unit_test(test_wrong_replies_fail),
        cmocka_unit_test(test_refused_password_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
