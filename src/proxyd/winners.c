/*
 * A set-associative table: the hash of name and port chooses the set, and within it a free place is looked for, or the
 * one that ends first. Sets are guarded by a few locks, each held for some comparisons.
 */
#include "proxyd/winners.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SETS 1024u
#define WAYS 4u
#define LOCKS 16u

struct winner {
    uint64_t hash;
    uint64_t until_ms; /* 0 = free */
    uint8_t type;      /* SOCKS6_ADDR_IPV4 or SOCKS6_ADDR_IPV6 */
    uint8_t bytes[16];
};

struct winners {
    pthread_mutex_t locks[LOCKS];
    struct winner sets[SETS][WAYS];
};

int winners_new(struct winners **out)
{
    struct winners *winners = calloc(1, sizeof *winners);
    if (winners == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < LOCKS; i++) {
        (void)pthread_mutex_init(&winners->locks[i], NULL); /* cannot fail on Linux */
    }
    *out = winners;
    return 0;
}

void winners_free(struct winners *winners)
{
    if (winners == NULL) {
        return;
    }
    for (size_t i = 0; i < LOCKS; i++) {
        (void)pthread_mutex_destroy(&winners->locks[i]);
    }
    free(winners);
}

static uint64_t add_byte(uint64_t hash, uint8_t byte)
{
    return (hash ^ byte) * UINT64_C(0x100000001b3);
}

/* FNV-1a, mixed once more, without regard to case and a final dot. */
static uint64_t hash_of(const struct socks6_addr *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    size_t len = name->len;

    assert(name->type == SOCKS6_ADDR_NAME);
    if (len > 1 && name->u.name[len - 1] == '.') {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)name->u.name[i];
        hash = add_byte(hash, c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c);
    }
    hash = add_byte(add_byte(hash, (uint8_t)(name->port >> 8)), (uint8_t)name->port);
    return hash ^ hash >> 29;
}

static pthread_mutex_t *lock_of(struct winners *winners, uint64_t hash)
{
    return &winners->locks[hash % SETS % LOCKS];
}

static struct winner *find(struct winners *winners, uint64_t hash)
{
    struct winner *set = winners->sets[hash % SETS];
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].until_ms != 0 && set[i].hash == hash) {
            return &set[i];
        }
    }
    return NULL;
}

bool winners_find(struct winners *winners, const struct socks6_addr *name, uint64_t now_ms, struct socks6_addr *out)
{
    uint64_t hash = hash_of(name);
    struct winner winner = {0};

    (void)pthread_mutex_lock(lock_of(winners, hash));
    const struct winner *found = find(winners, hash);
    if (found != NULL) {
        winner = *found;
    }
    (void)pthread_mutex_unlock(lock_of(winners, hash));
    if (winner.until_ms <= now_ms) {
        return false;
    }
    *out = winner.type == SOCKS6_ADDR_IPV4 ? socks6_addr_ipv4(winner.bytes, name->port)
                                           : socks6_addr_ipv6(winner.bytes, name->port);
    return true;
}

void winners_put(struct winners *winners, const struct socks6_addr *name, const struct socks6_addr *addr,
                 uint64_t now_ms, uint64_t lifetime_ms)
{
    struct winner winner = {.hash = hash_of(name), .until_ms = now_ms + lifetime_ms, .type = addr->type};

    if (lifetime_ms == 0 || addr->type == SOCKS6_ADDR_NAME) {
        return;
    }
    memcpy(winner.bytes, &addr->u, addr->len);
    (void)pthread_mutex_lock(lock_of(winners, winner.hash));
    struct winner *place = find(winners, winner.hash);
    bool is_known = place != NULL && place->until_ms > now_ms && place->type == winner.type &&
                    memcmp(place->bytes, winner.bytes, sizeof winner.bytes) == 0;
    if (!is_known) {
        struct winner *set = winners->sets[winner.hash % SETS];
        for (size_t i = 0; place == NULL && i < WAYS; i++) {
            if (set[i].until_ms <= now_ms) {
                place = &set[i];
            }
        }
        if (place == NULL) {
            place = &set[0];
            for (size_t i = 1; i < WAYS; i++) {
                place = set[i].until_ms < place->until_ms ? &set[i] : place;
            }
        }
        *place = winner;
    }
    (void)pthread_mutex_unlock(lock_of(winners, winner.hash));
}

void winners_forget(struct winners *winners, const struct socks6_addr *name)
{
    uint64_t hash = hash_of(name);

    (void)pthread_mutex_lock(lock_of(winners, hash));
    struct winner *found = find(winners, hash);
    if (found != NULL) {
        found->until_ms = 0;
    }
    (void)pthread_mutex_unlock(lock_of(winners, hash));
}
