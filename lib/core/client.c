/*
 * The client's side of a conversation: the contract is <socks6/client.h>, and everything public of it is here.
 *
 * Theory of operation. The request is written at birth, so all that is left to do is to read replies in their order:
 *
 *     READ_AUTH -+-> READ_STATUS -> READ_AUTH_AGAIN -+-> READ_REPLY -+-> DONE
 *                |     (a method was selected)       |               +-> READ_SECOND -> DONE   (BIND)
 *                +-----------------------------------+               +-> HANDLE                (BIND with a backlog)
 *
 * and CLOSED from anywhere. One input() may hold all of them. It takes them all, so that what it leaves is application
 * data: events wait in `pending` with the data they show, each in its own place, and are pulled in the only order in
 * which they can happen. HANDLE alone can see the same event again; there input() waits until it is pulled.
 */
#include <socks6/client.h>

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "core/client_internal.h"
#include "wire/message.h"
#include "wire/userpass.h"

static const char *const state_names[] = {
    [S6_CLIENT_READ_AUTH] = "read authentication reply",
    [S6_CLIENT_READ_STATUS] = "read username/password status",
    [S6_CLIENT_READ_AUTH_AGAIN] = "read second authentication reply",
    [S6_CLIENT_READ_REPLY] = "read operation reply",
    [S6_CLIENT_READ_SECOND] = "read second operation reply",
    [S6_CLIENT_HANDLE] = "hold listener",
    [S6_CLIENT_DONE] = "done",
    [S6_CLIENT_CLOSED] = "closed",
};
static_assert(sizeof state_names / sizeof state_names[0] == S6_CLIENT_STATE_COUNT, "a name for each state");

void s6_client_enter(struct socks6_client *client, enum s6_client_state state)
{
    client->state = state;
    if (client->trace != NULL) {
        client->trace(client->trace_user, state_names[state]);
    }
}

void s6_client_tell(struct socks6_client *client, enum socks6_client_event_type event)
{
    client->pending |= 1u << event;
}

void s6_client_close(struct socks6_client *client, enum socks6_client_close_reason reason, const char *why)
{
    s6_buf_done(&client->in);
    s6_buf_done(&client->negotiation);
    client->close_reason = reason;
    client->close_why = why;
    s6_client_tell(client, SOCKS6_CLIENT_CLOSE);
    s6_client_enter(client, S6_CLIENT_CLOSED);
}

void socks6_client_config_init(struct socks6_client_config *config)
{
    *config = (struct socks6_client_config){
        .size = sizeof *config,
        .draft = SOCKS6_DRAFT_11,
        .command = SOCKS6_COMMAND_CONNECT,
        .allow_negotiation = 1,
    };
}

static void init_buffers(struct socks6_client *client)
{
    size_t request_max = S6_MESSAGE_MAX(SOCKS6_OPTIONS_CAP_12);

    s6_outbox_init(&client->out, &client->mem, request_max + S6_USERPASS_REQUEST_MAX);
    s6_buf_init(&client->negotiation, &client->mem, S6_USERPASS_REQUEST_MAX, true);
    s6_buf_init(&client->in, &client->mem, S6_MESSAGE_MAX(SOCKS6_OPTIONS_CAP_12), true);
    s6_buf_init(&client->session_id, &client->mem, SOCKS6_OPTIONS_CAP_12, true);
    s6_buf_init(&client->reply_session_id, &client->mem, SOCKS6_OPTIONS_CAP_12, true);
}

int socks6_client_new(const struct socks6_client_config *config, uint64_t now_ms, struct socks6_client **out)
{
    struct socks6_allocator mem;
    struct socks6_client *client;
    int err;

    if (config->size != sizeof *config) {
        return SOCKS6_ERR_INVALID;
    }
    mem = s6_allocator_or_default(config->allocator);
    client = s6_zalloc(&mem, sizeof *client);
    if (client == NULL) {
        return SOCKS6_ERR_NOMEM;
    }
    client->mem = mem;
    client->trace = config->trace;
    client->trace_user = config->trace_user;
    client->deadline_ms = UINT64_MAX;
    if (config->handshake_ms > 0 && config->handshake_ms < UINT64_MAX - now_ms) {
        client->deadline_ms = now_ms + config->handshake_ms;
    }
    init_buffers(client);
    err = s6_client_start(client, config);
    if (err != 0) {
        socks6_client_free(client);
        return err;
    }
    client->need = 1; /* the version byte is judged before more is waited for */
    s6_client_enter(client, S6_CLIENT_READ_AUTH);
    *out = client;
    return 0;
}

