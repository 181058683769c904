#include "dns/cache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS_MAX 16u
#define SHARD_LEN_MIN ((size_t)256 * 1024) /* below it fewer shards: one long answer must not empty one */
#define TABLE_COUNT_MIN 64u

struct entry {
    struct entry *chain;
    struct entry *newer, *older; /* by last use */
    uint64_t hash, expires_ms;
    struct dns_answer *answer;
    size_t key_len;
    uint8_t key[];
};

struct shard {
    _Alignas(64) pthread_mutex_t mutex;
    struct entry **table; /* NULL before the first entry */
    size_t table_count;   /* a power of two */
    struct entry *newest, *oldest;
    size_t bytes, entries, cap_len;
    uint64_t evictions;
};

struct dns_cache {
    struct siphash_key key;
    size_t shard_count; /* a power of two */
    struct shard shards[SHARDS_MAX];
};

/* ---- one shard; all with its mutex held ---- */

static size_t entry_size(const struct entry *entry)
{
    return sizeof *entry + entry->key_len + dns_answer_size(entry->answer);
}

static void unlink_use(struct shard *shard, struct entry *entry)
{
    if (entry->newer != NULL) {
        entry->newer->older = entry->older;
    } else {
        shard->newest = entry->older;
    }
    if (entry->older != NULL) {
        entry->older->newer = entry->newer;
    } else {
        shard->oldest = entry->newer;
    }
}

static void link_newest(struct shard *shard, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = shard->newest;
    if (entry->older != NULL) {
        entry->older->newer = entry;
    } else {
        shard->oldest = entry;
    }
    shard->newest = entry;
}

/* The shard takes the lower bits of the hash, its table higher ones. */
static struct entry **bucket(const struct shard *shard, uint64_t hash)
{
    return &shard->table[(hash >> 8) & (shard->table_count - 1)];
}

static void drop(struct shard *shard, struct entry *entry)
{
    struct entry **at = bucket(shard, entry->hash);

    while (*at != entry) {
        at = &(*at)->chain;
    }
    *at = entry->chain;
    unlink_use(shard, entry);
    shard->bytes -= entry_size(entry);
    shard->entries--;
    dns_answer_release(entry->answer);
    free(entry);
}

static struct entry *find(const struct shard *shard, uint64_t hash, const struct dns_key *key)
{
    struct entry *entry = shard->table == NULL ? NULL : *bucket(shard, hash);

    while (entry != NULL &&
           (entry->hash != hash || entry->key_len != key->len || memcmp(entry->key, key->bytes, key->len) != 0)) {
        entry = entry->chain;
    }
    return entry;
}

/* Doubles the table when it is full, if there is memory: without, chains grow longer. */
static bool grow(struct shard *shard)
{
    size_t count = shard->table == NULL ? TABLE_COUNT_MIN : shard->table_count * 2;
    struct entry **old = shard->table;

    if (old != NULL && shard->entries < shard->table_count) {
        return true;
    }
    struct entry **table = calloc(count, sizeof(struct entry *));
    if (table == NULL) {
        return old != NULL;
    }
    shard->bytes += (count - (old == NULL ? 0 : shard->table_count)) * sizeof(struct entry *);
    shard->table = table;
    shard->table_count = count;
    for (struct entry *entry = shard->newest; entry != NULL; entry = entry->older) {
        struct entry **at = bucket(shard, entry->hash);
        entry->chain = *at;
        *at = entry;
    }
    free(old);
    return true;
}

static void evict(struct shard *shard, uint64_t now_ms)
{
    while (shard->bytes > shard->cap_len && shard->oldest != NULL) {
        if (shard->oldest->expires_ms > now_ms) {
            shard->evictions++;
        }
        assert(shard->oldest->older == NULL);
        drop(shard, shard->oldest);
    }
}

static void insert(struct shard *shard, struct entry *entry, const struct dns_key *key, uint64_t now_ms)
{
    struct entry *old = find(shard, entry->hash, key);
    bool fits = entry_size(entry) <= shard->cap_len;

    if (old != NULL) {
        drop(shard, old);
    }
    if (!fits || !grow(shard)) {
        dns_answer_release(entry->answer);
        free(entry);
        return;
    }
    struct entry **at = bucket(shard, entry->hash);
    entry->chain = *at;
    *at = entry;
    link_newest(shard, entry);
    shard->bytes += entry_size(entry);
    shard->entries++;
    evict(shard, now_ms);
}

