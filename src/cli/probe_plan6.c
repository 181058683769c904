/* The questions in SOCKS 6, to a proxy that has answered a NOOP. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <socks6/udp.h>

#include "cli/probe_dns.h"
#include "cli/probe_plan_internal.h"
#include "cli/probe_request.h"
#include "cli/probe_stack.h"

/* One option of this length takes a request beyond 16 KiB of options, and not beyond 20 KiB. */
#define BIG_OPTION_LEN 17408u
#define BIG_OPTION_KIND 64512u /* of the range for experiments: nobody knows it */
#define REQUEST_MAX (1024u + BIG_OPTION_LEN)

/* Questions that are asked a few at once. */
enum question {
    ASK_STACK,
    ASK_NAME_11,
    ASK_NAME_12,
    ASK_DATA,
    ASK_UDP,
    ASK_DNS_IPV4,
    ASK_DNS_IPV6,
    ASK_BIG,
    ASK_COUNT
};

static const uint8_t unspecified[16];

/* A NOOP, harmless for whoever gets it: what the proxy is sent through itself. */
static const uint8_t noop_request[12] = {6, 0, 0, 0, 0, 0, 0, 1};

/* Authentication ---------------------------------------------------------------------------------------------------- */

/*
 * "Authentication Method Advertisement" without a login: which method would be chosen? What was chosen is left out next
 * time, until nothing is.
 */
static void ask_methods(struct probe *probe, struct probe_ask6 *ask, uint8_t *request)
{
    uint8_t data[2 + 8] = {0, 0, 1, 2, 3, 5, 6, 7, 8, 9}; /* no initial data, then the methods */
    size_t len = sizeof data;

    while (len > 2 && probe_next(probe, "the methods of authentication of SOCKS 6")) {
        uint8_t *chosen;
        int selection;

        probe_ask6_init(ask, NULL, NULL);
        ask->config.command = SOCKS6_COMMAND_NOOP;
        ask->raw.data = request;
        ask->raw.len =
            probe_request_with_option(&ask->config, PROBE_OPTION_ADVERTISEMENT, data, len, request, REQUEST_MAX);
        if (ask->raw.len == 0) {
            return;
        }
        probe_run_one(probe, ask);
        selection = ask->outcome == PROBE6_REFUSED ? ask->walk.selection : -1;
        if (ask->outcome == PROBE6_BROKEN || ask->outcome == PROBE6_FOREIGN) {
            probe_set_failed(probe, PROBE_ROW_METHODS_6, ask);
        }
        probe_ask6_done(ask);
        if (selection < 0) {
            return;
        }
        chosen = memchr(data + 2, selection, len - 2);
        if (chosen == NULL) {
            probe_set(probe->report, PROBE_ROW_METHODS_6, PROBE_BROKEN, "it chose method %d, which was not offered",
                      selection);
            return;
        }
        probe_list_add(probe->report, PROBE_ROW_METHODS_6, (uint8_t)selection);
        probe->seen.negotiates_password |= selection == SOCKS6_METHOD_USERPASS;
        memmove(chosen, chosen + 1, (size_t)(data + len - chosen - 1));
        len--;
    }
}

static void tell_methods(struct probe *probe)
{
    struct probe_row *row = &probe->report->rows[PROBE_ROW_METHODS_6];
    char names[PROBE_TEXT_MAX] = "";

    for (size_t i = 0; i < row->list_count; i++) {
        size_t len = strlen(names);

        (void)snprintf(names + len, sizeof names - len, "%s%s", i > 0 ? ", " : "", probe_method_name(row->list[i]));
    }
    if (row->state == PROBE_BROKEN) {
        return;
    }
    if (row->list_count > 0) {
        probe_set(probe->report, PROBE_ROW_METHODS_6, PROBE_NO, "a login is needed, by: %.200s", names);
    } else {
        probe_set(probe->report, PROBE_ROW_METHODS_6, PROBE_NO, "a login is needed; the proxy names no method for it");
    }
}

