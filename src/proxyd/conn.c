/*
 * Life of a connection here:
 *
 *   HANDSHAKE   bytes -> door, until it has a request            limit: limits.handshake (one timer for all of it)
 *   CONNECTING  the command runs; early data is read up to a cap limit: limits.connect (the command's own)
 *   REPLYING    the reply goes out; after a success -> relay     limit: limits.handshake anew
 *   SERVING     the stream is the DNS service's (dns_service.h)    limit: dns.idle (the service's own)
 *   LINGERING   after a refusal: our side is shut, the client's bytes are thrown away, so that closing does not reset the connection
 *               before the client has read the reply             limit: LINGER_MS, LINGER_BYTES
 *
 * The socket is registered once, edge-triggered, and stays so when the relay takes over: it is the relay's from the beginning.
 * `readable` and `writable` remember what has not been used up. Every entry point ends in conn_run(), which goes on until the
 * connection waits for something or is gone.
 *
 * What a client has asked for already need not wait for its answers one by one: as long as the command runs, an answer of the
 * negotiation is held back for HOLD_MS, and leaves in one segment with the reply if that comes in time.
 */
#include "proxyd/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/cmd_connect.h"
#include "proxyd/cmd_dns.h"
#include "proxyd/dns_service.h"
#include "proxyd/door.h"
#include "proxyd/listener.h"
#include "proxyd/log.h"
#include "proxyd/session.h"
#include "proxyd/worker.h"

#define LINGER_MS 5000u
#define LINGER_BYTES ((size_t)64 << 20)
#define HOLD_MS 20u

enum phase { HANDSHAKE, CONNECTING, REPLYING, SERVING, LINGERING };

/* What a step of conn_run() left behind. */
enum step {
    STEP_AGAIN, /* there may be more to do */
    STEP_WAIT,  /* for an event, a timer, the command */
    STEP_GONE   /* the connection has been freed */
};

struct conn {
    struct worker *worker;
    const struct config *config;
    struct relay *relay; /* not started; its socket is the client's */
    struct loop_timer timer;
    int server_fd; /* connected, while REPLYING with success; else -1 */
    enum phase phase;
    uint32_t odd_events; /* all that were reported but EPOLLIN and EPOLLOUT */
    uint16_t place;      /* of the listener */
    uint8_t protocols;
    bool readable, writable;
    bool server_is_parked; /* see loop_park() */
    bool client_eof;
    bool has_door;    /* there was a first byte */
    bool holds;       /* CONNECTING: what the door has to say may wait for the reply */
    bool is_shut;     /* LINGERING: our FIN is out */
    size_t lingered;  /* LINGERING: bytes thrown away */
    uint8_t *pending; /* bytes read and not yet taken: an unfinished message, or early data */
    size_t pending_len, pending_size;
    uint64_t accepted_ms;
    struct door door;
    struct connect_job job;
    struct dns_relay_job dns_job;
    struct dns_service *dns; /* SERVING */
    bool is_dns;             /* after a success: the built-in DNS service */
    struct log_access entry; /* the access line, filled as things become known */
};

/* ---- end ---- */

void conn_slab_init(struct slab *slab)
{
    slab_init(slab, sizeof(struct conn));
}

static int client_fd(const struct conn *conn)
{
    return relay_socket_a(conn->relay)->fd;
}

/* Frees the struct and what only a conversation needs; the relay, descriptors and counts are the caller's. */
static void conn_free(struct conn *conn)
{
    struct worker *worker = conn->worker;

    cmd_connect_cancel(&conn->job);
    cmd_dns_cancel(&conn->dns_job);
    loop_timer_cancel(worker->loop, &conn->timer);
    door_done(&conn->door);
    free(conn->pending);
    slab_free(&worker->conns, conn);
}

/* A connection to the server that will not be used: a reset says so at once. */
static void close_server(struct conn *conn)
{
    if (conn->server_fd >= 0) {
        sock_reset_on_close(conn->server_fd);
        close(conn->server_fd);
        conn->server_fd = -1;
    }
}

