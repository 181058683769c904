/* wire/addr: addresses in streams and datagrams, both conventions of names, exact sizes. */
#include "wire/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compare.h"

static const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};
static const enum s6_addr_place places[] = {S6_ADDR_IN_STREAM, S6_ADDR_IN_DATAGRAM};

static int decode(const void *bytes, size_t len, uint8_t type, enum s6_addr_place place, struct socks6_addr *out,
                  size_t *used)
{
    struct s6_reader reader;
    int err;

    s6_reader_init(&reader, bytes, len);
    err = s6_addr_decode(&reader, type, 7, place, out);
    *used = len - s6_reader_left(&reader);
    return err;
}

static void test_ip_addresses_are_read_and_written(void **state)
{
    static const uint8_t bytes[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    static const uint8_t types[] = {SOCKS6_ADDR_IPV4, SOCKS6_ADDR_IPV6};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        size_t len = types[i] == SOCKS6_ADDR_IPV4 ? 4 : 16;
        struct socks6_addr addr;
        struct s6_writer writer;
        uint8_t out[16];
        size_t used;

        for (size_t cut = 0; cut < len; cut++) {
            memset(&addr, 0x55, sizeof addr);
            assert_int_equal(decode(bytes, cut, types[i], places[i], &addr, &used), SOCKS6_ERR_MALFORMED);
            assert_int_equal(addr.type, 0x55); /* untouched */
        }
        assert_int_equal(decode(bytes, 16, types[i], places[i], &addr, &used), SOCKS6_OK);
        assert_int_equal(used, len);
        assert_int_equal(addr.type, types[i]);
        assert_int_equal(addr.len, len);
        assert_int_equal(addr.port, 7);
        assert_memory_equal(addr.u.ipv6, bytes, len);
        assert_int_equal(s6_addr_encoded_len(&addr, places[i], SOCKS6_DRAFT_12), len);
        s6_writer_init(&writer, out, len);
        s6_addr_encode(&writer, &addr, places[i], SOCKS6_DRAFT_12);
        assert_false(writer.failed);
        assert_memory_equal(out, bytes, len);
    }
}

static void test_unknown_types(void **state)
{
    (void)state;
    for (unsigned type = 0; type <= 255; type++) {
        struct socks6_addr addr;
        size_t used;

        if (type == 1 || type == 3 || type == 4) {
            continue;
        }
        assert_int_equal(s6_addr_wire_size((uint8_t)type, S6_ADDR_IN_STREAM, NULL, 0), 0);
        assert_int_equal(decode("\x01\x02\x03\x04", 4, (uint8_t)type, S6_ADDR_IN_STREAM, &addr, &used),
                         SOCKS6_ERR_ADDRESS);
        assert_int_equal(used, 0);
    }
}

static void test_wire_size_is_known_once_the_length_is(void **state)
{
    const uint8_t five = 5;

    (void)state;
    assert_int_equal(s6_addr_wire_size(SOCKS6_ADDR_IPV4, S6_ADDR_IN_STREAM, NULL, 0), 4);
    assert_int_equal(s6_addr_wire_size(SOCKS6_ADDR_IPV6, S6_ADDR_IN_DATAGRAM, NULL, 0), 16);
    assert_int_equal(s6_addr_wire_size(SOCKS6_ADDR_NAME, S6_ADDR_IN_STREAM, NULL, 0), 1);
    assert_int_equal(s6_addr_wire_size(SOCKS6_ADDR_NAME, S6_ADDR_IN_STREAM, &five, 1), 8);
    assert_int_equal(s6_addr_wire_size(SOCKS6_ADDR_NAME, S6_ADDR_IN_DATAGRAM, &five, 1), 6);
}

/* What is in a name field, and the name that comes out; NULL = malformed. */
static void test_names_by_both_conventions(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *name;
        size_t used_in_stream;
        size_t used_in_datagram;
    } rows[] = {
        {"\x03"
         "abc",
         4, "abc", 4, 4},
        {"\x04"
         "abcd\0\0\0",
         8, "abcd", 8, 5},
        {"\x07"
         "abcd\0\0\0",
         8, "abcd", 8, 8},
        {"\x05"
         "abcd\0\xff\xff",
         8, "abcd", 8, 6},
        {"\x03"
         "a\0\0",
         4, "a", 4, 4},
        {"\x00\0\0\0", 4, NULL, 0, 0},
        {"\x03\0\0\0", 4, NULL, 0, 0},
        {"\x03"
         "a\0b",
         4, NULL, 0, 0},
        {"\x03\0ab", 4, NULL, 0, 0},
        {"\x04"
         "abc",
         4, NULL, 0, 0},
        {"", 0, NULL, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t j = 0; j < 2; j++) {
            struct socks6_addr addr = {0};
            size_t used;
            int err = decode(rows[i].bytes, rows[i].len, SOCKS6_ADDR_NAME, places[j], &addr, &used);

            if (rows[i].name == NULL) {
                assert_int_equal(err, SOCKS6_ERR_MALFORMED);
                assert_int_equal(addr.type, 0);
                continue;
            }
            assert_int_equal(err, SOCKS6_OK);
            assert_string_equal(addr.u.name, rows[i].name);
            assert_int_equal(addr.len, strlen(rows[i].name));
            assert_int_equal(used, places[j] == S6_ADDR_IN_STREAM ? rows[i].used_in_stream : rows[i].used_in_datagram);
        }
    }
}

