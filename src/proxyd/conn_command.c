/*
 * A request and its command: each is started here, and its outcome becomes the reply.
 */
#include "proxyd/conn_internal.h"

#include "io/fast_open.h"
#include "proxyd/egress.h"

#define HOLD_MS 20u

static void count_outcome(struct stats *stats, const struct connect_outcome *outcome)
{
    if (outcome->code == SOCKS6_REPLY_SUCCESS) {
        stats_add(stats, STATS_connected, 1);
    } else if (outcome->code == SOCKS6_REPLY_NOT_ALLOWED) {
        stats_add(stats, STATS_denied, 1);
    } else if (outcome->dialled.type == 0) {
        stats_add(stats, STATS_resolve_failed, 1);
    } else {
        stats_add(stats, STATS_connect_failed, 1);
    }
}

static enum conn_step take_outcome(struct conn *conn, const struct connect_outcome *outcome)
{
    count_outcome(&conn->worker->stats, outcome);
    conn->server_fd = outcome->fd;
    conn->server_is_parked = outcome->fd_is_parked;
    conn->early_taken = outcome->payload_taken;
    conn->entry.dialled = outcome->dialled;
    conn->entry.rule_line = outcome->rule_line;
    if (outcome->code != SOCKS6_REPLY_SUCCESS) {
        conn->entry.reason = outcome->why;
    }
    egress_unavailable(&conn->worker->shared->egress, &conn->worker->stats, outcome->unavailable_count,
                       &outcome->unavailable, loop_now_ms(conn->worker->loop));
    log_step(&conn->entry, outcome->code == SOCKS6_REPLY_SUCCESS ? "is connected" : outcome->why);
    return conn_start_replying(conn, outcome->code, outcome->fd >= 0 ? &outcome->bound : NULL, outcome->stack,
                               outcome->stack_count);
}

static void on_connect_done(struct connect_job *job, const struct connect_outcome *outcome)
{
    struct conn *conn = LOOP_OWNER(job, struct conn, job);
    (void)conn_run(conn, take_outcome(conn, outcome));
}

static struct socks6_slice early_data(struct connect_job *job)
{
    const struct conn *conn = LOOP_OWNER(job, struct conn, job);
    return (struct socks6_slice){conn->pending, conn->pending_len};
}

static enum conn_step start_connect(struct conn *conn, const struct door_request *request)
{
    struct worker *worker = conn->worker;
    struct connect_outcome outcome;

    conn->phase = CONN_CONNECTING;
    conn->job.loop = worker->loop;
    conn->job.dns = worker->dns;
    conn->job.winners = worker->shared->winners;
    conn->job.local = worker->shared->local;
    conn->job.config = conn->config;
    conn->job.client = &conn->entry.client;
    conn->job.user = conn->entry.user;
    conn->job.source_turn = &worker->source_turn;
    conn->job.is_socks6 = door_version(&conn->door) == SOCKS6_VERSION;
    conn->job.stack = request->stack;
    conn->job.stack_count = request->stack_count;
    conn->job.payload = early_data;
    conn->job.done = on_connect_done;
    if (cmd_connect_start(&conn->job, &request->addr, &outcome)) {
        return take_outcome(conn, &outcome);
    }
    if (door_output(&conn->door).len > 0) {
        conn->holds = true;
        loop_timer_set(worker->loop, &conn->timer, HOLD_MS);
    }
    return CONN_AGAIN;
}

static void on_dns_relayed(struct dns_relay_job *job, const struct connect_outcome *outcome)
{
    struct conn *conn = LOOP_OWNER(job, struct conn, dns_job);
    (void)conn_run(conn, take_outcome(conn, outcome));
}

static enum conn_step start_dns(struct conn *conn, const struct socks6_addr *asked)
{
    struct socks6_addr addr = *asked; /* may be a name that is a number, or an IPv4-mapped address */
    const struct policy_request request = {
        .client = &conn->entry.client,
        .user = conn->entry.user,
        .command = SOCKS6_COMMAND_CONNECT,
        .addr = &addr,
    };
    struct connect_outcome outcome;

    socks6_addr_normalize(&addr);
    conn->phase = CONN_CONNECTING;
    conn->dns_job.loop = conn->worker->loop;
    conn->dns_job.dns = conn->worker->dns;
    conn->dns_job.config = conn->config;
    conn->dns_job.done = on_dns_relayed;
    switch (cmd_dns_start(&conn->dns_job, &request, &outcome)) {
    case CMD_DNS_REFUSED:
        return take_outcome(conn, &outcome);
    case CMD_DNS_BUILT_IN:
        conn->is_dns = true;
        return conn_start_replying(conn, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0);
    case CMD_DNS_RELAYED:
        break;
    }
    return CONN_AGAIN;
}

static enum conn_step start_noop(struct conn *conn)
{
    /* NOOP has no destination; only a rule on who and on the command can speak of it. */
    const struct policy_request request = {
        .client = &conn->entry.client,
        .user = conn->entry.user,
        .command = SOCKS6_COMMAND_NOOP,
        .name = "",
        .addr = &conn->entry.asked,
    };
    struct policy_result result = policy_check_name(conn->config->policy, &request);
    if (result.verdict == POLICY_DENY) {
        stats_add(&conn->worker->stats, STATS_denied, 1);
        conn->entry.reason = result.why;
        conn->entry.rule_line = result.line;
        return conn_start_replying(conn, SOCKS6_REPLY_NOT_ALLOWED, NULL, NULL, 0);
    }
    conn->entry.reason = "done";
    return conn_start_replying(conn, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0);
}

