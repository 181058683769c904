/*
 * The proxy's side of one SOCKS 6 conversation, without any I/O.
 *
 * The caller moves bytes and decides; the machine keeps the protocol:
 *
 *     bytes from the client -> socks6_server_input()
 *     socks6_server_next_event() until it says NONE: decide, answer at once or later with the call the event names
 *     socks6_server_output() -> bytes to the client, also after an error
 *     at socks6_server_deadline() -> socks6_server_timeout()
 *
 * Nothing is called back, so nothing re-enters. Slices in an event are valid until the next call on the same object
 * (next_event and output included, accessors excepted). The machine holds no table and no clock: session look-ups and token spends are questions (events) that the caller
 * answers from wherever it keeps them, now or later. While a question is open input() takes nothing (*used is 0).
 *
 * After SOCKS6_SERVER_REQUEST the stream's further bytes belong to the application: input() takes none of them.
 * Once SOCKS6_SERVER_CLOSE was said nothing more will come: send the output, shut down the sending side, drain the
 * client for a while (closing with unread data would reset the connection and lose the reply), close.
 *
 * Order of the questions for one request (each only if the request calls for it):
 *     SESSION_TEARDOWN or SESSION_LOOKUP, AUTHENTICATE (up to two), SESSION_START, WINDOW_REQUEST, TOKEN_SPEND, REQUEST
 */
#ifndef SOCKS6_SERVER_H
#define SOCKS6_SERVER_H

#include <socks6/error.h>
#include <socks6/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct socks6_server;

/* How a conversation is to be led. Fill with socks6_server_config_init(), then change what you want. */
struct socks6_server_config {
    size_t size;                              /* sizeof(struct socks6_server_config), set by _init */
    const struct socks6_allocator *allocator; /* copied; NULL = malloc(3) */
    uint32_t options_cap;                     /* bytes of options taken in a request; default 20480, the most */
    uint64_t handshake_ms;                    /* from creation to the request's decision; default 10000; 0 = no limit */
    enum socks6_draft draft;                  /* form of domain names in replies; default -11 */
    int offer_userpass;                       /* 1: method 2 may be negotiated on the stream ("long form"); default 0 */
    /* Called at each change of state with its new name, for traces. May be NULL. Must not call the machine. */
    void (*trace)(void *user, const char *state);
    void *trace_user;
};

SOCKS6_API void socks6_server_config_init(struct socks6_server_config *config);

/* SOCKS6_ERR_NOMEM, or SOCKS6_ERR_INVALID for a setting out of range. `now_ms`: any monotonic clock, milliseconds. */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_new(const struct socks6_server_config *config, uint64_t now_ms,
                                                   struct socks6_server **out);
/* Takes NULL. Wipes credentials. */
SOCKS6_API void socks6_server_free(struct socks6_server *server);

/*
 * Takes bytes of the protocol and never more: `*used` of `len` were consumed, the rest stays with the caller and is
 * to be offered again after the next answer, or is application data once REQUEST was said.
 * 0, or SOCKS6_ERR_NOMEM (fatal: output() may hold a reply, then CLOSE). A malformed message is no error of this
 * call: the machine writes the reply that the draft asks for and says CLOSE with the reason. Bytes that come at or
 * after the deadline are not taken: that is socks6_server_timeout().
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_input(struct socks6_server *server, const uint8_t *bytes, size_t len,
                                                     uint64_t now_ms, size_t *used);

enum socks6_server_event_type {
    SOCKS6_SERVER_NONE = 0,
    SOCKS6_SERVER_SESSION_LOOKUP,   /* -> socks6_server_session_done() */
    SOCKS6_SERVER_SESSION_TEARDOWN, /* -> socks6_server_session_done(); the session is to be ended now */
    SOCKS6_SERVER_AUTHENTICATE,     /* -> socks6_server_auth_done() */
    SOCKS6_SERVER_SESSION_START,    /* -> socks6_server_session_started() */
    SOCKS6_SERVER_WINDOW_REQUEST,   /* -> socks6_server_window_done() */
    SOCKS6_SERVER_TOKEN_SPEND,      /* -> socks6_server_token_done() */
    SOCKS6_SERVER_REQUEST,          /* -> socks6_server_reply() */
    SOCKS6_SERVER_CLOSE             /* the conversation is over */
};

/*
 * What a request asks for; the same in AUTHENTICATE and REQUEST. One exception: a request with an unknown address type
 * cannot be read to its end. AUTHENTICATE then shows `addr.type` 0 and no credentials; SUCCESS means that none were
 * needed (the machine answers with reply code 8), anything else is a failure, and REQUEST is never said.
 */
