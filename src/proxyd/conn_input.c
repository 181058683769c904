/*
 * Bytes from the client: to the door until it has a request, then set aside as early data while the command runs. What is
 * read and not yet taken is `pending`.
 */
#include "proxyd/conn_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- the stream ---- */

static ssize_t recv_plain(struct conn *conn, void *buf, size_t len)
{
    ssize_t n = recv(conn_client_fd(conn), buf, len, 0);

    if (n < 0) {
        conn->readable = errno != EAGAIN;
        return -errno;
    }
    /* A short read has emptied the queue, unless more than bytes was reported. */
    if (n > 0 && (size_t)n < len && conn->odd_events == 0) {
        conn->readable = false;
    }
    return n;
}

ssize_t conn_recv(struct conn *conn, void *buf, size_t len)
{
    if (conn->tls == NULL) {
        return recv_plain(conn, buf, len);
    }
    bool had_early = tls_has_early_data(conn->tls);
    ssize_t n = tls_recv(conn->tls, buf, len, conn->odd_events != 0);
    if (n == -EAGAIN) {
        conn->readable = tls_waits_for_room(conn->tls);
    } else if (n > 0) {
        conn->readable = conn->odd_events != 0 || tls_has_more(conn->tls);
    }
    if (!had_early && tls_has_early_data(conn->tls)) {
        stats_add(&conn->worker->stats, STATS_tls_early_data_accepted, 1);
    }
    return n;
}

