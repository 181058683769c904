/*
 * Dialing through a proxy: the library's only code that does I/O (with net.c below it).
 *
 * Called by programs: socks6_dial() blocks; socks6_dial_start() and _step() are for callers with a loop of their own. The
 * first is a loop around the second.
 *
 * Theory of operation. A dial has a list of targets (the proxy's addresses) and is in one of two states. CONNECTING: one
 * attempt runs at a time; when it fails or its share of the remaining time is over, the next target gets its turn.
 * TALKING: bytes move between the socket and the conversation (talk.c) until that says how it ended. What arrives is first
 * looked at (MSG_PEEK) and then taken as far as the conversation used it, so that application data right behind the
 * reply stays in the socket. Reading comes before writing, and both go on side by side, so that a proxy that refuses in the
 * middle of much early data is heard.
 *
 * TCP Fast Open: while an attempt is CONNECTING its SYN may carry the first bytes. They count as sent once the connection is there; if it
 * is refused, the next target gets them. If it fails in any other way, application data among them may have been read.
 *
 * With a layer (TLS) there is one more room between both: what the conversation has to say goes into the layer as soon as
 * that takes it, and what comes out of it goes into the socket. Everything is read from the socket then; what lies behind the
 * reply stays in the layer.
 */
#include <socks6/dial.h>

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dial/net.h"
#include "dial/talk.h"

/* More addresses of one proxy than that are not tried. */
#define TARGETS_MAX 32
#define NO_DEADLINE UINT64_MAX

enum dial_state { DIAL_CONNECTING, DIAL_TALKING };

struct socks6_dial {
    struct socks6_dial_config config;
    struct socks6_dial_result result; /* gathered here, handed out at the end */
    struct s6_talk talk;
    enum dial_state state;
    int fd;
    uint64_t deadline_ms;         /* of all of it */
    uint64_t attempt_deadline_ms; /* of the running connection attempt */
    struct s6_target targets[TARGETS_MAX];
    size_t target_count;
    size_t target_next;  /* the one to try after the running attempt */
    unsigned fd_count;   /* descriptors that there were */
    size_t request_left; /* bytes of the first message that are not sent yet */
    size_t early_sent;
    struct socks6_slice syn_protocol; /* what was offered to the SYN: of the conversation, or of the layer */
    size_t syn_len;                   /* with early data */
    size_t syn_sent;                  /* how much of it the SYN took */
    int is_layer_started;             /* its first write() has been called */
    int is_layer_open;                /* the conversation's first bytes have come through it */
};

void socks6_dial_config_init(struct socks6_dial_config *config)
{
    memset(config, 0, sizeof *config);
    config->size = sizeof *config;
    config->command = SOCKS6_COMMAND_CONNECT;
    config->family = AF_UNSPEC;
}

static void result_init(struct socks6_dial_result *result)
{
    memset(result, 0, sizeof *result);
    result->fd = -1;
}

/* What the configuration alone can get wrong; NULL if nothing. */
static const char *config_problem(const struct socks6_dial_config *c)
{
    if (c->size != sizeof *c || c->proxy == NULL) {
        return "the dial was not configured";
    }
    if (c->addr.len == 0 && c->command != SOCKS6_COMMAND_NOOP) {
        return "there is no destination";
    }
    if (c->family != AF_UNSPEC && c->family != AF_INET && c->family != AF_INET6) {
        return "the address family is unknown";
    }
    if (c->proxy->is_tls && c->layer == NULL) {
        return "TLS to the proxy (socks6s://) cannot be used here";
    }
    if (c->early.len > 0 && c->command != SOCKS6_COMMAND_CONNECT) {
        return "early data goes with CONNECT only";
    }
    if (c->early.len > SOCKS6_INITIAL_DATA_MAX && c->proxy->scheme == SOCKS6_SCHEME_SOCKS6 &&
        s6_talk_sends_credentials(c)) {
        return "with credentials at most 16384 bytes of early data can go with the request";
    }
    return NULL;
}

static int result_error(struct socks6_dial_result *result, int status, const char *what)
{
    (void)snprintf(result->error, sizeof result->error, "%s", what);
    return status;
}

