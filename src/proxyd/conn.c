/*
 * Life of a connection here:
 *
 *   HANDSHAKE   bytes -> door, until it has a request            limit: limits.handshake (one timer for all of it)
 *   CONNECTING  the command runs; early data is read up to a cap limit: limits.connect (the command's own)
 *   REPLYING    the reply goes out; after a success -> relay     limit: limits.handshake anew
 *   LINGERING   after a refusal: our side is shut, the client's bytes are thrown away, so that closing does not reset the connection
 *               before the client has read the reply             limit: LINGER_MS, LINGER_BYTES
 *
 * The socket is registered once, edge-triggered; `readable` and `writable` remember what has not been used up. Every entry point ends in
 * conn_run(), which goes on until the connection waits for something or is gone.
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
#include "proxyd/door.h"
#include "proxyd/listener.h"
#include "proxyd/log.h"
#include "proxyd/session.h"
#include "proxyd/worker.h"

#define LINGER_MS 5000u
#define LINGER_BYTES ((size_t)64 << 20)

enum phase { HANDSHAKE, CONNECTING, REPLYING, LINGERING };

/* What a step of conn_run() left behind. */
enum step {
    STEP_AGAIN, /* there may be more to do */
    STEP_WAIT,  /* for an event, a timer, the command */
    STEP_GONE   /* the connection has been freed */
};

struct conn {
    struct conn *prev, *next;
    struct worker *worker;
    const struct config *config;
    struct door *door; /* NULL before the first byte */
    struct loop_io io;
    struct loop_timer timer;
    int fd;
    int server_fd; /* connected, while REPLYING with success; else -1 */
    enum phase phase;
    unsigned protocols;
    bool readable, writable;
    bool client_eof;
    uint8_t *pending; /* bytes read and not yet taken: an unfinished message, or early data */
    size_t pending_len, pending_size;
    bool is_shut;    /* LINGERING: our FIN is out */
    size_t lingered; /* LINGERING: bytes thrown away */
    uint64_t accepted_ms;
    struct connect_job job;
    struct log_access entry; /* the access line, filled as things become known */
};

/* ---- end ---- */

static void unlink_conn(struct conn *conn)
{
    if (conn->prev != NULL) {
        conn->prev->next = conn->next;
    } else {
        conn->worker->conns = conn->next;
    }
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    }
}

