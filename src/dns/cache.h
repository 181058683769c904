/*
 * Answers by question, for as long as they live, in bounded memory. One for the whole process, used by all its threads;
 * time comes in as an argument.
 *
 * Split into shards with a lock each. What was not used for longest goes first when memory is short. An entry counts
 * with all its memory, the table included.
 */
#ifndef DNS_CACHE_H
#define DNS_CACHE_H

#include "dns/answer.h"
#include "io/siphash.h"

struct dns_cache;

struct dns_cache_counters {
    uint64_t bytes, entries; /* now */
    uint64_t evictions;      /* ever: alive, but out of memory */
};

/* `cap_len` bytes at most; 0 = nothing is ever kept. 0 or -errno. */
SOCKS6_MUST_CHECK int dns_cache_new(size_t cap_len, const struct siphash_key *key, struct dns_cache **out);
/* Takes NULL. */
void dns_cache_free(struct dns_cache *cache);

/* A reference to the answer, if it is there and alive; else NULL. */
struct dns_answer *dns_cache_get(struct dns_cache *cache, const struct dns_key *key, uint64_t now_ms);
/*
 * Keeps the answer, with a reference of its own, as long as its TTL says; replaces what was there for this question.
 * Without effect for a TTL of 0, or if there is no memory.
 */
void dns_cache_put(struct dns_cache *cache, const struct dns_key *key, struct dns_answer *answer, uint64_t now_ms);
void dns_cache_clear(struct dns_cache *cache);
/* Another cap; what is over it goes. */
void dns_cache_resize(struct dns_cache *cache, size_t cap_len, uint64_t now_ms);
void dns_cache_count(struct dns_cache *cache, struct dns_cache_counters *out);

#endif
