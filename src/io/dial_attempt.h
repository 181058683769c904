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
 */
SOCKS6_MUST_CHECK int dial_attempt_open(const struct destination *to, const struct socks6_addr *source, int *fd);

/*
 * What became of it, once the socket is ready or was connected at once: 0 and our end, with all options of a connection
 * set; or why not, an errno or DIALER_TTL_EXPIRED, positive.
 */
SOCKS6_MUST_CHECK int dial_attempt_finish(int fd, const struct destination *to, struct socks6_addr *local);

/* Errors of our own, no descriptor and no memory, which no other address would cure. */
bool dial_attempt_is_fatal(int error);

#endif