/* A dial that has no target yet. IN_PROGRESS, or why it cannot be. */
static int dial_new(const struct socks6_dial_config *config, struct socks6_dial **out,
                    struct socks6_dial_result *result)
{
    const char *problem = config_problem(config);
    struct socks6_dial *d;
    uint64_t now_ms = s6_now_ms();
    int status;

    result_init(result);
    if (problem != NULL) {
        return result_error(result, SOCKS6_DIAL_INVALID, problem);
    }
    d = calloc(1, sizeof *d);
    if (d == NULL) {
        return result_error(result, SOCKS6_DIAL_NOMEM, "out of memory");
    }
    d->config = *config;
    d->fd = -1;
    result_init(&d->result);
    d->deadline_ms = NO_DEADLINE;
    d->attempt_deadline_ms = NO_DEADLINE;
    if (config->timeout_ms > 0 && config->timeout_ms < NO_DEADLINE - now_ms) {
        d->deadline_ms = now_ms + config->timeout_ms;
    }
    status = s6_talk_init(&d->talk, &d->config, now_ms, &d->result);
    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        *result = d->result;
        socks6_dial_free(d);
        return status;
    }
    d->request_left = s6_talk_output(&d->talk).len;
    *out = d;
    return SOCKS6_DIAL_IN_PROGRESS;
}

void socks6_dial_free(struct socks6_dial *dial)
{
    if (dial == NULL) {
        return;
    }
    s6_talk_done(&dial->talk);
    if (dial->fd >= 0) {
        (void)close(dial->fd);
    }
    free(dial);
}

static const char *family_name(int family)
{
    if (family == AF_UNSPEC) {
        return "usable";
    }
    return family == AF_INET ? "IPv4" : "IPv6";
}

static int fail_no_target(struct socks6_dial *d)
{
    return s6_talk_fail(&d->talk, SOCKS6_DIAL_PROXY_FAILED, "cannot connect to proxy %s: it has no %s address",
                        d->talk.proxy_text, family_name(d->config.family));
}

static void add_target(struct socks6_dial *d, const struct sockaddr *addr, socklen_t len)
{
    if (d->target_count < TARGETS_MAX && len <= sizeof d->targets[0].addr) {
        memcpy(&d->targets[d->target_count].addr, addr, len);
        d->targets[d->target_count].len = len;
        d->target_count++;
    }
}

/* Adds what a look-up of the address finds. `extra_flags`: AI_NUMERICHOST for one that does not block. */
static int look_up(struct socks6_dial *d, const struct socks6_addr *addr, int extra_flags)
{
    const struct addrinfo hints = {
        .ai_family = d->config.family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | extra_flags};
    struct addrinfo *list = NULL;
    char port[sizeof "65535"];
    int rc;

    (void)snprintf(port, sizeof port, "%u", (unsigned)addr->port);
    rc = getaddrinfo(addr->u.name, port, &hints, &list);
    if (rc == EAI_NONAME && (extra_flags & AI_NUMERICHOST)) {
        return s6_talk_fail(&d->talk, SOCKS6_DIAL_INVALID, "proxy %s must be given by IP address here",
                            d->talk.proxy_text);
    }
    if (rc == EAI_MEMORY) {
        return s6_talk_fail(&d->talk, SOCKS6_DIAL_NOMEM, "out of memory");
    }
    if (rc != 0) {
        return s6_talk_fail(&d->talk, SOCKS6_DIAL_PROXY_FAILED, "cannot find the address of proxy %s: %s",
                            d->talk.proxy_text, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    }
    for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
        add_target(d, ai->ai_addr, ai->ai_addrlen);
    }
    freeaddrinfo(list);
    return SOCKS6_DIAL_IN_PROGRESS;
}

/* Fills the list of targets. */
static int resolve(struct socks6_dial *d, int extra_flags)
{
    const struct socks6_addr *addrs = d->config.proxy_addresses;
    size_t count = d->config.proxy_address_count;
    int status = SOCKS6_DIAL_IN_PROGRESS;

    if (count == 0) {
        addrs = &d->config.proxy->addr;
        count = 1;
    }
    for (size_t i = 0; i < count && status == SOCKS6_DIAL_IN_PROGRESS; i++) {
        struct s6_target target;

        if (!s6_target_from_addr(&addrs[i], &target)) {
            status = look_up(d, &addrs[i], addrs != &d->config.proxy->addr ? AI_NUMERICHOST : extra_flags);
        } else if (d->config.family == AF_UNSPEC || d->config.family == target.addr.ss_family) {
            add_target(d, (const struct sockaddr *)&target.addr, target.len);
        }
    }
    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        return status;
    }
    return d->target_count > 0 ? status : fail_no_target(d);
}

