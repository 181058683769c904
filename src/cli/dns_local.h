/*
 * The DNS server behind `socks6 dns --listen`: what UDP and TCP have in common. dns_listen.c sets it up.
 *
 *     dns_udp.c, dns_tcp.c  ->  dns_local.c  ->  dns_link.c  ->  proxy
 *     messages of clients       queries           one connection
 */
#ifndef CLI_DNS_LOCAL_H
#define CLI_DNS_LOCAL_H

#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "cli/dns_forward.h"
#include "cli/dns_link.h"

struct dns_tcp;
struct dns_tcp_client;
struct dns_udp;

struct dns_pending;

struct dns_local {
    struct loop *loop;
    struct dns_link *link;
    /* Who answers in the link's place; NULL = the link does. 0 or -errno (-EPERM: refused); as dns_link_ask(). */
    int (*ask)(struct dns_local *server, struct dns_pending *pending);
    void (*drop)(struct dns_local *server, struct dns_pending *pending);
    uint8_t answer[DNS_MESSAGE_MAX]; /* the one that is being written */
};

/* Where a query came from, and its answer goes. */
struct dns_origin {
    struct dns_tcp_client *client; /* NULL = UDP, and then: */
    const struct dns_udp *udp;
    struct sockaddr_storage peer;
    socklen_t peer_len;
    union { /* the address that was asked, which is the one to answer from */
        struct in_pktinfo ipv4;
        struct in6_pktinfo ipv6;
    } asked;
};

/* A query that waits for its answer. */
struct dns_pending {
    struct dns_local *server;
    struct dns_link_ask ask;
    struct dns_forward forward;
    struct dns_origin origin;
    TAILQ_ENTRY(dns_pending) of_client; /* TCP: see dns_tcp.c */
    uint8_t message[];                  /* for the proxy */
};

/*
 * Takes a message of a client, who gets an answer now or later. False if it is none that could be answered: such as an
 * answer. Nothing is called back from here but dns_udp_answer() and dns_tcp_answer().
 */
bool dns_local_take(struct dns_local *server, const struct dns_origin *origin, const uint8_t *message, size_t len);
/* The client has gone. */
void dns_local_drop(struct dns_pending *pending);

#endif
