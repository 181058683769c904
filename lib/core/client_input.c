/* Bytes from the proxy: the replies in their order, and what each leads to. The theory of operation is in client.c. */
#include "core/client_internal.h"

#include "wire/message.h"
#include "wire/userpass.h"

/* Replies are taken up to the largest cap of all revisions, whatever the client itself speaks. */
#define REPLY_OPTIONS_CAP SOCKS6_OPTIONS_CAP_12

bool s6_client_is_reading(const struct socks6_client *client)
{
    if (client->state == S6_CLIENT_HANDLE) { /* one reply at a time: there is room for one */
        return (client->pending & 1u << SOCKS6_CLIENT_SECOND_REPLY) == 0;
    }
    return client->state < S6_CLIENT_HANDLE;
}

static int out_of_memory(struct socks6_client *client)
{
    s6_client_close(client, SOCKS6_CLIENT_CLOSE_NOMEM, "out of memory");
    return SOCKS6_ERR_NOMEM;
}

/* The next message starts with the next byte. */
static void expect(struct socks6_client *client, enum s6_client_state state)
{
    s6_buf_done(&client->in);
    client->need = 1;
    s6_client_enter(client, state);
}

static void bad_auth_reply(struct socks6_client *client, int err)
{
    if (err == SOCKS6_ERR_VERSION && client->state == S6_CLIENT_READ_AUTH) {
        client->close_byte = s6_buf_slice(&client->in).data[0];
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_VERSION, "the answer is not one of SOCKS 6");
    } else if (err == SOCKS6_ERR_PROTOCOL) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_PROTOCOL, "an authentication reply of an unknown type");
    } else {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_PROTOCOL, "malformed authentication reply");
    }
}

/* Session options, "Idempotence Options". 0 or SOCKS6_ERR_NOMEM. */
static int note_session(struct socks6_client *client, const struct s6_options *options)
{
    struct socks6_client_session *session = &client->session;

    *session = (struct socks6_client_session){
        .ok = s6_options_has(options, S6_OPTION_SESSION_OK),
        .invalid = s6_options_has(options, S6_OPTION_SESSION_INVALID),
        .untrusted = s6_options_has(options, S6_OPTION_SESSION_UNTRUSTED),
        .has_window = s6_options_has(options, S6_OPTION_WINDOW),
        .token_accepted = s6_options_has(options, S6_OPTION_TOKEN_ACCEPTED),
        .token_rejected = s6_options_has(options, S6_OPTION_TOKEN_REJECTED),
    };
    if (session->has_window) {
        session->window = options->window;
    }
    if (s6_options_has(options, S6_OPTION_SESSION_ID)) {
        s6_buf_done(&client->session_id);
        if (s6_buf_append(&client->session_id, options->session_id.data, options->session_id.len) != 0) {
            return SOCKS6_ERR_NOMEM;
        }
        session->id = s6_buf_slice(&client->session_id);
    }
    return 0;
}

/* "Username/Password Authentication": the proxy has asked for the negotiation on the stream. */
static int start_negotiation(struct socks6_client *client)
{
    struct socks6_slice message = s6_buf_slice(&client->negotiation);

    if (message.len == 0) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_AUTH_FAILED, "the proxy wants a negotiation, which is turned off");
        return 0;
    }
    if (s6_buf_append(&client->out.queue, message.data, message.len) != 0) {
        return out_of_memory(client);
    }
    s6_buf_done(&client->negotiation);
    expect(client, S6_CLIENT_READ_STATUS);
    return 0;
}

/* "Authentication Replies", type 1. Only reply 1 can go on with a method. */
static int auth_failed(struct socks6_client *client, const struct s6_options *options)
{
    bool selects = client->state == S6_CLIENT_READ_AUTH && s6_options_has(options, S6_OPTION_METHOD) &&
                   options->method != SOCKS6_METHOD_UNACCEPTABLE;

    if (client->session.invalid) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_SESSION_INVALID, "the proxy does not know the session");
    } else if (client->session.token_rejected) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_TOKEN_REJECTED, "the idempotence token was rejected");
    } else if (!selects) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_AUTH_FAILED, "authentication failed");
    } else if (!client->is_advertised || options->method != SOCKS6_METHOD_USERPASS) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_NO_METHOD, "the proxy selected a method that was not advertised");
    } else {
        return start_negotiation(client);
    }
    return 0;
}

static int decode_auth(struct socks6_client *client, struct socks6_slice bytes)
{
    struct s6_auth_reply reply;
    int err = s6_auth_reply_decode(bytes.data, bytes.len, REPLY_OPTIONS_CAP, &reply, &client->need);

    if (err == SOCKS6_NEED_MORE) {
        return 0;
    }
    if (err != 0) {
        bad_auth_reply(client, err);
        return 0;
    }
    if (note_session(client, &reply.options) != 0) {
        return out_of_memory(client);
    }
    if (reply.type == S6_AUTH_FAILURE) {
        return auth_failed(client, &reply.options);
    }
    client->is_authenticated = true;
    s6_buf_done(&client->negotiation);
    s6_client_tell(client, SOCKS6_CLIENT_AUTHENTICATED);
    expect(client, S6_CLIENT_READ_REPLY);
    return 0;
}

