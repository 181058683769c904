/*
 * Addresses as the preloaded library and the helper say them to each other, and as libsocks6 has them.
 */
#ifndef RUN_ADDR_H
#define RUN_ADDR_H

#include <stdbool.h>

#include <socks6/types.h>

#include "run/protocol.h"

/* IPv4 or IPv6; an IPv4-mapped address becomes the IPv4 address that it stands for. False for another family. */
bool run_addr_to_socks(const struct run_addr *addr, struct socks6_addr *out);

/*
 * The other way round, for a socket of `family`, AF_INET or AF_INET6, which sees IPv4 addresses as IPv4-mapped ones. False, and `out`
 * untouched, for a name or an address that such a socket cannot have.
 */
bool run_addr_from_socks(const struct socks6_addr *addr, uint16_t family, struct run_addr *out);

/* 0.0.0.0 or ::, without a look at the port. `addr` may be a name, which is none. */
bool run_addr_is_any(const struct socks6_addr *addr);

#endif