static void count_request(struct conn *conn)
{
    enum stats_counter counter = STATS_requests_socks6;
    switch (door_version(&conn->door)) {
    case 4:
        counter = STATS_requests_socks4;
        break;
    case 5:
        counter = STATS_requests_socks5;
        break;
    default:
        break;
    }
    stats_add(&conn->worker->stats, counter, 1);
}

static enum conn_step start_command(struct conn *conn)
{
    const struct door_request *request = door_request(&conn->door);

    loop_timer_cancel(conn->worker->loop, &conn->timer);
    switch (request->command) {
    case SOCKS6_COMMAND_NOOP:
        return start_noop(conn);
    case SOCKS6_COMMAND_CONNECT:
        if (cmd_dns_is_meant(conn->config, &request->addr, door_version(&conn->door))) {
            return start_dns(conn, &request->addr);
        }
        return start_connect(conn, request);
    default:
        conn->entry.reason = "command not supported";
        return conn_start_replying(conn, SOCKS6_REPLY_COMMAND_UNSUPPORTED, NULL, NULL, 0);
    }
}

/* ---- whose request may be a replay ---- */

/*
 * Whether the client is there now. What TLS gave as early data (RFC 8446 section 8) can be sent again by anybody who has
 * recorded it, and so can a SYN with a request in it, where the cookie
 * (draft-11, "TCP Fast Open on the Client-Proxy Leg") proves at the most that somebody at this address has met us. Whoever
 * has ended the handshake has read what we sent in it. The end of TLS's includes that of TCP's; and `act` is about TCP's alone.
 * A token can be spent once: a replay of its request never gets here.
 */
static bool client_is_confirmed(const struct conn *conn)
{
    if (door_request(&conn->door)->token_spent) {
        return true;
    }
    if (conn->tls != NULL) {
        return tls_is_finished(conn->tls);
    }
    return !conn->is_in_handshake || conn->acts_without_token;
}

/* False: the connection is gone. */
static bool look_at_handshake(struct conn *conn, bool *in_syn)
{
    enum fast_open_state state = fast_open_look(conn_client_fd(conn), in_syn);

    conn->is_in_handshake = state == FAST_OPEN_PENDING;
    return state != FAST_OPEN_GONE;
}

/* The same where it is not known yet. */
static bool find_handshake(struct conn *conn, bool *in_syn)
{
    if (conn->tls != NULL && tls_is_finished(conn->tls)) {
        conn->may_be_in_syn = false;
    }
    return !conn->may_be_in_syn || look_at_handshake(conn, in_syn);
}

bool conn_is_surely_there(const struct conn *conn)
{
    return conn->tls != NULL ? tls_is_finished(conn->tls) : !conn->may_be_in_syn || conn->acts_without_token;
}

static enum conn_step wait_for_client(struct conn *conn)
{
    stats_add(&conn->worker->stats, STATS_requests_waited, 1);
    log_step(&conn->entry, "has to end its handshake first");
    conn->phase = CONN_UNCONFIRMED;
    return CONN_AGAIN;
}

static enum conn_step go_on_confirmed(struct conn *conn)
{
    if (!conn->door_asks) {
        return start_command(conn);
    }
    conn->door_asks = false;
    conn->phase = CONN_HANDSHAKE;
    door_confirm(&conn->door);
    return conn_feed_pending(conn);
}

enum conn_step conn_confirm_for_door(struct conn *conn)
{
    bool in_syn;

    if (!find_handshake(conn, &in_syn)) {
        return conn_end(conn, "client reset");
    }
    conn->door_asks = true;
    return client_is_confirmed(conn) ? go_on_confirmed(conn) : wait_for_client(conn);
}

enum conn_step conn_take_request(struct conn *conn)
{
    const struct door_request *request = door_request(&conn->door);
    const struct identity *user = door_user(&conn->door);
    bool in_syn = false;

    conn->entry.protocol = door_protocol(&conn->door);
    conn->entry.user = user == NULL ? NULL : user->name;
    conn->entry.command = socks6_command_name(request->command);
    conn->entry.asked = request->addr;
    count_request(conn);
    if (!find_handshake(conn, &in_syn)) {
        return conn_end(conn, "client reset");
    }
    stats_add(&conn->worker->stats, STATS_requests_in_syn, in_syn);
    log_step(&conn->entry, in_syn ? "asks in its SYN" : "asks");
    if (client_is_confirmed(conn)) {
        return start_command(conn);
    }
    return wait_for_client(conn);
}

enum conn_step conn_await_confirmation(struct conn *conn)
{
    bool in_syn;

    if (conn_read_early(conn) == CONN_GONE) {
        return CONN_GONE;
    }
    if (conn->is_in_handshake && !look_at_handshake(conn, &in_syn)) {
        return conn_end(conn, "client reset");
    }
    return client_is_confirmed(conn) ? go_on_confirmed(conn) : CONN_WAIT;
}
