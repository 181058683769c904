#include "dial/talk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dial/socks5.h"

void s6_brief(const struct socks6_addr *addr, char out[S6_BRIEF_MAX])
{
    enum { HOST_ROOM = S6_BRIEF_MAX - sizeof "...:65535" };
    char text[SOCKS6_ADDR_TEXT_MAX];
    size_t len = socks6_addr_format_host(addr, text, sizeof text);

    if (len > HOST_ROOM) {
        (void)snprintf(out, S6_BRIEF_MAX, "%.*s...:%u", (int)HOST_ROOM, text, (unsigned)addr->port);
    } else {
        (void)socks6_addr_format(addr, out, S6_BRIEF_MAX);
    }
}

int s6_talk_fail(struct s6_talk *talk, int status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(talk->result->error, sizeof talk->result->error, format, args);
    va_end(args);
    talk->status = status;
    return status;
}

void s6_talk_trace(const struct s6_talk *talk, const char *format, ...)
{
    char line[sizeof talk->result->error];
    va_list args;

    if (talk->config->trace == NULL) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    talk->config->trace(talk->config->trace_user, line);
}

static struct socks6_credentials credentials_of(const struct socks6_proxy *proxy)
{
    struct socks6_credentials c;

    c.username.data = (const uint8_t *)proxy->username;
    c.username.len = strnlen(proxy->username, SOCKS6_USERNAME_MAX);
    c.password.data = (const uint8_t *)proxy->password;
    c.password.len = strnlen(proxy->password, SOCKS6_PASSWORD_MAX);
    return c;
}

int s6_talk_sends_credentials(const struct socks6_dial_config *config)
{
    if (config->proxy->scheme == SOCKS6_SCHEME_SOCKS6 && config->session != NULL) {
        return config->proxy->has_credentials && config->session->has_credentials;
    }
    return config->proxy->has_credentials;
}

static int init_socks5(struct s6_talk *talk)
{
    const struct socks6_dial_config *config = talk->config;
    struct socks6_credentials credentials = credentials_of(config->proxy);

    if (config->command != SOCKS6_COMMAND_CONNECT) {
        return s6_talk_fail(talk, SOCKS6_DIAL_INVALID, "%s through a socks5h:// proxy is not supported",
                            socks6_command_name((unsigned)config->command));
    }
    if (config->stack_count > 0) {
        return s6_talk_fail(talk, SOCKS6_DIAL_INVALID, "Stack options need a socks6:// proxy");
    }
    talk->socks5 = malloc(sizeof *talk->socks5);
    if (talk->socks5 == NULL) {
        return s6_talk_fail(talk, SOCKS6_DIAL_NOMEM, "out of memory");
    }
    s6_socks5_init(talk->socks5, &config->addr, config->proxy->has_credentials ? &credentials : NULL);
    return SOCKS6_DIAL_IN_PROGRESS;
}

/* What socks6_session_prepare() has set. */
static void copy_session(const struct socks6_client_config *from, struct socks6_client_config *to)
{
    to->session_id = from->session_id;
    to->request_session = from->request_session;
    to->teardown_session = from->teardown_session;
    to->request_window = from->request_window;
    to->has_token = from->has_token;
    to->token = from->token;
}

static int init_socks6(struct s6_talk *talk, uint64_t now_ms)
{
    const struct socks6_dial_config *config = talk->config;
    struct socks6_client_config cc;
    int rc;

    /* BIND is answered twice, and the result has room for one reply: drive struct socks6_client for it. */
    if (config->command == SOCKS6_COMMAND_BIND) {
        return s6_talk_fail(talk, SOCKS6_DIAL_INVALID, "BIND has two replies and cannot be dialed");
    }
    socks6_client_config_init(&cc);
    cc.draft = config->proxy->draft;
    cc.command = config->command;
    cc.addr = config->addr;
    cc.stack = config->stack;
    cc.stack_count = config->stack_count;
    if (config->session != NULL) {
        copy_session(config->session, &cc);
    }
    if (s6_talk_sends_credentials(config)) {
        cc.has_credentials = 1;
        cc.credentials = credentials_of(config->proxy);
        cc.initial_data_len = config->early.len;
    }
    rc = socks6_client_new(&cc, now_ms, &talk->client);
    if (rc != SOCKS6_OK) {
        return s6_talk_fail(talk, rc == SOCKS6_ERR_NOMEM ? SOCKS6_DIAL_NOMEM : SOCKS6_DIAL_INVALID,
                            "cannot make the request: %s", socks6_strerror(rc));
    }
    return SOCKS6_DIAL_IN_PROGRESS;
}

