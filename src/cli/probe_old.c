/*
 * Theory of operation. Each form is a sequence of stages; a stage waits for so many bytes behind `used`, judges them,
 * and sends what comes next:
 *
 *   GREETING5   method
 *   CONNECT5    method -> (status ->) reply head -> (its address)
 *   CONNECT4    reply
 */
#include "cli/probe_old.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/probe_guess.h"

#define AT_ONCE_MAX 16

enum stage { STAGE_METHOD, STAGE_STATUS, STAGE_REPLY, STAGE_REPLY4, STAGE_ANYTHING };

/* Enough to recognise what answers. */
#define ANYTHING_LEN 16

static enum probe_talk_next settle(struct probe_old *ask, enum probe_old_outcome outcome, const char *why)
{
    ask->outcome = outcome;
    ask->reply_us = probe_now_us() - ask->talk.connected_us;
    (void)snprintf(ask->why, sizeof ask->why, "%s", why);
    return PROBE_TALK_ENOUGH;
}

static void write_port(uint8_t *out, uint16_t port)
{
    out[0] = (uint8_t)(port >> 8);
    out[1] = (uint8_t)port;
}

static void send_greeting(struct probe_old *ask)
{
    uint8_t message[2 + PROBE_OLD_METHODS_MAX] = {5, (uint8_t)ask->method_count};

    memcpy(message + 2, ask->methods, ask->method_count);
    probe_talk_send(&ask->talk, message, 2 + ask->method_count);
    ask->stage = STAGE_METHOD;
}

static void send_request5(struct probe_old *ask)
{
    uint8_t message[4 + 1 + SOCKS6_NAME_MAX + 2] = {5, 1, 0, ask->target.type};
    size_t at = 4;

    if (ask->target.type == SOCKS6_ADDR_NAME) {
        message[at++] = ask->target.len;
    }
    memcpy(message + at, &ask->target.u, ask->target.len);
    at += ask->target.len;
    write_port(message + at, ask->target.port);
    probe_talk_send(&ask->talk, message, at + 2);
    ask->stage = STAGE_REPLY;
}

static void send_request4(struct probe_old *ask)
{
    static const uint8_t is_4a[4] = {0, 0, 0, 1};
    uint8_t message[9 + SOCKS6_NAME_MAX + 1] = {4, 1};
    size_t len = 9; /* the user id is empty: its NUL */

    write_port(message + 2, ask->target.port);
    if (ask->target.type == SOCKS6_ADDR_NAME) {
        memcpy(message + 4, is_4a, 4);
        memcpy(message + 9, ask->target.u.name, ask->target.len);
        len += (size_t)ask->target.len + 1;
    } else {
        memcpy(message + 4, ask->target.u.ipv4, 4);
    }
    probe_talk_send(&ask->talk, message, len);
    ask->stage = STAGE_REPLY4;
}

/* RFC 1929. Both parts have at most 255 bytes: they come from a parsed proxy URL. */
static void send_login(struct probe_old *ask)
{
    uint8_t message[3 + SOCKS6_USERNAME_MAX + SOCKS6_PASSWORD_MAX];
    size_t user_len = strlen(ask->user), password_len = strlen(ask->password);

    message[0] = 1;
    message[1] = (uint8_t)user_len;
    memcpy(message + 2, ask->user, user_len);
    message[2 + user_len] = (uint8_t)password_len;
    memcpy(message + 3 + user_len, ask->password, password_len);
    probe_talk_send(&ask->talk, message, 3 + user_len + password_len);
    explicit_bzero(message, sizeof message);
    ask->stage = STAGE_STATUS;
}

static void begin(struct probe_old *ask)
{
    switch (ask->form) {
    case PROBE_OLD_GREETING5:
    case PROBE_OLD_CONNECT5:
        send_greeting(ask);
        break;
    case PROBE_OLD_CONNECT4:
        send_request4(ask);
        break;
    case PROBE_OLD_RAW:
        probe_talk_send(&ask->talk, ask->raw.data, ask->raw.len);
        ask->stage = STAGE_ANYTHING;
        break;
    }
}

