/* base/mem: the allocator that is given, or malloc(3), and the wipe. */
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Counts calls and remembers the user pointer; the blocks come from malloc(3). */
struct counts {
    unsigned alloc;
    unsigned resize;
    unsigned free;
};

static void *counting_alloc(void *user, size_t size)
{
    ((struct counts *)user)->alloc++;
    return malloc(size);
}

static void *counting_resize(void *user, void *ptr, size_t size)
{
    ((struct counts *)user)->resize++;
    return realloc(ptr, size);
}

static void counting_free(void *user, void *ptr)
{
    ((struct counts *)user)->free++;
    free(ptr);
}

static void *no_alloc(void *user, size_t size)
{
    (void)user;
    (void)size;
    return NULL;
}

static void test_default_allocates_and_frees(void **state)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    uint8_t *ptr = s6_alloc(&mem, 10);

    (void)state;
    assert_non_null(ptr);
    memset(ptr, 7, 10);
    ptr = s6_resize(&mem, ptr, 1000);
    assert_non_null(ptr);
    assert_int_equal(ptr[9], 7);
    s6_free(&mem, ptr);
    s6_free(&mem, NULL);
}

static void test_given_allocator_is_used_with_its_user(void **state)
{
    struct counts counts = {0};
    const struct socks6_allocator given = {counting_alloc, counting_resize, counting_free, &counts};
    struct socks6_allocator mem = s6_allocator_or_default(&given);
    void *ptr = s6_alloc(&mem, 1);

    (void)state;
    assert_non_null(ptr);
    ptr = s6_resize(&mem, ptr, 2);
    assert_non_null(ptr);
    s6_free(&mem, ptr);
    assert_int_equal(counts.alloc, 1);
    assert_int_equal(counts.resize, 1);
    assert_int_equal(counts.free, 1);
}

static void test_zalloc_zeroes(void **state)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    uint8_t *ptr = s6_zalloc(&mem, 100);

    (void)state;
    assert_non_null(ptr);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(ptr[i], 0);
    }
    s6_free(&mem, ptr);
}

static void test_zalloc_without_memory_is_null(void **state)
{
    const struct socks6_allocator mem = {no_alloc, counting_resize, counting_free, NULL};

    (void)state;
    assert_null(s6_zalloc(&mem, 100));
    assert_null(s6_alloc(&mem, 100));
}

static void test_wipe_zeroes_exactly(void **state)
{
    uint8_t bytes[8];

    (void)state;
    memset(bytes, 0xaa, sizeof bytes);
    s6_wipe(bytes + 1, 6);
    assert_int_equal(bytes[0], 0xaa);
    for (size_t i = 1; i < 7; i++) {
        assert_int_equal(bytes[i], 0);
    }
    assert_int_equal(bytes[7], 0xaa);
    s6_wipe(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_allocates_and_frees),
        cmocka_unit_test(test_given_allocator_is_used_with_its_user),
        cmocka_unit_test(test_zalloc_zeroes),
        cmocka_unit_test(test_zalloc_without_memory_is_null),
        cmocka_unit_test(test_wipe_zeroes_exactly),
    };

    return cmocka_run_group_tests_name("base/mem", tests, NULL, NULL);
}