int s6_talk_init(struct s6_talk *talk, const struct socks6_dial_config *config, uint64_t now_ms,
                 struct socks6_dial_result *result)
{
    memset(talk, 0, sizeof *talk);
    talk->config = config;
    talk->result = result;
    talk->status = SOCKS6_DIAL_IN_PROGRESS;
    s6_brief(&config->proxy->addr, talk->proxy_text);
    s6_brief(&config->addr, talk->dest_text);
    return config->proxy->scheme == SOCKS6_SCHEME_SOCKS5H ? init_socks5(talk) : init_socks6(talk, now_ms);
}

void s6_talk_done(struct s6_talk *talk)
{
    socks6_client_free(talk->client);
    talk->client = NULL;
    if (talk->socks5 != NULL) {
        s6_socks5_done(talk->socks5);
        free(talk->socks5);
        talk->socks5 = NULL;
    }
}

struct socks6_slice s6_talk_output(const struct s6_talk *talk)
{
    return talk->socks5 != NULL ? s6_socks5_output(talk->socks5) : socks6_client_output(talk->client);
}

void s6_talk_output_sent(struct s6_talk *talk, size_t len)
{
    if (len == 0) {
        return;
    }
    talk->is_waiting = 1;
    talk->result->sent = 1;
    if (talk->socks5 != NULL) {
        s6_socks5_output_sent(talk->socks5, len);
    } else {
        socks6_client_output_sent(talk->client, len);
    }
}

size_t s6_talk_credit(const struct s6_talk *talk)
{
    if (talk->socks5 != NULL) {
        return talk->socks5->state == S6_SOCKS5_CONNECTED ? SIZE_MAX : 0;
    }
    return socks6_client_data_credit(talk->client);
}

/* "host unreachable: example.com:81 (reply 4)" */
static void refuse(struct s6_talk *talk, unsigned code)
{
    /* SOCKS 5 names the codes up to 8, with the same meanings. */
    const char *name = talk->socks5 != NULL && code > SOCKS6_REPLY_ADDRESS_UNSUPPORTED ? "unassigned reply code"
                                                                                       : socks6_reply_name(code);

    talk->result->reply = code;
    talk->result->has_reply = 1;
    if (code == SOCKS6_REPLY_REFUSED) {
        (void)s6_talk_fail(talk, SOCKS6_DIAL_REMOTE_FAILED, "%s by %s (reply %u)", name, talk->dest_text, code);
    } else {
        (void)s6_talk_fail(talk, SOCKS6_DIAL_REMOTE_FAILED, "%s: %s (reply %u)", name, talk->dest_text, code);
    }
}

static void accept_reply(struct s6_talk *talk, const struct socks6_addr *bound)
{
    char text[S6_BRIEF_MAX] = "an address that it does not tell";

    talk->result->reply = SOCKS6_REPLY_SUCCESS;
    talk->result->has_reply = 1;
    talk->result->bound = *bound;
    talk->status = SOCKS6_DIAL_OK;
    if (bound->type != 0) {
        s6_brief(bound, text);
    }
    s6_talk_trace(talk, "the proxy reports success; it uses %s", text);
}

/* What came is an answer to what was sent. */
static void count_round_trip(struct s6_talk *talk, size_t received)
{
    talk->received += received;
    if (received > 0 && talk->is_waiting) {
        talk->is_waiting = 0;
        talk->result->round_trips++;
    }
}

/* "0x48 'H'" or "0x05": never a control character. */
static void describe_byte(uint8_t byte, char out[16])
{
    if (byte > 0x20 && byte < 0x7f) {
        (void)snprintf(out, 16, "0x%02x '%c'", byte, byte);
    } else {
        (void)snprintf(out, 16, "0x%02x", byte);
    }
}

