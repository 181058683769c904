/*
 * UDP: DNS of any server is asked of the helper, which stands on loopback for it; loopback is direct; nothing else is let
 * through. Where a program looks at addresses it sees those that it meant.
 */
#ifndef PRELOAD_UDP_DNS_H
#define PRELOAD_UDP_DNS_H

#include <stdbool.h>
#include <sys/socket.h>

#include <socks6/types.h>

#include "run/protocol.h"

/* connect(2) of a socket that is not TCP's: 0, or -1 and errno. */
SOCKS6_MUST_CHECK int udp_connect(int fd, const struct sockaddr *addr, socklen_t len);

enum udp_way {
    UDP_AS_IS,
    UDP_ELSEWHERE, /* to `to` instead */
    UDP_REFUSED    /* a note was made */
};

/* Where a datagram to `addr` goes. Not for sockets of TCP. */
enum udp_way udp_way(int fd, const void *addr, socklen_t len, struct sockaddr_storage *to, socklen_t *to_len);

/* A datagram from `from` is the helper's answer in the name of `out`. */
bool udp_original_source(const void *from, socklen_t len, struct run_addr *out);

/* The same for the peer of a connected socket, which may be older than this program. */
bool udp_original_peer(int fd, const void *peer, socklen_t len, struct run_addr *out);

#endif
