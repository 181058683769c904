#include "preload/slots.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include <cmocka.h>

#include "preload/bits.h"

static void test_known_by_cookie_alone(void **state)
{
    struct slot slot = {.cookie = 77, .kind = SLOT_STREAM, .is_narrow = 1, .peer = {.port = 80}}, out = {0};

    (void)state;
    assert_false(slots_get(5, 77, &out));
    slots_put(5, &slot);
    assert_true(slots_get(5, 77, &out));
    assert_memory_equal(&out, &slot, sizeof slot);
    assert_false(slots_get(5, 78, &out));
    assert_false(slots_get(6, 77, &out));
    assert_int_equal(slots_hint(5), SLOT_STREAM);
    assert_true(slots_is_narrow(5));
    slot.kind = SLOT_OTHER;
    slot.is_narrow = 0;
    slots_put(5, &slot);
    assert_int_equal(slots_hint(5), SLOT_OTHER);
    assert_false(slots_is_narrow(5));
}

static void test_no_cookie_is_nothing(void **state)
{
    struct slot out;

    (void)state;
    assert_false(slots_get(9, 0, &out)); /* the table is all zero */
}

static void test_descriptors_out_of_range_are_not_remembered(void **state)
{
    static const int fds[] = {-1, SLOTS_COUNT, SLOTS_COUNT + 1};
    struct slot slot = {.cookie = 1, .kind = SLOT_STREAM}, out;

    (void)state;
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        slots_put(fds[i], &slot);
        assert_false(slots_get(fds[i], 1, &out));
        assert_int_equal(slots_hint(fds[i]), SLOT_OTHER);
    }
    slots_put(SLOTS_COUNT - 1, &slot);
    assert_true(slots_get(SLOTS_COUNT - 1, 1, &out));
}

/* Whatever is read is whole: all of a writer's fields have the same number. */
static atomic_bool is_done;

static void put(uint8_t number)
{
    struct slot slot = {.cookie = 42, .kind = SLOT_STREAM, .domain = number, .peer.port = number, .local.port = number};

    memset(slot.peer.bytes, number, sizeof slot.peer.bytes);
    slots_put(3, &slot);
}

static void *write_without_end(void *arg)
{
    while (!atomic_load(&is_done)) {
        put(*(uint8_t *)arg);
    }
    return NULL;
}

static void put_in_handler(int signal)
{
    put((uint8_t)signal);
}

static void test_readers_see_whole_entries(void **state)
{
    uint8_t writers[2] = {1, 2};
    struct sigaction action = {.sa_handler = put_in_handler};
    struct itimerval timer = {.it_interval = {0, 1000}, .it_value = {0, 1000}}, none = {0};
    pthread_t threads[2];
    unsigned seen = 0;

    (void)state;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
    put(1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_without_end, &writers[i]), 0);
    }
    for (unsigned i = 0; i < 100000 || (seen < 100 && i < 100000000); i++) {
        struct slot out;

        if (slots_get(3, 42, &out)) {
            seen++;
            assert_int_equal(out.domain, out.peer.port);
            assert_int_equal(out.domain, out.local.port);
            assert_int_equal(out.domain, out.peer.bytes[15]);
        }
    }
    atomic_store(&is_done, true);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(setitimer(ITIMER_REAL, &none, NULL), 0);
    assert_true(seen >= 100);
}

static void test_sets_of_descriptors(void **state)
{
    static struct bits bits;

    (void)state;
    assert_int_equal(bits_next(&bits, 0), -1);
    bits_set(&bits, 0);
    bits_set(&bits, 31);
    bits_set(&bits, 64);
    bits_set(&bits, SLOTS_COUNT - 1);
    bits_set(&bits, SLOTS_COUNT);
    bits_set(&bits, -1);
    assert_int_equal(bits_next(&bits, 0), 0);
    assert_int_equal(bits_next(&bits, 1), 31);
    assert_int_equal(bits_next(&bits, 32), 64);
    assert_int_equal(bits_next(&bits, 65), SLOTS_COUNT - 1);
    assert_int_equal(bits_next(&bits, SLOTS_COUNT), -1);
    assert_false(bits_has(&bits, -1));
    assert_false(bits_has(&bits, SLOTS_COUNT));
    assert_true(bits_has(&bits, 31));
    assert_false(bits_has(&bits, 30));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_by_cookie_alone),
        cmocka_unit_test(test_no_cookie_is_nothing),
        cmocka_unit_test(test_descriptors_out_of_range_are_not_remembered),
        cmocka_unit_test(test_readers_see_whole_entries),
        cmocka_unit_test(test_sets_of_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
