/*
 * A timer's level is that of the highest 6-bit digit in which its due tick differs from the current tick, its slot
 * that digit. So every occupied slot of a level lies ahead of the current digit of that level, all of level n lies
 * before all of level n + 1, and the next thing to do is found with one bit scan per level. When the current tick
 * reaches a slot of a higher level, its timers are placed anew: the digit is equal now, so they land below.
 */
#include "io/wheel.h"

#include <assert.h>
#include <stddef.h>

#define DIGIT_BITS 6u
#define TICK_MAX ((1ull << (DIGIT_BITS * WHEEL_LEVELS)) - 1u)

static void list_init(struct loop_timer *head)
{
    head->next = head;
    head->prev = head;
}

static void list_append(struct loop_timer *head, struct loop_timer *timer)
{
    timer->prev = head->prev;
    timer->next = head;
    head->prev->next = timer;
    head->prev = timer;
}

/* Makes `to` (uninitialised) the list that `from` was, and `from` empty. */
static void list_move(struct loop_timer *from, struct loop_timer *to)
{
    if (from->next == from) {
        list_init(to);
        return;
    }
    to->next = from->next;
    to->prev = from->prev;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
    wheel->base_ms = now_ms;
    wheel->tick = 0;
    wheel->target = 0;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        wheel->occupied[level] = 0;
    }
    for (unsigned i = 0; i < WHEEL_LEVELS * WHEEL_SLOTS; i++) {
        list_init(&wheel->slots[i]);
    }
    list_init(&wheel->due);
}

/* The first tick at which `due_ms` has come. */
static uint64_t due_tick(const struct wheel *wheel, uint64_t due_ms)
{
    uint64_t tick = 0;
    if (due_ms > wheel->base_ms) {
        uint64_t delta = due_ms - wheel->base_ms;
        tick = delta / LOOP_TICK_MS + (delta % LOOP_TICK_MS != 0);
    }
    return tick < TICK_MAX ? tick : TICK_MAX;
}

static unsigned digit(uint64_t tick, unsigned level)
{
    return (unsigned)(tick >> (DIGIT_BITS * level)) & (WHEEL_SLOTS - 1u);
}

static void place(struct wheel *wheel, struct loop_timer *timer, uint64_t tick)
{
    uint64_t differs = tick ^ wheel->tick;
    unsigned level = differs == 0 ? 0 : (63u - (unsigned)__builtin_clzll(differs)) / DIGIT_BITS;
    unsigned slot = digit(tick, level);
    list_append(&wheel->slots[level * WHEEL_SLOTS + slot], timer);
    wheel->occupied[level] |= 1ull << slot;
}

static void unlink_timer(struct wheel *wheel, struct loop_timer *timer)
{
    struct loop_timer *head = timer->next;
    timer->prev->next = timer->next;
    timer->next->prev = timer->prev;
    if (timer->next == timer->prev && head != &wheel->due) {
        /* It was the last of its list, so its neighbour is the head, and the head's place tells the bit. */
        size_t index = (size_t)(head - wheel->slots);
        assert(index < (size_t)WHEEL_LEVELS * WHEEL_SLOTS);
        wheel->occupied[index / WHEEL_SLOTS] &= ~(1ull << (index % WHEEL_SLOTS));
    }
    timer->next = NULL;
    timer->prev = NULL;
}

void wheel_set(struct wheel *wheel, struct loop_timer *timer, uint64_t due_ms)
{
    if (timer->next != NULL) {
        unlink_timer(wheel, timer);
    }
    uint64_t tick = due_tick(wheel, due_ms);
    if (tick <= wheel->target && wheel->target < TICK_MAX) {
        tick = wheel->target + 1;
        due_ms = wheel->base_ms + tick * LOOP_TICK_MS;
    }
    timer->due_ms = due_ms;
    place(wheel, timer, tick);
}

void wheel_cancel(struct wheel *wheel, struct loop_timer *timer)
{
    if (timer->next != NULL) {
        unlink_timer(wheel, timer);
    }
}

/* The next tick with something to do and its level; false without timers. */
static bool next_stop(const struct wheel *wheel, uint64_t *tick, unsigned *level)
{
    for (unsigned i = 0; i < WHEEL_LEVELS; i++) {
        if (wheel->occupied[i] == 0) {
            continue;
        }
        unsigned slot = (unsigned)__builtin_ctzll(wheel->occupied[i]);
        assert(slot >= digit(wheel->tick, i));
        unsigned shift = DIGIT_BITS * i;
        *tick = ((wheel->tick >> (shift + DIGIT_BITS)) << (shift + DIGIT_BITS)) | ((uint64_t)slot << shift);
        *level = i;
        return true;
    }
    return false;
}

uint64_t wheel_next_ms(const struct wheel *wheel)
{
    uint64_t tick;
    unsigned level;
    return next_stop(wheel, &tick, &level) ? wheel->base_ms + tick * LOOP_TICK_MS : UINT64_MAX;
}

static void run_due(struct wheel *wheel)
{
    while (wheel->due.next != &wheel->due) {
        struct loop_timer *timer = wheel->due.next;
        unlink_timer(wheel, timer);
        timer->expired(timer);
    }
}

void wheel_expire(struct wheel *wheel, uint64_t now_ms)
{
    uint64_t target = now_ms > wheel->base_ms ? (now_ms - wheel->base_ms) / LOOP_TICK_MS : 0;
    if (target > TICK_MAX) {
        target = TICK_MAX;
    }
    if (target <= wheel->target) {
        return;
    }
    wheel->target = target;

    uint64_t tick;
    unsigned level;
    while (next_stop(wheel, &tick, &level) && tick <= target) {
        unsigned slot = digit(tick, level);
        wheel->tick = tick;
        wheel->occupied[level] &= ~(1ull << slot);
        if (level == 0) {
            list_move(&wheel->slots[level * WHEEL_SLOTS + slot], &wheel->due);
            run_due(wheel);
            continue;
        }
        struct loop_timer moving;
        list_move(&wheel->slots[level * WHEEL_SLOTS + slot], &moving);
        while (moving.next != &moving) {
            struct loop_timer *timer = moving.next;
            moving.next = timer->next;
            timer->next->prev = &moving;
            place(wheel, timer, due_tick(wheel, timer->due_ms));
        }
    }
    wheel->tick = target;
}
