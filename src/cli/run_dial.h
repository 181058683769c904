/*
 * One dial through the proxy on a loop: reach_start() with a descriptor to watch and a timer. Used by run_connect.c.
 */
#ifndef CLI_RUN_DIAL_H
#define CLI_RUN_DIAL_H

#include <stdbool.h>

#include <socks6/dial.h>

#include "cli/proxy_find.h"
#include "cli/reach.h"
#include "io/loop.h"

/* What all dials have in common. Borrowed by them. */
struct run_dialer {
    struct loop *loop;
    const struct socks6_proxy *proxy;
    const struct proxy_addresses *addresses;
    struct reach_shared *shared;
    int family; /* AF_UNSPEC, AF_INET, AF_INET6: of the connection to the proxy */
    uint64_t timeout_ms;
    bool no_fast_open, no_early_data;
    void (*trace)(void *user, const char *what); /* NULL = nobody wants to know */
};

/* Embedded in its owner. Zero-initialise, set done(). */
struct run_dial {
    /* Called once, never from within run_dial_start(), unless it was cancelled. With SOCKS6_DIAL_OK `stream` is the owner's. */
    void (*done)(struct run_dial *dial, int status, const struct socks6_dial_result *result);
    struct stream stream;
    void *trace_user;

    const struct run_dialer *dialer;
    struct reach *reach;
    unsigned fd_count;
    bool is_out_watched;
    /* With SOCKS6_DIAL_OK it is still registered, for the owner to loop_remove(), or to loop_park() and loop_modify() anew. */
    struct loop_io io;
    struct loop_timer timer;
};

/* SOCKS6_DIAL_IN_PROGRESS, or a failure with `result` filled. `early` is borrowed until the end. */
SOCKS6_MUST_CHECK int run_dial_start(struct run_dial *dial, const struct run_dialer *dialer,
                                     const struct socks6_addr *addr, struct socks6_slice early,
                                     struct socks6_dial_result *result);
/* No effect if it is over. */
void run_dial_cancel(struct run_dial *dial);

#endif
