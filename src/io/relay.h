/*
 * Bytes between two connected TCP sockets until both directions are done.
 *
 * Each direction ends by itself: the source's FIN is passed on as a half-close once everything before it was
 * delivered; a reset of one end resets the other. An idle relay owns no buffer: bytes move through one large buffer
 * per loop (relay_shared), and only what the destination would not take stays behind (the residue). While it stays
 * nothing more is read from that source.
 *
 * The residue of a direction is at most RELAY_RESIDUE_MAX, since large reads are made only as far as the destination's
 * send buffer has room. (Two exceptions: `early` bytes handed in are kept as they are; and a kernel that is out of TCP
 * memory may refuse room that it reported, for one read.)
 *
 * Limits and resets cut both ends off with a reset, so that a stream cut short never looks complete.
 *
 * Both sockets are registered once, edge-triggered, for reading and writing; readiness is remembered per end, so no
 * epoll_ctl happens while bytes move. A relay that keeps finding bytes yields after a budget and is queued again
 * (fairness).
 */
#ifndef IO_RELAY_H
#define IO_RELAY_H

#include "io/loop.h"

struct relay;
struct relay_shared;

#define RELAY_READ_MIN 65536u
#define RELAY_READ_MAX 1048576u
#define RELAY_RESIDUE_MAX (2 * RELAY_READ_MIN)

/* What relays of one loop share: the read buffer, the slab of relays. 0 or -errno. */
SOCKS6_MUST_CHECK int relay_shared_new(struct loop *loop, struct relay_shared **out);
/* All relays must be gone. Takes NULL. */
void relay_shared_free(struct relay_shared *shared);

enum relay_end {
    RELAY_DONE,            /* both directions ended with a FIN */
    RELAY_RESET,           /* an end was reset, or failed: see `error` and `side` */
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

struct relay_config {
    uint64_t idle_ms;        /* 0 = no limit */
    uint64_t half_closed_ms; /* 0 = no limit */
};

/* Called once, never from within relay_start(); descriptors are closed and the relay is gone. */
typedef void relay_done(void *user, const struct relay_result *result);

/*
 * Starts. Takes both descriptors (non-blocking, connected, not registered): also on failure they are closed, with a reset. `early`
 * (len 0 = none): bytes already read from A, to be delivered to B first; the buffer must come from malloc(3) and is
 * taken too. 0 or -errno.
 */
SOCKS6_MUST_CHECK int relay_start(struct relay_shared *shared, int fd_a, int fd_b, uint8_t *early, size_t early_len,
                                  const struct relay_config *config, relay_done *done, void *user, struct relay **out);
/* Ends it now: resets both ends and calls `done` with RELAY_RESET and error ECONNABORTED, before it returns. */
void relay_abort(struct relay *relay);

#endif
