/*
 * Where a SOCKS 6 session may be used: only at the listener where it was born, over the same transport, with the same
 * ways to come in (store.h). This is the one place that says what such a realm is called.
 */
#ifndef PROXYD_REALM_H
#define PROXYD_REALM_H

#include <socks6/types.h>

#include "proxyd/store.h"

/*
 * "tcp 127.0.0.1:1080 password". `transport`: what carries the listener's streams, "tcp" where nothing protects them;
 * `address`: where it listens, so that a reload which leaves it open changes nothing; `methods`: enum
 * config_auth_method.
 */
void realm_write(char out[STORE_REALM_MAX + 1], const char *transport, const struct socks6_addr *address,
                 unsigned methods);

#endif
