/*
 * The client machine's inside, shared by client.c (interface and events), client_request.c (the request's bytes) and
 * client_input.c (the proxy's replies). The theory of operation is in client.c.
 */
#ifndef S6_CORE_CLIENT_INTERNAL_H
#define S6_CORE_CLIENT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/client.h>

#include "base/bytebuf.h"
#include "core/outbox.h"

/* What is read next. */
enum s6_client_state {
    S6_CLIENT_READ_AUTH,       /* Authentication Reply 1 */
    S6_CLIENT_READ_STATUS,     /* RFC 1929 reply, after a negotiation */
    S6_CLIENT_READ_AUTH_AGAIN, /* Authentication Reply 2 */
    S6_CLIENT_READ_REPLY,      /* Operation Reply; the handshake's deadline ends with it */
    S6_CLIENT_READ_SECOND,     /* BIND's second one */
    S6_CLIENT_HANDLE,          /* a BIND with a backlog: holds the listener, carries no data */
    S6_CLIENT_DONE,            /* the stream is the application's */
    S6_CLIENT_CLOSED,
    S6_CLIENT_STATE_COUNT
};

/* An Operation Reply kept until its event is pulled. */
struct s6_client_reply {
    unsigned code;
    struct socks6_addr bound;
    struct socks6_stack_option stack[SOCKS6_STACK_MAX];
    size_t stack_count;
};

struct socks6_client {
    struct socks6_allocator mem;
    void (*trace)(void *user, const char *state);
    void *trace_user;
    enum socks6_command command;
    size_t initial_data_len;
    bool is_advertised;    /* the request advertises method 2 */
    bool is_backlog_asked; /* the request has a Listen Backlog option */
    uint64_t deadline_ms;

    enum s6_client_state state;
    uint32_t
        pending; /* bit (1 << event type) for each event that was not pulled yet; pulled in the order of the types */

    struct s6_outbox out;
    struct s6_buf negotiation; /* the RFC 1929 request, until it is sent or cannot be needed any more */
    struct s6_buf in;          /* the reply being read */
    size_t need;               /* bytes that `in` must hold before it is worth decoding */

    bool is_authenticated;
    bool is_negotiation_sent;
    bool is_open; /* BIND, UDP ASSOCIATE: application data may pass */

    struct socks6_client_session session; /* of the last Authentication Reply; `id` is `session_id` */
    struct s6_buf session_id;
    struct s6_buf reply_session_id; /* one that came in the first Operation Reply */
    struct s6_client_reply first;
    struct s6_client_reply second;

    enum socks6_client_close_reason close_reason;
    uint8_t close_byte;
    const char *close_why; /* static storage */
};

/* --- client.c --- */

/* The one place where the state changes. */
void s6_client_enter(struct socks6_client *client, enum s6_client_state state);
void s6_client_tell(struct socks6_client *client, enum socks6_client_event_type event);
void s6_client_close(struct socks6_client *client, enum socks6_client_close_reason reason, const char *why);

/* --- client_request.c --- */

/* Queues the Request, and keeps the negotiation message for later. 0, SOCKS6_ERR_INVALID or _NOMEM. */
SOCKS6_MUST_CHECK int s6_client_start(struct socks6_client *client, const struct socks6_client_config *config);

/* --- client_input.c --- */

/* True while the machine takes bytes. */
bool s6_client_is_reading(const struct socks6_client *client);
/*
 * Takes at most `len` (> 0) bytes for the present state and acts on what is whole. 0 or SOCKS6_ERR_NOMEM; `*used` in
 * both cases.
 */
SOCKS6_MUST_CHECK int s6_client_take(struct socks6_client *client, const uint8_t *bytes, size_t len, size_t *used);

#endif
