/*
 * Sets of eight entries; an address may be in one of one set only, so nothing grows and every call looks at eight places.
 * When a set is full the entry with the least to remember gives way: one without failures, else with the fewest, but none
 * whose guesses are under way. Whoever floods the table with addresses can push out others' entries of his set only, and
 * does not know which those are, since the hash is keyed.
 */
#include "proxyd/backoff.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define WAYS 8u
#define SETS (BACKOFF_ENTRIES / WAYS)

struct entry {
    uint64_t client;
    uint64_t until_ms; /* must wait until then */
    uint64_t last_ms;  /* when `failures` was brought up to date */
    uint32_t failures;
    uint32_t pending; /* entry is free if both are 0 */
};

struct backoff {
    pthread_mutex_t lock;
    struct entry entries[SETS][WAYS];
};

static_assert((SETS & (SETS - 1)) == 0, "a power of two");

int backoff_new(struct backoff **out)
{
    struct backoff *backoff = calloc(1, sizeof *backoff);

    if (backoff == NULL) {
        return -ENOMEM;
    }
    (void)pthread_mutex_init(&backoff->lock, NULL);
    *out = backoff;
    return 0;
}

void backoff_free(struct backoff *backoff)
{
    if (backoff != NULL) {
        (void)pthread_mutex_destroy(&backoff->lock);
        free(backoff);
    }
}

/* With the lock held, as all below. NULL if there is none. */
static struct entry *find(struct backoff *backoff, uint64_t client)
{
    struct entry *set = backoff->entries[client & (SETS - 1)];

    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].client == client && (set[i].failures > 0 || set[i].pending > 0)) {
            return &set[i];
        }
    }
    return NULL;
}

/* An entry for a new client; NULL if all of its set have guesses under way. */
static struct entry *claim(struct backoff *backoff, uint64_t client)
{
    struct entry *set = backoff->entries[client & (SETS - 1)], *least = NULL;

    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].pending == 0 && (least == NULL || set[i].failures < least->failures)) {
            least = &set[i];
        }
    }
    if (least != NULL) {
        *least = (struct entry){.client = client};
    }
    return least;
}

/* Forgets what has become old. */
static void age(struct entry *entry, uint64_t now_ms)
{
    uint64_t forgotten = now_ms > entry->last_ms ? (now_ms - entry->last_ms) / BACKOFF_FORGET_MS : 0;

    if (forgotten >= entry->failures) {
        entry->failures = 0;
        entry->last_ms = now_ms;
    } else {
        entry->failures -= (uint32_t)forgotten;
        entry->last_ms += forgotten * BACKOFF_FORGET_MS;
    }
}

static bool may_enter(const struct entry *entry, uint64_t now_ms)
{
    return now_ms >= entry->until_ms && entry->pending < (entry->failures < BACKOFF_FREE ? BACKOFF_PENDING_MAX : 1);
}

bool backoff_is_blocked(struct backoff *backoff, uint64_t client, uint64_t now_ms)
{
    const struct entry *entry;
    bool is_blocked;

    (void)pthread_mutex_lock(&backoff->lock);
    entry = find(backoff, client);
    is_blocked = entry != NULL && now_ms < entry->until_ms;
    (void)pthread_mutex_unlock(&backoff->lock);
    return is_blocked;
}

bool backoff_enter(struct backoff *backoff, uint64_t client, uint64_t now_ms)
{
    struct entry *entry;
    bool entered = false;

    (void)pthread_mutex_lock(&backoff->lock);
    entry = find(backoff, client);
    if (entry == NULL) {
        entry = claim(backoff, client);
    }
    if (entry != NULL) {
        age(entry, now_ms);
        entered = may_enter(entry, now_ms);
        entry->pending += entered;
    }
    (void)pthread_mutex_unlock(&backoff->lock);
    return entered;
}

void backoff_leave(struct backoff *backoff, uint64_t client, bool failed, uint64_t now_ms)
{
    struct entry *entry;

    (void)pthread_mutex_lock(&backoff->lock);
    entry = find(backoff, client);
    assert(entry != NULL && entry->pending > 0); /* it was entered, and such entries stay */
    entry->pending--;
    if (failed) {
        age(entry, now_ms);
        entry->failures++;
        if (entry->failures > BACKOFF_FREE) {
            uint32_t doublings = entry->failures - BACKOFF_FREE - 1;
            uint64_t wait_ms = doublings < 16 ? (uint64_t)BACKOFF_FIRST_MS << doublings : BACKOFF_MAX_MS;

            entry->until_ms = now_ms + (wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS);
        }
    }
    (void)pthread_mutex_unlock(&backoff->lock);
}
