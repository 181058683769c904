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

struct relay_block *relay_block_new(size_t len)
{
    struct relay_block *block = malloc(sizeof *block + len);
    if (block != NULL) {
        block->pos = 0;
        block->len = (uint32_t)len;
    }
    return block;
}

size_t relay_held_len(const struct relay_leg *leg)
{
    if (leg->has_pipe) {
        return leg->held.pipe->len;
    }
    return leg->held.block == NULL ? 0 : leg->held.block->len - leg->held.block->pos;
}

void relay_drop_held(struct relay *relay, enum relay_side from)
{
    struct relay_leg *leg = &relay->legs[from];
    if (leg->has_pipe) {
        relay_pipes_give(&relay->shared->pipes, leg->held.pipe);
    } else {
        free(leg->held.block);
    }
    leg->held.block = NULL;
    leg->has_pipe = false;
}

/* As below, to a TLS stream. */
static ssize_t send_encrypted(struct relay *relay, const uint8_t *data, size_t len)
{
    struct tls_stream *tls = relay->tls;
    struct relay_leg *to = &relay->legs[RELAY_A];
    ssize_t sent = tls_send(tls, data, len);
    if (sent > 0 && !tls_is_finished(tls)) {
        loop_defer(relay->shared->loop, &relay->task); /* what is read may have had to wait for it */
    }
    if (sent == -EAGAIN) {
        sent = 0;
    }
    if (sent >= 0 && (size_t)sent < len) {
        to->writable = !tls_waits_for_room(tls);
    }
    return sent;
}

