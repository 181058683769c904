/*
 * The proxy's side of a conversation: the contract is <socks6/server.h>. Here are its life, bytes, time and events; the
 * answers, and with them the way from one question to the next, are in server_answer.c.
 *
 * Theory of operation. One explicit state, changed by s6_server_enter() alone. There are three kinds:
 *
 *   READ_*  the machine takes bytes (server_input.c) until something is whole;
 *   ASK_*   a question for the caller: next_event() tells it once, and then its answer is taken;
 *   BOUND, DONE, CLOSED: behind the handshake.
 *
 *     READ_REQUEST -+-> ASK_TEARDOWN -+-> ASK_AUTH -+----------------------------------------------+-> proceed()
 *                   |                 |             +-> READ_INITIAL_DATA -> READ_USERPASS          |
 *                   +-----------------+                                   -> ASK_AUTH_AGAIN --------+
 *                   +-> ASK_LOOKUP -----------------------------------------------------------------+
 *
 *     proceed(): ASK_SESSION, ASK_WINDOW, ASK_TOKEN as far as the request calls for them, then grant(): the successful
 *     Authentication Reply, and ASK_DECISION, unless the machine knows the Operation Reply by itself.
 *
 * Every way out before that goes through s6_server_fail(), which needs no memory, or through the failure that its
 * question calls for. A session that was granted, and a token that was spent, stay so whatever becomes of the request.
 */
#include <socks6/server.h>

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "core/server_internal.h"
#include "wire/userpass.h"

/* More than all messages of one conversation together: three Authentication and two Operation Replies. */
#define OUTPUT_CAP 4096u

static const char *const state_names[] = {
    [S6_SERVER_READ_REQUEST] = "read request",
    [S6_SERVER_ASK_TEARDOWN] = "ask for session teardown",
    [S6_SERVER_ASK_LOOKUP] = "ask for session",
    [S6_SERVER_ASK_AUTH] = "ask for authentication",
    [S6_SERVER_READ_INITIAL_DATA] = "read initial data",
    [S6_SERVER_READ_USERPASS] = "read username and password",
    [S6_SERVER_ASK_AUTH_AGAIN] = "ask for authentication again",
    [S6_SERVER_ASK_SESSION] = "ask for new session",
    [S6_SERVER_ASK_WINDOW] = "ask for window",
    [S6_SERVER_ASK_TOKEN] = "ask for token",
    [S6_SERVER_ASK_DECISION] = "ask for decision",
    [S6_SERVER_BOUND] = "bound",
    [S6_SERVER_DONE] = "done",
    [S6_SERVER_CLOSED] = "closed",
};
static_assert(sizeof state_names / sizeof state_names[0] == S6_SERVER_STATE_COUNT, "a name for each state");

void s6_server_enter(struct socks6_server *server, enum s6_server_state state)
{
    server->state = state;
    server->told = false;
    if (server->trace != NULL) {
        server->trace(server->trace_user, state_names[state]);
    }
}

void s6_server_release_request(struct socks6_server *server)
{
    s6_buf_done(&server->in);
    server->has_credentials = false;
    memset(&server->credentials, 0, sizeof server->credentials);
    memset(&server->options.credentials, 0, sizeof server->options.credentials);
    memset(&server->options.session_id, 0, sizeof server->options.session_id);
    if (server->new_id != NULL) {
        s6_wipe(server->new_id, server->new_id_len);
        s6_free(&server->mem, server->new_id);
        server->new_id = NULL;
        server->new_id_len = 0;
    }
}

void s6_server_close(struct socks6_server *server, int reason, const char *why)
{
    s6_server_release_request(server);
    s6_buf_done(&server->set_aside);
    server->close_reason = reason;
    server->close_why = why;
    s6_server_enter(server, S6_SERVER_CLOSED);
}

void socks6_server_config_init(struct socks6_server_config *config)
{
    *config = (struct socks6_server_config){
        .size = sizeof *config,
        .options_cap = SOCKS6_OPTIONS_CAP_12,
        .handshake_ms = 10000,
        .draft = SOCKS6_DRAFT_11,
    };
}

static bool config_is_valid(const struct socks6_server_config *config)
{
    return config->size == sizeof *config && config->options_cap <= SOCKS6_OPTIONS_CAP_12 &&
           (config->draft == SOCKS6_DRAFT_08 || config->draft == SOCKS6_DRAFT_11 || config->draft == SOCKS6_DRAFT_12);
}

int socks6_server_new(const struct socks6_server_config *config, uint64_t now_ms, struct socks6_server **out)
{
    struct socks6_allocator mem;
    struct socks6_server *server;

    if (!config_is_valid(config)) {
        return SOCKS6_ERR_INVALID;
    }
    mem = s6_allocator_or_default(config->allocator);
    server = s6_zalloc(&mem, sizeof *server);
    if (server == NULL) {
        return SOCKS6_ERR_NOMEM;
    }
    server->mem = mem;
    server->trace = config->trace;
    server->trace_user = config->trace_user;
    server->draft = config->draft;
    server->options_cap = config->options_cap;
    server->offer_userpass = config->offer_userpass != 0;
    server->deadline_ms = UINT64_MAX;
    if (config->handshake_ms > 0 && config->handshake_ms < UINT64_MAX - now_ms) {
        server->deadline_ms = now_ms + config->handshake_ms;
    }
    s6_buf_init(&server->in, &server->mem, S6_MESSAGE_MAX(config->options_cap) + S6_USERPASS_REQUEST_MAX, true);
    s6_buf_init(&server->set_aside, &server->mem, SOCKS6_INITIAL_DATA_MAX, true);
    s6_outbox_init(&server->out, &server->mem, OUTPUT_CAP);
    s6_options_init(&server->options);
    server->need = 1; /* the version byte is judged before more is waited for */
    s6_server_enter(server, S6_SERVER_READ_REQUEST);
    *out = server;
    return 0;
}