/* Whether we are let in; fills the rows of authentication. */
static void ask_login(struct probe *probe, const struct probe_ask6 *noop, struct probe_ask6 *ask, uint8_t *request)
{
    struct probe_report *report = probe->report;

    probe->needs_login = noop->outcome == PROBE6_REFUSED;
    if (probe->needs_login) {
        ask_methods(probe, ask, request);
        tell_methods(probe);
        probe->facts.socks6.progress = PROBE_LOGIN_WANTED;
    } else {
        probe_list_add(report, PROBE_ROW_METHODS_6, SOCKS6_METHOD_NONE);
        probe_set(report, PROBE_ROW_METHODS_6, PROBE_YES, "none is needed");
    }
    if (!probe->settings->proxy.has_credentials || !probe_next(probe, "the login in SOCKS 6")) {
        return;
    }
    probe_ask(probe, ask);
    ask->config.command = SOCKS6_COMMAND_NOOP;
    probe_run_one(probe, ask);
    if (ask->outcome == PROBE6_REPLIED) {
        probe_set(report, PROBE_ROW_LOGIN, PROBE_YES, "%s%s%s",
                  probe->needs_login ? "accepted" : "not needed, nor refused",
                  ask->walk.oddity[0] != '\0' ? "; in the answer " : "", ask->walk.oddity);
        probe->facts.socks6.progress = PROBE_SPOKEN;
        probe->seen.negotiates_password |= ask->walk.selection == SOCKS6_METHOD_USERPASS;
    } else if (ask->outcome == PROBE6_REFUSED) {
        probe_set(report, PROBE_ROW_LOGIN, PROBE_NO, "refused: %s", ask->why);
        probe->facts.socks6.progress = PROBE_LOGIN_FAILED;
    } else {
        probe_set_failed(probe, PROBE_ROW_LOGIN, ask);
    }
    probe_ask6_done(ask);
}

/* Commands ---------------------------------------------------------------------------------------------------------- */

static void tell_noop(struct probe *probe, const struct probe_ask6 *ask)
{
    if (ask->outcome != PROBE6_REPLIED) {
        probe_set_failed(probe, PROBE_ROW_NOOP, ask);
        return;
    }
    probe_set_value(probe->report, PROBE_ROW_NOOP, ask->code);
    probe_set(probe->report, PROBE_ROW_NOOP, ask->code == 0 ? PROBE_YES : PROBE_NO, "%s (reply %u)",
              socks6_reply_name(ask->code), ask->code);
    probe_set_reply_time(probe, PROBE_ROW_TIME_NOOP, ask->reply_us, ask->talk.rtt_us);
}

static void ask_noop(struct probe *probe, struct probe_ask6 *ask)
{
    if (!probe_next(probe, "a NOOP, for its time")) {
        return;
    }
    probe_ask(probe, ask);
    ask->config.command = SOCKS6_COMMAND_NOOP;
    probe_run_one(probe, ask);
    tell_noop(probe, ask);
    probe_ask6_done(ask);
}

/* Alone, so that its time means something. */
static void ask_connect(struct probe *probe, struct probe_ask6 *ask)
{
    if (!probe_next(probe, "a CONNECT of SOCKS 6")) {
        return;
    }
    probe_ask(probe, ask);
    probe_run_one(probe, ask);
    if (ask->outcome == PROBE6_REPLIED) {
        const char *reply = socks6_reply_name(ask->code);

        probe->facts.socks6 = (struct probe_progress_of){PROBE_REPLIED, ask->code, reply};
        probe_set_connect(probe, PROBE_ROW_CONNECT, &probe->target, probe->settings->has_target, ask->code, reply);
        probe_set_reply_time(probe, PROBE_ROW_TIME_CONNECT, ask->reply_us, ask->talk.rtt_us);
    } else {
        probe_set_failed(probe, PROBE_ROW_CONNECT, ask);
    }
    probe_ask6_done(ask);
}

static void tell_offer(struct probe *probe, enum probe_row_id row, const struct probe_ask6 *ask, const char *success)
{
    char bound[SOCKS6_ADDR_TEXT_MAX];

    if (ask->outcome != PROBE6_REPLIED) {
        probe_set_failed(probe, row, ask);
        return;
    }
    probe_set_value(probe->report, row, ask->code);
    (void)socks6_addr_format(&ask->bound, bound, sizeof bound);
    if (ask->code == SOCKS6_REPLY_SUCCESS) {
        probe_set(probe->report, row, PROBE_YES, "%s %.200s", success, bound);
    } else if (ask->code == SOCKS6_REPLY_COMMAND_UNSUPPORTED) {
        probe_set(probe->report, row, PROBE_NO, "not offered: %s (reply %u)", socks6_reply_name(ask->code), ask->code);
    } else {
        probe_set(probe->report, row, PROBE_NO, "%s (reply %u)", socks6_reply_name(ask->code), ask->code);
    }
}

