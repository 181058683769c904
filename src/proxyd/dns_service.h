/*
 * DNS over a client's stream ("DNS Provided by SOCKS"; framing and behaviour of RFC 7766): questions in, answers out as
 * they come, over the resolver of this worker.
 *
 * What does not make sense gets FORMERR, and what is no question at all ends the stream; answers that are known go out
 * with one write per wake-up. A client that asks more than its limits is not read from until it may ask again; one that
 * does not take its answers, neither.
 *
 * Helper of conn.c, which owns the socket and its events.
 */
#ifndef PROXYD_DNS_SERVICE_H
#define PROXYD_DNS_SERVICE_H

#include <stdbool.h>

#include "dns/resolver.h"
#include "proxyd/config.h"
#include "proxyd/dns_limits.h"
#include "proxyd/stats.h"

struct dns_service;
struct dns_service_shared;

/* What the services of one loop share: buffers that are used within an event only. NULL = no memory. */
struct dns_service_shared *dns_service_shared_new(void);
/* Takes NULL. */
void dns_service_shared_free(struct dns_service_shared *shared);

struct dns_service_setup {
    struct dns_service_shared *shared;
    struct loop *loop;
    struct dns_client *dns;
    struct dns_limits *limits;
    const struct config *config;      /* borrowed until the end, as `client` and `user` */
    const struct socks6_addr *client; /* IPv4 or IPv6 */
    const char *user;                 /* NULL = anonymous */
    struct stats *stats;
    int fd;                 /* stays the caller's, and registered with its loop */
    struct tls_stream *tls; /* over it; NULL = none. The caller's */
    uint32_t events;        /* edge-triggered, of epoll: what is known of `fd` so far */
    const uint8_t *early;   /* bytes read already; copied */
    size_t early_len;
    /*
     * The stream is over, for a reason (static): called once, from dns_service_events(), a timer or a task, never from
     * dns_service_start(). dns_service_free() may be called from it.
     */
    void (*over)(void *user_data, const char *reason);
    void *user_data;
};

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int dns_service_start(const struct dns_service_setup *setup, struct dns_service **out);
/* What epoll reported for the socket. */
void dns_service_events(struct dns_service *service, uint32_t events);
/* Takes no more questions: over once those that were asked are answered. From the loop's thread. */
void dns_service_drain(struct dns_service *service);
/* Drops what is in flight. Takes NULL. */
void dns_service_free(struct dns_service *service);

/* Bytes of questions read and of answers written. */
void dns_service_bytes(const struct dns_service *service, uint64_t *up, uint64_t *down);

#endif
