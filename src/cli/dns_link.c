/*
 * Theory of operation.
 *
 *     IDLE     no connection. A question makes one (unless the last attempt failed a moment ago: then it fails, too)
 *     DIALLING reach() with the first questions as early data; further ones wait
 *     OPEN     questions go out as they come, answers come in any order
 *
 * All questions are in `all`, in the order of their deadlines, since each has the same time. Those not sent on this
 * connection are in `unsent` too. A question has a slot as long as it is open; its id on the wire is the slot's number
 * and, above it, a count of the slot's users, so that a late answer does not meet the next question.
 *
 * What is to be done after an event (dial, send, arm timers) is done by one task at the end of the loop's batch, so that
 * done() may call dns_link_ask().
 *
 * A connection is given up when it ends, when what comes cannot be framed or belongs to nobody for long, and when a
 * question's time is over without a byte since it was sent. Its open questions get a second try on the next one.
 */
#include "cli/dns_link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "cli/dns_forward.h"
#include "cli/dns_query.h"
#include "cli/reach.h"
#include "cli/say.h"

#define SLOT_BITS 12u
_Static_assert(1u << SLOT_BITS == DNS_LINK_ASKS_MAX, "a slot's number has SLOT_BITS bits");

#define TRIES_MAX 2u
#define STRAYS_MAX 1000u
/* Silence after which we close, where the proxy does not say how long it waits (RFC 7828). */
#define IDLE_MS 10000u
#define IDLE_MAX_MS 600000u
/* After a failed attempt questions fail at once for so long. */
#define PAUSE_MS 500u

#define OUT_ROOM SOCKS6_INITIAL_DATA_MAX
#define IN_ROOM (2u + DNS_MESSAGE_MAX)

static const char command[] = "dns";

enum link_state { LINK_IDLE, LINK_DIALLING, LINK_OPEN };

TAILQ_HEAD(ask_list, dns_link_ask);

struct dns_link {
    struct dns_link_config config;
    enum link_state state;
    struct loop_io io;
    uint32_t events;
    struct loop_task task;
    struct loop_timer deadline, idle;
    struct reach *reach;              /* DIALLING */
    unsigned reach_fds;               /* that it had */
    struct stream stream;             /* OPEN */
    size_t address, failed_addresses; /* the one in use; those that failed in a row */
    uint64_t pause_until_ms;
    uint64_t idle_ms;
    uint64_t heard_ms; /* when the last byte came */
    unsigned strays;
    bool is_down; /* and this was said */

    struct ask_list all, unsent;
    size_t ask_count;
    struct dns_link_ask *slots[DNS_LINK_ASKS_MAX];
    uint8_t uses[DNS_LINK_ASKS_MAX];
    unsigned next_slot;
    uint16_t id_mask; /* random: the proxy may hand the stream to a server that looks at ids */

    uint8_t *out, *in;
    size_t out_len, out_sent, in_len;
};

static uint64_t now_ms(const struct dns_link *up)
{
    return loop_now_ms(up->config.loop);
}

static uint16_t wire_id(const struct dns_link *up, unsigned slot)
{
    return (uint16_t)(((unsigned)up->uses[slot] << SLOT_BITS | slot) ^ up->id_mask);
}

/* ---- questions ---- */

/* Takes a question out of everything. */
static void forget(struct dns_link *up, struct dns_link_ask *ask)
{
    TAILQ_REMOVE(&up->all, ask, all);
    if (!ask->is_sent) {
        TAILQ_REMOVE(&up->unsent, ask, unsent);
    }
    up->slots[ask->slot] = NULL;
    up->uses[ask->slot]++;
    up->ask_count--;
    loop_defer(up->config.loop, &up->task);
}

static void fail(struct dns_link *up, struct dns_link_ask *ask, enum dns_link_failure failure)
{
    forget(up, ask);
    ask->done(ask, NULL, 0, failure);
}

