/* base/cursor: integers in network order, exact bounds, errors that stick. */
#include "base/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t counting[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                   0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f};

static void test_reads_network_order(void **state)
{
    struct s6_reader reader;

    (void)state;
    s6_reader_init(&reader, counting, sizeof counting);
    assert_int_equal(s6_read_u8(&reader), 0x01);
    assert_int_equal(s6_read_u16(&reader), 0x0203);
    assert_int_equal(s6_read_u32(&reader), 0x04050607);
    assert_true(s6_read_u64(&reader) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_int_equal(s6_reader_left(&reader), 0);
    assert_false(reader.failed);
}

static void test_read_past_the_end_yields_zero_and_sticks(void **state)
{
    struct s6_reader reader;

    (void)state;
    s6_reader_init(&reader, counting, 3);
    assert_int_equal(s6_read_u32(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(s6_reader_left(&reader), 0);
    assert_int_equal(s6_read_u8(&reader), 0); /* although a byte had been there */
    assert_true(reader.failed);
}

static void test_each_integer_checks_its_own_size(void **state)
{
    (void)state;
    for (size_t len = 0; len <= 8; len++) {
        struct s6_reader reader;

        s6_reader_init(&reader, counting, len);
        (void)s6_read_u8(&reader);
        assert_int_equal(reader.failed, len < 1);
        s6_reader_init(&reader, counting, len);
        (void)s6_read_u16(&reader);
        assert_int_equal(reader.failed, len < 2);
        s6_reader_init(&reader, counting, len);
        (void)s6_read_u32(&reader);
        assert_int_equal(reader.failed, len < 4);
        s6_reader_init(&reader, counting, len);
        (void)s6_read_u64(&reader);
        assert_int_equal(reader.failed, len < 8);
    }
}

static void test_empty_range_may_be_null(void **state)
{
    struct s6_reader reader;

    (void)state;
    s6_reader_init(&reader, NULL, 0);
    assert_int_equal(s6_reader_left(&reader), 0);
    assert_int_equal(s6_read_slice(&reader, 0).len, 0);
    assert_false(reader.failed);
    s6_read_skip(&reader, 1);
    assert_true(reader.failed);
}

static void test_slice_is_borrowed(void **state)
{
    struct s6_reader reader;
    struct socks6_slice slice;

    (void)state;
    s6_reader_init(&reader, counting, 5);
    s6_read_skip(&reader, 1);
    slice = s6_read_slice(&reader, 3);
    assert_ptr_equal(slice.data, counting + 1);
    assert_int_equal(slice.len, 3);
    slice = s6_read_slice(&reader, 2);
    assert_int_equal(slice.len, 0);
    assert_true(reader.failed);
}

static void test_huge_length_does_not_wrap(void **state)
{
    struct s6_reader reader;

    (void)state;
    s6_reader_init(&reader, counting, 5);
    s6_read_skip(&reader, 2);
    s6_read_skip(&reader, SIZE_MAX);
    assert_true(reader.failed);
    assert_ptr_equal(reader.pos, reader.end);
}

static void test_copy_is_whole_or_zero(void **state)
{
    struct s6_reader reader;
    uint8_t out[4];

    (void)state;
    s6_reader_init(&reader, counting, 7);
    s6_read_copy(&reader, out, sizeof out);
    assert_memory_equal(out, counting, sizeof out);
    s6_read_copy(&reader, out, sizeof out);
    assert_memory_equal(out, "\0\0\0\0", sizeof out);
    assert_true(reader.failed);
}

static void test_writes_network_order(void **state)
{
    struct s6_writer writer;
    uint8_t out[sizeof counting + 3];

    (void)state;
    s6_writer_init(&writer, out, sizeof out);
    s6_write_u8(&writer, 0x01);
    s6_write_u16(&writer, 0x0203);
    s6_write_u32(&writer, 0x04050607);
    s6_write_u64(&writer, UINT64_C(0x08090a0b0c0d0e0f));
    s6_write_zeros(&writer, 2);
    s6_write_bytes(&writer, "x", 1);
    assert_false(writer.failed);
    assert_int_equal(s6_writer_len(&writer), sizeof out);
    assert_memory_equal(out, counting, sizeof counting);
    assert_memory_equal(out + sizeof counting, "\0\0x", 3);
}

static void test_write_past_the_end_leaves_the_rest_alone(void **state)
{
    struct s6_writer writer;
    uint8_t out[4];

    (void)state;
    memset(out, 0xee, sizeof out);
    s6_writer_init(&writer, out, 3);
    s6_write_u16(&writer, 0x0102);
    s6_write_u16(&writer, 0x0304);
    assert_true(writer.failed);
    s6_write_u8(&writer, 5); /* would fit, but the error sticks */
    s6_write_bytes(&writer, "x", 1);
    s6_write_zeros(&writer, 1);
    assert_int_equal(s6_writer_len(&writer), 2);
    assert_memory_equal(out, "\x01\x02\xee\xee", 4);
}

static void test_writing_nothing_to_nowhere_is_good(void **state)
{
    struct s6_writer writer;

    (void)state;
    s6_writer_init(&writer, NULL, 0);
    s6_write_bytes(&writer, NULL, 0);
    s6_write_zeros(&writer, 0);
    assert_false(writer.failed);
    assert_int_equal(s6_writer_len(&writer), 0);
    s6_write_u8(&writer, 1);
    assert_true(writer.failed);
}

static void test_round4(void **state)
{
    (void)state;
    assert_int_equal(s6_round4(0), 0);
    assert_int_equal(s6_round4(1), 4);
    assert_int_equal(s6_round4(3), 4);
    assert_int_equal(s6_round4(4), 4);
    assert_int_equal(s6_round4(256), 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_network_order),
        cmocka_unit_test(test_read_past_the_end_yields_zero_and_sticks),
        cmocka_unit_test(test_each_integer_checks_its_own_size),
        cmocka_unit_test(test_empty_range_may_be_null),
        cmocka_unit_test(test_slice_is_borrowed),
        cmocka_unit_test(test_huge_length_does_not_wrap),
        cmocka_unit_test(test_copy_is_whole_or_zero),
        cmocka_unit_test(test_writes_network_order),
        cmocka_unit_test(test_write_past_the_end_leaves_the_rest_alone),
        cmocka_unit_test(test_writing_nothing_to_nowhere_is_good),
        cmocka_unit_test(test_round4),
    };

    return cmocka_run_group_tests_name("base/cursor", tests, NULL, NULL);
}
