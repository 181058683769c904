/*
 * The server machine's inside, shared by server.c (life and events), server_answer.c (answers), server_input.c (bytes
 * in) and server_output.c (messages out). The theory of operation is in server.c.
 */
#ifndef S6_CORE_SERVER_INTERNAL_H
#define S6_CORE_SERVER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/server.h>

#include "base/bytebuf.h"
#include "core/outbox.h"
#include "wire/message.h"
#include "wire/option.h"

/* In the order in which a conversation can pass through them. */
enum s6_server_state {
    S6_SERVER_READ_REQUEST,
    S6_SERVER_ASK_TEARDOWN,
    S6_SERVER_ASK_LOOKUP,
    S6_SERVER_ASK_AUTH,
    S6_SERVER_READ_INITIAL_DATA, /* announced application data that stands before the negotiation */
    S6_SERVER_READ_USERPASS,     /* RFC 1929 on the stream */
    S6_SERVER_ASK_AUTH_AGAIN,
    S6_SERVER_ASK_SESSION,
    S6_SERVER_ASK_WINDOW,
    S6_SERVER_ASK_TOKEN,
    S6_SERVER_ASK_DECISION, /* REQUEST; the handshake's deadline ends here */
    S6_SERVER_BOUND,        /* BIND, between its two replies */
    S6_SERVER_DONE,         /* the stream is the application's */
    S6_SERVER_CLOSED,
    S6_SERVER_STATE_COUNT
};

/* The longest Session ID that an application may hand out. */
#define S6_SESSION_ID_MAX 256u

struct socks6_server {
    struct socks6_allocator mem;
    void (*trace)(void *user, const char *state);
    void *trace_user;
    enum socks6_draft draft;
    uint32_t options_cap;
    bool offer_userpass;
    uint64_t deadline_ms;

    enum s6_server_state state;
    bool told; /* this state's event was handed out: if it is a question, it is open */

    struct s6_buf in;        /* the request, then the RFC 1929 request; freed with the Authentication Reply */
    size_t need;             /* bytes that `in` must hold before it is worth decoding */
    struct s6_buf set_aside; /* initial data in front of a negotiation; freed after REQUEST was told */
    struct s6_outbox out;

    struct s6_options options;             /* of the request; slices are borrowed from `in` */
    struct socks6_request request;         /* what events show; its `stack` is that of `options` */
    bool has_credentials;                  /* of the round that is being asked about */
    struct socks6_credentials credentials; /* borrowed from `in` */

    bool negotiated;    /* reply 1 has selected a method: reply 2 and its RFC 1929 status are due */
    bool session_asked; /* SESSION_START was answered */
    bool window_asked;  /* WINDOW_REQUEST was answered */
    bool session_known; /* SESSION_LOOKUP found it: Session OK is due */
    bool in_session;    /* so, or started by this request */
    bool token_spent;
    struct socks6_window window; /* the session's, size 0 = none */
    uint8_t *new_id;             /* of the session that this request has started; freed with the Authentication Reply */
    size_t new_id_len;

    int close_reason;      /* 0 or enum socks6_err */
    const char *close_why; /* static storage */
};

/* --- server.c --- */

/* The one place where the state changes. */
void s6_server_enter(struct socks6_server *server, enum s6_server_state state);
/* Ends the conversation; what is queued will still be sent. */
void s6_server_close(struct socks6_server *server, int reason, const char *why);
/* Frees the request's bytes, once nobody looks at them any more; what `request` shows stays. */
void s6_server_release_request(struct socks6_server *server);
/* The question that is open, AUTHENTICATE, may be answered with NEGOTIATE. */
bool s6_server_can_negotiate(const struct socks6_server *server);

/* --- server_input.c --- */

/*
 * Takes at most `len` (> 0) bytes for the present state and acts on what is whole. 0 or SOCKS6_ERR_NOMEM; `*used` in
 * both cases.
 */
SOCKS6_MUST_CHECK int s6_server_take(struct socks6_server *server, const uint8_t *bytes, size_t len, size_t *used);
/* True while the machine takes bytes. */
bool s6_server_is_reading(const struct socks6_server *server);

/* --- server_output.c --- */

/*
 * Each queues one Authentication Reply; after a negotiation the RFC 1929 status goes before it. 0 or SOCKS6_ERR_NOMEM,
 * and then nothing was queued.
 */
SOCKS6_MUST_CHECK int s6_server_put_success(struct socks6_server *server);
SOCKS6_MUST_CHECK int s6_server_put_selection(struct socks6_server *server);
SOCKS6_MUST_CHECK int s6_server_put_refusal(struct socks6_server *server);
SOCKS6_MUST_CHECK int s6_server_put_session_invalid(struct socks6_server *server);
SOCKS6_MUST_CHECK int s6_server_put_token_rejected(struct socks6_server *server);

/* Queues an Operation Reply. 0, SOCKS6_ERR_INVALID or _NOMEM, and then nothing was queued. */
SOCKS6_MUST_CHECK int s6_server_put_reply(struct socks6_server *server, enum socks6_reply_code code,
                                          const struct socks6_addr *bound, const struct socks6_stack_option *stack,
                                          size_t stack_count);

/*
 * Ends the conversation with the failure that fits its stage (nothing if the client has said nothing yet). Needs no
 * memory, so it is also the way out when there is none.
 */
void s6_server_fail(struct socks6_server *server, int reason, const char *why);

#endif
