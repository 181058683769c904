/*
 * One thread of the daemon: its loop, its listening sockets, its connections. A connection lives and dies on one worker.
 *
 * main -> worker: messages to the loop (reload, drain, abort). worker -> main: the `finished` message, once its last connection is
 * gone after a drain.
 */
#ifndef PROXYD_WORKER_H
#define PROXYD_WORKER_H

#include <pthread.h>

#include "dns/lookup.h"
#include "io/loop.h"
#include "io/relay.h"
#include "io/slab.h"
#include "io/tls_keys.h"
#include "io/tls_stream.h"
#include "proxyd/auth.h"
#include "proxyd/config.h"
#include "proxyd/dns_limits.h"
#include "proxyd/egress.h"
#include "proxyd/limits.h"
#include "proxyd/listener.h"
#include "proxyd/local_addrs.h"
#include "proxyd/stats.h"
#include "proxyd/winners.h"

struct accounts;
struct accounts_order;

/* What all workers share; outlives them. */
struct shared {
    struct loop *main_loop;
    struct dns_resolver *dns;
    struct winners *winners;
    struct limits *limits;
    struct tls_keys *ticket_keys;
    struct dns_limits *dns_limits;
    struct local_addrs *local;
    struct accounts *accounts;
    uint32_t connections_auto; /* limits.connections when it is 0: what the descriptor limit allows */
    _Atomic uint64_t next_id;
    struct egress_notices egress;
};

/* Bytes that one read of an unfinished conversation takes at most; also the cap on early data held while dialling. */
#define WORKER_SCRATCH_LEN 65536u

struct worker {
    struct shared *shared;
    struct loop *loop;
    struct relay_shared *relays;
    struct tls_loop *tls;
    struct dns_client *dns;
    struct dns_service_shared *dns_shared;
    unsigned source_turn;        /* of outgoing addresses: whose turn it is */
    const struct config *config; /* in force for new connections */
    struct auth auth;
    struct listener *listeners; /* list */
    struct listener_place *places;
    size_t place_count;
    struct slab conns;         /* conversations not yet relayed, or lingering */
    uint32_t connection_count; /* these and those relayed */
    struct stats stats;
    uint8_t *scratch; /* WORKER_SCRATCH_LEN: for the handler that is running, never across events */
    bool draining;
    pthread_t thread;
    void (*on_finished)(struct worker *worker); /* on the main loop's thread */
    struct loop_msg finished;
    bool is_started;
    struct worker_order *drain_orders[2]; /* [now]: made beforehand; each is sent once */
};

/* Creates one, with the listening descriptors in `fds` (one per listener of `config`; taken, also on failure). 0 or -errno. */
SOCKS6_MUST_CHECK int worker_new(struct shared *shared, const struct config *config, const int *fds,
                                 void (*on_finished)(struct worker *worker), struct worker **out);
/* Starts its thread. 0 or -errno. */
SOCKS6_MUST_CHECK int worker_start(struct worker *worker);
/* Joins the thread (if started), frees. */
void worker_free(struct worker *worker);

/* From the main thread. `fds`: one per listener of the new configuration, -1 where the worker has that address open; taken. 0 or -ENOMEM (nothing taken). */
SOCKS6_MUST_CHECK int worker_reload(struct worker *worker, const struct config *config, const int *fds);
/* From the main thread: other users are in force. `order` is this worker's (accounts.h). Allocation-free. */
void worker_change_users(struct worker *worker, struct accounts_order *order);
/* Stops listening; the thread ends with its last connection. `now`: resets them instead of waiting. Allocation-free. */
void worker_drain(struct worker *worker, bool now);

/* For conn.c and session.c: a connection of this worker has begun; it has ended, and everything of it was given back. */
void worker_connection_begun(struct worker *worker);
void worker_connection_gone(struct worker *worker);

#endif
