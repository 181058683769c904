/*
 * Bytes from the client: to the door until it has a request, then set aside as early data while the command runs. What is
 * read and not yet taken is `pending`.
 */
#include "proxyd/conn_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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
    conn->entry.reason = door_why(&conn->door);
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

static bool open_door(struct conn *conn, uint8_t first_byte, uint64_t now_ms)
{
    const struct door_setup setup = {
        .config = conn->config,
        .auth = &conn->worker->auth,
        .client = &conn->entry.client,
        .listener = &conn->entry.listener,
        .protocols = conn->protocols,
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

    if (!conn->has_door && !open_door(conn, bytes[0], now_ms)) {
        return conn_end(conn, "out of memory");
    }
    enum door_status status = door_input(&conn->door, bytes, len, now_ms, &used);
    bool is_kept = true;
    switch (status) {
    case DOOR_MORE:
    case DOOR_WAIT:
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
    return status == DOOR_REQUEST ? conn_take_request(conn) : CONN_AGAIN; /* which flushes */
}

/* The door has its answer and may go on with what is pending, or without more. */
static void on_answered(struct door *door)
{
    struct conn *conn = LOOP_OWNER(door, struct conn, door);

    conn->door_waits = false;
    if (conn->pending_len == 0) {
        conn_pending_clear(conn); /* feed() tells by it where bytes lie */
    }
    (void)conn_run(conn, feed(conn, conn->pending_len == 0 ? conn->worker->scratch : conn->pending, conn->pending_len));
}

/* After a read of `len` into room for `size`: a short one has emptied the queue, unless more than bytes was reported. */
static void note_read(struct conn *conn, size_t len, size_t size)
{
    if (len < size && conn->odd_events == 0) {
        conn->readable = false;
    }
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
    ssize_t n = recv(conn_client_fd(conn), conn->worker->scratch, WORKER_SCRATCH_LEN, 0);
    if (n < 0) {
        if (errno == EAGAIN) {
            conn->readable = false;
            return CONN_WAIT;
        }
        if (errno == EINTR) {
            return CONN_AGAIN;
        }
    }
    if (n <= 0) {
        stats_add(&conn->worker->stats, STATS_handshake_errors, 1);
        return conn_end(conn, n == 0 ? "client closed before its request" : "client reset");
    }
    note_read(conn, (size_t)n, WORKER_SCRATCH_LEN);
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
        ssize_t n = recv(conn_client_fd(conn), conn->pending + conn->pending_len, room, 0);
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
    return CONN_WAIT;
}