/* The end: closes, logs, gives everything back. */
static enum step conn_end(struct conn *conn, const char *reason)
{
    struct worker *worker = conn->worker;

    if (conn->dns != NULL) {
        dns_service_bytes(conn->dns, &conn->entry.bytes_up, &conn->entry.bytes_down);
        dns_service_free(conn->dns);
        conn->dns = NULL;
    }
    conn->entry.duration_ms = loop_now_ms(worker->loop) - conn->accepted_ms;
    if (conn->entry.reason == NULL) {
        conn->entry.reason = reason; /* what was decided first says more than how the client then left */
    }
    close_server(conn);
    loop_close(worker->loop, relay_socket_a(conn->relay));
    relay_free(conn->relay);
    stats_add(&worker->stats, STATS_closed, 1);
    log_access_write(&conn->entry);
    limits_release(worker->shared->limits, &conn->entry.client);
    config_release(conn->config);
    listener_place_release(worker, conn->place);
    conn_free(conn);
    worker_connection_gone(worker);
    return STEP_GONE;
}

/* ---- pending bytes ---- */

/* Room for `len` more; false: no memory. Grows by doubling from 4 KiB. */
static bool pending_reserve(struct conn *conn, size_t len)
{
    size_t size = conn->pending_size == 0 ? 4096 : conn->pending_size;

    while (size < conn->pending_len + len) {
        size *= 2;
    }
    if (size == conn->pending_size) {
        return true;
    }
    uint8_t *grown = realloc(conn->pending, size);
    if (grown == NULL) {
        return false;
    }
    conn->pending = grown;
    conn->pending_size = size;
    return true;
}

static bool pending_append(struct conn *conn, const uint8_t *bytes, size_t len)
{
    if (len == 0) {
        return true;
    }
    if (!pending_reserve(conn, len)) {
        return false;
    }
    memcpy(conn->pending + conn->pending_len, bytes, len);
    conn->pending_len += len;
    return true;
}

static void pending_clear(struct conn *conn)
{
    free(conn->pending);
    conn->pending = NULL;
    conn->pending_len = conn->pending_size = 0;
}

/* ---- output ---- */

/* Sends what the door has. STEP_AGAIN: all is out. */
static enum step flush(struct conn *conn)
{
    for (;;) {
        struct socks6_slice out = door_output(&conn->door);
        if (out.len == 0) {
            return STEP_AGAIN;
        }
        if (!conn->writable) {
            return STEP_WAIT;
        }
        ssize_t n = send(client_fd(conn), out.data, out.len, MSG_NOSIGNAL);
        if (n >= 0) {
            door_output_sent(&conn->door, (size_t)n);
        } else if (errno == EAGAIN) {
            conn->writable = false;
        } else if (errno != EINTR) {
            return conn_end(conn, "client reset");
        }
    }
}

/* ---- lingering ---- */

static enum step start_lingering(struct conn *conn)
{
    conn->phase = LINGERING;
    pending_clear(conn);
    close_server(conn);
    loop_timer_set(conn->worker->loop, &conn->timer, LINGER_MS);
    return STEP_AGAIN;
}

static enum step linger(struct conn *conn)
{
    enum step step = flush(conn);
    if (step != STEP_AGAIN) {
        return step;
    }
    if (!conn->is_shut && shutdown(client_fd(conn), SHUT_WR) != 0) {
        return conn_end(conn, "client reset");
    }
    conn->is_shut = true;
    while (conn->readable) {
        /* MSG_TRUNC throws the bytes away without copying them (tcp(7)). */
        ssize_t n = recv(client_fd(conn), NULL, WORKER_SCRATCH_LEN, MSG_TRUNC);
        if (n > 0) {
            conn->lingered += (size_t)n;
            if (conn->lingered > LINGER_BYTES) {
                return conn_end(conn, "done");
            }
        } else if (n < 0 && errno == EAGAIN) {
            conn->readable = false;
        } else if (n == 0 || errno != EINTR) {
            return conn_end(conn, "done");
        }
    }
    return STEP_WAIT;
}

