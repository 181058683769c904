#include "cli/probe_ask6.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/probe_guess.h"

#define AT_ONCE_MAX 16

/* Enough to recognise another protocol. */
#define FOREIGN_LEN 12

__attribute__((format(printf, 3, 4))) static void settle(struct probe_ask6 *ask, enum probe_outcome6 outcome,
                                                         const char *format, ...)
{
    va_list args;

    ask->is_over = true;
    ask->outcome = outcome;
    va_start(args, format);
    (void)vsnprintf(ask->why, sizeof ask->why, format, args);
    va_end(args);
}

static void send_output(struct probe_ask6 *ask)
{
    struct socks6_slice output = socks6_client_output(ask->client);

    probe_talk_send(&ask->talk, output.data, output.len);
    socks6_client_output_sent(ask->client, output.len);
}

/* The request, and what may follow it at once. */
static void send_request(struct probe_ask6 *ask)
{
    struct socks6_slice output = socks6_client_output(ask->client);

    if (ask->raw.len > 0) {
        probe_talk_send(&ask->talk, ask->raw.data, ask->raw.len);
        socks6_client_output_sent(ask->client, output.len);
    } else {
        send_output(ask);
    }
    probe_talk_send(&ask->talk, ask->early.data, ask->early.len);
}

static void keep_session_id(struct probe_ask6 *ask, struct socks6_slice id, bool in_reply)
{
    if (id.len == 0 || ask->session_id_len > 0 || id.len > sizeof ask->session_id) {
        return;
    }
    memcpy(ask->session_id, id.data, id.len);
    ask->session_id_len = id.len;
    ask->session_in_reply = in_reply;
}

static void note_session(struct probe_ask6 *ask, const struct socks6_client_event *event)
{
    ask->session = event->session;
    ask->session.id = (struct socks6_slice){NULL, 0}; /* the library's memory */
    keep_session_id(ask, event->session.id, false);
}

static void note_close(struct probe_ask6 *ask, const struct socks6_client_event *event)
{
    ask->reason = event->u.close.reason;
    switch (event->u.close.reason) {
    case SOCKS6_CLIENT_CLOSE_DONE:
        break;
    case SOCKS6_CLIENT_CLOSE_AUTH_FAILED:
    case SOCKS6_CLIENT_CLOSE_NO_METHOD:
    case SOCKS6_CLIENT_CLOSE_SESSION_INVALID:
    case SOCKS6_CLIENT_CLOSE_TOKEN_REJECTED:
        note_session(ask, event);
        settle(ask, PROBE6_REFUSED, "%s", event->u.close.why);
        break;
    case SOCKS6_CLIENT_CLOSE_VERSION:
        settle(ask, PROBE6_FOREIGN, "the answer begins with byte %u, not with version 6", event->u.close.byte);
        break;
    case SOCKS6_CLIENT_CLOSE_PROTOCOL:
        settle(ask, PROBE6_BROKEN, "%s", event->u.close.why);
        break;
    case SOCKS6_CLIENT_CLOSE_NOMEM:
        settle(ask, PROBE6_FAILED, "out of memory");
        ask->talk.error = ENOMEM;
        break;
    case SOCKS6_CLIENT_CLOSE_EOF:
    case SOCKS6_CLIENT_CLOSE_TIMEOUT: /* we give the library no limit */
        settle(ask, PROBE6_CLOSED, "%s", event->u.close.why);
        break;
    }
}

static void pull_events(struct probe_ask6 *ask)
{
    struct socks6_client_event event;

    for (;;) {
        socks6_client_next_event(ask->client, &event);
        switch (event.type) {
        case SOCKS6_CLIENT_NONE:
            return;
        case SOCKS6_CLIENT_AUTHENTICATED:
            note_session(ask, &event);
            break;
        case SOCKS6_CLIENT_REPLY:
            keep_session_id(ask, event.session.id, true);
            ask->code = event.u.reply.code;
            ask->bound = event.u.reply.bound;
            ask->replied_us = probe_now_us();
            settle(ask, PROBE6_REPLIED, "%s", "");
            break;
        case SOCKS6_CLIENT_SECOND_REPLY: /* of BIND: nobody was told where to connect */
            break;
        case SOCKS6_CLIENT_CLOSE:
            if (!ask->is_over) {
                note_close(ask, &event);
            }
            return;
        }
    }
}

/* Behind a reply of success: MORE as long as more is asked for. */
static enum probe_talk_next follow(struct probe_ask6 *ask)
{
    size_t len = ask->talk.in_len - ask->used;

    if (ask->outcome == PROBE6_FOREIGN) { /* what is it then? Its first bytes may come in pieces */
        return ask->talk.in_len < FOREIGN_LEN && probe_guess(ask->talk.in, ask->talk.in_len) == PROBE_KIND_OTHER
                   ? PROBE_TALK_MORE
                   : PROBE_TALK_ENOUGH;
    }
    if (ask->follow_need == NULL || ask->outcome != PROBE6_REPLIED || ask->code != SOCKS6_REPLY_SUCCESS) {
        return PROBE_TALK_ENOUGH;
    }
    ask->follow_complete = ask->follow_need(ask->talk.in + ask->used, len) <= len;
    return ask->follow_complete ? PROBE_TALK_ENOUGH : PROBE_TALK_MORE;
}

