/*
 * The names of users as the connections of one worker hold them: one copy for each name, counted, so that a connection
 * that knows its user costs a pointer, and all connections of a user can be told by it. One thread.
 */
#ifndef PROXYD_IDENTITY_H
#define PROXYD_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

#include "io/siphash.h"

struct identity {
    struct identity *chain; /* next in its bucket */
    uint32_t references;
    bool is_gone; /* while those who are gone are looked for: see worker.c */
    uint8_t len;
    char name[]; /* ends in NUL */
};

struct identities {
    struct identity **buckets; /* NULL while there are none */
    uint32_t bucket_count;     /* a power of two */
    uint32_t count;
    struct siphash_key hash_key;
};

/* 0 or -errno. */
SOCKS6_MUST_CHECK int identities_init(struct identities *identities);
/* All must have been released. */
void identities_done(struct identities *identities);

/* The one of this name (1 .. 255 bytes), with a reference for the caller; NULL = no memory. */
SOCKS6_MUST_CHECK struct identity *identity_take(struct identities *identities, struct socks6_slice name);
/* The one of this name if anybody holds it, without a reference; else NULL. */
struct identity *identity_find(const struct identities *identities, struct socks6_slice name);
/* Sets `is_gone` of all of them. Whether there is any. */
bool identities_mark(struct identities *identities, bool is_gone);
/* Gives a reference back. Takes NULL. */
void identity_release(struct identities *identities, struct identity *identity);

#endif
