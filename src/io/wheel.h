/*
 * The loop's timers: a hierarchical wheel of LOOP_TICK_MS ticks. Pure: time comes in as an argument, nothing is
 * allocated.
 *
 * Setting and cancelling cost the same whatever the delay and whatever the number of timers; a timer is touched again
 * once per level on its way down (at most WHEEL_LEVELS - 1 times in its life, 3 for 24 hours), and no tick scans
 * timers. Used by loop.c only.
 */
#ifndef IO_WHEEL_H
#define IO_WHEEL_H

#include <stdint.h>

#include "io/loop.h"

#define WHEEL_LEVELS 6 /* 64^6 ticks of 16 ms: 34 years; what is due later is due then */
#define WHEEL_SLOTS 64

struct wheel {
    uint64_t base_ms; /* tick 0 */
    uint64_t tick;    /* up to here everything was run */
    uint64_t target;  /* tick of the newest wheel_expire(): what is set meanwhile is due after it */
    uint64_t occupied[WHEEL_LEVELS];
    struct loop_timer slots[WHEEL_LEVELS * WHEEL_SLOTS]; /* heads of circular lists, level by level */
    struct loop_timer due;                               /* head of the list being run */
};

void wheel_init(struct wheel *wheel, uint64_t now_ms);

/* Arms, or arms anew, for `due_ms`. A time that has passed means the next tick, and timer->due_ms then says so. */
void wheel_set(struct wheel *wheel, struct loop_timer *timer, uint64_t due_ms);

/* No effect on a timer that is not armed. */
void wheel_cancel(struct wheel *wheel, struct loop_timer *timer);

/*
 * When wheel_expire() wants to be called next (a timer is due, or a slot of a higher level begins); UINT64_MAX without
 * timers.
 */
uint64_t wheel_next_ms(const struct wheel *wheel);

/*
 * Runs what is due. A timer is disarmed before its `expired` is called; that may set, cancel or free any timer, this
 * one included. Timers set meanwhile do not run in this call.
 */
void wheel_expire(struct wheel *wheel, uint64_t now_ms);

#endif
