/* One whole conversation in memory; see talk.h. */
#include "talk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "replies.h"

#include "base/bytebuf.h"
#include "base/mem.h"
#include "wire/message.h"

/* The first token of a window that the proxy grants. */
#define WINDOW_BASE 1000u

__attribute__((format(printf, 2, 3))) static void note(struct talk_log *log, const char *format, ...)
{
    va_list arguments;
    int len;

    va_start(arguments, format);
    len = vsnprintf(log->text + log->len, sizeof log->text - log->len, format, arguments);
    va_end(arguments);
    assert_true(len >= 0 && (size_t)len < sizeof log->text - log->len);
    log->len += (size_t)len;
}

static void note_stack(struct talk_log *log, const struct socks6_stack_option *stack, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        note(log, " stack=%u.%u.%u:%u", stack[i].leg, stack[i].level, stack[i].code, stack[i].value);
    }
}

static void note_addr(struct talk_log *log, const struct socks6_addr *addr)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    if (addr->type == 0) {
        note(log, " addr=unknown");
        return;
    }
    (void)socks6_addr_format(addr, text, sizeof text);
    note(log, " addr=%s", text);
}

/* --- The bytes' way --- */

static void pipe_put(struct talk_pipe *pipe, const uint8_t *bytes, size_t len)
{
    assert_true(len <= sizeof pipe->bytes - pipe->sent);
    if (len > 0) {
        memcpy(pipe->bytes + pipe->sent, bytes, len);
    }
    pipe->sent += len;
}

/* One more delivery. False if there is nothing. */
static bool pipe_deliver(struct talk_pipe *pipe)
{
    size_t available = pipe->sent - pipe->delivered;
    size_t piece = available;

    if (pipe->how.chunk > 0 && piece > pipe->how.chunk) {
        piece = pipe->how.chunk;
    }
    if (pipe->delivered < pipe->how.cut && piece > pipe->how.cut - pipe->delivered) {
        piece = pipe->how.cut - pipe->delivered;
    }
    pipe->delivered += piece;
    return piece > 0;
}

/* --- The proxy's answers --- */

static bool slice_is(struct socks6_slice slice, const char *text)
{
    return text != NULL && slice.len == strlen(text) && memcmp(slice.data, text, slice.len) == 0;
}

static int answer_session(struct talk *talk, const struct socks6_server_event *event, bool is_teardown)
{
    bool found = slice_is(event->u.session.id, talk->proxy.known_session);

    note(&talk->server_log, "%s %.*s\n", is_teardown ? "TEARDOWN" : "LOOKUP", (int)event->u.session.id.len,
         (const char *)event->u.session.id.data);
    talk->session_window = talk->proxy.window;
    return socks6_server_session_done(talk->server, found, talk->proxy.window.size > 0 ? &talk->proxy.window : NULL);
}

static int answer_auth(struct talk *talk, const struct socks6_server_event *event)
{
    struct socks6_credentials credentials = event->u.auth.credentials;
    bool good = talk->proxy.username == NULL;

    note(&talk->server_log, "AUTHENTICATE round=%d command=%u negotiable=%d", event->u.auth.round,
         event->u.auth.request->command, event->u.auth.can_negotiate);
    note_addr(&talk->server_log, &event->u.auth.request->addr);
    if (event->u.auth.has_credentials) {
        note(&talk->server_log, " %.*s:%.*s", (int)credentials.username.len, (const char *)credentials.username.data,
             (int)credentials.password.len, (const char *)credentials.password.data);
        good = good || (slice_is(credentials.username, talk->proxy.username) &&
                        slice_is(credentials.password, talk->proxy.password));
    }
    note(&talk->server_log, "\n");
    if (event->u.auth.can_negotiate && (talk->proxy.prefers_negotiation || !good)) {
        return socks6_server_auth_done(talk->server, SOCKS6_AUTH_NEGOTIATE);
    }
    return socks6_server_auth_done(talk->server, good ? SOCKS6_AUTH_SUCCESS : SOCKS6_AUTH_FAILURE);
}