struct socks6_request {
    uint8_t command;         /* enum socks6_command; unknown numbers are answered by the machine with reply code 7 */
    struct socks6_addr addr; /* as it came; see socks6_addr_normalize() */
    /* Stack options after the rules for duplicates and for leg 3, out-of-range values dropped; borrowed. */
    const struct socks6_stack_option *stack;
    size_t stack_count;
    size_t initial_data_len; /* announced; 0 if none was */
};

struct socks6_server_event {
    enum socks6_server_event_type type;
    union {
        struct {
            struct socks6_slice id; /* 4 bytes and more, a multiple of 4 */
        } session;                  /* SESSION_LOOKUP, SESSION_TEARDOWN */
        struct {
            const struct socks6_request *request;
            int round; /* 1: from the request alone; 2: after a negotiation on the stream */
            int has_credentials;
            struct socks6_credentials credentials; /* if has_credentials */
            int can_negotiate;                     /* SOCKS6_AUTH_NEGOTIATE may be answered */
        } auth;
        struct {
            uint32_t size; /* wanted, 1 .. 2^31-1 (clamped) */
        } window;          /* WINDOW_REQUEST */
        struct {
            uint32_t token;
        } token; /* TOKEN_SPEND */
        struct {
            const struct socks6_request *request;
            int in_session;                   /* the request runs inside a session, the one that it started included */
            int token_spent;                  /* a token was accepted for it: acting early is safe */
            struct socks6_slice initial_data; /* application data that a negotiation made the machine set aside; it
                                                 comes before what is still in the stream */
        } request;
        struct {
            int reason;      /* 0 = it ended as it should, be it with a refusal; else enum socks6_err */
            const char *why; /* for a log; static storage, never NULL */
        } close;
    } u;
};

/* The next thing to know, or NONE: more input, or an answer to an open question, is awaited. */
SOCKS6_API void socks6_server_next_event(struct socks6_server *server, struct socks6_server_event *event);

/*
 * Answers. SOCKS6_ERR_INVALID if the question is not open, SOCKS6_ERR_NOMEM (then CLOSE follows).
 */

/*
 * To SESSION_LOOKUP: found = 1 if the session lives and may be used here, with its window if it has one (else NULL).
 * To SESSION_TEARDOWN: found = 1 if there was such a session; `window` is ignored.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_session_done(struct socks6_server *server, int found,
                                                            const struct socks6_window *window);

enum socks6_auth_outcome {
    SOCKS6_AUTH_SUCCESS,  /* nothing was needed, or the credentials are good */
    SOCKS6_AUTH_FAILURE,  /* refused; no second try */
    SOCKS6_AUTH_NEGOTIATE /* go on with username/password on the stream; only if the event said can_negotiate */
};
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_auth_done(struct socks6_server *server,
                                                         enum socks6_auth_outcome outcome);

/* `id` of 0 bytes: not granted, and the request goes on outside a session. Copied; a multiple of 4 bytes, at most 256. */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_session_started(struct socks6_server *server, const uint8_t *id,
                                                               size_t id_len);

/* The window that the session now has; size 0 = not granted. */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_window_done(struct socks6_server *server,
                                                           const struct socks6_window *window);

/*
 * `window`: the session's window after this spend; NULL if it has none, and then the token cannot have been accepted
 * (SOCKS6_ERR_INVALID). The question is asked without a window too. Rejected: nothing is done and CLOSE follows; a
 * session that this very request has started lives on, but its ID is not sent in a failure.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_token_done(struct socks6_server *server, int accepted,
                                                          const struct socks6_window *window);

/*
 * The Operation Reply. `bound` may be NULL (0.0.0.0:0 is sent); `stack` are the answers to Stack options.
 * For BIND a successful first reply leaves the conversation open for the second; everything else ends it
 * (CLOSE with reason 0 follows a failure and NOOP; after a success the connection is the application's and no CLOSE is
 * said).
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_server_reply(struct socks6_server *server, enum socks6_reply_code code,
                                                     const struct socks6_addr *bound,
                                                     const struct socks6_stack_option *stack, size_t stack_count);

/* Bytes to send, valid until the next call; len 0 = none. Take what the socket took with _sent(). */
SOCKS6_API struct socks6_slice socks6_server_output(const struct socks6_server *server);
SOCKS6_API void socks6_server_output_sent(struct socks6_server *server, size_t len);

/* When timeout() is due, in the caller's milliseconds; UINT64_MAX = never. Ends with the REQUEST event. */
SOCKS6_API uint64_t socks6_server_deadline(const struct socks6_server *server);
/* Ends an unfinished conversation (CLOSE with SOCKS6_ERR_TIMEOUT) if its deadline has passed; else does nothing. */
SOCKS6_API void socks6_server_timeout(struct socks6_server *server, uint64_t now_ms);

#ifdef __cplusplus
}
#endif
#endif
