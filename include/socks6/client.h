/*
 * The client's side of one SOCKS 6 conversation, without any I/O. The mirror of server.h:
 *
 *     socks6_client_output() -> bytes to the proxy: the whole Request is there from the start
 *     socks6_client_data_credit() says how many application bytes may follow right now
 *     bytes from the proxy -> socks6_client_input()
 *     socks6_client_next_event() until it says NONE
 *
 * Slices in an event are valid until the next call on the same object (accessors excepted).
 */
#ifndef SOCKS6_CLIENT_H
#define SOCKS6_CLIENT_H

#include <socks6/error.h>
#include <socks6/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct socks6_client;

/* What to ask for. Fill with socks6_client_config_init(), then change what you want; everything is copied by _new. */
struct socks6_client_config {
    size_t size;                              /* sizeof(struct socks6_client_config), set by _init */
    const struct socks6_allocator *allocator; /* copied; NULL = malloc(3) */
    enum socks6_draft draft;                  /* byte forms to write; default -11 */
    uint64_t handshake_ms;                    /* from creation to the (first) Operation Reply; default 0 = no limit */

    enum socks6_command command; /* default CONNECT */
    struct socks6_addr addr;     /* destination, or wanted bind address; NOOP ignores it */

    const struct socks6_stack_option *stack;
    size_t stack_count;

    /* Username/password, sent with the request (0-RTT) beside an advertisement of method 2, since one public proxy wants both. */
    int has_credentials;
    struct socks6_credentials credentials; /* SOCKS6_ERR_INVALID over 255 bytes each */
    /* If the proxy then asks for the negotiation on the stream ("long form", up to -11), go through with it. Default 1. */
    int allow_negotiation;
    /* CONNECT with credentials: application bytes that follow the request at once, 0 .. 16384 (see data_credit). */
    size_t initial_data_len;

    struct socks6_slice session_id; /* empty = none; a multiple of 4 bytes */
    int request_session;
    int teardown_session; /* with session_id */

    uint32_t request_window; /* window size to ask for; 0 = none */
    int has_token;
    uint32_t token; /* to spend */

    void (*trace)(void *user, const char *state); /* as in struct socks6_server_config */
    void *trace_user;
};

SOCKS6_API void socks6_client_config_init(struct socks6_client_config *config);

/*
 * SOCKS6_ERR_NOMEM; SOCKS6_ERR_INVALID for settings out of range, options past the draft's cap, or session settings that
 * contradict each other: teardown without an id, a new session inside another, a window or token outside any.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_client_new(const struct socks6_client_config *config, uint64_t now_ms,
                                                   struct socks6_client **out);
/* Takes NULL. Wipes credentials. */
SOCKS6_API void socks6_client_free(struct socks6_client *client);

/* Bytes to send to the proxy; valid until the next call. */
SOCKS6_API struct socks6_slice socks6_client_output(const struct socks6_client *client);
SOCKS6_API void socks6_client_output_sent(struct socks6_client *client, size_t len);

/*
 * How many application bytes in total may have been sent so far, counted from the first byte behind the request;
 * SIZE_MAX = as many as you like. ("False Starts", "Authentication Method Advertisement": CONNECT without an
 * advertisement is free from the start; with one, initial_data_len until authentication has succeeded or the last
 * negotiation message is out. BIND: only after the second reply. Others: after the reply.)
 * All output() must be sent before application data, except that negotiation messages follow the initial data: all of
 * what was announced must be sent before output that appears later. The credit never shrinks.
 */
SOCKS6_API size_t socks6_client_data_credit(const struct socks6_client *client);

/*
 * As socks6_server_input(): takes the protocol's bytes; what is left over is application data, or nobody's after CLOSE.
 * It does not wait for events to be pulled, with one exception: see SECOND_REPLY.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_client_input(struct socks6_client *client, const uint8_t *bytes, size_t len,
                                                     uint64_t now_ms, size_t *used);

enum socks6_client_event_type {
    SOCKS6_CLIENT_NONE = 0,
    SOCKS6_CLIENT_AUTHENTICATED, /* a successful Authentication Reply */
    SOCKS6_CLIENT_REPLY,         /* the (first) Operation Reply */
    /*
     * BIND's second one. If the first has granted a Listen Backlog that was asked for, this connection is the listener's
     * handle: it carries no data, and any number of further replies is taken, one per input() (offer the rest again).
     */
    SOCKS6_CLIENT_SECOND_REPLY,
    SOCKS6_CLIENT_CLOSE /* over; also after a REPLY with another code than success, and after NOOP */
};

/* What an Authentication Reply said about the session, in AUTHENTICATED and in CLOSE after a failure. */
struct socks6_client_session {
    struct socks6_slice id; /* a new session's id, or empty. Also filled in REPLY, should the proxy send it there */
    int ok;                 /* Session OK */
    int invalid;            /* Session Invalid: forget the id */
    int untrusted;          /* Session Untrusted (-08, -09): authenticate with every request */
    int has_window;
    struct socks6_window window;
    int token_accepted;
    int token_rejected;
};

enum socks6_client_close_reason {
    SOCKS6_CLIENT_CLOSE_DONE = 0,    /* after a reply; nothing went wrong on the way */
    SOCKS6_CLIENT_CLOSE_AUTH_FAILED, /* the proxy refused our credentials, or wants some */
    SOCKS6_CLIENT_CLOSE_NO_METHOD,   /* it selected a method that we did not advertise */
    SOCKS6_CLIENT_CLOSE_SESSION_INVALID,
    SOCKS6_CLIENT_CLOSE_TOKEN_REJECTED,
    SOCKS6_CLIENT_CLOSE_VERSION,  /* another protocol answered; see `byte` */
    SOCKS6_CLIENT_CLOSE_PROTOCOL, /* a malformed reply */
    SOCKS6_CLIENT_CLOSE_TIMEOUT,
    SOCKS6_CLIENT_CLOSE_NOMEM,
    SOCKS6_CLIENT_CLOSE_EOF /* socks6_client_eof() in mid-conversation */
};

struct socks6_client_event {
    enum socks6_client_event_type type;
    struct socks6_client_session session;
    union {
        struct {
            unsigned code; /* enum socks6_reply_code, or a number the draft does not name */
            struct socks6_addr bound;
            const struct socks6_stack_option *stack; /* borrowed */
            size_t stack_count;
        } reply; /* REPLY, SECOND_REPLY */
        struct {
            enum socks6_client_close_reason reason;
            uint8_t byte;    /* VERSION: the first byte received */
            const char *why; /* static storage, never NULL */
        } close;
    } u;
};

SOCKS6_API void socks6_client_next_event(struct socks6_client *client, struct socks6_client_event *event);

/* The proxy closed its side: in mid-conversation that is CLOSE with EOF (said so if only a lone 06 had come). */
SOCKS6_API void socks6_client_eof(struct socks6_client *client);

/* As in server.h. */
SOCKS6_API uint64_t socks6_client_deadline(const struct socks6_client *client);
SOCKS6_API void socks6_client_timeout(struct socks6_client *client, uint64_t now_ms);

#ifdef __cplusplus
}
#endif
#endif