static void fail_version(struct s6_talk *talk, int ours, uint8_t byte)
{
    char text[16];
    const char *hint = "";

    describe_byte(byte, text);
    if (ours == 6 && byte == 5) {
        hint = "; a SOCKS 5 proxy is written socks5h://";
    } else if (ours == 5 && byte == 6) {
        hint = "; a SOCKS 6 proxy is written socks6://";
    }
    (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "%s does not speak SOCKS %d (its first byte was %s)%s",
                       talk->proxy_text, ours, text, hint);
}

static void fail_authentication(struct s6_talk *talk)
{
    if (talk->config->proxy->has_credentials) {
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s refused the user name or password",
                           talk->proxy_text);
    } else {
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s refused us; it may want a user name and password",
                           talk->proxy_text);
    }
}

static void fail_method(struct s6_talk *talk)
{
    (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED,
                       "proxy %s wants a method of authentication that was not offered%s", talk->proxy_text,
                       talk->config->proxy->has_credentials ? "" : "; it may want a user name and password");
}

static void fail_eof(struct s6_talk *talk, const char *why)
{
    if (talk->received == 0) {
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s closed the connection without a reply",
                           talk->proxy_text);
    } else {
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s closed the connection in mid-reply%s%s",
                           talk->proxy_text, why[0] != '\0' ? ": " : "", why);
    }
}

/* Where SOCKS 5 stands after input. */
static void judge_socks5(struct s6_talk *talk)
{
    const struct s6_socks5 *m = talk->socks5;

    if (m->state == S6_SOCKS5_CONNECTED) {
        accept_reply(talk, &m->bound);
    } else if (m->state == S6_SOCKS5_REFUSED) {
        refuse(talk, m->reply);
    }
    switch (m->failure) {
    case S6_SOCKS5_OK:
        break;
    case S6_SOCKS5_NOT_SOCKS5:
        fail_version(talk, 5, m->in[0]);
        break;
    case S6_SOCKS5_NO_METHOD:
    case S6_SOCKS5_FOREIGN_METHOD:
        fail_method(talk);
        break;
    case S6_SOCKS5_AUTH_FAILED:
        fail_authentication(talk);
        break;
    case S6_SOCKS5_MALFORMED:
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s sent a malformed reply", talk->proxy_text);
        break;
    }
}

static void tell_session(const struct s6_talk *talk, const struct socks6_client_session *session)
{
    if (talk->config->on_session != NULL) {
        talk->config->on_session(talk->config->on_session_user, session);
    }
}

/* "the proxy lets us in; the session is resumed; the token is accepted; 31 tokens from 7 on" */
static void trace_session(const struct s6_talk *talk, const struct socks6_client_session *session)
{
    char window[64] = "";

    if (session->has_window) {
        (void)snprintf(window, sizeof window, "; a window of %u tokens from %u on", (unsigned)session->window.size,
                       (unsigned)session->window.base);
    }
    s6_talk_trace(talk, "the proxy lets us in%s%s%s%s%s", session->ok ? "; the session goes on" : "",
                  session->id.len > 0 ? "; a session begins" : "",
                  session->untrusted ? ", in which each request needs the user name and password" : "",
                  session->token_accepted ? "; the token is accepted" : "", window);
}

static void take_reply(struct s6_talk *talk, const struct socks6_client_event *event)
{
    size_t count = event->u.reply.stack_count;

    if (event->session.id.len > 0) { /* "Session Options" leaves open in which reply it stands */
        s6_talk_trace(talk, "a session begins");
        tell_session(talk, &event->session);
    }
    if (count > SOCKS6_STACK_MAX) {
        count = SOCKS6_STACK_MAX;
    }
    if (count > 0) {
        memcpy(talk->result->stack, event->u.reply.stack, count * sizeof *event->u.reply.stack);
    }
    talk->result->stack_count = count;
    if (event->u.reply.code == SOCKS6_REPLY_SUCCESS) {
        accept_reply(talk, &event->u.reply.bound);
    } else {
        talk->result->bound = event->u.reply.bound;
        refuse(talk, event->u.reply.code);
    }
}

