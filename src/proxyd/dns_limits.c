/*
 * The rate is the generic cell rate algorithm: `due_ns` is when a client that had kept to the rate would ask next; it
 * may be up to one second ahead.
 *
 * The table is asked once per stream, so one lock and short chains do; counting a question takes no lock.
 */
#include "proxyd/dns_limits.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BUCKETS 1024u
#define SECOND_NS UINT64_C(1000000000)

struct dns_asker_count {
    struct dns_asker_count *chain;
    uint8_t key[9];      /* family, and the address or its first half */
    unsigned references; /* streams; guarded by the mutex */
    _Atomic uint32_t in_flight;
    _Atomic uint64_t due_ns;
};

struct dns_limits {
    pthread_mutex_t mutex;
    uint64_t salt;
    struct dns_asker_count *buckets[BUCKETS];
};

int dns_limits_new(struct dns_limits **out)
{
    struct dns_limits *limits = calloc(1, sizeof *limits);
    if (limits == NULL) {
        return -ENOMEM;
    }
    int err = -pthread_mutex_init(&limits->mutex, NULL);
    if (err == 0 && getrandom(&limits->salt, sizeof limits->salt, 0) != (ssize_t)sizeof limits->salt) {
        err = -EIO;
    }
    if (err != 0) {
        free(limits);
        return err;
    }
    *out = limits;
    return 0;
}

void dns_limits_free(struct dns_limits *limits)
{
    if (limits != NULL) {
        (void)pthread_mutex_destroy(&limits->mutex);
        free(limits);
    }
}

static void make_key(const struct socks6_addr *client, uint8_t key[9])
{
    memset(key, 0, 9);
    key[0] = client->type;
    if (client->type == SOCKS6_ADDR_IPV4) {
        memcpy(key + 1, client->u.ipv4, 4);
    } else {
        memcpy(key + 1, client->u.ipv6, 8);
    }
}

static struct dns_asker_count **bucket(struct dns_limits *limits, const uint8_t key[9])
{
    uint64_t word;

    /* A stream exists for every entry, so chains made long on purpose cost whoever makes them a connection each. */
    memcpy(&word, key + 1, sizeof word);
    word = (word ^ limits->salt ^ key[0]) * UINT64_C(0x9e3779b97f4a7c15);
    return &limits->buckets[(word >> 40) % BUCKETS];
}

struct dns_asker_count *dns_limits_join(struct dns_limits *limits, const struct socks6_addr *client)
{
    uint8_t key[9];

    make_key(client, key);
    struct dns_asker_count **head = bucket(limits, key);
    (void)pthread_mutex_lock(&limits->mutex);
    struct dns_asker_count *count = *head;
    while (count != NULL && memcmp(count->key, key, sizeof key) != 0) {
        count = count->chain;
    }
    if (count == NULL && (count = calloc(1, sizeof *count)) != NULL) {
        memcpy(count->key, key, sizeof key);
        count->chain = *head;
        *head = count;
    }
    if (count != NULL) {
        count->references++;
    }
    (void)pthread_mutex_unlock(&limits->mutex);
    return count;
}

void dns_limits_leave(struct dns_limits *limits, struct dns_asker_count *count)
{
    (void)pthread_mutex_lock(&limits->mutex);
    if (--count->references == 0) {
        struct dns_asker_count **at = bucket(limits, count->key);
        while (*at != count) {
            at = &(*at)->chain;
        }
        *at = count->chain;
        free(count);
    }
    (void)pthread_mutex_unlock(&limits->mutex);
}

static bool keeps_to_rate(struct dns_asker_count *count, uint32_t per_second, uint64_t now_ns)
{
    uint64_t due = atomic_load_explicit(&count->due_ns, memory_order_relaxed), next;

    do {
        next = (due > now_ns ? due : now_ns) + SECOND_NS / per_second;
        if (next > now_ns + SECOND_NS) {
            return false;
        }
    } while (
        !atomic_compare_exchange_weak_explicit(&count->due_ns, &due, next, memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool dns_limits_ask(struct dns_asker_count *count, uint32_t in_flight_max, uint32_t per_second, uint64_t now_ms)
{
    if (atomic_fetch_add_explicit(&count->in_flight, 1, memory_order_relaxed) >= in_flight_max ||
        (per_second != 0 && !keeps_to_rate(count, per_second, now_ms * 1000000))) {
        dns_limits_done(count);
        return false;
    }
    return true;
}

void dns_limits_done(struct dns_asker_count *count)
{
    uint32_t before = atomic_fetch_sub_explicit(&count->in_flight, 1, memory_order_relaxed);

    assert(before > 0);
    (void)before; /* without assertions */
}
