/*
 * What the connections of one process to one proxy have in common: what is known of the proxy (session, tokens, tickets), and
 * the settings of TLS. Made by a caller of reach_start() that has many connections, else by reach.c for the one that it makes.
 *
 * With a batch the cache file is looked at a few times a second and not several times for each connection: tokens are taken
 * from it in batches, and what one connection hears serves the next from memory. Without one every call goes to the file.
 *
 * Of one thread. Counted: connections that outlive reach_shared_free() keep it.
 */
#ifndef CLI_REACH_SHARED_H
#define CLI_REACH_SHARED_H

#include <stdbool.h>
#include <sys/queue.h>

#include <socks6/dial.h>

#include "cli/cache.h"
#include "cli/tls_client.h"

struct reach_shared;

struct reach_shared_config {
    const struct socks6_proxy *proxy; /* copied */
    bool no_session;                  /* nothing of the cache is used, and nothing kept, in the file or here */
    unsigned batch;                   /* tokens to take from the file at once, 1 to CACHE_LEASE_MAX; 0 = see above */
};

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int reach_shared_new(const struct reach_shared_config *config, struct reach_shared **out);
/*
 * Gives up the caller's reference, and gives back to the file what other processes can use: tokens behind which nobody took others,
 * tickets. Takes NULL.
 */
void reach_shared_free(struct reach_shared *shared);

/*
 * The ID of the session that connections are in now; empty if there is none, or one in which each has to introduce itself. Valid until
 * the next call.
 */
struct socks6_slice reach_shared_session(const struct reach_shared *shared);
/*
 * With a batch, for requests in that session that are made without us: up to `count` tokens in a row, marked as spent in the file.
 * How many; 0 = there are none now. And back with those that were not used, if the session is the same.
 */
unsigned reach_shared_take_tokens(struct reach_shared *shared, unsigned count, uint32_t *first);
void reach_shared_return_tokens(struct reach_shared *shared, uint32_t first, unsigned count);
/* A proxy has told of a window in such a conversation. */
void reach_shared_learn_window(struct reach_shared *shared, const struct socks6_window *window);

/* --- for reach.c --- */

/* What one attempt has taken. All 0 = nothing. It must not move between _take and _end. */
struct reach_use {
    struct cache_use cache;
    bool is_taken;  /* the settings have a session part, and the proxy's answer is wanted */
    bool is_asking; /* for a session; one at a time does */
    bool is_open;   /* in the list of those with a token, of which the proxy has said nothing yet */
    TAILQ_ENTRY(reach_use) open;
};

struct reach_shared *reach_shared_retain(struct reach_shared *shared);
/* Takes NULL. Of type void *, for struct stream. */
void reach_shared_release(void *shared);

const struct socks6_proxy *reach_shared_proxy(const struct reach_shared *shared);
/* The file that all of this is about cannot be found: -errno, once; else 0. */
int reach_shared_problem(struct reach_shared *shared);
/* Tickets that come are of use to somebody. */
bool reach_shared_keeps(const struct reach_shared *shared);

/*
 * Takes what there is for an attempt: see cache_take(). 0, or -errno of a file that cannot be used; use->is_taken tells in both
 * cases. `settings` borrows from `use`, which goes to reach_shared_end() in the end.
 */
SOCKS6_MUST_CHECK int reach_shared_take(struct reach_shared *shared, struct socks6_client_config *settings,
                                        struct reach_use *use);
/* What the proxy says of the session. 0, or -errno of the file. */
SOCKS6_MUST_CHECK int reach_shared_learn(struct reach_shared *shared, struct reach_use *use,
                                         const struct socks6_client_session *reply);
/* Nothing of the attempt was sent. 0, or -errno of the file. */
SOCKS6_MUST_CHECK int reach_shared_return(struct reach_shared *shared, const struct reach_use *use);
void reach_shared_end(struct reach_shared *shared, struct reach_use *use);

/* 0, or -errno; nobody waits for it. */
SOCKS6_MUST_CHECK int reach_shared_put_ticket(struct reach_shared *shared, const uint8_t *ticket, size_t len,
                                              uint64_t expires_s);

/* As tls_context_new(); it stays ours. */
SOCKS6_MUST_CHECK int reach_shared_tls(struct reach_shared *shared, struct tls_context **out,
                                       char why[TLS_CLIENT_WHY_MAX]);
/* TLS has failed: if the files were read some time ago, they are read anew for the next connection. */
void reach_shared_tls_failed(struct reach_shared *shared);

#endif
