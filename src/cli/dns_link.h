/*
 * The connection to the proxy's DNS service, for a program with a loop: made when there is something to ask, shared by
 * all questions, closed when it is idle, made anew when it breaks. Called by dns_local.c.
 */
#ifndef CLI_DNS_LINK_H
#define CLI_DNS_LINK_H

#include <sys/queue.h>

#include <socks6/dial.h>

#include "dns/message.h"
#include "io/loop.h"

struct reach_shared;

/* Questions that can be on their way at once. */
#define DNS_LINK_ASKS_MAX 4096u

struct dns_link;

/* Why there is no answer. */
enum dns_link_failure {
    DNS_LINK_UNREACHABLE, /* the proxy cannot be reached, refuses, or has closed the connection twice */
    DNS_LINK_TIMED_OUT,
    DNS_LINK_ENDED /* dns_link_free() */
};

/* One question, embedded in its owner. The first four are the caller's to set; the rest is private. */
struct dns_link_ask {
    const struct dns_question *question; /* answers to another one are ignored */
    const uint8_t *message;              /* the query; its id is replaced on the way. Both borrowed until the end */
    size_t len;
    /* Called once, never from within dns_link_ask(); `message` is NULL if there is no answer. */
    void (*done)(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure);

    TAILQ_ENTRY(dns_link_ask) all, unsent;
    uint64_t deadline_ms, sent_ms;
    unsigned slot, tries;
    bool is_sent;
    void *waiter; /* run_dns.c's, which takes questions in the same form */
};

struct dns_link_config {
    struct loop *loop;
    const struct socks6_proxy *proxy;    /* borrowed, as is all that follows */
    struct reach_shared *shared;         /* made for it */
    const struct socks6_addr *addresses; /* of the proxy, as in struct socks6_dial_config; one attempt each, in turn */
    size_t address_count;
    uint64_t timeout_ms;              /* of a question, and of a dial */
    bool no_early_data, no_fast_open; /* as in struct reach_config */
    bool verbose;
    /*
     * Told when the service cannot be used, once until it can be again (with `verbose` each time), and then with `why` NULL. `is_absent`:
     * the proxy has none. And with `verbose` what happens on the way to it. NULL = both are said on standard error.
     */
    void (*changed)(void *user, const char *why, bool is_absent);
    void (*trace)(void *user, const char *what);
    void *user;
};

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int dns_link_new(const struct dns_link_config *config, struct dns_link **out);
/* Ends all questions. Takes NULL. */
void dns_link_free(struct dns_link *link);

/* 0, or -EAGAIN if there are too many. */
SOCKS6_MUST_CHECK int dns_link_ask(struct dns_link *link, struct dns_link_ask *ask);
/* done() will not be called. */
void dns_link_cancel(struct dns_link *link, struct dns_link_ask *ask);

#endif
