/*
 * A client's connection from accept to the start of relaying, or to its end.
 *
 * The hub: it brings bytes to the door (whichever SOCKS version), the request to the command, the outcome back to the door, and the two
 * sockets to the relay. Helpers call neither each other nor the door.
 */
#ifndef PROXYD_CONN_H
#define PROXYD_CONN_H

#include <socks6/types.h>

struct conn;
struct listener;
struct slab;
struct worker;

/* The slab from which the connections of a worker come. */
void conn_slab_init(struct slab *slab);

/* Takes `fd` and one count of the limits for `client`, which are given back when the connection ends (also if it cannot even start). */
void conn_open(struct worker *worker, const struct listener *listener, int fd, const struct socks6_addr *client);

/* Asks those that could go on for ever without anything happening, streams of the DNS service, to end when they can. */
void conn_drain_all(struct worker *worker);
/* Ends all conversations of the worker at once. */
void conn_abort_all(struct worker *worker);
/* Ends the conversations of users who are gone (identity.h). */
void conn_abort_gone(struct worker *worker);

#endif
