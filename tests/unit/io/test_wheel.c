/*
 * The timer wheel in virtual time, against a naive model.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "io/wheel.h"

#define COUNT 200
#define DAY_MS 86400000ull

static struct wheel wheel;
static uint64_t now_ms;

/* A timer and what the model says of it. */
struct probe {
    struct loop_timer timer;
    bool is_armed;
    uint64_t due_ms;
    unsigned fired;
};

static struct probe probes[COUNT];

static void on_expired(struct loop_timer *timer)
{
    struct probe *probe = LOOP_OWNER(timer, struct probe, timer);
    assert_true(probe->is_armed);
    assert_false(loop_timer_is_armed(timer));
    assert_true(now_ms >= probe->due_ms);
    probe->is_armed = false;
    probe->fired++;
}

bool loop_timer_is_armed(const struct loop_timer *timer)
{
    return timer->next != NULL;
}

static void start(uint64_t at_ms)
{
    now_ms = at_ms;
    wheel_init(&wheel, now_ms);
    memset(probes, 0, sizeof probes);
    for (size_t i = 0; i < COUNT; i++) {
        probes[i].timer.expired = on_expired;
    }
}

static void set(struct probe *probe, uint64_t delay_ms)
{
    probe->is_armed = true;
    probe->due_ms = now_ms + delay_ms;
    wheel_set(&wheel, &probe->timer, probe->due_ms);
}

static void cancel(struct probe *probe)
{
    probe->is_armed = false;
    wheel_cancel(&wheel, &probe->timer);
}

static void advance_to(uint64_t at_ms)
{
    now_ms = at_ms;
    wheel_expire(&wheel, now_ms);
}

/* Every armed timer is in the future, give or take the tick. */
static void check_none_is_late(void)
{
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(probes[i].is_armed, loop_timer_is_armed(&probes[i].timer));
        if (probes[i].is_armed) {
            assert_true(probes[i].due_ms + 2 * LOOP_TICK_MS > now_ms);
        }
    }
}

static void test_timer_fires_once_and_not_early(void **state)
{
    (void)state;
    for (uint64_t delay = 0; delay < 3000; delay += 7) {
        start(1000003);
        set(&probes[0], delay);
        uint64_t latest = now_ms + delay + 2 * LOOP_TICK_MS;
        while (probes[0].fired == 0 && now_ms < latest) {
            advance_to(now_ms + 1);
        }
        assert_int_equal(probes[0].fired, 1);
        assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
        advance_to(now_ms + DAY_MS);
        assert_int_equal(probes[0].fired, 1);
    }
}

static void test_empty_wheel_wants_nothing(void **state)
{
    (void)state;
    start(5);
    assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
    set(&probes[0], 100);
    set(&probes[1], 100);
    cancel(&probes[0]);
    assert_true(wheel_next_ms(&wheel) < UINT64_MAX);
    cancel(&probes[1]);
    assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
    cancel(&probes[1]); /* again: no effect */
}

/* Sleeping exactly until wheel_next_ms() finds every timer in time, with few wake-ups. */
static void test_long_timer_costs_few_wakeups(void **state)
{
    (void)state;
    static const uint64_t delays[] = {1000, 60000, 3600000, DAY_MS, 40 * DAY_MS, 3650 * DAY_MS};
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        start(123456789);
        set(&probes[0], delays[i]);
        unsigned wakeups = 0;
        while (probes[0].fired == 0) {
            uint64_t next = wheel_next_ms(&wheel);
            assert_true(next > now_ms && next <= probes[0].due_ms + LOOP_TICK_MS);
            advance_to(next);
            wakeups++;
        }
        assert_true(now_ms <= probes[0].due_ms + LOOP_TICK_MS);
        assert_true(wakeups <= WHEEL_LEVELS);
    }
}

static void test_due_time_beyond_the_wheel_is_kept(void **state)
{
    (void)state;
    start(10);
    probes[0].due_ms = UINT64_MAX;
    probes[0].is_armed = true;
    wheel_set(&wheel, &probes[0].timer, UINT64_MAX);
    advance_to(now_ms + 3650 * DAY_MS);
    assert_int_equal(probes[0].fired, 0);
    assert_true(loop_timer_is_armed(&probes[0].timer));
    cancel(&probes[0]);
}

