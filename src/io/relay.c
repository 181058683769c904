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
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "io/relay_internal.h"
#include "io/sock.h"

/* Well under SOCK_USER_TIMEOUT_MS, so that a closed window is seen in time. */
#define CHECK_MS 60000u
_Static_assert(CHECK_MS * 2 <= SOCK_USER_TIMEOUT_MS, "a closed window is seen before the kernel gives up");
_Static_assert(sizeof(struct relay) <= 160, "memory budget of an idle connection: the record comes on top");

/* When a relay has lived long enough for what short connections need not pay. */
#define SETTLE_MS 1000u

/* Budgets spent at most on what a failed socket left behind: more than a receive queue holds. */
#define LAST_MOVES 16

static struct loop *loop_of(const struct relay *relay)
{
    return relay->shared->loop;
}

int relay_shared_new(struct loop *loop, size_t record_len, const struct relay_hooks *hooks, struct relay_shared **out)
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
    shared->hooks = *hooks;
    relay_pipes_init(&shared->pipes, loop);
    slab_init(&shared->slab, sizeof(struct relay) + record_len);
    *out = shared;
    return 0;
}

void relay_shared_free(struct relay_shared *shared)
{
    if (shared == NULL) {
        return;
    }
    slab_done(&shared->slab);
    relay_pipes_done(&shared->pipes);
    free(shared->buffer);
    free(shared);
}

size_t relay_size(const struct relay_shared *shared)
{
    return shared->slab.object_len;
}

struct relay *relay_new(struct relay_shared *shared)
{
    struct relay *relay = slab_alloc(&shared->slab);
    if (relay != NULL) {
        relay->shared = shared;
        relay->legs[RELAY_A].io.fd = -1;
        relay->legs[RELAY_B].io.fd = -1;
    }
    return relay;
}

void relay_free(struct relay *relay)
{
    if (relay != NULL) {
        assert(!relay->is_started && relay->legs[RELAY_A].io.fd < 0);
        tls_stream_free(relay->tls);
        slab_free(&relay->shared->slab, relay);
    }
}

void relay_set_tls(struct relay *relay, struct tls_stream *tls)
{
    relay->tls = tls;
}

struct tls_stream *relay_tls(const struct relay *relay)
{
    return relay->tls;
}

void *relay_record(struct relay *relay)
{
    return relay->record;
}

void *relay_context(const struct relay *relay)
{
    return relay->shared->hooks.context;
}

struct loop_io *relay_socket_a(struct relay *relay)
{
    return &relay->legs[RELAY_A].io;
}

struct relay *relay_of_socket_a(struct loop_io *io)
{
    return LOOP_OWNER(io, struct relay, legs[RELAY_A].io);
}

struct relay *relay_next(struct relay_shared *shared, struct relay *relay, bool is_started)
{
    do {
        relay = slab_next(&shared->slab, relay);
    } while (relay != NULL && relay->is_started != is_started);
    return relay;
}

/* Closes, reports, frees. Whoever calls it must not touch the relay afterwards. */
static void finish(struct relay *relay, enum relay_end end, enum relay_side side, int error)
{
    struct relay_shared *shared = relay->shared;
    struct relay_result result = {.end = end, .side = side, .error = error};

    loop_timer_cancel(shared->loop, &relay->timer);
    loop_defer_cancel(shared->loop, &relay->task);
    for (int i = 0; i < 2; i++) {
        result.bytes[i] = relay->legs[i].bytes;
        relay_drop_held(relay, (enum relay_side)i);
        /* Whatever cuts a stream short must not look like its regular end. */
        if (end != RELAY_DONE) {
            sock_reset_on_close(relay->legs[i].io.fd);
        }
        loop_close(shared->loop, &relay->legs[i].io);
    }
    shared->hooks.done(relay, &result);
    tls_stream_free(relay->tls);
    slab_free(&shared->slab, relay);
}

static bool is_half_closed(const struct relay *relay)
{
    return relay->legs[RELAY_A].ended || relay->legs[RELAY_B].ended;
}