static int answer_start(struct talk *talk)
{
    const char *id = talk->proxy.new_session;

    note(&talk->server_log, "START\n");
    return socks6_server_session_started(talk->server, (const uint8_t *)id, id != NULL ? strlen(id) : 0);
}

static int answer_window(struct talk *talk, const struct socks6_server_event *event)
{
    uint32_t size = event->u.window.size < talk->proxy.grant ? event->u.window.size : talk->proxy.grant;

    note(&talk->server_log, "WINDOW %u\n", event->u.window.size);
    talk->session_window = (struct socks6_window){.base = WINDOW_BASE, .size = size};
    return socks6_server_window_done(talk->server, &talk->session_window);
}

static int answer_token(struct talk *talk, const struct socks6_server_event *event)
{
    struct socks6_window *window = &talk->session_window;
    bool fits = event->u.token.token - window->base < window->size;

    note(&talk->server_log, "TOKEN %u\n", event->u.token.token);
    if (fits && event->u.token.token == window->base) {
        window->base++;
    }
    return socks6_server_token_done(talk->server, fits, window->size > 0 ? window : NULL);
}

static void upload(struct talk *talk, const uint8_t *bytes, size_t len)
{
    assert_true(len <= sizeof talk->uploaded - talk->uploaded_len);
    if (len > 0) {
        memcpy(talk->uploaded + talk->uploaded_len, bytes, len);
    }
    talk->uploaded_len += len;
}

static int answer_request(struct talk *talk, const struct socks6_server_event *event)
{
    static const uint8_t bound_bytes[4] = {198, 51, 100, 7};
    struct socks6_addr bound = socks6_addr_ipv4(bound_bytes, 4000);
    const struct socks6_request *request = event->u.request.request;
    bool is_good = talk->proxy.code == SOCKS6_REPLY_SUCCESS;

    note(&talk->server_log, "REQUEST command=%u session=%d spent=%d announced=%zu", request->command,
         event->u.request.in_session, event->u.request.token_spent, request->initial_data_len);
    note_addr(&talk->server_log, &request->addr);
    note_stack(&talk->server_log, request->stack, request->stack_count);
    note(&talk->server_log, "\n");
    talk->command = (enum socks6_command)request->command;
    talk->is_requested = true;
    talk->wants_second = is_good && talk->command == SOCKS6_COMMAND_BIND;
    talk->is_open = is_good && !talk->wants_second && talk->command != SOCKS6_COMMAND_NOOP;
    upload(talk, event->u.request.initial_data.data, event->u.request.initial_data.len);
    return socks6_server_reply(talk->server, talk->proxy.code, &bound, talk->proxy.stack, talk->proxy.stack_count);
}

static int answer_second(struct talk *talk)
{
    static const uint8_t peer_bytes[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 9};
    struct socks6_addr peer = socks6_addr_ipv6(peer_bytes, 5000);

    talk->wants_second = false;
    talk->is_open = talk->proxy.second_code == SOCKS6_REPLY_SUCCESS;
    return socks6_server_reply(talk->server, talk->proxy.second_code, &peer, NULL, 0);
}

static int answer(struct talk *talk, const struct socks6_server_event *event)
{
    switch (event->type) {
    case SOCKS6_SERVER_SESSION_LOOKUP:
        return answer_session(talk, event, false);
    case SOCKS6_SERVER_SESSION_TEARDOWN:
        return answer_session(talk, event, true);
    case SOCKS6_SERVER_AUTHENTICATE:
        return answer_auth(talk, event);
    case SOCKS6_SERVER_SESSION_START:
        return answer_start(talk);
    case SOCKS6_SERVER_WINDOW_REQUEST:
        return answer_window(talk, event);
    case SOCKS6_SERVER_TOKEN_SPEND:
        return answer_token(talk, event);
    case SOCKS6_SERVER_REQUEST:
        return answer_request(talk, event);
    case SOCKS6_SERVER_CLOSE:
        note(&talk->server_log, "CLOSE %d %s\n", event->u.close.reason, event->u.close.why);
        talk->is_server_closed = true;
        talk->is_open = false;
        return 0;
    case SOCKS6_SERVER_NONE:
        break;
    }
    return 0;
}