static void take_close(struct s6_talk *talk, const struct socks6_client_event *event)
{
    if (event->session.invalid || event->session.token_rejected || event->session.has_window) {
        tell_session(talk, &event->session);
    }
    switch (event->u.close.reason) {
    case SOCKS6_CLIENT_CLOSE_AUTH_FAILED:
        fail_authentication(talk);
        break;
    case SOCKS6_CLIENT_CLOSE_NO_METHOD:
        fail_method(talk);
        break;
    case SOCKS6_CLIENT_CLOSE_VERSION:
        fail_version(talk, 6, event->u.close.byte);
        break;
    case SOCKS6_CLIENT_CLOSE_EOF:
        fail_eof(talk, event->u.close.why);
        break;
    case SOCKS6_CLIENT_CLOSE_NOMEM:
        (void)s6_talk_fail(talk, SOCKS6_DIAL_NOMEM, "out of memory");
        break;
    case SOCKS6_CLIENT_CLOSE_PROTOCOL:
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s sent a malformed reply: %s", talk->proxy_text,
                           event->u.close.why);
        break;
    case SOCKS6_CLIENT_CLOSE_SESSION_INVALID:
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s does not know our session", talk->proxy_text);
        break;
    case SOCKS6_CLIENT_CLOSE_TOKEN_REJECTED:
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED,
                           "proxy %s has seen the idempotence token of this request before", talk->proxy_text);
        break;
    case SOCKS6_CLIENT_CLOSE_DONE: /* neither can happen: there was no reply, and no deadline was given */
    case SOCKS6_CLIENT_CLOSE_TIMEOUT:
        (void)s6_talk_fail(talk, SOCKS6_DIAL_PROXY_FAILED, "proxy %s ended the conversation: %s", talk->proxy_text,
                           event->u.close.why);
        break;
    }
}

/* What SOCKS 6 has to say. Stops at the first event that ends the dial; returns how many events there were. */
static int judge_socks6(struct s6_talk *talk)
{
    int count = 0;

    while (talk->status == SOCKS6_DIAL_IN_PROGRESS) {
        struct socks6_client_event event;

        socks6_client_next_event(talk->client, &event);
        switch (event.type) {
        case SOCKS6_CLIENT_NONE:
            return count;
        case SOCKS6_CLIENT_AUTHENTICATED:
            trace_session(talk, &event.session);
            tell_session(talk, &event.session);
            break;
        case SOCKS6_CLIENT_REPLY:
        case SOCKS6_CLIENT_SECOND_REPLY:
            take_reply(talk, &event);
            break;
        case SOCKS6_CLIENT_CLOSE:
            take_close(talk, &event);
            break;
        }
        count++;
    }
    return count;
}

size_t s6_talk_input(struct s6_talk *talk, const uint8_t *bytes, size_t len, uint64_t now_ms)
{
    size_t total = 0;

    if (talk->socks5 != NULL) {
        total = s6_socks5_input(talk->socks5, bytes, len);
        count_round_trip(talk, total);
        judge_socks5(talk);
        return total;
    }
    while (total < len && talk->status == SOCKS6_DIAL_IN_PROGRESS) {
        size_t used = 0;
        int rc = socks6_client_input(talk->client, bytes + total, len - total, now_ms, &used);

        total += used;
        count_round_trip(talk, used);
        if (judge_socks6(talk) == 0 && used == 0) { /* cannot happen; but if it did, it would go round for ever */
            rc = rc != SOCKS6_OK ? rc : SOCKS6_ERR_PROTOCOL;
        }
        if (rc != SOCKS6_OK && talk->status == SOCKS6_DIAL_IN_PROGRESS) {
            (void)s6_talk_fail(talk, rc == SOCKS6_ERR_NOMEM ? SOCKS6_DIAL_NOMEM : SOCKS6_DIAL_PROXY_FAILED,
                               "cannot read the reply of proxy %s: %s", talk->proxy_text, socks6_strerror(rc));
        }
    }
    return total;
}

void s6_talk_eof(struct s6_talk *talk)
{
    if (talk->client != NULL) {
        socks6_client_eof(talk->client);
        (void)judge_socks6(talk);
    }
    if (talk->status == SOCKS6_DIAL_IN_PROGRESS) {
        fail_eof(talk, "");
    }
}