/* The early data that may be sent now. */
static struct socks6_slice early_left(const struct socks6_dial *d)
{
    size_t credit = s6_talk_credit(&d->talk);
    size_t end = d->config.early.len < credit ? d->config.early.len : credit;

    if (end <= d->early_sent) {
        return (struct socks6_slice){NULL, 0};
    }
    return (struct socks6_slice){d->config.early.data + d->early_sent, end - d->early_sent};
}

/*
 * What to send next: protocol bytes and the early data behind them. Messages of a negotiation follow the early data that
 * was announced with the request, however soon the proxy asks for them.
 */
static void next_output(const struct socks6_dial *d, struct socks6_slice *protocol, struct socks6_slice *early)
{
    *protocol = s6_talk_output(&d->talk);
    *early = early_left(d);
    if (d->request_left > 0 && d->request_left < protocol->len) {
        protocol->len = d->request_left;
    }
    if (d->request_left == 0 && early->len > 0) {
        protocol->len = 0;
    }
}

static void trace_sent(const struct socks6_dial *d, size_t protocol, size_t early)
{
    if (early > 0) {
        s6_talk_trace(&d->talk, "sent %zu bytes to the proxy, %zu of them early data", protocol + early, early);
    } else {
        s6_talk_trace(&d->talk, "sent %zu bytes to the proxy", protocol);
    }
}

/* `n` of the bytes that next_output() has offered are gone. */
static void count_sent(struct socks6_dial *d, struct socks6_slice protocol, size_t n)
{
    size_t from_protocol = n < protocol.len ? n : protocol.len;

    s6_talk_output_sent(&d->talk, from_protocol);
    d->request_left -= d->request_left < from_protocol ? d->request_left : from_protocol;
    d->early_sent += n - from_protocol;
    trace_sent(d, from_protocol, n - from_protocol);
}

/* Fills the layer with what it takes. What then is to go through the socket. */
static struct socks6_slice fill_layer(struct socks6_dial *d)
{
    const struct socks6_dial_layer *layer = d->config.layer;
    struct socks6_slice protocol, early;
    size_t n;

    do {
        next_output(d, &protocol, &early);
        n = protocol.len + early.len > 0 ? layer->write(layer->user, protocol, early) : 0;
        d->is_layer_started = 1;
        if (n > 0) {
            count_sent(d, protocol, n);
        }
    } while (n > 0);
    return layer->output(layer->user);
}

/* The text of the target that was tried last. */
static void target_text(const struct socks6_dial *d, char out[S6_BRIEF_MAX])
{
    struct socks6_addr addr = s6_target_addr(&d->targets[d->target_next - 1]);

    s6_brief(&addr, out);
}

/* Application data that was in the SYN of an attempt that failed like this: the proxy may have it all the same. */
static int may_be_read(const struct socks6_dial *d, int error)
{
    size_t early = d->config.layer != NULL ? d->early_sent : d->config.early.len;

    return d->syn_sent > 0 && early > 0 && error != ECONNREFUSED;
}

/* The running attempt has failed; says so, and ends the dial if it was the last. */
static int attempt_failed(struct socks6_dial *d, int error)
{
    char text[S6_BRIEF_MAX];

    if (d->fd >= 0) {
        (void)close(d->fd);
        d->fd = -1;
    }
    target_text(d, text);
    s6_talk_trace(&d->talk, "cannot connect to proxy %s: %s", text, strerror(error));
    if (d->target_next < d->target_count && !may_be_read(d, error)) {
        d->syn_sent = 0;
        return SOCKS6_DIAL_IN_PROGRESS;
    }
    if (strcmp(text, d->talk.proxy_text) == 0) {
        return s6_talk_fail(&d->talk, SOCKS6_DIAL_PROXY_FAILED, "cannot connect to proxy %s: %s", text,
                            strerror(error));
    }
    return s6_talk_fail(&d->talk, SOCKS6_DIAL_PROXY_FAILED, "cannot connect to proxy %s (%s%s): %s", d->talk.proxy_text,
                        d->target_count > 1 ? "last address tried: " : "", text, strerror(error));
}