/* Judges a method. MORE: go on with the next stage. */
static enum probe_talk_next take_method(struct probe_old *ask, const uint8_t *in)
{
    if (in[0] != 5) {
        return settle(ask, PROBE_OLD_FOREIGN, "the answer does not begin with version 5");
    }
    if (in[1] == SOCKS6_METHOD_UNACCEPTABLE) {
        return settle(ask, PROBE_OLD_REFUSED, "none of the methods offered is accepted");
    }
    if (memchr(ask->methods, in[1], ask->method_count) == NULL) {
        return settle(ask, PROBE_OLD_FOREIGN, "it chose a method that was not offered");
    }
    ask->method = in[1];
    if (ask->form == PROBE_OLD_GREETING5) {
        return settle(ask, PROBE_OLD_ANSWERED, "");
    }
    if (in[1] == SOCKS6_METHOD_USERPASS) {
        send_login(ask);
    } else {
        send_request5(ask);
    }
    ask->used += 2;
    return PROBE_TALK_MORE;
}

static enum probe_talk_next take_status(struct probe_old *ask, const uint8_t *in)
{
    if (in[1] != 0) {
        return settle(ask, PROBE_OLD_REFUSED, "the proxy refused user name and password");
    }
    ask->used += 2;
    send_request5(ask);
    return PROBE_TALK_MORE;
}

/* The reply's length by its first 5 bytes; 0 = no address type that is known. */
static size_t reply5_len(const uint8_t *in)
{
    switch (in[3]) {
    case SOCKS6_ADDR_IPV4:
        return 10;
    case SOCKS6_ADDR_IPV6:
        return 22;
    case SOCKS6_ADDR_NAME:
        return 7 + (size_t)in[4];
    default:
        return 0;
    }
}

static enum probe_talk_next take_reply5(struct probe_old *ask, const uint8_t *in, size_t len)
{
    size_t need = 5;

    if (in[0] != 5) {
        return settle(ask, PROBE_OLD_FOREIGN, "the reply does not begin with version 5");
    }
    if (len >= 2 && in[1] != 0) { /* some leave out the rest of a failure */
        ask->code = in[1];
        return settle(ask, PROBE_OLD_ANSWERED, "");
    }
    if (len >= need) {
        need = reply5_len(in);
    }
    if (need == 0) {
        return settle(ask, PROBE_OLD_FOREIGN, "the reply has an unknown address type");
    }
    if (len < need) {
        return PROBE_TALK_MORE;
    }
    ask->code = in[1];
    return settle(ask, PROBE_OLD_ANSWERED, "");
}

static enum probe_talk_next take_reply4(struct probe_old *ask, const uint8_t *in, size_t len)
{
    if (in[0] != 0) {
        return settle(ask, PROBE_OLD_FOREIGN, "the answer does not begin with a 0");
    }
    if (len >= 2 && (in[1] < 90 || in[1] > 93)) {
        return settle(ask, PROBE_OLD_FOREIGN, "the answer holds no reply code of SOCKS 4");
    }
    if (len < 8) {
        return PROBE_TALK_MORE;
    }
    ask->code = in[1];
    return settle(ask, PROBE_OLD_ANSWERED, "");
}

/* As soon as it is known what this is; what is not known is read on, to see whether it ends. */
static enum probe_talk_next take_anything(struct probe_old *ask, const uint8_t *in, size_t len)
{
    if (len < ANYTHING_LEN || probe_guess(in, len) == PROBE_KIND_OTHER) {
        return PROBE_TALK_MORE;
    }
    return settle(ask, PROBE_OLD_FOREIGN, "it answers something");
}

static enum probe_talk_next step(struct probe_talk *talk)
{
    struct probe_old *ask = talk->user;

