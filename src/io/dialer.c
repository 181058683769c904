/*
 * The order and the times are happy_eyeballs.c's; here are the sockets. Each running attempt has a place with its
 * descriptor in the loop, one timer wakes the machine when it asks for it.
 *
 * When all fail, the error reported is the one that says most about the destination, whichever address it came from:
 * ECONNREFUSED (somebody answered) before DIALER_TTL_EXPIRED (a router on the way answered), ETIMEDOUT, EHOSTUNREACH,
 * ENETUNREACH, and anything else; of equal ones the first. What is wrong with ourselves (no descriptor, no memory)
 * ends the dialling at once with that errno if no attempt is running; otherwise those that run go on, and no more are
 * made at the same time.
 *
 * Addresses that come one family after the other within one batch of events (from a cache) are looked at together: the
 * machine is asked at the end of the batch.
 */
#include "io/dialer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "io/dial_attempt.h"
#include "io/fast_open.h"
#include "io/sock.h"

struct attempt {
    struct loop_io io; /* fd -1: the place is free */
    struct dialer *dialer;
    size_t index; /* the candidate's */
    size_t taken; /* bytes of the payload that left with the SYN */
};

struct dialer {
    struct loop *loop;
    struct loop_timer timer; /* the machine's */
    struct loop_task task;   /* asks the machine, or reports the result */
    struct happy_eyeballs eyeballs;
    const struct dialer_sources *sources; /* where `candidate_sources` has none */
    unsigned *turn;
    dialer_done *done;
    dialer_payload *payload;
    void *user;
    bool is_over;
    bool payload_in_syn;
    size_t payload_taken;
    int fd;         /* connected; -1 = none */
    bool is_parked; /* fd */
    int error;      /* what says most so far; 0 = nothing failed yet */
    struct socks6_addr local;
    unsigned attempt_count; /* made so far */
    size_t last;            /* the last one's candidate */
    unsigned unavailable_count;
    struct destination unavailable; /* family 0: none, or the kernel's choice */
    size_t place_count;
    struct happy_eyeballs_candidate *candidates;     /* behind the places, in the same block */
    const struct dialer_sources **candidate_sources; /* behind those; [candidate] */
    struct attempt places[];
};

/* The lower, the more it says. */
static unsigned rank(int error)
{
    static const int order[] = {ECONNREFUSED, DIALER_TTL_EXPIRED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH};
    unsigned i = 0;
    while (i < sizeof order / sizeof order[0] && order[i] != error) {
        i++;
    }
    return i;
}

static void note_error(struct dialer *dialer, int error)
{
    if (dialer->error == 0 || rank(error) < rank(dialer->error)) {
        dialer->error = error;
    }
}

/* ---- the end ---- */

/* Reports and frees. */
static void deliver(struct dialer *dialer)
{
    struct dialer_result result = {
        .is_parked = dialer->is_parked,
        .fd = dialer->fd,
        .attempts = dialer->attempt_count,
        .unavailable_count = dialer->unavailable_count,
    };
    if (dialer->fd >= 0) {
        result.local = dialer->local;
        result.payload_taken = dialer->payload_taken;
        result.payload_in_syn = dialer->payload_in_syn;
    } else {
        result.error = dialer->error;
    }
    if (dialer->unavailable.family != 0) {
        result.unavailable = destination_addr(&dialer->unavailable);
    }
    if (dialer->attempt_count > 0) {
        result.peer = destination_addr(&dialer->candidates[dialer->last].destination);
    }
    dialer_done *done = dialer->done;
    void *user = dialer->user;
    free(dialer);
    done(user, &result);
}

/* Ends with what `fd` and `error` say: at the end of the batch, so never within a call of the user's. */
static void end(struct dialer *dialer)
{
    dialer->is_over = true;
    loop_timer_cancel(dialer->loop, &dialer->timer);
    loop_defer(dialer->loop, &dialer->task);
}

/* ---- attempts ---- */

static struct attempt *find_place(struct dialer *dialer, int fd, size_t index)
{
    for (size_t i = 0; i < dialer->place_count; i++) {
        struct attempt *place = &dialer->places[i];
        if (fd < 0 ? place->io.fd < 0 : place->io.fd >= 0 && place->index == index) {
            return place;
        }
    }
    return NULL;
}

