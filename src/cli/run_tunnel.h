/*
 * Bytes between a program's Unix socket and the connection through the proxy, once that is made. Started by run_connect.c; ends by
 * itself and leaves in the table of sockets what became of it.
 */
#ifndef CLI_RUN_TUNNEL_H
#define CLI_RUN_TUNNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "cli/run_buffers.h"
#include "cli/run_sockets.h"
#include "cli/stream.h"
#include "io/loop.h"

struct run_tunnel;
LIST_HEAD(run_tunnel_list, run_tunnel);

/* What all of them share. Zero-initialise, set the first three. */
struct run_tunnels {
    struct loop *loop;
    struct run_sockets *sockets;
    bool verbose;
    struct run_buffers buffers;
    struct run_tunnel_list list;
};

struct run_tunnel_start {
    struct run_socket *socket; /* alive; `real` is set here. Buried at the end */
    int fd;                    /* the helper's end of the Unix socket */
    struct stream stream;
    size_t skip; /* bytes of the program that come first, and mean nothing */
    pid_t pid;   /* for -v */
    /* The loop watches the descriptor already, for a loop_io that was given to loop_park(). */
    bool is_fd_registered, is_stream_registered;
    /* The connection is the program's own socket, of which it may have other descriptors: closing ours would end nothing. */
    bool is_shared;
};

/* Both descriptors are the tunnel's from now on, whatever happens. -ENOMEM or another -errno: all is closed, the entry buried. */
SOCKS6_MUST_CHECK int run_tunnel_open(struct run_tunnels *tunnels, struct run_tunnel_start *start);

/* Closes all that are there. */
void run_tunnels_done(struct run_tunnels *tunnels);

#endif
