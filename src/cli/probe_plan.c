/*
 * The order of questions:
 *
 *   1. a connection, nothing else
 *   2. a NOOP of SOCKS 6 alone: the least that a proxy can be asked, and it bears no login
 *   3. if it is answered: everything about SOCKS 6 (probe_plan6.c)
 *   4. unless the bytes that came are those of another protocol: SOCKS 5, 4 and 4a (probe_plan5.c)
 *   5. if none of them is spoken: what a web server and a TLS server answer to
 *   6. TCP Fast Open, by a question that may be repeated
 *
 * A login is sent in steps 3 and 4 only, to peers that have answered in that protocol. Without --target nobody but the
 * proxy is asked for: CONNECT goes to its own address and port.
 */
#include "cli/probe_plan.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/probe_plan_internal.h"

/* One question may take so much of the whole time. */
#define SHARE 4

bool probe_next(struct probe *probe, const char *what)
{
    if (probe_now_us() >= probe->deadline_us) {
        probe->report->complete = false;
        return false;
    }
    if (probe->settings->trace != NULL) {
        probe->settings->trace(what);
    }
    return true;
}

void probe_ask(struct probe *probe, struct probe_ask6 *ask)
{
    const struct socks6_proxy *proxy = &probe->settings->proxy;

    probe_ask6_init(ask, proxy->has_credentials ? proxy->username : NULL, proxy->password);
    ask->config.draft = proxy->draft;
    ask->config.addr = probe->target;
}

void probe_run_one(struct probe *probe, struct probe_ask6 *ask)
{
    struct probe_ask6 *const one[1] = {ask};

    probe_ask6_run(one, 1, &probe->peer, probe->limit_us, probe->deadline_us);
}

void probe_set_failed(struct probe *probe, enum probe_row_id row, const struct probe_ask6 *ask)
{
    switch (ask->outcome) {
    case PROBE6_REPLIED:
        break;
    case PROBE6_BROKEN:
    case PROBE6_FOREIGN:
        probe_set(probe->report, row, PROBE_BROKEN, "%s", ask->why);
        break;
    case PROBE6_REFUSED:
    case PROBE6_LONE:
    case PROBE6_CLOSED:
    case PROBE6_TIME_OUT:
    case PROBE6_FAILED:
        probe_set(probe->report, row, PROBE_UNKNOWN, "%s", ask->why);
        break;
    }
}

void probe_set_reply_time(struct probe *probe, enum probe_row_id row, uint64_t us, uint32_t rtt_us)
{
    double ms = (double)us / 1000.0;

    probe_set_time(probe->report, row, us, rtt_us);
    if (rtt_us > 0) {
        probe_set(probe->report, row, PROBE_YES, "%.2f ms, %.1f times the round trip of the connection", ms,
                  (double)us / (double)rtt_us);
    } else {
        probe_set(probe->report, row, PROBE_YES, "%.2f ms", ms);
    }
}

void probe_set_connect(struct probe *probe, enum probe_row_id row, const struct socks6_addr *target, bool is_target,
                       unsigned code, const char *reply)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(target, text, sizeof text);
    probe_set_value(probe->report, row, code);
    if (code == SOCKS6_REPLY_SUCCESS) {
        probe_set(probe->report, row, PROBE_YES, "connected to %.200s", text);
    } else if (code == SOCKS6_REPLY_COMMAND_UNSUPPORTED) {
        probe_set(probe->report, row, PROBE_NO, "not offered: %s (reply %u)", reply, code);
    } else if (is_target) {
        probe_set(probe->report, row, PROBE_NO, "%s by %.150s (reply %u)", reply, text, code);
    } else {
        probe_set(probe->report, row, PROBE_UNKNOWN, "answered; to itself, %.100s, it says: %s (reply %u)", text, reply,
                  code);
    }
}