static void note_unavailable(struct dialer *dialer, const struct socks6_addr *source)
{
    dialer->unavailable_count++;
    dialer->unavailable.family = 0;
    if (source != NULL) {
        (void)destination_from_addr(source, &dialer->unavailable);
    }
}

/* Our own ends towards a candidate; none: it is the kernel's choice. */
static const struct socks6_addr *sources_of(const struct dialer *dialer, size_t index, size_t *count)
{
    uint8_t family = dialer->candidates[index].destination.family;
    const struct dialer_sources *sources = dialer->candidate_sources[index];
    if (sources == NULL) {
        sources = dialer->sources;
    }
    *count = 0;
    if (sources == NULL) {
        return NULL;
    }
    *count = family == SOCKS6_ADDR_IPV4 ? sources->ipv4_count : sources->ipv6_count;
    return family == SOCKS6_ADDR_IPV4 ? sources->ipv4 : sources->ipv6;
}

/* dial_attempt_open() from each source in turn, until one can be had. */
static int open_attempt(struct dialer *dialer, size_t index, int *fd, size_t *taken)
{
    struct socks6_slice payload = {NULL, 0};
    const struct destination *to = &dialer->candidates[index].destination;
    size_t count;
    const struct socks6_addr *list = sources_of(dialer, index, &count);
    unsigned turn = count > 0 && dialer->turn != NULL ? (*dialer->turn)++ : 0;

    if (dialer->payload != NULL && happy_eyeballs_stands_alone(&dialer->eyeballs, index)) {
        payload = dialer->payload(dialer->user);
    }
    for (size_t i = 0;; i++) {
        const struct socks6_addr *source = count == 0 ? NULL : &list[(turn % count + i) % count];
        int rc = dial_attempt_open(to, source, payload.data, payload.len, fd, taken);
        if (rc != -EADDRNOTAVAIL) {
            return rc;
        }
        note_unavailable(dialer, source);
        if (i + 1 >= count) {
            return rc;
        }
    }
}

static void probe(struct dialer *dialer, size_t index)
{
    struct destination *destination = &dialer->candidates[index].destination;
    size_t count;
    const struct socks6_addr *list = sources_of(dialer, index, &count);
    destination_probe(destination, count == 0 ? NULL : &list[0]);
}

/* A place's attempt is over and its socket of no use. The reset tells a server that has seen a connection already. */
static void close_place(struct attempt *place)
{
    sock_reset_on_close(place->io.fd);
    loop_close(place->dialer->loop, &place->io);
}

static void take_connection(struct dialer *dialer, size_t index, int fd, bool is_parked, size_t taken)
{
    if (taken > 0) {
        dialer->payload_taken = taken;
        (void)fast_open_look(fd, &dialer->payload_in_syn);
    }
    dialer->fd = fd;
    dialer->is_parked = is_parked;
    dialer->last = index;
    happy_eyeballs_connected(&dialer->eyeballs, index);
}

static void take_failure(struct dialer *dialer, size_t index, int error, bool was_reset)
{
    bool is_fatal = dial_attempt_is_fatal(error) && dialer->eyeballs.running == 1;

    if (was_reset) {
        happy_eyeballs_refused(&dialer->eyeballs, index);
    } else {
        happy_eyeballs_failed(&dialer->eyeballs, index);
    }
    if (is_fatal) {
        dialer->error = error;
        end(dialer);
    } else {
        note_error(dialer, error);
    }
}

static void on_ready(struct loop_io *io, uint32_t events);

/* The step START. */
static void start_attempt(struct dialer *dialer, size_t index)
{
    const struct destination *to = &dialer->candidates[index].destination;
    int fd = -1;
    size_t taken = 0;
    int rc = open_attempt(dialer, index, &fd, &taken);

    if (rc < 0 && dial_attempt_is_fatal(-rc) && dialer->eyeballs.running > 1) {
        happy_eyeballs_postpone(&dialer->eyeballs, index);
        return;
    }
    dialer->attempt_count++;
    dialer->last = index;
    if (rc == 0) {
        struct attempt *place = find_place(dialer, -1, 0);
        assert(place != NULL); /* as many as the machine starts at the same time */
        place->dialer = dialer;
        place->index = index;
        place->taken = taken;
        if (taken > 0) {
            happy_eyeballs_carries_data(&dialer->eyeballs);
        }
        place->io = (struct loop_io){.ready = on_ready, .fd = fd};
        rc = loop_add(dialer->loop, &place->io, EPOLLOUT | EPOLLONESHOT);
        if (rc < 0) {
            place->io.fd = -1;
        }
    } else if (rc > 0) {
        rc = -dial_attempt_finish(fd, to, &dialer->local);
        if (rc == 0) {
            take_connection(dialer, index, fd, false, 0);
        }
    }
    if (rc < 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        take_failure(dialer, index, -rc, false);
    }
}

