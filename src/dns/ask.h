/*
 * Whole messages: a question to the resolver, answered from what is known here, from the cache, or upstream.
 *
 * The DNS service gives each question to dns_ask_at_once(), and to dns_ask_start() if that knows nothing.
 */
#ifndef DNS_ASK_H
#define DNS_ASK_H

#include "dns/answer.h"
#include "dns/resolver.h"

struct dns_ask;

/*
 * The answer if there is one without asking anybody (a reference, the caller's): names that the hosts file or their
 * meaning decide, see "dns/lookup.h", and what is in the cache. Else NULL.
 */
struct dns_answer *dns_ask_at_once(struct dns_client *client, const struct dns_request *request);

/*
 * `answer` is borrowed for the call; NULL = there is none, and `why` says so (static). Called once, on the asking loop,
 * never from within dns_ask_start(); the question is gone then.
 */
typedef void dns_ask_done(void *user, struct dns_answer *answer, const char *why);

/* Who asks: look-ups of the proxy itself keep a reserve of the places for questions in flight. */
enum dns_asker { DNS_ASKER_SERVICE, DNS_ASKER_LOOKUP };

#define DNS_FLIGHTS_MAX 4096u         /* questions upstream at a time, per client */
#define DNS_FLIGHTS_SERVICE_MAX 3072u /* of them, for DNS_ASKER_SERVICE */

/*
 * Asks upstream, or joins the same question that is on its way already, on whichever loop. The cache is not looked at
 * again. `request` is copied. 0, -EAGAIN (too many questions) or -ENOMEM.
 */
SOCKS6_MUST_CHECK int dns_ask_start(struct dns_client *client, enum dns_asker asker, const struct dns_request *request,
                                    dns_ask_done *done, void *user, struct dns_ask **out);
/* `done` will not be called. Takes NULL. */
void dns_ask_cancel(struct dns_ask *ask);

#endif
