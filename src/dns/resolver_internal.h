/*
 * Between resolver.c (life, local names) and ask.c (questions in flight).
 */
#ifndef DNS_RESOLVER_INTERNAL_H
#define DNS_RESOLVER_INTERNAL_H

#include <pthread.h>

#include "dns/ask.h"
#include "dns/cache.h"
#include "dns/counters.h"
#include "dns/upstream.h"

#define FLIGHT_SHARDS 16u
#define FLIGHT_BUCKETS 256u

struct flight;

/* Questions on their way, by key: those of all clients, so that the same one is asked once. */
struct flight_shard {
    _Alignas(64) pthread_mutex_t mutex; /* for the table, its flights' waiters, and the waiters' state */
    struct flight *table[FLIGHT_BUCKETS];
};

struct dns_resolver {
    struct siphash_key key;
    struct dns_cache *cache;
    struct dns_follower *follower;
    _Atomic uint64_t epoch; /* counts changes of the servers: answers from before are not kept */
    pthread_mutex_t mutex;  /* for `clients` */
    struct dns_client *clients;
    uint64_t gone[DNS_COUNTER_COUNT]; /* counters of clients that are gone */
    struct flight_shard flights[FLIGHT_SHARDS];
};

struct dns_client {
    struct dns_counter_set counters;
    struct dns_resolver *resolver;
    struct loop *loop;
    struct dns_servers *servers; /* in force when it asked last */
    struct upstream *upstream;
    struct flight *flights; /* list: those that it asks */
    unsigned flight_count;
    struct dns_ask *ready; /* list: answered, to be told; within one call only */
    struct dns_client *prev, *next;
};

/* Brings client->servers up to date. */
void dns_client_update(struct dns_client *client);
/* Before the client goes: its questions are left to those who wait for them on other loops. */
void dns_ask_abandon(struct dns_client *client);

#endif
