/*
 * What the files behind run_serve.h share: run_serve_open.c makes what run_serve.c runs.
 */
#ifndef CLI_RUN_SERVE_INTERNAL_H
#define CLI_RUN_SERVE_INTERNAL_H

#include <sys/queue.h>
#include <sys/types.h>

#include "cli/dns_link.h"
#include "cli/run_connect.h"
#include "cli/run_names.h"
#include "cli/run_say.h"
#include "cli/run_serve.h"
#include "run/protocol.h"

struct client;
TAILQ_HEAD(client_list, client);

struct run_serve {
    struct loop *loop;
    struct loop_io listener;
    struct loop_timer pause;
    struct client_list silent, asking;
    unsigned silent_count;
    struct reach_shared *shared;
    struct dns_link *link;
    struct run_connects connects;
    struct run_tunnels tunnels;
    struct run_say_once notes;
    uint8_t option[RUN_OPTION_MAX]; /* the value that is being asked for */
    uint8_t secret[RUN_SECRET_LEN];
    char variable[sizeof "1:::" + 2 * (size_t)(RUN_ADDRESS_LEN + RUN_SECRET_LEN) + 8];
};

/* ---- run_serve_open.c ---- */

/*
 * All that the server needs, and last of all its socket. 0 or -errno: what is there by then is run_serve_free()'s. The lists, and what is
 * to be called for the listener and the pause, are set already; the rest is zero, but for the listener's descriptor, -1.
 */
SOCKS6_MUST_CHECK int run_serve_open(struct run_serve *serve, const struct run_serve_config *config);

/* ---- run_serve.c ---- */

/* The process that has asked; 0 = unknown, or NULL was given. */
pid_t run_serve_asker(struct run_names_ask *ask);

#endif