/* RFC 1929: a failure ends the connection, so there is no use in waiting for the reply behind it. */
static int decode_status(struct socks6_client *client, struct socks6_slice bytes)
{
    uint8_t status;
    int err = s6_userpass_reply_decode(bytes.data, bytes.len, &status, &client->need);

    if (err == SOCKS6_NEED_MORE) {
        return 0;
    }
    if (err != 0) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_PROTOCOL, "malformed username/password reply");
    } else if (status != 0) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_AUTH_FAILED, "the proxy refused username and password");
    } else {
        expect(client, S6_CLIENT_READ_AUTH_AGAIN);
    }
    return 0;
}

static void keep_reply(struct s6_client_reply *kept, const struct s6_reply *reply)
{
    kept->code = reply->code;
    kept->bound = reply->addr;
    kept->stack_count = reply->options.stack_count;
    for (size_t i = 0; i < reply->options.stack_count; i++) {
        kept->stack[i] = reply->options.stack[i];
    }
}

/* "Handling BIND", Listen Backlog: one that was granted makes this connection the listener's handle. */
static bool is_backlog_granted(const struct socks6_client *client)
{
    const struct socks6_stack_option *backlog =
        s6_stack_find(client->first.stack, client->first.stack_count, SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_TCP,
                      SOCKS6_TCP_LISTEN_BACKLOG);

    return client->is_backlog_asked && backlog != NULL && backlog->value > 0;
}

static void after_first_reply(struct socks6_client *client)
{
    switch (client->command) {
    case SOCKS6_COMMAND_NOOP:
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_DONE, "done");
        break;
    case SOCKS6_COMMAND_BIND:
        expect(client, is_backlog_granted(client) ? S6_CLIENT_HANDLE : S6_CLIENT_READ_SECOND);
        break;
    case SOCKS6_COMMAND_CONNECT:
    case SOCKS6_COMMAND_UDP_ASSOCIATE:
        client->is_open = true;
        expect(client, S6_CLIENT_DONE);
        break;
    }
}

static int take_first_reply(struct socks6_client *client, const struct s6_reply *reply)
{
    if (s6_options_has(&reply->options, S6_OPTION_SESSION_ID) &&
        s6_buf_append(&client->reply_session_id, reply->options.session_id.data, reply->options.session_id.len) != 0) {
        return out_of_memory(client);
    }
    keep_reply(&client->first, reply);
    s6_client_tell(client, SOCKS6_CLIENT_REPLY);
    if (reply->code != SOCKS6_REPLY_SUCCESS) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_DONE, "the request failed");
    } else {
        after_first_reply(client);
    }
    return 0;
}

static void take_further_reply(struct socks6_client *client, const struct s6_reply *reply)
{
    keep_reply(&client->second, reply);
    s6_client_tell(client, SOCKS6_CLIENT_SECOND_REPLY);
    if (reply->code != SOCKS6_REPLY_SUCCESS) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_DONE, "the request failed");
    } else if (client->state == S6_CLIENT_HANDLE) {
        expect(client, S6_CLIENT_HANDLE);
    } else {
        client->is_open = true;
        expect(client, S6_CLIENT_DONE);
    }
}

static int decode_reply(struct socks6_client *client, struct socks6_slice bytes)
{
    struct s6_reply reply;
    int err = s6_reply_decode(bytes.data, bytes.len, REPLY_OPTIONS_CAP, &reply, &client->need);

    if (err == SOCKS6_NEED_MORE) {
        return 0;
    }
    if (err != 0) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_PROTOCOL, "malformed operation reply");
        return 0;
    }
    if (client->state == S6_CLIENT_READ_REPLY) {
        return take_first_reply(client, &reply);
    }
    take_further_reply(client, &reply);
    return 0;
}

static int decode(struct socks6_client *client)
{
    struct socks6_slice bytes = s6_buf_slice(&client->in);

    switch (client->state) {
    case S6_CLIENT_READ_AUTH:
    case S6_CLIENT_READ_AUTH_AGAIN:
        return decode_auth(client, bytes);
    case S6_CLIENT_READ_STATUS:
        return decode_status(client, bytes);
    case S6_CLIENT_READ_REPLY:
    case S6_CLIENT_READ_SECOND:
    case S6_CLIENT_HANDLE:
        return decode_reply(client, bytes);
    case S6_CLIENT_DONE:
    case S6_CLIENT_CLOSED:
    case S6_CLIENT_STATE_COUNT:
        break;
    }
    return 0;
}

int s6_client_take(struct socks6_client *client, const uint8_t *bytes, size_t len, size_t *used)
{
    size_t missing = client->need - s6_buf_len(&client->in);
    size_t part = len < missing ? len : missing;

    *used = 0;
    if (s6_buf_append(&client->in, bytes, part) != 0) {
        return out_of_memory(client);
    }
    *used = part;
    return part == missing ? decode(client) : 0;
}
