/*
 * Counting connections per client. Called by the workers: once per accepted and once per ended connection.
 *
 * Sixty-four tables with a lock each, so that workers seldom meet. A table is an array with linear probing; who leaves
 * it moves its successors up, so there are no tombstones and a table that clients have filled shrinks again. The place
 * of a client comes from SipHash under a random key: nobody can choose addresses that collide. The total is an atomic of
 * its own, counted before a connection is accepted.
 */
#include "proxyd/limits.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "proxyd/client_key.h"

#define SHARD_BITS 6
#define SHARD_COUNT (1u << SHARD_BITS)
#define SLOTS_MIN 16u

struct slot {
    uint64_t prefix;
    uint32_t family;
    uint32_t count; /* 0 = the slot is free */
};

struct shard {
    pthread_mutex_t lock;
    struct slot *slots; /* NULL while size is 0 */
    uint32_t size;      /* a power of two */
    uint32_t used;
};

struct limits {
    _Atomic uint32_t total;
    struct siphash_key hash_key;
    struct shard shards[SHARD_COUNT];
};

int limits_new(struct limits **out)
{
    struct limits *limits = calloc(1, sizeof *limits);

    if (limits == NULL) {
        return -ENOMEM;
    }
    if (getrandom(&limits->hash_key, sizeof limits->hash_key, 0) != (ssize_t)sizeof limits->hash_key) {
        int err = errno;

        free(limits);
        return -err;
    }
    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        pthread_mutex_init(&limits->shards[i].lock, NULL);
    }
    *out = limits;
    return 0;
}

void limits_free(struct limits *limits)
{
    if (limits == NULL) {
        return;
    }
    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        pthread_mutex_destroy(&limits->shards[i].lock);
        free(limits->shards[i].slots);
    }
    free(limits);
}

/* The upper bits choose the shard, the lower ones the place in it. */
static struct shard *shard_of(struct limits *limits, uint64_t hashed)
{
    return &limits->shards[hashed >> (64 - SHARD_BITS)];
}

static uint32_t place_of(const struct shard *shard, uint64_t hashed)
{
    return (uint32_t)hashed & (shard->size - 1);
}

/* The client's slot, or the free one where it would go. At least one slot is free. */
static struct slot *find(const struct shard *shard, uint64_t hashed, const struct client_key *key)
{
    uint32_t at = place_of(shard, hashed);

    while (shard->slots[at].count != 0 &&
           (shard->slots[at].prefix != key->prefix || shard->slots[at].family != key->family)) {
        at = (at + 1) & (shard->size - 1);
    }
    return &shard->slots[at];
}

static int resize(const struct limits *limits, struct shard *shard, uint32_t size)
{
    struct shard bigger = {.size = size, .slots = calloc(size, sizeof(struct slot))};

    if (bigger.slots == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < shard->size; i++) {
        struct client_key key = {.prefix = shard->slots[i].prefix, .family = shard->slots[i].family};

        if (shard->slots[i].count != 0) {
            *find(&bigger, client_key_hash(&limits->hash_key, &key), &key) = shard->slots[i];
        }
    }
    free(shard->slots);
    shard->slots = bigger.slots;
    shard->size = size;
    return 0;
}

bool limits_reserve(struct limits *limits, uint32_t total_max)
{
    uint32_t total = atomic_load_explicit(&limits->total, memory_order_relaxed);

    do {
        if (total == UINT32_MAX || (total_max != 0 && total >= total_max)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&limits->total, &total, total + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void limits_unreserve(struct limits *limits)
{
    atomic_fetch_sub_explicit(&limits->total, 1, memory_order_relaxed);
}

/* With the shard's lock held. */
static enum limits_verdict acquire(const struct limits *limits, struct shard *shard, uint64_t hashed,
                                   const struct client_key *key, uint32_t per_client_max)
{
    struct slot *slot;

    /* Room for one more client first, so that nothing can fail once something was counted. */
    if ((shard->used + 1) * 4 > shard->size * 3 &&
        resize(limits, shard, shard->size == 0 ? SLOTS_MIN : shard->size * 2) != 0) {
        return LIMITS_NO_MEMORY;
    }
    slot = find(shard, hashed, key);
    if (per_client_max != 0 && slot->count >= per_client_max) {
        return LIMITS_CLIENT_FULL;
    }
    if (slot->count == 0) {
        slot->prefix = key->prefix;
        slot->family = key->family;
        shard->used++;
    }
    slot->count++;
    return LIMITS_OK;
}

enum limits_verdict limits_acquire(struct limits *limits, const struct socks6_addr *client, uint32_t per_client_max)
{
    struct client_key key = client_key_of(client);
    uint64_t hashed = client_key_hash(&limits->hash_key, &key);
    struct shard *shard = shard_of(limits, hashed);
    enum limits_verdict verdict;

    pthread_mutex_lock(&shard->lock);
    verdict = acquire(limits, shard, hashed, &key, per_client_max);
    pthread_mutex_unlock(&shard->lock);
    return verdict;
}

/* Frees `slot` and closes the gap: whoever was pushed behind it by a collision moves up. */
static void remove_slot(const struct limits *limits, struct shard *shard, struct slot *slot)
{
    uint32_t mask = shard->size - 1;
    uint32_t gap = (uint32_t)(slot - shard->slots);

    shard->slots[gap].count = 0;
    shard->used--;
    for (uint32_t at = (gap + 1) & mask; shard->slots[at].count != 0; at = (at + 1) & mask) {
        struct client_key key = {.prefix = shard->slots[at].prefix, .family = shard->slots[at].family};
        uint32_t home = place_of(shard, client_key_hash(&limits->hash_key, &key));

        /* It may move to the gap if the gap is not before its home, seen round the array. */
        if (((at - home) & mask) < ((at - gap) & mask)) {
            continue;
        }
        shard->slots[gap] = shard->slots[at];
        shard->slots[at].count = 0;
        gap = at;
    }
}

void limits_release(struct limits *limits, const struct socks6_addr *client)
{
    struct client_key key = client_key_of(client);
    uint64_t hashed = client_key_hash(&limits->hash_key, &key);
    struct shard *shard = shard_of(limits, hashed);
    struct slot *slot;

    pthread_mutex_lock(&shard->lock);
    assert(shard->size > 0);
    slot = find(shard, hashed, &key);
    assert(slot->count > 0);
    slot->count--;
    if (slot->count == 0) {
        remove_slot(limits, shard, slot);
        /* Without memory for the smaller table the larger one goes on serving. */
        if (shard->size > SLOTS_MIN && shard->used < shard->size / 8) {
            (void)resize(limits, shard, shard->size / 2);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    limits_unreserve(limits);
}

uint32_t limits_total(const struct limits *limits)
{
    return atomic_load_explicit(&limits->total, memory_order_relaxed);
}