/* Those that are open now; what done() asks is not among them. */
static void fail_all(struct dns_link *up, enum dns_link_failure failure)
{
    for (size_t count = up->ask_count; count > 0 && !TAILQ_EMPTY(&up->all); count--) {
        fail(up, TAILQ_FIRST(&up->all), failure);
    }
}

int dns_link_ask(struct dns_link *up, struct dns_link_ask *ask)
{
    if (up->ask_count == DNS_LINK_ASKS_MAX) {
        return -EAGAIN;
    }
    while (up->slots[up->next_slot] != NULL) {
        up->next_slot = (up->next_slot + 1) % DNS_LINK_ASKS_MAX;
    }
    ask->slot = up->next_slot;
    up->next_slot = (up->next_slot + 1) % DNS_LINK_ASKS_MAX;
    up->slots[ask->slot] = ask;
    up->ask_count++;
    ask->deadline_ms = now_ms(up) + up->config.timeout_ms;
    ask->tries = 0;
    ask->is_sent = false;
    TAILQ_INSERT_TAIL(&up->all, ask, all);
    TAILQ_INSERT_TAIL(&up->unsent, ask, unsent);
    loop_defer(up->config.loop, &up->task);
    return 0;
}

void dns_link_cancel(struct dns_link *up, struct dns_link_ask *ask)
{
    forget(up, ask);
}

/* Copies questions to the output as long as there is room. */
static void fill_out(struct dns_link *up)
{
    struct dns_link_ask *ask;

    while ((ask = TAILQ_FIRST(&up->unsent)) != NULL && OUT_ROOM - up->out_len >= 2 + ask->len) {
        dns_put16(up->out + up->out_len, (unsigned)ask->len);
        memcpy(up->out + up->out_len + 2, ask->message, ask->len);
        dns_put16(up->out + up->out_len + 2, wire_id(up, ask->slot));
        up->out_len += 2 + ask->len;
        TAILQ_REMOVE(&up->unsent, ask, unsent);
        ask->is_sent = true;
        ask->sent_ms = now_ms(up);
        ask->tries++;
    }
}

/* ---- the connection's end ---- */

/* Back to IDLE. Questions that were sent are unsent again, in their order and before those that wait. */
static void disconnect(struct dns_link *up)
{
    struct dns_link_ask *ask;

    if (up->state == LINK_DIALLING) {
        loop_remove(up->config.loop, &up->io);
        reach_free(up->reach);
        up->reach = NULL;
    } else if (up->state == LINK_OPEN) {
        loop_remove(up->config.loop, &up->io);
        (void)!stream_shutdown(&up->stream); /* the end of TLS; whether the proxy hears it makes no difference to us */
        stream_done(&up->stream);
    }
    up->state = LINK_IDLE;
    up->out_len = up->out_sent = up->in_len = 0;
    up->strays = 0;
    loop_timer_cancel(up->config.loop, &up->idle);
    TAILQ_INIT(&up->unsent);
    TAILQ_FOREACH(ask, &up->all, all)
    {
        ask->is_sent = false;
        TAILQ_INSERT_TAIL(&up->unsent, ask, unsent);
    }
    loop_defer(up->config.loop, &up->task);
}

/* The connection is over: those that have been tried often enough fail. */
static void connection_lost(struct dns_link *up)
{
    struct dns_link_ask *ask;

    disconnect(up);
    do { /* from the start again: done() may take others out, too */
        TAILQ_FOREACH(ask, &up->all, all)
        {
            if (ask->tries >= TRIES_MAX) {
                fail(up, ask, DNS_LINK_UNREACHABLE);
                break;
            }
        }
    } while (ask != NULL);
}

/* For a configuration without anybody to tell. */
static void say_changed(void *user, const char *why, bool is_absent)
{
    (void)user;
    (void)is_absent;
    if (why != NULL) {
        say(command, "%s; questions are answered with SERVFAIL until that changes", why);
    } else {
        say(command, "the proxy's DNS service answers again");
    }
}

