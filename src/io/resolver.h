/*
 * Names to addresses with the system's resolver (getaddrinfo(3)), which blocks: so in a small pool of threads behind a
 * bounded queue. One pool for the whole process; answers come back on the asking loop.
 */
#ifndef IO_RESOLVER_H
#define IO_RESOLVER_H

#include "io/loop.h"

struct resolver;
struct resolver_query;

enum resolver_status {
    RESOLVER_OK,
    RESOLVER_NO_ADDRESS, /* the name does not exist or has no address */
    RESOLVER_FAILED      /* the resolver could not tell: server failure, time-out, queue full, no memory */
};

#define RESOLVER_ADDRESSES_MAX 64

struct resolver_answer {
    enum resolver_status status;
    const char *why;                 /* for a log: static storage; "" if OK */
    const struct socks6_addr *addrs; /* in getaddrinfo's order (RFC 6724), no duplicates; borrowed for the call */
    size_t count;                    /* at most RESOLVER_ADDRESSES_MAX */
};

typedef void resolver_done(void *user, const struct resolver_answer *answer);

/* `threads` 1..64; `queue_max` names waiting. 0 or -errno. */
SOCKS6_MUST_CHECK int resolver_new(unsigned threads, size_t queue_max, struct resolver **out);
/*
 * Waits for running look-ups (all loops must have stopped; queries that wait or run are dropped and gone: cancel them
 * before, or not at all). Takes NULL. A loop may be freed before the resolver if all its queries were cancelled.
 */
void resolver_free(struct resolver *resolver);

/*
 * Asks. `name` as it came in a request (any bytes but NUL, 1..255): what getaddrinfo() cannot take fails as
 * NO_ADDRESS. `done` is called once on `loop`'s thread, never from within this call, unless cancelled. 0, -ENOMEM, or
 * -EAGAIN if the queue is full: then it is not called.
 */
SOCKS6_MUST_CHECK int resolver_ask(struct resolver *resolver, struct loop *loop, const char *name, uint16_t port,
                                   resolver_done *done, void *user, struct resolver_query **out);
/* The answer is not wanted any more: `done` will not be called. The look-up itself cannot be stopped. Takes NULL. */
void resolver_cancel(struct resolver_query *query);

#endif
