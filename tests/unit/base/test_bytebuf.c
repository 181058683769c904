/* base/bytebuf: what goes in comes out in order, never more than the cap, and no secret stays in freed memory. */
#include "base/bytebuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* An allocator that fails from the n-th allocation on, counts what is held, and looks for a secret in what is freed. */
struct probe {
    int allocations_left; /* negative: no limit */
    int held;
    int freed_with_secret;
};

#define BLOCK_MAX 4096u
static const char secret[] = "opensesame";

static void *probe_alloc(void *user, size_t size)
{
    struct probe *probe = user;
    void *ptr;

    assert_true(size > 0 && size <= BLOCK_MAX);
    if (probe->allocations_left == 0) {
        return NULL;
    }
    probe->allocations_left--;
    ptr = calloc(1, BLOCK_MAX); /* so that all of it may be looked at when it is freed */
    assert_non_null(ptr);
    probe->held++;
    return ptr;
}

static void *probe_resize(void *user, void *ptr, size_t size)
{
    (void)user;
    (void)ptr;
    (void)size;
    fail_msg("the buffer must not call resize: old blocks could not be wiped");
    return NULL;
}

static void probe_free(void *user, void *ptr)
{
    struct probe *probe = user;

    if (ptr == NULL) {
        return;
    }
    for (size_t i = 0; i + sizeof secret - 1 <= BLOCK_MAX; i++) {
        if (memcmp((char *)ptr + i, secret, sizeof secret - 1) == 0) {
            probe->freed_with_secret++;
            break;
        }
    }
    probe->held--;
    free(ptr);
}

static struct socks6_allocator allocator(struct probe *probe)
{
    *probe = (struct probe){.allocations_left = -1};
    return (struct socks6_allocator){probe_alloc, probe_resize, probe_free, probe};
}

static void assert_holds(const struct s6_buf *buf, const void *bytes, size_t len)
{
    struct socks6_slice slice = s6_buf_slice(buf);

    assert_int_equal(slice.len, len);
    assert_int_equal(s6_buf_len(buf), len);
    assert_true(buf->tail <= buf->room);
    if (len > 0) {
        assert_memory_equal(slice.data, bytes, len);
    }
}

static void test_empty_owns_nothing(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;

    (void)state;
    s6_buf_init(&buf, &mem, 100, false);
    assert_holds(&buf, NULL, 0);
    assert_int_equal(s6_buf_reserve(&buf, 0), SOCKS6_OK);
    assert_int_equal(s6_buf_append(&buf, NULL, 0), SOCKS6_OK);
    s6_buf_consume(&buf, 0);
    assert_int_equal(probe.held, 0);
    s6_buf_done(&buf);
    s6_buf_done(&buf);
}

static void test_bytes_come_out_in_order(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    uint8_t next_in = 0;
    uint8_t next_out = 0;

    (void)state;
    s6_buf_init(&buf, &mem, 200, false);
    /* Uneven steps in and out, so that the range wanders through the storage, is compacted, and grows. */
    for (unsigned round = 0; round < 1000; round++) {
        size_t in = round % 7 + 1;
        size_t out;

        for (size_t i = 0; i < in; i++) {
            if (s6_buf_len(&buf) < 200) {
                assert_int_equal(s6_buf_append(&buf, &next_in, 1), SOCKS6_OK);
                next_in++;
            }
        }
        out = round % 5 < s6_buf_len(&buf) ? round % 5 : s6_buf_len(&buf);
        for (size_t i = 0; i < out; i++) {
            assert_int_equal(s6_buf_slice(&buf).data[i], next_out);
            next_out++;
        }
        s6_buf_consume(&buf, out);
        assert_true(buf.tail <= buf.room && buf.room <= 200);
    }
    s6_buf_done(&buf);
    assert_int_equal(probe.held, 0);
}

