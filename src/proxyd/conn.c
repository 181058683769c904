/*
 * Life of a connection here:
 *
 *   HANDSHAKE   bytes -> door, until it has a request            limit: limits.handshake (one timer for all of it)
 *               (while it looks up a password or a session, bytes are read up to a cap, as in CONNECTING)
 *   UNCONFIRMED a request that could be a replay waits until its client has ended the handshake below SOCKS; early data is
 *               read up to a cap                                  limit: the same timer
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

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/conn_internal.h"
#include "proxyd/listener.h"

/* ---- end ---- */

void conn_slab_init(struct slab *slab)
{
    slab_init(slab, sizeof(struct conn));
}

void conn_free(struct conn *conn)
{
    struct worker *worker = conn->worker;

    cmd_connect_cancel(&conn->job);
    cmd_dns_cancel(&conn->dns_job);
    loop_timer_cancel(worker->loop, &conn->timer);
    door_done(&conn->door);
    if (conn->phase == CONN_HANDSHAKE && conn->pending != NULL) {
        explicit_bzero(conn->pending, conn->pending_size); /* it may be a part of a password */
    }
    free(conn->pending);
    slab_free(&worker->conns, conn);
}

void conn_close_server(struct conn *conn)
{
    if (conn->server_fd >= 0) {
        sock_reset_on_close(conn->server_fd);
        close(conn->server_fd);
        conn->server_fd = -1;
    }
}

enum conn_step conn_end(struct conn *conn, const char *reason)
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
    if (conn->tls != NULL) {
        conn->entry.tls = tls_version(conn->tls);
    }
    conn_close_server(conn);
    loop_close(worker->loop, relay_socket_a(conn->relay));
    relay_free(conn->relay);
    stats_add(&worker->stats, STATS_closed, 1);
    log_access_write(&conn->entry);
    limits_release(worker->shared->limits, &conn->entry.client);
    config_release(conn->config);
    listener_place_release(worker, conn->place);
    conn_free(conn);
    worker_connection_gone(worker);
    return CONN_GONE;
}

/* ---- entry points ---- */

enum conn_step conn_run(struct conn *conn, enum conn_step step)
{
    while (step == CONN_AGAIN) {
        switch (conn->phase) {
        case CONN_HANDSHAKE:
            step = conn_handshake(conn);
            break;
        case CONN_UNCONFIRMED:
            step = conn_await_confirmation(conn);
            break;
        case CONN_CONNECTING:
            step = conn_read_early(conn);
            break;
        case CONN_REPLYING:
            step = conn_reply_out(conn);
            break;
        case CONN_SERVING:
            step = CONN_WAIT;
            break;
        case CONN_LINGERING:
            step = conn_linger(conn);
            break;
        }
    }
    if (step == CONN_WAIT && conn->tls != NULL && tls_flush(conn->tls) != 0) {
        conn->readable = true; /* it is asked again when there is room */
    }
    return step;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct conn *conn = session_conn(relay_of_socket_a(io));

    if (conn->phase == CONN_SERVING) {
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
    (void)conn_run(conn, CONN_AGAIN);
}

static void on_timer(struct loop_timer *timer)
{
    struct conn *conn = LOOP_OWNER(timer, struct conn, timer);

    if (conn->phase == CONN_CONNECTING) {
        conn->holds = false;
        (void)conn_run(conn, CONN_AGAIN);
        return;
    }
    if (conn->phase == CONN_HANDSHAKE || conn->phase == CONN_UNCONFIRMED) {
        stats_add(&conn->worker->stats, STATS_handshake_timeouts, 1);
    }
    (void)conn_end(conn, conn->phase == CONN_LINGERING ? "done" : "handshake timeout");
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
    conn->may_be_in_syn = listener->has_fast_open;
    conn->acts_without_token = listener->acts_without_token;
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
    if (listener->tls != NULL) {
        if (tls_stream_new(worker->tls, listener->tls, fd, &conn->tls) != 0) {
            (void)conn_end(conn, "out of memory");
            return;
        }
        tls_set_answering(conn->tls, true);
        relay_set_tls(relay, conn->tls);
    }
    loop_timer_set(worker->loop, &conn->timer, conn->config->limits.handshake_ms);
}

void conn_drain_all(struct worker *worker)
{
    for (struct conn *conn = slab_next(&worker->conns, NULL); conn != NULL; conn = slab_next(&worker->conns, conn)) {
        if (conn->phase == CONN_SERVING) {
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

void conn_abort_gone(struct worker *worker)
{
    struct conn *next = slab_next(&worker->conns, NULL);

    while (next != NULL) {
        struct conn *conn = next;
        const struct identity *user = door_user(&conn->door);

        next = slab_next(&worker->conns, conn);
        if (user != NULL && user->is_gone) {
            (void)conn_end(conn, "user removed");
        }
    }
}