static void clear(struct shard *shard)
{
    while (shard->oldest != NULL) {
        drop(shard, shard->oldest);
    }
}

/* ---- the cache ---- */

static struct shard *shard_of(struct dns_cache *cache, uint64_t hash)
{
    return &cache->shards[hash & (cache->shard_count - 1)];
}

int dns_cache_new(size_t cap_len, const struct siphash_key *key, struct dns_cache **out)
{
    struct dns_cache *cache = aligned_alloc(_Alignof(struct dns_cache), sizeof *cache);
    if (cache == NULL) {
        return -ENOMEM;
    }
    memset(cache, 0, sizeof *cache);
    cache->key = *key;
    cache->shard_count = 1;
    while (cache->shard_count < SHARDS_MAX && cap_len / (cache->shard_count * 2) >= SHARD_LEN_MIN) {
        cache->shard_count *= 2;
    }
    for (size_t i = 0; i < cache->shard_count; i++) {
        cache->shards[i].cap_len = cap_len / cache->shard_count;
        int err = pthread_mutex_init(&cache->shards[i].mutex, NULL);
        if (err != 0) {
            cache->shard_count = i;
            dns_cache_free(cache);
            return -err;
        }
    }
    *out = cache;
    return 0;
}

void dns_cache_free(struct dns_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (size_t i = 0; i < cache->shard_count; i++) {
        clear(&cache->shards[i]);
        free(cache->shards[i].table);
        (void)pthread_mutex_destroy(&cache->shards[i].mutex);
    }
    free(cache);
}

struct dns_answer *dns_cache_get(struct dns_cache *cache, const struct dns_key *key, uint64_t now_ms)
{
    struct dns_answer *answer = NULL;

    uint64_t hash = siphash(&cache->key, key->bytes, key->len);
    struct shard *shard = shard_of(cache, hash);
    (void)pthread_mutex_lock(&shard->mutex);
    struct entry *entry = find(shard, hash, key);
    if (entry != NULL && entry->expires_ms <= now_ms) {
        drop(shard, entry);
    } else if (entry != NULL) {
        answer = dns_answer_retain(entry->answer);
        if (entry != shard->newest) {
            unlink_use(shard, entry);
            link_newest(shard, entry);
        }
    }
    (void)pthread_mutex_unlock(&shard->mutex);
    return answer;
}

void dns_cache_put(struct dns_cache *cache, const struct dns_key *key, struct dns_answer *answer, uint64_t now_ms)
{
    uint64_t expires_ms = dns_answer_came_ms(answer) + (uint64_t)dns_answer_ttl_s(answer) * 1000;

    if (expires_ms <= now_ms) {
        return;
    }
    struct entry *entry = malloc(sizeof *entry + key->len);
    if (entry == NULL) {
        return;
    }
    *entry = (struct entry){
        .hash = siphash(&cache->key, key->bytes, key->len),
        .expires_ms = expires_ms,
        .answer = dns_answer_retain(answer),
        .key_len = key->len,
    };
    memcpy(entry->key, key->bytes, key->len);
    struct shard *shard = shard_of(cache, entry->hash);
    (void)pthread_mutex_lock(&shard->mutex);
    insert(shard, entry, key, now_ms);
    (void)pthread_mutex_unlock(&shard->mutex);
}

void dns_cache_clear(struct dns_cache *cache)
{
    for (size_t i = 0; i < cache->shard_count; i++) {
        (void)pthread_mutex_lock(&cache->shards[i].mutex);
        clear(&cache->shards[i]);
        (void)pthread_mutex_unlock(&cache->shards[i].mutex);
    }
}

void dns_cache_resize(struct dns_cache *cache, size_t cap_len, uint64_t now_ms)
{
    for (size_t i = 0; i < cache->shard_count; i++) {
        struct shard *shard = &cache->shards[i];
        (void)pthread_mutex_lock(&shard->mutex);
        shard->cap_len = cap_len / cache->shard_count;
        evict(shard, now_ms);
        (void)pthread_mutex_unlock(&shard->mutex);
    }
}

void dns_cache_count(struct dns_cache *cache, struct dns_cache_counters *out)
{
    *out = (struct dns_cache_counters){0};
    for (size_t i = 0; i < cache->shard_count; i++) {
        struct shard *shard = &cache->shards[i];
        (void)pthread_mutex_lock(&shard->mutex);
        out->bytes += shard->bytes;
        out->entries += shard->entries;
        out->evictions += shard->evictions;
        (void)pthread_mutex_unlock(&shard->mutex);
    }
}
