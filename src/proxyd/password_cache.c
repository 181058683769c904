/*
 * Sets of eight tags; the tag itself, which is as good as random, chooses the set. In a full set the entry that ends first
 * gives way.
 *
 * To copy the keyed context for each tag costs more than the tag. So contexts that were used are set back to where the key
 * has gone in, and kept for the next one, whichever thread that is: no more of them than threads have asked at once.
 */
#include "proxyd/password_cache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#define WAYS 8u
#define ENTRIES_MAX ((size_t)1 << 24)
#define SPARES 16u
#define MESSAGE_LEN 512u

struct entry {
    struct password_tag tag;
    uint64_t until_ms; /* 0 = free */
};

struct password_cache {
    pthread_mutex_t lock;
    EVP_MAC_CTX *keyed;                    /* HMAC-SHA256 under the key of this process; only ever copied from */
    _Atomic(EVP_MAC_CTX *) spares[SPARES]; /* copies that nobody uses now; NULL = none */
    size_t set_count;                      /* a power of two */
    struct entry entries[];
};

/* NULL without memory, or randomness. */
static EVP_MAC_CTX *new_keyed(void)
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_end()};
    uint8_t key[PASSWORD_TAG_LEN];
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *keyed = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;

    EVP_MAC_free(mac);
    if (keyed != NULL &&
        (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key || EVP_MAC_init(keyed, key, sizeof key, params) != 1)) {
        EVP_MAC_CTX_free(keyed);
        keyed = NULL;
    }
    OPENSSL_cleanse(key, sizeof key);
    return keyed;
}

int password_cache_new(size_t entries, struct password_cache **out)
{
    struct password_cache *cache;
    size_t set_count = 1;

    if (entries > ENTRIES_MAX) {
        return -EINVAL;
    }
    while (set_count * WAYS < entries) {
        set_count *= 2;
    }
    cache = calloc(1, sizeof *cache + set_count * WAYS * sizeof cache->entries[0]);
    if (cache == NULL) {
        return -ENOMEM;
    }
    cache->keyed = new_keyed();
    if (cache->keyed == NULL) {
        free(cache);
        return -ENOMEM;
    }
    (void)pthread_mutex_init(&cache->lock, NULL);
    cache->set_count = set_count;
    *out = cache;
    return 0;
}

void password_cache_free(struct password_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    EVP_MAC_CTX_free(cache->keyed);
    for (size_t i = 0; i < SPARES; i++) {
        EVP_MAC_CTX_free(cache->spares[i]);
    }
    (void)pthread_mutex_destroy(&cache->lock);
    OPENSSL_cleanse(cache->entries, cache->set_count * WAYS * sizeof cache->entries[0]);
    free(cache);
}

/* NULL without memory. */
static EVP_MAC_CTX *take_keyed(struct password_cache *cache)
{
    for (size_t i = 0; i < SPARES; i++) {
        EVP_MAC_CTX *mac = atomic_exchange_explicit(&cache->spares[i], NULL, memory_order_acquire);

        if (mac != NULL) {
            return mac;
        }
    }
    return EVP_MAC_CTX_dup(cache->keyed);
}

/* Without a key EVP_MAC_init() begins anew under the one that it has; nothing of the message is left. */
static void give_keyed(struct password_cache *cache, EVP_MAC_CTX *mac)
{
    bool is_good = EVP_MAC_init(mac, NULL, 0, NULL) == 1;

    for (size_t i = 0; is_good && i < SPARES; i++) {
        EVP_MAC_CTX *none = NULL;

        if (atomic_compare_exchange_strong_explicit(&cache->spares[i], &none, mac, memory_order_release,
                                                    memory_order_relaxed)) {
            return;
        }
    }
    EVP_MAC_CTX_free(mac);
}

static bool update(EVP_MAC_CTX *mac, const void *bytes, size_t len)
{
    return EVP_MAC_update(mac, bytes, len) == 1;
}