/* A connection and nothing else. */
static enum probe_talk_next only_connect(struct probe_talk *talk)
{
    (void)talk;
    return PROBE_TALK_ENOUGH;
}

static bool try_connect(struct probe *probe, const struct addrinfo *one, int *error)
{
    struct probe_talk talk = {.step = only_connect, .fd = -1};
    struct probe_talk *const talks[1] = {&talk};
    double ms;

    memset(&probe->peer.addr, 0, sizeof probe->peer.addr);
    probe->peer.tls_why[0] = '\0';
    memcpy(&probe->peer.addr, one->ai_addr, one->ai_addrlen);
    probe->peer.len = one->ai_addrlen;
    probe_talk_run(talks, 1, &probe->peer, probe->limit_us, probe->deadline_us);
    probe_talk_done(&talk);
    if (!talk.connected) {
        *error = talk.end == PROBE_TALK_TIME_OUT ? ETIMEDOUT : talk.error;
        return false;
    }
    if (probe->peer.tls != NULL &&
        (talk.end == PROBE_TALK_FAILED || talk.end == PROBE_TALK_CLOSED || talk.end == PROBE_TALK_TIME_OUT)) {
        if (probe->peer.tls_why[0] == '\0') {
            (void)snprintf(probe->peer.tls_why, sizeof probe->peer.tls_why, "no TLS: %s",
                           talk.end == PROBE_TALK_TIME_OUT ? "no answer in time"
                           : talk.error != 0               ? strerror(talk.error)
                                                           : "the connection was closed");
        }
        *error = EPROTO;
        return false;
    }
    ms = (double)talk.connect_us / 1000.0;
    probe_set_time(probe->report, PROBE_ROW_TCP, talk.connect_us, talk.rtt_us);
    probe->rtt_us = talk.rtt_us;
    probe_set(probe->report, PROBE_ROW_TCP, PROBE_YES, "connected in %.2f ms; round trip %.2f ms%s%s", ms,
              (double)talk.rtt_us / 1000.0, talk.tls_text[0] != '\0' ? "; " : "", talk.tls_text);
    return true;
}

/* The proxy's addresses in turn, until one takes a connection. */
static bool reach(struct probe *probe)
{
    const struct addrinfo hints = {.ai_family = probe->settings->family, .ai_socktype = SOCK_STREAM};
    char host[SOCKS6_ADDR_TEXT_MAX], port[8];
    struct addrinfo *found = NULL;
    int error = 0, rc;

    (void)socks6_addr_format_host(&probe->settings->proxy.addr, host, sizeof host);
    (void)snprintf(port, sizeof port, "%u", (unsigned)probe->settings->proxy.addr.port);
    rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) {
        probe->facts.unreached = rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc);
        probe_set(probe->report, PROBE_ROW_TCP, PROBE_NO, "%s", probe->facts.unreached);
        return false;
    }
    for (const struct addrinfo *one = found; one != NULL && !probe->facts.is_reached; one = one->ai_next) {
        probe->facts.is_reached = try_connect(probe, one, &error);
    }
    freeaddrinfo(found);
    if (!probe->facts.is_reached) {
        probe->facts.unreached = probe->peer.tls_why[0] != '\0' ? probe->peer.tls_why : strerror(error);
        probe_set(probe->report, PROBE_ROW_TCP, PROBE_NO, "%s", probe->facts.unreached);
    }
    return probe->facts.is_reached;
}

static struct socks6_addr addr_of(const struct probe_peer *peer)
{
    struct socks6_addr addr;

    if (peer->addr.ss_family == AF_INET6) {
        struct sockaddr_in6 six;

        memcpy(&six, &peer->addr, sizeof six);
        addr = socks6_addr_ipv6(six.sin6_addr.s6_addr, ntohs(six.sin6_port));
    } else {
        struct sockaddr_in four;

        memcpy(&four, &peer->addr, sizeof four);
        addr = socks6_addr_ipv4((const uint8_t *)&four.sin_addr, ntohs(four.sin_port));
    }
    socks6_addr_normalize(&addr);
    return addr;
}