/* Frees the struct and what only a conversation needs; descriptors and counts are the caller's. */
static void conn_free(struct conn *conn)
{
    struct loop *loop = conn->worker->loop;

    cmd_connect_cancel(&conn->job);
    loop_timer_cancel(loop, &conn->timer);
    loop_remove(loop, &conn->io);
    door_free(conn->door);
    free(conn->pending);
    unlink_conn(conn);
    free(conn);
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
    const struct config *config = conn->config;
    struct log_access entry = conn->entry;
    int fd = conn->fd;

    entry.duration_ms = loop_now_ms(worker->loop) - conn->accepted_ms;
    if (entry.reason == NULL) {
        entry.reason = reason; /* what was decided first says more than how the client then left */
    }
    close_server(conn);
    conn_free(conn);
    close(fd);
    stats_add(&worker->stats, STATS_closed, 1);
    log_access_write(&entry);
    limits_release(worker->shared->limits, &entry.client);
    config_release(config);
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
        struct socks6_slice out = door_output(conn->door);
        if (out.len == 0) {
            return STEP_AGAIN;
        }
        if (!conn->writable) {
            return STEP_WAIT;
        }
        ssize_t n = send(conn->fd, out.data, out.len, MSG_NOSIGNAL);
        if (n >= 0) {
            door_output_sent(conn->door, (size_t)n);
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
    if (!conn->is_shut && shutdown(conn->fd, SHUT_WR) != 0) {
        return conn_end(conn, "client reset");
    }
    conn->is_shut = true;
    while (conn->readable) {
        /* MSG_TRUNC throws the bytes away without copying them (tcp(7)). */
        ssize_t n = recv(conn->fd, NULL, WORKER_SCRATCH_LEN, MSG_TRUNC);
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

static enum step start_replying(struct conn *conn, enum socks6_reply_code code, const struct socks6_addr *bound)
{
    if (!door_reply(conn->door, code, bound)) {
        conn->entry.reason = "out of memory";
        return start_lingering(conn);
    }
    conn->entry.reply = (int)code;
    conn->phase = REPLYING;
    loop_timer_set(conn->worker->loop, &conn->timer, conn->config->limits.handshake_ms);
    return STEP_AGAIN;
}

/* The reply is out: the sockets and what was read ahead go to the relay, this struct ends. */
static enum step start_relaying(struct conn *conn)
{
    struct worker *worker = conn->worker;
    const struct config *config = conn->config;
    struct log_access entry = conn->entry;
    uint64_t accepted_ms = conn->accepted_ms;
    int client_fd = conn->fd;
    int server_fd = conn->server_fd;
    uint8_t *early = conn->pending;
    size_t early_len = conn->pending_len;

    if (early_len == 0) {
        free(early);
        early = NULL;
    }
    conn->pending = NULL;
    conn_free(conn);
    session_start(worker, config, client_fd, server_fd, early, early_len, &entry, accepted_ms);
    return STEP_GONE;
}

static enum step reply_out(struct conn *conn)
{
    enum step step = flush(conn);
    if (step != STEP_AGAIN) {
        return step;
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
    conn->entry.dialled = outcome->dialled;
    conn->entry.rule_line = outcome->rule_line;
    if (outcome->code != SOCKS6_REPLY_SUCCESS) {
        conn->entry.reason = outcome->why;
    }
    return start_replying(conn, outcome->code, outcome->fd >= 0 ? &outcome->bound : NULL);
}

static enum step conn_run(struct conn *conn, enum step step);

static void on_connect_done(struct connect_job *job, const struct connect_outcome *outcome)
{
    struct conn *conn = LOOP_OWNER(job, struct conn, job);
    (void)conn_run(conn, take_outcome(conn, outcome));
}

static enum step start_connect(struct conn *conn, const struct socks6_addr *addr)
{
    struct worker *worker = conn->worker;
    struct connect_outcome outcome;

    conn->phase = CONNECTING;
    conn->job.loop = worker->loop;
    conn->job.resolver = worker->shared->resolver;
    conn->job.local = worker->shared->local;
    conn->job.config = conn->config;
    conn->job.client = &conn->entry.client;
    conn->job.done = on_connect_done;
    bool is_socks6 = door_version(conn->door) == SOCKS6_VERSION;
    return cmd_connect_start(&conn->job, addr, is_socks6, &outcome) ? take_outcome(conn, &outcome) : STEP_AGAIN;
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
        return start_replying(conn, SOCKS6_REPLY_NOT_ALLOWED, NULL);
    }
    conn->entry.reason = "done";
    return start_replying(conn, SOCKS6_REPLY_SUCCESS, NULL);
}

static void count_request(struct conn *conn)
{
    enum stats_counter counter = STATS_requests_socks6;
    switch (door_version(conn->door)) {
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
    const struct door_request *request = door_request(conn->door);

    loop_timer_cancel(conn->worker->loop, &conn->timer);
    conn->entry.protocol = door_protocol(conn->door);
    conn->entry.command = socks6_command_name(request->command);
    conn->entry.asked = request->addr;
    count_request(conn);
    switch (request->command) {
    case SOCKS6_COMMAND_NOOP:
        return start_noop(conn);
    case SOCKS6_COMMAND_CONNECT:
        return start_connect(conn, &request->addr);
    default:
        conn->entry.reason = "command not supported";
        return start_replying(conn, SOCKS6_REPLY_COMMAND_UNSUPPORTED, NULL);
    }
}

/* ---- handshake ---- */

static enum step refuse(struct conn *conn)
{
    stats_add(&conn->worker->stats, STATS_handshake_errors, 1);
    conn->entry.protocol = door_protocol(conn->door);
    conn->entry.reason = door_why(conn->door);
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
    struct socks6_slice initial = door_request(conn->door)->initial_data;

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

    if (conn->door == NULL) {
        conn->door = door_new(conn->config, conn->protocols, bytes[0], now_ms);
        if (conn->door == NULL) {
            return conn_end(conn, "out of memory");
        }
    }
    enum door_status status = door_input(conn->door, bytes, len, now_ms, &used);
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
    if (flush(conn) == STEP_GONE) {
        return STEP_GONE;
    }
    return status == DOOR_REQUEST ? take_request(conn) : STEP_AGAIN;
}

/* One read into the scratch buffer, behind what is pending. */
static enum step handshake(struct conn *conn)
{
    if (conn->door != NULL && flush(conn) == STEP_GONE) {
        return STEP_GONE;
    }
    if (!conn->readable) {
        return STEP_WAIT;
    }
    ssize_t n = recv(conn->fd, conn->worker->scratch, WORKER_SCRATCH_LEN, 0);
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
    if (flush(conn) == STEP_GONE) {
        return STEP_GONE;
    }
    while (conn->readable && !conn->client_eof && conn->pending_len < WORKER_SCRATCH_LEN) {
        if (!pending_reserve(conn, 1)) {
            return conn_end(conn, "out of memory");
        }
        size_t room = conn->pending_size - conn->pending_len;
        ssize_t n = recv(conn->fd, conn->pending + conn->pending_len, room, 0);
        if (n > 0) {
            conn->pending_len += (size_t)n;
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
        case LINGERING:
            step = linger(conn);
            break;
        }
    }
    return step;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct conn *conn = LOOP_OWNER(io, struct conn, io);

    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        conn->readable = true;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        conn->writable = true;
    }
    (void)conn_run(conn, STEP_AGAIN);
}

static void on_timer(struct loop_timer *timer)
{
    struct conn *conn = LOOP_OWNER(timer, struct conn, timer);

    if (conn->phase == HANDSHAKE) {
        stats_add(&conn->worker->stats, STATS_handshake_timeouts, 1);
    }
    (void)conn_end(conn, conn->phase == LINGERING ? "done" : "handshake timeout");
}

static void conn_link(struct conn *conn)
{
    struct worker *worker = conn->worker;

    conn->next = worker->conns;
    if (conn->next != NULL) {
        conn->next->prev = conn;
    }
    worker->conns = conn;
}

void conn_open(struct worker *worker, const struct listener *listener, int fd, const struct socks6_addr *client)
{
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL) {
        close(fd);
        stats_add(&worker->stats, STATS_closed, 1);
        limits_release(worker->shared->limits, client);
        return;
    }
    conn->worker = worker;
    conn->config = config_retain(worker->config);
    conn->fd = fd;
    conn->server_fd = -1;
    conn->protocols = listener->protocols;
    conn->accepted_ms = loop_now_ms(worker->loop);
    conn->entry.id = atomic_fetch_add_explicit(&worker->shared->next_id, 1, memory_order_relaxed);
    conn->entry.client = *client;
    conn->entry.listener = listener->address;
    conn->entry.protocol = "-";
    conn->entry.reply = -1;
    conn->io = (struct loop_io){.ready = on_ready, .fd = fd};
    conn->timer.expired = on_timer;
    conn_link(conn);
    if (loop_add(worker->loop, &conn->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) != 0) {
        (void)conn_end(conn, "out of memory");
        return;
    }
    loop_timer_set(worker->loop, &conn->timer, conn->config->limits.handshake_ms);
}

void conn_abort_all(struct worker *worker)
{
    struct conn *next;

    for (struct conn *conn = worker->conns; conn != NULL; conn = next) {
        next = conn->next;
        (void)conn_end(conn, "shut down");
    }
}