/* The bytes that went with the SYN are gone: they need not be sent, whether or not the peer has taken them there. */
static void count_syn(struct socks6_dial *d)
{
    d->result.sent_in_syn = 1;
    if (d->config.layer != NULL) {
        d->config.layer->output_sent(d->config.layer->user, d->syn_sent);
    } else {
        count_sent(d, d->syn_protocol, d->syn_sent);
    }
}

static void connected(struct socks6_dial *d)
{
    char text[S6_BRIEF_MAX];
    unsigned trips = 1;

    target_text(d, text);
    if (d->syn_sent > 0 && d->syn_sent == d->syn_len && s6_net_syn_data_counted(d->fd)) {
        trips = 0;
        s6_talk_trace(&d->talk, "connected to proxy %s by TCP Fast Open, with %zu bytes in the SYN (0 round trips)",
                      text, d->syn_sent);
    } else {
        s6_talk_trace(&d->talk, "connected to proxy %s (1 round trip)", text);
    }
    d->result.round_trips += trips;
    d->state = DIAL_TALKING;
    d->attempt_deadline_ms = NO_DEADLINE;
    if (d->syn_sent > 0) {
        count_syn(d);
    }
}

/* What leaves first: the request and the early data behind it, or what the layer makes of them. */
static void first_flight(struct socks6_dial *d, struct socks6_slice *protocol, struct socks6_slice *early)
{
    *early = (struct socks6_slice){NULL, 0};
    if (d->config.layer != NULL) {
        *protocol = fill_layer(d);
    } else {
        next_output(d, protocol, early);
    }
    d->syn_protocol = *protocol;
    d->syn_len = protocol->len + early->len;
}

/*
 * The kernel holds the SYN of `target` back for us. -EINPROGRESS, or -errno with the descriptor closed. A first flight that does not
 * fit as a whole gains nothing from it: then it is to be an ordinary connection.
 */
static int send_syn(struct socks6_dial *d, const struct s6_target *target)
{
    struct socks6_slice protocol, early;
    ssize_t n;

    first_flight(d, &protocol, &early);
    if (d->config.fast_open != SOCKS6_FAST_OPEN_DATA || d->syn_len > s6_net_syn_room(d->fd, target)) {
        (void)close(d->fd);
        d->fd = -1;
        return s6_net_connect(target, &d->fd);
    }
    n = s6_net_send(d->fd, protocol, early);
    if (n < 0 && n != -EINPROGRESS && n != -EAGAIN) {
        (void)close(d->fd);
        d->fd = -1;
        return (int)n;
    }
    d->syn_sent = n > 0 ? (size_t)n : 0;
    d->result.sent = d->result.sent || n > 0;
    return -EINPROGRESS;
}

static int start_attempt(struct socks6_dial *d, const struct s6_target *target)
{
    int rc;

    d->fd_count++;
    if (d->config.fast_open == SOCKS6_FAST_OPEN_OFF) {
        return s6_net_connect(target, &d->fd);
    }
    rc = s6_net_connect_fast(target, &d->fd);
    return rc == 0 ? send_syn(d, target) : rc;
}

/* Starts attempts until one is under way or no target is left. Each gets an equal share of the time that remains. */
static int next_attempt(struct socks6_dial *d, uint64_t now_ms)
{
    int rc = -EINPROGRESS;

    while (d->fd < 0) {
        size_t left = d->target_count - d->target_next;

        assert(left > 0);
        if (d->deadline_ms != NO_DEADLINE) {
            uint64_t remaining = d->deadline_ms > now_ms ? d->deadline_ms - now_ms : 0;

            d->attempt_deadline_ms = now_ms + remaining / left;
        }
        rc = start_attempt(d, &d->targets[d->target_next++]);
        if (d->fd < 0 && attempt_failed(d, -rc) != SOCKS6_DIAL_IN_PROGRESS) {
            return d->talk.status;
        }
    }
    if (rc == 0 || s6_net_connected_already(d->fd)) {
        connected(d);
    }
    return SOCKS6_DIAL_IN_PROGRESS;
}

