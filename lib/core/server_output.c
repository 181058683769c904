/*
 * What the server machine writes: Authentication Replies, Operation Replies, last words. The theory of operation is in
 * server.c.
 */
#include "core/server_internal.h"

#include "wire/addr.h"
#include "wire/userpass.h"

/*
 * The most that one Authentication Reply of ours can take: Session ID, Session OK, Window, Accepted or Rejected, Data.
 */
#define AUTH_REPLY_MAX (S6_AUTH_HEAD_LEN + (4u + S6_SESSION_ID_MAX) + 4u + 12u + 4u + 8u)

/*
 * Both parts or none: a status without its reply would shift everything behind it. The status belongs to the method, so
 * it is good as soon as the user was let in, also if the request then fails for another reason.
 */
static int put_auth_reply(struct socks6_server *server, enum s6_auth_type type, const struct s6_options *options,
                          uint8_t status)
{
    const struct s6_auth_reply reply = {.type = (uint8_t)type, .options = *options};
    struct s6_buf *queue = &server->out.queue;
    struct s6_writer writer;

    if (!server->negotiated) {
        return s6_auth_reply_encode(&reply, server->draft, queue);
    }
    int err = s6_buf_reserve(queue, S6_USERPASS_REPLY_LEN + AUTH_REPLY_MAX);
    if (err == 0) {
        err = s6_buf_writer(queue, S6_USERPASS_REPLY_LEN, &writer);
    }
    if (err != 0) {
        return err;
    }
    s6_userpass_reply_encode(&writer, status);
    s6_buf_written(queue, &writer);
    return s6_auth_reply_encode(&reply, server->draft, queue);
}

/* "Idempotence Options": the window as it is after this request, also when its token was rejected. */
static void add_window(const struct socks6_server *server, struct s6_options *options)
{
    if (server->window.size > 0) {
        s6_options_set(options, S6_OPTION_WINDOW);
        options->window = server->window;
    }
}

/* "Username/Password Authentication": 0-RTT data is answered with its status. */
static void add_auth_status(const struct socks6_server *server, struct s6_options *options, uint8_t status)
{
    if (!server->negotiated && server->has_credentials) {
        s6_options_set(options, S6_OPTION_AUTH_DATA);
        options->auth_status = status;
    }
}

int s6_server_put_success(struct socks6_server *server)
{
    struct s6_options options;

    s6_options_init(&options);
    add_window(server, &options);
    add_auth_status(server, &options, 0);
    if (server->new_id_len > 0) {
        s6_options_set(&options, S6_OPTION_SESSION_ID);
        options.session_id = (struct socks6_slice){.data = server->new_id, .len = server->new_id_len};
    }
    if (server->session_known) {
        s6_options_set(&options, S6_OPTION_SESSION_OK);
    }
    if (server->token_spent) {
        s6_options_set(&options, S6_OPTION_TOKEN_ACCEPTED);
    }
    return put_auth_reply(server, S6_AUTH_SUCCESS, &options, 0);
}

int s6_server_put_selection(struct socks6_server *server)
{
    struct s6_options options;

    s6_options_init(&options);
    s6_options_set(&options, S6_OPTION_METHOD);
    options.method = SOCKS6_METHOD_USERPASS;
    return put_auth_reply(server, S6_AUTH_FAILURE, &options, 0);
}

int s6_server_put_refusal(struct socks6_server *server)
{
    struct s6_options options;

    s6_options_init(&options);
    add_auth_status(server, &options, 1);
    return put_auth_reply(server, S6_AUTH_FAILURE, &options, 1);
}

int s6_server_put_session_invalid(struct socks6_server *server)
{
    struct s6_options options;

    s6_options_init(&options);
    s6_options_set(&options, S6_OPTION_SESSION_INVALID);
    return put_auth_reply(server, S6_AUTH_FAILURE, &options, 0);
}

int s6_server_put_token_rejected(struct socks6_server *server)
{
    struct s6_options options;

    s6_options_init(&options);
    add_window(server, &options);
    add_auth_status(server, &options, 0);
    s6_options_set(&options, S6_OPTION_TOKEN_REJECTED);
    return put_auth_reply(server, S6_AUTH_FAILURE, &options, 0);
}

int s6_server_put_reply(struct socks6_server *server, enum socks6_reply_code code, const struct socks6_addr *bound,
                        const struct socks6_stack_option *stack, size_t stack_count)
{
    static const uint8_t any[4];
    struct s6_reply reply = {.code = (uint8_t)code};

    reply.addr = bound != NULL ? *bound : socks6_addr_ipv4(any, 0);
    if (!s6_addr_is_valid(&reply.addr)) {
        return SOCKS6_ERR_INVALID;
    }
    socks6_addr_normalize(&reply.addr);
    s6_options_init(&reply.options);
    for (size_t i = 0; i < stack_count; i++) {
        if (!s6_options_add_stack(&reply.options, &stack[i])) {
            return SOCKS6_ERR_INVALID;
        }
    }
    return s6_reply_encode(&reply, server->draft, &server->out.queue);
}

void s6_server_fail(struct socks6_server *server, int reason, const char *why)
{
    static const uint8_t auth_failure[] = {SOCKS6_VERSION, S6_AUTH_FAILURE, 0, 0};
    static const uint8_t negotiation_failure[] = {1, 1, SOCKS6_VERSION, S6_AUTH_FAILURE, 0, 0};
    static const uint8_t general_failure[] = {
        SOCKS6_VERSION, SOCKS6_REPLY_FAILURE, 0, 0, 0, 0, 0, SOCKS6_ADDR_IPV4, 0, 0, 0, 0};

    if (server->state >= S6_SERVER_ASK_DECISION) {
        s6_outbox_last_word(&server->out, general_failure, sizeof general_failure);
    } else if (server->negotiated) {
        s6_outbox_last_word(&server->out, negotiation_failure, sizeof negotiation_failure);
    } else if (server->state != S6_SERVER_READ_REQUEST || s6_buf_len(&server->in) > 0) {
        s6_outbox_last_word(&server->out, auth_failure, sizeof auth_failure);
    }
    s6_server_close(server, reason, why);
}
