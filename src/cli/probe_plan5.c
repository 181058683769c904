/* The questions in SOCKS 5, 4 and 4a, and those to peers that speak none of them. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "cli/probe_plan_internal.h"

/* All methods of the registry, as far as they are assigned. */
static const uint8_t assigned[] = {0, 1, 2, 3, 5, 6, 7, 8, 9};

static void run_one(struct probe *probe, struct probe_old *ask)
{
    struct probe_old *const one[1] = {ask};

    probe_old_run(one, 1, &probe->peer, probe->limit_us, probe->deadline_us);
}

/* What is left out of a greeting once it was chosen. */
static size_t drop(uint8_t *methods, size_t count, int method)
{
    uint8_t *found = memchr(methods, method, count);

    if (found == NULL) {
        return count;
    }
    memmove(found, found + 1, (size_t)(methods + count - found - 1));
    return count - 1;
}

/* The first greeting was answered with a method: which others would be? */
static void ask_methods(struct probe *probe, int first)
{
    uint8_t methods[sizeof assigned];
    size_t count = sizeof methods;
    int chosen = first;

    memcpy(methods, assigned, sizeof methods);
    while (chosen >= 0) {
        struct probe_old ask = {.form = PROBE_OLD_GREETING5};

        probe_list_add(probe->report, PROBE_ROW_METHODS_5, (uint8_t)chosen);
        count = drop(methods, count, chosen);
        if (count == 0 || !probe_next(probe, "the methods of authentication of SOCKS 5")) {
            return;
        }
        memcpy(ask.methods, methods, count);
        ask.method_count = count;
        run_one(probe, &ask);
        chosen = ask.outcome == PROBE_OLD_ANSWERED ? ask.method : -1;
        probe_old_done(&ask);
    }
}

static void tell_methods(struct probe *probe)
{
    const struct probe_row *row = &probe->report->rows[PROBE_ROW_METHODS_5];
    bool is_open = memchr(row->list, SOCKS6_METHOD_NONE, row->list_count) != NULL;
    char names[160] = "";

    for (size_t i = 0; i < row->list_count; i++) {
        size_t len = strlen(names);

        (void)snprintf(names + len, sizeof names - len, "%s%s", i > 0 ? ", " : "", probe_method_name(row->list[i]));
    }
    if (row->list_count == 0) {
        probe_set(probe->report, PROBE_ROW_METHODS_5, PROBE_NO, "no method that is assigned is accepted");
    } else {
        probe_set(probe->report, PROBE_ROW_METHODS_5, is_open ? PROBE_YES : PROBE_NO, "accepts: %s", names);
    }
}

static void tell_login(struct probe *probe, const struct probe_old *ask)
{
    /* SOCKS 6 has the row if both are spoken. */
    if (probe->report->rows[PROBE_ROW_LOGIN].state != PROBE_SKIPPED || !probe->settings->proxy.has_credentials) {
        return;
    }
    if (ask->outcome == PROBE_OLD_REFUSED) {
        probe_set(probe->report, PROBE_ROW_LOGIN, PROBE_NO, "%s", ask->why);
    } else if (ask->outcome == PROBE_OLD_ANSWERED) {
        probe_set(probe->report, PROBE_ROW_LOGIN, PROBE_YES, "%s",
                  ask->method == SOCKS6_METHOD_USERPASS ? "accepted" : "not needed: the proxy chose to ask for none");
    }
}

static void tell_connect(struct probe *probe, const struct probe_old *ask)
{
    struct probe_progress_of *facts = &probe->facts.socks5;

    switch (ask->outcome) {
    case PROBE_OLD_ANSWERED:
        *facts = (struct probe_progress_of){PROBE_REPLIED, ask->code, probe_old_reply5(ask->code)};
        probe_set_connect(probe, PROBE_ROW_CONNECT_5, &probe->target, probe->settings->has_target, ask->code,
                          probe_old_reply5(ask->code));
        probe_set_reply_time(probe, PROBE_ROW_TIME_SOCKS5, ask->reply_us, ask->talk.rtt_us);
        break;
    case PROBE_OLD_REFUSED:
        facts->progress = probe->settings->proxy.has_credentials ? PROBE_LOGIN_FAILED : PROBE_LOGIN_WANTED;
        probe_set(probe->report, PROBE_ROW_CONNECT_5, PROBE_SKIPPED, "not asked: %s", ask->why);
        break;
    case PROBE_OLD_FOREIGN:
        probe_set(probe->report, PROBE_ROW_CONNECT_5, PROBE_BROKEN, "%s", ask->why);
        break;
    case PROBE_OLD_CLOSED:
    case PROBE_OLD_TIME_OUT:
    case PROBE_OLD_FAILED:
        probe_set(probe->report, PROBE_ROW_CONNECT_5, PROBE_UNKNOWN, "%s", ask->why);
        break;
    }
}

