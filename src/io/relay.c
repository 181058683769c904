/*
 * The life of a relay: start, events, limits, end. How bytes move is the engine's business (relay_copy.c).
 *
 * Events only set flags; then both directions are moved as far as they go. Because epoll is edge-triggered, a flag
 * stays set until the socket itself said "no more", whatever stood in the way meanwhile.
 *
 * The timer is lazy: bytes that move only note the time. It comes round every CHECK_MS and looks: has a limit passed,
 * has the kernel delivered something of what it holds for a slow reader (which is movement too), has a peer closed its
 * window for long (then TCP_USER_TIMEOUT must be off, or the kernel would end a living connection). Once a relay is
 * quiet and nothing is outstanding it rests: the timer is set for its limit alone, and the next byte sets it back.
 *
 * A reset is passed on at once, but not before what can be read from the failed socket was given to the other one, as
 * far as that takes it: a server that answers and then resets because it did not read all of the request is common.
 */
#include "io/relay.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "io/relay_internal.h"
#include "io/sock.h"

/* Well under SOCK_USER_TIMEOUT_MS, so that a closed window is seen in time. */
#define CHECK_MS 60000u
_Static_assert(CHECK_MS * 2 <= SOCK_USER_TIMEOUT_MS, "a closed window is seen before the kernel gives up");
_Static_assert(sizeof(struct relay) <= 256, "memory budget of an idle connection");

/* Budgets spent at most on what a failed socket left behind: more than a receive queue holds. */
#define LAST_MOVES 16

#define EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

int relay_shared_new(struct loop *loop, struct relay_shared **out)
{
    struct relay_shared *shared = calloc(1, sizeof *shared);
    if (shared == NULL) {
        return -ENOMEM;
    }
    shared->buffer = malloc(RELAY_READ_MAX);
    if (shared->buffer == NULL) {
        free(shared);
        return -ENOMEM;
    }
    shared->loop = loop;
    slab_init(&shared->slab, sizeof(struct relay));
    *out = shared;
    return 0;
}

void relay_shared_free(struct relay_shared *shared)
{
    if (shared == NULL) {
        return;
    }
    slab_done(&shared->slab);
    free(shared->buffer);
    free(shared);
}

/* Closes, frees, reports. Whoever calls it must not touch the relay afterwards. */
static void finish(struct relay *relay, enum relay_end end, enum relay_side side, int error)
{
    struct loop *loop = relay->shared->loop;
    struct relay_result result = {.end = end, .side = side, .error = error};
    relay_done *done = relay->done;
    void *user = relay->user;

    loop_timer_cancel(loop, &relay->timer);
    loop_defer_cancel(loop, &relay->task);
    for (int i = 0; i < 2; i++) {
        result.bytes[i] = relay->flows[i].bytes;
        free(relay->flows[i].residue);
        /* Whatever cuts a stream short must not look like its regular end. */
        if (end != RELAY_DONE) {
            sock_reset_on_close(relay->sockets[i].io.fd);
        }
        loop_close(loop, &relay->sockets[i].io);
    }
    slab_free(&relay->shared->slab, relay);
    done(user, &result);
}

static bool is_half_closed(const struct relay *relay)
{
    return relay->flows[RELAY_A].ended || relay->flows[RELAY_B].ended;
}

static bool has_outstanding(const struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        if (relay->sockets[i].unacked > 0 || relay->sockets[i].timeout_lifted || relay->flows[i].residue != NULL) {
            return true;
        }
    }
    return false;
}

/* When a limit that has not passed yet wants to be looked at; UINT64_MAX for none. */
static uint64_t until_limit_ms(uint64_t limit_ms, uint64_t quiet_ms)
{
    if (limit_ms == 0) {
        return UINT64_MAX;
    }
    return quiet_ms < limit_ms ? limit_ms - quiet_ms : limit_ms;
}