static void tell_down(struct dns_link *up, const char *why, bool is_absent)
{
    if (!up->is_down || up->config.verbose) {
        up->config.changed(up->config.user, why, is_absent);
    }
    up->is_down = true;
}

static void tell_up(struct dns_link *up)
{
    if (up->is_down) {
        up->config.changed(up->config.user, NULL, false);
    }
    up->is_down = false;
}

/* ---- answers ---- */

static void take_answer(struct dns_link *up, const uint8_t *message, size_t len)
{
    unsigned id = dns_get16(message);
    struct dns_link_ask *ask = up->slots[(id ^ up->id_mask) % DNS_LINK_ASKS_MAX];
    int tenths;

    if (ask == NULL || !ask->is_sent || wire_id(up, ask->slot) != id ||
        !dns_forward_matches(ask->question, message, len)) {
        up->strays++;
        return;
    }
    up->strays = 0;
    tenths = dns_forward_keepalive(message, len);
    if (tenths >= 0) {
        up->idle_ms = (uint64_t)tenths * 100 < IDLE_MAX_MS ? (uint64_t)tenths * 100 : IDLE_MAX_MS;
    }
    tell_up(up);
    forget(up, ask);
    ask->done(ask, message, len, DNS_LINK_TIMED_OUT);
}

/* False if these are not answers. */
static bool take_answers(struct dns_link *up)
{
    size_t at = 0;

    while (up->in_len - at >= 2 && up->in_len - at - 2 >= dns_get16(up->in + at)) {
        size_t len = dns_get16(up->in + at);

        if (len < DNS_HEADER_LEN || up->strays > STRAYS_MAX) {
            return false;
        }
        take_answer(up, up->in + at + 2, len);
        at += 2 + len;
    }
    memmove(up->in, up->in + at, up->in_len - at);
    up->in_len -= at;
    return true;
}

/* False if the connection is over. done() of what is answered never ends it. */
static bool receive(struct dns_link *up)
{
    do { /* what TLS holds wakes nobody */
        ssize_t n = stream_receive(&up->stream, up->in + up->in_len, IN_ROOM - up->in_len);

        if (n < 0) {
            return n == -EAGAIN;
        }
        up->heard_ms = now_ms(up);
        up->in_len += (size_t)n;
        if (n == 0 || !take_answers(up)) {
            return false;
        }
    } while (stream_has_input(&up->stream));
    return true;
}

/* ---- dialling ---- */

static void say_trace(void *user, const char *what)
{
    (void)user;
    say(command, "%s", what);
}

static void address_failed(struct dns_link *up, const char *why, bool is_absent)
{
    disconnect(up);
    up->address = (up->address + 1) % up->config.address_count;
    up->failed_addresses++;
    if (up->failed_addresses < up->config.address_count) {
        return; /* the task tries the next */
    }
    up->failed_addresses = 0;
    up->pause_until_ms = now_ms(up) + PAUSE_MS;
    tell_down(up, why, is_absent);
    fail_all(up, DNS_LINK_UNREACHABLE);
}

static void on_ready(struct loop_io *io, uint32_t events);

/* Watches the connection's descriptor for poll(2)'s `wanted`; `is_new`: it is another one, even with the same number. */
static bool watch(struct dns_link *up, int fd, bool is_new, short wanted)
{
    uint32_t events =
        ((wanted & POLLIN) != 0 ? (uint32_t)EPOLLIN : 0) | ((wanted & POLLOUT) != 0 ? (uint32_t)EPOLLOUT : 0);
    int rc = 0;

    if (up->io.fd != fd || is_new) {
        loop_remove(up->config.loop, &up->io);
        up->io = (struct loop_io){on_ready, fd};
        rc = loop_add(up->config.loop, &up->io, events);
        up->io.fd = rc == 0 ? fd : -1;
    } else if (up->events != events) {
        rc = loop_modify(up->config.loop, &up->io, events);
    }
    up->events = events;
    return rc == 0;
}

