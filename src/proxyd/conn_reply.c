/*
 * What the client is told, and who takes over then: the relay, the DNS service, or nobody, after a refusal.
 */
#include "proxyd/conn_internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define LINGER_MS 5000u
#define LINGER_BYTES ((size_t)64 << 20)

/* ---- output ---- */

static ssize_t send_plain(struct conn *conn, const void *buf, size_t len)
{
    ssize_t n = send(conn_client_fd(conn), buf, len, MSG_NOSIGNAL);

    if (n < 0 && errno == EAGAIN) {
        conn->writable = false;
    }
    return n < 0 ? -errno : n;
}

ssize_t conn_send(struct conn *conn, const void *buf, size_t len)
{
    if (conn->tls == NULL) {
        return send_plain(conn, buf, len);
    }
    ssize_t n = tls_send(conn->tls, buf, len);
    if (n == -EAGAIN) {
        conn->writable = !tls_waits_for_room(conn->tls);
    }
    return n;
}

enum conn_step conn_flush(struct conn *conn)
{
    for (;;) {
        struct socks6_slice out = door_output(&conn->door);
        if (out.len == 0) {
            return CONN_AGAIN;
        }
        if (!conn->writable) {
            return CONN_WAIT;
        }
        ssize_t n = conn_send(conn, out.data, out.len);
        if (n >= 0) {
            door_output_sent(&conn->door, (size_t)n);
        } else if (n == -EAGAIN) {
            return CONN_WAIT;
        } else if (n != -EINTR) {
            return conn_end(conn, "client reset");
        }
    }
}

/* ---- lingering ---- */

enum conn_step conn_start_lingering(struct conn *conn)
{
    conn->phase = CONN_LINGERING;
    conn_pending_clear(conn);
    conn_close_server(conn);
    loop_timer_set(conn->worker->loop, &conn->timer, LINGER_MS);
    return CONN_AGAIN;
}

/* Until close_notify is out, or cannot be sent at all. In early data it has to wait for the client. */
static enum conn_step end_tls(struct conn *conn)
{
    while (tls_end(conn->tls) == -EAGAIN) {
        if (tls_waits_for_room(conn->tls)) {
            conn->writable = false;
            return CONN_WAIT;
        }
        if (!conn->readable) {
            return CONN_WAIT;
        }
        ssize_t n = conn_recv(conn, conn->worker->scratch, WORKER_SCRATCH_LEN);
        if (n == -EAGAIN) {
            return CONN_WAIT;
        }
        conn->lingered += n > 0 ? (size_t)n : 0;
        if (n == 0 || conn->lingered > LINGER_BYTES) {
            break;
        }
    }
    return CONN_AGAIN;
}

enum conn_step conn_linger(struct conn *conn)
{
    bool is_broken = conn->tls != NULL && tls_why(conn->tls) != NULL;
    enum conn_step step = is_broken ? CONN_AGAIN : conn_flush(conn);
    if (step == CONN_AGAIN && conn->tls != NULL && !conn->is_shut) {
        step = end_tls(conn);
    }
    if (step != CONN_AGAIN) {
        return step;
    }
    if (!conn->is_shut && shutdown(conn_client_fd(conn), SHUT_WR) != 0) {
        return conn_end(conn, "client reset");
    }
    conn->is_shut = true;
    while (conn->readable) {
        /* MSG_TRUNC throws the bytes away without copying them (tcp(7)). */
        ssize_t n = recv(conn_client_fd(conn), NULL, WORKER_SCRATCH_LEN, MSG_TRUNC);
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
    return CONN_WAIT;
}

/* ---- replying ---- */

enum conn_step conn_start_replying(struct conn *conn, enum socks6_reply_code code, const struct socks6_addr *bound,
                                   const struct socks6_stack_option *stack, size_t stack_count)
{
    if (!door_reply(&conn->door, code, bound, stack, stack_count)) {
        conn->entry.reason = "out of memory";
        return conn_start_lingering(conn);
    }
    conn->entry.reply = (int)code;
    conn->phase = CONN_REPLYING;
    loop_timer_cancel(conn->worker->loop, &conn->timer);
    return CONN_AGAIN;
}

/* For whoever goes on with the client's socket, which is edge-triggered. */
static uint32_t events_so_far(const struct conn *conn)
{
    return conn->odd_events | (conn->readable ? EPOLLIN : 0u) | (conn->writable ? EPOLLOUT : 0u);
}

/* The reply is out: the sockets and what was read ahead go to the relay, this struct ends. */
static enum conn_step start_relaying(struct conn *conn)
{
    struct relay_start start = {
        .fd_b = conn->server_fd,
        .b_is_parked = conn->server_is_parked,
        .events_a = events_so_far(conn),
        .early = conn->pending,
        .early_len = conn->pending_len,
        .early_taken = conn->early_taken,
    };

    if (conn->tls != NULL) {
        conn->entry.tls = tls_version(conn->tls);
        tls_set_answering(conn->tls, false);
    }
    session_start(conn->relay, conn->worker, conn->config, conn->place, &start, &conn->entry, conn->accepted_ms,
                  door_take_user(&conn->door));
    conn_free(conn);
    return CONN_GONE;
}

/* ---- the DNS service ---- */

static void on_dns_over(void *user, const char *reason)
{
    struct conn *conn = user;

    if (conn->tls != NULL && tls_end(conn->tls) != 0) {
        log_step(&conn->entry, "takes no close_notify");
    }
    (void)conn_end(conn, reason);
}

/* The reply is out: what was read ahead and all that follows is for the service. */
static enum conn_step start_serving(struct conn *conn)
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
        .fd = conn_client_fd(conn),
        .tls = conn->tls,
        .events = events_so_far(conn),
        .early = conn->pending,
        .early_len = conn->pending_len,
        .over = on_dns_over,
        .user_data = conn,
    };

    loop_timer_cancel(worker->loop, &conn->timer);
    if (conn->tls != NULL) {
        tls_set_answering(conn->tls, false);
    }
    if (dns_service_start(&setup, &conn->dns) != 0) {
        conn->dns = NULL;
        return conn_end(conn, "out of memory");
    }
    stats_add(&worker->stats, STATS_dns_streams, 1);
    conn_pending_clear(conn);
    conn->phase = CONN_SERVING;
    return CONN_WAIT;
}

enum conn_step conn_reply_out(struct conn *conn)
{
    enum conn_step step = conn_flush(conn);
    if (step == CONN_WAIT && !loop_timer_is_armed(&conn->timer)) {
        loop_timer_set(conn->worker->loop, &conn->timer, conn->config->limits.handshake_ms);
    }
    if (step != CONN_AGAIN) {
        return step;
    }
    if (conn->is_dns) {
        return start_serving(conn);
    }
    return conn->server_fd >= 0 ? start_relaying(conn) : conn_start_lingering(conn);
}
