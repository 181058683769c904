/*
 * Names to addresses: what CONNECT by name asks.
 *
 * Numeric strings are their address. Names of the hosts file are what it says. `localhost` and what is below it are
 * loopback (RFC 6761 6.3), `.onion` and `.invalid` do not exist (RFC 7686, RFC 6761 6.4) and are asked nowhere;
 * everything else, `.local` too, is asked of the upstream servers. Names are absolute, with or without a final dot: no
 * search domain is ever added, since the name is the client's and the search list is this host's.
 */
#ifndef DNS_LOOKUP_H
#define DNS_LOOKUP_H

#include "dns/resolver.h"

struct dns_lookup;

/* Families to ask for; bits. */
#define DNS_LOOKUP_IPV4 1u
#define DNS_LOOKUP_IPV6 2u
#define DNS_LOOKUP_BOTH 3u

#define DNS_LOOKUP_ADDRESSES_MAX 64u /* per family; what is more is left out */

enum dns_lookup_status {
    DNS_LOOKUP_OK,
    DNS_LOOKUP_NO_ADDRESS, /* the name does not exist, or has no address of this family */
    DNS_LOOKUP_FAILED      /* nobody could tell: server failure, time-out, no memory */
};

struct dns_lookup_answer {
    int family; /* AF_INET or AF_INET6 */
    enum dns_lookup_status status;
    const char *why;                 /* for a log: static storage; "" if OK */
    const struct socks6_addr *addrs; /* in the answer's order, with the port asked for; borrowed for the call */
    size_t count;                    /* at least 1 if OK, else 0 */
};

/*
 * Called once per family that was asked for, in whichever order the answers come, on the asking loop, never from
 * within dns_lookup_start(). May cancel the look-up, and after the last family's call it is gone.
 */
typedef void dns_lookup_done(void *user, const struct dns_lookup_answer *answer);

/*
 * Asks for all `families` at once. `name` as it came in a request (1..255 bytes; what cannot be a host's name has no
 * address). Every family is answered in bounded time, whatever the servers do. 0 or -ENOMEM: then `done` is not called.
 */
SOCKS6_MUST_CHECK int dns_lookup_start(struct dns_client *client, const char *name, uint16_t port, unsigned families,
                                       dns_lookup_done *done, void *user, struct dns_lookup **out);
/* `done` will not be called any more. Takes NULL. */
void dns_lookup_cancel(struct dns_lookup *lookup);

#endif
