/* Addresses as text: against the C library's own functions, RFC 5952's examples, and names that would hurt a log. */
#include <socks6/types.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <socks6/error.h>

static struct socks6_addr parsed(const char *text)
{
    struct socks6_addr addr;

    assert_int_equal(socks6_addr_parse(text, 80, &addr), SOCKS6_OK);
    assert_int_equal(addr.port, 80);
    return addr;
}

static void test_parse_kinds(void **state)
{
    static const struct {
        const char *text;
        uint8_t type;
    } rows[] = {
        {"192.0.2.1", SOCKS6_ADDR_IPV4},
        {"0.0.0.0", SOCKS6_ADDR_IPV4},
        {"255.255.255.255", SOCKS6_ADDR_IPV4},
        {"::", SOCKS6_ADDR_IPV6},
        {"::1", SOCKS6_ADDR_IPV6},
        {"[::1]", SOCKS6_ADDR_IPV6},
        {"[2001:DB8::1]", SOCKS6_ADDR_IPV6},
        {"::ffff:192.0.2.1", SOCKS6_ADDR_IPV6},
        {"1:2:3:4:5:6:7::", SOCKS6_ADDR_IPV6},
        {"::2:3:4:5:6:7:8", SOCKS6_ADDR_IPV6},
        {"1:2:3:4:5:6:192.0.2.1", SOCKS6_ADDR_IPV6},
        {"example.com", SOCKS6_ADDR_NAME},
        {"localhost", SOCKS6_ADDR_NAME},
        {"a", SOCKS6_ADDR_NAME},
        /* What inet_aton(3) would read as an address is a name here. */
        {"127.1", SOCKS6_ADDR_NAME},
        {"0x7f.0.0.1", SOCKS6_ADDR_NAME},
        {"2130706433", SOCKS6_ADDR_NAME},
        {"127.0.0.01", SOCKS6_ADDR_NAME},
        {"256.0.0.1", SOCKS6_ADDR_NAME},
        {"1.2.3", SOCKS6_ADDR_NAME},
        {"1.2.3.4.", SOCKS6_ADDR_NAME},
        {"1.2.3.4.5", SOCKS6_ADDR_NAME},
        {"1..2.3", SOCKS6_ADDR_NAME},
        {" 1.2.3.4", SOCKS6_ADDR_NAME},
        {"1.2.3.1000", SOCKS6_ADDR_NAME},
        {"fe80::1%eth0", SOCKS6_ADDR_NAME},
        {":", SOCKS6_ADDR_NAME},
        {":::", SOCKS6_ADDR_NAME},
        {"1::2::3", SOCKS6_ADDR_NAME},
        {"1:2:3:4:5:6:7", SOCKS6_ADDR_NAME},
        {"1:2:3:4:5:6:7:8:9", SOCKS6_ADDR_NAME},
        {"1:2:3:4:5:6:7:8:", SOCKS6_ADDR_NAME},
        {"1:2:3:4:5:6:7:8::", SOCKS6_ADDR_NAME},
        {"::1:2:3:4:5:6:7:8", SOCKS6_ADDR_NAME},
        {"1:2:3:4:5:6:7:192.0.2.1", SOCKS6_ADDR_NAME},
        {"::192.0.2", SOCKS6_ADDR_NAME},
        {"12345::", SOCKS6_ADDR_NAME},
        {"g::", SOCKS6_ADDR_NAME},
        {"[1.2.3.4", 0},
        {"[1.2.3.4]", 0},
        {"[example.com]", 0},
        {"[::1", 0},
        {"[]", 0},
        {"[", 0},
        {"", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct socks6_addr addr = {.type = 99};
        int err = socks6_addr_parse(rows[i].text, 80, &addr);

        if (err != (rows[i].type == 0 ? SOCKS6_ERR_INVALID : SOCKS6_OK) ||
            addr.type != (rows[i].type == 0 ? 99 : rows[i].type)) {
            fail_msg("\"%s\": error %d, type %d", rows[i].text, err, addr.type);
        }
    }
}

static void test_parse_name_lengths(void **state)
{
    char text[258];
    struct socks6_addr addr;

    (void)state;
    memset(text, 'x', sizeof text);
    text[255] = '\0';
    assert_int_equal(socks6_addr_parse(text, 1, &addr), SOCKS6_OK);
    assert_int_equal(addr.len, 255);
    assert_string_equal(addr.u.name, text);
    text[255] = 'x';
    text[256] = '\0';
    assert_int_equal(socks6_addr_parse(text, 1, &addr), SOCKS6_ERR_INVALID);
}

static void test_names_hold_no_nul(void **state)
{
    struct socks6_addr addr = {.type = 99};

    (void)state;
    assert_false(socks6_addr_name("a\0b", 3, 1, &addr));
    assert_false(socks6_addr_name("", 0, 1, &addr));
    assert_int_equal(addr.type, 99);
    assert_true(socks6_addr_name("a\0b", 1, 1, &addr));
    assert_string_equal(addr.u.name, "a");
}

/* A small generator of its own, so that a failure repeats. */
static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static void test_text_agrees_with_the_c_library(void **state)
{
    uint32_t seed = 6;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[16];
        char theirs[INET6_ADDRSTRLEN];
        char ours[SOCKS6_ADDR_TEXT_MAX];
        struct socks6_addr addr;
        struct socks6_addr again;

        for (size_t i = 0; i < 16; i += 2) { /* many zero groups, many small ones */
            uint32_t kind = next_random(&seed) % 4;

            bytes[i] = kind == 3 ? (uint8_t)next_random(&seed) : 0;
            bytes[i + 1] = kind >= 2 ? (uint8_t)next_random(&seed) : 0;
        }
        if (memcmp(bytes, "\0\0\0\0\0\0\0\0\0\0\0", 12) == 0) {
            bytes[0] = 0x20; /* the C library writes ::c000:201 with dots, RFC 5952 does not ask for it */
        }
        addr = socks6_addr_ipv6(bytes, 80);
        assert_non_null(inet_ntop(AF_INET6, bytes, theirs, sizeof theirs));
        assert_int_equal(socks6_addr_format_host(&addr, ours, sizeof ours), strlen(theirs));
        assert_string_equal(ours, theirs);
        again = parsed(theirs);
        assert_true(socks6_addr_equal(&addr, &again));

        addr = socks6_addr_ipv4(bytes + 2, 80);
        assert_non_null(inet_ntop(AF_INET, bytes + 2, theirs, sizeof theirs));
        socks6_addr_format_host(&addr, ours, sizeof ours);
        assert_string_equal(ours, theirs);
        again = parsed(theirs);
        assert_true(socks6_addr_equal(&addr, &again));
    }
}

