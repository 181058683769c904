/*
 * Counting connections. Called by the workers: once per accepted and once per ended connection. The total is an atomic,
 * counted before a connection is accepted; the counts per client are a tally.
 */
#include "proxyd/limits.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#include "proxyd/client_key.h"
#include "proxyd/tally.h"

struct limits {
    _Atomic uint32_t total;
    struct siphash_key hash_key;
    struct tally *clients;
};

int limits_new(struct limits **out)
{
    struct limits *limits = calloc(1, sizeof *limits);
    int rc;

    if (limits == NULL) {
        return -ENOMEM;
    }
    if (getrandom(&limits->hash_key, sizeof limits->hash_key, 0) != (ssize_t)sizeof limits->hash_key) {
        rc = -errno;
        free(limits);
        return rc;
    }
    rc = tally_new(&limits->clients);
    if (rc != 0) {
        free(limits);
        return rc;
    }
    *out = limits;
    return 0;
}

void limits_free(struct limits *limits)
{
    if (limits == NULL) {
        return;
    }
    tally_free(limits->clients);
    free(limits);
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

static uint64_t hash(const struct limits *limits, const struct socks6_addr *client)
{
    struct client_key key = client_key_of(client);

    return client_key_hash(&limits->hash_key, &key);
}

enum limits_verdict limits_acquire(struct limits *limits, const struct socks6_addr *client, uint32_t per_client_max)
{
    switch (tally_take(limits->clients, hash(limits, client), per_client_max)) {
    case TALLY_OK:
        return LIMITS_OK;
    case TALLY_FULL:
        return LIMITS_CLIENT_FULL;
    case TALLY_NO_MEMORY:
        break;
    }
    return LIMITS_NO_MEMORY;
}

void limits_release(struct limits *limits, const struct socks6_addr *client)
{
    tally_give(limits->clients, hash(limits, client));
    limits_unreserve(limits);
}

uint32_t limits_total(const struct limits *limits)
{
    return atomic_load_explicit(&limits->total, memory_order_relaxed);
}
