/*
 * Addresses as the preloaded library says them, and as the rest of us knows them; and reply codes as connect(2) would say them.
 * Used by run_*.c.
 */
#ifndef CLI_RUN_ADDR_H
#define CLI_RUN_ADDR_H

#include <stdbool.h>

#include <socks6/dial.h>

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

/* The errno with which connect(2) fails where no proxy is between: for enum socks6_dial_status other than OK. */
int run_addr_errno(int status, const struct socks6_dial_result *result);

#endif