/* Texts made of the letters of addresses: the verdict is the C library's. */
static void test_parse_agrees_with_the_c_library(void **state)
{
    static const char letters[] = ":::..0127fF9";
    uint32_t seed = 66;
    int literals = 0;

    (void)state;
    for (int round = 0; round < 400000; round++) {
        char text[24];
        size_t len = next_random(&seed) % 16 + 1;
        uint8_t theirs[16];
        struct socks6_addr addr;
        bool is4;
        bool is6;

        for (size_t i = 0; i < len; i++) {
            text[i] = letters[next_random(&seed) % (sizeof letters - 1)];
        }
        text[len] = '\0';
        is4 = inet_pton(AF_INET, text, theirs) == 1;
        is6 = !is4 && inet_pton(AF_INET6, text, theirs) == 1;
        addr = parsed(text);
        if (addr.type != (is4 ? SOCKS6_ADDR_IPV4 : is6 ? SOCKS6_ADDR_IPV6 : SOCKS6_ADDR_NAME)) {
            fail_msg("\"%s\" is of type %d", text, addr.type);
        }
        if (is4 || is6) {
            assert_memory_equal(addr.u.ipv6, theirs, addr.len);
            literals++;
        }
    }
    assert_true(literals > 1000);
}

static void test_format_follows_rfc_5952(void **state)
{
    static const char *const rows[][2] = {
        {"2001:0db8:0000:0000:0000:0000:0002:0001", "2001:db8::2:1"},
        {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"}, /* 4.2.2: not for one group */
        {"2001:0:0:1:0:0:0:1", "2001:0:0:1::1"},          /* 4.2.3: the longest */
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},    /* 4.2.3: the first of equals */
        {"2001:DB8::AAAA", "2001:db8::aaaa"},             /* 4.3 */
        {"0:0:0:0:0:0:0:0", "::"},
        {"0:0:0:0:0:0:0:1", "::1"},
        {"1:0:0:0:0:0:0:0", "1::"},
        {"0:0:1:0:0:0:0:0", "0:0:1::"},
        {"::ffff:c000:201", "::ffff:192.0.2.1"}, /* 5 */
        {"::c000:201", "::c000:201"},
        {"1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7:0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct socks6_addr addr = parsed(rows[i][0]);
        char text[SOCKS6_ADDR_TEXT_MAX];
        char wanted[64];

        socks6_addr_format_host(&addr, text, sizeof text);
        assert_string_equal(text, rows[i][1]);
        snprintf(wanted, sizeof wanted, "[%s]:80", rows[i][1]);
        assert_int_equal(socks6_addr_format(&addr, text, sizeof text), strlen(wanted));
        assert_string_equal(text, wanted);
    }
}

static void test_format_with_ports(void **state)
{
    static const uint8_t bytes[4] = {192, 0, 2, 1};
    struct socks6_addr addr = socks6_addr_ipv4(bytes, 65535);
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)state;
    socks6_addr_format(&addr, text, sizeof text);
    assert_string_equal(text, "192.0.2.1:65535");
    addr.port = 0;
    socks6_addr_format(&addr, text, sizeof text);
    assert_string_equal(text, "192.0.2.1:0");
    addr = parsed("example.com");
    socks6_addr_format(&addr, text, sizeof text);
    assert_string_equal(text, "example.com:80");
    addr.type = 0;
    socks6_addr_format(&addr, text, sizeof text);
    assert_string_equal(text, "?:80");
}

