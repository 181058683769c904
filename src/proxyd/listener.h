/*
 * A listening socket of one worker: accepts, counts against the limits, opens connections.
 *
 * When descriptors or memory run out, or the total limit is reached, the socket leaves the loop for a while (what comes waits in the
 * backlog) instead of waking it again and again.
 */
#ifndef PROXYD_LISTENER_H
#define PROXYD_LISTENER_H

#include "io/loop.h"
#include "proxyd/config.h"

struct worker;

/* For listener.c. */
struct listener_place {
    struct socks6_addr address;
    uint32_t references; /* 0 = free */
};

struct listener {
    struct listener *next;
    struct worker *worker;
    int fd;
    struct loop_io io;
    struct loop_timer retry;       /* armed while paused */
    struct socks6_addr configured; /* port 0 if any was asked for */
    unsigned nth;                  /* with it what a reload knows the listener by: see struct config_listener */
    struct socks6_addr address;    /* where it really listens */
    uint16_t place;                /* that address for those that outlive the listener */
    unsigned batch;                /* so many are accepted at a wake-up */
    unsigned full_batches;         /* wake-ups in a row that found as many */
    unsigned protocols;
    bool has_fast_open;      /* connections may have come by it: it is on, or has been */
    bool acts_without_token; /* see struct config_fast_open */
    struct tls_server *tls;  /* a reference; NULL = without TLS */
    bool paused;
};

/* Takes `fd` (also on failure) and puts the listener into the worker's list. 0 or -errno. */
SOCKS6_MUST_CHECK int listener_open(struct worker *worker, const struct config_listener *config, int fd);
/* Takes over what a reload has changed. */
void listener_configure(struct listener *listener, const struct config_listener *config);
/* Accepts what already waits, then closes: closing a SO_REUSEPORT socket resets what is in its queue. */
void listener_close(struct listener *listener);
/* Tries at once if it is paused: a connection has ended. */
void listener_resume(struct listener *listener);

/*
 * A connection remembers where it came in after its listener is gone, in 16 bits: the number of a place of its worker.
 * A place exists while it is referred to.
 */
const struct socks6_addr *listener_place(const struct worker *worker, uint16_t place);
void listener_place_retain(struct worker *worker, uint16_t place);
void listener_place_release(struct worker *worker, uint16_t place);

#endif
