/*
 * What the helper of `socks6 run` knows of the programs' connections, by cookie (run/protocol.h). Filled by run_connect.c, asked by
 * run_serve.c.
 *
 * An entry lives as long as its connection goes through us. Afterwards, and for sockets that were handed over, it is kept for as
 * long as there is room, because the helper cannot know whether the program still has a descriptor.
 */
#ifndef CLI_RUN_SOCKETS_H
#define CLI_RUN_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <socks6/types.h>

#include "run/protocol.h"

/* Entries of connections that are over or were handed over; and how many of them have a twin. The oldest give way. */
#define RUN_SOCKETS_DEAD_MAX 16384u
#define RUN_SOCKETS_DEAD_TWINS_MAX 256u

struct run_socket {
    uint64_t cookie;
    enum run_state_of state;
    int error; /* FAILED, BROKEN: not told yet; 0 = it was taken */
    struct run_addr peer, local;
    /* The socket that the program had before: its options are what the program has set. Owned; -1 = none. */
    int twin;
    /* The kernel gave it a port when it was connected, and has it back, though getsockname(2) still tells of it. */
    bool has_no_port;
    /* The connection to the proxy; belongs to the tunnel. -1 = none. */
    int real;

    bool is_dead;
    struct run_socket *next;
    TAILQ_ENTRY(run_socket) dead, dead_twin;
};

struct run_sockets;

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int run_sockets_new(struct run_sockets **out);
/* Takes NULL. Closes all twins. */
void run_sockets_free(struct run_sockets *sockets);

/*
 * An entry in the state CONNECTING that takes `twin` over. NULL without memory, or if the cookie belongs to a connection that is
 * alive; `twin` is the caller's then. A dead entry of that cookie gives way.
 */
struct run_socket *run_sockets_add(struct run_sockets *sockets, uint64_t cookie, int twin);
/* NULL = none. */
struct run_socket *run_sockets_find(const struct run_sockets *sockets, uint64_t cookie);

/*
 * The connection is over, or out of our hands (state CONNECTED). The twin is kept unless the program has closed its side, or the
 * twin holds a port that the program may want again.
 */
void run_sockets_bury(struct run_sockets *sockets, struct run_socket *socket, enum run_state_of state, int error,
                      bool is_closed_by_program);

/* The twin of a connection that has failed, to go on with: the caller's from then on. -1 = there is none (any more). */
int run_sockets_take_twin(struct run_sockets *sockets, uint64_t cookie);

/* RUN_STATUS. */
void run_sockets_status(struct run_sockets *sockets, const struct run_status *ask, struct run_state *out);

/*
 * RUN_GETSOCKOPT and RUN_SETSOCKOPT: 0 or an errno (positive). `privileged`: whoever asks may be trusted with the helper's own
 * rights. For _get `*len` is the room, then the length.
 */
SOCKS6_MUST_CHECK int run_sockopt_get(const struct run_socket *socket, int level, int name, void *value, uint32_t *len);
SOCKS6_MUST_CHECK int run_sockopt_set(const struct run_socket *socket, int level, int name, const void *value,
                                      uint32_t len, bool privileged);

/* What the program set before the connection was made, and matters on the wire: from the twin to the real socket. */
void run_sockopt_carry_over(const struct run_socket *socket);
/* Whether the program wants a reset when it closes: SO_LINGER with 0 seconds. */
bool run_sockopt_is_abortive(const struct run_socket *socket);

#endif
