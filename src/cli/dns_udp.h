/*
 * DNS over UDP. Answers go out from the address that was asked, whatever the socket is bound to.
 */
#ifndef CLI_DNS_UDP_H
#define CLI_DNS_UDP_H

#include "cli/dns_local.h"

struct dns_udp {
    struct dns_local *server;
    struct loop_io io;
    bool is_ipv6;
    void *user; /* the caller's */
};

/* Binds a socket and serves it. 0 or -errno. */
SOCKS6_MUST_CHECK int dns_udp_open(struct dns_udp *udp, struct dns_local *server, const struct socks6_addr *addr);
void dns_udp_close(struct dns_udp *udp);

/* The longest answer to a client that can take `wanted` bytes. */
size_t dns_udp_limit(const struct dns_origin *origin, size_t wanted);
void dns_udp_answer(const struct dns_origin *origin, const uint8_t *message, size_t len);

#endif