/* The step CANCEL. */
static void cancel_attempt(struct dialer *dialer, const struct happy_eyeballs_step *step)
{
    struct attempt *place = find_place(dialer, 0, step->index);
    assert(place != NULL);
    close_place(place);
    if (step->timed_out) {
        note_error(dialer, ETIMEDOUT);
    }
}

static void take_loss(struct dialer *dialer, bool timed_out)
{
    if (timed_out) {
        note_error(dialer, ETIMEDOUT);
    } else if (dialer->error == 0) {
        dialer->error = DIALER_NO_ADDRESS;
    }
    end(dialer);
}

static void wait_until(struct dialer *dialer, uint64_t wake_ms)
{
    uint64_t now_ms = loop_now_ms(dialer->loop);
    if (wake_ms == UINT64_MAX) {
        loop_timer_cancel(dialer->loop, &dialer->timer);
    } else {
        loop_timer_set(dialer->loop, &dialer->timer, wake_ms - now_ms);
    }
}

/* Does what the machine says until it waits or is done. */
static void advance(struct dialer *dialer)
{
    while (!dialer->is_over) {
        struct happy_eyeballs_step step;
        happy_eyeballs_next(&dialer->eyeballs, loop_now_ms(dialer->loop), &step);
        switch (step.type) {
        case HAPPY_EYEBALLS_WAIT:
            wait_until(dialer, step.wake_ms);
            return;
        case HAPPY_EYEBALLS_PROBE:
            probe(dialer, step.index);
            break;
        case HAPPY_EYEBALLS_START:
            start_attempt(dialer, step.index);
            break;
        case HAPPY_EYEBALLS_CANCEL:
            cancel_attempt(dialer, &step);
            break;
        case HAPPY_EYEBALLS_WON:
            end(dialer);
            break;
        case HAPPY_EYEBALLS_LOST:
            take_loss(dialer, step.timed_out);
            break;
        }
    }
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct attempt *place = LOOP_OWNER(io, struct attempt, io);
    struct dialer *dialer = place->dialer;
    int fd = place->io.fd;
    int error;

    if ((events & EPOLLOUT) == 0) {
        error = dial_attempt_error(fd);
        if (error == 0) {
            error = -loop_modify(dialer->loop, io, EPOLLOUT | EPOLLONESHOT);
        }
        if (error == 0) {
            return; /* still on its way */
        }
    } else {
        error = dial_attempt_finish(fd, &dialer->candidates[place->index].destination, &dialer->local);
    }
    if (error == 0) {
        loop_park(dialer->loop, &place->io);
        take_connection(dialer, place->index, fd, true, place->taken);
    } else {
        bool was_reset = place->taken > 0 && error == ECONNREFUSED && dial_attempt_was_reset(fd);
        loop_close(dialer->loop, &place->io);
        take_failure(dialer, place->index, error, was_reset);
    }
    advance(dialer);
}

static void on_timer(struct loop_timer *timer)
{
    advance(LOOP_OWNER(timer, struct dialer, timer));
}

static void on_task(struct loop_task *task)
{
    struct dialer *dialer = LOOP_OWNER(task, struct dialer, task);
    if (dialer->is_over) {
        deliver(dialer);
    } else {
        advance(dialer);
    }
}

/* ---- life ---- */

