/*
 * How many connections there are: in total and per client address. Shared by all workers.
 */
#ifndef PROXYD_LIMITS_H
#define PROXYD_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

struct limits;

enum limits_verdict { LIMITS_OK, LIMITS_CLIENT_FULL, LIMITS_TOTAL_FULL, LIMITS_NO_MEMORY };

/* 0 or -errno. */
SOCKS6_MUST_CHECK int limits_new(struct limits **out);
/* Takes NULL. */
void limits_free(struct limits *limits);

/*
 * Counts a connection of `client` (IPv6 addresses count by /64) unless that would go over `total_max` or
 * `per_client_max` (0 = no limit). With OK it must be given back by limits_release() with the same address.
 * Thread-safe.
 */
SOCKS6_MUST_CHECK enum limits_verdict limits_acquire(struct limits *limits, const struct socks6_addr *client,
                                                     uint32_t total_max, uint32_t per_client_max);
void limits_release(struct limits *limits, const struct socks6_addr *client);

uint32_t limits_total(const struct limits *limits);

#endif
