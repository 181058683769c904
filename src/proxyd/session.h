/*
 * What the daemon remembers of a connection while its bytes are relayed: enough for its access line, and small.
 */
#ifndef PROXYD_SESSION_H
#define PROXYD_SESSION_H

#include "proxyd/log.h"

struct worker;

/*
 * Starts relaying between the client's and the server's descriptor, with `early` bytes (malloc'ed, may be NULL) ahead of the client's others. Takes the
 * descriptors, `early`, a reference of `config` and the client's count in the limits, also on failure. `entry` is what is known for the access line so far (copied); `accepted_ms` by the loop's clock.
 */
void session_start(struct worker *worker, const struct config *config, int client_fd, int server_fd, uint8_t *early,
                   size_t early_len, const struct log_access *entry, uint64_t accepted_ms);

/* Resets all relayed connections of the worker. */
void session_abort_all(struct worker *worker);

#endif