/* --- Both ends --- */

static void keep(int *first, int err)
{
    if (*first == 0) {
        *first = err;
    }
}

/* What the server machine has to say after something happened. True if that was anything. */
static bool server_events(struct talk *talk)
{
    struct socks6_server_event event;
    bool any = false;

    for (;;) {
        socks6_server_next_event(talk->server, &event);
        if (event.type == SOCKS6_SERVER_NONE) {
            return any;
        }
        assert_true(!talk->is_server_closed); /* nothing comes after CLOSE */
        keep(&talk->server_error, answer(talk, &event));
        any = true;
    }
}

static void server_flush(struct talk *talk)
{
    for (;;) {
        struct socks6_slice out = socks6_server_output(talk->server);

        if (out.len == 0) {
            break;
        }
        pipe_put(&talk->down, out.data, out.len);
        socks6_server_output_sent(talk->server, out.len);
    }
    if (talk->wants_second) {
        keep(&talk->server_error, answer_second(talk));
        (void)server_events(talk);
        server_flush(talk);
    }
    if (talk->is_open && talk->download_sent < talk->download_len) {
        pipe_put(&talk->down, talk->download, talk->download_len);
        talk->download_sent = talk->download_len;
    }
}

static void server_turn(struct talk *talk)
{
    struct talk_pipe *up = &talk->up;
    size_t used;

    do {
        const uint8_t *bytes = up->bytes + up->taken;
        size_t len = up->delivered - up->taken;

        keep(&talk->server_error, socks6_server_input(talk->server, bytes, len, 0, &used));
        assert_true(used <= len);
        assert_true(used == 0 || !talk->is_requested);
        up->taken += used;
    } while (server_events(talk) || used > 0);
    if (talk->is_requested) {
        upload(talk, up->bytes + up->taken, up->delivered - up->taken);
        up->taken = up->delivered;
    }
    server_flush(talk);
}

static void note_session(struct talk_log *log, const struct socks6_client_session *session)
{
    if (session->id.len > 0) {
        note(log, " id=%.*s", (int)session->id.len, (const char *)session->id.data);
    }
    if (session->has_window) {
        note(log, " window=%u+%u", session->window.base, session->window.size);
    }
    note(log, "%s%s%s%s%s", session->ok ? " ok" : "", session->invalid ? " invalid" : "",
         session->untrusted ? " untrusted" : "", session->token_accepted ? " accepted" : "",
         session->token_rejected ? " rejected" : "");
}

static void note_client_event(struct talk *talk, const struct socks6_client_event *event)
{
    struct talk_log *log = &talk->client_log;

    switch (event->type) {
    case SOCKS6_CLIENT_AUTHENTICATED:
        note(log, "AUTHENTICATED");
        break;
    case SOCKS6_CLIENT_REPLY:
    case SOCKS6_CLIENT_SECOND_REPLY:
        note(log, "%s %u", event->type == SOCKS6_CLIENT_REPLY ? "REPLY" : "SECOND", event->u.reply.code);
        note_addr(log, &event->u.reply.bound);
        note_stack(log, event->u.reply.stack, event->u.reply.stack_count);
        talk->is_client_open =
            event->u.reply.code == SOCKS6_REPLY_SUCCESS &&
            (event->type == SOCKS6_CLIENT_SECOND_REPLY || talk->client_config.command == SOCKS6_COMMAND_CONNECT ||
             talk->client_config.command == SOCKS6_COMMAND_UDP_ASSOCIATE);
        break;
    case SOCKS6_CLIENT_CLOSE:
        note(log, "CLOSE %u byte=%u %s", event->u.close.reason, event->u.close.byte, event->u.close.why);
        talk->is_client_closed = true;
        break;
    case SOCKS6_CLIENT_NONE:
        break;
    }
    note_session(log, &event->session);
    note(log, "\n");
}

static void client_events(struct talk *talk)
{
    struct socks6_client_event event;

    for (;;) {
        socks6_client_next_event(talk->client, &event);
        if (event.type == SOCKS6_CLIENT_NONE) {
            return;
        }
        assert_true(!talk->is_client_closed); /* nothing comes after CLOSE */
        note_client_event(talk, &event);
    }
}