static void dial_failed(struct dns_link *up, int status, const struct socks6_dial_result *result)
{
    char why[sizeof result->error];

    dns_query_dial_error(status, result, why, sizeof why);
    address_failed(up, why, dns_query_is_absent(status, result));
}

static void dial_succeeded(struct dns_link *up)
{
    loop_remove(up->config.loop, &up->io);
    loop_timer_cancel(up->config.loop, &up->idle);
    reach_free(up->reach);
    up->reach = NULL;
    up->state = LINK_OPEN;
    up->failed_addresses = 0;
    up->out_len = up->out_sent = 0; /* all of it was sent */
    up->heard_ms = now_ms(up);
    if (!watch(up, up->stream.fd, true, stream_events(&up->stream, true, false))) {
        address_failed(up, "out of memory", false);
        return;
    }
    loop_defer(up->config.loop, &up->task); /* which also reads what came with the reply */
}

static void dial_goes_on(struct dns_link *up)
{
    unsigned fds = reach_fd_count(up->reach);
    bool is_new = fds != up->reach_fds;
    int timeout_ms = reach_timeout_ms(up->reach);

    up->reach_fds = fds;
    if (!watch(up, reach_fd(up->reach), is_new, reach_events(up->reach))) {
        address_failed(up, "out of memory", false);
        return;
    }
    loop_timer_set(up->config.loop, &up->idle, timeout_ms >= 0 ? (uint64_t)timeout_ms : up->config.timeout_ms);
}

static void dial_is(struct dns_link *up, int status, const struct socks6_dial_result *result)
{
    if (status == SOCKS6_DIAL_IN_PROGRESS) {
        dial_goes_on(up);
    } else if (status == SOCKS6_DIAL_OK) {
        dial_succeeded(up);
    } else {
        dial_failed(up, status, result);
    }
}

static void dial_step(struct dns_link *up)
{
    struct socks6_dial_result result;
    int status = reach_step(up->reach, &up->stream, &result);

    dial_is(up, status, &result);
}

static void start_dial(struct dns_link *up)
{
    struct reach_config config = {.shared = up->config.shared,
                                  .is_repeatable = true,
                                  .no_early_data = up->config.no_early_data,
                                  .no_fast_open = up->config.no_fast_open};
    struct socks6_dial_result result;

    fill_out(up);
    socks6_dial_config_init(&config.dial);
    config.dial.proxy = up->config.proxy;
    config.dial.proxy_addresses = &up->config.addresses[up->address];
    config.dial.proxy_address_count = 1;
    config.dial.addr = dns_query_destination();
    config.dial.timeout_ms = up->config.timeout_ms;
    config.dial.early = (struct socks6_slice){up->out, up->out_len};
    config.dial.trace = up->config.verbose ? up->config.trace : NULL;
    config.dial.trace_user = up->config.user;
    up->state = LINK_DIALLING;
    up->idle_ms = IDLE_MS;
    up->reach_fds = 0;
    dial_is(up, reach_start(&config, &up->reach, &up->stream, &result), &result);
}

/* ---- events ---- */

static void send_out(struct dns_link *up)
{
    ssize_t n;

    fill_out(up);
    if (up->out_len > 0) {
        n = stream_send(&up->stream, up->out + up->out_sent, up->out_len - up->out_sent);
    } else {
        n = stream_flush(&up->stream);
    }
    if (n < 0 && n != -EAGAIN) {
        connection_lost(up);
        return;
    }
    up->out_sent += n > 0 ? (size_t)n : 0;
    if (up->out_sent == up->out_len) {
        up->out_sent = up->out_len = 0;
    }
    if (!watch(up, up->stream.fd, false,
               stream_events(&up->stream, true, up->out_len > 0 || !TAILQ_EMPTY(&up->unsent)))) {
        connection_lost(up);
    }
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct dns_link *up = LOOP_OWNER(io, struct dns_link, io);

    if (up->state == LINK_DIALLING) {
        dial_step(up);
        return;
    }
    if ((events & ~(uint32_t)EPOLLOUT) != 0 && !receive(up)) {
        connection_lost(up);
        return;
    }
    if ((events & EPOLLOUT) != 0) {
        send_out(up);
    }
}

