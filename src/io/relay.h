/*
 * Bytes between two connected TCP sockets until both directions are done. End A may be a TLS stream.
 *
 * Each direction ends by itself: the source's FIN is passed on as a half-close once everything before it was
 * delivered; a reset of one end resets the other. An idle relay owns no buffer and no pipe: bytes move through one
 * large buffer per loop, or through a pipe of a small pool while a stream is bulk (relay_internal.h says how that is
 * chosen), and only what the destination would not take stays behind (the residue). While it stays nothing more is
 * read from that source.
 *
 * The residue of a direction is at most RELAY_RESIDUE_MAX, since large reads are made only as far as the destination's
 * send buffer has room. (Two exceptions: `early` bytes handed in are kept as they are; and a kernel that is out of TCP
 * memory may refuse room that it reported, for one read.)
 *
 * Limits and resets cut both ends off with a reset, so that a stream cut short never looks complete. With TLS an end is
 * close_notify, both ways, and a TCP FIN without it is a stream cut short.
 *
 * A relay and what its owner remembers of it (the record) are one block of a slab, from the moment that the client is
 * accepted: the client's socket is registered once, edge-triggered, for everything, first for its owner and later for
 * the relay. Readiness is remembered per end, so no epoll_ctl happens while bytes move. A relay that keeps finding
 * bytes yields after a budget and is queued again (fairness).
 */
#ifndef IO_RELAY_H
#define IO_RELAY_H

#include <sys/epoll.h>

#include "io/loop.h"

struct relay;
struct relay_shared;
struct tls_stream;

#define RELAY_READ_MIN 65536u
#define RELAY_READ_MAX 1048576u
#define RELAY_RESIDUE_MAX (2 * RELAY_READ_MIN)

/* Pipes of one loop, in use or waiting; each has two descriptors, and room for RELAY_READ_MAX bytes. */
#define RELAY_PIPES_MAX 64u

enum relay_end {
    RELAY_DONE,            /* both directions ended with a FIN */
    RELAY_RESET,           /* an end was reset, cut short (ENODATA) or failed: see `error` and `side` */
    RELAY_IDLE,            /* nothing moved for idle_ms */
    RELAY_HALF_CLOSED_IDLE /* one direction had ended, to the last byte, and nothing moved for half_closed_ms */
};

enum relay_side { RELAY_A, RELAY_B };

struct relay_result {
    enum relay_end end;
    enum relay_side side; /* RELAY_RESET: which end failed */
    int error;            /* RELAY_RESET: its errno */
    uint64_t bytes[2];    /* delivered to the kernel of the other end: [RELAY_A] from A to B, [RELAY_B] from B to A */
};

/* Shared by many relays; must outlive them. */
struct relay_limits {
    uint64_t idle_ms;        /* 0 = no limit */
    uint64_t half_closed_ms; /* 0 = no limit */
};

struct relay_hooks {
    /*
     * A relay that was started has ended: once, never from within relay_start(). Its descriptors are closed; it and
     * its record are freed when this returns.
     */
    void (*done)(struct relay *relay, const struct relay_result *result);
    /* A bulk stream is copied although it was to be spliced: no pipe was to be had. May be NULL. */
    void (*no_pipe)(void *context);
    void *context;
};

/* What relays of one loop share: the read buffer, the pipes, the slab. `record_len` bytes go with each relay. 0 or -errno. */
SOCKS6_MUST_CHECK int relay_shared_new(struct loop *loop, size_t record_len, const struct relay_hooks *hooks,
                                       struct relay_shared **out);
/* All relays must be gone. Takes NULL. */
void relay_shared_free(struct relay_shared *shared);

/* Bytes of user memory for each relay, its record included. */
size_t relay_size(const struct relay_shared *shared);

/* A relay that is not started: a zeroed record, and the socket of A for its owner's use. NULL: no memory. */
struct relay *relay_new(struct relay_shared *shared);
/* One that was not started; its socket must have been closed or removed from the loop. Takes NULL. */
void relay_free(struct relay *relay);

void *relay_record(struct relay *relay);
/* Of its hooks. */
void *relay_context(const struct relay *relay);
/* The socket of A until the relay is started. Owners register it for RELAY_EVENTS. */
struct loop_io *relay_socket_a(struct relay *relay);
struct relay *relay_of_socket_a(struct loop_io *io);
/* The TLS stream over A's socket, from before the start on; the relay frees it when it ends itself. NULL = none. */
void relay_set_tls(struct relay *relay, struct tls_stream *tls);
struct tls_stream *relay_tls(const struct relay *relay);

#define RELAY_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

struct relay_start {
    int fd_b;                          /* non-blocking, connected; not registered, or parked */
    bool b_is_parked;                  /* see loop_park() */
    uint32_t events_a;                 /* what the loop has reported of A and was not used up */
    const struct relay_limits *limits; /* borrowed while the relay lives */
    bool may_splice;                   /* once a stream is bulk, splice(2) moves it, if there is a pipe; not with TLS */
    const uint8_t *early;              /* bytes read from A already, to be delivered first; borrowed for the call */
    size_t early_len;
    size_t early_taken; /* of `early`, from its beginning: B's connection has it already (dialer.h) */
};

/*
 * Starts. A's socket must be registered for RELAY_EVENTS. 0 or -errno: then both descriptors are closed, with a reset,
 * and the relay is freed. B is taken to be freshly dialled: the options that find dead peers are set on it if the
 * relay lives for a second.
 */
SOCKS6_MUST_CHECK int relay_start(struct relay *relay, const struct relay_start *start);
/* Instead of starting it: closes both descriptors, with a reset, and frees the relay, as a failing relay_start() does. */
void relay_refuse(struct relay *relay, int fd_b);
/* Ends it now: resets both ends and calls `done` with RELAY_RESET and error ECONNABORTED, before it returns. */
void relay_abort(struct relay *relay);

/*
 * One by one all relays that were started, or all that were not. NULL asks for the first, and is the answer after the
 * last. Ask for the next before ending one.
 */
struct relay *relay_next(struct relay_shared *shared, struct relay *relay, bool is_started);

#endif
