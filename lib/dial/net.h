/*
 * The few system calls of dialing, with their traps dealt with once: EINTR, SIGPIPE, close-on-exec, connections of a
 * socket to itself. All on non-blocking sockets. Called by dial.c only.
 */
#ifndef S6_DIAL_NET_H
#define S6_DIAL_NET_H

#include <netinet/in.h>
#include <socks6/types.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Where to connect. */
struct s6_target {
    struct sockaddr_storage addr;
    socklen_t len;
};

/* From an IP address. Returns 0 for a name. */
int s6_target_from_addr(const struct socks6_addr *addr, struct s6_target *out);
/* The same backwards. */
struct socks6_addr s6_target_addr(const struct s6_target *target);

/* Milliseconds of a clock that never goes back. */
uint64_t s6_now_ms(void);

/*
 * Starts to connect: a descriptor in `*fd`, non-blocking, close-on-exec, TCP_NODELAY. 0 = connected, -EINPROGRESS = wait until
 * it is writable and ask s6_net_connected(), else -errno and no descriptor.
 */
SOCKS6_MUST_CHECK int s6_net_connect(const struct s6_target *target, int *fd);
/*
 * The same with TCP Fast Open. 0 = the kernel has a cookie: nothing has left, and the first s6_net_send() makes the SYN, which
 * takes as much as fits into s6_net_syn_room(). That returns how much of it the SYN took, or -EINPROGRESS for nothing.
 */
SOCKS6_MUST_CHECK int s6_net_connect_fast(const struct s6_target *target, int *fd);
/* How many bytes fit into a SYN on the way to the target; 0 if that is not known. */
size_t s6_net_syn_room(int fd, const struct s6_target *target);
/* 1 if the peer has acknowledged data of the SYN. */
int s6_net_syn_data_counted(int fd);
/* 1 if it is there without waiting, as on loopback, where connect(2) says -EINPROGRESS all the same; else s6_net_connected() tells. */
int s6_net_connected_already(int fd);
/* 0 = connected, -EINPROGRESS = not yet, else -errno: this attempt has failed. */
SOCKS6_MUST_CHECK int s6_net_connected(int fd);

/* Both parts in one segment if they fit. Bytes sent, or -errno (-EAGAIN = the socket is full). Never raises SIGPIPE. */
SOCKS6_MUST_CHECK ssize_t s6_net_send(int fd, struct socks6_slice first, struct socks6_slice second);

/* Takes what is there: bytes, 0 at the end of the stream, or -errno. */
SOCKS6_MUST_CHECK ssize_t s6_net_receive(int fd, uint8_t *buf, size_t size);

/* Looks at what is there without taking it: bytes, 0 at the end of the stream, or -errno. */
SOCKS6_MUST_CHECK ssize_t s6_net_peek(int fd, uint8_t *buf, size_t size);
/* Takes `len` bytes that were seen by s6_net_peek(). 0 or -errno. */
SOCKS6_MUST_CHECK int s6_net_discard(int fd, size_t len);

/* Makes the descriptor blocking. 0 or -errno. */
SOCKS6_MUST_CHECK int s6_net_set_blocking(int fd);

#endif
