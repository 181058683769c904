/* A set of descriptors, as far as slots.h goes. Safe in signal handlers and threads. */
#ifndef PRELOAD_BITS_H
#define PRELOAD_BITS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "preload/slots.h"

#define BITS_WORDS (SLOTS_COUNT / 32)

struct bits {
    _Atomic uint32_t words[BITS_WORDS];
    atomic_int highest; /* of those ever set */
};

static inline void bits_set(struct bits *bits, int fd)
{
    int highest = atomic_load_explicit(&bits->highest, memory_order_relaxed);

    if (fd < 0 || fd >= SLOTS_COUNT) {
        return;
    }
    (void)atomic_fetch_or(&bits->words[fd / 32], UINT32_C(1) << fd % 32);
    while (highest < fd && !atomic_compare_exchange_weak(&bits->highest, &highest, fd)) {
    }
}

static inline void bits_clear(struct bits *bits, int fd)
{
    if (fd >= 0 && fd < SLOTS_COUNT) {
        (void)atomic_fetch_and(&bits->words[fd / 32], ~(UINT32_C(1) << fd % 32));
    }
}

static inline bool bits_has(const struct bits *bits, int fd)
{
    return fd >= 0 && fd < SLOTS_COUNT && (atomic_load(&bits->words[fd / 32]) >> fd % 32 & 1) != 0;
}

/* The first one that is not below `fd`, or -1. */
static inline int bits_next(const struct bits *bits, int fd)
{
    int highest = atomic_load(&bits->highest);

    while (fd <= highest) {
        if (fd % 32 == 0 && atomic_load(&bits->words[fd / 32]) == 0) {
            fd += 32;
        } else if (bits_has(bits, fd)) {
            return fd;
        } else {
            fd++;
        }
    }
    return -1;
}

#endif