/* Each part but the last stands behind its length, so that no two messages are the same. */
static bool update_all(EVP_MAC_CTX *mac, const char *hash, const struct socks6_credentials *credentials)
{
    struct socks6_slice name = credentials->username, password = credentials->password;
    size_t hash_len = strlen(hash);
    const uint8_t head[3] = {(uint8_t)(hash_len >> 8), (uint8_t)hash_len, (uint8_t)name.len};
    uint8_t message[MESSAGE_LEN], *end = message;

    assert(hash_len <= UINT16_MAX && name.len <= SOCKS6_USERNAME_MAX);
    if (sizeof head + hash_len + name.len > sizeof message) { /* no hash that is known is as long */
        return update(mac, head, sizeof head) && update(mac, hash, hash_len) && update(mac, name.data, name.len) &&
               update(mac, password.data, password.len);
    }
    end = (uint8_t *)mempcpy(end, head, sizeof head);
    end = (uint8_t *)mempcpy(end, hash, hash_len);
    if (name.len > 0) {
        end = (uint8_t *)mempcpy(end, name.data, name.len);
    }
    return update(mac, message, (size_t)(end - message)) && update(mac, password.data, password.len);
}

int password_cache_tag(struct password_cache *cache, const char *hash, const struct socks6_credentials *credentials,
                       struct password_tag *out)
{
    EVP_MAC_CTX *mac = take_keyed(cache);
    struct password_tag tag = {{0}};
    size_t len = 0;

    if (mac == NULL) {
        return -ENOMEM;
    }
    if (!update_all(mac, hash, credentials) || EVP_MAC_final(mac, tag.bytes, &len, sizeof tag.bytes) != 1 ||
        len != sizeof tag.bytes) {
        EVP_MAC_CTX_free(mac);
        return -ENOMEM;
    }
    give_keyed(cache, mac);
    *out = tag;
    return 0;
}

/* Four words without a branch, which CRYPTO_memcmp() would look at byte by byte. */
bool password_tag_is_same(const struct password_tag *a, const struct password_tag *b)
{
    uint64_t words_a[PASSWORD_TAG_LEN / sizeof(uint64_t)], words_b[PASSWORD_TAG_LEN / sizeof(uint64_t)];
    uint64_t difference = 0;

    memcpy(words_a, a->bytes, sizeof words_a);
    memcpy(words_b, b->bytes, sizeof words_b);
    for (size_t i = 0; i < sizeof words_a / sizeof words_a[0]; i++) {
        difference |= words_a[i] ^ words_b[i];
    }
    return difference == 0;
}

static struct entry *set_of(struct password_cache *cache, const struct password_tag *tag)
{
    uint32_t number;

    memcpy(&number, tag->bytes, sizeof number);
    return &cache->entries[(number & (cache->set_count - 1)) * WAYS];
}

bool password_cache_has(struct password_cache *cache, const struct password_tag *tag, uint64_t now_ms)
{
    const struct entry *set = set_of(cache, tag);
    bool found = false;

    (void)pthread_mutex_lock(&cache->lock);
    for (unsigned i = 0; i < WAYS; i++) {
        bool is_same = password_tag_is_same(&set[i].tag, tag);

        found |= is_same && now_ms < set[i].until_ms;
    }
    (void)pthread_mutex_unlock(&cache->lock);
    return found;
}

void password_cache_add(struct password_cache *cache, const struct password_tag *tag, uint64_t until_ms)
{
    struct entry *set = set_of(cache, tag), *place = &set[0];

    (void)pthread_mutex_lock(&cache->lock);
    for (unsigned i = 0; i < WAYS; i++) {
        if (password_tag_is_same(&set[i].tag, tag)) {
            place = &set[i];
            break;
        }
        if (set[i].until_ms < place->until_ms) {
            place = &set[i];
        }
    }
    *place = (struct entry){.tag = *tag, .until_ms = until_ms};
    (void)pthread_mutex_unlock(&cache->lock);
}
