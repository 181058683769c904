/*
 * One outgoing TCP connection attempt: the socket, from its creation to its outcome. Used by the dialer alone, which
 * decides on which are made and when.
 */
#ifndef IO_DIAL_ATTEMPT_H
#define IO_DIAL_ATTEMPT_H

#include <stdbool.h>

#include "io/destination_order.h"

/*
 * Opens a socket from `source` (NULL: the kernel's choice) to `to`. 1 if connected, 0 if on its way, or a negative
 * errno; `*fd` is set in the first two cases.
 *
 * With `payload_len` > 0 the connection is made by TCP Fast Open. `*taken` bytes of the payload are the kernel's then: they
 * have left with the SYN, and come to the peer once if the connection does. It is 0 while there is no cookie of the peer's:
 * the SYN has asked for one.
 */
SOCKS6_MUST_CHECK int dial_attempt_open(const struct destination *to, const struct socks6_addr *source,
                                        const uint8_t *payload, size_t payload_len, int *fd, size_t *taken);

/*
 * Why the attempt has failed, for an event without EPOLLOUT: an errno or DIALER_TTL_EXPIRED, positive; 0 = it is still on its way.
 */
SOCKS6_MUST_CHECK int dial_attempt_error(int fd);

/*
 * What became of it, once the socket is writable or was connected at once: 0 and our end, with all options of a connection
 * set; or why not, an errno or DIALER_TTL_EXPIRED, positive.
 */
SOCKS6_MUST_CHECK int dial_attempt_finish(int fd, const struct destination *to, struct socks6_addr *local);

/*
 * Whether the attempt that ended with ECONNREFUSED was ended by the peer's reset, and not by an ICMP message. Only before
 * the next dial_attempt_...() call for this socket.
 */
bool dial_attempt_was_reset(int fd);

/* Errors of our own, no descriptor and no memory, which no other address would cure. */
bool dial_attempt_is_fatal(int error);

#endif