void socks6_client_free(struct socks6_client *client)
{
    struct socks6_allocator mem;

    if (client == NULL) {
        return;
    }
    s6_outbox_done(&client->out);
    s6_buf_done(&client->negotiation);
    s6_buf_done(&client->in);
    s6_buf_done(&client->session_id);
    s6_buf_done(&client->reply_session_id);
    mem = client->mem;
    s6_free(&mem, client);
}

struct socks6_slice socks6_client_output(const struct socks6_client *client)
{
    return s6_outbox_slice(&client->out);
}

void socks6_client_output_sent(struct socks6_client *client, size_t len)
{
    s6_outbox_sent(&client->out, len);
    if (client->state == S6_CLIENT_READ_STATUS && s6_outbox_slice(&client->out).len == 0) {
        client->is_negotiation_sent = true;
    }
}

/* "False Starts". Never less than it was before, so that a caller may count against it. */
size_t socks6_client_data_credit(const struct socks6_client *client)
{
    if (client->command != SOCKS6_COMMAND_CONNECT) {
        return client->is_open ? SIZE_MAX : 0;
    }
    if (!client->is_advertised || client->is_authenticated || client->is_negotiation_sent) {
        return SIZE_MAX;
    }
    return client->initial_data_len;
}

int socks6_client_input(struct socks6_client *client, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used)
{
    int err = 0;

    *used = 0;
    socks6_client_timeout(client, now_ms);
    while (err == 0 && *used < len && s6_client_is_reading(client)) {
        size_t taken;

        err = s6_client_take(client, bytes + *used, len - *used, &taken);
        *used += taken;
    }
    return err;
}

void socks6_client_eof(struct socks6_client *client)
{
    const char *why = "the proxy closed the connection in the middle of the conversation";

    if (client->state == S6_CLIENT_DONE || client->state == S6_CLIENT_CLOSED) {
        return;
    }
    if (client->state == S6_CLIENT_READ_AUTH) {
        size_t got = s6_buf_len(&client->in);

        if (got == 0) {
            why = "the proxy closed the connection without an answer";
        } else if (got == 1) { /* "Version Mismatch Replies" */
            why = "version mismatch or truncated reply";
        }
    } else if (client->state == S6_CLIENT_HANDLE) {
        why = "the proxy closed the listener";
    }
    s6_client_close(client, SOCKS6_CLIENT_CLOSE_EOF, why);
}

uint64_t socks6_client_deadline(const struct socks6_client *client)
{
    return client->state <= S6_CLIENT_READ_REPLY ? client->deadline_ms : UINT64_MAX;
}

void socks6_client_timeout(struct socks6_client *client, uint64_t now_ms)
{
    uint64_t deadline_ms = socks6_client_deadline(client);

    if (deadline_ms != UINT64_MAX && now_ms >= deadline_ms) {
        s6_client_close(client, SOCKS6_CLIENT_CLOSE_TIMEOUT, "the proxy did not answer in time");
    }
}

static void tell_reply(const struct s6_client_reply *reply, struct socks6_client_event *event)
{
    event->u.reply.code = reply->code;
    event->u.reply.bound = reply->bound;
    event->u.reply.stack = reply->stack;
    event->u.reply.stack_count = reply->stack_count;
}

static void tell_close(const struct socks6_client *client, struct socks6_client_event *event)
{
    if (!client->is_authenticated) { /* what the Authentication Reply said, if it was a failure */
        event->session = client->session;
    }
    event->u.close.reason = client->close_reason;
    event->u.close.byte = client->close_byte;
    event->u.close.why = client->close_why;
}

static enum socks6_client_event_type pull(struct socks6_client *client)
{
    for (unsigned type = SOCKS6_CLIENT_AUTHENTICATED; type <= SOCKS6_CLIENT_CLOSE; type++) {
        if ((client->pending & 1u << type) != 0) {
            client->pending &= ~(1u << type);
            return (enum socks6_client_event_type)type;
        }
    }
    return SOCKS6_CLIENT_NONE;
}

void socks6_client_next_event(struct socks6_client *client, struct socks6_client_event *event)
{
    memset(event, 0, sizeof *event);
    event->type = pull(client);
    switch (event->type) {
    case SOCKS6_CLIENT_NONE:
        break;
    case SOCKS6_CLIENT_AUTHENTICATED:
        event->session = client->session;
        break;
    case SOCKS6_CLIENT_REPLY:
        event->session.id = s6_buf_slice(&client->reply_session_id);
        tell_reply(&client->first, event);
        break;
    case SOCKS6_CLIENT_SECOND_REPLY:
        tell_reply(&client->second, event);
        break;
    case SOCKS6_CLIENT_CLOSE:
        tell_close(client, event);
        break;
    }
}
