/*
 * The engine that moves a bulk direction through a pipe with splice(2): the bytes stay in the kernel. Best where a
 * network interface is on the path; on loopback copying is quicker.
 *
 * The pipe is filled only when it is empty, for two reasons. EAGAIN then says that the source has nothing, and never
 * that the pipe has no room (room is counted in buffers, not in bytes). And what a slow destination leaves in the pipe
 * is bounded as the residue of a copy is: the fill is not larger than the send room plus RELAY_READ_MIN.
 *
 * Outside of this function a direction holds a pipe only as long as there is something in it. So nothing idle has one.
 *
 * splice(2) ends before an urgent byte, with SO_OOBINLINE too, and cannot get past it; and if an end of stream waits
 * behind that byte it says 0, as if all had been read. So neither is believed: the copying engine takes over when an
 * event told of an urgent byte, an end or an error (read_to_end), or when splice says 0, and asks recv(2). EAGAIN is
 * believed, since an urgent byte that comes later causes an event of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/relay_internal.h"
#include "io/sock.h"

/* Less than this in the pipe is not worth its calls; after so many times in a row the direction is bulk no more. */
#define SHORT_LEN (RELAY_READ_MIN / 2)
#define SHORTS_MAX 4

#define FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)

bool relay_is_spliced(const struct relay *relay, enum relay_side from)
{
    const struct relay_leg *leg = &relay->legs[from];
    if (leg->has_pipe) {
        return true;
    }
    return relay->may_splice && leg->is_bulk && !leg->read_to_end && leg->held.block == NULL;
}

static void give_pipe(struct relay *relay, struct relay_leg *leg)
{
    if (leg->has_pipe) {
        relay_pipes_give(&relay->shared->pipes, leg->held.pipe);
        leg->held.pipe = NULL;
        leg->has_pipe = false;
    }
}

/* It is copied from here on, for this try. */
static void do_without_pipe(struct relay *relay, struct relay_leg *leg)
{
    struct relay_shared *shared = relay->shared;
    leg->is_bulk = false;
    if (shared->hooks.no_pipe != NULL) {
        shared->hooks.no_pipe(shared->hooks.context);
    }
}

/* Errors that say that these descriptors, or this kernel, do not splice (now); recv() and send() may well work. */
static bool is_refusal(int error)
{
    return error == EINVAL || error == ENOSYS || error == ENOMEM || error == EPERM || error == EOPNOTSUPP;
}

int relay_unpipe(struct relay *relay, enum relay_side from)
{
    struct relay_leg *leg = &relay->legs[from];
    struct relay_pipe *pipe = leg->held.pipe;
    struct relay_block *block = relay_block_new(pipe->len);
    if (block == NULL) {
        return -ENOMEM;
    }
    while (pipe->len > 0) {
        ssize_t got = read(pipe->out, block->bytes + (block->len - pipe->len), pipe->len);
        if (got > 0) {
            pipe->len -= (uint32_t)got;
        } else if (got == 0 || errno != EINTR) {
            /* It cannot be without what was put in: whatever that is, the stream has a gap now. */
            free(block);
            return -EIO;
        }
    }
    give_pipe(relay, leg);
    leg->held.block = block;
    return 0;
}

