/*
 * What relay.c (life of a relay: events, limits, its end) and the engines that move bytes (relay_copy.c) share.
 *
 * An engine is one function that moves the bytes of one direction. It reads and clears the readiness that relay.c
 * noted, counts in flow->bytes, calls relay_touch() when something moved, and leaves ending the relay to relay.c.
 */
#ifndef IO_RELAY_INTERNAL_H
#define IO_RELAY_INTERNAL_H

#include "io/loop.h"
#include "io/relay.h"
#include "io/slab.h"

/* What one direction may move before others get their turn. */
#define RELAY_BUDGET_ROUNDS 16u
#define RELAY_BUDGET_LEN (4u << 20)

struct relay_shared {
    struct loop *loop;
    uint8_t *buffer; /* RELAY_READ_MAX bytes; the kernel gives pages only as far as reads went */
    struct slab slab;
};

/* One socket. */
struct relay_socket {
    struct loop_io io;
    uint32_t unacked;    /* bytes sent and not acknowledged, as of the last look */
    bool readable;       /* recv() may find something */
    bool writable;       /* send() may take something */
    bool read_to_end;    /* a short read proves nothing: read until EAGAIN, end or error */
    bool failed;         /* an error was reported: once everything readable was read the relay ends */
    bool timeout_lifted; /* TCP_USER_TIMEOUT is off, since the peer keeps its window closed */
};

/* One direction: from the socket of the same index to the other. */
struct relay_flow {
    uint8_t *residue; /* from malloc: what the destination did not take; NULL = nothing */
    uint32_t residue_pos, residue_len;
    uint8_t read_shift; /* the next read asks for RELAY_READ_MIN << read_shift */
    bool ended;         /* the source's FIN was passed on */
    uint64_t bytes;     /* delivered */
};

struct relay {
    struct relay_shared *shared;
    struct relay_socket sockets[2];
    struct relay_flow flows[2];
    struct loop_timer timer;
    struct loop_task task; /* goes on after the budget was used up */
    bool resting;          /* quiet and nothing outstanding: the timer is set for the limits alone */
    uint64_t active_ms;    /* when bytes moved last */
    struct relay_config config;
    relay_done *done;
    void *user;
};

enum relay_step {
    RELAY_STEP_WAIT,  /* nothing to do before the next event */
    RELAY_STEP_MORE,  /* the budget is used up */
    RELAY_STEP_ENDED, /* everything was delivered and the FIN passed on, now or earlier */
    RELAY_STEP_BROKEN /* a socket failed: see the fault */
};

struct relay_fault {
    enum relay_side side;
    int error;
};

static inline enum relay_side relay_other(enum relay_side side)
{
    return side == RELAY_A ? RELAY_B : RELAY_A;
}

/* Notes that bytes moved. */
void relay_touch(struct relay *relay);

/* The engine that copies through the shared buffer. `*fault` is set only with RELAY_STEP_BROKEN. */
enum relay_step relay_copy(struct relay *relay, enum relay_side from, struct relay_fault *fault);

#endif