/* What is asked for: the target if there is one and it fits, else the proxy itself. */
static void choose_targets(struct probe *probe)
{
    static const uint8_t loopback[4] = {127, 0, 0, 1};
    const struct probe_settings *settings = probe->settings;
    uint16_t port;

    probe->own = addr_of(&probe->peer);
    port = probe->own.port;
    probe->target = settings->has_target ? settings->target : probe->own;
    (void)socks6_addr_name("localhost", 9, port, &probe->by_name); /* a valid name */
    if (probe->target.type == SOCKS6_ADDR_NAME) {
        probe->by_name = probe->target;
    }
    probe->by_ipv4 = probe->own.type == SOCKS6_ADDR_IPV4 ? probe->own : socks6_addr_ipv4(loopback, port);
    if (probe->target.type == SOCKS6_ADDR_IPV4) {
        probe->by_ipv4 = probe->target;
    }
    (void)socks6_addr_format(&probe->target, probe->report->target, sizeof probe->report->target);
}

/* What was no answer in SOCKS 6: what is it? */
static void look_at_stranger(struct probe *probe, const struct probe_ask6 *noop)
{
    enum probe_kind kind;

    if (noop->talk.in_len == 0) {
        return;
    }
    probe_quote(noop->talk.in, noop->talk.in_len, probe->facts.first_bytes);
    kind = probe_guess(noop->talk.in, noop->talk.in_len);
    if (kind != PROBE_KIND_SOCKS5 && kind != PROBE_KIND_SOCKS4 && kind != PROBE_KIND_SOCKS6) {
        probe->report->kind = kind; /* SOCKS is told by questions of its own, not by the look of an error */
    }
}

static void tell_noop(struct probe *probe, const struct probe_ask6 *noop)
{
    struct probe_report *report = probe->report;

    switch (noop->outcome) {
    case PROBE6_REPLIED:
        probe_set(report, PROBE_ROW_SOCKS6, PROBE_YES, "answers%s%s", noop->walk.oddity[0] != '\0' ? "; " : "",
                  noop->walk.oddity);
        break;
    case PROBE6_REFUSED:
        probe_set(report, PROBE_ROW_SOCKS6, PROBE_YES, "answers, and wants a login");
        break;
    case PROBE6_BROKEN:
        probe_set(report, PROBE_ROW_SOCKS6, PROBE_BROKEN, "%s", noop->why);
        probe->facts.begins_as_socks6 = true;
        break;
    case PROBE6_LONE:
        probe_set(report, PROBE_ROW_SOCKS6, PROBE_NO, "answers with a lone 6 and closes: it is switched off there");
        break;
    case PROBE6_FOREIGN:
    case PROBE6_CLOSED:
    case PROBE6_TIME_OUT:
    case PROBE6_FAILED:
        probe_set(report, PROBE_ROW_SOCKS6, PROBE_NO, "%s", noop->why);
        break;
    }
    if (noop->outcome == PROBE6_REPLIED || noop->outcome == PROBE6_REFUSED) {
        probe->facts.socks6.progress = PROBE_SPOKEN;
    } else {
        look_at_stranger(probe, noop);
    }
}

static bool may_be_socks(const struct probe *probe)
{
    return probe->report->kind == PROBE_KIND_NONE || probe->report->kind == PROBE_KIND_OTHER ||
           probe->report->kind == PROBE_KIND_SOCKS6_PRIVATE;
}

