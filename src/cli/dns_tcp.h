/*
 * DNS over TCP (RFC 7766): many queries in flight on a connection, answers as they come.
 */
#ifndef CLI_DNS_TCP_H
#define CLI_DNS_TCP_H

#include "cli/dns_local.h"

/* Silence after which a connection without queries in flight is closed. */
#define DNS_TCP_IDLE_MS 30000u
/* Connections at once, for all listening sockets. For one more, the one that has been idle for longest is closed. */
#define DNS_TCP_CLIENTS_MAX 200u
/* Queries in flight on one connection; more are not read. */
#define DNS_TCP_PENDING_MAX 128u

TAILQ_HEAD(dns_tcp_list, dns_tcp_client);

/* All connections, of all listening sockets. */
struct dns_tcp_clients {
    struct dns_tcp_list list; /* the one that has been quiet for longest comes first */
    size_t count;
};

/* A listening socket. */
struct dns_tcp {
    struct dns_local *server;
    struct dns_tcp_clients *clients;
    struct loop_io io;
};

void dns_tcp_clients_init(struct dns_tcp_clients *clients);
/* Closes all. */
void dns_tcp_clients_done(struct dns_tcp_clients *clients);

/* Listens and serves. 0 or -errno; then dns_tcp_close() is still right. */
SOCKS6_MUST_CHECK int dns_tcp_open(struct dns_tcp *tcp, struct dns_local *server, struct dns_tcp_clients *clients,
                                   const struct socks6_addr *addr);
void dns_tcp_close(struct dns_tcp *tcp);

/* For dns_local.c: a query is in flight; an answer to it, or to one that was not (NULL). */
void dns_tcp_pending(struct dns_tcp_client *client, struct dns_pending *pending);
void dns_tcp_answer(struct dns_tcp_client *client, struct dns_pending *pending, const uint8_t *message, size_t len);

#endif
