/*
 * How many connections there are: in total and per client address. Shared by all workers.
 */
#ifndef PROXYD_LIMITS_H
#define PROXYD_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

struct limits;

enum limits_verdict { LIMITS_OK, LIMITS_CLIENT_FULL, LIMITS_NO_MEMORY };

/* 0 or -errno. */
SOCKS6_MUST_CHECK int limits_new(struct limits **out);
/* Takes NULL. */
void limits_free(struct limits *limits);

/*
 * Takes a place in the total, unless there are `total_max` (0 = no limit) already. Before accept(2), so that a connection that nobody may
 * have stays in the backlog, whichever worker is quicker. The place goes to limits_acquire(), or back by limits_unreserve().
 */
SOCKS6_MUST_CHECK bool limits_reserve(struct limits *limits, uint32_t total_max);
void limits_unreserve(struct limits *limits);

/*
 * Gives a reserved place to a connection of `client` (IPv6 addresses count by /64) unless it has `per_client_max` (0 = no limit) already. With OK the place
 * must be given back by limits_release() with the same address; else it is still the caller's.
 */
SOCKS6_MUST_CHECK enum limits_verdict limits_acquire(struct limits *limits, const struct socks6_addr *client,
                                                     uint32_t per_client_max);
void limits_release(struct limits *limits, const struct socks6_addr *client);

uint32_t limits_total(const struct limits *limits);

#endif
