/*
 * What the kernel would do with packets to an address, asked of a UDP socket that sends none. Safe in signal handlers.
 */
#ifndef PRELOAD_ROUTE_H
#define PRELOAD_ROUTE_H

#include <socks6/types.h>

#include "run/protocol.h"

/* A UDP socket that is connected to `peer`, for the caller to close; or -errno: there is no route. */
SOCKS6_MUST_CHECK int route_open(const struct run_addr *peer);

#endif