/* ---- replying ---- */

static enum step start_replying(struct conn *conn, enum socks6_reply_code code, const struct socks6_addr *bound,
                                const struct socks6_stack_option *stack, size_t stack_count)
{
    if (!door_reply(&conn->door, code, bound, stack, stack_count)) {
        conn->entry.reason = "out of memory";
        return start_lingering(conn);
    }
    conn->entry.reply = (int)code;
    conn->phase = REPLYING;
    loop_timer_cancel(conn->worker->loop, &conn->timer);
    return STEP_AGAIN;
}

/* The reply is out: the sockets and what was read ahead go to the relay, this struct ends. */
static enum step start_relaying(struct conn *conn)
{
    struct relay_start start = {
        .fd_b = conn->server_fd,
        .b_is_parked = conn->server_is_parked,
        .events_a = conn->odd_events | (conn->readable ? EPOLLIN : 0u) | (conn->writable ? EPOLLOUT : 0u),
        .early = conn->pending,
        .early_len = conn->pending_len,
    };

    session_start(conn->relay, conn->worker, conn->config, conn->place, &start, &conn->entry, conn->accepted_ms);
    conn_free(conn);
    return STEP_GONE;
}

/* ---- the DNS service ---- */

static void on_dns_over(void *user, const char *reason)
{
    struct conn *conn = user;

    (void)conn_end(conn, reason);
}

/* The reply is out: what was read ahead and all that follows is for the service. */
static enum step start_serving(struct conn *conn)
{
    struct worker *worker = conn->worker;
    const struct dns_service_setup setup = {
        .shared = worker->dns_shared,
        .loop = worker->loop,
        .dns = worker->dns,
        .limits = worker->shared->dns_limits,
        .config = conn->config,
        .client = &conn->entry.client,
        .user = conn->entry.user,
        .stats = &worker->stats,
        .fd = client_fd(conn),
        .is_readable = conn->readable,
        .is_writable = conn->writable,
        .early = conn->pending,
        .early_len = conn->pending_len,
        .over = on_dns_over,
        .user_data = conn,
    };

    loop_timer_cancel(worker->loop, &conn->timer);
    if (dns_service_start(&setup, &conn->dns) != 0) {
        conn->dns = NULL;
        return conn_end(conn, "out of memory");
    }
    stats_add(&worker->stats, STATS_dns_streams, 1);
    pending_clear(conn);
    conn->phase = SERVING;
    return STEP_WAIT;
}

static enum step reply_out(struct conn *conn)
{
    enum step step = flush(conn);
    if (step == STEP_WAIT && !loop_timer_is_armed(&conn->timer)) {
        loop_timer_set(conn->worker->loop, &conn->timer, conn->config->limits.handshake_ms);
    }
    if (step != STEP_AGAIN) {
        return step;
    }
    if (conn->is_dns) {
        return start_serving(conn);
    }
    return conn->server_fd >= 0 ? start_relaying(conn) : start_lingering(conn);
}

/* ---- the command ---- */

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

static enum step take_outcome(struct conn *conn, const struct connect_outcome *outcome)
{
    count_outcome(&conn->worker->stats, outcome);
    conn->server_fd = outcome->fd;
    conn->server_is_parked = outcome->fd_is_parked;
    conn->entry.dialled = outcome->dialled;
    conn->entry.rule_line = outcome->rule_line;
    if (outcome->code != SOCKS6_REPLY_SUCCESS) {
        conn->entry.reason = outcome->why;
    }
    egress_unavailable(&conn->worker->shared->egress, &conn->worker->stats, outcome->unavailable_count,
                       &outcome->unavailable, loop_now_ms(conn->worker->loop));
    log_step(&conn->entry, outcome->code == SOCKS6_REPLY_SUCCESS ? "is connected" : outcome->why);
    return start_replying(conn, outcome->code, outcome->fd >= 0 ? &outcome->bound : NULL, outcome->stack,
                          outcome->stack_count);
}

static enum step conn_run(struct conn *conn, enum step step);