static int step_connecting(struct socks6_dial *d, uint64_t now_ms)
{
    int rc = s6_net_connected(d->fd);

    if (rc == 0) {
        connected(d);
        return SOCKS6_DIAL_IN_PROGRESS;
    }
    if (rc == -EINPROGRESS) {
        if (now_ms < d->attempt_deadline_ms) {
            return SOCKS6_DIAL_IN_PROGRESS;
        }
        rc = -ETIMEDOUT;
    }
    if (attempt_failed(d, -rc) != SOCKS6_DIAL_IN_PROGRESS) {
        return d->talk.status;
    }
    return next_attempt(d, now_ms);
}

/* Through the layer has come what it was opened for. */
static void layer_opened(struct socks6_dial *d)
{
    const struct socks6_dial_layer *layer = d->config.layer;
    unsigned trips = layer->round_trips(layer->user);
    char text[128];

    d->is_layer_open = 1;
    d->result.round_trips += trips;
    layer->describe(layer->user, text, sizeof text);
    s6_talk_trace(&d->talk, "%s (%u round trip%s)", text, trips, trips == 1 ? "" : "s");
}

static int fail_layer(struct socks6_dial *d)
{
    const struct socks6_dial_layer *layer = d->config.layer;
    struct socks6_slice alert = layer->output(layer->user);

    if (alert.len > 0) { /* what it tells the other side; whether that hears it makes no difference to us */
        (void)!s6_net_send(d->fd, alert, (struct socks6_slice){NULL, 0});
    }
    return s6_talk_fail(&d->talk, SOCKS6_DIAL_PROXY_FAILED, "no TLS with proxy %s: %s", d->talk.proxy_text,
                        layer->error(layer->user));
}

static int fail_lost(struct socks6_dial *d, int error)
{
    return s6_talk_fail(&d->talk, SOCKS6_DIAL_PROXY_FAILED, "connection to proxy %s lost: %s", d->talk.proxy_text,
                        strerror(error));
}

/* Everything that the layer has for the conversation. Returns 0 if it has nothing more to come. */
static int read_through_layer(struct socks6_dial *d, uint64_t now_ms)
{
    const struct socks6_dial_layer *layer = d->config.layer;
    uint8_t buf[1024];
    size_t n;

    while (d->talk.status == SOCKS6_DIAL_IN_PROGRESS && (n = layer->peek(layer->user, buf, sizeof buf)) > 0) {
        if (!d->is_layer_open) {
            layer_opened(d);
        }
        layer->discard(layer->user, s6_talk_input(&d->talk, buf, n, now_ms));
    }
    if (d->talk.status != SOCKS6_DIAL_IN_PROGRESS) {
        return 0;
    }
    if (layer->error(layer->user) != NULL) {
        (void)fail_layer(d);
        return 0;
    }
    if (layer->is_ended(layer->user)) {
        s6_talk_eof(&d->talk);
        return 0;
    }
    return 1;
}

/* The same with a layer: all that the socket has goes into it. */
static void read_layer(struct socks6_dial *d, uint64_t now_ms)
{
    const struct socks6_dial_layer *layer = d->config.layer;
    uint8_t buf[1024];

    while (read_through_layer(d, now_ms)) {
        ssize_t n = s6_net_receive(d->fd, buf, sizeof buf);

        if (n == -EAGAIN) {
            return;
        }
        if (n < 0) {
            (void)fail_lost(d, (int)-n);
            return;
        }
        if (n == 0 && !d->is_layer_started) { /* it has not even been asked */
            s6_talk_eof(&d->talk);
            return;
        }
        layer->input(layer->user, (struct socks6_slice){n > 0 ? buf : NULL, (size_t)n});
    }
}

