/*
 * RUN_CONNECT: the helper's side of connect(2). Called by run_serve.c with a request that has come whole.
 */
#ifndef CLI_RUN_CONNECT_H
#define CLI_RUN_CONNECT_H

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "cli/run_dial.h"
#include "cli/run_direct.h"
#include "cli/run_names.h"
#include "cli/run_say.h"
#include "cli/run_shortcut.h"
#include "cli/run_sockets.h"
#include "cli/run_tunnel.h"

struct run_connection;
LIST_HEAD(run_connection_list, run_connection);

/* What all of them share. Zero-initialise and fill. */
struct run_connects {
    struct run_dialer dialer;
    struct run_sockets *sockets;
    struct run_tunnels *tunnels;
    struct run_direct *direct;
    struct run_names *names;
    struct run_shortcut *shortcut; /* NULL = programs are not to go to the proxy themselves */
    unsigned dialled;              /* connections made, as far as it is worth counting */
    bool has_fast_open;            /* a request has travelled in a SYN */
    bool is_early;                 /* --early */
    bool is_fake;                  /* --fake-names */
    bool verbose;
    int fd_max; /* descriptors above it are for requests that are answered at once: no connection is begun with one */

    struct run_connection_list list; /* those that are being made */
    struct run_say_once complaints;  /* about the proxy */
    bool has_said_full;              /* that descriptors are few */
};

struct run_connect_start {
    int fd;             /* the Unix socket, on which the request came */
    bool is_registered; /* the loop watches it already, for a loop_io that was given to loop_park() */
    pid_t pid;
    const struct run_connect *request;
    int passed; /* the program's socket; -1 = none came */
};

/* Takes both descriptors over, and answers, now or later. */
void run_connect_take(struct run_connects *connects, const struct run_connect_start *start);

/* Ends those that are being made. */
void run_connects_done(struct run_connects *connects);

#endif
