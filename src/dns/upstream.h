/*
 * One question to the upstream servers, until there is an answer or no hope: sockets, retries, time-outs, other
 * servers, TCP after a truncated answer. One per loop; belongs to its thread. Keeps nothing and merges nothing: that is
 * the caller's (ask.c).
 */
#ifndef DNS_UPSTREAM_H
#define DNS_UPSTREAM_H

#include "dns/answer.h"
#include "dns/counters.h"
#include "dns/servers.h"
#include "io/loop.h"

struct upstream;
struct upstream_query;

/* The most that all tries of one question take together. */
#define UPSTREAM_TOTAL_MS 20000u

/* `counters` outlive it. 0 or -errno. */
SOCKS6_MUST_CHECK int upstream_new(struct loop *loop, struct dns_counter_set *counters, struct upstream **out);
/* Drops all queries, without calls. Takes NULL. */
void upstream_free(struct upstream *upstream);

/*
 * `answer`: a reference, the receiver's; NULL = there is none, and `why` says so (static). The query is gone.
 */
typedef void upstream_done(void *user, struct dns_answer *answer, const char *why);

/*
 * Asks the servers of the snapshot (retained). `request` is copied. `done` is called once, never from within this call
 * nor from within another query's. 0 or -ENOMEM.
 */
SOCKS6_MUST_CHECK int upstream_ask(struct upstream *upstream, struct dns_servers *servers,
                                   const struct dns_request *request, upstream_done *done, void *user,
                                   struct upstream_query **out);
/* `done` will not be called. Takes NULL. */
void upstream_cancel(struct upstream_query *query);

#endif
