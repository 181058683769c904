/*
 * Between the files of the upstream module: upstream.c (queries), upstream_udp.c and upstream_stream.c (channels).
 *
 * A channel is a socket to one server: a UDP socket or a connection. Queries in flight are attached to a channel under
 * an id of their own.
 */
#ifndef DNS_UPSTREAM_INTERNAL_H
#define DNS_UPSTREAM_INTERNAL_H

#include "dns/random.h"
#include "dns/upstream.h"

#define UPSTREAM_BUCKETS 1024u

struct upstream_channel {
    struct upstream *upstream;
    struct dns_server server;
    bool is_stream;
    struct upstream_query *queries; /* list of those attached */
    size_t pending;                 /* how many */
};

struct upstream_query {
    struct upstream *upstream;
    struct upstream_query *all_prev, *all_next;
    struct dns_servers *servers;
    struct dns_request request; /* its options lie behind this struct */
    upstream_done *done;
    void *user;

    uint8_t order[DNS_SERVERS_MAX]; /* of the servers: in which order they are tried */
    unsigned tries, tries_max;      /* begun; at most */
    uint64_t deadline_ms;           /* of all tries */
    bool with_edns;
    bool over_stream; /* this try: TCP, since the answer over UDP was cut */
    bool is_resent;   /* this try was moved to a fresh connection once */
    uint64_t sent_us;

    struct upstream_channel *channel; /* NULL = not in flight */
    uint16_t id;
    struct upstream_query *chain;       /* bucket of (channel, id) */
    struct upstream_query *prev, *next; /* of the channel */

    struct loop_timer timer;   /* the running try */
    struct loop_task task;     /* reports the end */
    struct dns_answer *answer; /* the result; or an error kept in case no other server knows better */
    const char *why;
    uint8_t options[];
};

struct udp_channel;
struct stream;

struct upstream {
    struct loop *loop;
    struct dns_counter_set *counters;
    struct dns_random random;
    struct upstream_query *all;
    struct upstream_query *buckets[UPSTREAM_BUCKETS];
    struct udp_channel *sockets; /* list */
    unsigned socket_count;
    struct stream *streams;  /* list */
    unsigned rotation;       /* resolv.conf's rotate */
    struct loop_timer sweep; /* closes what is idle */
    uint8_t *scratch;        /* UPSTREAM_SCRATCH_LEN: a datagram, or what was read from a connection */
    uint8_t *query_buf;      /* two bytes of length and a message */
};

#define UPSTREAM_SCRATCH_LEN 65536u
#define UPSTREAM_IDLE_MS 10000u /* streams without queries are closed after */

/* ---- upstream.c, for channels ---- */

/* Attaches under an id that is free on this channel. */
void upstream_attach(struct upstream_query *query, struct upstream_channel *channel);
void upstream_detach(struct upstream_query *query);

/*
 * The query as it goes out on its channel, behind two bytes that the length over TCP may take; in upstream->query_buf.
 * -ENOSPC if it cannot be.
 */
SOCKS6_MUST_CHECK int upstream_build(struct upstream_query *query, bool over_stream, bool over_tls, size_t *len);

/*
 * A message came. False: it is no answer to a query of this channel. What it answers goes on or ends, later
 * (loop_defer()) or with its next try; the channel stays as it is.
 */
bool upstream_input(struct upstream_channel *channel, const uint8_t *message, size_t len);

/* The channel is of no use any more: its queries are tried elsewhere. `may_resend`: on a fresh connection to the same server first. */
void upstream_channel_failed(struct upstream_channel *channel, const char *why, bool may_resend);

/* ---- upstream_udp.c ---- */

/* Sends the query's try to `server`. 0: it is attached and on its way; or -errno. */
SOCKS6_MUST_CHECK int udp_send(struct upstream_query *query, const struct dns_server *server);
/* Closes sockets that nobody needs; `all`: every one. */
void udp_sweep(struct upstream *upstream, bool all);

/* ---- upstream_stream.c ---- */

/* As udp_send(), over the connection to `server`, which is opened if there is none. */
SOCKS6_MUST_CHECK int stream_send(struct upstream_query *query, const struct dns_server *server);
/* A try on this channel timed out: a connection that is dead altogether is given up. */
void stream_timed_out(struct upstream_channel *channel, uint64_t waited_ms);
void stream_sweep(struct upstream *upstream, bool all);

#endif