static void arm(struct relay *relay)
{
    struct loop *loop = relay->shared->loop;
    uint64_t quiet_ms = loop_now_ms(loop) - relay->active_ms;
    relay->resting = quiet_ms >= CHECK_MS && !has_outstanding(relay);

    uint64_t delay_ms = relay->resting ? UINT64_MAX : CHECK_MS;
    uint64_t idle_ms = until_limit_ms(relay->config.idle_ms, quiet_ms);
    if (idle_ms < delay_ms) {
        delay_ms = idle_ms;
    }
    uint64_t half_ms = is_half_closed(relay) ? until_limit_ms(relay->config.half_closed_ms, quiet_ms) : UINT64_MAX;
    if (half_ms < delay_ms) {
        delay_ms = half_ms;
    }

    if (delay_ms == UINT64_MAX) {
        loop_timer_cancel(loop, &relay->timer);
    } else {
        loop_timer_set(loop, &relay->timer, delay_ms);
    }
}

void relay_touch(struct relay *relay)
{
    relay->active_ms = loop_now_ms(relay->shared->loop);
    if (relay->resting) {
        arm(relay);
    }
}

/* Progress that only the kernel sees, and the closed window. */
static void look_at(struct relay *relay, struct relay_socket *socket)
{
    uint32_t unacked = sock_unacked(socket->io.fd);
    if (unacked != socket->unacked) {
        socket->unacked = unacked;
        relay->active_ms = loop_now_ms(relay->shared->loop);
    }
    bool is_closed = unacked > 0 && sock_peer_window_is_closed(socket->io.fd);
    if (is_closed != socket->timeout_lifted) {
        socket->timeout_lifted = is_closed;
        sock_set_user_timeout(socket->io.fd, is_closed ? 0 : SOCK_USER_TIMEOUT_MS);
    }
}

/*
 * One direction has ended, and its reader has got everything: what is still on its way to a slow reader is not to be
 * cut off.
 */
static bool has_delivered_end(const struct relay *relay)
{
    return (relay->flows[RELAY_A].ended && relay->sockets[RELAY_B].unacked == 0) ||
           (relay->flows[RELAY_B].ended && relay->sockets[RELAY_A].unacked == 0);
}

static void on_timer(struct loop_timer *timer)
{
    struct relay *relay = LOOP_OWNER(timer, struct relay, timer);
    look_at(relay, &relay->sockets[RELAY_A]);
    look_at(relay, &relay->sockets[RELAY_B]);

    uint64_t quiet_ms = loop_now_ms(relay->shared->loop) - relay->active_ms;
    uint64_t idle_ms = relay->config.idle_ms;
    uint64_t half_closed_ms = relay->config.half_closed_ms;
    if (half_closed_ms != 0 && quiet_ms >= half_closed_ms && has_delivered_end(relay)) {
        finish(relay, RELAY_HALF_CLOSED_IDLE, RELAY_A, 0);
    } else if (idle_ms != 0 && quiet_ms >= idle_ms) {
        finish(relay, RELAY_IDLE, RELAY_A, 0);
    } else {
        arm(relay);
    }
}

/* The one place that chooses the engine of a direction. */
static enum relay_step move(struct relay *relay, enum relay_side from, struct relay_fault *fault)
{
    return relay_copy(relay, from, fault);
}

/*
 * An error that epoll reported and no recv() or send() has met, because everything is blocked. True if the relay has
 * ended.
 */
static bool meet_errors(struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        struct relay_socket *socket = &relay->sockets[i];
        if (!socket->failed) {
            continue;
        }
        int error = sock_error(socket->io.fd);
        if (error != 0) {
            finish(relay, RELAY_RESET, (enum relay_side)i, error);
            return true;
        }
        socket->failed = false; /* it was none; an end of stream that was held for one is met in the next run */
        loop_defer(relay->shared->loop, &relay->task);
    }
    return false;
}

/* After a write to `side` failed: what it had sent before is still in its queue. */
static void finish_failed(struct relay *relay, enum relay_side side, int error)
{
    struct relay_fault unused;
    struct relay_socket *socket = &relay->sockets[side];
    socket->failed = true;
    socket->readable = true;
    socket->read_to_end = true;
    for (int i = 0; i < LAST_MOVES; i++) {
        if (move(relay, side, &unused) != RELAY_STEP_MORE) {
            break;
        }
    }
    finish(relay, RELAY_RESET, side, error);
}

