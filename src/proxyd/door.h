/*
 * The front door: whichever SOCKS version a client speaks becomes one internal request with one reply.
 *
 * The first byte chooses (04, 05, 06). A door does no I/O: bytes in, bytes out, and the question it has for the connection.
 * Anything else than a version that the listener takes is answered as SOCKS 6 answers a wrong version: the byte 06, then close.
 *
 * It lets nobody in who may not come in: it checks passwords and sessions, and spends tokens, before it tells of a request.
 * That can take a while (DOOR_WAIT).
 */
#ifndef PROXYD_DOOR_H
#define PROXYD_DOOR_H

#include <stdbool.h>

#include <socks6/server.h>

#include "proxyd/config.h"
#include "proxyd/legacy.h"
#include "proxyd/login.h"

enum door_status {
    DOOR_MORE, /* more bytes are needed */
    DOOR_WAIT, /* a password or a session is looked up: `answered` will be called, then offer the bytes again, if only none */
    DOOR_CONFIRM, /* is the client there, or could this be a copy of what it once sent? Call door_confirm() once it is known to be
                     there, then offer the bytes again, if only none */
    DOOR_REQUEST, /* door_request() is there; answer with door_reply() */
    DOOR_CLOSED   /* over: send the output, then close (gently if `lingering`) */
};

struct door_request {
    uint8_t command; /* enum socks6_command, or a number it does not have */
    struct socks6_addr addr;
    /* Stack options of SOCKS 6; of each (leg, level, code) one at most. */
    struct socks6_stack_option stack[SOCKS6_STACK_MAX];
    size_t stack_count;
    bool token_spent; /* an idempotence token was accepted for it: no copy of this request is acted upon */
    /* Application bytes that the door had to take out of the stream; before all others. Valid until the next door call. */
    struct socks6_slice initial_data;
};

struct door;

/* What a door is at. All borrowed for the door's life. */
struct door_setup {
    const struct config *config;
    struct auth *auth;
    const struct socks6_addr *client, *listener; /* the client's address, and where it came in */
    unsigned protocols;                          /* what the listener takes */
    const char *transport;                       /* what carries the stream: see realm.h */
    /*
     * The user whom the client's certificate names, if that is a way to come in: a reference that the door takes, also if
     * door_init() fails. NULL = none. `has_certificate`: there is one, whomever it names.
     */
    struct identity *certified;
    bool has_certificate;
    /* What DOOR_WAIT waited for is there. Never called from within a door call; the door may be freed from it. */
    void (*answered)(struct door *door);
};

/* For door.c and door_socks6.c alone; here so that a connection can hold it. */
struct door {
    struct door_setup setup;
    struct socks6_server *server; /* SOCKS 6, and wrong versions */
    struct legacy legacy;
    struct login login;
    struct store_query query;         /* SOCKS 6: about sessions */
    int asked;                        /* which question (enum socks6_server_event_type) `query` is to answer */
    uint8_t session_id[STORE_ID_LEN]; /* of the session that the request is in */
    struct identity *user;            /* who has come in; NULL = nobody yet, or anonymous */
    struct door_request request;
    const char *why;
    const char *refused; /* why nobody was let in, better than the SOCKS 6 machine knows; NULL = it knows best */
    unsigned version;    /* 0 = none that the listener takes */
    bool closed;
    bool waits; /* for `login` or `query` */
    bool is_confirmed;
    bool is_held; /* `held` is to be answered once the client is confirmed */
    struct socks6_server_event held;
    bool query_waits; /* it is `query`, and the store's until it answers */
};

/* Takes the first byte (not consumed). `door` is zeroed. False: no memory. `setup` is copied. */
SOCKS6_MUST_CHECK bool door_init(struct door *door, const struct door_setup *setup, uint8_t first_byte,
                                 uint64_t now_ms);
/* Also for a door that is zeroed. */
void door_done(struct door *door);

/*
 * The client is known to be there: it does not only repeat what somebody has recorded. Before, no session is started or
 * ended. Passwords are checked and tokens spent all the same: a copy gains nothing by the first, and cannot do the second.
 */
void door_confirm(struct door *door);

/* Offers bytes: `*used` were taken, the others are to be offered again with more behind them (DOOR_MORE), or are the application's. */
SOCKS6_MUST_CHECK enum door_status door_input(struct door *door, const uint8_t *bytes, size_t len, uint64_t now_ms,
                                              size_t *used);

/* Who has come in; NULL = anonymous, or not known yet. Also for a door that is zeroed. */
struct identity *door_user(const struct door *door);
/* The same; the reference goes to the caller, and the door knows nobody any more. */
struct identity *door_take_user(struct door *door);

/* After DOOR_REQUEST; valid as long as the door. */
const struct door_request *door_request(const struct door *door);

/*
 * The outcome. `bound` may be NULL; `stack` are the answers to Stack options, for SOCKS 6. After it only the output is left to be sent. False: no memory for the reply; what the output holds
 * is not what was asked for, and nothing may be relayed.
 */
SOCKS6_MUST_CHECK bool door_reply(struct door *door, enum socks6_reply_code code, const struct socks6_addr *bound,
                                  const struct socks6_stack_option *stack, size_t stack_count);

struct socks6_slice door_output(const struct door *door);
void door_output_sent(struct door *door, size_t len);

/* 4, 5 or 6; 0 for anything else. */
unsigned door_version(const struct door *door);
/* "socks6", "socks5", "socks4a", "socks4"; "-" for anything else. */
const char *door_protocol(const struct door *door);
/* After DOOR_CLOSED: why, for the log; static. */
const char *door_why(const struct door *door);

#endif
