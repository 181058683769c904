/*
 * Puts a socket in the place of another one, for the program to go on with.
 */
#ifndef PRELOAD_ADOPT_H
#define PRELOAD_ADOPT_H

#include <socks6/types.h>

#include "preload/slots.h"

/*
 * `socket` takes the place of what is at `fd` and at its duplicates, with flags, timeouts and epoll registrations, and
 * `slot` is what is known of it (its cookie is filled in). Closes `socket` in any case. 0 or -errno; safe in signal handlers.
 */
SOCKS6_MUST_CHECK int adopt(int socket, int fd, struct slot *slot);

#endif
