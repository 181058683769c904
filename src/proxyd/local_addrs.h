/*
 * The addresses of this host's interfaces, followed by rtnetlink(7). One for the whole daemon; look-ups from any thread
 * take no lock that a slow reader could hold.
 */
#ifndef PROXYD_LOCAL_ADDRS_H
#define PROXYD_LOCAL_ADDRS_H

#include <stdbool.h>

#include "io/loop.h"

struct local_addrs;

/* Reads the addresses now and follows their changes on `loop`. 0 or -errno. */
SOCKS6_MUST_CHECK int local_addrs_new(struct loop *loop, struct local_addrs **out);
/* Takes NULL. No look-up may be running. */
void local_addrs_free(struct local_addrs *local);

/* `addr` is IPv4 or IPv6. Loopback addresses are not counted as interface addresses beyond those really configured. */
bool local_addrs_has(const struct local_addrs *local, const struct socks6_addr *addr);

#endif
