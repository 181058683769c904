/*
 * Counters of the resolver, one set per client (thread): written by it alone, read by anyone.
 */
#ifndef DNS_COUNTERS_H
#define DNS_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

/* X(name, help): every counter once; the name is what users see, after "dns_". */
#define DNS_COUNTERS(X)                                                                                                \
    X(hits, "questions answered from the cache")                                                                       \
    X(misses, "questions that were not in the cache")                                                                  \
    X(local, "questions answered from the hosts file, or by what the name means")                                      \
    X(merged, "questions that waited for the answer to the same one")                                                  \
    X(overloaded, "questions refused since too many were waiting")                                                     \
    X(upstream_queries, "queries sent to upstream servers")                                                            \
    X(upstream_answers, "answers accepted from them")                                                                  \
    X(upstream_microseconds, "time between those queries and answers, summed")                                         \
    X(upstream_timeouts, "queries without an answer in time")                                                          \
    X(upstream_errors, "queries that failed otherwise: refused, closed, malformed answer, certificate")                \
    X(upstream_connections, "TCP and TLS connections to upstream servers")                                             \
    X(wrong_answers, "datagrams and messages that were no answer to anything asked; ignored")                          \
    X(truncated, "answers over UDP that were asked for again over TCP")

enum dns_counter {
#define DNS_COUNTER_ENUM(name, help) DNS_COUNTER_##name,
    DNS_COUNTERS(DNS_COUNTER_ENUM)
#undef DNS_COUNTER_ENUM
        DNS_COUNTER_COUNT
};

struct dns_counter_set {
    _Alignas(64) _Atomic uint64_t value[DNS_COUNTER_COUNT];
};

/* From the owning thread. */
static inline void dns_count(struct dns_counter_set *set, enum dns_counter counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(&set->value[counter], memory_order_relaxed);
    atomic_store_explicit(&set->value[counter], old + n, memory_order_relaxed);
}

#endif