/* Nothing in a name ends a line, a quoted string or an escape. */
static void test_names_are_escaped_for_logs(void **state)
{
    struct socks6_addr addr;
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)state;
    assert_true(socks6_addr_name("a\r\nb \"c'd\\e\x1b[0m\x7f\xc3\xa9", 18, 80, &addr));
    socks6_addr_format(&addr, text, sizeof text);
    assert_string_equal(text, "a\\x0d\\x0ab\\x20\\x22c\\x27d\\x5ce\\x1b[0m\\x7f\\xc3\\xa9:80");
    for (unsigned c = 1; c <= 255; c++) {
        char name = (char)c;
        bool plain = c > 0x20 && c < 0x7f && strchr("\"'\\", (int)c) == NULL;

        assert_true(socks6_addr_name(&name, 1, 80, &addr));
        assert_int_equal(socks6_addr_format_host(&addr, text, sizeof text), plain ? 1 : 4);
        assert_true(plain ? text[0] == name : text[0] == '\\' && text[1] == 'x');
    }
}

static void test_longest_text_fits_its_macro(void **state)
{
    char name[255];
    char text[SOCKS6_ADDR_TEXT_MAX];
    struct socks6_addr addr;
    size_t len;

    (void)state;
    memset(name, '\n', sizeof name);
    assert_true(socks6_addr_name(name, sizeof name, 65535, &addr));
    len = socks6_addr_format(&addr, text, sizeof text);
    assert_int_equal(len, 255 * 4 + strlen(":65535"));
    assert_string_equal(text + len - 6, ":65535");
}

/* Cut at every size: ends in NUL, within bounds (ASan), and never in the middle of an escape. */
static void test_short_buffers_cut(void **state)
{
    struct socks6_addr addr;
    char whole[SOCKS6_ADDR_TEXT_MAX];
    size_t whole_len;

    (void)state;
    assert_true(socks6_addr_name("ab\ncd", 5, 80, &addr));
    whole_len = socks6_addr_format(&addr, whole, sizeof whole);
    assert_string_equal(whole, "ab\\x0acd:80");
    assert_int_equal(socks6_addr_format(&addr, NULL, 0), 0);
    for (size_t size = 1; size <= whole_len; size++) {
        char *text = malloc(size);
        size_t len;

        assert_non_null(text);
        len = socks6_addr_format(&addr, text, size);
        assert_true(len < size);
        assert_int_equal(text[len], '\0');
        assert_memory_equal(text, whole, len);
        assert_true(len <= 2 || len >= 6); /* \x0a whole or not at all */
        free(text);
    }
}

