/*
 * What relay.c (life of a relay: events, limits, its end), the engines that move bytes (relay_copy.c, relay_splice.c)
 * and the pool of pipes (relay_pipes.c) share.
 *
 * An engine is one function that moves the bytes of one direction. It reads and clears the readiness that relay.c
 * noted, counts in leg->bytes, calls relay_touch() when something moved, and leaves ending the relay to relay.c.
 *
 * A direction begins with copying. A read that fills RELAY_READ_MIN bytes and is taken whole makes it bulk. If the
 * relay may splice, a bulk direction goes on through a pipe, until the pipe stays nearly empty several times, or
 * something comes up that splice(2) cannot tell apart (an end, an error, an urgent byte: leg->read_to_end); then it
 * copies again. Either engine can take over between any two calls, since all that one leaves behind is leg->held.
 */
#ifndef IO_RELAY_INTERNAL_H
#define IO_RELAY_INTERNAL_H

#include "io/loop.h"
#include "io/relay.h"
#include "io/slab.h"
#include "io/tls_stream.h"

/* What one direction may move before others get their turn. */
#define RELAY_BUDGET_ROUNDS 16u
#define RELAY_BUDGET_LEN (4u << 20)

/* Bytes on the heap: what the destination did not take. */
struct relay_block {
    uint32_t pos, len;
    uint8_t bytes[];
};

struct relay_pipe {
    struct relay_pipe *next; /* in the pool */
    int in, out;             /* its writing end, its reading end */
    uint32_t len;            /* bytes in it */
};

/* See relay_pipes.c. */
struct relay_pipes {
    struct loop *loop;
    struct relay_pipe *idle;
    unsigned idle_count;
    unsigned idle_low;   /* as many were idle at any time since the timer was set */
    unsigned count;      /* idle or in use */
    uint64_t refused_ms; /* when the system last refused one; 0 = never */
    struct loop_timer timer;
};

struct relay_shared {
    struct loop *loop;
    uint8_t *buffer; /* RELAY_READ_MAX bytes; the kernel gives pages only as far as reads went */
    struct slab slab;
    struct relay_pipes pipes;
    struct relay_hooks hooks;
};

/* One socket, and the direction that comes from it. */
struct relay_leg {
    struct loop_io io;
    union {
        struct relay_block *block; /* NULL = nothing is held */
        struct relay_pipe *pipe;   /* if has_pipe */
    } held;                        /* read from here and not delivered yet */
    uint64_t bytes;                /* delivered */
    uint32_t unacked;              /* bytes sent to this socket and not acknowledged, as of the last look */
    uint8_t read_shift;            /* the next read asks for RELAY_READ_MIN << read_shift */
    uint8_t shorts;                /* nearly empty pipes in a row */
    bool readable : 1;             /* recv() may find something */
    bool writable : 1;             /* send() may take something */
    bool read_to_end : 1;          /* a short read proves nothing: read until EAGAIN, end or error */
    bool failed : 1;               /* an error was reported: once everything readable was read the relay ends */
    bool timeout_lifted : 1;       /* TCP_USER_TIMEOUT is off, since the peer keeps its window closed */
    bool ended : 1;                /* this socket's FIN was passed on */
    bool has_pipe : 1;
    bool is_bulk : 1;
};

struct relay {
    struct relay_shared *shared;
    struct tls_stream *tls; /* over A's socket; NULL = none */
    struct relay_leg legs[2];
    struct loop_timer timer;
    struct loop_task task; /* goes on after the budget was used up */
    const struct relay_limits *limits;
    uint32_t active_ticks; /* when bytes moved last: LOOP_TICK_MS each, rounded up, modulo 2^32 (two years) */
    bool is_started : 1;
    bool is_settled : 1; /* old enough for options that short connections do without */
    bool is_resting : 1; /* quiet and nothing outstanding: the timer is set for the limits alone */
    bool may_splice : 1;
    _Alignas(8) uint8_t record[];
};

enum relay_step {
    RELAY_STEP_WAIT,  /* nothing to do before the next event */
    RELAY_STEP_MORE,  /* the budget is used up, or the other engine is to go on */
    RELAY_STEP_ENDED, /* everything was delivered and the FIN passed on, now or earlier */
    RELAY_STEP_BROKEN /* a socket failed: see the fault */
};

struct relay_fault {
    enum relay_side side;
    int error;
};

/* The TLS stream of that end, or NULL. */
static inline struct tls_stream *relay_tls_of(const struct relay *relay, enum relay_side side)
{
    return side == RELAY_A ? relay->tls : NULL;
}

static inline enum relay_side relay_other(enum relay_side side)
{
    return side == RELAY_A ? RELAY_B : RELAY_A;
}

static inline enum relay_step relay_broken(struct relay_fault *fault, enum relay_side side, int error)
{
    fault->side = side;
    fault->error = error;
    return RELAY_STEP_BROKEN;
}

/* Notes that bytes moved. */
void relay_touch(struct relay *relay);

/* The engine that copies through the shared buffer. `*fault` is set only with RELAY_STEP_BROKEN. */
enum relay_step relay_copy(struct relay *relay, enum relay_side from, struct relay_fault *fault);
/* A heap block that holds `len` bytes, of which the caller fills in the contents; NULL: no memory. */
struct relay_block *relay_block_new(size_t len);

/* Whether relay_splice() is the one to go on. */
bool relay_is_spliced(const struct relay *relay, enum relay_side from);
/* The engine that moves bytes through a pipe. As relay_copy(). */
enum relay_step relay_splice(struct relay *relay, enum relay_side from, struct relay_fault *fault);
/*
 * Moves what the direction's pipe holds into a block, and gives the pipe back. 0; -ENOMEM and nothing has changed; or
 * another -errno, and the stream has a gap.
 */
SOCKS6_MUST_CHECK int relay_unpipe(struct relay *relay, enum relay_side from);

/* What a direction holds: residue in a block, or in a pipe. */
size_t relay_held_len(const struct relay_leg *leg);
/* Throws it away. */
void relay_drop_held(struct relay *relay, enum relay_side from);

void relay_pipes_init(struct relay_pipes *pipes, struct loop *loop);
/* All must have been given back. */
void relay_pipes_done(struct relay_pipes *pipes);
/* Whether asking for a pipe makes sense: not if one was refused a moment ago. */
bool relay_pipes_may_take(const struct relay_pipes *pipes);
/* 0 or -errno. */
SOCKS6_MUST_CHECK int relay_pipes_take(struct relay_pipes *pipes, struct relay_pipe **out);
/* Takes it back: into the pool if it is empty, else it is closed. */
void relay_pipes_give(struct relay_pipes *pipes, struct relay_pipe *pipe);

#endif