static enum probe_talk_next step(struct probe_talk *talk)
{
    struct probe_ask6 *ask = talk->user;

    if (talk->in_len == 0) {
        send_request(ask);
        return PROBE_TALK_MORE;
    }
    if (!ask->is_over) {
        size_t used = 0;

        if (socks6_client_input(ask->client, talk->in + ask->used, talk->in_len - ask->used, 0, &used) != 0) {
            /* Said in a CLOSE, too. */
            ask->used += used;
            pull_events(ask);
            return PROBE_TALK_ENOUGH;
        }
        ask->used += used;
        send_output(ask);
        pull_events(ask);
        if (!ask->is_over) {
            return PROBE_TALK_MORE;
        }
        if (ask->outcome == PROBE6_REPLIED && ask->code == SOCKS6_REPLY_SUCCESS && ask->follow_need != NULL) {
            probe_talk_send(talk, ask->follow.data, ask->follow.len);
        }
    }
    return follow(ask);
}

static void prepare(struct probe_ask6 *ask)
{
    int err = socks6_client_new(&ask->config, 0, &ask->client);

    ask->talk.step = step;
    ask->talk.user = ask;
    ask->talk.fast_open = ask->fast_open;
    if (err != SOCKS6_OK) {
        ask->client = NULL;
        settle(ask, PROBE6_FAILED, "%s", socks6_strerror(err));
        ask->talk.error = err == SOCKS6_ERR_NOMEM ? ENOMEM : EINVAL;
    }
}

/* The conversation has ended without an outcome of the protocol. */
static void settle_by_end(struct probe_ask6 *ask)
{
    struct probe_talk *talk = &ask->talk;

    switch (talk->end) {
    case PROBE_TALK_ENOUGH_SEEN:
    case PROBE_TALK_CLOSED:
        if (talk->in_len == 1 && talk->in[0] == SOCKS6_VERSION) {
            settle(ask, PROBE6_LONE, "a lone version byte 6 and the end");
        } else if (talk->in_len == 0) {
            settle(ask, PROBE6_CLOSED, "the connection was %s without an answer",
                   talk->error == ECONNRESET ? "reset" : "closed");
        } else {
            settle(ask, PROBE6_CLOSED, "the connection was %s in the middle of an answer",
                   talk->error == ECONNRESET ? "reset" : "closed");
        }
        break;
    case PROBE_TALK_TIME_OUT:
        settle(ask, PROBE6_TIME_OUT, "%s",
               !talk->connected    ? "no connection in time"
               : talk->in_len == 0 ? "no answer in time"
                                   : "the answer was not whole in time");
        break;
    case PROBE_TALK_FLOOD:
        settle(ask, PROBE6_BROKEN, "the answer has no end");
        break;
    case PROBE_TALK_FAILED:
        settle(ask, PROBE6_FAILED, "%s", strerror(talk->error));
        break;
    }
}

static void conclude(struct probe_ask6 *ask)
{
    struct probe_talk *talk = &ask->talk;

    if (!ask->is_over) {
        settle_by_end(ask);
    }
    probe_walk(talk->in, talk->in_len, ask->config.has_credentials && ask->config.allow_negotiation, &ask->walk);
    if (ask->outcome == PROBE6_BROKEN && ask->walk.fault[0] != '\0') {
        (void)snprintf(ask->why, sizeof ask->why, "%s", ask->walk.fault);
    }
    if (ask->outcome == PROBE6_REPLIED) {
        ask->reply_us = ask->replied_us - talk->connected_us;
        ask->follow_us = talk->ended_us - ask->replied_us;
        ask->after = (struct socks6_slice){talk->in + ask->used, talk->in_len - ask->used};
    }
}

void probe_ask6_init(struct probe_ask6 *ask, const char *user, const char *password)
{
    memset(ask, 0, sizeof *ask);
    ask->talk.fd = -1;
    socks6_client_config_init(&ask->config);
    if (user != NULL) {
        ask->config.has_credentials = 1;
        ask->config.credentials.username = (struct socks6_slice){(const uint8_t *)user, strlen(user)};
        ask->config.credentials.password = (struct socks6_slice){(const uint8_t *)password, strlen(password)};
    }
}

void probe_ask6_run(struct probe_ask6 *const *asks, size_t count, struct probe_peer *peer, uint64_t limit_us,
                    uint64_t deadline_us)
{
    struct probe_talk *talks[AT_ONCE_MAX] = {NULL};
    size_t ready = 0;

    assert(count <= AT_ONCE_MAX);
    for (size_t i = 0; i < count; i++) {
        prepare(asks[i]);
        if (asks[i]->client != NULL) {
            talks[ready++] = &asks[i]->talk;
        }
    }
    probe_talk_run(talks, ready, peer, limit_us, deadline_us);
    for (size_t i = 0; i < count; i++) {
        if (asks[i]->client != NULL) {
            conclude(asks[i]);
        }
        socks6_client_free(asks[i]->client);
        asks[i]->client = NULL;
    }
}

void probe_ask6_done(struct probe_ask6 *ask)
{
    probe_talk_done(&ask->talk);
    ask->after = (struct socks6_slice){NULL, 0};
    ask->walk.count = 0; /* borrowed from the talk */
}
