/*
 * Bytes from the client: the request, initial data to set aside, the RFC 1929 request. The theory of operation is in
 * server.c.
 */
#include "core/server_internal.h"

#include <string.h>

#include "wire/userpass.h"

bool s6_server_is_reading(const struct socks6_server *server)
{
    return server->state == S6_SERVER_READ_REQUEST || server->state == S6_SERVER_READ_INITIAL_DATA ||
           server->state == S6_SERVER_READ_USERPASS;
}

/* Appends to `in` what is still needed. True once that much is there; `*err` is 0 or SOCKS6_ERR_NOMEM. */
static bool gather(struct socks6_server *server, const uint8_t *bytes, size_t len, size_t *used, int *err)
{
    size_t missing = server->need - s6_buf_len(&server->in);
    size_t part = len < missing ? len : missing;

    *used = 0;
    *err = s6_buf_append(&server->in, bytes, part);
    if (*err != 0) {
        s6_server_fail(server, *err, "out of memory");
        return false;
    }
    *used = part;
    return part == missing;
}

static void reject_request(struct socks6_server *server, int reason)
{
    static const uint8_t version_mismatch[] = {SOCKS6_VERSION};

    switch (reason) {
    case SOCKS6_ERR_VERSION: /* "Version Mismatch Replies" */
        s6_outbox_last_word(&server->out, version_mismatch, sizeof version_mismatch);
        s6_server_close(server, reason, "the first byte is not that of SOCKS 6");
        break;
    case SOCKS6_ERR_TOO_LONG:
        s6_server_fail(server, reason, "the request carries more bytes of options than allowed");
        break;
    default:
        s6_server_fail(server, reason, "malformed request");
        break;
    }
}

/*
 * The request cannot be read to its end, so no session, credential or token in it can be told: whether nothing of the
 * kind was needed decides what the client may learn. (`request.addr` stays all zero: that is what AUTHENTICATE shows.)
 */
static void ask_about_unknown_address(struct socks6_server *server, uint8_t command)
{
    s6_buf_done(&server->in);
    server->request.command = command;
    s6_server_enter(server, S6_SERVER_ASK_AUTH);
}

static void request_is_whole(struct socks6_server *server, const struct s6_request *request)
{
    bool in_session = s6_options_in_session(&request->options);

    server->options = request->options;
    server->request = (struct socks6_request){
        .command = request->command,
        .addr = request->addr,
        .stack = server->options.stack,
        .stack_count = server->options.stack_count,
    };
    /* "Authentication Method options": initial data is for CONNECT. Inside a session an advertisement means nothing. */
    if (request->command == SOCKS6_COMMAND_CONNECT && !in_session) {
        server->request.initial_data_len = request->options.initial_data_len;
    }
    if (server->request.initial_data_len > SOCKS6_INITIAL_DATA_MAX) {
        s6_server_fail(server, SOCKS6_ERR_TOO_LONG, "more than 16384 bytes of initial data are announced");
        return;
    }
    if (s6_options_has(&server->options, S6_OPTION_AUTH_DATA)) {
        server->has_credentials = true;
        server->credentials = server->options.credentials;
    }
    if (in_session) {
        s6_server_enter(server, S6_SERVER_ASK_LOOKUP);
    } else if (s6_options_has(&server->options, S6_OPTION_SESSION_TEARDOWN)) {
        s6_server_enter(server, S6_SERVER_ASK_TEARDOWN);
    } else {
        s6_server_enter(server, S6_SERVER_ASK_AUTH);
    }
}

static int take_request(struct socks6_server *server, const uint8_t *bytes, size_t len, size_t *used)
{
    struct s6_request request;
    struct socks6_slice gathered;
    int err;

    if (!gather(server, bytes, len, used, &err)) {
        return err;
    }
    gathered = s6_buf_slice(&server->in);
    err = s6_request_decode(gathered.data, gathered.len, server->options_cap, &request, &server->need);
    if (err == SOCKS6_NEED_MORE) {
        return 0;
    }
    if (err == SOCKS6_ERR_ADDRESS) {
        ask_about_unknown_address(server, request.command);
    } else if (err != 0) {
        reject_request(server, err);
    } else {
        request_is_whole(server, &request);
    }
    return 0;
}

/*
 * "Authentication Method options": the announced bytes follow the request at once, so they stand before the
 * negotiation, although they belong behind it.
 */
static int take_initial_data(struct socks6_server *server, const uint8_t *bytes, size_t len, size_t *used)
{
    size_t missing = server->request.initial_data_len - s6_buf_len(&server->set_aside);
    size_t part = len < missing ? len : missing;
    int err = s6_buf_append(&server->set_aside, bytes, part);

    *used = 0;
    if (err != 0) {
        s6_server_fail(server, err, "out of memory");
        return err;
    }
    *used = part;
    if (part == missing) {
        s6_server_enter(server, S6_SERVER_READ_USERPASS);
    }
    return 0;
}

static int take_userpass(struct socks6_server *server, const uint8_t *bytes, size_t len, size_t *used)
{
    struct socks6_slice gathered;
    int err;

    if (!gather(server, bytes, len, used, &err)) {
        return err;
    }
    gathered = s6_buf_slice(&server->in);
    err = s6_userpass_request_decode(gathered.data, gathered.len, &server->credentials, &server->need);
    if (err == 0) {
        server->has_credentials = true;
        s6_server_enter(server, S6_SERVER_ASK_AUTH_AGAIN);
    } else if (err != SOCKS6_NEED_MORE) {
        s6_server_fail(server, err, "malformed username/password message");
    }
    return 0;
}

int s6_server_take(struct socks6_server *server, const uint8_t *bytes, size_t len, size_t *used)
{
    switch (server->state) {
    case S6_SERVER_READ_REQUEST:
        return take_request(server, bytes, len, used);
    case S6_SERVER_READ_INITIAL_DATA:
        return take_initial_data(server, bytes, len, used);
    case S6_SERVER_READ_USERPASS:
        return take_userpass(server, bytes, len, used);
    case S6_SERVER_ASK_TEARDOWN:
    case S6_SERVER_ASK_LOOKUP:
    case S6_SERVER_ASK_AUTH:
    case S6_SERVER_ASK_AUTH_AGAIN:
    case S6_SERVER_ASK_SESSION:
    case S6_SERVER_ASK_WINDOW:
    case S6_SERVER_ASK_TOKEN:
    case S6_SERVER_ASK_DECISION:
    case S6_SERVER_BOUND:
    case S6_SERVER_DONE:
    case S6_SERVER_CLOSED:
    case S6_SERVER_STATE_COUNT:
        break;
    }
    *used = 0;
    return 0;
}