static bool has_outstanding(const struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        const struct relay_leg *leg = &relay->legs[i];
        if (leg->unacked > 0 || leg->timeout_lifted || leg->held.block != NULL) {
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

static uint32_t now_ticks(const struct loop *loop)
{
    return (uint32_t)(loop_now_ms(loop) / LOOP_TICK_MS);
}

/* Never more than it was. */
static uint64_t quiet_ms_of(const struct relay *relay)
{
    int32_t ticks = (int32_t)(now_ticks(loop_of(relay)) - relay->active_ticks);
    return ticks < 0 ? 0 : (uint64_t)(uint32_t)ticks * LOOP_TICK_MS;
}

static void note_activity(struct relay *relay)
{
    relay->active_ticks = now_ticks(loop_of(relay)) + 1;
}

static void arm(struct relay *relay)
{
    struct loop *loop = loop_of(relay);
    uint64_t quiet_ms = quiet_ms_of(relay);
    relay->is_resting = quiet_ms >= CHECK_MS && !has_outstanding(relay);

    uint64_t delay_ms = relay->is_resting ? UINT64_MAX : relay->is_settled ? CHECK_MS : SETTLE_MS;
    uint64_t idle_ms = until_limit_ms(relay->limits->idle_ms, quiet_ms);
    if (idle_ms < delay_ms) {
        delay_ms = idle_ms;
    }
    uint64_t half_ms = is_half_closed(relay) ? until_limit_ms(relay->limits->half_closed_ms, quiet_ms) : UINT64_MAX;
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
    note_activity(relay);
    if (relay->is_resting) {
        arm(relay);
    }
}

/* Progress that only the kernel sees, and the closed window. */
static void look_at(struct relay *relay, struct relay_leg *leg)
{
    uint32_t unacked = sock_unacked(leg->io.fd);
    if (unacked != leg->unacked) {
        leg->unacked = unacked;
        note_activity(relay);
    }
    bool is_closed = unacked > 0 && sock_peer_window_is_closed(leg->io.fd);
    if (is_closed != leg->timeout_lifted) {
        leg->timeout_lifted = is_closed;
        sock_set_user_timeout(leg->io.fd, is_closed ? 0 : SOCK_USER_TIMEOUT_MS);
    }
}

/* A pipe that a slow reader keeps is one that others lack: what is in it goes to the heap. 0, or what ends the relay. */
static int release_stuck_pipes(struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        int rc = relay->legs[i].has_pipe ? relay_unpipe(relay, (enum relay_side)i) : 0;
        if (rc < 0 && rc != -ENOMEM) { /* without memory the pipe stays */
            return rc;
        }
    }
    return 0;
}

/* What most connections end before they need it. */
static void settle(struct relay *relay)
{
    relay->is_settled = true;
    sock_set_liveness_options(relay->legs[RELAY_B].io.fd);
}

/*
 * One direction has ended, and its reader has got everything: what is still on its way to a slow reader is not to be
 * cut off.
 */
static bool has_delivered_end(const struct relay *relay)
{
    return (relay->legs[RELAY_A].ended && relay->legs[RELAY_B].unacked == 0) ||
           (relay->legs[RELAY_B].ended && relay->legs[RELAY_A].unacked == 0);
}

/* What came as early data was acted upon, and the client has been silent since: it may be a recording. */
static bool lacks_client(const struct relay *relay)
{
    return relay->is_settled && relay->tls != NULL && !tls_is_finished(relay->tls);
}

static void on_timer(struct loop_timer *timer)
{
    struct relay *relay = LOOP_OWNER(timer, struct relay, timer);
    int rc = 0;
    if (lacks_client(relay)) {
        finish(relay, RELAY_RESET, RELAY_A, ETIMEDOUT);
        return;
    }
    if (relay->is_settled) {
        rc = release_stuck_pipes(relay);
    } else {
        settle(relay);
    }
    if (rc < 0) {
        finish(relay, RELAY_RESET, RELAY_A, -rc);
        return;
    }
    look_at(relay, &relay->legs[RELAY_A]);
    look_at(relay, &relay->legs[RELAY_B]);

    uint64_t quiet_ms = quiet_ms_of(relay);
    uint64_t idle_ms = relay->limits->idle_ms;
    uint64_t half_closed_ms = relay->limits->half_closed_ms;
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
    return relay_is_spliced(relay, from) ? relay_splice(relay, from, fault) : relay_copy(relay, from, fault);
}

/*
 * An error that epoll reported and no recv() or send() has met, because everything is blocked. True if the relay has
 * ended.
 */
static bool meet_errors(struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        struct relay_leg *leg = &relay->legs[i];
        if (!leg->failed) {
            continue;
        }
        int error = sock_error(leg->io.fd);
        if (error != 0) {
            finish(relay, RELAY_RESET, (enum relay_side)i, error);
            return true;
        }
        leg->failed = false; /* it was none; an end of stream that was held for one is met in the next run */
        loop_defer(loop_of(relay), &relay->task);
    }
    return false;
}

