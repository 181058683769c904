/*
 * The connection to the proxy's DNS service, for a program with a loop: made when there is something to ask, shared by
 * all questions, closed when it is idle, made anew when it breaks. Called by dns_server.c.
 */
#ifndef CLI_DNS_UPSTREAM_H
#define CLI_DNS_UPSTREAM_H

#include <sys/queue.h>

#include <socks6/dial.h>

#include "dns/message.h"
#include "io/loop.h"

/* Questions that can be on their way at once. */
#define DNS_UPSTREAM_ASKS_MAX 4096u

struct dns_upstream;

/* Why there is no answer. */
enum dns_upstream_failure {
    DNS_UPSTREAM_UNREACHABLE, /* the proxy cannot be reached, refuses, or has closed the connection twice */
    DNS_UPSTREAM_TIMED_OUT,
    DNS_UPSTREAM_ENDED /* dns_upstream_free() */
};

/* One question, embedded in its owner. The first four are the caller's to set; the rest is private. */
struct dns_ask {
    const struct dns_question *question; /* answers to another one are ignored */
    const uint8_t *message;              /* the query; its id is replaced on the way. Both borrowed until the end */
    size_t len;
    /* Called once, never from within dns_upstream_ask(); `message` is NULL if there is no answer. */
    void (*done)(struct dns_ask *ask, const uint8_t *message, size_t len, enum dns_upstream_failure failure);

    TAILQ_ENTRY(dns_ask) all, unsent;
    uint64_t deadline_ms, sent_ms;
    unsigned slot, tries;
    bool is_sent;
};

struct dns_upstream_config {
    struct loop *loop;
    const struct socks6_proxy *proxy;    /* borrowed */
    const struct socks6_addr *addresses; /* of the proxy, IPv4 or IPv6; tried in turn; borrowed */
    size_t address_count;
    uint64_t timeout_ms; /* of a question, and of a dial */
    bool verbose;
};

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int dns_upstream_new(const struct dns_upstream_config *config, struct dns_upstream **out);
/* Ends all questions. Takes NULL. */
void dns_upstream_free(struct dns_upstream *upstream);

/* 0, or -EAGAIN if there are too many. */
SOCKS6_MUST_CHECK int dns_upstream_ask(struct dns_upstream *upstream, struct dns_ask *ask);
/* done() will not be called. */
void dns_upstream_cancel(struct dns_upstream *upstream, struct dns_ask *ask);

#endif