static void on_connect_done(struct connect_job *job, const struct connect_outcome *outcome)
{
    struct conn *conn = LOOP_OWNER(job, struct conn, job);
    (void)conn_run(conn, take_outcome(conn, outcome));
}

static enum step start_connect(struct conn *conn, const struct door_request *request)
{
    struct worker *worker = conn->worker;
    struct connect_outcome outcome;

    conn->phase = CONNECTING;
    conn->job.loop = worker->loop;
    conn->job.dns = worker->dns;
    conn->job.winners = worker->shared->winners;
    conn->job.local = worker->shared->local;
    conn->job.config = conn->config;
    conn->job.client = &conn->entry.client;
    conn->job.source_turn = &worker->source_turn;
    conn->job.is_socks6 = door_version(&conn->door) == SOCKS6_VERSION;
    conn->job.stack = request->stack;
    conn->job.stack_count = request->stack_count;
    conn->job.done = on_connect_done;
    if (cmd_connect_start(&conn->job, &request->addr, &outcome)) {
        return take_outcome(conn, &outcome);
    }
    if (door_output(&conn->door).len > 0) {
        conn->holds = true;
        loop_timer_set(worker->loop, &conn->timer, HOLD_MS);
    }
    return STEP_AGAIN;
}

static void on_dns_relayed(struct dns_relay_job *job, const struct connect_outcome *outcome)
{
    struct conn *conn = LOOP_OWNER(job, struct conn, dns_job);
    (void)conn_run(conn, take_outcome(conn, outcome));
}

static enum step start_dns(struct conn *conn, const struct socks6_addr *asked)
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
    conn->phase = CONNECTING;
    conn->dns_job.loop = conn->worker->loop;
    conn->dns_job.dns = conn->worker->dns;
    conn->dns_job.config = conn->config;
    conn->dns_job.done = on_dns_relayed;
    switch (cmd_dns_start(&conn->dns_job, &request, &outcome)) {
    case CMD_DNS_REFUSED:
        return take_outcome(conn, &outcome);
    case CMD_DNS_BUILT_IN:
        conn->is_dns = true;
        return start_replying(conn, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0);
    case CMD_DNS_RELAYED:
        break;
    }
    return STEP_AGAIN;
}

static enum step start_noop(struct conn *conn)
{
    /* NOOP has no destination; only a rule on who and on the command can speak of it. */
    const struct policy_request request = {
        .client = &conn->entry.client,
        .command = SOCKS6_COMMAND_NOOP,
        .name = "",
        .addr = &conn->entry.asked,
    };
    struct policy_result result = policy_check_name(conn->config->policy, &request);
    if (result.verdict == POLICY_DENY) {
        stats_add(&conn->worker->stats, STATS_denied, 1);
        conn->entry.reason = result.why;
        conn->entry.rule_line = result.line;
        return start_replying(conn, SOCKS6_REPLY_NOT_ALLOWED, NULL, NULL, 0);
    }
    conn->entry.reason = "done";
    return start_replying(conn, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0);
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

static enum step take_request(struct conn *conn)
{
    const struct door_request *request = door_request(&conn->door);

    loop_timer_cancel(conn->worker->loop, &conn->timer);
    conn->entry.protocol = door_protocol(&conn->door);
    conn->entry.command = socks6_command_name(request->command);
    conn->entry.asked = request->addr;
    count_request(conn);
    log_step(&conn->entry, "asks");
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
        return start_replying(conn, SOCKS6_REPLY_COMMAND_UNSUPPORTED, NULL, NULL, 0);
    }
}

/* ---- handshake ---- */

static enum step refuse(struct conn *conn)
{
    stats_add(&conn->worker->stats, STATS_handshake_errors, 1);
    conn->entry.protocol = door_protocol(&conn->door);
    conn->entry.reason = door_why(&conn->door);
    return start_lingering(conn);
}

/* Keeps what the door did not take; `bytes` may lie inside `pending`. */
static bool keep_rest(struct conn *conn, const uint8_t *bytes, size_t len)
{
    if (conn->pending_len != 0) {
        memmove(conn->pending, bytes, len);
        conn->pending_len = len;
        return true;
    }
    return pending_append(conn, bytes, len);
}

