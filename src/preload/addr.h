/*
 * Socket addresses as programs give and expect them, and as the helper speaks of them. Pure.
 *
 * An IPv4 address in an IPv6 socket (::ffff:192.0.2.1) is AF_INET to the helper; a program with an IPv6 socket gets it back mapped.
 */
#ifndef PRELOAD_ADDR_H
#define PRELOAD_ADDR_H

#include <stdbool.h>
#include <sys/socket.h>

#include "run/protocol.h"

#define ADDR_DNS_PORT 53

/*
 * False, and `out` untouched, for another family and for lengths that the kernel refuses. `is_mapped` (may be NULL): it was
 * an IPv4 address in an IPv6 one.
 */
bool addr_parse(const void *addr, socklen_t len, struct run_addr *out, bool *is_mapped);

/* As a socket of `domain` shows it. What the domain cannot show (IPv6 in AF_INET) comes out as the wildcard with the port. */
socklen_t addr_show(const struct run_addr *addr, int domain, struct sockaddr_storage *out);

/* What getpeername(2) does with a result: cuts it to `*room`, and sets that to the whole length. 0 or -errno. */
int addr_give(const struct sockaddr_storage *from, socklen_t len, void *to, socklen_t *room);

bool addr_is_loopback(const struct run_addr *addr);
bool addr_is_wildcard(const struct run_addr *addr);
bool addr_is_multicast(const struct run_addr *addr);  /* or the broadcast address: TCP cannot get there */
bool addr_is_link_local(const struct run_addr *addr); /* IPv6: of no use without a scope */
bool addr_equal(const struct run_addr *a, const struct run_addr *b);

/* "192.0.2.1:80", "[2001:db8::1]:80" in `text`, which has ADDR_TEXT_LEN bytes. Returns `text`. */
#define ADDR_TEXT_LEN 64
const char *addr_text(const struct run_addr *addr, char *text);

#endif