/* Only Authentication Data goes; an advertisement stays. */
static void put_stripped(struct talk *talk, struct socks6_slice out)
{
    const struct socks6_allocator mem = s6_allocator_or_default(NULL);
    struct s6_request request;
    struct s6_buf buf;
    size_t size;
    int err = s6_request_decode(out.data, out.len, SOCKS6_OPTIONS_CAP_12, &request, &size);

    assert_true(err == 0 && size == out.len);
    request.options.present &= ~(UINT32_C(1) << (unsigned)S6_OPTION_AUTH_DATA);
    s6_buf_init(&buf, &mem, TALK_MAX, false);
    err = s6_request_encode(&request, talk->client_config.draft, &buf);
    assert_true(err == 0);
    pipe_put(&talk->up, s6_buf_slice(&buf).data, s6_buf_len(&buf));
    s6_buf_done(&buf);
}

/* All output first, then as much application data as may be sent. */
static void client_flush(struct talk *talk)
{
    size_t credit;

    for (;;) {
        struct socks6_slice out = socks6_client_output(talk->client);

        if (out.len == 0) {
            break;
        }
        if (talk->strips_auth_data && talk->up.sent == 0) {
            put_stripped(talk, out);
        } else {
            pipe_put(&talk->up, out.data, out.len);
        }
        socks6_client_output_sent(talk->client, out.len);
    }
    credit = socks6_client_data_credit(talk->client);
    assert_true(credit >= talk->upload_sent);
    if (credit > talk->upload_len) {
        credit = talk->upload_len;
    }
    if (!talk->is_client_closed) {
        pipe_put(&talk->up, talk->upload + talk->upload_sent, credit - talk->upload_sent);
        talk->upload_sent = credit;
    }
}

static void client_turn(struct talk *talk)
{
    struct talk_pipe *down = &talk->down;
    const uint8_t *bytes = down->bytes + down->taken;
    size_t len = down->delivered - down->taken;
    size_t used;

    keep(&talk->client_error, socks6_client_input(talk->client, bytes, len, 0, &used));
    assert_true(used <= len);
    down->taken += used;
    client_events(talk);
    if (talk->is_client_open) {
        size_t rest = down->delivered - down->taken;

        memcpy(talk->downloaded + talk->downloaded_len, down->bytes + down->taken, rest);
        talk->downloaded_len += rest;
        down->taken = down->delivered;
    }
    client_flush(talk);
}

bool talk_is_well_formed(const struct talk *talk)
{
    struct replies replies;

    replies_read(talk->down.bytes, talk->down.sent - talk->download_sent, &replies);
    return replies.is_well_formed;
}

void talk_init(struct talk *talk)
{
    static const uint8_t destination[4] = {192, 0, 2, 1};

    memset(talk, 0, sizeof *talk);
    socks6_client_config_init(&talk->client_config);
    socks6_server_config_init(&talk->server_config);
    talk->client_config.addr = socks6_addr_ipv4(destination, 80);
}

void talk_run(struct talk *talk)
{
    int err = socks6_server_new(&talk->server_config, 0, &talk->server);

    keep(&talk->server_error, err);
    talk->client_new = socks6_client_new(&talk->client_config, 0, &talk->client);
    if (err == 0 && talk->client_new == 0) {
        bool moved = true;

        talk->up.how = talk->upstream;
        talk->down.how = talk->downstream;
        client_flush(talk);
        while (moved) {
            moved = false;
            if (pipe_deliver(&talk->up)) {
                server_turn(talk);
                moved = true;
            }
            if (pipe_deliver(&talk->down)) {
                client_turn(talk);
                moved = true;
            }
        }
        if (talk->is_server_closed && !talk->is_client_closed) {
            socks6_client_eof(talk->client);
            client_events(talk);
        }
    }
    socks6_client_free(talk->client);
    socks6_server_free(talk->server);
    talk->client = NULL;
    talk->server = NULL;
}
