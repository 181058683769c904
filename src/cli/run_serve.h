/*
 * The helper's server: takes the requests of run/protocol.h from the programs and answers them. Called by run_helper.c.
 */
#ifndef CLI_RUN_SERVE_H
#define CLI_RUN_SERVE_H

#include <stdbool.h>

#include <socks6/dial.h>

#include "cli/proxy_find.h"
#include "cli/run_shortcut.h"
#include "io/loop.h"

/* Programs that have connected, and not sent their whole request yet: the oldest give way. */
#define RUN_SERVE_SILENT_MAX 512u
/* How long one may take. */
#define RUN_SERVE_SILENT_MS 10000u

struct run_serve;

struct run_serve_config {
    const struct socks6_proxy *proxy;        /* borrowed */
    const struct proxy_addresses *addresses; /* borrowed */
    struct run_shortcut *shortcut;           /* borrowed; NULL = programs are not to go to the proxy themselves */
    const char *no_proxy;                    /* NULL = none. Borrowed for _new */
    int family;
    uint64_t timeout_ms; /* of a connection */
    unsigned verbose;    /* 1: what each call did; 2: and each step to the proxy */
    bool is_early, is_fake, allow_direct, no_fast_open, no_early_data, no_session;
};

/* 0 or -errno. The socket is open when this returns. */
SOCKS6_MUST_CHECK int run_serve_new(const struct run_serve_config *config, struct run_serve **out);
/* Takes NULL. Ends all connections. */
void run_serve_free(struct run_serve *serve);

struct loop *run_serve_loop(const struct run_serve *serve);
/* How many descriptors there can be. Without a call, the limit of the time of run_serve_new(). */
void run_serve_set_limit(struct run_serve *serve, unsigned long limit);
/* Connections are being made, or bytes are on their way. */
bool run_serve_is_busy(const struct run_serve *serve);
/* The value of the environment variable RUN_VARIABLE. */
const char *run_serve_variable(const struct run_serve *serve);

#endif
