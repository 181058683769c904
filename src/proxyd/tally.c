/*
 * Sixty-four tables with a lock each, so that workers seldom meet. A table is an array with linear probing; who leaves it
 * moves its successors up, so there are no tombstones, and a table that has become too large gives its memory back.
 */
#include "proxyd/tally.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARD_BITS 6
#define SHARD_COUNT (1u << SHARD_BITS)
#define SLOTS_MIN 16u

struct slot {
    uint64_t hash;
    uint32_t count; /* 0 = the slot is free */
};

struct shard {
    pthread_mutex_t lock;
    struct slot *slots; /* NULL while size is 0 */
    uint32_t size;      /* a power of two */
    uint32_t used;
};

struct tally {
    struct shard shards[SHARD_COUNT];
};

int tally_new(struct tally **out)
{
    struct tally *tally = calloc(1, sizeof *tally);

    if (tally == NULL) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        (void)pthread_mutex_init(&tally->shards[i].lock, NULL);
    }
    *out = tally;
    return 0;
}

void tally_free(struct tally *tally)
{
    if (tally == NULL) {
        return;
    }
    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        (void)pthread_mutex_destroy(&tally->shards[i].lock);
        free(tally->shards[i].slots);
    }
    free(tally);
}

/* The upper bits choose the shard, the lower ones the place in it. */
static struct shard *shard_of(struct tally *tally, uint64_t hash)
{
    return &tally->shards[hash >> (64 - SHARD_BITS)];
}

/* The key's slot, or the free one where it would go. At least one slot is free. */
static struct slot *find(const struct shard *shard, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (shard->size - 1);

    while (shard->slots[at].count != 0 && shard->slots[at].hash != hash) {
        at = (at + 1) & (shard->size - 1);
    }
    return &shard->slots[at];
}

static int resize(struct shard *shard, uint32_t size)
{
    struct shard other = {.size = size, .slots = calloc(size, sizeof(struct slot))};

    if (other.slots == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < shard->size; i++) {
        if (shard->slots[i].count != 0) {
            *find(&other, shard->slots[i].hash) = shard->slots[i];
        }
    }
    free(shard->slots);
    shard->slots = other.slots;
    shard->size = size;
    return 0;
}

/* With the lock held. */
static enum tally_verdict take(struct shard *shard, uint64_t hash, uint32_t max)
{
    struct slot *slot;

    /* Room for one more key first, so that nothing can fail once something was counted. */
    if ((shard->used + 1) * 4 > shard->size * 3 && resize(shard, shard->size == 0 ? SLOTS_MIN : shard->size * 2) != 0) {
        return TALLY_NO_MEMORY;
    }
    slot = find(shard, hash);
    if ((max != 0 && slot->count >= max) || slot->count == UINT32_MAX) {
        return TALLY_FULL;
    }
    if (slot->count == 0) {
        slot->hash = hash;
        shard->used++;
    }
    slot->count++;
    return TALLY_OK;
}

enum tally_verdict tally_take(struct tally *tally, uint64_t hash, uint32_t max)
{
    struct shard *shard = shard_of(tally, hash);
    enum tally_verdict verdict;

    (void)pthread_mutex_lock(&shard->lock);
    verdict = take(shard, hash, max);
    (void)pthread_mutex_unlock(&shard->lock);
    return verdict;
}

/* Frees `slot` and closes the gap: whoever was pushed behind it by a collision moves up. */
static void remove_slot(struct shard *shard, struct slot *slot)
{
    uint32_t mask = shard->size - 1;
    uint32_t gap = (uint32_t)(slot - shard->slots);

    shard->slots[gap].count = 0;
    shard->used--;
    for (uint32_t at = (gap + 1) & mask; shard->slots[at].count != 0; at = (at + 1) & mask) {
        uint32_t home = (uint32_t)shard->slots[at].hash & mask;

        /* It may move to the gap if the gap is not before its home, seen round the array. */
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            shard->slots[gap] = shard->slots[at];
            shard->slots[at].count = 0;
            gap = at;
        }
    }
}

void tally_give(struct tally *tally, uint64_t hash)
{
    struct shard *shard = shard_of(tally, hash);
    struct slot *slot;

    (void)pthread_mutex_lock(&shard->lock);
    assert(shard->size > 0);
    slot = find(shard, hash);
    assert(slot->count > 0);
    slot->count--;
    if (slot->count == 0) {
        remove_slot(shard, slot);
        /* Without memory for the smaller table the larger one goes on serving. */
        if (shard->size > SLOTS_MIN && shard->used < shard->size / 8) {
            (void)resize(shard, shard->size / 2);
        }
    }
    (void)pthread_mutex_unlock(&shard->lock);
}
