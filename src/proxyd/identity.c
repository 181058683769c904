/*
 * A chained hash table that grows with its names. Names come from the users file, or from clients whose password is not
 * known yet, so the hash is keyed.
 */
#include "proxyd/identity.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BUCKETS_MIN 16u

int identities_init(struct identities *identities)
{
    memset(identities, 0, sizeof *identities);
    if (getrandom(&identities->hash_key, sizeof identities->hash_key, 0) != (ssize_t)sizeof identities->hash_key) {
        return -errno;
    }
    return 0;
}

void identities_done(struct identities *identities)
{
    assert(identities->count == 0);
    free(identities->buckets);
    identities->buckets = NULL;
}

static struct identity **bucket_of(const struct identities *identities, struct socks6_slice name)
{
    return &identities->buckets[siphash(&identities->hash_key, name.data, name.len) & (identities->bucket_count - 1)];
}

static struct socks6_slice name_of(const struct identity *identity)
{
    return (struct socks6_slice){(const uint8_t *)identity->name, identity->len};
}

/* 0 or -ENOMEM, with the old table in place. */
static int resize(struct identities *identities, uint32_t bucket_count)
{
    struct identity **old = identities->buckets, **buckets = calloc(bucket_count, sizeof(struct identity *));
    uint32_t old_count = identities->bucket_count;

    if (buckets == NULL) {
        return -ENOMEM;
    }
    identities->buckets = buckets;
    identities->bucket_count = bucket_count;
    for (uint32_t i = 0; i < old_count; i++) {
        for (struct identity *identity = old[i], *next; identity != NULL; identity = next) {
            struct identity **bucket = bucket_of(identities, name_of(identity));

            next = identity->chain;
            identity->chain = *bucket;
            *bucket = identity;
        }
    }
    free(old);
    return 0;
}

struct identity *identity_find(const struct identities *identities, struct socks6_slice name)
{
    struct identity *identity = identities->bucket_count == 0 ? NULL : *bucket_of(identities, name);

    while (identity != NULL && (identity->len != name.len || memcmp(identity->name, name.data, name.len) != 0)) {
        identity = identity->chain;
    }
    return identity;
}

static struct identity *add(struct identities *identities, struct socks6_slice name)
{
    struct identity *identity = malloc(sizeof *identity + name.len + 1);
    struct identity **bucket;

    if (identity == NULL) {
        return NULL;
    }
    if (identities->count >= identities->bucket_count &&
        resize(identities, identities->bucket_count == 0 ? BUCKETS_MIN : identities->bucket_count * 2) != 0 &&
        identities->bucket_count == 0) {
        free(identity); /* a table that cannot grow is slow, and goes on */
        return NULL;
    }
    *identity = (struct identity){.references = 1, .len = (uint8_t)name.len};
    memcpy(identity->name, name.data, name.len);
    identity->name[name.len] = '\0';
    bucket = bucket_of(identities, name);
    identity->chain = *bucket;
    *bucket = identity;
    identities->count++;
    return identity;
}

struct identity *identity_take(struct identities *identities, struct socks6_slice name)
{
    struct identity *identity = identity_find(identities, name);

    assert(name.len > 0 && name.len <= SOCKS6_USERNAME_MAX);
    if (identity == NULL) {
        return add(identities, name);
    }
    identity->references++;
    return identity;
}

bool identities_mark(struct identities *identities, bool is_gone)
{
    for (uint32_t i = 0; i < identities->bucket_count; i++) {
        for (struct identity *identity = identities->buckets[i]; identity != NULL; identity = identity->chain) {
            identity->is_gone = is_gone;
        }
    }
    return identities->count > 0;
}

void identity_release(struct identities *identities, struct identity *identity)
{
    struct identity **place;

    if (identity == NULL || --identity->references > 0) {
        return;
    }
    place = bucket_of(identities, name_of(identity));
    while (*place != identity) {
        place = &(*place)->chain;
    }
    *place = identity->chain;
    identities->count--;
    free(identity);
    if (identities->count == 0 && identities->bucket_count > BUCKETS_MIN) {
        free(identities->buckets);
        identities->buckets = NULL;
        identities->bucket_count = 0;
    }
}