/* Stack options ----------------------------------------------------------------------------------------------------- */

static void tell_stack_row(struct probe *probe, const struct probe_stack_row *row, const struct probe_ask6 *ask)
{
    const struct probe_option *option;

    if (ask->outcome != PROBE6_REPLIED) {
        probe_set_failed(probe, row->row, ask);
        return;
    }
    option = probe_walk_stack(&ask->walk, row->asked.leg, row->asked.level, row->asked.code);
    if (option != NULL) {
        probe_stack_answered(probe->report, row, (uint16_t)((unsigned)option->data[2] << 8 | option->data[3]));
    } else if (ask->code == SOCKS6_REPLY_SUCCESS) {
        probe_set(probe->report, row->row, PROBE_NO, "not supported: no answer");
    } else if (ask->code == SOCKS6_REPLY_COMMAND_UNSUPPORTED) {
        probe_set(probe->report, row->row, PROBE_NO, "not supported: its command is not");
    } else {
        probe_set(probe->report, row->row, PROBE_UNKNOWN, "no answer, in a request that failed: %s (reply %u)",
                  socks6_reply_name(ask->code), ask->code);
    }
}

static void tell_stack(struct probe *probe, enum probe_stack_where where, const struct probe_ask6 *ask)
{
    for (size_t i = 0; i < PROBE_STACK_ROW_COUNT; i++) {
        if (probe_stack_rows[i].where == where) {
            tell_stack_row(probe, &probe_stack_rows[i], ask);
        }
    }
}

static void add_stack(struct probe_ask6 *ask, enum probe_stack_where where,
                      struct socks6_stack_option stack[PROBE_STACK_ROW_COUNT])
{
    ask->config.stack_count = probe_stack_collect(where, stack);
    ask->config.stack = stack;
}

/* A proxy that chokes on all options together is asked one at a time. */
static void ask_stack_singly(struct probe *probe, struct probe_ask6 *ask)
{
    for (size_t i = 0; i < PROBE_STACK_ROW_COUNT; i++) {
        const struct probe_stack_row *row = &probe_stack_rows[i];

        if (row->where == PROBE_STACK_CONNECT && probe_next(probe, "one Stack option")) {
            probe_ask(probe, ask);
            ask->config.stack = &row->asked;
            ask->config.stack_count = 1;
            probe_run_one(probe, ask);
            tell_stack_row(probe, row, ask);
            probe_ask6_done(ask);
        }
    }
}

/* Names ------------------------------------------------------------------------------------------------------------- */

/* The name came through whole: what happened then needs its address. */
static bool is_resolved(const struct probe_ask6 *ask)
{
    switch (ask->code) {
    case SOCKS6_REPLY_SUCCESS:
    case SOCKS6_REPLY_NET_UNREACHABLE:
    case SOCKS6_REPLY_REFUSED:
    case SOCKS6_REPLY_TTL_EXPIRED:
    case SOCKS6_REPLY_TIMED_OUT:
        return ask->outcome == PROBE6_REPLIED;
    default:
        return false;
    }
}

/* Why a request of unusual form came to nothing. A login was good before, so a refusal is one of the request. */
static const char *misfortune(const struct probe_ask6 *ask)
{
    return ask->outcome == PROBE6_REFUSED ? "an Authentication Reply of failure, as a malformed request gets"
                                          : ask->why;
}

static void tell_one_form(struct probe *probe, enum probe_row_id row, const struct probe_ask6 *ask, bool other_is_read)
{
    if (is_resolved(ask)) {
        probe_set(probe->report, row, PROBE_YES, "read");
    } else if (!other_is_read) {
        probe_set(probe->report, row, PROBE_UNKNOWN, "%.200s",
                  ask->outcome == PROBE6_REPLIED ? socks6_reply_name(ask->code) : ask->why);
    } else if (ask->outcome == PROBE6_REPLIED) {
        probe_set(probe->report, row, PROBE_NO, "not read: %s (reply %u)", socks6_reply_name(ask->code), ask->code);
    } else {
        probe_set(probe->report, row, PROBE_NO, "not read: %.200s", misfortune(ask));
    }
}