/* Reads until the socket is empty or the reply is whole, and not a byte further. */
static void read_replies(struct socks6_dial *d, uint64_t now_ms)
{
    uint8_t buf[2048];

    if (d->config.layer != NULL) {
        read_layer(d, now_ms);
        return;
    }
    while (d->talk.status == SOCKS6_DIAL_IN_PROGRESS) {
        ssize_t n = s6_net_peek(d->fd, buf, sizeof buf);
        int rc;

        if (n == -EAGAIN) {
            return;
        }
        if (n == 0) {
            s6_talk_eof(&d->talk);
            return;
        }
        if (n < 0) {
            (void)fail_lost(d, (int)-n);
            return;
        }
        rc = s6_net_discard(d->fd, s6_talk_input(&d->talk, buf, (size_t)n, now_ms));
        if (rc != 0) {
            (void)fail_lost(d, -rc);
            return;
        }
    }
}

static int wants_to_send(const struct socks6_dial *d)
{
    struct socks6_slice protocol, early;

    if (d->config.layer != NULL) {
        return !d->is_layer_started || d->config.layer->output(d->config.layer->user).len > 0;
    }
    next_output(d, &protocol, &early);
    return protocol.len > 0 || early.len > 0;
}

static ssize_t send_some(struct socks6_dial *d)
{
    struct socks6_slice protocol, early;
    ssize_t n;

    if (d->config.layer != NULL) {
        protocol = fill_layer(d);
        if (protocol.len == 0) {
            return 0;
        }
        n = s6_net_send(d->fd, protocol, (struct socks6_slice){NULL, 0});
        if (n > 0) {
            d->config.layer->output_sent(d->config.layer->user, (size_t)n);
        }
        return n;
    }
    next_output(d, &protocol, &early);
    if (protocol.len == 0 && early.len == 0) {
        return 0;
    }
    n = s6_net_send(d->fd, protocol, early);
    if (n > 0) {
        count_sent(d, protocol, (size_t)n);
    }
    return n;
}

/* Writes as much as the socket takes. Returns 1 if something was written. */
static int write_out(struct socks6_dial *d, uint64_t now_ms)
{
    int moved = 0;

    for (;;) {
        ssize_t n = send_some(d);

        if (n == 0 || n == -EAGAIN) {
            return moved;
        }
        if (n < 0) {
            read_replies(d, now_ms); /* what the proxy said before it went away is the better explanation */
            if (d->talk.status == SOCKS6_DIAL_IN_PROGRESS || d->talk.status == SOCKS6_DIAL_OK) {
                (void)fail_lost(d, (int)-n);
            }
            return 1;
        }
        moved = 1;
    }
}

static int step_talking(struct socks6_dial *d, uint64_t now_ms)
{
    do {
        read_replies(d, now_ms);
        if (d->talk.status != SOCKS6_DIAL_IN_PROGRESS && d->talk.status != SOCKS6_DIAL_OK) {
            return d->talk.status;
        }
    } while (write_out(d, now_ms));
    if (d->talk.status == SOCKS6_DIAL_OK && (d->early_sent < d->config.early.len || wants_to_send(d))) {
        return SOCKS6_DIAL_IN_PROGRESS; /* all of it is sent before we hand out the socket */
    }
    return d->talk.status;
}

static int fail_timeout(struct socks6_dial *d)
{
    const char *what = "waiting for a reply of";

    if (d->state == DIAL_CONNECTING) {
        what = "connecting to";
    } else if (wants_to_send(d)) {
        what = "sending to";
    }
    return s6_talk_fail(&d->talk, SOCKS6_DIAL_TIMED_OUT, "timed out %s proxy %s", what, d->talk.proxy_text);
}

/* Hands the result out at the end. */
static int finish(struct socks6_dial *d, int status, struct socks6_dial_result *result)
{
    if (status == SOCKS6_DIAL_IN_PROGRESS) {
        return status;
    }
    if (status == SOCKS6_DIAL_OK) {
        s6_talk_trace(&d->talk, "%u round trip%s to the proxy in all", d->result.round_trips,
                      d->result.round_trips == 1 ? "" : "s");
        d->result.fd = d->fd;
    }
    *result = d->result;
    if (status == SOCKS6_DIAL_OK) {
        d->result.fd = -1;
        d->fd = -1;
    }
    return status;
}

