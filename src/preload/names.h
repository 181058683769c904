/*
 * Questions about names, as all the functions of netdb.h put them to the helper. Results are EAI_ codes of getaddrinfo(3).
 */
#ifndef PRELOAD_NAMES_H
#define PRELOAD_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <socks6/types.h>

#include "run/protocol.h"

/* What is known of a name. Too large for the stack of a thread that takes little: it goes onto the heap. */
struct names_addresses {
    uint32_t count;
    struct run_addr addresses[RUN_ADDRESSES_MAX];
    uint32_t canon_len;
    char canon[RUN_NAME_MAX + 1]; /* "" = unknown; aliases of hosts(5) follow, a NUL behind each */
};

/* Asks: a connection on which the answer will come, or an EAI_ code. */
SOCKS6_MUST_CHECK int names_ask(const char *name, int family, uint32_t flags);
/* Waits for it, and closes the connection. 0, RUN_ASK_SYSTEM or an EAI_ code; `out` is complete only if 0. */
SOCKS6_MUST_CHECK int names_await(int fd, struct names_addresses *out);
/* Both. */
SOCKS6_MUST_CHECK int names_resolve(const char *name, int family, uint32_t flags, struct names_addresses *out);

/* The names of an address, a NUL behind each: their length; NAMES_ASK_SYSTEM; or an EAI_ code. */
#define NAMES_REVERSE_MAX 16384u
#define NAMES_ASK_SYSTEM (-1000)
SOCKS6_MUST_CHECK int names_reverse(const struct run_addr *addr, char *out, size_t size);

/* Is this text an address, in any of the forms that getaddrinfo(3) takes for one? Then this is it. */
bool names_numeric(const char *text, struct run_addr *out);

/* Tells the helper what the system's resolver has said: connections to it go their own way. */
void names_tell_direct(const struct run_addr *addr);

/* False: neither IPv4 nor IPv6. */
bool names_from_sockaddr(const struct sockaddr *addr, struct run_addr *out);

/* An IPv4 address in IPv6 form becomes one of IPv4, which has the names. */
void names_unmap(struct run_addr *addr);

/* An EAI_ code for -errno of talk_*(). */
int names_error(int negative);

#endif