/* "Requests": up to -11 a name's padding stands behind its length, in -12 it counts into it. */
static void tell_names(struct probe *probe, const struct probe_ask6 *form11, const struct probe_ask6 *form12)
{
    if ((probe->by_name.len + 1u) % 4 == 0) {
        static const char why[] = "a name of this length looks the same in all revisions";

        probe_set(probe->report, PROBE_ROW_NAMES_11, PROBE_UNKNOWN, why);
        probe_set(probe->report, PROBE_ROW_NAMES_12, PROBE_UNKNOWN, why);
    } else {
        tell_one_form(probe, PROBE_ROW_NAMES_11, form11, is_resolved(form12));
        tell_one_form(probe, PROBE_ROW_NAMES_12, form12, is_resolved(form11));
        probe->seen.refuses_names_11 = is_resolved(form12) && !is_resolved(form11);
        probe->seen.refuses_names_12 = is_resolved(form11) && !is_resolved(form12);
    }
    if (form11->outcome == PROBE6_REPLIED || form12->outcome == PROBE6_REPLIED) {
        const struct probe_ask6 *best = is_resolved(form11) || form12->outcome != PROBE6_REPLIED ? form11 : form12;

        if (best->outcome != PROBE6_REPLIED) {
            best = form12;
        }
        probe_set_connect(probe, PROBE_ROW_CONNECT_NAME, &probe->by_name,
                          probe->settings->has_target && probe->target.type == SOCKS6_ADDR_NAME, best->code,
                          socks6_reply_name(best->code));
        tell_stack(probe, PROBE_STACK_CONNECT_NAME, best);
    } else {
        probe_set_failed(probe, PROBE_ROW_CONNECT_NAME, form11);
        tell_stack(probe, PROBE_STACK_CONNECT_NAME, form11);
    }
}

/* UDP, DNS, the cap ------------------------------------------------------------------------------------------------- */

/* -08 begins with a bare association ID of 8 bytes, later revisions with a message of 12 whose head is fixed. */
static size_t udp_need(const uint8_t *bytes, size_t len)
{
    static const uint8_t head[4] = {6, SOCKS6_UDP_INITIALIZATION, 0, 12};

    if (len < sizeof head) {
        return sizeof head;
    }
    return memcmp(bytes, head, sizeof head) == 0 ? 12 : 8;
}

static void tell_udp(struct probe *probe, const struct probe_ask6 *ask)
{
    tell_offer(probe, PROBE_ROW_UDP, ask, "relays from");
    tell_stack(probe, PROBE_STACK_UDP, ask);
    if (ask->outcome != PROBE6_REPLIED || ask->code != SOCKS6_REPLY_SUCCESS) {
        probe_set(probe->report, PROBE_ROW_UDP_FRAMING, PROBE_UNKNOWN, "no UDP association");
    } else if (!ask->follow_complete) {
        probe_set(probe->report, PROBE_ROW_UDP_FRAMING, PROBE_BROKEN, "the association does not begin: no ID came");
    } else if (udp_need(ask->after.data, ask->after.len) == 12) {
        probe->seen.framing = PROBE_FRAMING_09_ON;
        probe_set(probe->report, PROBE_ROW_UDP_FRAMING, PROBE_YES, "messages have a header");
    } else {
        probe->seen.framing = PROBE_FRAMING_08;
        probe_set(probe->report, PROBE_ROW_UDP_FRAMING, PROBE_NO, "an association begins with a bare ID, as in -08");
    }
}

static void tell_dns(struct probe *probe, enum probe_row_id row, const struct probe_ask6 *ask)
{
    char verdict[80];

    if (ask->outcome != PROBE6_REPLIED) {
        probe_set_failed(probe, row, ask);
        return;
    }
    probe_set_value(probe->report, row, ask->code);
    if (ask->code != SOCKS6_REPLY_SUCCESS) {
        probe_set(probe->report, row, PROBE_NO, "%s: %s (reply %u)",
                  ask->code == SOCKS6_REPLY_REFUSED ? "not offered" : "refused", socks6_reply_name(ask->code),
                  ask->code);
    } else if (!ask->follow_complete) {
        probe_set(probe->report, row, PROBE_BROKEN, "connected, but no whole DNS message came");
    } else if (probe_dns_judge(ask->follow.data, ask->after.data, ask->after.len, verdict, sizeof verdict)) {
        probe_set_time(probe->report, row, ask->follow_us, ask->talk.rtt_us);
        probe_set(probe->report, row, PROBE_YES, "answers for '%.120s': %s, in %.2f ms", probe->settings->dns_name,
                  verdict, (double)ask->follow_us / 1000.0);
    } else {
        probe_set(probe->report, row, PROBE_BROKEN, "%s", verdict);
    }
}