static int ask_all(struct probe *probe)
{
    struct probe_ask6 *noop = calloc(1, sizeof *noop);
    int rc = 0;

    if (noop == NULL) {
        return -ENOMEM;
    }
    probe_ask6_init(noop, NULL, NULL);
    noop->config.command = SOCKS6_COMMAND_NOOP;
    if (probe_next(probe, "a NOOP of SOCKS 6")) {
        probe_run_one(probe, noop);
        tell_noop(probe, noop);
    }
    if (probe->facts.socks6.progress != PROBE_NOT_SPOKEN) {
        rc = probe_plan6(probe, noop);
    }
    if (rc == 0 && may_be_socks(probe)) {
        probe_plan5(probe);
    }
    probe_ask6_done(noop);
    free(noop);
    if (rc == 0 && probe->facts.socks6.progress == PROBE_NOT_SPOKEN &&
        probe->facts.socks5.progress == PROBE_NOT_SPOKEN && !probe->facts.speaks_socks4) {
        if (may_be_socks(probe)) {
            probe_plan_stranger(probe);
        }
    } else if (rc == 0) {
        probe_fast_open(probe);
        if (probe->facts.socks6.progress >= PROBE_REPLIED) {
            probe_cold_and_warm(probe);
        }
    }
    return rc;
}

/* Why a row was never asked; NULL: no more to say. */
static const char *why_skipped(const struct probe *probe, enum probe_row_id id)
{
    const struct probe_facts *facts = &probe->facts;

    if (!facts->is_reached) {
        return "no connection";
    }
    if (!probe->report->complete) {
        return "the time ran out";
    }
    switch (id) {
    case PROBE_ROW_LOGIN:
        return probe->settings->proxy.has_credentials ? NULL : "no user name was given";
    case PROBE_ROW_SOCKS5:
    case PROBE_ROW_SOCKS4A:
    case PROBE_ROW_SOCKS4:
        return "this is another protocol";
    case PROBE_ROW_METHODS_5:
    case PROBE_ROW_CONNECT_5:
    case PROBE_ROW_TIME_SOCKS5:
        return facts->socks5.progress == PROBE_NOT_SPOKEN ? "no SOCKS 5" : NULL;
    case PROBE_ROW_TFO_CLIENT:
        return "no SOCKS that has a request without effect";
    default:
        if (facts->socks6.progress == PROBE_NOT_SPOKEN) {
            return "no SOCKS 6";
        }
        return facts->socks6.progress < PROBE_REPLIED ? "no request is granted" : NULL;
    }
}

static void explain_skipped(struct probe *probe)
{
    for (size_t i = 0; i < PROBE_ROW_COUNT; i++) {
        enum probe_row_id id = (enum probe_row_id)i;
        const struct probe_row *row = &probe->report->rows[i];
        const char *why = why_skipped(probe, id);

        if (row->state == PROBE_SKIPPED && strcmp(row->text, "not asked") == 0 && why != NULL) {
            probe_set(probe->report, id, PROBE_SKIPPED, "not asked: %s", why);
        }
    }
}

int probe_plan_run(const struct probe_settings *settings, struct probe_report *report)
{
    uint64_t started_us = probe_now_us();
    struct probe *probe = calloc(1, sizeof *probe);
    int rc = 0;

    if (probe == NULL) {
        return -ENOMEM;
    }
    probe->settings = settings;
    probe->report = report;
    probe->deadline_us = started_us + settings->timeout_ms * 1000u;
    probe->limit_us = settings->timeout_ms * 1000u / SHARE;
    probe->peer.tls = settings->proxy.is_tls ? &settings->proxy : NULL;
    probe_observations_init(&probe->seen);
    (void)socks6_addr_format(&settings->proxy.addr, report->proxy, sizeof report->proxy);
    report->target_is_default = !settings->has_target;
    if (reach(probe)) {
        choose_targets(probe);
        rc = ask_all(probe);
    }
    explain_skipped(probe);
    probe_verdict(&probe->facts, settings->proxy.scheme, settings->any_version, report);
    report->elapsed_ms = (probe_now_us() - started_us) / 1000u;
    explicit_bzero(probe, sizeof *probe);
    free(probe);
    return rc;
}