/* Empties the pipe. 0 = empty, 1 = the destination takes no more, or a negative errno. */
static int drain(struct relay *relay, struct relay_leg *leg, struct relay_leg *to)
{
    struct relay_pipe *pipe = leg->held.pipe;
    while (pipe->len > 0) {
        ssize_t sent = splice(pipe->out, NULL, to->io.fd, NULL, pipe->len, FLAGS);
        if (sent > 0) {
            pipe->len -= (uint32_t)sent;
            leg->bytes += (uint64_t)sent;
            relay_touch(relay);
        } else if (sent == 0) {
            return -EIO; /* as in relay_unpipe() */
        } else if (errno == EAGAIN) {
            to->writable = false;
            return 1;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* The destination does not take it from a pipe. */
static enum relay_step leave(struct relay *relay, enum relay_side from, int error, struct relay_fault *fault)
{
    if (!is_refusal(error)) {
        return relay_broken(fault, relay_other(from), error);
    }
    int rc = relay_unpipe(relay, from);
    if (rc < 0) {
        return relay_broken(fault, from, -rc);
    }
    relay->may_splice = false;
    do_without_pipe(relay, &relay->legs[from]);
    return RELAY_STEP_MORE;
}

/* Fills the empty pipe. RELAY_STEP_MORE: something is in it, or the copying engine is to go on. */
static enum relay_step fill(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    struct relay_leg *leg = &relay->legs[from];
    struct relay_pipe *pipe = leg->held.pipe;
    size_t size = sock_send_room(relay->legs[relay_other(from)].io.fd) + RELAY_READ_MIN;
    if (size > RELAY_READ_MAX) {
        size = RELAY_READ_MAX;
    }
    ssize_t got;
    do {
        got = splice(leg->io.fd, NULL, pipe->in, NULL, size, FLAGS);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        leg->readable = false;
        return RELAY_STEP_WAIT;
    }
    if (got < 0 && is_refusal(errno)) {
        relay->may_splice = false;
        do_without_pipe(relay, leg);
        return RELAY_STEP_MORE;
    }
    if (got < 0) {
        return relay_broken(fault, from, errno);
    }
    if (got == 0) {
        leg->read_to_end = true;
        return RELAY_STEP_MORE;
    }
    pipe->len = (uint32_t)got;
    relay_touch(relay);
    leg->shorts = pipe->len < SHORT_LEN ? (uint8_t)(leg->shorts + 1) : 0;
    if (leg->shorts == SHORTS_MAX) {
        leg->shorts = 0;
        leg->is_bulk = false;
        leg->read_shift = 0;
    }
    return RELAY_STEP_MORE;
}

static bool take_pipe(struct relay *relay, struct relay_leg *leg)
{
    struct relay_pipe *pipe;
    if (leg->has_pipe) {
        return true;
    }
    if (relay_pipes_take(&relay->shared->pipes, &pipe) < 0) {
        return false;
    }
    leg->held.pipe = pipe;
    leg->has_pipe = true;
    return true;
}

static enum relay_step splice_on(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    struct relay_leg *leg = &relay->legs[from];
    struct relay_leg *to = &relay->legs[relay_other(from)];
    size_t moved = 0;
    for (unsigned round = 0;; round++) {
        if (leg->has_pipe && leg->held.pipe->len > 0) {
            int rc = to->writable ? drain(relay, leg, to) : 1;
            if (rc != 0) {
                return rc < 0 ? leave(relay, from, -rc, fault) : RELAY_STEP_WAIT;
            }
        }
        if (!leg->readable || !to->writable) {
            return RELAY_STEP_WAIT;
        }
        if (leg->read_to_end || !leg->is_bulk) {
            return RELAY_STEP_MORE; /* copying */
        }
        if (round == RELAY_BUDGET_ROUNDS || moved >= RELAY_BUDGET_LEN) {
            return RELAY_STEP_MORE;
        }
        if (!take_pipe(relay, leg)) {
            do_without_pipe(relay, leg);
            return RELAY_STEP_MORE;
        }
        enum relay_step step = fill(relay, from, fault);
        if (step != RELAY_STEP_MORE) {
            return step;
        }
        moved += leg->held.pipe->len;
        if (leg->held.pipe->len == 0) {
            return RELAY_STEP_MORE; /* copying */
        }
    }
}

enum relay_step relay_splice(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    struct relay_leg *leg = &relay->legs[from];
    enum relay_step step = splice_on(relay, from, fault);
    if (leg->has_pipe && leg->held.pipe->len == 0) {
        give_pipe(relay, leg);
    }
    return step;
}