int socks6_dial_step(struct socks6_dial *dial, struct socks6_dial_result *result)
{
    uint64_t now_ms = s6_now_ms();
    int status = dial->talk.status;

    result_init(result);
    if (dial->fd < 0) { /* it is over: say the same again */
        *result = dial->result;
        return status;
    }
    if (dial->state == DIAL_CONNECTING) {
        status = step_connecting(dial, now_ms);
    }
    if (status != SOCKS6_DIAL_IN_PROGRESS && dial->state == DIAL_CONNECTING) {
        if (now_ms >= dial->deadline_ms) {
            status = fail_timeout(dial);
        }
        return finish(dial, status, result);
    }
    if (dial->state == DIAL_TALKING) {
        status = step_talking(dial, now_ms);
    }
    if (status == SOCKS6_DIAL_IN_PROGRESS && now_ms >= dial->deadline_ms) {
        status = fail_timeout(dial);
    }
    return finish(dial, status, result);
}

int socks6_dial_start(const struct socks6_dial_config *config, struct socks6_dial **out,
                      struct socks6_dial_result *result)
{
    struct socks6_dial *d = NULL;
    int status = dial_new(config, &d, result);

    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        return status;
    }
    status = resolve(d, AI_NUMERICHOST);
    if (status == SOCKS6_DIAL_IN_PROGRESS) {
        status = next_attempt(d, s6_now_ms());
    }
    if (status == SOCKS6_DIAL_IN_PROGRESS && d->state == DIAL_TALKING) { /* a turn of the caller's loop less */
        (void)write_out(d, s6_now_ms());
        status = d->talk.status;
    }
    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        *result = d->result;
        socks6_dial_free(d);
        return status;
    }
    *out = d;
    return SOCKS6_DIAL_IN_PROGRESS;
}

int socks6_dial_fd(const struct socks6_dial *dial)
{
    return dial->fd;
}

unsigned socks6_dial_fd_count(const struct socks6_dial *dial)
{
    return dial->fd_count;
}

short socks6_dial_events(const struct socks6_dial *dial)
{
    short events = 0;

    if (dial->state == DIAL_CONNECTING) {
        return POLLOUT;
    }
    if (dial->talk.status == SOCKS6_DIAL_IN_PROGRESS) {
        events |= POLLIN;
    }
    if (wants_to_send(dial)) {
        events |= POLLOUT;
    }
    return events;
}

int socks6_dial_timeout_ms(const struct socks6_dial *dial)
{
    uint64_t now_ms = s6_now_ms();
    uint64_t due = dial->deadline_ms < dial->attempt_deadline_ms ? dial->deadline_ms : dial->attempt_deadline_ms;

    if (due == NO_DEADLINE) {
        return -1;
    }
    if (due <= now_ms) {
        return 0;
    }
    return due - now_ms > INT_MAX ? INT_MAX : (int)(due - now_ms);
}

/* Leads a dial whose targets are known to its end. */
static int run(struct socks6_dial *d, struct socks6_dial_result *result)
{
    int status = next_attempt(d, s6_now_ms());

    while (status == SOCKS6_DIAL_IN_PROGRESS) {
        struct pollfd pfd = {d->fd, socks6_dial_events(d), 0};

        if (poll(&pfd, 1, socks6_dial_timeout_ms(d)) < 0 && errno != EINTR) {
            return s6_talk_fail(&d->talk, SOCKS6_DIAL_NOMEM, "cannot wait for proxy %s: %s", d->talk.proxy_text,
                                strerror(errno));
        }
        status = socks6_dial_step(d, result);
    }
    return status;
}

int socks6_dial(const struct socks6_dial_config *config, struct socks6_dial_result *result)
{
    struct socks6_dial *d = NULL;
    int status = dial_new(config, &d, result);
    int rc;

    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        return status;
    }
    if (config->proxy->addr.type == SOCKS6_ADDR_NAME && config->proxy_address_count == 0) {
        s6_talk_trace(&d->talk, "looking up proxy %s", d->talk.proxy_text);
    }
    status = resolve(d, 0);
    if (status == SOCKS6_DIAL_IN_PROGRESS) {
        status = run(d, result);
    }
    if (status != SOCKS6_DIAL_OK) {
        *result = d->result;
    } else if ((rc = s6_net_set_blocking(result->fd)) != 0) {
        (void)close(result->fd);
        status = fail_lost(d, -rc);
        *result = d->result;
    }
    socks6_dial_free(d);
    return status;
}
