/*
 * The caller's answers to the server machine's questions, and what each leads to. The theory of operation is in
 * server.c.
 *
 * An answer is judged before anything changes, so one that is SOCKS6_ERR_INVALID leaves the question open.
 */
#include "core/server_internal.h"

#include <string.h>

#include "base/mem.h"

static bool is_open(const struct socks6_server *server, enum s6_server_state question)
{
    return server->state == question && server->told;
}

static bool window_is_valid(const struct socks6_window *window)
{
    return window == NULL || window->size <= S6_WINDOW_SIZE_MAX;
}

static void set_window(struct socks6_server *server, const struct socks6_window *window)
{
    server->window = window != NULL ? *window : (struct socks6_window){0};
}

/* Closes behind a failure that was queued, or could not be. */
static int end(struct socks6_server *server, int err, const char *why)
{
    if (err != 0) {
        s6_server_fail(server, err, "out of memory");
        return err;
    }
    s6_server_close(server, 0, why);
    return 0;
}

/* Replies that need no decision: what the request asks for is not in the protocol. */
static int reply_by_itself(struct socks6_server *server, enum socks6_reply_code code, int reason)
{
    int err = s6_server_put_reply(server, code, NULL, NULL, 0);

    if (err != 0) {
        return end(server, err, NULL);
    }
    s6_server_close(server, reason, socks6_reply_name(code));
    return 0;
}

/* "Requests": only CONNECT takes a domain name. One that is an IP literal is that address. */
static bool is_unfit_name(const struct socks6_request *request)
{
    struct socks6_addr addr = request->addr;

    if (request->command == SOCKS6_COMMAND_CONNECT || addr.type != SOCKS6_ADDR_NAME) {
        return false;
    }
    socks6_addr_normalize(&addr);
    return addr.type == SOCKS6_ADDR_NAME;
}

static int grant(struct socks6_server *server)
{
    int err = s6_server_put_success(server);

    if (err != 0) {
        return end(server, err, NULL);
    }
    s6_server_release_request(server);
    s6_server_enter(server, S6_SERVER_ASK_DECISION);
    if (server->request.addr.type == 0) {
        return reply_by_itself(server, SOCKS6_REPLY_ADDRESS_UNSUPPORTED, SOCKS6_ERR_ADDRESS);
    }
    if (server->request.command > SOCKS6_COMMAND_UDP_ASSOCIATE) {
        return reply_by_itself(server, SOCKS6_REPLY_COMMAND_UNSUPPORTED, 0);
    }
    if (is_unfit_name(&server->request)) {
        return reply_by_itself(server, SOCKS6_REPLY_ADDRESS_UNSUPPORTED, 0);
    }
    return 0;
}

/* The next question that an authenticated request calls for, or the end of questions. */
static int proceed(struct socks6_server *server)
{
    if (s6_options_has(&server->options, S6_OPTION_SESSION_REQUEST) && !server->session_asked) {
        s6_server_enter(server, S6_SERVER_ASK_SESSION);
        return 0;
    }
    if (server->in_session && s6_options_has(&server->options, S6_OPTION_WINDOW_REQUEST) && server->window.size == 0 &&
        !server->window_asked) {
        s6_server_enter(server, S6_SERVER_ASK_WINDOW);
        return 0;
    }
    if (server->in_session && s6_options_has(&server->options, S6_OPTION_TOKEN) && !server->token_spent) {
        s6_server_enter(server, S6_SERVER_ASK_TOKEN);
        return 0;
    }
    return grant(server);
}

int socks6_server_session_done(struct socks6_server *server, int found, const struct socks6_window *window)
{
    bool lookup = is_open(server, S6_SERVER_ASK_LOOKUP);

    if (!lookup && !is_open(server, S6_SERVER_ASK_TEARDOWN)) {
        return SOCKS6_ERR_INVALID;
    }
    if (lookup && found && !window_is_valid(window)) {
        return SOCKS6_ERR_INVALID;
    }
    if (!found) {
        return end(server, s6_server_put_session_invalid(server), "there is no such session");
    }
    if (!lookup) { /* the request itself is in no session */
        s6_server_enter(server, S6_SERVER_ASK_AUTH);
        return 0;
    }
    server->session_known = true;
    server->in_session = true;
    set_window(server, window);
    return proceed(server);
}