/* Room for `size` addresses. NULL: no memory. */
static struct dialer *dialer_new(struct loop *loop, const struct dialer_config *config, size_t size,
                                 unsigned outstanding, dialer_done *done, void *user)
{
    size_t places = config->eyeballs.race ? HAPPY_EYEBALLS_RUNNING_MAX : 1;
    if (places > size) {
        places = size;
    }
    size_t places_len = places * sizeof(struct attempt);
    size_t candidates_len = size * sizeof(struct happy_eyeballs_candidate);
    size_t sources_len = size * sizeof(const struct dialer_sources *);
    struct dialer *dialer = calloc(1, sizeof *dialer + places_len + candidates_len + sources_len);
    if (dialer == NULL) {
        return NULL;
    }
    dialer->loop = loop;
    dialer->timer.expired = on_timer;
    dialer->task.run = on_task;
    dialer->sources = config->sources;
    dialer->turn = config->turn;
    dialer->done = done;
    dialer->payload = config->payload;
    dialer->user = user;
    dialer->fd = -1;
    dialer->place_count = places;
    dialer->candidates = (struct happy_eyeballs_candidate *)(void *)(dialer->places + places);
    dialer->candidate_sources = (const struct dialer_sources **)(void *)(dialer->candidates + size);
    for (size_t i = 0; i < places; i++) {
        dialer->places[i].io.fd = -1;
    }
    happy_eyeballs_init(&dialer->eyeballs, &config->eyeballs, dialer->candidates, size, outstanding, config->timeout_ms,
                        loop_now_ms(loop));
    struct destination winner;
    if (config->remembered != NULL && destination_from_addr(config->remembered, &winner)) {
        happy_eyeballs_remember(&dialer->eyeballs, &winner);
    }
    return dialer;
}

int dialer_start(struct loop *loop, const struct dialer_config *config, const struct socks6_addr *addrs, size_t count,
                 dialer_done *done, void *user, struct dialer **out)
{
    if (count == 0 || count > DIALER_ADDRESSES_MAX) {
        return -EINVAL;
    }
    struct dialer *dialer = dialer_new(loop, config, count, 0, done, user);
    if (dialer == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        struct destination destination;
        if (!destination_from_addr(&addrs[i], &destination)) {
            free(dialer);
            return -EINVAL;
        }
        happy_eyeballs_add(&dialer->eyeballs, &destination, loop_now_ms(loop));
    }
    advance(dialer);
    *out = dialer;
    return 0;
}

int dialer_open(struct loop *loop, const struct dialer_config *config, dialer_done *done, void *user,
                struct dialer **out)
{
    struct dialer *dialer =
        dialer_new(loop, config, DIALER_ADDRESSES_MAX, HAPPY_EYEBALLS_IPV4 | HAPPY_EYEBALLS_IPV6, done, user);
    if (dialer == NULL) {
        return -ENOMEM;
    }
    advance(dialer);
    *out = dialer;
    return 0;
}

void dialer_add(struct dialer *dialer, const struct socks6_addr *addr, const struct dialer_sources *sources)
{
    size_t index = dialer->eyeballs.count;
    struct destination destination;
    size_t count = 0;

    if (!destination_from_addr(addr, &destination)) {
        return;
    }
    for (size_t i = 0; i < dialer->eyeballs.count; i++) {
        count += dialer->candidates[i].destination.family == destination.family;
    }
    if (count < DIALER_ADDRESSES_MAX / 2) { /* a long answer must not keep the other family out */
        happy_eyeballs_add(&dialer->eyeballs, &destination, loop_now_ms(dialer->loop));
    }
    if (dialer->eyeballs.count > index) { /* it was not there yet, and there was room */
        dialer->candidate_sources[index] = sources;
    }
}

void dialer_add_end(struct dialer *dialer, enum socks6_addr_type family)
{
    happy_eyeballs_answered(&dialer->eyeballs, family == SOCKS6_ADDR_IPV4 ? HAPPY_EYEBALLS_IPV4 : HAPPY_EYEBALLS_IPV6);
    loop_defer(dialer->loop, &dialer->task);
}

void dialer_cancel(struct dialer *dialer)
{
    if (dialer == NULL) {
        return;
    }
    loop_timer_cancel(dialer->loop, &dialer->timer);
    loop_defer_cancel(dialer->loop, &dialer->task);
    for (size_t i = 0; i < dialer->place_count; i++) {
        if (dialer->places[i].io.fd >= 0) {
            close_place(&dialer->places[i]);
        }
    }
    if (dialer->fd >= 0) {
        sock_reset_on_close(dialer->fd);
        (void)close(dialer->fd);
    }
    free(dialer);
}