/* Also the dial's timer. */
static void on_idle(struct loop_timer *timer)
{
    struct dns_link *up = LOOP_OWNER(timer, struct dns_link, idle);

    if (up->state == LINK_DIALLING) {
        dial_step(up);
    } else if (up->ask_count == 0) {
        disconnect(up);
    }
}

static void on_deadline(struct loop_timer *timer)
{
    struct dns_link *up = LOOP_OWNER(timer, struct dns_link, deadline);
    struct dns_link_ask *ask;
    bool is_silent = false;

    while ((ask = TAILQ_FIRST(&up->all)) != NULL && ask->deadline_ms <= now_ms(up)) {
        is_silent = is_silent || (ask->is_sent && up->heard_ms < ask->sent_ms);
        fail(up, ask, DNS_LINK_TIMED_OUT);
    }
    if (is_silent && up->state == LINK_OPEN) {
        connection_lost(up);
    }
    loop_defer(up->config.loop, &up->task);
}

static void set_timers(struct dns_link *up)
{
    const struct dns_link_ask *first = TAILQ_FIRST(&up->all);

    if (first != NULL) {
        loop_timer_set(up->config.loop, &up->deadline,
                       first->deadline_ms > now_ms(up) ? first->deadline_ms - now_ms(up) : 0);
    } else {
        loop_timer_cancel(up->config.loop, &up->deadline);
    }
    if (up->state == LINK_OPEN && first != NULL) {
        loop_timer_cancel(up->config.loop, &up->idle);
    } else if (up->state == LINK_OPEN && !loop_timer_is_armed(&up->idle)) {
        loop_timer_set(up->config.loop, &up->idle, up->idle_ms);
    }
}

/* After events. */
static void on_task(struct loop_task *task)
{
    struct dns_link *up = LOOP_OWNER(task, struct dns_link, task);

    if (up->state == LINK_OPEN && stream_has_input(&up->stream) && !receive(up)) {
        connection_lost(up);
    }
    if (up->state == LINK_OPEN) {
        send_out(up);
    }
    if (up->state == LINK_IDLE && !TAILQ_EMPTY(&up->unsent)) {
        if (now_ms(up) < up->pause_until_ms) {
            fail_all(up, DNS_LINK_UNREACHABLE);
        } else {
            start_dial(up);
        }
    }
    set_timers(up);
}

/* ---- life ---- */

int dns_link_new(const struct dns_link_config *config, struct dns_link **out)
{
    struct dns_link *up = calloc(1, sizeof *up);

    if (up == NULL) {
        return -ENOMEM;
    }
    up->out = malloc(OUT_ROOM);
    up->in = malloc(IN_ROOM);
    if (up->out == NULL || up->in == NULL) {
        free(up->out);
        free(up->in);
        free(up);
        return -ENOMEM;
    }
    if (getrandom(&up->id_mask, sizeof up->id_mask, 0) != sizeof up->id_mask) {
        up->id_mask = 0; /* not on Linux, for two bytes */
    }
    up->config = *config;
    up->config.changed = config->changed != NULL ? config->changed : say_changed;
    up->config.trace = config->trace != NULL ? config->trace : say_trace;
    up->stream.fd = -1;
    up->io.fd = -1;
    up->task.run = on_task;
    up->deadline.expired = on_deadline;
    up->idle.expired = on_idle;
    TAILQ_INIT(&up->all);
    TAILQ_INIT(&up->unsent);
    *out = up;
    return 0;
}

void dns_link_free(struct dns_link *up)
{
    if (up == NULL) {
        return;
    }
    disconnect(up);
    fail_all(up, DNS_LINK_ENDED);
    loop_timer_cancel(up->config.loop, &up->deadline);
    loop_timer_cancel(up->config.loop, &up->idle);
    loop_defer_cancel(up->config.loop, &up->task);
    free(up->out);
    free(up->in);
    free(up);
}