static void tell_big(struct probe *probe, const struct probe_ask6 *ask)
{
    if (ask->outcome == PROBE6_REPLIED) {
        probe_set(probe->report, PROBE_ROW_OPTIONS_20K, PROBE_YES, "a request with 17 KiB of options is taken");
    } else if (ask->outcome == PROBE6_REFUSED || ask->outcome == PROBE6_CLOSED) {
        probe->seen.refuses_20k = true;
        probe_set(probe->report, PROBE_ROW_OPTIONS_20K, PROBE_NO, "a request with 17 KiB of options gets: %.200s",
                  misfortune(ask));
    } else {
        probe_set_failed(probe, PROBE_ROW_OPTIONS_20K, ask);
    }
}

/* ------------------------------------------------------------------------------------------------------------------- */

struct batch {
    struct probe_ask6 asks[ASK_COUNT];
    struct socks6_stack_option stack[ASK_COUNT][PROBE_STACK_ROW_COUNT];
    uint8_t query[PROBE_DNS_QUERY_MAX];
    size_t query_len;
    uint8_t request[REQUEST_MAX];
};

static void prepare_dns(struct batch *batch, enum question which, struct socks6_addr addr)
{
    struct probe_ask6 *ask = &batch->asks[which];

    ask->config.addr = addr;
    ask->follow = (struct socks6_slice){batch->query, batch->query_len};
    ask->follow_need = probe_dns_need;
}

/* A target that was named gets no byte from us. */
static void prepare_data(struct probe *probe, struct batch *batch)
{
    struct probe_ask6 *ask = &batch->asks[ASK_DATA];

    add_stack(ask, PROBE_STACK_CONNECT_DATA, batch->stack[ASK_DATA]);
    if (!probe->settings->has_target) {
        ask->early = (struct socks6_slice){noop_request, sizeof noop_request};
        ask->config.initial_data_len = ask->config.has_credentials ? sizeof noop_request : 0;
    }
}