/* With the login of the proxy's URL, if there is one. */
static void ask_connect(struct probe *probe)
{
    const struct socks6_proxy *proxy = &probe->settings->proxy;
    struct probe_old ask = {.form = PROBE_OLD_CONNECT5,
                            .target = probe->target,
                            .methods = {SOCKS6_METHOD_NONE, SOCKS6_METHOD_USERPASS},
                            .method_count = proxy->has_credentials ? 2 : 1,
                            .user = proxy->username,
                            .password = proxy->password};

    if (!probe_next(probe, "a CONNECT of SOCKS 5")) {
        return;
    }
    run_one(probe, &ask);
    tell_login(probe, &ask);
    tell_connect(probe, &ask);
    probe_old_done(&ask);
}

static void tell_socks5(struct probe *probe, const struct probe_old *greeting)
{
    struct probe_report *report = probe->report;

    switch (greeting->outcome) {
    case PROBE_OLD_ANSWERED:
    case PROBE_OLD_REFUSED:
        probe_set(report, PROBE_ROW_SOCKS5, PROBE_YES, "answers");
        probe->facts.socks5.progress = PROBE_SPOKEN;
        break;
    case PROBE_OLD_FOREIGN:
        probe_set(report, PROBE_ROW_SOCKS5, PROBE_NO, "%s", greeting->why);
        if (greeting->talk.in_len > 1 && greeting->talk.in[0] == 5) {
            probe_set(report, PROBE_ROW_SOCKS5, PROBE_BROKEN, "%s", greeting->why);
        }
        break;
    case PROBE_OLD_CLOSED:
    case PROBE_OLD_TIME_OUT:
    case PROBE_OLD_FAILED:
        probe_set(report, PROBE_ROW_SOCKS5, PROBE_NO, "%s", greeting->why);
        break;
    }
}

static void tell_socks4(struct probe *probe, enum probe_row_id row, const struct probe_old *ask)
{
    struct probe_report *report = probe->report;

    if (ask->outcome != PROBE_OLD_ANSWERED) {
        probe_set(report, row, PROBE_NO, "%s", ask->why);
        return;
    }
    probe->facts.speaks_socks4 = true;
    probe_set_value(report, row, ask->code);
    if (row == PROBE_ROW_SOCKS4A && ask->code != PROBE_OLD_GRANTED4) { /* who does not know names says the same */
        probe_set(report, row, PROBE_UNKNOWN, "a name is answered with: %s (%u)", probe_old_reply4(ask->code),
                  ask->code);
    } else {
        probe_set(report, row, PROBE_YES, "answers: %s (%u)", probe_old_reply4(ask->code), ask->code);
    }
}

void probe_plan5(struct probe *probe)
{
    struct probe_old greeting = {.form = PROBE_OLD_GREETING5, .method_count = sizeof assigned};
    struct probe_old four = {.form = PROBE_OLD_CONNECT4, .target = probe->by_ipv4};
    struct probe_old four_a = {.form = PROBE_OLD_CONNECT4, .target = probe->by_name};
    enum { ASK_COUNT = 3 };
    struct probe_old *const asks[ASK_COUNT] = {&greeting, &four, &four_a};

    if (!probe_next(probe, "SOCKS 5, 4 and 4a")) {
        return;
    }
    memcpy(greeting.methods, assigned, sizeof assigned);
    probe_old_run(asks, ASK_COUNT, &probe->peer, probe->limit_us, probe->deadline_us);
    tell_socks5(probe, &greeting);
    tell_socks4(probe, PROBE_ROW_SOCKS4, &four);
    tell_socks4(probe, PROBE_ROW_SOCKS4A, &four_a);
    if (probe->facts.socks5.progress == PROBE_SPOKEN) {
        ask_methods(probe, greeting.method);
        tell_methods(probe);
        ask_connect(probe);
    }
    for (size_t i = 0; i < ASK_COUNT; i++) {
        probe_old_done(asks[i]);
    }
}

