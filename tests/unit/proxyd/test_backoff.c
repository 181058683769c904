#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include "proxyd/backoff.h"

static struct backoff *backoff;
static uint64_t now_ms;

static int setup(void **state)
{
    (void)state;
    now_ms = 1000000;
    return backoff_new(&backoff);
}

static int teardown(void **state)
{
    (void)state;
    backoff_free(backoff);
    return 0;
}

/* One guess from start to end; false if it may not begin. */
static bool guess(uint64_t client, bool failed)
{
    if (!backoff_enter(backoff, client, now_ms)) {
        return false;
    }
    backoff_leave(backoff, client, failed, now_ms);
    return true;
}

static void use_up_free_failures(uint64_t client)
{
    for (unsigned i = 0; i < BACKOFF_FREE; i++) {
        assert_true(guess(client, true));
        assert_false(backoff_is_blocked(backoff, client, now_ms));
    }
}

/* The wait that one more failure brings. */
static uint64_t wait_after_failure(uint64_t client)
{
    uint64_t start_ms = now_ms;

    assert_true(guess(client, true));
    while (backoff_is_blocked(backoff, client, now_ms)) {
        assert_false(guess(client, false));
        now_ms++;
    }
    return now_ms - start_ms;
}

static void test_waits_double_up_to_a_limit(void **state)
{
    (void)state;
    use_up_free_failures(7);
    assert_int_equal(wait_after_failure(7), 1000);
    assert_int_equal(wait_after_failure(7), 2000);
    assert_int_equal(wait_after_failure(7), 4000);
    assert_int_equal(wait_after_failure(7), 8000);
    for (int i = 0; i < 5; i++) {
        assert_in_range(wait_after_failure(7), 8000, BACKOFF_MAX_MS); /* one may have been forgotten meanwhile */
    }
}

static void test_others_are_not_concerned(void **state)
{
    (void)state;
    use_up_free_failures(7);
    assert_true(guess(7, true));
    assert_true(backoff_is_blocked(backoff, 7, now_ms));
    assert_false(backoff_is_blocked(backoff, 8, now_ms));
    assert_false(backoff_is_blocked(backoff, 7 + (UINT64_C(1) << 40), now_ms)); /* in the same set */
    assert_true(guess(8, true));
}

static void test_success_costs_and_forgives_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        assert_true(guess(7, false));
    }
    use_up_free_failures(7);
    for (int i = 0; i < 1000; i++) {
        assert_true(guess(7, false));
    }
    assert_true(guess(7, true));
    assert_true(backoff_is_blocked(backoff, 7, now_ms));
}

static void test_failures_are_forgotten_in_time(void **state)
{
    (void)state;
    use_up_free_failures(7);
    now_ms += BACKOFF_FORGET_MS * 3;
    for (int i = 0; i < 3; i++) {
        assert_true(guess(7, true));
        assert_false(backoff_is_blocked(backoff, 7, now_ms));
    }
    assert_true(guess(7, true));
    assert_true(backoff_is_blocked(backoff, 7, now_ms));
    now_ms += BACKOFF_FORGET_MS * (BACKOFF_FREE + 5);
    use_up_free_failures(7);
}

static void test_guesses_under_way_are_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BACKOFF_PENDING_MAX; i++) {
        assert_true(backoff_enter(backoff, 7, now_ms));
    }
    assert_false(backoff_enter(backoff, 7, now_ms));
    assert_false(backoff_is_blocked(backoff, 7, now_ms)); /* busy is not blocked */
    assert_true(backoff_enter(backoff, 8, now_ms));
    backoff_leave(backoff, 7, false, now_ms);
    assert_true(backoff_enter(backoff, 7, now_ms));
}

static void test_after_the_free_failures_one_guess_at_a_time(void **state)
{
    (void)state;
    use_up_free_failures(7);
    assert_true(backoff_enter(backoff, 7, now_ms));
    assert_false(backoff_enter(backoff, 7, now_ms));
    backoff_leave(backoff, 7, false, now_ms);
    assert_true(backoff_enter(backoff, 7, now_ms));
}

/* Guesses that had begun before the wait did end while it lasts. */
static void test_many_failures_at_once_wait_the_longest(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BACKOFF_PENDING_MAX; i++) {
        assert_true(backoff_enter(backoff, 7, now_ms));
    }
    for (unsigned i = 0; i < BACKOFF_PENDING_MAX; i++) {
        backoff_leave(backoff, 7, true, now_ms);
    }
    now_ms += BACKOFF_MAX_MS - 1;
    assert_true(backoff_is_blocked(backoff, 7, now_ms));
    now_ms++;
    assert_false(backoff_is_blocked(backoff, 7, now_ms));
}

/* A flood of addresses pushes out who has failed least, and none whose guess is under way. */
static void test_a_full_table_forgets_the_least(void **state)
{
    (void)state;
    use_up_free_failures(7);
    assert_true(guess(7, true));
    assert_true(backoff_enter(backoff, 9, now_ms));
    for (uint64_t i = 1; i < 100000; i++) {
        assert_true(guess(i << 32 | 7, true)); /* all of them in the set of 7 */
        (void)guess(i << 32 | 9, true);
    }
    assert_true(backoff_is_blocked(backoff, 7, now_ms));
    backoff_leave(backoff, 9, true, now_ms); /* still there */
}

static void test_a_set_full_of_guesses_under_way_takes_no_more(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 8; i++) {
        assert_true(backoff_enter(backoff, i << 32, now_ms));
    }
    assert_false(backoff_enter(backoff, UINT64_C(8) << 32, now_ms));
    backoff_leave(backoff, 0, false, now_ms);
    assert_true(backoff_enter(backoff, UINT64_C(8) << 32, now_ms));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_waits_double_up_to_a_limit),
        TEST(test_others_are_not_concerned),
        TEST(test_success_costs_and_forgives_nothing),
        TEST(test_failures_are_forgotten_in_time),
        TEST(test_guesses_under_way_are_bounded),
        TEST(test_after_the_free_failures_one_guess_at_a_time),
        TEST(test_many_failures_at_once_wait_the_longest),
        TEST(test_a_full_table_forgets_the_least),
        TEST(test_a_set_full_of_guesses_under_way_takes_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
