/*
 * What the files of a connection share: conn.c its life, conn_input.c what the client sends, conn_command.c what it asks
 * for, conn_reply.c what it is told and who takes over then. Private to them.
 */
#ifndef PROXYD_CONN_INTERNAL_H
#define PROXYD_CONN_INTERNAL_H

#include "proxyd/cmd_connect.h"
#include "proxyd/cmd_dns.h"
#include "proxyd/dns_service.h"
#include "proxyd/door.h"
#include "proxyd/log.h"
#include "proxyd/session.h"
#include "proxyd/worker.h"

enum conn_phase { CONN_HANDSHAKE, CONN_UNCONFIRMED, CONN_CONNECTING, CONN_REPLYING, CONN_SERVING, CONN_LINGERING };

/* What a step of conn_run() left behind. */
enum conn_step {
    CONN_AGAIN, /* there may be more to do */
    CONN_WAIT,  /* for an event, a timer, the command */
    CONN_GONE   /* the connection has been freed */
};

struct conn {
    struct worker *worker;
    const struct config *config;
    struct relay *relay;    /* not started; its socket is the client's */
    struct tls_stream *tls; /* the relay's; NULL = none */
    struct loop_timer timer;
    int server_fd; /* connected, while CONN_REPLYING with success; else -1 */
    enum conn_phase phase;
    uint32_t odd_events; /* all that were reported but EPOLLIN and EPOLLOUT */
    uint16_t place;      /* of the listener */
    uint8_t protocols;
    bool readable, writable;
    bool server_is_parked; /* see loop_park() */
    bool client_eof;
    bool has_door;           /* there was a first byte */
    bool door_waits;         /* CONN_HANDSHAKE: for an answer, not for the client */
    bool is_tls_hello;       /* and it begins a TLS connection, which is not for this listener */
    bool door_asks;          /* CONN_UNCONFIRMED: it is the door that waits, and there is no request yet */
    bool may_be_in_syn;      /* all that was read may have come with a SYN */
    bool is_in_handshake;    /* TCP's; known once there is a request */
    bool acts_without_token; /* the listener's */
    bool holds;              /* CONN_CONNECTING: what the door has to say may wait for the reply */
    bool is_shut;            /* CONN_LINGERING: our FIN is out */
    size_t lingered;         /* CONN_LINGERING: bytes thrown away */
    uint8_t *pending;        /* bytes read and not yet taken: an unfinished message, or early data */
    size_t pending_len, pending_size;
    size_t early_taken; /* of those: they left with the SYN to the server */
    uint64_t accepted_ms;
    struct door door;
    struct connect_job job;
    struct dns_relay_job dns_job;
    struct dns_service *dns; /* CONN_SERVING */
    bool is_dns;             /* after a success: the built-in DNS service */
    char why[96];            /* of the entry's reason, where that is put together */
    struct log_access entry; /* the access line, filled as things become known */
};

static inline int conn_client_fd(const struct conn *conn)
{
    return relay_socket_a(conn->relay)->fd;
}

/* The end, in any phase: closes, logs, gives everything back. CONN_GONE. */
enum conn_step conn_end(struct conn *conn, const char *reason);
/* Frees the struct and what only a conversation needs; the relay, descriptors and counts are the caller's. */
void conn_free(struct conn *conn);
/* A connection to the server that will not be used: a reset says so at once. */
void conn_close_server(struct conn *conn);
/* Goes on until the connection waits for something or is gone. Every entry point ends here. */
enum conn_step conn_run(struct conn *conn, enum conn_step step);

/* conn_input.c */
/*
 * recv(2) from the client, out of its TLS if there is: bytes, 0 at the end, or -errno. Keeps `readable`: with -EAGAIN
 * there is nothing to do before the next event.
 */
ssize_t conn_recv(struct conn *conn, void *buf, size_t len);
/* The end after conn_recv() or conn_send() said `error`, an -errno: of TLS with the alert for it. */
enum conn_step conn_lost(struct conn *conn, ssize_t error);
enum conn_step conn_handshake(struct conn *conn);
/* Reads ahead up to the cap: a reset is seen at once, and early data is at hand when the server is there. */
enum conn_step conn_read_early(struct conn *conn);
void conn_pending_clear(struct conn *conn);
/* The door goes on with what is pending, or without more. */
enum conn_step conn_feed_pending(struct conn *conn);

/* conn_command.c: the door has a request. */
enum conn_step conn_take_request(struct conn *conn);
/* Whether what the client has sent so far cannot be a copy, as far as that can be told without asking the kernel. */
bool conn_is_surely_there(const struct conn *conn);
/* The door wants to know it for sure. */
enum conn_step conn_confirm_for_door(struct conn *conn);
/* CONN_UNCONFIRMED: reads ahead, and starts the command, or lets the door go on, if it may. */
enum conn_step conn_await_confirmation(struct conn *conn);

/* conn_reply.c */
/* send(2) to the client; keeps `writable` likewise. What was not taken must come again, first. */
ssize_t conn_send(struct conn *conn, const void *buf, size_t len);
/* Sends what the door has. CONN_AGAIN: all is out. */
enum conn_step conn_flush(struct conn *conn);
enum conn_step conn_start_replying(struct conn *conn, enum socks6_reply_code code, const struct socks6_addr *bound,
                                   const struct socks6_stack_option *stack, size_t stack_count);
enum conn_step conn_reply_out(struct conn *conn);
enum conn_step conn_start_lingering(struct conn *conn);
enum conn_step conn_linger(struct conn *conn);

#endif
