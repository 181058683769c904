/*
 * How long the way to the proxy is, from nothing to the reply to a NOOP: once as a client that it has never met, and once with
 * what that has brought: a session and its token instead of the login, a ticket of TLS and early data, a cookie of TCP Fast
 * Open. Both as `socks6 connect` does it, but nothing of it is kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cache.h"
#include "cli/probe_plan_internal.h"
#include "cli/stream.h"

#define WINDOW_ASKED 16u

struct warm {
    struct probe *probe;
    struct socks6_proxy proxy; /* by the address at which it was reached */
    struct socks6_session session;
    struct socks6_session used; /* as it was when a request was made */
    uint8_t ticket[CACHE_TICKET_MAX];
    size_t ticket_len;
    struct socks6_dial_result result;
    struct tls_client *tls;
    uint64_t us;
};

static void on_session(void *user, const struct socks6_client_session *reply)
{
    struct warm *warm = user;

    socks6_session_learn(&warm->session, &warm->used, reply);
}

static void on_ticket(void *user, const uint8_t *ticket, size_t len, uint64_t expires_s)
{
    struct warm *warm = user;

    (void)expires_s; /* it is used at once */
    if (len <= sizeof warm->ticket) {
        memcpy(warm->ticket, ticket, len);
        warm->ticket_len = len;
    }
}

static bool add_tls(struct warm *warm, bool has_token, struct socks6_dial_config *dial, struct socks6_dial_layer *layer)
{
    const struct tls_client_config config = {.proxy = &warm->probe->settings->proxy,
                                             .ticket = {warm->ticket, warm->ticket_len},
                                             .early_data = has_token,
                                             .on_ticket = on_ticket,
                                             .on_ticket_user = warm};
    char why[TLS_CLIENT_WHY_MAX];

    if (!warm->proxy.is_tls) {
        return true;
    }
    if (tls_client_new(&config, &warm->tls, why) != 0) {
        (void)snprintf(warm->result.error, sizeof warm->result.error, "%s", why);
        return false;
    }
    stream_layer(warm->tls, layer);
    dial->layer = layer;
    return true;
}

/* One NOOP in its own connection. False: `result.error` says why not. */
static bool ask(struct warm *warm, const struct socks6_client_config *settings, enum socks6_fast_open fast_open)
{
    struct socks6_dial_config dial;
    struct socks6_dial_layer layer;
    uint64_t started_us = probe_now_us();
    int status = SOCKS6_DIAL_PROXY_FAILED;

    socks6_dial_config_init(&dial);
    dial.proxy = &warm->proxy;
    dial.command = SOCKS6_COMMAND_NOOP;
    dial.timeout_ms = warm->probe->limit_us / 1000u;
    dial.session = settings;
    dial.on_session = on_session;
    dial.on_session_user = warm;
    dial.fast_open = fast_open;
    tls_client_free(warm->tls);
    warm->tls = NULL;
    if (add_tls(warm, settings->has_token != 0, &dial, &layer)) {
        status = socks6_dial(&dial, &warm->result);
    }
    warm->us = probe_now_us() - started_us;
    if (status == SOCKS6_DIAL_OK) {
        (void)close(warm->result.fd);
    }
    return status == SOCKS6_DIAL_OK;
}

static void prepare(struct warm *warm, struct socks6_client_config *settings)
{
    socks6_client_config_init(settings);
    settings->has_credentials = warm->proxy.has_credentials;
    (void)socks6_session_prepare(&warm->session, WINDOW_ASKED, settings);
    warm->used = warm->session;
}

/* "1 round trip, 0.3 ms: by TCP Fast Open, early data, a token" */
static void tell(struct warm *warm, enum probe_row_id row, const struct socks6_client_config *settings)
{
    struct probe_report *report = warm->probe->report;
    bool is_early = warm->tls != NULL && tls_client_early(warm->tls) == TLS_EARLY_ACCEPTED;
    unsigned trips = warm->result.round_trips;

    probe_set_value(report, row, trips);
    probe_set_time(report, row, warm->us, warm->probe->rtt_us);
    probe_set(report, row, PROBE_YES, "%u round trip%s, %.2f ms%s%s%s%s", trips, trips == 1 ? "" : "s",
              (double)warm->us / 1000.0, warm->result.sent_in_syn ? ", TCP Fast Open" : "",
              is_early ? ", TLS early data" : "", settings->session_id.len > 0 ? ", in a session" : "",
              settings->has_token ? " with a token" : "");
}

static void measure(struct warm *warm, enum probe_row_id row, bool is_warm)
{
    struct socks6_client_config settings;
    enum socks6_fast_open fast_open = SOCKS6_FAST_OPEN_COOKIE;

    prepare(warm, &settings);
    if (is_warm && (warm->proxy.is_tls || settings.has_token)) {
        fast_open = SOCKS6_FAST_OPEN_DATA;
    }
    if (ask(warm, &settings, fast_open)) {
        tell(warm, row, &settings);
    } else {
        probe_set(warm->probe->report, row, PROBE_UNKNOWN, "%.200s", warm->result.error);
    }
}

/* The proxy need not keep what nobody will use. */
static void tear_down(struct warm *warm)
{
    struct socks6_client_config settings;

    if (warm->session.id_len == 0) {
        return;
    }
    socks6_client_config_init(&settings);
    settings.has_credentials = warm->proxy.has_credentials; /* this request is in no session */
    settings.session_id = (struct socks6_slice){warm->session.id, warm->session.id_len};
    settings.teardown_session = 1;
    (void)ask(warm, &settings, SOCKS6_FAST_OPEN_OFF);
}

void probe_cold_and_warm(struct probe *probe)
{
    struct warm *warm;

    if (!probe_next(probe, "how long the way is, cold and warm")) {
        return;
    }
    warm = calloc(1, sizeof *warm);
    if (warm == NULL) {
        probe_set(probe->report, PROBE_ROW_TIME_COLD, PROBE_UNKNOWN, "out of memory");
        probe_set(probe->report, PROBE_ROW_TIME_WARM, PROBE_UNKNOWN, "out of memory");
        return;
    }
    warm->probe = probe;
    warm->proxy = probe->settings->proxy;
    warm->proxy.addr = probe->own;
    measure(warm, PROBE_ROW_TIME_COLD, false);
    if (probe_now_us() < probe->deadline_us) {
        measure(warm, PROBE_ROW_TIME_WARM, true);
        tear_down(warm);
    }
    tls_client_free(warm->tls);
    explicit_bzero(warm, sizeof *warm);
    free(warm);
}
