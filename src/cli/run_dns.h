/*
 * DNS messages for `socks6 run`: a query is answered from the cache, by the answer to the same question that is on its way
 * already, or by the proxy's DNS service; with --fake-names by made-up addresses. Called by run_resolve.c, run_reverse.c,
 * run_query.c and run_udp_dns.c, in the terms of dns_link.c.
 */
#ifndef CLI_RUN_DNS_H
#define CLI_RUN_DNS_H

#include "cli/dns_link.h"
#include "cli/run_fake.h"
#include "io/siphash.h"

struct run_dns;

struct run_dns_config {
    struct loop *loop;
    struct dns_link *link; /* borrowed */
    struct run_fake *fake; /* borrowed; NULL = ask the link */
    struct siphash_key key;
};

/* Questions that wait at once, those in the cache included. */
#define RUN_DNS_WAITERS_MAX 8192u
#define RUN_DNS_CACHE_LEN ((size_t)4 << 20)

/* 0 or -errno. */
SOCKS6_MUST_CHECK int run_dns_new(const struct run_dns_config *config, struct run_dns **out);
/* Ends all questions. Takes NULL. */
void run_dns_free(struct run_dns *dns);

/*
 * As dns_link_ask(): done() is never called from within; the answer has the query's own id, and its question in the query's spelling.
 * 0, -EAGAIN (too many), -ENOMEM, or -EINVAL: this is no query.
 */
SOCKS6_MUST_CHECK int run_dns_ask(struct run_dns *dns, struct dns_link_ask *ask);
/* done() will not be called. */
void run_dns_cancel(struct run_dns *dns, struct dns_link_ask *ask);

#endif
