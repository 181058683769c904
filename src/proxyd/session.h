/*
 * What the daemon remembers of a connection while its bytes are relayed: enough for its access line, and small.
 *
 * It is the record of the connection's relay (io/relay.h), so both are one block of the worker's slab, from accept on.
 * Until relaying starts it says whose conversation it is, and no more.
 */
#ifndef PROXYD_SESSION_H
#define PROXYD_SESSION_H

#include "io/relay.h"
#include "proxyd/log.h"

struct config;
struct conn;
struct identity;
struct worker;

/* Bytes that go with each relay. */
size_t session_record_len(void);
/* What the relays of `worker` (its context) call. */
struct relay_hooks session_hooks(struct worker *worker);

/* The conversation that a relay not yet started belongs to. */
void session_set_conn(struct relay *relay, struct conn *conn);
struct conn *session_conn(struct relay *relay);

/*
 * Starts relaying: `start` but for its limits and its engine, which the configuration decides. Takes both descriptors,
 * the relay, a reference of `config`, one of the listener's place, the client's count in the limits and the reference
 * `user` (NULL = anonymous), also on failure. `entry` is what is known for the access line so far (copied); `accepted_ms`
 * by the loop's clock.
 */
void session_start(struct relay *relay, struct worker *worker, const struct config *config, uint16_t place,
                   struct relay_start *start, const struct log_access *entry, uint64_t accepted_ms,
                   struct identity *user);

/* Resets all relayed connections of the worker. */
void session_abort_all(struct worker *worker);
/* Resets those of users who are gone (identity.h). */
void session_abort_gone(struct worker *worker);

#endif