static int refuse(struct socks6_server *server)
{
    if (server->request.addr.type == 0) {
        s6_server_fail(server, SOCKS6_ERR_ADDRESS, "unknown address type");
        return 0;
    }
    const char *why = server->has_credentials ? "wrong credentials" : "no credentials";

    return end(server, s6_server_put_refusal(server), why);
}

static int negotiate(struct socks6_server *server)
{
    int err = s6_server_put_selection(server);

    if (err != 0) {
        return end(server, err, NULL);
    }
    s6_server_release_request(
        server); /* sessions that exist are not authenticated, so nothing in it is needed any more */
    server->negotiated = true;
    server->need = 1;
    s6_server_enter(server,
                    server->request.initial_data_len > 0 ? S6_SERVER_READ_INITIAL_DATA : S6_SERVER_READ_USERPASS);
    return 0;
}

int socks6_server_auth_done(struct socks6_server *server, enum socks6_auth_outcome outcome)
{
    if (!is_open(server, S6_SERVER_ASK_AUTH) && !is_open(server, S6_SERVER_ASK_AUTH_AGAIN)) {
        return SOCKS6_ERR_INVALID;
    }
    switch (outcome) {
    case SOCKS6_AUTH_SUCCESS:
        return proceed(server);
    case SOCKS6_AUTH_FAILURE:
        return refuse(server);
    case SOCKS6_AUTH_NEGOTIATE:
        return s6_server_can_negotiate(server) ? negotiate(server) : SOCKS6_ERR_INVALID;
    }
    return SOCKS6_ERR_INVALID;
}

int socks6_server_session_started(struct socks6_server *server, const uint8_t *id, size_t id_len)
{
    if (!is_open(server, S6_SERVER_ASK_SESSION) || id_len % 4 != 0 || id_len > S6_SESSION_ID_MAX) {
        return SOCKS6_ERR_INVALID;
    }
    server->session_asked = true;
    if (id_len > 0) {
        server->new_id = s6_alloc(&server->mem, id_len);
        if (server->new_id == NULL) {
            return end(server, SOCKS6_ERR_NOMEM, NULL);
        }
        memcpy(server->new_id, id, id_len);
        server->new_id_len = id_len;
        server->in_session = true;
    }
    return proceed(server);
}

int socks6_server_window_done(struct socks6_server *server, const struct socks6_window *window)
{
    if (!is_open(server, S6_SERVER_ASK_WINDOW) || window == NULL || !window_is_valid(window)) {
        return SOCKS6_ERR_INVALID;
    }
    server->window_asked = true;
    set_window(server, window);
    return proceed(server);
}

int socks6_server_token_done(struct socks6_server *server, int accepted, const struct socks6_window *window)
{
    if (!is_open(server, S6_SERVER_ASK_TOKEN) || !window_is_valid(window)) {
        return SOCKS6_ERR_INVALID;
    }
    if (accepted && (window == NULL || window->size == 0)) {
        return SOCKS6_ERR_INVALID; /* a token is always one of a window */
    }
    set_window(server, window);
    if (!accepted) {
        return end(server, s6_server_put_token_rejected(server), "the idempotence token is not eligible");
    }
    server->token_spent = true;
    return proceed(server);
}

int socks6_server_reply(struct socks6_server *server, enum socks6_reply_code code, const struct socks6_addr *bound,
                        const struct socks6_stack_option *stack, size_t stack_count)
{
    bool first = is_open(server, S6_SERVER_ASK_DECISION);
    int err;

    if ((!first && server->state != S6_SERVER_BOUND) || (unsigned)code >= SOCKS6_REPLY_COUNT) {
        return SOCKS6_ERR_INVALID;
    }
    err = s6_server_put_reply(server, code, bound, stack, stack_count);
    if (err == SOCKS6_ERR_NOMEM) {
        return end(server, err, NULL);
    }
    if (err != 0) {
        return SOCKS6_ERR_INVALID;
    }
    s6_buf_done(&server->set_aside);
    if (code != SOCKS6_REPLY_SUCCESS) {
        s6_server_close(server, 0, socks6_reply_name(code));
    } else if (server->request.command == SOCKS6_COMMAND_NOOP) {
        s6_server_close(server, 0, "done");
    } else if (first && server->request.command == SOCKS6_COMMAND_BIND) {
        s6_server_enter(server, S6_SERVER_BOUND);
    } else {
        s6_server_enter(server, S6_SERVER_DONE);
    }
    return 0;
}