/* Strangers --------------------------------------------------------------------------------------------------------- */

static const char web_question[] = "GET / HTTP/1.0\r\n\r\n";

/*
 * A ClientHello of TLS 1.2 (RFC 5246 7.4.1.2) with five usual suites and no extensions. Its 32 random bytes are no secret:
 * no handshake is finished.
 */
static const char tls_question[] = "\x16\x03\x01\x00\x35"             /* record: handshake, 53 bytes */
                                   "\x01\x00\x00\x31\x03\x03"         /* ClientHello of 49 bytes, TLS 1.2 */
                                   "socks6 probe, random and unused." /* random */
                                   "\x00"                             /* no session */
                                   "\x00\x0a\xc0\x2f\xc0\x30\x00\x9c\x00\x2f\x00\x35" /* suites */
                                   "\x01"; /* one compression, none: the NUL behind */
static_assert(sizeof tls_question == 5 + 53, "as long as it says");

/* What the bytes of an answer look like; those of SOCKS are no proof where its own questions were not answered. */
static enum probe_kind look(const struct probe_old *ask)
{
    enum probe_kind kind = ask->talk.in_len > 0 ? probe_guess(ask->talk.in, ask->talk.in_len) : PROBE_KIND_OTHER;

    return kind == PROBE_KIND_SOCKS6 || kind == PROBE_KIND_SOCKS5 || kind == PROBE_KIND_SOCKS4 ? PROBE_KIND_OTHER
                                                                                               : kind;
}

/* From all that was heard; `web` and `tls` are the last questions. */
static enum probe_kind judge(const struct probe *probe, const struct probe_old *web, const struct probe_old *tls)
{
    if (look(tls) == PROBE_KIND_TLS) {
        return PROBE_KIND_TLS;
    }
    if (look(web) != PROBE_KIND_OTHER) {
        return look(web);
    }
    if (web->talk.end == PROBE_TALK_FLOOD || tls->talk.end == PROBE_TALK_FLOOD) {
        return PROBE_KIND_ENDLESS;
    }
    if (probe->facts.first_bytes[0] != '\0' || web->talk.in_len > 0 || tls->talk.in_len > 0) {
        return PROBE_KIND_OTHER;
    }
    if (web->outcome == PROBE_OLD_TIME_OUT || tls->outcome == PROBE_OLD_TIME_OUT) {
        return PROBE_KIND_SILENT;
    }
    return PROBE_KIND_CLOSES;
}

void probe_plan_stranger(struct probe *probe)
{
    struct probe_old web = {.form = PROBE_OLD_RAW, .raw = {(const uint8_t *)web_question, sizeof web_question - 1}};
    struct probe_old tls = {.form = PROBE_OLD_RAW, .raw = {(const uint8_t *)tls_question, sizeof tls_question}};
    struct probe_old *const asks[] = {&web, &tls};

    if (probe->report->kind == PROBE_KIND_SOCKS6_PRIVATE) {
        return;
    }
    if (!probe_next(probe, "whether this is a web server, or speaks TLS")) {
        probe->report->kind = probe->facts.first_bytes[0] != '\0' ? PROBE_KIND_OTHER : PROBE_KIND_SILENT;
        return;
    }
    probe_old_run(asks, 2, &probe->peer, probe->limit_us, probe->deadline_us);
    probe->report->kind = judge(probe, &web, &tls);
    if (probe->facts.first_bytes[0] == '\0' && web.talk.in_len > 0) {
        probe_quote(web.talk.in, web.talk.in_len, probe->facts.first_bytes);
    }
    probe_old_done(&web);
    probe_old_done(&tls);
}
