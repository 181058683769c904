/*
 * The engine that reads into the loop's shared buffer and writes from there: best on loopback, always possible.
 *
 * Nothing is read unless the destination is believed writable and has no residue, so a slow destination stops its
 * source. What it did not take of a read is kept in a heap block of just that size, until it was sent.
 *
 * Reads grow to RELAY_READ_MAX while they are filled and taken whole, and shrink when the destination takes less.
 * Before a read larger than RELAY_READ_MIN the destination's free send space is asked for, and the read is not larger
 * than that plus RELAY_READ_MIN. The surplus is meant: only a send buffer that was filled is enlarged by the kernel's
 * autotuning.
 *
 * When a read is short, the queue was empty and the next bytes will cause an event, with three exceptions, in which
 * the socket's read_to_end is set by the event that preceded (or an event is still to come): an end of stream or an
 * error waits behind the bytes; or an urgent byte is among them, before which Linux ends a read, with SO_OOBINLINE
 * too, and without a further event (tcp_recvmsg_locked()). EPOLLPRI tells that.
 */
#include "io/relay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/sock.h"

#define SHIFT_MAX 4u
_Static_assert(RELAY_READ_MIN << SHIFT_MAX == RELAY_READ_MAX, "read sizes are powers of two");

static enum relay_step broken(struct relay_fault *fault, enum relay_side side, int error)
{
    fault->side = side;
    fault->error = error;
    return RELAY_STEP_BROKEN;
}

/* send(2), where "would block" is 0. A negative errno else. */
static ssize_t send_some(struct relay_socket *to, const uint8_t *data, size_t len)
{
    ssize_t sent;
    do {
        sent = send(to->io.fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        return -errno;
    }
    if (sent < 0) {
        sent = 0;
    }
    if ((size_t)sent < len) {
        to->writable = false; /* the kernel has noted that we want to hear of room */
    }
    return sent;
}

/* 0 if it is all gone, 1 if some stays, a negative errno if the destination failed. */
static int flush_residue(struct relay *relay, struct relay_flow *flow, struct relay_socket *to)
{
    ssize_t sent = send_some(to, flow->residue + flow->residue_pos, flow->residue_len - flow->residue_pos);
    if (sent < 0) {
        return (int)sent;
    }
    if (sent > 0) {
        relay_touch(relay);
    }
    flow->bytes += (uint64_t)sent;
    flow->residue_pos += (uint32_t)sent;
    if (flow->residue_pos < flow->residue_len) {
        return 1;
    }
    free(flow->residue);
    flow->residue = NULL;
    flow->residue_pos = 0;
    flow->residue_len = 0;
    return 0;
}

static int keep_residue(struct relay_flow *flow, const uint8_t *data, size_t len)
{
    flow->residue = malloc(len);
    if (flow->residue == NULL) {
        return -ENOMEM;
    }
    memcpy(flow->residue, data, len);
    flow->residue_len = (uint32_t)len;
    return 0;
}

static size_t read_size(const struct relay_flow *flow, const struct relay_socket *to)
{
    size_t size = (size_t)RELAY_READ_MIN << flow->read_shift;
    if (flow->read_shift == 0) {
        return size;
    }
    size_t limit = sock_send_room(to->io.fd) + RELAY_READ_MIN;
    return size < limit ? size : limit;
}

/* Passes the source's FIN on. */
static enum relay_step end_flow(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    enum relay_side to = relay_other(from);
    relay->sockets[from].readable = false;
    if (shutdown(relay->sockets[to].io.fd, SHUT_WR) < 0) {
        /* ENOTCONN: it has been reset, and the error waiting there says how. */
        int error = errno;
        int pending = sock_error(relay->sockets[to].io.fd);
        return broken(fault, to, pending != 0 ? pending : error);
    }
    relay->flows[from].ended = true;
    relay_touch(relay);
    return RELAY_STEP_ENDED;
}

/* Reads once and delivers what came. RELAY_STEP_MORE: again. */
static enum relay_step move_once(struct relay *relay, enum relay_side from, size_t *moved, struct relay_fault *fault)
{
    struct relay_flow *flow = &relay->flows[from];
    struct relay_socket *source = &relay->sockets[from];
    enum relay_side to = relay_other(from);
    uint8_t *buffer = relay->shared->buffer;
    size_t size = read_size(flow, &relay->sockets[to]);

    ssize_t got = recv(source->io.fd, buffer, size, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) {
        return RELAY_STEP_MORE;
    }
    if (got < 0 && errno == EAGAIN) {
        source->readable = false;
        source->read_to_end = false;
        return RELAY_STEP_WAIT;
    }
    if (got < 0) {
        return broken(fault, from, errno);
    }
    if (got == 0) {
        return source->failed ? RELAY_STEP_WAIT : end_flow(relay, from, fault); /* behind an error, 0 is no FIN */
    }
    size_t len = (size_t)got;
    if (len < size && !source->read_to_end) {
        source->readable = false;
    }

    relay_touch(relay);
    ssize_t sent = send_some(&relay->sockets[to], buffer, len);
    if (sent < 0) {
        return broken(fault, to, (int)-sent);
    }
    flow->bytes += (uint64_t)sent;
    *moved += len;
    if ((size_t)sent == len) {
        if (len == size && flow->read_shift < SHIFT_MAX) {
            flow->read_shift++;
        }
        return RELAY_STEP_MORE;
    }
    if (flow->read_shift > 0) {
        flow->read_shift--;
    }
    int rc = keep_residue(flow, buffer + sent, len - (size_t)sent);
    return rc < 0 ? broken(fault, from, -rc) : RELAY_STEP_WAIT;
}

enum relay_step relay_copy(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    struct relay_flow *flow = &relay->flows[from];
    struct relay_socket *source = &relay->sockets[from];
    enum relay_side to = relay_other(from);

    if (flow->ended) {
        return RELAY_STEP_ENDED;
    }
    if (flow->residue != NULL && relay->sockets[to].writable) {
        int rc = flush_residue(relay, flow, &relay->sockets[to]);
        if (rc < 0) {
            return broken(fault, to, -rc);
        }
    }
    if (flow->residue != NULL) {
        return RELAY_STEP_WAIT;
    }

    size_t moved = 0;
    for (unsigned round = 0; source->readable && relay->sockets[to].writable; round++) {
        if (round == RELAY_BUDGET_ROUNDS || moved >= RELAY_BUDGET_LEN) {
            return RELAY_STEP_MORE;
        }
        enum relay_step step = move_once(relay, from, &moved, fault);
        if (step != RELAY_STEP_MORE) {
            return step;
        }
    }
    return RELAY_STEP_WAIT;
}
