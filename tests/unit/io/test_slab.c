#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/slab.h"

#define COUNT 3000
#define LEN 200

static void fill(uint8_t *object, unsigned seed)
{
    memset(object, (int)(seed & 0xff), LEN);
}

static void check(const uint8_t *object, unsigned seed)
{
    for (size_t i = 0; i < LEN; i++) {
        assert_int_equal(object[i], seed & 0xff);
    }
}

static void test_objects_are_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    static uint8_t *objects[COUNT];
    struct slab slab;
    slab_init(&slab, LEN);
    for (unsigned i = 0; i < COUNT; i++) {
        objects[i] = slab_alloc(&slab);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % _Alignof(max_align_t), 0);
        check(objects[i], 0);
        fill(objects[i], i);
    }
    assert_int_equal(slab.used_count, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        check(objects[i], i);
        slab_free(&slab, objects[i]);
    }
    assert_int_equal(slab.used_count, 0);
    slab_done(&slab);
}

static void test_random_order_keeps_contents(void **state)
{
    (void)state;
    static uint8_t *objects[COUNT];
    struct slab slab;
    slab_init(&slab, LEN);
    memset(objects, 0, sizeof objects);
    srand(3);
    for (unsigned step = 0; step < 20 * COUNT; step++) {
        unsigned i = (unsigned)rand() % COUNT;
        if (objects[i] != NULL) {
            check(objects[i], i);
            slab_free(&slab, objects[i]);
            objects[i] = NULL;
        } else {
            objects[i] = slab_alloc(&slab);
            assert_non_null(objects[i]);
            fill(objects[i], i);
        }
    }
    for (unsigned i = 0; i < COUNT; i++) {
        slab_free(&slab, objects[i]);
    }
    slab_free(&slab, NULL);
    slab_done(&slab);
}

static void test_freed_object_is_given_again(void **state)
{
    (void)state;
    struct slab slab;
    slab_init(&slab, LEN);
    uint8_t *first = slab_alloc(&slab);
    fill(first, 7);
    slab_free(&slab, first);
    uint8_t *second = slab_alloc(&slab);
    assert_ptr_equal(first, second);
    check(second, 0);
    slab_free(&slab, second);
    slab_done(&slab);
}

static void test_every_object_is_enumerated_once(void **state)
{
    (void)state;
    static uint8_t *objects[COUNT];
    struct slab slab;
    slab_init(&slab, LEN);
    assert_null(slab_next(&slab, NULL));
    for (unsigned i = 0; i < COUNT; i++) {
        objects[i] = slab_alloc(&slab);
        assert_non_null(objects[i]);
    }
    for (unsigned i = 0; i < COUNT; i += 3) {
        slab_free(&slab, objects[i]);
        objects[i] = NULL;
    }
    size_t count = 0;
    for (uint8_t *object = slab_next(&slab, NULL); object != NULL; object = slab_next(&slab, object)) {
        assert_int_equal(object[0], 0);
        object[0] = 1;
        count++;
    }
    assert_int_equal(count, slab.used_count);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_true(objects[i] == NULL || objects[i][0] == 1);
    }

    /* Freeing them on the way, chunk by chunk. */
    uint8_t *next = slab_next(&slab, NULL);
    while (next != NULL) {
        uint8_t *object = next;
        next = slab_next(&slab, object);
        slab_free(&slab, object);
        count--;
    }
    assert_int_equal(count, 0);
    assert_int_equal(slab.used_count, 0);
    slab_done(&slab);
}

/* Pages of this process, as the kernel counts them. */
static size_t mapped_pages(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    (void)fclose(file);
    return pages;
}

static void test_memory_goes_back_after_a_burst(void **state)
{
    enum { BURST = 50000 };
    (void)state;
    static uint8_t *objects[BURST];
    struct slab slab;
    slab_init(&slab, LEN);
    size_t before = mapped_pages();
    for (unsigned i = 0; i < BURST; i++) {
        objects[i] = slab_alloc(&slab);
        assert_non_null(objects[i]);
    }
    size_t full = mapped_pages();
    assert_true(full - before >= (size_t)BURST * LEN / 4096);
    /* Little is lost to alignment and heads of chunks. */
    assert_true((full - before) * 4096 <= (size_t)BURST * (LEN + 16) * 102 / 100);
    for (unsigned i = 0; i < BURST; i++) {
        slab_free(&slab, objects[i]);
    }
    assert_true(mapped_pages() <= before + SLAB_EMPTY_MAX * SLAB_CHUNK_LEN / 4096 + 16);
    assert_int_equal(slab.empty_count, SLAB_EMPTY_MAX);
    slab_done(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_are_zeroed_aligned_and_apart),
        cmocka_unit_test(test_random_order_keeps_contents),
        cmocka_unit_test(test_freed_object_is_given_again),
        cmocka_unit_test(test_every_object_is_enumerated_once),
        cmocka_unit_test(test_memory_goes_back_after_a_burst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