/* send(2), where "would block" is 0. A negative errno else. */
static ssize_t send_some(struct relay *relay, enum relay_side side, const uint8_t *data, size_t len)
{
    struct relay_leg *to = &relay->legs[side];
    struct tls_stream *tls = relay_tls_of(relay, side);
    ssize_t sent;
    if (tls != NULL) {
        return send_encrypted(relay, data, len);
    }
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

/* 0, or a negative errno if the destination failed. */
static int flush_block(struct relay *relay, enum relay_side from)
{
    struct relay_leg *leg = &relay->legs[from];
    struct relay_block *block = leg->held.block;
    ssize_t sent = send_some(relay, relay_other(from), block->bytes + block->pos, block->len - block->pos);
    if (sent < 0) {
        return (int)sent;
    }
    if (sent > 0) {
        relay_touch(relay);
    }
    leg->bytes += (uint64_t)sent;
    block->pos += (uint32_t)sent;
    if (block->pos == block->len) {
        free(block);
        leg->held.block = NULL;
    }
    return 0;
}

static int keep_residue(struct relay_leg *leg, const uint8_t *data, size_t len)
{
    leg->held.block = relay_block_new(len);
    if (leg->held.block == NULL) {
        return -ENOMEM;
    }
    memcpy(leg->held.block->bytes, data, len);
    return 0;
}

static size_t read_size(const struct relay_leg *leg, const struct relay_leg *to)
{
    size_t size = (size_t)RELAY_READ_MIN << leg->read_shift;
    if (leg->read_shift == 0) {
        return size;
    }
    size_t limit = sock_send_room(to->io.fd) + RELAY_READ_MIN;
    return size < limit ? size : limit;
}

/* Passes the source's FIN on. */
static enum relay_step end_flow(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    enum relay_side to = relay_other(from);
    struct relay_leg *sink = &relay->legs[to];
    struct tls_stream *tls = relay_tls_of(relay, to);
    int rc = tls == NULL ? 0 : tls_end(tls);
    if (rc == -EAGAIN) { /* the source stays readable, and says again that it has ended */
        sink->writable = !tls_waits_for_room(tls);
        return RELAY_STEP_WAIT;
    }
    if (rc < 0) {
        return relay_broken(fault, to, -rc);
    }
    relay->legs[from].readable = false;
    /* As the second of both, it is followed by close(2), which sends the FIN as well. */
    if ((!sink->ended || sink->failed) && shutdown(sink->io.fd, SHUT_WR) < 0) {
        /* ENOTCONN: it has been reset, and the error waiting there says how. */
        int error = errno;
        int pending = sock_error(sink->io.fd);
        return relay_broken(fault, to, pending != 0 ? pending : error);
    }
    relay->legs[from].ended = true;
    relay_touch(relay);
    return RELAY_STEP_ENDED;
}

/* recv(2), or a negative errno. `*has_more`: the bytes that came were not all. */
static ssize_t read_some(struct relay *relay, enum relay_side from, size_t size, bool *has_more)
{
    struct relay_leg *leg = &relay->legs[from];
    struct tls_stream *tls = relay_tls_of(relay, from);
    ssize_t got;
    if (tls != NULL) {
        got = tls_recv(tls, relay->shared->buffer, size, leg->read_to_end);
        *has_more = got == -EAGAIN ? tls_waits_for_room(tls) : tls_has_more(tls);
        return got;
    }
    got = recv(leg->io.fd, relay->shared->buffer, size, MSG_DONTWAIT);
    *has_more = got == (ssize_t)size;
    return got < 0 ? -errno : got;
}

/* Reads once and delivers what came. RELAY_STEP_MORE: again. */
static enum relay_step move_once(struct relay *relay, enum relay_side from, size_t *moved, struct relay_fault *fault)
{
    struct relay_leg *leg = &relay->legs[from];
    enum relay_side to = relay_other(from);
    uint8_t *buffer = relay->shared->buffer;
    size_t size = read_size(leg, &relay->legs[to]);
    bool has_more;

    ssize_t got = read_some(relay, from, size, &has_more);
    if (got == -EINTR) {
        return RELAY_STEP_MORE;
    }
    if (got == -EAGAIN) {
        leg->readable = has_more; /* TLS that has to write first */
        leg->read_to_end = leg->read_to_end && has_more;
        return RELAY_STEP_WAIT;
    }
    if (got < 0) {
        return relay_broken(fault, from, (int)-got);
    }
    if (got == 0) {
        return leg->failed ? RELAY_STEP_WAIT : end_flow(relay, from, fault); /* behind an error, 0 is no FIN */
    }
    size_t len = (size_t)got;
    if (!has_more && !leg->read_to_end) {
        leg->readable = false;
    }

    relay_touch(relay);
    ssize_t sent = send_some(relay, to, buffer, len);
    if (sent < 0) {
        return relay_broken(fault, to, (int)-sent);
    }
    leg->bytes += (uint64_t)sent;
    *moved += len;
    if (len == size && relay->may_splice && relay_pipes_may_take(&relay->shared->pipes)) {
        leg->is_bulk = true;
    }
    if ((size_t)sent == len) {
        if (has_more && leg->read_shift < SHIFT_MAX) {
            leg->read_shift++;
        }
        return RELAY_STEP_MORE;
    }
    if (leg->read_shift > 0) {
        leg->read_shift--;
    }
    int rc = keep_residue(leg, buffer + sent, len - (size_t)sent);
    return rc < 0 ? relay_broken(fault, from, -rc) : RELAY_STEP_WAIT;
}

enum relay_step relay_copy(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    struct relay_leg *leg = &relay->legs[from];
    enum relay_side to = relay_other(from);

    if (leg->ended) {
        return RELAY_STEP_ENDED;
    }
    if (leg->held.block != NULL && relay->legs[to].writable) {
        int rc = flush_block(relay, from);
        if (rc < 0) {
            return relay_broken(fault, to, -rc);
        }
    }
    if (leg->held.block != NULL) {
        return RELAY_STEP_WAIT;
    }

    size_t moved = 0;
    for (unsigned round = 0; leg->readable && relay->legs[to].writable; round++) {
        if (round == RELAY_BUDGET_ROUNDS || moved >= RELAY_BUDGET_LEN || relay_is_spliced(relay, from)) {
            return RELAY_STEP_MORE;
        }
        enum relay_step step = move_once(relay, from, &moved, fault);
        if (step != RELAY_STEP_MORE) {
            return step;
        }
    }
    return RELAY_STEP_WAIT;
}