void socks6_server_free(struct socks6_server *server)
{
    struct socks6_allocator mem;

    if (server == NULL) {
        return;
    }
    s6_server_release_request(server);
    s6_buf_done(&server->set_aside);
    s6_outbox_done(&server->out);
    mem = server->mem;
    s6_free(&mem, server);
}

int socks6_server_input(struct socks6_server *server, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used)
{
    int err = 0;

    *used = 0;
    socks6_server_timeout(server, now_ms);
    while (err == 0 && *used < len && s6_server_is_reading(server)) {
        size_t taken;

        err = s6_server_take(server, bytes + *used, len - *used, &taken);
        *used += taken;
    }
    return err;
}

struct socks6_slice socks6_server_output(const struct socks6_server *server)
{
    return s6_outbox_slice(&server->out);
}

void socks6_server_output_sent(struct socks6_server *server, size_t len)
{
    s6_outbox_sent(&server->out, len);
}

uint64_t socks6_server_deadline(const struct socks6_server *server)
{
    return server->state < S6_SERVER_ASK_DECISION ? server->deadline_ms : UINT64_MAX;
}

void socks6_server_timeout(struct socks6_server *server, uint64_t now_ms)
{
    uint64_t deadline_ms = socks6_server_deadline(server);

    if (deadline_ms != UINT64_MAX && now_ms >= deadline_ms) {
        s6_server_fail(server, SOCKS6_ERR_TIMEOUT, "the request was not complete in time");
    }
}

bool s6_server_can_negotiate(const struct socks6_server *server)
{
    return server->state == S6_SERVER_ASK_AUTH && server->offer_userpass && !server->has_credentials &&
           s6_methods_has(&server->options, SOCKS6_METHOD_USERPASS);
}

static void tell_auth(const struct socks6_server *server, struct socks6_server_event *event)
{
    event->type = SOCKS6_SERVER_AUTHENTICATE;
    event->u.auth.request = &server->request;
    event->u.auth.round = server->state == S6_SERVER_ASK_AUTH ? 1 : 2;
    event->u.auth.has_credentials = server->has_credentials;
    event->u.auth.credentials = server->credentials;
    event->u.auth.can_negotiate = s6_server_can_negotiate(server);
}

static void tell_request(const struct socks6_server *server, struct socks6_server_event *event)
{
    event->type = SOCKS6_SERVER_REQUEST;
    event->u.request.request = &server->request;
    event->u.request.in_session = server->in_session;
    event->u.request.token_spent = server->token_spent;
    event->u.request.initial_data = s6_buf_slice(&server->set_aside);
}

static void tell(const struct socks6_server *server, struct socks6_server_event *event)
{
    switch (server->state) {
    case S6_SERVER_ASK_TEARDOWN:
        event->type = SOCKS6_SERVER_SESSION_TEARDOWN;
        event->u.session.id = server->options.session_id;
        break;
    case S6_SERVER_ASK_LOOKUP:
        event->type = SOCKS6_SERVER_SESSION_LOOKUP;
        event->u.session.id = server->options.session_id;
        break;
    case S6_SERVER_ASK_AUTH:
    case S6_SERVER_ASK_AUTH_AGAIN:
        tell_auth(server, event);
        break;
    case S6_SERVER_ASK_SESSION:
        event->type = SOCKS6_SERVER_SESSION_START;
        break;
    case S6_SERVER_ASK_WINDOW:
        event->type = SOCKS6_SERVER_WINDOW_REQUEST;
        event->u.window.size = server->options.window_request;
        break;
    case S6_SERVER_ASK_TOKEN:
        event->type = SOCKS6_SERVER_TOKEN_SPEND;
        event->u.token.token = server->options.token;
        break;
    case S6_SERVER_ASK_DECISION:
        tell_request(server, event);
        break;
    case S6_SERVER_CLOSED:
        event->type = SOCKS6_SERVER_CLOSE;
        event->u.close.reason = server->close_reason;
        event->u.close.why = server->close_why;
        break;
    case S6_SERVER_READ_REQUEST:
    case S6_SERVER_READ_INITIAL_DATA:
    case S6_SERVER_READ_USERPASS:
    case S6_SERVER_BOUND:
    case S6_SERVER_DONE:
    case S6_SERVER_STATE_COUNT:
        break;
    }
}

void socks6_server_next_event(struct socks6_server *server, struct socks6_server_event *event)
{
    memset(event, 0, sizeof *event);
    if (!server->told) {
        server->told = true;
        tell(server, event);
    } else if (server->state == S6_SERVER_ASK_DECISION) {
        s6_buf_done(&server->set_aside); /* the caller has it since the last call */
    }
}
