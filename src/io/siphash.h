/*
 * SipHash-2-4 (Aumasson, Bernstein): a hash that strangers who do not know the key cannot make collide. For tables whose
 * keys come from the network.
 */
#ifndef IO_SIPHASH_H
#define IO_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
    uint64_t k0, k1; /* random */
};

/* `bytes` may be NULL if `len` is 0. */
uint64_t siphash(const struct siphash_key *key, const uint8_t *bytes, size_t len);

#endif
