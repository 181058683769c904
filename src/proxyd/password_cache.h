/*
 * Passwords that were right a while ago, so that a client's next connection does not cost a hash made to be slow. Only a
 * keyed digest of name, hash and password is kept, under a key of this process. Thread-safe, of fixed size. Times are any
 * monotonic milliseconds.
 */
#ifndef PROXYD_PASSWORD_CACHE_H
#define PROXYD_PASSWORD_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

struct password_cache;

/* HMAC-SHA256. */
#define PASSWORD_TAG_LEN 32u

struct password_tag {
    uint8_t bytes[PASSWORD_TAG_LEN];
};

/* Room for about `entries` (rounded up). 0 or -errno. */
SOCKS6_MUST_CHECK int password_cache_new(size_t entries, struct password_cache **out);
/* Takes NULL. */
void password_cache_free(struct password_cache *cache);

/*
 * The tag of these credentials. `hash` is the user's: when it changes the tag does, so nothing need be cleared when a file
 * is read again. 0, or -ENOMEM.
 */
SOCKS6_MUST_CHECK int password_cache_tag(struct password_cache *cache, const char *hash,
                                         const struct socks6_credentials *credentials, struct password_tag *out);
/* Whether two tags are the same, in constant time. */
bool password_tag_is_same(const struct password_tag *a, const struct password_tag *b);

bool password_cache_has(struct password_cache *cache, const struct password_tag *tag, uint64_t now_ms);
void password_cache_add(struct password_cache *cache, const struct password_tag *tag, uint64_t until_ms);

#endif