static void test_drained_buffer_starts_over_in_its_storage(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;

    (void)state;
    s6_buf_init(&buf, &mem, 64, false);
    probe.allocations_left = 1;
    for (int round = 0; round < 100; round++) {
        assert_int_equal(s6_buf_append(&buf, "0123456789", 10), SOCKS6_OK);
        s6_buf_consume(&buf, 3);
        assert_holds(&buf, "3456789", 7);
        s6_buf_consume(&buf, 7);
        assert_holds(&buf, NULL, 0);
        assert_int_equal(buf.head, 0);
        assert_int_equal(buf.tail, 0);
    }
    s6_buf_done(&buf);
    assert_int_equal(probe.held, 0);
}

static void test_room_that_was_consumed_is_used_again(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    uint8_t bytes[64] = {0};

    (void)state;
    s6_buf_init(&buf, &mem, 1000, false);
    assert_int_equal(s6_buf_append(&buf, bytes, 60), SOCKS6_OK);
    s6_buf_consume(&buf, 30);
    probe.allocations_left = 0;
    assert_int_equal(s6_buf_append(&buf, bytes, 34), SOCKS6_OK); /* to the last byte */
    assert_holds(&buf, bytes, 64);
    s6_buf_done(&buf);
}

static void test_growth_keeps_what_is_held(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    uint8_t bytes[200];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    s6_buf_init(&buf, &mem, 1000, false);
    assert_int_equal(s6_buf_append(&buf, bytes, 40), SOCKS6_OK);
    s6_buf_consume(&buf, 10); /* so that it does not start where its storage does */
    assert_int_equal(s6_buf_append(&buf, bytes + 40, 160), SOCKS6_OK);
    assert_holds(&buf, bytes + 10, 190);
    s6_buf_done(&buf);
}

static void test_cap_is_exact(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    uint8_t bytes[101] = {0};

    (void)state;
    s6_buf_init(&buf, &mem, 100, false);
    assert_int_equal(s6_buf_append(&buf, bytes, 101), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_buf_reserve(&buf, SIZE_MAX), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_buf_append(&buf, bytes, 99), SOCKS6_OK);
    assert_int_equal(s6_buf_append(&buf, bytes, 2), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_buf_append(&buf, bytes, 1), SOCKS6_OK);
    assert_int_equal(s6_buf_append(&buf, bytes, 1), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(buf.room, 100);
    s6_buf_consume(&buf, 50); /* what was taken no longer counts */
    assert_int_equal(s6_buf_append(&buf, bytes, 50), SOCKS6_OK);
    assert_int_equal(s6_buf_len(&buf), 100);
    s6_buf_done(&buf);
}

static void test_cap_of_zero_holds_nothing(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;

    (void)state;
    s6_buf_init(&buf, &mem, 0, false);
    assert_int_equal(s6_buf_append(&buf, "x", 1), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_buf_append(&buf, "x", 0), SOCKS6_OK);
    s6_buf_done(&buf);
}

static void test_no_memory_leaves_it_as_it_was(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    struct s6_writer writer = {0};
    uint8_t bytes[200];

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    s6_buf_init(&buf, &mem, 1000, false);
    probe.allocations_left = 0;
    assert_int_equal(s6_buf_append(&buf, bytes, 1), SOCKS6_ERR_NOMEM);
    assert_holds(&buf, NULL, 0);
    probe.allocations_left = 1;
    assert_int_equal(s6_buf_append(&buf, bytes, 10), SOCKS6_OK);
    assert_int_equal(s6_buf_append(&buf, bytes, 200), SOCKS6_ERR_NOMEM);
    assert_int_equal(s6_buf_writer(&buf, 200, &writer), SOCKS6_ERR_NOMEM);
    assert_null(writer.begin);
    assert_holds(&buf, bytes, 10);
    s6_buf_done(&buf);
    assert_int_equal(probe.held, 0);
}

static void test_writer_appends_what_was_written(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    struct s6_writer writer;

    (void)state;
    s6_buf_init(&buf, &mem, 100, false);
    assert_int_equal(s6_buf_append(&buf, "ab", 2), SOCKS6_OK);
    assert_int_equal(s6_buf_writer(&buf, 3, &writer), SOCKS6_OK);
    s6_write_bytes(&writer, "cd", 2);
    assert_holds(&buf, "ab", 2); /* not before it is said */
    s6_buf_written(&buf, &writer);
    assert_holds(&buf, "abcd", 4);
    assert_int_equal(s6_buf_writer(&buf, 3, &writer), SOCKS6_OK);
    s6_write_u32(&writer, 0); /* one byte more than was reserved */
    assert_true(writer.failed);
    s6_buf_written(&buf, &writer);
    assert_holds(&buf, "abcd", 4);
    assert_int_equal(s6_buf_writer(&buf, 0, &writer), SOCKS6_OK);
    s6_buf_written(&buf, &writer);
    assert_holds(&buf, "abcd", 4);
    assert_int_equal(s6_buf_writer(&buf, 1, &writer), SOCKS6_OK);
    s6_write_u8(&writer, 'e');
    s6_buf_written(&buf, &writer);
    assert_holds(&buf, "abcde", 5);
    s6_buf_done(&buf);
    assert_holds(&buf, NULL, 0);
}

static void test_reserved_room_needs_no_memory(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    uint8_t bytes[300] = {0};

    (void)state;
    s6_buf_init(&buf, &mem, 1000, false);
    assert_int_equal(s6_buf_append(&buf, bytes, 60), SOCKS6_OK);
    assert_int_equal(s6_buf_reserve(&buf, 300), SOCKS6_OK);
    probe.allocations_left = 0;
    assert_int_equal(s6_buf_append(&buf, bytes, 300), SOCKS6_OK);
    s6_buf_done(&buf);
}

/* Puts a secret through growth, compaction, consumption and the end. */
static int leaks_of(bool wipe)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;
    uint8_t filler[500];

    memset(filler, 'x', sizeof filler);
    s6_buf_init(&buf, &mem, 2000, wipe);
    assert_int_equal(s6_buf_append(&buf, filler, 30), SOCKS6_OK);
    assert_int_equal(s6_buf_append(&buf, secret, sizeof secret - 1), SOCKS6_OK);
    s6_buf_consume(&buf, 20);
    assert_int_equal(s6_buf_append(&buf, filler, 30), SOCKS6_OK);  /* compacts */
    assert_int_equal(s6_buf_append(&buf, filler, 500), SOCKS6_OK); /* grows: the first block goes back */
    s6_buf_consume(&buf, 25);
    s6_buf_done(&buf);
    assert_int_equal(probe.held, 0);
    return probe.freed_with_secret;
}

