/*
 * Theory of operation. Each entry has a sequence number, odd while somebody writes. Readers take what they have read if the number
 * was even and is the same afterwards. Writers that find it odd give up: the other one may be the same thread, below this
 * signal handler, and would never end. So an entry is lost now and then, which costs a question to the helper.
 */
#include "preload/slots.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#define WORDS ((sizeof(struct slot) + sizeof(uint64_t) - 1) / sizeof(uint64_t))

struct entry {
    atomic_uint sequence;
    _Atomic uint64_t words[WORDS]; /* a struct slot */
};

static struct entry entries[SLOTS_COUNT];
#define HINT_NARROW 0x80u
static atomic_uchar hints[SLOTS_COUNT]; /* kinds */

static bool is_in_range(int fd)
{
    return fd >= 0 && fd < SLOTS_COUNT;
}

bool slots_get(int fd, uint64_t cookie, struct slot *out)
{
    uint64_t words[WORDS];
    unsigned sequence;
    struct slot slot;

    if (!is_in_range(fd)) {
        return false;
    }
    sequence = atomic_load_explicit(&entries[fd].sequence, memory_order_acquire);
    for (size_t i = 0; i < WORDS; i++) {
        words[i] = atomic_load_explicit(&entries[fd].words[i], memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_acquire);
    if (sequence % 2 != 0 || atomic_load_explicit(&entries[fd].sequence, memory_order_relaxed) != sequence) {
        return false;
    }
    memcpy(&slot, words, sizeof slot);
    if (slot.cookie != cookie || cookie == 0) {
        return false;
    }
    *out = slot;
    return true;
}

void slots_put(int fd, const struct slot *slot)
{
    uint64_t words[WORDS] = {0};
    unsigned sequence;

    if (!is_in_range(fd)) {
        return;
    }
    sequence = atomic_load_explicit(&entries[fd].sequence, memory_order_relaxed);
    if (sequence % 2 != 0 || !atomic_compare_exchange_strong_explicit(&entries[fd].sequence, &sequence, sequence + 1,
                                                                      memory_order_acquire, memory_order_relaxed)) {
        return;
    }
    atomic_thread_fence(memory_order_release);
    memcpy(words, slot, sizeof *slot);
    for (size_t i = 0; i < WORDS; i++) {
        atomic_store_explicit(&entries[fd].words[i], words[i], memory_order_relaxed);
    }
    atomic_store_explicit(&hints[fd], (unsigned char)(slot->kind | (slot->is_narrow ? HINT_NARROW : 0)),
                          memory_order_relaxed);
    atomic_store_explicit(&entries[fd].sequence, sequence + 2, memory_order_release);
}

enum slot_kind slots_hint(int fd)
{
    return is_in_range(fd) ? (enum slot_kind)(atomic_load_explicit(&hints[fd], memory_order_relaxed) & ~HINT_NARROW)
                           : SLOT_OTHER;
}

void slots_forget_hint(int fd)
{
    if (is_in_range(fd)) {
        atomic_store_explicit(&hints[fd], SLOT_OTHER, memory_order_relaxed);
    }
}

bool slots_is_narrow(int fd)
{
    return is_in_range(fd) && (atomic_load_explicit(&hints[fd], memory_order_relaxed) & HINT_NARROW) != 0;
}
