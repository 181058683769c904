/*
 * connect(2) through the helper, for the other hooks that connect: sendto(2) with MSG_FASTOPEN, and those that put a descriptor
 * back to where it was before connect().
 */
#ifndef PRELOAD_CONNECT_H
#define PRELOAD_CONNECT_H

#include <stdbool.h>
#include <sys/socket.h>

#include <socks6/types.h>

#include "preload/slots.h"

/* As connect(2): 0, or -1 and errno. `dont_wait`: as on a non-blocking socket, as far as the helper connects it. */
SOCKS6_MUST_CHECK int connect_any(int fd, const struct sockaddr *addr, socklen_t len, bool dont_wait);

/* The kernel's connect(2). */
SOCKS6_MUST_CHECK int connect_real(int fd, const struct sockaddr *addr, socklen_t len);

/* A stream becomes an unconnected TCP socket with the same options again. 0 or -errno. */
SOCKS6_MUST_CHECK int connect_dissolve(int fd, const struct slot *slot);

#endif