static void test_wiping_leaves_no_secret(void **state)
{
    (void)state;
    assert_int_equal(leaks_of(true), 0);
    assert_true(leaks_of(false) > 0); /* the probe does see one */
}

static void test_consumed_bytes_are_wiped(void **state)
{
    struct probe probe;
    struct socks6_allocator mem = allocator(&probe);
    struct s6_buf buf;

    (void)state;
    s6_buf_init(&buf, &mem, 2000, true);
    assert_int_equal(s6_buf_append(&buf, secret, sizeof secret - 1), SOCKS6_OK);
    assert_int_equal(s6_buf_append(&buf, "rest", 4), SOCKS6_OK);
    s6_buf_consume(&buf, sizeof secret - 1);
    for (size_t i = 0; i < sizeof secret - 1; i++) {
        assert_int_equal(buf.data[i], 0);
    }
    assert_holds(&buf, "rest", 4);
    s6_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_owns_nothing),
        cmocka_unit_test(test_bytes_come_out_in_order),
        cmocka_unit_test(test_drained_buffer_starts_over_in_its_storage),
        cmocka_unit_test(test_room_that_was_consumed_is_used_again),
        cmocka_unit_test(test_growth_keeps_what_is_held),
        cmocka_unit_test(test_cap_is_exact),
        cmocka_unit_test(test_cap_of_zero_holds_nothing),
        cmocka_unit_test(test_no_memory_leaves_it_as_it_was),
        cmocka_unit_test(test_writer_appends_what_was_written),
        cmocka_unit_test(test_reserved_room_needs_no_memory),
        cmocka_unit_test(test_wiping_leaves_no_secret),
        cmocka_unit_test(test_consumed_bytes_are_wiped),
    };

    return cmocka_run_group_tests_name("base/bytebuf", tests, NULL, NULL);
}
