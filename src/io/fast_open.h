/*
 * TCP Fast Open (RFC 7413) as the kernel has it: what the host allows, listeners that take data in a SYN, and how far the
 * handshake of a connection has got.
 *
 * A socket that was accepted on the strength of a cookie is readable and writable at once, in the state SYN_RECV. A SYN
 * can be repeated by anybody who has seen it; only the ACK that ends the handshake proves that the client is there now.
 * It wakes whoever waits for the socket, which epoll, edge-triggered, reports as an event with nothing new in it.
 */
#ifndef IO_FAST_OPEN_H
#define IO_FAST_OPEN_H

#include <stdbool.h>

#include <socks6/types.h>

/* Bits of net.ipv4.tcp_fastopen, which holds for IPv6 as well. */
#define FAST_OPEN_CLIENT 1u
#define FAST_OPEN_SERVER 2u

/* That setting, in this network namespace. 0 or -errno. */
SOCKS6_MUST_CHECK int fast_open_setting(unsigned *out);

/*
 * How many connections of a listening socket may be open without an acknowledged handshake; further ones do without Fast
 * Open. 0 turns it off, also where the host turns it on for everybody. 0 or -errno.
 */
SOCKS6_MUST_CHECK int fast_open_listen(int fd, unsigned queue_len);

enum fast_open_state {
    FAST_OPEN_PENDING, /* the handshake goes on */
    FAST_OPEN_DONE,    /* it is over, or there was none to wait for */
    FAST_OPEN_GONE     /* the connection was reset */
};

/* Of a connected socket. `*in_syn`: whether data that travelled in the SYN was taken, by us or, if we dialled, by the peer. */
enum fast_open_state fast_open_look(int fd, bool *in_syn);

#endif