enum conn_step conn_lost(struct conn *conn, ssize_t error)
{
    if (error == -ENOMEM) {
        return conn_end(conn, "out of memory");
    }
    if (conn->tls == NULL || tls_why(conn->tls) == NULL || (error != -EPROTO && error != -ENODATA)) {
        return conn_end(conn, "client reset");
    }
    if (conn->entry.reason == NULL) {
        (void)snprintf(conn->why, sizeof conn->why, "TLS: %s", tls_why(conn->tls));
        conn->entry.reason = conn->why;
    }
    return conn->phase == CONN_HANDSHAKE ? conn_start_lingering(conn) : conn_end(conn, conn->why);
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

void conn_pending_clear(struct conn *conn)
{
    free(conn->pending);
    conn->pending = NULL;
    conn->pending_len = conn->pending_size = 0;
}

/* ---- handshake ---- */

static void on_answered(struct door *door);

static enum conn_step refuse(struct conn *conn)
{
    stats_add(&conn->worker->stats, STATS_handshake_errors, 1);
    conn->entry.protocol = door_protocol(&conn->door);
    conn->entry.reason = conn->is_tls_hello ? "TLS on a listener without TLS" : door_why(&conn->door);
    return conn_start_lingering(conn);
}

/* Keeps what the door did not take; `bytes` may lie inside `pending`. What it took may have been a password. */
static bool keep_rest(struct conn *conn, const uint8_t *bytes, size_t len)
{
    if (conn->pending_len != 0) {
        memmove(conn->pending, bytes, len);
        explicit_bzero(conn->pending + len, conn->pending_len - len);
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
    conn_pending_clear(conn);
    conn->pending = early;
    conn->pending_len = conn->pending_size = initial.len + len;
    return true;
}

struct name_search {
    struct auth *auth;
    struct identity *found;
};

static bool is_user(void *context, const void *name, size_t len)
{
    struct name_search *search = context;
    const struct socks6_slice slice = {name, len};

    if (users_find(search->auth->users, slice) == NULL) {
        return false;
    }
    search->found = identity_take(&search->auth->identities, slice);
    return true; /* without memory nobody is found, and nobody else either */
}

/* The user of the client's certificate, where that is a way to come in; a reference, or NULL. */
static struct identity *find_certified(struct conn *conn)
{
    struct name_search search = {.auth = &conn->worker->auth};

    if (conn->tls != NULL && search.auth->users != NULL &&
        (conn->config->auth.methods & CONFIG_AUTH_CERTIFICATE) != 0) {
        (void)tls_find_client_name(conn->tls, is_user, &search);
    }
    return search.found;
}

static bool open_door(struct conn *conn, uint8_t first_byte, uint64_t now_ms)
{
    const struct door_setup setup = {
        .config = conn->config,
        .auth = &conn->worker->auth,
        .client = &conn->entry.client,
        .listener = &conn->entry.listener,
        .protocols = conn->protocols,
        .transport = conn->tls == NULL ? "tcp" : "tls",
        .certified = find_certified(conn),
        .has_certificate = conn->tls != NULL && tls_has_client_certificate(conn->tls),
        .answered = on_answered,
    };

    conn->has_door = true;
    return door_init(&conn->door, &setup, first_byte, now_ms);
}

/* `bytes` are in the scratch buffer, or all that is pending. */
static enum conn_step feed(struct conn *conn, uint8_t *bytes, size_t len)
{
    uint64_t now_ms = loop_now_ms(conn->worker->loop);
    size_t used = 0;

    if (!conn->has_door) {
        conn->is_tls_hello = conn->tls == NULL && bytes[0] == TLS_FIRST_BYTE;
        if (!open_door(conn, bytes[0], now_ms)) {
            return conn_end(conn, "out of memory");
        }
    }
    if (conn_is_surely_there(conn)) {
        door_confirm(&conn->door);
    }
    enum door_status status = door_input(&conn->door, bytes, len, now_ms, &used);
    bool is_kept = true;
    switch (status) {
    case DOOR_MORE:
    case DOOR_WAIT:
    case DOOR_CONFIRM:
        is_kept = keep_rest(conn, bytes + used, len - used);
        break;
    case DOOR_REQUEST:
        is_kept = keep_early(conn, bytes + used, len - used);
        break;
    case DOOR_CLOSED:
        explicit_bzero(bytes, used);
        return refuse(conn);
    }
    if (bytes == conn->worker->scratch) {
        explicit_bzero(bytes, used);
    }
    if (!is_kept) {
        return conn_end(conn, "out of memory");
    }
    conn->door_waits = status == DOOR_WAIT;
    if (status == DOOR_CONFIRM) {
        return conn_confirm_for_door(conn);
    }
    return status == DOOR_REQUEST ? conn_take_request(conn) : CONN_AGAIN; /* which flushes */
}

enum conn_step conn_feed_pending(struct conn *conn)
{
    if (conn->pending_len == 0) {
        conn_pending_clear(conn); /* feed() tells by it where bytes lie */
    }
    return feed(conn, conn->pending_len == 0 ? conn->worker->scratch : conn->pending, conn->pending_len);
}

/* The door has its answer. */
static void on_answered(struct door *door)
{
    struct conn *conn = LOOP_OWNER(door, struct conn, door);

    conn->door_waits = false;
    (void)conn_run(conn, conn_feed_pending(conn));
}

/* Before there is a request. */
static enum conn_step lose_client(struct conn *conn, ssize_t error)
{
    stats_add(&conn->worker->stats, STATS_handshake_errors, 1);
    if (error == 0 || (error == -ENODATA && !tls_has_heard(conn->tls))) {
        return conn_end(conn, "client closed before its request");
    }
    return conn_lost(conn, error);
}

_Static_assert(WORKER_SCRATCH_LEN > UINT16_MAX, "one read takes whatever came with a SYN");

/* One read into the scratch buffer, behind what is pending. */
enum conn_step conn_handshake(struct conn *conn)
{
    if (conn->door_waits) {
        return conn_read_early(conn);
    }
    if (conn->has_door && conn_flush(conn) == CONN_GONE) {
        return CONN_GONE;
    }
    if (!conn->readable) {
        return CONN_WAIT;
    }
    ssize_t n = conn_recv(conn, conn->worker->scratch, WORKER_SCRATCH_LEN);
    if (n == -EAGAIN) {
        return CONN_WAIT;
    }
    if (n == -EINTR) {
        return CONN_AGAIN;
    }
    if (n <= 0) {
        return lose_client(conn, n);
    }
    if (conn->has_door) {
        conn->may_be_in_syn = false; /* the first read took all of a SYN; what came later acknowledges ours */
    }
    if (conn->pending_len == 0) {
        return feed(conn, conn->worker->scratch, (size_t)n);
    }
    if (!pending_append(conn, conn->worker->scratch, (size_t)n)) {
        return conn_end(conn, "out of memory");
    }
    return feed(conn, conn->pending, conn->pending_len);
}

/* ---- while the door waits for an answer, and while the command runs ---- */

enum conn_step conn_read_early(struct conn *conn)
{
    if (!conn->holds && conn_flush(conn) == CONN_GONE) {
        return CONN_GONE;
    }
    while (conn->readable && !conn->client_eof && conn->pending_len < WORKER_SCRATCH_LEN) {
        if (!pending_reserve(conn, 1)) {
            return conn_end(conn, "out of memory");
        }
        size_t room = conn->pending_size - conn->pending_len;
        ssize_t n = conn_recv(conn, conn->pending + conn->pending_len, room);
        if (n > 0) {
            conn->pending_len += (size_t)n;
        } else if (n == 0) {
            conn->client_eof = true; /* a half-close; the relay will see it again and pass it on */
        } else if (n == -EAGAIN) {
            break;
        } else if (n != -EINTR) {
            return conn_lost(conn, n);
        }
    }
    return CONN_WAIT;
}