/* Application bytes: what the door set aside comes before what is left of the stream. */
static bool keep_early(struct conn *conn, const uint8_t *bytes, size_t len)
{
    struct socks6_slice initial = door_request(&conn->door)->initial_data;

    if (initial.len == 0) {
        return keep_rest(conn, bytes, len);
    }
    uint8_t *early = malloc(initial.len + len);
    if (early == NULL) {
        return false;
    }
    memcpy(early, initial.data, initial.len);
    if (len != 0) {
        memcpy(early + initial.len, bytes, len);
    }
    pending_clear(conn);
    conn->pending = early;
    conn->pending_len = conn->pending_size = initial.len + len;
    return true;
}

static enum step feed(struct conn *conn, const uint8_t *bytes, size_t len)
{
    uint64_t now_ms = loop_now_ms(conn->worker->loop);
    size_t used = 0;

    if (!conn->has_door) {
        conn->has_door = true;
        if (!door_init(&conn->door, conn->config, conn->protocols, bytes[0], now_ms)) {
            return conn_end(conn, "out of memory");
        }
    }
    enum door_status status = door_input(&conn->door, bytes, len, now_ms, &used);
    bool is_kept = true;
    switch (status) {
    case DOOR_MORE:
        is_kept = keep_rest(conn, bytes + used, len - used);
        break;
    case DOOR_REQUEST:
        is_kept = keep_early(conn, bytes + used, len - used);
        break;
    case DOOR_CLOSED:
        return refuse(conn);
    }
    if (!is_kept) {
        return conn_end(conn, "out of memory");
    }
    return status == DOOR_REQUEST ? take_request(conn) : STEP_AGAIN; /* which flushes */
}

/* After a read of `len` into room for `size`: a short one has emptied the queue, unless more than bytes was reported. */
static void note_read(struct conn *conn, size_t len, size_t size)
{
    if (len < size && conn->odd_events == 0) {
        conn->readable = false;
    }
}

/* One read into the scratch buffer, behind what is pending. */
static enum step handshake(struct conn *conn)
{
    if (conn->has_door && flush(conn) == STEP_GONE) {
        return STEP_GONE;
    }
    if (!conn->readable) {
        return STEP_WAIT;
    }
    ssize_t n = recv(client_fd(conn), conn->worker->scratch, WORKER_SCRATCH_LEN, 0);
    if (n < 0) {
        if (errno == EAGAIN) {
            conn->readable = false;
            return STEP_WAIT;
        }
        if (errno == EINTR) {
            return STEP_AGAIN;
        }
    }
    if (n <= 0) {
        stats_add(&conn->worker->stats, STATS_handshake_errors, 1);
        return conn_end(conn, n == 0 ? "client closed before its request" : "client reset");
    }
    note_read(conn, (size_t)n, WORKER_SCRATCH_LEN);
    if (conn->pending_len == 0) {
        return feed(conn, conn->worker->scratch, (size_t)n);
    }
    if (!pending_append(conn, conn->worker->scratch, (size_t)n)) {
        return conn_end(conn, "out of memory");
    }
    return feed(conn, conn->pending, conn->pending_len);
}

/* ---- while the command runs ---- */

/* Reads ahead up to the cap: a reset is seen at once, and early data is at hand when the server is there. */
static enum step read_early(struct conn *conn)
{
    if (!conn->holds && flush(conn) == STEP_GONE) {
        return STEP_GONE;
    }
    while (conn->readable && !conn->client_eof && conn->pending_len < WORKER_SCRATCH_LEN) {
        if (!pending_reserve(conn, 1)) {
            return conn_end(conn, "out of memory");
        }
        size_t room = conn->pending_size - conn->pending_len;
        ssize_t n = recv(client_fd(conn), conn->pending + conn->pending_len, room, 0);
        if (n > 0) {
            conn->pending_len += (size_t)n;
            note_read(conn, (size_t)n, room);
        } else if (n == 0) {
            conn->client_eof = true; /* a half-close; the relay will see it again and pass it on */
        } else if (errno == EAGAIN) {
            conn->readable = false;
        } else if (errno != EINTR) {
            return conn_end(conn, "client reset");
        }
    }
    return STEP_WAIT;
}