/* Moves what can be moved. The relay may be gone afterwards. */
static void run(struct relay *relay)
{
    bool was_half_closed = is_half_closed(relay);
    bool more = false;
    bool ended[2] = {false, false};
    for (int i = 0; i < 2; i++) {
        struct relay_fault fault;
        switch (move(relay, (enum relay_side)i, &fault)) {
        case RELAY_STEP_WAIT:
            break;
        case RELAY_STEP_MORE:
            more = true;
            break;
        case RELAY_STEP_ENDED:
            ended[i] = true;
            break;
        case RELAY_STEP_BROKEN:
            if (fault.side == (enum relay_side)i) {
                finish(relay, RELAY_RESET, fault.side, fault.error);
            } else {
                finish_failed(relay, fault.side, fault.error);
            }
            return;
        }
    }
    if (ended[RELAY_A] && ended[RELAY_B]) {
        finish(relay, RELAY_DONE, RELAY_A, 0);
        return;
    }
    if (more) {
        loop_defer(relay->shared->loop, &relay->task);
    } else if (meet_errors(relay)) {
        return;
    }
    if (!was_half_closed && is_half_closed(relay)) {
        arm(relay); /* another limit holds now */
    }
}

static void on_task(struct loop_task *task)
{
    run(LOOP_OWNER(task, struct relay, task));
}

static void on_events(struct relay *relay, enum relay_side side, uint32_t events)
{
    struct relay_socket *socket = &relay->sockets[side];
    if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        socket->readable = true;
    }
    if ((events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        socket->read_to_end = true;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        socket->writable = true;
    }
    if ((events & EPOLLERR) != 0) {
        socket->failed = true;
    }
    run(relay);
}

static void on_ready_a(struct loop_io *io, uint32_t events)
{
    on_events(LOOP_OWNER(io, struct relay, sockets[RELAY_A].io), RELAY_A, events);
}

static void on_ready_b(struct loop_io *io, uint32_t events)
{
    on_events(LOOP_OWNER(io, struct relay, sockets[RELAY_B].io), RELAY_B, events);
}

int relay_start(struct relay_shared *shared, int fd_a, int fd_b, uint8_t *early, size_t early_len,
                const struct relay_config *config, relay_done *done, void *user, struct relay **out)
{
    int rc = 0;
    struct relay *relay = NULL;
    if (early_len > UINT32_MAX) {
        rc = -EINVAL;
        goto out;
    }
    relay = slab_alloc(&shared->slab);
    if (relay == NULL) {
        rc = -ENOMEM;
        goto out;
    }
    relay->shared = shared;
    relay->sockets[RELAY_A].io = (struct loop_io){.ready = on_ready_a, .fd = fd_a};
    relay->sockets[RELAY_B].io = (struct loop_io){.ready = on_ready_b, .fd = fd_b};
    relay->timer.expired = on_timer;
    relay->task.run = on_task;
    relay->config = *config;
    relay->done = done;
    relay->user = user;
    relay->active_ms = loop_now_ms(shared->loop);

    /* Registering makes epoll report what holds already, so the first events start everything. */
    rc = loop_add(shared->loop, &relay->sockets[RELAY_A].io, EVENTS);
    if (rc == 0) {
        rc = loop_add(shared->loop, &relay->sockets[RELAY_B].io, EVENTS);
    }
out:
    if (rc < 0) {
        slab_free(&shared->slab, relay);
        /* Both ends believe in the connection by now: a plain end would look as if all had been delivered. */
        sock_reset_on_close(fd_a);
        sock_reset_on_close(fd_b);
        (void)close(fd_a);
        (void)close(fd_b);
        free(early);
        return rc;
    }
    if (early_len > 0) {
        relay->flows[RELAY_A].residue = early;
        relay->flows[RELAY_A].residue_len = (uint32_t)early_len;
    } else {
        free(early);
    }
    arm(relay);
    *out = relay;
    return 0;
}

void relay_abort(struct relay *relay)
{
    finish(relay, RELAY_RESET, RELAY_A, ECONNABORTED);
}
