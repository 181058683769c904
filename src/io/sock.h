/*
 * Sockets: conversions between struct socks6_addr and sockaddr, options every connection gets, and their quirks.
 */
#ifndef IO_SOCK_H
#define IO_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <socks6/types.h>

/* IPv4 or IPv6 only; false for a name. `*len` is the sockaddr's length. */
bool sock_from_addr(const struct socks6_addr *addr, struct sockaddr_storage *out, socklen_t *len);
/* AF_INET and AF_INET6 (an IPv4-mapped address becomes IPv4); false for another family. */
bool sock_to_addr(const struct sockaddr *sa, socklen_t len, struct socks6_addr *out);

/* 127.0.0.0/8 and ::1; `addr` is IPv4 or IPv6. */
bool sock_is_loopback(const struct socks6_addr *addr);

/* getsockname(2) and getpeername(2). 0 or -errno. */
SOCKS6_MUST_CHECK int sock_local(int fd, struct socks6_addr *out);
SOCKS6_MUST_CHECK int sock_peer(int fd, struct socks6_addr *out);

/*
 * Dead peers: keepalive after SOCK_KEEPALIVE_S of silence, and data unacknowledged for SOCK_USER_TIMEOUT_MS ends a
 * connection.
 */
#define SOCK_KEEPALIVE_S 60
#define SOCK_KEEPALIVE_INTERVAL_S 15
#define SOCK_KEEPALIVE_COUNT 4
#define SOCK_USER_TIMEOUT_MS 120000

/*
 * What every relayed connection gets on both legs: TCP_NODELAY, SO_OOBINLINE, SO_KEEPALIVE with the times above,
 * TCP_USER_TIMEOUT. Set on a listening socket they are inherited by the accepted ones. 0 or -errno.
 */
SOCKS6_MUST_CHECK int sock_set_connection_options(int fd);
/* The first part, which a socket needs before it connects: TCP_NODELAY, SO_OOBINLINE. 0 or -errno. */
SOCKS6_MUST_CHECK int sock_set_dialling_options(int fd);
/*
 * The other part, which finds dead peers. TCP_USER_TIMEOUT would bound a connection attempt too (the dialer has its
 * own limits); and a connection that lives for less than a second needs none of it.
 */
void sock_set_liveness_options(int fd);

/*
 * Whether the peer has closed its receive window while we have data for it. TCP_USER_TIMEOUT would kill such a
 * connection although the peer lives and answers probes (tcp(7), RFC 1122 4.2.2.17): whoever keeps a quiet connection
 * asks this and calls sock_set_user_timeout(fd, 0) as long as it holds.
 */
bool sock_peer_window_is_closed(int fd);
void sock_set_user_timeout(int fd, unsigned ms);

/* Bytes sent that the peer has not acknowledged yet; our FIN counts as one. 0 for a socket that is not connected. */
uint32_t sock_unacked(int fd);

/* About how many bytes send(2) would take now: what the send buffer has free. 0 if unknown. */
size_t sock_send_room(int fd);

/* Fetches and clears the socket's pending error: 0 or an errno (positive). */
int sock_error(int fd);

/*
 * A listening, non-blocking socket on `addr` (port 0 = any). With `exclusive` the address must be free: the bind is
 * made without SO_REUSEPORT, which is set afterwards so that further sockets of this process can join (`exclusive`
 * false). IPv6 sockets are IPV6_V6ONLY. Connection options are set. The descriptor, or -errno.
 */
SOCKS6_MUST_CHECK int sock_listen(const struct socks6_addr *addr, int backlog, bool exclusive);

/* Whether connections can come from `addr` (its port is ignored) now: 0 or -errno, EADDRNOTAVAIL above all. */
SOCKS6_MUST_CHECK int sock_try_bind(const struct socks6_addr *addr);

/* Makes close(2) send a reset instead of a FIN. */
void sock_reset_on_close(int fd);

#endif
