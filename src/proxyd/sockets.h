/*
 * The listening sockets of a configuration: one per listener and worker, SO_REUSEPORT among ourselves, exclusive towards others.
 *
 * A second daemon that shared the port by SO_REUSEPORT would silently take half of the clients, so the first socket of an address is
 * bound without it.
 */
#ifndef PROXYD_SOCKETS_H
#define PROXYD_SOCKETS_H

#include "proxyd/config.h"

struct sockets;

/*
 * Opens what `config` listens on and `old` (NULL at the start) did not. All or nothing: 0, or -errno and a sentence in `why`.
 */
SOCKS6_MUST_CHECK int sockets_open(const struct config *config, const struct config *old, unsigned workers,
                                   struct sockets **out, char *why, size_t why_size);
/* Descriptors for one worker, one per listener of the configuration; -1 where `old` had it. */
const int *sockets_of(const struct sockets *sockets, unsigned worker);
/* Where the listener really listens, whose configured port may be 0. False: it is open from `old`, or was left out. */
bool sockets_address(const struct sockets *sockets, size_t listener, struct socks6_addr *out);
/* The worker has taken them. */
void sockets_taken(struct sockets *sockets, unsigned worker);
/* Closes what nobody took. */
void sockets_free(struct sockets *sockets);

#endif