/* ---- entry points ---- */

static enum step conn_run(struct conn *conn, enum step step)
{
    while (step == STEP_AGAIN) {
        switch (conn->phase) {
        case HANDSHAKE:
            step = handshake(conn);
            break;
        case CONNECTING:
            step = read_early(conn);
            break;
        case REPLYING:
            step = reply_out(conn);
            break;
        case SERVING:
            step = STEP_WAIT;
            break;
        case LINGERING:
            step = linger(conn);
            break;
        }
    }
    return step;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct conn *conn = session_conn(relay_of_socket_a(io));

    if (conn->phase == SERVING) {
        dns_service_events(conn->dns, events);
        return;
    }
    if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        conn->readable = true;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        conn->writable = true;
    }
    conn->odd_events |= events & ~(uint32_t)(EPOLLIN | EPOLLOUT);
    (void)conn_run(conn, STEP_AGAIN);
}

static void on_timer(struct loop_timer *timer)
{
    struct conn *conn = LOOP_OWNER(timer, struct conn, timer);

    if (conn->phase == CONNECTING) {
        conn->holds = false;
        (void)conn_run(conn, STEP_AGAIN);
        return;
    }
    if (conn->phase == HANDSHAKE) {
        stats_add(&conn->worker->stats, STATS_handshake_timeouts, 1);
    }
    (void)conn_end(conn, conn->phase == LINGERING ? "done" : "handshake timeout");
}

/* Without memory for it. */
static void refuse_client(struct worker *worker, struct relay *relay, int fd, const struct socks6_addr *client)
{
    relay_free(relay);
    close(fd);
    stats_add(&worker->stats, STATS_closed, 1);
    limits_release(worker->shared->limits, client);
}

void conn_open(struct worker *worker, const struct listener *listener, int fd, const struct socks6_addr *client)
{
    struct relay *relay = relay_new(worker->relays);
    struct conn *conn = relay == NULL ? NULL : slab_alloc(&worker->conns);
    if (conn == NULL) {
        refuse_client(worker, relay, fd, client);
        return;
    }
    worker_connection_begun(worker);
    session_set_conn(relay, conn);
    conn->worker = worker;
    conn->config = config_retain(worker->config);
    conn->relay = relay;
    conn->server_fd = -1;
    conn->protocols = (uint8_t)listener->protocols;
    conn->place = listener->place;
    listener_place_retain(worker, conn->place);
    conn->accepted_ms = loop_now_ms(worker->loop);
    conn->entry.id = atomic_fetch_add_explicit(&worker->shared->next_id, 1, memory_order_relaxed);
    conn->entry.client = *client;
    conn->entry.listener = listener->address;
    conn->entry.protocol = "-";
    conn->entry.reply = -1;
    conn->timer.expired = on_timer;
    log_step(&conn->entry, "accepted");
    struct loop_io *io = relay_socket_a(relay);
    *io = (struct loop_io){.ready = on_ready, .fd = fd};
    if (loop_add(worker->loop, io, RELAY_EVENTS) != 0) {
        (void)conn_end(conn, "out of memory");
        return;
    }
    loop_timer_set(worker->loop, &conn->timer, conn->config->limits.handshake_ms);
}

void conn_drain_all(struct worker *worker)
{
    for (struct conn *conn = slab_next(&worker->conns, NULL); conn != NULL; conn = slab_next(&worker->conns, conn)) {
        if (conn->phase == SERVING) {
            dns_service_drain(conn->dns);
        }
    }
}

void conn_abort_all(struct worker *worker)
{
    struct conn *next = slab_next(&worker->conns, NULL);

    while (next != NULL) {
        struct conn *conn = next;
        next = slab_next(&worker->conns, conn);
        (void)conn_end(conn, "shut down");
    }
}