/* After a write to `side` failed: what it had sent before is still in its queue. */
static void finish_failed(struct relay *relay, enum relay_side side, int error)
{
    struct relay_fault unused;
    struct relay_leg *leg = &relay->legs[side];
    leg->failed = true;
    leg->readable = true;
    leg->read_to_end = true;
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
        loop_defer(loop_of(relay), &relay->task);
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

static void note_events(struct relay_leg *leg, uint32_t events)
{
    if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        leg->readable = true;
    }
    if ((events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        leg->read_to_end = true;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        leg->writable = true;
    }
    if ((events & EPOLLERR) != 0) {
        leg->failed = true;
    }
}

static void on_ready_a(struct loop_io *io, uint32_t events)
{
    struct relay *relay = LOOP_OWNER(io, struct relay, legs[RELAY_A].io);
    note_events(&relay->legs[RELAY_A], events);
    run(relay);
}

static void on_ready_b(struct loop_io *io, uint32_t events)
{
    struct relay *relay = LOOP_OWNER(io, struct relay, legs[RELAY_B].io);
    note_events(&relay->legs[RELAY_B], events);
    run(relay);
}

/*
 * Early bytes go out at once, in one segment if they fit. An error is not looked at here: the same socket will say it
 * again, at the latest as "broken pipe".
 */
static int send_early(struct relay *relay, const uint8_t *early, size_t len)
{
    struct relay_leg *leg = &relay->legs[RELAY_A];
    ssize_t sent = send(relay->legs[RELAY_B].io.fd, early, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    size_t done = sent < 0 ? 0 : (size_t)sent;
    leg->bytes += done;
    if (done == len) {
        return 0;
    }
    leg->held.block = relay_block_new(len - done);
    if (leg->held.block == NULL) {
        return -ENOMEM;
    }
    memcpy(leg->held.block->bytes, early + done, len - done);
    return 0;
}

/* Both ends believe in the connection by now: a plain end would look as if all had been delivered. */
void relay_refuse(struct relay *relay, int fd_b)
{
    relay->legs[RELAY_B].io.fd = fd_b;
    relay_drop_held(relay, RELAY_A);
    for (int i = 0; i < 2; i++) {
        sock_reset_on_close(relay->legs[i].io.fd);
        loop_close(loop_of(relay), &relay->legs[i].io);
    }
    tls_stream_free(relay->tls);
    slab_free(&relay->shared->slab, relay);
}

int relay_start(struct relay *relay, const struct relay_start *start)
{
    struct loop *loop = loop_of(relay);
    relay->legs[RELAY_A].io.ready = on_ready_a;
    relay->legs[RELAY_B].io = (struct loop_io){.ready = on_ready_b, .fd = start->fd_b};
    relay->timer.expired = on_timer;
    relay->task.run = on_task;
    relay->limits = start->limits;
    relay->may_splice = start->may_splice && relay->tls == NULL;
    note_activity(relay);

    int rc = start->early_len > UINT32_MAX ? -EINVAL : 0;
    relay->legs[RELAY_A].bytes = start->early_taken;
    if (rc == 0 && start->early_len > start->early_taken) {
        rc = send_early(relay, start->early + start->early_taken, start->early_len - start->early_taken);
    }
    if (rc == 0) {
        /* Either makes epoll report what holds already. */
        struct loop_io *io = &relay->legs[RELAY_B].io;
        rc = start->b_is_parked ? loop_modify(loop, io, RELAY_EVENTS) : loop_add(loop, io, RELAY_EVENTS);
    }
    if (rc < 0) {
        relay_refuse(relay, start->fd_b);
        return rc;
    }
    relay->is_started = true;
    note_events(&relay->legs[RELAY_A], start->events_a);
    if (relay->legs[RELAY_A].readable) {
        relay->legs[RELAY_B].writable = true; /* it is new; if not, send() says so */
        loop_defer(loop, &relay->task);
    }
    arm(relay);
    return 0;
}

void relay_abort(struct relay *relay)
{
    finish(relay, RELAY_RESET, RELAY_A, ECONNABORTED);
}
