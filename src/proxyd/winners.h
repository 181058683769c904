/*
 * The address that won the last race for a name and port, so that the next one begins with it ("history" of RFC 8305
 * section 4). One table for all workers, of a fixed size.
 *
 * Names are kept as hashes. A hit that is not the name's changes no more than the order of the name's own addresses,
 * since the winner only counts where it is among those that were resolved and allowed this time.
 */
#ifndef PROXYD_WINNERS_H
#define PROXYD_WINNERS_H

#include <stdbool.h>

#include <socks6/types.h>

struct winners;

/* 0 or -errno. */
SOCKS6_MUST_CHECK int winners_new(struct winners **out);
/* Takes NULL. */
void winners_free(struct winners *winners);

/* Any thread. `now_ms`: CLOCK_MONOTONIC. False: none is known, or its time is over. */
bool winners_find(struct winners *winners, const struct socks6_addr *name, uint64_t now_ms, struct socks6_addr *out);
/*
 * `winner` has won for `name`. It is remembered for `lifetime_ms` (0 = not) from the time when it first won, however
 * often it wins in between because it was remembered: then a race without it decides again.
 */
void winners_put(struct winners *winners, const struct socks6_addr *name, const struct socks6_addr *winner,
                 uint64_t now_ms, uint64_t lifetime_ms);
void winners_forget(struct winners *winners, const struct socks6_addr *name);

#endif