    if (talk->in_len == 0) {
        begin(ask);
        return PROBE_TALK_MORE;
    }
    for (;;) {
        const uint8_t *in = talk->in + ask->used;
        size_t len = talk->in_len - ask->used;
        enum probe_talk_next next = PROBE_TALK_MORE;

        if (len == 0) {
            return PROBE_TALK_MORE;
        }
        switch ((enum stage)ask->stage) {
        case STAGE_METHOD:
            if (in[0] == 5 && len < 2) {
                return PROBE_TALK_MORE;
            }
            next = take_method(ask, in);
            break;
        case STAGE_STATUS:
            if (len < 2) {
                return PROBE_TALK_MORE;
            }
            next = take_status(ask, in);
            break;
        case STAGE_REPLY:
            return take_reply5(ask, in, len);
        case STAGE_REPLY4:
            return take_reply4(ask, in, len);
        case STAGE_ANYTHING:
            return take_anything(ask, in, len);
        }
        if (next == PROBE_TALK_ENOUGH) {
            return next;
        }
    }
}

/* Ended by itself, by the clock or by the peer. */
static void conclude(struct probe_old *ask)
{
    switch (ask->talk.end) {
    case PROBE_TALK_ENOUGH_SEEN:
        break;
    case PROBE_TALK_CLOSED:
        (void)settle(ask, PROBE_OLD_CLOSED,
                     ask->talk.in_len > 0 ? "the connection was closed in the middle of an answer"
                                          : "the connection was closed without an answer");
        break;
    case PROBE_TALK_FLOOD:
        (void)settle(ask, PROBE_OLD_FOREIGN, "the answer has no end");
        break;
    case PROBE_TALK_TIME_OUT:
        (void)settle(ask, PROBE_OLD_TIME_OUT,
                     ask->talk.in_len > 0 ? "the answer was not whole in time" : "no answer in time");
        break;
    case PROBE_TALK_FAILED:
        (void)settle(ask, PROBE_OLD_FAILED, strerror(ask->talk.error));
        break;
    }
}

void probe_old_run(struct probe_old *const *asks, size_t count, struct probe_peer *peer, uint64_t limit_us,
                   uint64_t deadline_us)
{
    struct probe_talk *talks[AT_ONCE_MAX] = {NULL};

    assert(count <= AT_ONCE_MAX);
    for (size_t i = 0; i < count; i++) {
        asks[i]->method = -1;
        asks[i]->talk.step = step;
        asks[i]->talk.user = asks[i];
        asks[i]->talk.fast_open = asks[i]->fast_open;
        talks[i] = &asks[i]->talk;
    }
    probe_talk_run(talks, count, peer, limit_us, deadline_us);
    for (size_t i = 0; i < count; i++) {
        conclude(asks[i]);
    }
}

void probe_old_done(struct probe_old *ask)
{
    probe_talk_done(&ask->talk);
}

const char *probe_old_reply5(unsigned code)
{
    static const char *const names[] = {"succeeded",           "general failure",       "not allowed by ruleset",
                                        "network unreachable", "host unreachable",      "connection refused",
                                        "TTL expired",         "command not supported", "address type not supported"};

    return code < sizeof names / sizeof *names ? names[code] : "unassigned reply code";
}

const char *probe_old_reply4(unsigned code)
{
    switch (code) {
    case 90:
        return "granted";
    case 91:
        return "rejected or failed";
    case 92:
        return "rejected: no identd here";
    case 93:
        return "rejected: identd disagrees";
    default:
        return "unassigned reply code";
    }
}

const char *probe_method_name(unsigned method)
{
    static const char *const names[] = {
        "none needed", "GSSAPI", "user name and password", "CHAP", "method 4", "CRAM", "SSL",
        "NDS",         "MAF",    "JSON parameters"};

    return method < sizeof names / sizeof *names ? names[method] : "a private method";
}
