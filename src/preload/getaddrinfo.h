/*
 * getaddrinfo(3) in parts, for getaddrinfo_a(3) as well: what is asked, and the answer's list.
 */
#ifndef PRELOAD_GETADDRINFO_H
#define PRELOAD_GETADDRINFO_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

#include "preload/names.h"

/* The hints of a call that has none. */
extern const struct addrinfo getaddrinfo_no_hints;

/* True: libc answers by itself, without the network. */
bool getaddrinfo_is_local(const char *node, const struct addrinfo *hints);
/* Errors of all arguments but the name: 0 or an EAI_ code. */
SOCKS6_MUST_CHECK int getaddrinfo_check(const char *service, const struct addrinfo *hints);
/* names_ask() for these hints. */
SOCKS6_MUST_CHECK int getaddrinfo_ask(const char *node, const struct addrinfo *hints);
/* After names_await(): its status, or the list. */
SOCKS6_MUST_CHECK int getaddrinfo_finish(const char *node, const char *service, const struct addrinfo *hints,
                                         int status, const struct names_addresses *found, struct addrinfo **out);

#endif
