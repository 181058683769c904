/*
 * An outgoing TCP connection: a list of addresses, tried one after the other, to one connected descriptor or one
 * errno. (Racing them, RFC 8305, will live here too.)
 *
 * Every attempt gets a fair share of what is left of the time, so that a dead first address does not eat the time of a
 * live second one.
 */
#ifndef IO_DIALER_H
#define IO_DIALER_H

#include "io/loop.h"

struct dialer;

/*
 * The result's error when an ICMP "time exceeded" ended the attempt: the kernel says EHOSTUNREACH, the error queue
 * tells them apart.
 */
#define DIALER_TTL_EXPIRED 10001

#define DIALER_ADDRESSES_MAX 256

/*
 * Our own end of outgoing connections. A family without an address is left to the kernel. Used in turn; one that cannot
 * be had (it is not on this host, or all its ports towards the destination are taken: EADDRNOTAVAIL) is followed by the
 * next before the attempt counts as failed.
 */
struct dialer_sources {
    const struct socks6_addr *ipv4; /* ports are ignored */
    size_t ipv4_count;
    const struct socks6_addr *ipv6;
    size_t ipv6_count;
};

struct dialer_config {
    uint64_t timeout_ms;                  /* bounds the whole */
    const struct dialer_sources *sources; /* NULL = the kernel chooses; borrowed until the dialer is gone */
    unsigned *turn; /* the next source's place, counted up with each use; NULL = 0; as `sources` */
};

struct dialer_result {
    int fd;                   /* connected, non-blocking, options set, not registered with the loop; -1 = failed */
    int error;                /* 0; or the errno (or DIALER_TTL_EXPIRED) that says most of all attempts: see dialer.c */
    struct socks6_addr peer;  /* address connected to; or the last one tried; type 0 if none was tried */
    struct socks6_addr local; /* our end, if connected */
    unsigned attempts;
    /*
     * How often an attempt found no local address or no free port (EADDRNOTAVAIL), and the last source that was so: type
     * 0 if it was for the kernel to choose.
     */
    unsigned unavailable_count;
    struct socks6_addr unavailable;
};

/* Called exactly once unless cancelled, never from within dialer_start(). The dialer is gone when it is called. */
typedef void dialer_done(void *user, const struct dialer_result *result);

/*
 * Starts. `addrs` (IPv4/IPv6 with ports; copied; an IPv4-mapped address means the IPv4 one) are tried in their order.
 * 0 or -errno (ENOMEM; EINVAL for no address, too many, or a name): then `done` is not
 * called.
 */
SOCKS6_MUST_CHECK int dialer_start(struct loop *loop, const struct dialer_config *config,
                                   const struct socks6_addr *addrs, size_t count, dialer_done *done, void *user,
                                   struct dialer **out);
/* Stops and frees; `done` will not be called. Takes NULL. */
void dialer_cancel(struct dialer *dialer);

#endif