static void test_normalize(void **state)
{
    static const struct {
        const char *name;
        const char *wanted;
        uint8_t type;
    } rows[] = {
        {"192.0.2.1", "192.0.2.1", SOCKS6_ADDR_IPV4},
        {"2001:db8::1", "2001:db8::1", SOCKS6_ADDR_IPV6},
        {"[2001:db8::1]", "2001:db8::1", SOCKS6_ADDR_IPV6},
        {"::ffff:192.0.2.1", "192.0.2.1", SOCKS6_ADDR_IPV4},
        {"[::ffff:7f00:1]", "127.0.0.1", SOCKS6_ADDR_IPV4},
        {"::ffff:0:0", "0.0.0.0", SOCKS6_ADDR_IPV4},
        {"::192.0.2.1", "::c000:201", SOCKS6_ADDR_IPV6}, /* not mapped */
        {"::fffe:192.0.2.1", "::fffe:c000:201", SOCKS6_ADDR_IPV6},
        {"Example.COM", "Example.COM", SOCKS6_ADDR_NAME},
        {"127.1", "127.1", SOCKS6_ADDR_NAME},
        {"[example.com]", "[example.com]", SOCKS6_ADDR_NAME},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct socks6_addr addr;
        char text[SOCKS6_ADDR_TEXT_MAX];

        assert_true(socks6_addr_name(rows[i].name, strlen(rows[i].name), 443, &addr));
        socks6_addr_normalize(&addr);
        assert_int_equal(addr.type, rows[i].type);
        assert_int_equal(addr.port, 443);
        socks6_addr_format_host(&addr, text, sizeof text);
        assert_string_equal(text, rows[i].wanted);
    }
}

static void test_normalize_addresses(void **state)
{
    struct socks6_addr addr = parsed("::ffff:10.0.0.1");

    (void)state;
    socks6_addr_normalize(&addr);
    assert_int_equal(addr.type, SOCKS6_ADDR_IPV4);
    assert_memory_equal(addr.u.ipv4, "\x0a\0\0\x01", 4);
    socks6_addr_normalize(&addr); /* stays */
    assert_int_equal(addr.type, SOCKS6_ADDR_IPV4);
}

static void test_equality(void **state)
{
    struct socks6_addr a = parsed("Example.com");
    struct socks6_addr b = parsed("eXAMPLE.COM");

    (void)state;
    assert_true(socks6_addr_equal(&a, &b));
    b.port = 81;
    assert_false(socks6_addr_equal(&a, &b));
    b = parsed("example.con");
    assert_false(socks6_addr_equal(&a, &b));
    b = parsed("example.co");
    assert_false(socks6_addr_equal(&a, &b));
    a = parsed("@.example"); /* 0x40 and 0x60 differ by the bit that cases differ by */
    b = parsed("`.example");
    assert_false(socks6_addr_equal(&a, &b));
    a = parsed("192.0.2.1");
    b = parsed("192.0.2.1");
    assert_true(socks6_addr_equal(&a, &b));
    b = parsed("192.0.2.2");
    assert_false(socks6_addr_equal(&a, &b));
    a = parsed("::1");
    assert_false(socks6_addr_equal(&a, &b));
    b = parsed("::2");
    assert_false(socks6_addr_equal(&a, &b));
}

static void test_unspecified(void **state)
{
    struct socks6_addr addr;

    (void)state;
    addr = parsed("0.0.0.0");
    assert_true(socks6_addr_is_unspecified(&addr));
    addr = parsed("::");
    assert_true(socks6_addr_is_unspecified(&addr));
    addr = parsed("0.0.0.1");
    assert_false(socks6_addr_is_unspecified(&addr));
    addr = parsed("::1");
    assert_false(socks6_addr_is_unspecified(&addr));
    addr = parsed("::ffff:0.0.0.0");
    assert_false(socks6_addr_is_unspecified(&addr)); /* before it is normalised */
    socks6_addr_normalize(&addr);
    assert_true(socks6_addr_is_unspecified(&addr));
    addr = parsed("zero");
    assert_false(socks6_addr_is_unspecified(&addr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_kinds),
        cmocka_unit_test(test_parse_name_lengths),
        cmocka_unit_test(test_names_hold_no_nul),
        cmocka_unit_test(test_text_agrees_with_the_c_library),
        cmocka_unit_test(test_parse_agrees_with_the_c_library),
        cmocka_unit_test(test_format_follows_rfc_5952),
        cmocka_unit_test(test_format_with_ports),
        cmocka_unit_test(test_names_are_escaped_for_logs),
        cmocka_unit_test(test_longest_text_fits_its_macro),
        cmocka_unit_test(test_short_buffers_cut),
        cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_normalize_addresses),
        cmocka_unit_test(test_equality),
        cmocka_unit_test(test_unspecified),
    };

    return cmocka_run_group_tests_name("wire/addr_text", tests, NULL, NULL);
}
