/*
 * An outgoing TCP connection: the addresses of a destination to one connected descriptor or one errno.
 *
 * Addresses are tried one after the other or raced (Happy Eyeballs, RFC 8305); both ways are described in
 * happy_eyeballs.h. They may be known from the start, or come while the dialling is under way, one family at a time.
 */
#ifndef IO_DIALER_H
#define IO_DIALER_H

#include "io/happy_eyeballs.h"
#include "io/loop.h"

struct dialer;

/*
 * The result's error when an ICMP "time exceeded" ended the attempt: the kernel says EHOSTUNREACH, the error queue
 * tells them apart.
 */
#define DIALER_TTL_EXPIRED 10001
/* Both families have answered, and there was no address at all. */
#define DIALER_NO_ADDRESS 10002

/* Addresses that are tried; with dialer_add() half of them for each family. Those beyond are ignored. */
#define DIALER_ADDRESSES_MAX 64

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

/*
 * What may travel in a SYN (TCP Fast Open), asked for when an attempt stands alone (happy_eyeballs.h), at the most once at a
 * time. The bytes need to be valid during the call of dialer_...() or of the loop that asks. None: the attempt is an
 * ordinary one.
 */
typedef struct socks6_slice dialer_payload(void *user);

struct dialer_config {
    struct happy_eyeballs_config eyeballs; /* zeroed: one after the other, IPv6 first */
    const struct socks6_addr *remembered; /* race: an address that won not long ago, tried first; may be NULL; copied */
    uint64_t timeout_ms;                  /* bounds the whole, the wait for addresses included */
    const struct dialer_sources *sources; /* NULL = the kernel chooses; borrowed until the dialer is gone */
    dialer_payload *payload;              /* NULL: no Fast Open; with the user pointer of `done` */
    unsigned *turn; /* the next source's place, counted up with each use; NULL = 0; as `sources` */
};

struct dialer_result {
    int fd;                   /* connected, non-blocking, sock_set_dialling_options() made; -1 = failed */
    bool is_parked;           /* fd: registered with the loop still, see loop_park(); else not registered */
    int error;                /* 0; or the errno (or DIALER_...) that says most of all attempts: see dialer.c */
    struct socks6_addr peer;  /* address connected to; or the last one tried; type 0 if none was tried */
    struct socks6_addr local; /* our end, if connected */
    unsigned attempts;
    size_t payload_taken; /* of the payload, from its beginning: the connection has it, do not send it again */
    bool payload_in_syn;  /* the peer took it with the SYN, as the kernel says */
    /*
     * How often an attempt found no local address or no free port (EADDRNOTAVAIL), and the last source that was so: type
     * 0 if it was for the kernel to choose.
     */
    unsigned unavailable_count;
    struct socks6_addr unavailable;
};

/*
 * Called exactly once unless cancelled, never from within dialer_start() and the like. The dialer is gone when it is
 * called.
 */
typedef void dialer_done(void *user, const struct dialer_result *result);

/*
 * Starts with all addresses: `addrs` are IPv4 or IPv6 with ports; copied; an IPv4-mapped address means the IPv4 one.
 * 0 or -errno (ENOMEM; EINVAL for no address, too many, or a name): then `done` is not called.
 */
SOCKS6_MUST_CHECK int dialer_start(struct loop *loop, const struct dialer_config *config,
                                   const struct socks6_addr *addrs, size_t count, dialer_done *done, void *user,
                                   struct dialer **out);
/* Starts without any: dialer_add() and dialer_add_end() bring them. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int dialer_open(struct loop *loop, const struct dialer_config *config, dialer_done *done, void *user,
                                  struct dialer **out);
/*
 * An address of the name, and from where to reach it, borrowed until the dialer is gone (NULL: as the configuration
 * says); then, once per family, that there are no more of it (or that it could not be asked for). Not
 * after `done`. Attempts begin at the end of the loop's batch, so that both families may be added one after the other.
 */
void dialer_add(struct dialer *dialer, const struct socks6_addr *addr, const struct dialer_sources *sources);
void dialer_add_end(struct dialer *dialer, enum socks6_addr_type family);
/* Stops and frees; `done` will not be called. Takes NULL. */
void dialer_cancel(struct dialer *dialer);

#endif