static void test_past_due_time_means_the_next_tick(void **state)
{
    (void)state;
    start(1000);
    advance_to(5000);
    probes[0].is_armed = true;
    wheel_set(&wheel, &probes[0].timer, 1);
    assert_int_equal(probes[0].fired, 0);
    advance_to(5000 + LOOP_TICK_MS);
    assert_int_equal(probes[0].fired, 1);
}

/* A due time in the past at the border of a slot of a higher level. */
static void test_past_due_time_survives_a_cascade(void **state)
{
    (void)state;
    for (uint64_t tick = 60; tick < 70; tick++) {
        start(0);
        advance_to(tick * LOOP_TICK_MS);
        probes[0].is_armed = true;
        wheel_set(&wheel, &probes[0].timer, 0);
        advance_to((tick + 1) * LOOP_TICK_MS);
        assert_int_equal(probes[0].fired, 1);
        assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
    }
}

static void test_random_operations_agree_with_the_model(void **state)
{
    (void)state;
    srand(7);
    for (unsigned round = 0; round < 30; round++) {
        start((uint64_t)rand());
        for (unsigned step = 0; step < 3000; step++) {
            struct probe *probe = &probes[rand() % COUNT];
            unsigned magnitude = (unsigned)rand() % 28;
            uint64_t delay = (uint64_t)rand() & (((uint64_t)1 << magnitude) - 1);
            switch (rand() % 5) {
            case 0:
            case 1:
            case 2:
                set(probe, delay);
                break;
            case 3:
                cancel(probe);
                break;
            case 4:
                advance_to(now_ms + (rand() % 3 == 0 ? delay : delay % 500));
                check_none_is_late();
                break;
            }
        }
    }
}

/* What a handler does to the wheel while it runs. */

static unsigned ran;

static void rearm(struct loop_timer *timer)
{
    ran++;
    wheel_set(&wheel, timer, now_ms);
}

static void test_rearming_in_the_handler_does_not_loop(void **state)
{
    (void)state;
    start(0);
    ran = 0;
    struct loop_timer timer = {.expired = rearm};
    wheel_set(&wheel, &timer, 10);
    advance_to(100000);
    assert_int_equal(ran, 1);
    advance_to(100000 + LOOP_TICK_MS);
    assert_int_equal(ran, 2);
    wheel_cancel(&wheel, &timer);
}

static struct loop_timer *victim;

static void free_other(struct loop_timer *timer)
{
    ran++;
    if (victim != NULL) {
        wheel_cancel(&wheel, victim);
        free(victim);
        victim = NULL;
    }
    free(timer);
}

static void test_handler_frees_itself_and_its_neighbour(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        start(0);
        ran = 0;
        struct loop_timer *timers[2];
        for (unsigned i = 0; i < 2; i++) {
            timers[i] = calloc(1, sizeof *timers[i]);
            assert_non_null(timers[i]);
            timers[i]->expired = free_other;
        }
        wheel_set(&wheel, timers[first], 50);
        wheel_set(&wheel, timers[!first], 50);
        victim = timers[!first]; /* in the same slot, after the first */
        advance_to(1000);
        assert_int_equal(ran, 1);
        assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timer_fires_once_and_not_early),
        cmocka_unit_test(test_empty_wheel_wants_nothing),
        cmocka_unit_test(test_long_timer_costs_few_wakeups),
        cmocka_unit_test(test_due_time_beyond_the_wheel_is_kept),
        cmocka_unit_test(test_past_due_time_means_the_next_tick),
        cmocka_unit_test(test_past_due_time_survives_a_cascade),
        cmocka_unit_test(test_random_operations_agree_with_the_model),
        cmocka_unit_test(test_rearming_in_the_handler_does_not_loop),
        cmocka_unit_test(test_handler_frees_itself_and_its_neighbour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
