/*
 * Who counts as one client where clients are counted: an IPv4 address, or the /64 of an IPv6 address, which is what one
 * host can choose its addresses from.
 */
#ifndef PROXYD_CLIENT_KEY_H
#define PROXYD_CLIENT_KEY_H

#include <socks6/types.h>

#include "io/siphash.h"

struct client_key {
    uint64_t prefix;
    uint32_t family; /* 4 or 6 */
};

/* `client`: IPv4 or IPv6; an IPv4-mapped address counts as the IPv4 address that it is. */
struct client_key client_key_of(const struct socks6_addr *client);
uint64_t client_key_hash(const struct siphash_key *key, const struct client_key *client);

#endif
