/* Sessions and idempotence tokens of SOCKS 6: one is started, used, spent from and ended, all by NOOPs. */
#include <string.h>

#include "cli/probe_plan_internal.h"

#define WINDOW_ASKED 16

/* Asks a NOOP in the session; a login only where the session itself does not do. */
static void prepare(struct probe *probe, struct probe_ask6 *ask)
{
    probe_ask(probe, ask);
    ask->config.command = SOCKS6_COMMAND_NOOP;
    ask->config.session_id = (struct socks6_slice){probe->session_id, probe->session_id_len};
    ask->config.has_credentials = ask->config.has_credentials && probe->session_untrusted;
}

static void tell_start(struct probe *probe, const struct probe_ask6 *ask)
{
    struct probe_report *report = probe->report;

    if (ask->outcome != PROBE6_REPLIED) {
        probe_set_failed(probe, PROBE_ROW_SESSION, ask);
    } else if (probe_walk_find(&ask->walk, PROBE_OPTION_SESSION_ID, NULL) == NULL) {
        probe_set(report, PROBE_ROW_SESSION, PROBE_NO, "not offered: no session ID came");
    } else if (ask->session_id_len == 0) {
        probe_set(report, PROBE_ROW_SESSION, PROBE_BROKEN, "a session ID that is empty or longer than %d bytes",
                  PROBE_SESSION_ID_MAX);
    } else {
        memcpy(probe->session_id, ask->session_id, ask->session_id_len);
        probe->session_id_len = ask->session_id_len;
        probe->session_untrusted = ask->session.untrusted != 0;
        probe->seen.untrusted = probe->session_untrusted;
        probe_set_value(report, PROBE_ROW_SESSION, (uint32_t)ask->session_id_len);
        probe_set(report, PROBE_ROW_SESSION, PROBE_YES, "an ID of %zu bytes, in the %s%s", ask->session_id_len,
                  ask->session_in_reply ? "Operation Reply" : "Authentication Reply",
                  probe->session_untrusted ? "; untrusted: every request needs the login" : "");
    }
}

static void tell_window(struct probe *probe, const struct probe_ask6 *ask)
{
    if (probe->session_id_len == 0) {
        return;
    }
    if (ask->session.has_window && ask->session.window.size > 0) {
        probe->window = ask->session.window;
        probe_set_value(probe->report, PROBE_ROW_TOKENS, probe->window.size);
    } else {
        probe_set(probe->report, PROBE_ROW_TOKENS, PROBE_NO, "not offered: no window of tokens came");
    }
}

void probe_session_start(struct probe *probe)
{
    struct probe_ask6 ask;

    if (!probe_next(probe, "a session")) {
        return;
    }
    probe_ask(probe, &ask);
    ask.config.command = SOCKS6_COMMAND_NOOP;
    ask.config.request_session = 1;
    ask.config.request_window = WINDOW_ASKED;
    probe_run_one(probe, &ask);
    tell_start(probe, &ask);
    tell_window(probe, &ask);
    probe_ask6_done(&ask);
    if (probe->session_id_len == 0) {
        static const char why[] = "no session";

        probe_set(probe->report, PROBE_ROW_SESSION_RESUME, PROBE_SKIPPED, why);
        probe_set(probe->report, PROBE_ROW_TOKENS, PROBE_SKIPPED, why);
        probe_set(probe->report, PROBE_ROW_SESSION_END, PROBE_SKIPPED, why);
    }
}

static void tell_resume(struct probe *probe, const struct probe_ask6 *ask)
{
    struct probe_report *report = probe->report;

    if (ask->outcome == PROBE6_REPLIED && ask->session.ok) {
        probe_set(report, PROBE_ROW_SESSION_RESUME, PROBE_YES, "taken up by another connection%s",
                  probe->needs_login && !probe->session_untrusted ? ", without a login" : "");
    } else if (ask->outcome == PROBE6_REPLIED) {
        probe_set(report, PROBE_ROW_SESSION_RESUME, PROBE_BROKEN, "the request succeeded, but Session OK was not said");
    } else if (ask->outcome == PROBE6_REFUSED) {
        probe_set(report, PROBE_ROW_SESSION_RESUME, PROBE_NO, "%s", ask->why);
    } else {
        probe_set_failed(probe, PROBE_ROW_SESSION_RESUME, ask);
    }
}

static void spend(struct probe *probe, struct probe_ask6 *ask)
{
    prepare(probe, ask);
    ask->config.has_token = probe->window.size > 0;
    ask->config.token = probe->window.base;
    probe_run_one(probe, ask);
}

/* The second use of the same token. */
static void tell_tokens(struct probe *probe, bool accepted, const struct probe_ask6 *ask)
{
    struct probe_report *report = probe->report;

    if (!accepted) {
        probe_set(report, PROBE_ROW_TOKENS, PROBE_BROKEN, "a window of %u came, but a token of it is not accepted",
                  probe->window.size);
    } else if (ask->outcome == PROBE6_REFUSED && ask->session.token_rejected) {
        probe_set(report, PROBE_ROW_TOKENS, PROBE_YES, "a window of %u; a token counts once", probe->window.size);
    } else if (ask->outcome == PROBE6_REPLIED || ask->outcome == PROBE6_REFUSED) {
        probe_set(report, PROBE_ROW_TOKENS, PROBE_BROKEN, "a window of %u, but a spent token is not rejected",
                  probe->window.size);
    } else {
        probe_set_failed(probe, PROBE_ROW_TOKENS, ask);
    }
}

void probe_session_use(struct probe *probe)
{
    struct probe_ask6 ask;
    bool is_settled, accepted;

    if (probe->session_id_len == 0 || !probe_next(probe, "the session again, with a token")) {
        return;
    }
    spend(probe, &ask);
    tell_resume(probe, &ask);
    is_settled = ask.outcome == PROBE6_REPLIED || ask.outcome == PROBE6_REFUSED;
    accepted = ask.session.token_accepted != 0;
    probe_ask6_done(&ask);
    if (probe->window.size == 0 || !is_settled || !probe_next(probe, "the same token again")) {
        return;
    }
    spend(probe, &ask);
    tell_tokens(probe, accepted, &ask);
    probe_ask6_done(&ask);
}

void probe_session_end(struct probe *probe)
{
    struct probe_ask6 ask;

    if (probe->session_id_len == 0 || !probe_next(probe, "the session's end")) {
        return;
    }
    prepare(probe, &ask);
    ask.config.teardown_session = 1;
    ask.config.has_credentials = probe->settings->proxy.has_credentials; /* this request is in no session */
    probe_run_one(probe, &ask);
    if (ask.outcome != PROBE6_REPLIED) {
        probe_set_failed(probe, PROBE_ROW_SESSION_END, &ask);
        probe_ask6_done(&ask);
        return;
    }
    probe_ask6_done(&ask);
    if (!probe_next(probe, "the session that was ended")) {
        return;
    }
    prepare(probe, &ask);
    probe_run_one(probe, &ask);
    if (ask.outcome == PROBE6_REFUSED && ask.session.invalid) {
        probe_set(probe->report, PROBE_ROW_SESSION_END, PROBE_YES, "it is not known any more");
    } else if (ask.outcome == PROBE6_REPLIED || ask.outcome == PROBE6_REFUSED) {
        probe_set(probe->report, PROBE_ROW_SESSION_END, PROBE_BROKEN, "Session Invalid is not said after its end");
    } else {
        probe_set_failed(probe, PROBE_ROW_SESSION_END, &ask);
    }
    probe_ask6_done(&ask);
}