static void prepare(struct probe *probe, struct batch *batch)
{
    struct probe_ask6 *asks = batch->asks;
    uint16_t id = 0;

    if (getrandom(&id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id) {
        id = (uint16_t)probe_now_us(); /* one query to a proxy of the user's choice: no secret */
    }
    for (size_t i = 0; i < ASK_COUNT; i++) {
        probe_ask(probe, &asks[i]);
    }
    add_stack(&asks[ASK_STACK], PROBE_STACK_CONNECT, batch->stack[ASK_STACK]);
    asks[ASK_NAME_11].config.draft = SOCKS6_DRAFT_11;
    asks[ASK_NAME_12].config.draft = SOCKS6_DRAFT_12;
    for (size_t i = ASK_NAME_11; i <= ASK_NAME_12; i++) {
        asks[i].config.addr = probe->by_name;
        add_stack(&asks[i], PROBE_STACK_CONNECT_NAME, batch->stack[i]);
    }
    prepare_data(probe, batch);
    asks[ASK_UDP].config.command = SOCKS6_COMMAND_UDP_ASSOCIATE;
    asks[ASK_UDP].config.addr = socks6_addr_ipv4(unspecified, 0);
    asks[ASK_UDP].follow_need = udp_need;
    add_stack(&asks[ASK_UDP], PROBE_STACK_UDP, batch->stack[ASK_UDP]);
    batch->query_len = probe_dns_query(probe->settings->dns_name, id, batch->query);
    prepare_dns(batch, ASK_DNS_IPV4, socks6_addr_ipv4(unspecified, 53));
    prepare_dns(batch, ASK_DNS_IPV6, socks6_addr_ipv6(unspecified, 53));
    asks[ASK_BIG].config.command = SOCKS6_COMMAND_NOOP;
    asks[ASK_BIG].raw.data = batch->request;
    asks[ASK_BIG].raw.len = probe_request_with_option(&asks[ASK_BIG].config, BIG_OPTION_KIND, NULL, BIG_OPTION_LEN - 4,
                                                      batch->request, sizeof batch->request);
}

static void ask_batch(struct probe *probe, struct batch *batch)
{
    struct probe_ask6 *asks[ASK_COUNT];
    bool chokes;

    if (!probe_next(probe, "Stack options, names, UDP and DNS")) {
        return;
    }
    prepare(probe, batch);
    for (size_t i = 0; i < ASK_COUNT; i++) {
        asks[i] = &batch->asks[i];
    }
    probe_ask6_run(asks, ASK_COUNT, &probe->peer, probe->limit_us, probe->deadline_us);
    tell_stack(probe, PROBE_STACK_CONNECT, asks[ASK_STACK]);
    tell_stack(probe, PROBE_STACK_CONNECT_DATA, asks[ASK_DATA]);
    tell_names(probe, asks[ASK_NAME_11], asks[ASK_NAME_12]);
    tell_udp(probe, asks[ASK_UDP]);
    tell_dns(probe, PROBE_ROW_DNS_IPV4, asks[ASK_DNS_IPV4]);
    tell_dns(probe, PROBE_ROW_DNS_IPV6, asks[ASK_DNS_IPV6]);
    tell_big(probe, asks[ASK_BIG]);
    chokes = asks[ASK_STACK]->outcome != PROBE6_REPLIED && asks[ASK_STACK]->outcome != PROBE6_TIME_OUT;
    for (size_t i = 0; i < ASK_COUNT; i++) {
        probe_ask6_done(asks[i]);
    }
    if (chokes) {
        ask_stack_singly(probe, asks[ASK_STACK]);
    }
}

/* In the session, if there is one: a backlog is granted in sessions only. */
static void ask_bind(struct probe *probe, struct batch *batch)
{
    struct probe_ask6 *ask = &batch->asks[0];

    if (!probe_next(probe, "a BIND")) {
        return;
    }
    probe_ask(probe, ask);
    ask->config.command = SOCKS6_COMMAND_BIND;
    ask->config.addr = socks6_addr_ipv4(unspecified, 0);
    add_stack(ask, PROBE_STACK_BIND, batch->stack[0]);
    if (probe->session_id_len > 0) {
        ask->config.session_id = (struct socks6_slice){probe->session_id, probe->session_id_len};
        ask->config.has_credentials = ask->config.has_credentials && probe->session_untrusted;
    }
    probe_run_one(probe, ask);
    tell_offer(probe, PROBE_ROW_BIND, ask, "listened at");
    tell_stack(probe, PROBE_STACK_BIND, ask);
    probe_ask6_done(ask);
}

static int stack_value(const struct probe *probe, enum probe_row_id row)
{
    const struct probe_row *found = &probe->report->rows[row];

    return found->has_value ? (int)found->value : -1;
}

static void conclude_revision(struct probe *probe)
{
    struct probe_observations *seen = &probe->seen;

    seen->ttl_answered = stack_value(probe, PROBE_ROW_TTL_CLIENT) >= 0 || stack_value(probe, PROBE_ROW_TTL_REMOTE) >= 0;
    seen->port_parity_answered = stack_value(probe, PROBE_ROW_PORT_PARITY) >= 0;
    seen->happy_eyeballs = stack_value(probe, PROBE_ROW_HAPPY_EYEBALLS);
    seen->udp_error = stack_value(probe, PROBE_ROW_UDP_ERROR);
    seen->no_fragmentation = stack_value(probe, PROBE_ROW_NO_FRAGMENTATION_REMOTE);
    if (seen->no_fragmentation < 0) {
        seen->no_fragmentation = stack_value(probe, PROBE_ROW_NO_FRAGMENTATION_CLIENT);
    }
    probe_revision_conclude(seen, probe->report);
}

int probe_plan6(struct probe *probe, const struct probe_ask6 *noop)
{
    struct batch *batch = calloc(1, sizeof *batch);

    if (batch == NULL) {
        return -ENOMEM;
    }
    ask_login(probe, noop, &batch->asks[0], batch->request);
    if (probe->facts.socks6.progress == PROBE_SPOKEN) {
        ask_noop(probe, &batch->asks[0]);
        ask_connect(probe, &batch->asks[0]);
    }
    if (probe->facts.socks6.progress == PROBE_REPLIED) {
        ask_batch(probe, batch);
        probe_session_start(probe);
        probe_session_use(probe);
        ask_bind(probe, batch);
        probe_session_end(probe);
        conclude_revision(probe);
    }
    explicit_bzero(batch, sizeof *batch);
    free(batch);
    return 0;
}
