/*
 * The cache's contents in memory, and their form in the file. Pure: bytes in, bytes out.
 */
#ifndef CLI_CACHE_FORMAT_H
#define CLI_CACHE_FORMAT_H

#include <stdbool.h>

#include <socks6/session.h>

#include "io/siphash.h"

#define CACHE_ENTRIES_MAX 32u
#define CACHE_TICKETS_MAX 4u
#define CACHE_KEY_MAX 4096u
/* No file is longer. Entries that were not used for longest make room. */
#define CACHE_FILE_MAX ((size_t)512 * 1024)

struct cache_ticket {
    uint64_t expires_s; /* seconds since 1970 */
    const uint8_t *data;
    size_t len;
};

/* Of one proxy, as one user. Bytes are borrowed from the file's text, or from whoever put them in. */
struct cache_entry {
    const uint8_t *key;
    size_t key_len;
    uint64_t used_s;         /* seconds since 1970 */
    uint16_t password_check; /* a few bits of a keyed hash of the password */
    struct socks6_session session;
    struct cache_ticket tickets[CACHE_TICKETS_MAX]; /* oldest first */
    size_t ticket_count;
};

struct cache_content {
    struct siphash_key salt;                       /* random, of this file */
    struct cache_entry entries[CACHE_ENTRIES_MAX]; /* the last used one first */
    size_t entry_count;
};

/* False, and no entries, for anything but a whole and valid file. `bytes` must live as long as the content. */
bool cache_decode(const uint8_t *bytes, size_t len, struct cache_content *out);
/*
 * Writes the entries, without those at the end that do not fit into `size` (at least CACHE_FILE_MAX holds any one). The
 * length.
 */
size_t cache_encode(const struct cache_content *content, uint8_t *out, size_t size);

#endif