/* Padding that is missing makes the name malformed in streams; datagrams have none. */
static void test_missing_padding(void **state)
{
    struct socks6_addr addr;
    size_t used;

    (void)state;
    assert_int_equal(decode("\x04"
                            "abcd\0\0",
                            7, SOCKS6_ADDR_NAME, S6_ADDR_IN_STREAM, &addr, &used),
                     SOCKS6_ERR_MALFORMED);
    assert_int_equal(decode("\x04"
                            "abcd",
                            5, SOCKS6_ADDR_NAME, S6_ADDR_IN_DATAGRAM, &addr, &used),
                     SOCKS6_OK);
}

static void test_names_of_every_length_round_trip(void **state)
{
    char name[256];

    (void)state;
    for (size_t i = 0; i < sizeof name; i++) {
        name[i] = (char)(i % 255 + 1); /* every byte but NUL */
    }
    for (size_t len = 1; len <= 255; len++) {
        for (size_t i = 0; i < 6; i++) {
            enum s6_addr_place place = places[i % 2];
            enum socks6_draft draft = drafts[i / 2];
            struct socks6_addr addr;
            struct socks6_addr again;
            struct s6_writer writer;
            uint8_t out[256];
            size_t size;
            size_t used;

            assert_true(socks6_addr_name(name, len, 7, &addr));
            size = s6_addr_encoded_len(&addr, place, draft);
            assert_int_equal(size,
                             place == S6_ADDR_IN_DATAGRAM && draft != SOCKS6_DRAFT_12 ? 1 + len : s6_round4(1 + len));
            s6_writer_init(&writer, out, size);
            s6_addr_encode(&writer, &addr, place, draft);
            assert_false(writer.failed);
            assert_int_equal(s6_writer_len(&writer), size);
            assert_int_equal(s6_addr_wire_size(SOCKS6_ADDR_NAME, place, out, size), size);
            assert_int_equal(decode(out, size, SOCKS6_ADDR_NAME, place, &again, &used), SOCKS6_OK);
            assert_int_equal(used, size);
            assert_true(addrs_equal(&addr, &again));
        }
    }
}

static void test_validity(void **state)
{
    static const uint8_t bytes[16];
    struct socks6_addr addr = {0};

    (void)state;
    assert_false(s6_addr_is_valid(&addr));
    addr = socks6_addr_ipv4(bytes, 0);
    assert_true(s6_addr_is_valid(&addr));
    addr.len = 16;
    assert_false(s6_addr_is_valid(&addr));
    addr = socks6_addr_ipv6(bytes, 0);
    assert_true(s6_addr_is_valid(&addr));
    addr.len = 4;
    assert_false(s6_addr_is_valid(&addr));
    assert_true(socks6_addr_name("abc", 3, 0, &addr));
    assert_true(s6_addr_is_valid(&addr));
    addr.len = 4; /* longer than the text */
    assert_false(s6_addr_is_valid(&addr));
    addr.len = 2; /* shorter */
    assert_false(s6_addr_is_valid(&addr));
    addr.len = 0;
    assert_false(s6_addr_is_valid(&addr));
    assert_true(socks6_addr_name("abc", 3, 0, &addr));
    addr.type = 7;
    assert_false(s6_addr_is_valid(&addr));
    memset(addr.u.name, 'x', sizeof addr.u.name); /* no NUL anywhere */
    addr.type = SOCKS6_ADDR_NAME;
    addr.len = 255;
    assert_false(s6_addr_is_valid(&addr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ip_addresses_are_read_and_written),
        cmocka_unit_test(test_unknown_types),
        cmocka_unit_test(test_wire_size_is_known_once_the_length_is),
        cmocka_unit_test(test_names_by_both_conventions),
        cmocka_unit_test(test_missing_padding),
        cmocka_unit_test(test_names_of_every_length_round_trip),
        cmocka_unit_test(test_validity),
    };

    return cmocka_run_group_tests_name("wire/addr", tests, NULL, NULL);
}
